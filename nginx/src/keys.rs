//! By what a worker names its pools, connections and requests.
//!
//! A key carries a generation: one that outlives what it names finds nothing, never what came to the
//! same place afterwards. Each kind has a type of its own, so that none is taken for another.

use slotmap::{Key, KeyData, SlotMap, new_key_type};

new_key_type! {
    /// The connections to one address.
    pub(crate) struct PoolKey;
    /// A connection to an application.
    pub(crate) struct RealKey;
    /// A request of nginx's FastCGI module.
    pub(crate) struct FakeKey;
}

pub(crate) type Pools = SlotMap<PoolKey, crate::pool::Pool>;
pub(crate) type Reals = SlotMap<RealKey, crate::real::Real>;
pub(crate) type Fakes = SlotMap<FakeKey, crate::fake::Fake>;

/// A key as a number, for memory that nginx hands back.
pub(crate) fn number(key: impl Key) -> u64 {
    key.data().as_ffi()
}

/// The key of a number. Any number is one; a wrong one finds nothing.
pub(crate) fn key<K: Key>(number: u64) -> K {
    KeyData::from_ffi(number).into()
}
