//! By what a worker names its pools, connections and requests.
//!
//! A key carries a generation: one that outlives what it names finds nothing, never what came to the
//! same place afterwards. Each kind has a type of its own, so that none is taken for another.

use slotmap::{Key, KeyData, new_key_type};

new_key_type! {
    /// The connections to one address.
    pub struct PoolKey;
    /// A connection to an application.
    pub struct RealKey;
    /// A request of nginx's FastCGI module.
    pub struct FakeKey;
}

/// A key as a number, for memory that nginx hands back.
pub fn number(key: impl Key) -> u64 {
    key.data().as_ffi()
}

/// The key of a number. Any number is one; a wrong one finds nothing.
pub fn key<K: Key>(number: u64) -> K {
    KeyData::from_ffi(number).into()
}
