//! STDERR of `afcgi spawn`: the lines of the workers with their numbers, and its own between them.
//!
//! A thread of its own writes, so that the manager goes on when nobody reads what is said. Then workers wait that have more to say,
//! as they would without a manager, and what the manager has to say itself beyond a limit is lost.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError, mpsc as std_mpsc};
use std::time::{Duration, SystemTime};

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tracing_subscriber::fmt::MakeWriter;

use crate::logging::LogFormat;

/// The longest line, in bytes. A longer one becomes several.
const LINE: usize = 8192;
/// What is read from a worker at a time, in bytes.
const READ: usize = 4096;
/// Reads that wait to be written, of all workers together.
const QUEUE: usize = 64;
/// Lines of the manager that wait to be written where the queue is full.
const OWN: usize = 1024;
/// How long it is waited for STDERR at the end.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where lines go. Clones write to the same place.
#[derive(Clone, Debug)]
pub(super) struct Log {
    format: LogFormat,
    queue: mpsc::Sender<Message>,
    own: Arc<Mutex<VecDeque<Vec<u8>>>>,
}

#[derive(Debug)]
enum Message {
    Text(Vec<u8>),
    /// All before it is written.
    End(std_mpsc::SyncSender<()>),
}

impl Log {
    /// Starts the thread that writes.
    pub(super) fn start(format: LogFormat) -> io::Result<Self> {
        let (queue, mut messages) = mpsc::channel(QUEUE);
        let own = Arc::<Mutex<VecDeque<Vec<u8>>>>::default();
        let log = Self {
            format,
            queue,
            own: Arc::clone(&own),
        };
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || {
                let mut stderr = io::stderr();
                while let Some(message) = messages.blocking_recv() {
                    // Where STDERR is gone there is nobody to be told.
                    let ended = match message {
                        Message::Text(text) => {
                            _ = stderr.write_all(&text);
                            None
                        }
                        Message::End(ended) => Some(ended),
                    };
                    loop {
                        let line = own
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .pop_front();
                        let Some(line) = line else { break };
                        _ = stderr.write_all(&line);
                    }
                    if let Some(ended) = ended {
                        _ = ended.send(());
                    }
                }
            })?;
        Ok(log)
    }

    /// Passes on what a worker says, until its end.
    pub(super) async fn follow(self, mut pipe: pipe::Receiver, number: u16, pid: i32) {
        let mut lines = Lines::default();
        let mut buffer = [0; READ];
        loop {
            let count = match pipe.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(count) => count,
            };
            let mut text = Vec::new();
            let read = buffer.get(..count).unwrap_or_default();
            lines.push(read, |line| self.add(&mut text, line, number, pid));
            if !text.is_empty() && self.queue.send(Message::Text(text)).await.is_err() {
                return;
            }
        }
        let mut text = Vec::new();
        lines.end(|line| self.add(&mut text, line, number, pid));
        if !text.is_empty() {
            _ = self.queue.send(Message::Text(text)).await;
        }
    }

    fn add(&self, text: &mut Vec<u8>, line: &[u8], number: u16, pid: i32) {
        match self.format {
            LogFormat::Text => {
                text.extend_from_slice(format!("[{number}] ").as_bytes());
                text.extend_from_slice(line);
            }
            LogFormat::Json => {
                let object = serde_json::json!({
                    "timestamp": humantime::format_rfc3339_micros(SystemTime::now()).to_string(),
                    "worker": number,
                    "pid": pid,
                    "message": String::from_utf8_lossy(line),
                });
                text.extend_from_slice(object.to_string().as_bytes());
            }
        }
        text.push(b'\n');
    }

    /// Waits until all is written, but not for ever.
    pub(super) fn finish(&self) {
        let (ended, end) = std_mpsc::sync_channel(1);
        let mut message = Message::End(ended);
        let began = std::time::Instant::now();
        while began.elapsed() < PATIENCE {
            match self.queue.try_send(message) {
                Ok(()) => {
                    _ = end.recv_timeout(PATIENCE);
                    return;
                }
                Err(TrySendError::Full(back)) => message = back,
                Err(TrySendError::Closed(_)) => return,
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = Message::Text(line.to_vec());
        if let Err(TrySendError::Full(Message::Text(text))) = self.queue.try_send(text) {
            let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
            if own.len() < OWN {
                own.push_back(text);
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Cuts what a worker says into lines.
#[derive(Debug, Default)]
struct Lines {
    /// The beginning of a line whose end has not come.
    begun: Vec<u8>,
}

impl Lines {
    fn push(&mut self, mut bytes: &[u8], mut emit: impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let room = LINE - self.begun.len();
            let (taken, rest, ends) = match end {
                Some(end) if end <= room => {
                    let (line, rest) = bytes.split_at(end);
                    (line, rest.get(1..).unwrap_or_default(), true)
                }
                _ => {
                    let (line, rest) = bytes.split_at(room.min(bytes.len()));
                    (line, rest, false)
                }
            };
            self.begun.extend_from_slice(taken);
            // A line that is just as long as may be waits to see whether it ends here.
            if ends || (self.begun.len() == LINE && !rest.is_empty()) {
                emit(&self.begun);
                self.begun.clear();
            }
            bytes = rest;
        }
    }

    fn end(&mut self, mut emit: impl FnMut(&[u8])) {
        if !self.begun.is_empty() {
            emit(&self.begun);
            self.begun = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        for piece in pieces {
            lines.push(piece, |line| found.push(line.to_vec()));
            assert!(lines.begun.len() <= LINE);
        }
        lines.end(|line| found.push(line.to_vec()));
        found
    }

    #[test]
    fn lines_wherever_they_are_split() {
        let text = b"one\n\ntwo\xff\nthree";
        let expected: [&[u8]; 4] = [b"one", b"", b"two\xff", b"three"];
        for at in 0..text.len() {
            let (one, other) = text.split_at(at);
            assert_eq!(lines(&[one, other]), expected, "split at {at}");
        }
        assert!(lines(&[]).is_empty());
    }

    #[test]
    fn a_line_without_an_end_is_cut() {
        let long = vec![b'x'; 2 * LINE + 1];
        for size in [1, 1000, READ, long.len()] {
            let pieces: Vec<&[u8]> = long.chunks(size).collect();
            let lengths: Vec<_> = lines(&pieces).iter().map(Vec::len).collect();
            assert_eq!(lengths, [LINE, LINE, 1]);
        }
        let mut just = vec![b'x'; LINE];
        just.push(b'\n');
        for size in [1, 1000, READ, just.len()] {
            let pieces: Vec<&[u8]> = just.chunks(size).collect();
            assert_eq!(lines(&pieces).len(), 1);
        }
    }
}
