//! Where bytes go that are to be kept or shown: by a thread of its own, so that nobody waits for a slow disk or a reader that stops.

use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle, sleep};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Bytes that may wait to be written. What comes when there is no room is dropped, and counted.
const WAITING: usize = 16 * 1024 * 1024;

/// How long the thread leaves what comes alone: to be woken for each piece would cost more than all else that is done with it.
const PAUSE: Duration = Duration::from_millis(5);

/// A way out.
#[derive(Debug)]
pub(crate) struct Output {
    sender: Sender<Vec<u8>>,
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
    most: usize,
    /// Pieces that were dropped, and their bytes.
    pub(crate) dropped: (u64, u64),
}

#[derive(Debug)]
struct Shared {
    waiting: AtomicUsize,
    error: Mutex<Option<io::Error>>,
    /// When it cannot be written to any more.
    broken: CancellationToken,
}

impl Output {
    pub(crate) fn start(target: impl Write + Send + 'static) -> io::Result<Self> {
        Self::start_with(target, WAITING)
    }

    fn start_with(target: impl Write + Send + 'static, most: usize) -> io::Result<Self> {
        let (sender, receiver) = channel();
        let shared = Arc::new(Shared {
            waiting: AtomicUsize::new(0),
            error: Mutex::new(None),
            broken: CancellationToken::new(),
        });
        let its = Arc::clone(&shared);
        let thread = Builder::new()
            .name(String::from("output"))
            .spawn(move || its.write(target, &receiver))?;
        Ok(Self {
            sender,
            shared,
            thread,
            most,
            dropped: (0, 0),
        })
    }

    /// Writes, or drops it.
    pub(crate) fn push(&mut self, bytes: Vec<u8>) {
        let length = bytes.len();
        // Only this adds to it.
        let waiting = self.shared.waiting.load(Ordering::Relaxed);
        if waiting + length > self.most && waiting > 0 {
            self.dropped.0 += 1;
            self.dropped.1 += length as u64;
            return;
        }
        self.shared.waiting.fetch_add(length, Ordering::Relaxed);
        // The thread takes what comes until this is dropped.
        _ = self.sender.send(bytes);
    }

    /// Cancelled when it cannot be written to any more.
    pub(crate) fn broken(&self) -> CancellationToken {
        self.shared.broken.clone()
    }

    /// Waits until all is written; says why it could not be.
    pub(crate) fn finish(self) -> io::Result<()> {
        drop(self.sender);
        // One that has panicked has said so.
        _ = self.thread.join();
        let mut error = self
            .shared
            .error
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match error.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

impl Shared {
    fn write(&self, mut target: impl Write, receiver: &Receiver<Vec<u8>>) {
        let mut failed = false;
        while let Ok(first) = receiver.recv() {
            sleep(PAUSE);
            let mut next = Some(first);
            while let Some(bytes) = next.take() {
                if !failed && let Err(error) = target.write_all(&bytes) {
                    failed = true;
                    self.fail(error);
                }
                self.waiting.fetch_sub(bytes.len(), Ordering::Relaxed);
                next = receiver.try_recv().ok();
            }
            // Whoever kills the program finds all that was there when it was quiet.
            if !failed && let Err(error) = target.flush() {
                failed = true;
                self.fail(error);
            }
        }
    }

    fn fail(&self, error: io::Error) {
        let mut slot = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = Some(error);
        self.broken.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    /// A target that takes nothing before it is told to.
    struct Slow(Receiver<()>, Arc<Mutex<Vec<u8>>>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0.recv().is_err() {
                self.1.lock().expect("a lock").extend(bytes);
            }
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_there_is_no_room_for_is_dropped_and_counted() {
        let (hold, held) = sync_channel(0);
        let written = Arc::new(Mutex::new(Vec::new()));
        let slow = Slow(held, Arc::clone(&written));
        let mut output = Output::start_with(slow, 100).expect("a thread");
        for _ in 0..10 {
            output.push(vec![b'x'; 30]);
        }
        assert_eq!(output.dropped, (7, 210));
        drop(hold);
        output.finish().expect("all is written");
        assert_eq!(written.lock().expect("a lock").len(), 90);
    }

    #[test]
    fn an_error_is_told() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut output = Output::start(Full).expect("a thread");
        let broken = output.broken();
        output.push(vec![1]);
        output.push(vec![2]);
        let error = output.finish().expect_err("the disk is full");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(broken.is_cancelled());
    }
}
