//! The clients that hold something up: one that reads its response slowly, and one that uploads what nobody reads. Each is
//! a thread, mostly asleep, until it is told to leave.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::http::request;

/// From one piece that is read to the next.
const BEAT: Duration = Duration::from_millis(20);
/// From one piece of an upload to the next: as a line would bring it, and not in bursts that are a load of their own.
const UPLOAD_BEAT: Duration = Duration::from_millis(5);
/// How long the server may neither give nor take anything.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes that the kernel holds for a slow reader: as on a slow line, not the megabytes of loopback.
const RECEIVE_BUFFER: usize = 64 * 1024;
/// The period of the bytes of `/bytes`: byte `i` is `i % 251`.
const PATTERN: u64 = 251;

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// Asks for `/bytes?n=SIZE` and reads so many bytes of it a second.
    Reads {
        /// Bytes of the response.
        size: u64,
        /// Bytes a second.
        rate: u64,
    },
    /// Sends a body of that size, so many bytes of it a second, to a handler that holds it.
    Uploads {
        /// Bytes of the body.
        size: u64,
        /// Bytes a second.
        rate: u64,
        /// Milliseconds for which the handler holds the request.
        held: u64,
    },
}

/// A client at work. Dropping it makes it leave.
#[derive(Debug)]
pub struct Slow {
    leave: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<u64>>>,
}

impl Slow {
    /// Connects and begins.
    pub fn start(address: SocketAddr, habit: Habit) -> Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let leave = Arc::new(AtomicBool::new(false));
        let left = Arc::clone(&leave);
        let thread = thread::spawn(move || match habit {
            Habit::Reads { size, rate } => read(&mut stream, size, rate, &left),
            Habit::Uploads { size, rate, held } => upload(&mut stream, size, rate, held, &left),
        });
        Ok(Self {
            leave,
            thread: Some(thread),
        })
    }

    /// Makes it close its connection. Tells how many bytes it read or sent; the error is what went wrong before.
    pub fn leave(mut self) -> Result<u64> {
        self.leave.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(outcome)) => outcome,
            _ => bail!("the slow client panicked"),
        }
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.leave.store(true, Ordering::Relaxed);
    }
}

/// Bytes that may have been moved so long after the start.
fn allowed(start: Instant, rate: u64) -> u64 {
    let moved = start.elapsed().as_secs_f64() * rate as f64;
    moved as u64
}

fn read(stream: &mut TcpStream, size: u64, rate: u64, leave: &AtomicBool) -> Result<u64> {
    rustix::net::sockopt::set_socket_recv_buffer_size(&*stream, RECEIVE_BUFFER)?;
    stream.write_all(&request("GET", &format!("/bytes?n={size}"), ""))?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).context("no answer")?;
        head.push(byte[0]);
    }
    ensure!(
        head.starts_with(b"HTTP/1.1 200"),
        "answered {}",
        head.escape_ascii()
    );
    let start = Instant::now();
    let (mut done, mut piece) = (0, vec![0; 64 * 1024]);
    while !leave.load(Ordering::Relaxed) && done < size {
        let due = usize::try_from(allowed(start, rate).saturating_sub(done)).unwrap_or(usize::MAX);
        let room = due.min(piece.len());
        if room == 0 {
            thread::sleep(BEAT);
            continue;
        }
        let got = (stream.read(&mut piece[..room]))
            .with_context(|| format!("nothing to read after {done} bytes"))?;
        ensure!(got > 0, "the response ended after {done} bytes");
        for &byte in &piece[..got] {
            ensure!(
                u64::from(byte) == done % PATTERN,
                "byte {done} of the response is wrong"
            );
            done += 1;
        }
        thread::sleep(BEAT);
    }
    Ok(done)
}

fn upload(
    stream: &mut TcpStream,
    size: u64,
    rate: u64,
    held: u64,
    leave: &AtomicBool,
) -> Result<u64> {
    let length = format!("Content-Length: {size}\r\n");
    stream.write_all(&request("POST", &format!("/delay?ms={held}"), &length))?;
    let start = Instant::now();
    let (mut done, piece) = (0, vec![0; 1024 * 1024]);
    while !leave.load(Ordering::Relaxed) && done < size {
        let due = allowed(start, rate).min(size).saturating_sub(done);
        let due = usize::try_from(due).unwrap_or(usize::MAX).min(piece.len());
        stream
            .write_all(&piece[..due])
            .with_context(|| format!("nobody takes the body after {done} bytes"))?;
        done += due as u64;
        thread::sleep(UPLOAD_BEAT);
    }
    stream.set_read_timeout(Some(BEAT))?;
    while !leave.load(Ordering::Relaxed) {
        let mut piece = [0; 64];
        match stream.read(&mut piece) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("while the body is held"),
            Ok(got) => bail!(
                "answered though it was to be held: {}",
                piece[..got].escape_ascii()
            ),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Answers one request with a response of `size` bytes, the last of which is `last`.
    fn server(size: u64, last: u8) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut body: Vec<u8> = (0..size).map(|at| (at % PATTERN) as u8).collect();
            *body.last_mut().unwrap() = last;
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            let _ = stream.write_all(&body);
            thread::sleep(Duration::from_secs(2));
        });
        address
    }

    fn read_some(address: SocketAddr, size: u64, time: Duration) -> Result<u64> {
        let rate = 10_000;
        let slow = Slow::start(address, Habit::Reads { size, rate })?;
        thread::sleep(time);
        slow.leave()
    }

    #[test]
    fn a_reader_reads_no_faster_than_it_is_to() {
        let read = read_some(server(500_000, 0), 500_000, Duration::from_millis(500)).unwrap();
        assert!(
            (1..=20_000).contains(&read),
            "{read} bytes in half a second"
        );
    }

    #[test]
    fn a_wrong_byte_is_noticed() {
        let error = read_some(server(101, 7), 101, Duration::from_millis(500)).unwrap_err();
        assert!(error.to_string().contains("byte 100"), "{error}");
    }

    #[test]
    fn an_upload_that_is_answered_is_none() {
        let habit = Habit::Uploads {
            size: 10,
            rate: 1_000_000,
            held: 1,
        };
        let slow = Slow::start(server(1, 0), habit).unwrap();
        thread::sleep(Duration::from_millis(500));
        assert!(slow.leave().unwrap_err().to_string().contains("answered"));
    }
}
