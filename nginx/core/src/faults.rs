//! Mistakes that a test has the module make, to see what becomes of them: with the feature `faults`
//! (`nginx/build.sh --faults`), when `AFCGI_FAULT` says which. Otherwise nothing is here.

#[cfg(feature = "faults")]
mod made {
    use std::cell::Cell;

    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Fault {
        None,
        Panics,
        Misdirects,
    }

    thread_local! {
        static FAULT: Cell<Fault> = const { Cell::new(Fault::None) };
        static CALLS: Cell<u32> = const { Cell::new(0) };
    }

    /// A worker process begins: only now nginx has set what its configuration says of the environment.
    pub fn begin() {
        FAULT.set(match std::env::var("AFCGI_FAULT").as_deref() {
            Ok("panics") => Fault::Panics,
            Ok("misdirects") => Fault::Misdirects,
            _ => Fault::None,
        });
    }

    fn is_time(fault: Fault, every: u32) -> bool {
        if FAULT.get() != fault {
            return false;
        }
        CALLS.set(CALLS.get().wrapping_add(1));
        CALLS.get() % every == 0
    }

    /// Panics now and then: at the beginning of a callback, or where one has changed something.
    #[expect(clippy::panic, reason = "that is the point")]
    pub fn point() {
        // A prime, so that no place is spared.
        if is_time(Fault::Panics, 997) {
            panic!("injected");
        }
    }

    /// Whether to take a connection to another address.
    pub fn misdirects() -> bool {
        is_time(Fault::Misdirects, 7)
    }
}

#[cfg(not(feature = "faults"))]
mod made {
    pub fn begin() {}

    #[inline(always)]
    pub fn point() {}

    #[inline(always)]
    pub fn misdirects() -> bool {
        false
    }
}

pub use made::{begin, misdirects, point};
