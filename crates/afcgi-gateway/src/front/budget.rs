//! How many bytes of responses wait for clients of HTTP/2 to read them.
//!
//! A client of HTTP/2 may ask for hundreds of responses, give them all the room they want, and read none. So what waits
//! is counted, on each connection and on all, and a connection may hold a part of what is left of the whole: the first
//! that do not read get large parts, the more there are the smaller are those, and for one that holds little there is
//! always some. What waits is a copy of its own size, since a piece may be a small part of a large buffer.
//!
//! ```text
//!                                 poll_room                                hold
//!  the application has content ──────────────> there is room, and content ──────> a Piece, counted until it is dropped
//! ```

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::time::{Instant, Sleep};

/// The part of what is left that a connection may hold.
const PART: usize = 32;
/// Bytes that a connection may hold whatever the others do, and the most of a piece.
pub(crate) const FLOOR: usize = 64 << 10;
/// After so long it is looked again whether others have left something.
const AGAIN: Duration = Duration::from_secs(1);

/// What waits on all connections.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    held: AtomicUsize,
}

impl Budget {
    /// Bytes that wait.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

/// What waits on one connection.
#[derive(Debug)]
pub(crate) struct Share {
    all: Arc<Budget>,
    /// Bytes that may wait on all connections, but for what each may hold anyway.
    most: usize,
    held: AtomicUsize,
    /// How often some of it was sent, or given up.
    released: AtomicU64,
    waiting: Mutex<Waiting>,
}

/// Those that wait for room, in the order in which they came.
#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    queue: BTreeMap<u64, Waker>,
}

impl Share {
    pub(crate) fn new(all: Arc<Budget>, most: usize) -> Arc<Self> {
        Arc::new(Self {
            all,
            most,
            held: AtomicUsize::new(0),
            released: AtomicU64::new(0),
            waiting: Mutex::default(),
        })
    }

    /// Whether a piece more may wait.
    pub(crate) fn has_room(&self) -> bool {
        let part = self.most.saturating_sub(self.all.held()) / PART;
        self.held.load(Ordering::Acquire) < part.max(FLOOR)
    }

    /// Tells whether the client takes something.
    pub(crate) fn released(&self) -> u64 {
        self.released.load(Ordering::Relaxed)
    }

    /// Makes a piece of content. It is counted whether or not there is room.
    pub(crate) fn hold(self: &Arc<Self>, content: &[u8]) -> Piece {
        self.all.held.fetch_add(content.len(), Ordering::AcqRel);
        self.held.fetch_add(content.len(), Ordering::AcqRel);
        Piece {
            rest: Bytes::copy_from_slice(content),
            held: Some(Held {
                share: Arc::clone(self),
                count: content.len(),
            }),
        }
    }

    /// Wakes the next one, if there is room for it. Whoever was woken, and took nothing, is to call it.
    pub(crate) fn pass_on(&self) {
        if !self.has_room() {
            return;
        }
        let next = self.lock().queue.pop_first();
        if let Some((_, waker)) = next {
            waker.wake();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the queue of a connection.
#[derive(Debug)]
pub(crate) struct Ticket {
    share: Arc<Share>,
    number: Option<u64>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Ticket {
    pub(crate) fn new(share: Arc<Share>) -> Self {
        Self {
            share,
            number: None,
            timer: None,
        }
    }

    pub(crate) fn share(&self) -> &Arc<Share> {
        &self.share
    }

    /// Returns when a piece more may wait.
    pub(crate) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.share.has_room() {
                self.leave();
                return Poll::Ready(());
            }
            {
                let mut waiting = self.share.lock();
                let number = *self.number.get_or_insert_with(|| {
                    waiting.next += 1;
                    waiting.next
                });
                waiting.queue.insert(number, cx.waker().clone());
            }
            // Room that was made before it stood in the queue was made for nobody.
            if self.share.has_room() {
                continue;
            }
            let timer = self
                .timer
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(AGAIN)));
            ready!(timer.as_mut().poll(cx));
            timer.as_mut().reset(Instant::now() + AGAIN);
        }
    }

    fn leave(&mut self) {
        self.timer = None;
        if let Some(number) = self.number.take() {
            self.share.lock().queue.remove(&number);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.number.is_some() {
            self.leave();
            // It may have been its turn.
            self.share.pass_on();
        }
    }
}

/// Content that waits to be sent.
#[derive(Debug, Default)]
pub(crate) struct Piece {
    rest: Bytes,
    held: Option<Held>,
}

/// Bytes that are counted until they are sent or given up.
#[derive(Debug)]
struct Held {
    share: Arc<Share>,
    count: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        let Self { share, count } = self;
        share.held.fetch_sub(*count, Ordering::AcqRel);
        share.all.held.fetch_sub(*count, Ordering::AcqRel);
        share.released.fetch_add(1, Ordering::Relaxed);
        share.pass_on();
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.rest.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.rest.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.rest.advance(count);
        if self.rest.is_empty() {
            // It is freed now: whoever sends it may keep the empty rest for a while.
            self.rest = Bytes::new();
            self.held = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_become_smaller_and_the_sum_is_bounded() {
        let (most, connections) = (8 << 20, 300);
        let all = Arc::new(Budget::default());
        let mut pieces = Vec::new();
        let mut held = Vec::new();
        for _ in 0..connections {
            let share = Share::new(Arc::clone(&all), most);
            while share.has_room() {
                pieces.push(share.hold(&[0; FLOOR]));
            }
            held.push(share.held.load(Ordering::Relaxed));
        }
        assert!(held[0] >= most / PART && held[0] <= most / PART + FLOOR);
        assert!(held.is_sorted_by(|a, b| a >= b), "{held:?}");
        assert_eq!(held.last(), Some(&FLOOR));
        assert!(
            all.held() <= most + connections * 2 * FLOOR,
            "{}",
            all.held()
        );
        drop(pieces);
        assert_eq!(all.held(), 0);
    }

    #[test]
    fn room_goes_to_one_after_the_other() {
        let share = Share::new(Arc::default(), 0);
        let cx = &mut Context::from_waker(Waker::noop());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let _entered = runtime.enter();
        let piece = share.hold(&[0; FLOOR]);
        let (one, one_woken) = flagged();
        let (other, other_woken) = flagged();
        let mut tickets = [(); 3].map(|()| Ticket::new(Arc::clone(&share)));
        let [first, second, third] = &mut tickets;
        assert!(first.poll_room(&mut Context::from_waker(&one)).is_pending());
        assert!(
            second
                .poll_room(&mut Context::from_waker(&other))
                .is_pending()
        );
        assert!(third.poll_room(cx).is_pending());
        drop(piece);
        // The first is woken, and has nothing to send: the next one is.
        assert_eq!((one_woken(), other_woken()), (true, false));
        assert!(first.poll_room(cx).is_ready());
        share.pass_on();
        assert!(other_woken());
        // One that is woken and goes away passes it on, too.
        drop(tickets);
        assert!(share.lock().queue.is_empty());
    }

    /// A waker that remembers that it was woken.
    fn flagged() -> (Waker, impl Fn() -> bool) {
        struct Flag(std::sync::atomic::AtomicBool);
        impl std::task::Wake for Flag {
            fn wake(self: Arc<Self>) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let flag = Arc::new(Flag(false.into()));
        let waker = Waker::from(Arc::clone(&flag));
        (waker, move || flag.0.load(Ordering::Relaxed))
    }

    #[test]
    fn a_piece_is_counted_until_it_is_sent() {
        let all = Arc::new(Budget::default());
        let share = Share::new(Arc::clone(&all), 1 << 20);
        let mut piece = share.hold(b"hello");
        piece.advance(4);
        assert_eq!((all.held(), share.released()), (5, 0));
        piece.advance(1);
        assert_eq!((all.held(), share.released()), (0, 1));
        drop(piece);
        assert_eq!((all.held(), share.released()), (0, 1));
    }
}
