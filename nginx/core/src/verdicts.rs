//! What the workers have found out about applications, in memory that they share: none has to ask what
//! another one knows, also after a reload. It knows nothing of nginx.
//!
//! An entry is one word for the address, by its hash, and one for the verdict. Writers do not wait for
//! each other: when two write at the same time one of the verdicts stays, and both were true. A hash
//! that is another address's, or a verdict that is torn from its address, costs a request the way
//! that it takes and nothing else: before a connection is shared the application is asked on it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use afcgi_proto::Verdict;

/// Entries among which an address may be.
const WAYS: usize = 8;

/// One address. All zero: unused.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Entry {
    address: AtomicU64,
    /// The verdict: see [`pack`].
    verdict: AtomicU64,
}

/// A time that all processes of this machine agree on.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    pub now: Instant,
    /// Milliseconds of the system's clock that never goes back, at the same time.
    pub millis: u64,
}

/// Bits of a verdict: its kind, how often in a row, and the time to ask in milliseconds.
const KIND: u32 = 3;
const TIMES: u32 = 8;

/// A verdict as a word that is not 0.
fn pack(verdict: Verdict, clock: Clock) -> u64 {
    let (kind, times, ask_at) = match verdict {
        Verdict::Unknown => (1, 0, clock.now),
        Verdict::Shared { controlled: false } => (2, 0, clock.now),
        Verdict::Shared { controlled: true } => (3, 0, clock.now),
        Verdict::Single {
            silent,
            times,
            ask_at,
        } => (4 + u64::from(silent), u64::from(times), ask_at),
    };
    let wait = ask_at.saturating_duration_since(clock.now).as_millis();
    let at = (clock.millis).saturating_add(u64::try_from(wait).unwrap_or(u64::MAX));
    let most = u64::MAX >> (KIND + TIMES);
    kind | times << KIND | at.min(most) << (KIND + TIMES)
}

fn unpack(word: u64, clock: Clock) -> Option<Verdict> {
    let at = word >> (KIND + TIMES);
    let wait = Duration::from_millis(at.saturating_sub(clock.millis));
    let times = (word >> KIND & 0xFF) as u8;
    let single = |silent| Verdict::Single {
        silent,
        times,
        ask_at: clock.now.checked_add(wait).unwrap_or(clock.now),
    };
    match word & 0b111 {
        1 => Some(Verdict::Unknown),
        2 => Some(Verdict::Shared { controlled: false }),
        3 => Some(Verdict::Shared { controlled: true }),
        4 => Some(single(false)),
        5 => Some(single(true)),
        _ => None,
    }
}

/// The entries among which an address may be, and the word that stands for it.
fn ways(table: &[Entry], address: u64) -> (impl Iterator<Item = &Entry>, u64) {
    let first = usize::try_from(address % (table.len().max(1) as u64)).unwrap_or(0);
    let ways = table.iter().cycle().skip(first).take(WAYS.min(table.len()));
    (ways, address.max(1))
}

/// What is known of the application at an address.
pub fn get(table: &[Entry], address: u64, clock: Clock) -> Option<Verdict> {
    let (mut ways, address) = ways(table, address);
    let entry = ways.find(|entry| entry.address.load(Ordering::Acquire) == address)?;
    unpack(entry.verdict.load(Ordering::Acquire), clock)
}

/// Something is known of the application at an address. If there is no room the entry goes that is to
/// be asked first.
pub fn put(table: &[Entry], address: u64, verdict: Verdict, clock: Clock) {
    let (ways, address) = ways(table, address);
    let mut place = None;
    for entry in ways {
        match entry.address.load(Ordering::Acquire) {
            found if found == address => {
                place = Some((0, entry));
                break;
            }
            0 => {
                place = Some((0, entry));
                break;
            }
            _ => {
                let age = entry.verdict.load(Ordering::Relaxed) >> (KIND + TIMES);
                if place.is_none_or(|(least, _)| age < least) {
                    place = Some((age, entry));
                }
            }
        }
    }
    if let Some((_, entry)) = place {
        entry.verdict.store(0, Ordering::Release);
        entry.address.store(address, Ordering::Release);
        entry.verdict.store(pack(verdict, clock), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entries: usize) -> Vec<Entry> {
        (0..entries).map(|_| Entry::default()).collect()
    }

    fn clock() -> Clock {
        Clock {
            now: Instant::now(),
            millis: 1_000_000,
        }
    }

    fn all(now: Instant) -> [Verdict; 5] {
        let single = |silent, times| Verdict::Single {
            silent,
            times,
            ask_at: now + Duration::from_secs(300),
        };
        [
            Verdict::Unknown,
            Verdict::Shared { controlled: false },
            Verdict::Shared { controlled: true },
            single(false, 1),
            single(true, 255),
        ]
    }

    #[test]
    fn a_verdict_comes_back_as_it_was() {
        let table = table(64);
        let clock = clock();
        for (n, verdict) in all(clock.now).into_iter().enumerate() {
            let address = 10 + n as u64;
            assert_eq!(get(&table, address, clock), None);
            put(&table, address, verdict, clock);
            assert_eq!(get(&table, address, clock), Some(verdict));
        }
        for (n, verdict) in all(clock.now).into_iter().enumerate() {
            assert_eq!(get(&table, 10 + n as u64, clock), Some(verdict));
        }
    }

    #[test]
    fn time_goes_on_for_everybody() {
        let table = table(1);
        let clock = clock();
        let ask_at = clock.now + Duration::from_secs(10);
        let verdict = Verdict::Single {
            silent: false,
            times: 1,
            ask_at,
        };
        put(&table, 7, verdict, clock);
        let later = Clock {
            now: clock.now + Duration::from_secs(4),
            millis: clock.millis + 4000,
        };
        assert_eq!(get(&table, 7, later), Some(verdict));
        let over = Clock {
            now: clock.now + Duration::from_secs(11),
            millis: clock.millis + 11_000,
        };
        assert!(get(&table, 7, over).is_some_and(|verdict| verdict.is_due(over.now)));
    }

    #[test]
    fn a_full_table_forgets_and_never_confuses() {
        let table = table(16);
        let clock = clock();
        for n in 1..10_000_u64 {
            let verdict = Verdict::Single {
                silent: false,
                times: (n % 200) as u8,
                ask_at: clock.now + Duration::from_secs(n),
            };
            put(&table, n * n, verdict, clock);
            assert_eq!(get(&table, n * n, clock), Some(verdict));
        }
        for n in 1..10_000_u64 {
            if let Some(Verdict::Single { times, .. }) = get(&table, n * n, clock) {
                assert_eq!(u64::from(times), n % 200);
            }
        }
    }

    #[test]
    fn no_table_and_no_address() {
        let clock = clock();
        put(&[], 3, Verdict::Unknown, clock);
        assert_eq!(get(&[], 3, clock), None);
        let table = table(2);
        put(&table, 0, Verdict::Shared { controlled: true }, clock);
        assert!(get(&table, 0, clock).is_some());
    }
}
