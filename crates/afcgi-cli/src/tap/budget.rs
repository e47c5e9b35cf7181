//! What the observer may hold, for all connections together.

use std::cell::Cell;
use std::rc::Rc;

/// Requests that are followed at a time, on all connections.
pub(crate) const REQUESTS: usize = 65_536;
/// Bytes of names, heads, STDERR and records of them that are held at a time.
pub(crate) const TEXT: usize = 64 * 1024 * 1024;

/// What is left of both.
#[derive(Debug)]
pub(crate) struct Budget {
    requests: Cell<usize>,
    text: Cell<usize>,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(REQUESTS, TEXT)
    }
}

impl Budget {
    pub(crate) fn new(requests: usize, text: usize) -> Self {
        Self {
            requests: Cell::new(requests),
            text: Cell::new(text),
        }
    }

    /// Room for a request; `None`: there is none.
    pub(crate) fn request(self: &Rc<Self>) -> Option<Share> {
        self.requests.set(self.requests.get().checked_sub(1)?);
        Some(Share {
            budget: Rc::clone(self),
            requests: 1,
            text: 0,
        })
    }

    /// Room for text alone.
    pub(crate) fn share(self: &Rc<Self>) -> Share {
        Share {
            budget: Rc::clone(self),
            requests: 0,
            text: 0,
        }
    }
}

/// What a request has of the budget. It gives that back.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Rc<Budget>,
    requests: usize,
    text: usize,
}

impl Share {
    /// Room for so many bytes more; whether there was.
    pub(crate) fn take(&mut self, bytes: usize) -> bool {
        match self.budget.text.get().checked_sub(bytes) {
            Some(left) => {
                self.budget.text.set(left);
                self.text += bytes;
                true
            }
            None => false,
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let budget = &self.budget;
        budget.requests.set(budget.requests.get() + self.requests);
        budget.text.set(budget.text.get() + self.text);
    }
}
