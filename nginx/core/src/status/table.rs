//! The table in shared memory: an entry for each worker process and address.
//!
//! An entry has one writer, the process that owns it, so its numbers are written by plain stores. Who
//! owns it is decided by one atomic exchange:
//!
//! ```text
//!  unused ──────> owned ──────> free            (dropped: gauges are 0, totals stay)
//!     claim         ^  ^─────────┘
//!                   └── owned by a process that is gone    claim, for the same address
//! ```

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use super::numbers::{Count, Fact, Gauge};

/// Bytes of an address that are kept: a path of a unix socket has no more than 107.
const NAME: usize = 120;

/// The numbers of one worker process for one address. All zero: unused.
#[derive(Debug)]
#[repr(C)]
pub struct Entry {
    /// The process that may write; 0 if there is none.
    owner: AtomicU32,
    /// Bytes of the name, which then stays for good; 0 until it is there.
    length: AtomicU32,
    name: [AtomicU8; NAME],
    gauges: [AtomicU64; Gauge::ALL.len()],
    counts: [AtomicU64; Count::ALL.len()],
    /// 0: unknown; 1: no; 2: yes.
    facts: [AtomicU64; Fact::ALL.len()],
}

impl Entry {
    fn name(&self) -> Option<Vec<u8>> {
        let length = self.length.load(Ordering::Acquire);
        let length = usize::try_from(length).ok().filter(|&length| length > 0)?;
        let bytes = self.name.iter().take(length);
        Some(bytes.map(|byte| byte.load(Ordering::Relaxed)).collect())
    }

    fn is_named(&self, name: &[u8]) -> bool {
        self.length.load(Ordering::Acquire) as usize == name.len()
            && (self.name.iter().zip(name))
                .all(|(have, want)| have.load(Ordering::Relaxed) == *want)
    }

    /// Makes `process` the owner, unless another one was quicker.
    fn take(&self, before: u32, process: u32) -> bool {
        let taken = self
            .owner
            .compare_exchange(before, process, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok();
        if taken {
            self.clear();
        }
        taken
    }

    /// Nothing of what is now outlasts a process.
    fn clear(&self) {
        for value in self.gauges.iter().chain(&self.facts) {
            value.store(0, Ordering::Relaxed);
        }
    }

    fn give_back(&self) {
        self.clear();
        self.owner.store(0, Ordering::Release);
    }
}

/// Where the requests to one address are counted. Clones count in the same place; the last one that
/// is dropped gives it back. The default counts nowhere.
#[derive(Clone, Debug, Default)]
pub struct Counts(Option<Rc<Owned>>);

/// An entry that this process owns. The table lives at least as long.
#[derive(Debug)]
struct Owned(&'static Entry);

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

impl Counts {
    /// An entry for an address: one that was left by a process that is gone, so that its totals go on,
    /// or an unused one. `None`: there is neither.
    pub fn claim(
        entries: &'static [Entry],
        address: &str,
        process: u32,
        mut is_alive: impl FnMut(u32) -> bool,
    ) -> Option<Self> {
        let name = shorten(address).as_bytes();
        let mut is_free = |owner: u32| owner == 0 || (owner != process && !is_alive(owner));
        for entry in entries.iter().filter(|entry| entry.is_named(name)) {
            let owner = entry.owner.load(Ordering::Relaxed);
            if is_free(owner) && entry.take(owner, process) {
                return Some(Self(Some(Rc::new(Owned(entry)))));
            }
        }
        for entry in entries {
            if entry.length.load(Ordering::Acquire) != 0 {
                continue;
            }
            let owner = entry.owner.load(Ordering::Relaxed);
            if !is_free(owner) || !entry.take(owner, process) {
                continue;
            }
            // Somebody may have used it since it was looked at.
            if entry.length.load(Ordering::Acquire) != 0 {
                entry.give_back();
                continue;
            }
            for (to, from) in entry.name.iter().zip(name) {
                to.store(*from, Ordering::Relaxed);
            }
            entry.length.store(name.len() as u32, Ordering::Release);
            return Some(Self(Some(Rc::new(Owned(entry)))));
        }
        None
    }

    /// Gives back what an earlier process with the same number has left.
    pub fn disown(entries: &[Entry], process: u32) {
        for entry in entries {
            if entry.owner.load(Ordering::Relaxed) == process {
                entry.give_back();
            }
        }
    }

    /// Whether something else counts in the same place.
    pub fn is_shared(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|owned| Rc::strong_count(owned) > 1)
    }

    pub fn add(&self, count: Count, more: usize) {
        if let Some(owned) = &self.0
            && let Some(value) = owned.0.counts.get(count as usize)
        {
            let sum = value.load(Ordering::Relaxed).wrapping_add(more as u64);
            value.store(sum, Ordering::Relaxed);
        }
    }

    /// One of several that make up a gauge has become `after`.
    pub(super) fn shift(&self, gauge: Gauge, before: u64, after: u64) {
        if let Some(owned) = &self.0
            && let Some(value) = owned.0.gauges.get(gauge as usize)
        {
            let sum = value.load(Ordering::Relaxed);
            value.store(
                sum.wrapping_add(after).wrapping_sub(before),
                Ordering::Relaxed,
            );
        }
    }

    pub fn tell(&self, fact: Fact, said: Option<bool>) {
        if let Some(owned) = &self.0
            && let Some(to) = owned.0.facts.get(fact as usize)
        {
            to.store(said.map_or(0, |yes| 1 + u64::from(yes)), Ordering::Relaxed);
        }
    }
}

/// As much of an address as is kept.
fn shorten(address: &str) -> &str {
    let mut end = address.len().min(NAME);
    while !address.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    // An entry without a name is an unused one.
    match address.get(..end) {
        Some("") | None => "-",
        Some(name) => name,
    }
}

/// The numbers of all processes for one address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub address: String,
    gauges: [u64; Gauge::ALL.len()],
    counts: [u64; Count::ALL.len()],
    facts: [u64; Fact::ALL.len()],
}

impl Summary {
    pub fn gauge(&self, gauge: Gauge) -> u64 {
        self.gauges.get(gauge as usize).copied().unwrap_or(0)
    }

    pub fn count(&self, count: Count) -> u64 {
        self.counts.get(count as usize).copied().unwrap_or(0)
    }

    /// Yes, if a process was told so; `None`: nobody knows.
    pub fn fact(&self, fact: Fact) -> Option<bool> {
        match self.facts.get(fact as usize) {
            Some(2) => Some(true),
            Some(1) => Some(false),
            _ => None,
        }
    }
}

/// The sums for each address, in the order of the addresses, and how many entries are in use. Of
/// processes that are gone the totals count alone.
pub fn summaries(
    entries: &[Entry],
    mut is_alive: impl FnMut(u32) -> bool,
) -> (Vec<Summary>, usize) {
    let mut by_address = BTreeMap::<Vec<u8>, Summary>::new();
    let mut known = BTreeMap::new();
    let mut used = 0;
    for entry in entries {
        let Some(name) = entry.name() else {
            continue;
        };
        used += 1;
        let sum = by_address.entry(name).or_default();
        add(&mut sum.counts, &entry.counts);
        let owner = entry.owner.load(Ordering::Acquire);
        if owner == 0 || !*known.entry(owner).or_insert_with(|| is_alive(owner)) {
            continue;
        }
        add(&mut sum.gauges, &entry.gauges);
        for (most, fact) in sum.facts.iter_mut().zip(&entry.facts) {
            *most = fact.load(Ordering::Relaxed).max(*most);
        }
    }
    let summaries = by_address.into_iter().map(|(name, sum)| Summary {
        address: String::from_utf8_lossy(&name).into_owned(),
        ..sum
    });
    (summaries.collect(), used)
}

fn add<const N: usize>(sums: &mut [u64; N], values: &[AtomicU64; N]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum = sum.wrapping_add(value.load(Ordering::Relaxed));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::Share;
    use super::*;

    pub(crate) fn table(entries: usize) -> &'static [Entry] {
        let entry = || Entry {
            owner: AtomicU32::new(0),
            length: AtomicU32::new(0),
            name: [const { AtomicU8::new(0) }; NAME],
            gauges: Default::default(),
            counts: Default::default(),
            facts: Default::default(),
        };
        (0..entries).map(|_| entry()).collect::<Vec<_>>().leak()
    }

    fn claim(entries: &'static [Entry], address: &str, process: u32) -> Option<Counts> {
        Counts::claim(entries, address, process, |_| true)
    }

    fn all(entries: &[Entry]) -> Vec<Summary> {
        summaries(entries, |_| true).0
    }

    #[test]
    fn processes_are_added_up_by_address() {
        let entries = table(4);
        let one = claim(entries, "a", 1).unwrap();
        let two = claim(entries, "a", 2).unwrap();
        let other = claim(entries, "b", 1).unwrap();
        one.add(Count::Requests, 3);
        two.add(Count::Requests, 4);
        two.shift(Gauge::Waiting, 0, 5);
        other.add(Count::Requests, 6);
        one.tell(Fact::Upgrade, Some(false));
        two.tell(Fact::Upgrade, Some(true));
        other.tell(Fact::Upgrade, Some(false));
        let (found, used) = summaries(entries, |_| true);
        assert_eq!(used, 3);
        let [a, b] = &found[..] else {
            panic!("{found:?}")
        };
        assert_eq!((&*a.address, &*b.address), ("a", "b"));
        assert_eq!(a.count(Count::Requests), 7);
        assert_eq!(b.count(Count::Requests), 6);
        assert_eq!(a.gauge(Gauge::Waiting), 5);
        assert_eq!(a.fact(Fact::Upgrade), Some(true));
        assert_eq!(b.fact(Fact::Upgrade), Some(false));
        assert_eq!(b.fact(Fact::Multiplexes), None);
    }

    #[test]
    fn totals_outlast_a_process_and_gauges_do_not() {
        let entries = table(1);
        let counts = claim(entries, "a", 1).unwrap();
        counts.add(Count::Aborts, 2);
        counts.shift(Gauge::Active, 0, 9);
        counts.tell(Fact::Multiplexes, Some(true));
        std::mem::forget(counts);
        let dead = |process: u32| process != 1;
        let (found, _) = summaries(entries, dead);
        assert_eq!(found[0].gauge(Gauge::Active), 0);
        assert_eq!(found[0].count(Count::Aborts), 2);
        assert_eq!(found[0].fact(Fact::Multiplexes), None);
        // Nobody takes it from one that lives, and not for another address.
        assert!(claim(entries, "a", 2).is_none());
        assert!(Counts::claim(entries, "b", 2, dead).is_none());
        let next = Counts::claim(entries, "a", 2, dead).unwrap();
        next.add(Count::Aborts, 1);
        assert_eq!(all(entries)[0].gauge(Gauge::Active), 0);
        assert_eq!(all(entries)[0].count(Count::Aborts), 3);
    }

    #[test]
    fn an_entry_is_given_back_with_the_last_clone() {
        let entries = table(1);
        let counts = claim(entries, "a", 1).unwrap();
        let clone = counts.clone();
        clone.shift(Gauge::Waiting, 0, 1);
        drop(counts);
        assert_eq!(all(entries)[0].gauge(Gauge::Waiting), 1);
        assert!(claim(entries, "a", 1).is_none());
        drop(clone);
        assert_eq!(all(entries)[0].gauge(Gauge::Waiting), 0);
        assert!(claim(entries, "a", 1).is_some());
    }

    #[test]
    fn a_process_number_that_comes_again() {
        let entries = table(1);
        std::mem::forget(claim(entries, "a", 1).unwrap());
        assert!(claim(entries, "a", 1).is_none());
        Counts::disown(entries, 1);
        assert!(claim(entries, "a", 1).is_some());
    }

    #[test]
    fn a_full_table_is_full() {
        let entries = table(2);
        let _one = claim(entries, "a", 1).unwrap();
        let _two = claim(entries, "b", 1).unwrap();
        assert!(claim(entries, "c", 1).is_none());
        assert!(claim(&[], "a", 1).is_none());
        let nowhere = Counts::default();
        nowhere.add(Count::Requests, 1);
        nowhere.shift(Gauge::Active, 0, 1);
        nowhere.tell(Fact::Upgrade, None);
    }

    #[test]
    fn what_dies_before_it_has_written_a_name_leaves_nothing() {
        let entries = table(1);
        assert!(entries[0].take(0, 7));
        assert!(claim(entries, "a", 1).is_none());
        assert!(all(entries).is_empty());
        assert!(Counts::claim(entries, "a", 1, |process| process != 7).is_some());
    }

    #[test]
    fn long_and_empty_addresses() {
        let entries = table(2);
        let long = "ü".repeat(100);
        let _long = claim(entries, &format!("x{long}"), 1).unwrap();
        let _empty = claim(entries, "", 1).unwrap();
        let found = all(entries);
        assert_eq!(found[0].address, "-");
        assert_eq!(found[1].address, format!("x{}", "ü".repeat(59)));
    }

    #[test]
    fn shares_add_up_and_are_taken_back() {
        let entries = table(2);
        let counts = claim(entries, "a", 1).unwrap();
        let (mut one, mut two) = (Share::new(counts.clone()), Share::new(counts));
        one.show(Gauge::Active, 3);
        two.show(Gauge::Active, 4);
        one.show(Gauge::Active, 2);
        one.retire();
        one.retire();
        one.aborted(2);
        one.aborted(3);
        assert_eq!(all(entries)[0].gauge(Gauge::Active), 6);
        assert_eq!(all(entries)[0].count(Count::Retired), 1);
        assert_eq!(all(entries)[0].count(Count::Aborts), 3);
        drop(one);
        assert_eq!(all(entries)[0].gauge(Gauge::Active), 4);
        two.transfer(claim(entries, "b", 1).unwrap());
        two.show(Gauge::Active, 1);
        assert_eq!(all(entries)[0].gauge(Gauge::Active), 0);
        assert_eq!(all(entries)[1].gauge(Gauge::Active), 1);
    }

    /// Threads stand for processes here: no two own an entry, and nothing that was counted is lost.
    #[test]
    fn claims_at_the_same_time() {
        let entries = table(3);
        std::thread::scope(|scope| {
            for process in 1..=3 {
                scope.spawn(move || {
                    for _ in 0..1000 {
                        let counts = claim(entries, "a", process).expect("there are as many");
                        counts.add(Count::Requests, 1);
                    }
                });
            }
        });
        assert_eq!(all(entries)[0].count(Count::Requests), 3000);
    }
}
