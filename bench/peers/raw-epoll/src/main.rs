//! The limit: one thread, one epoll loop, no request table. The empty STDIN record of a request is answered at once
//! with a reply that was made beforehand; params are stepped over, not read. Serves `Hello world\n` and nothing else.
//! It is also the application behind the gateways, so it answers GET_VALUES and heeds FCGI_KEEP_CONN.

use std::io::{self, Read, Write};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const LISTENER: Token = Token(usize::MAX);
const STDOUT: &[u8] =
    b"Status: 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\nHello world\n";
const VALUES: &[u8] =
    b"\x0e\x05FCGI_MAX_CONNS10000\x0d\x05FCGI_MAX_REQS65535\x0f\x01FCGI_MPXS_CONNS1";

struct Connection {
    stream: TcpStream,
    partial: Vec<u8>,
    output: Vec<u8>,
    written: usize,
    active: usize,
    close: bool,
}

fn main() -> io::Result<()> {
    let address = std::env::args()
        .nth(1)
        .expect("usage: peer-raw-epoll HOST:PORT");
    let mut listener = TcpListener::bind(address.parse().expect("HOST:PORT"))?;
    let mut poll = Poll::new()?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(1024);
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut buffer = vec![0; 512 * 1024];
    let reply = reply();
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    stream.set_nodelay(true)?;
                    let free = connections
                        .iter()
                        .position(Option::is_none)
                        .unwrap_or_else(|| {
                            connections.push(None);
                            connections.len() - 1
                        });
                    poll.registry().register(
                        &mut stream,
                        Token(free),
                        Interest::READABLE | Interest::WRITABLE,
                    )?;
                    connections[free] = Some(Connection {
                        stream,
                        partial: Vec::new(),
                        output: Vec::new(),
                        written: 0,
                        active: 0,
                        close: false,
                    });
                }
                continue;
            }
            let slot = &mut connections[event.token().0];
            let Some(connection) = slot else { continue };
            if connection.turn(&mut buffer, &reply).is_err() {
                *slot = None;
            }
        }
    }
}

/// STDOUT, its end and END_REQUEST, with the id left at zero.
fn reply() -> Vec<u8> {
    let mut reply = vec![1, 6, 0, 0, 0, STDOUT.len() as u8, 0, 0];
    reply.extend_from_slice(STDOUT);
    reply.extend_from_slice(&[1, 6, 0, 0, 0, 0, 0, 0]);
    reply.extend_from_slice(&[1, 3, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    reply
}

impl Connection {
    /// Reads until there is no more, answers, writes. An error means that the connection is over.
    fn turn(&mut self, buffer: &mut [u8], reply: &[u8]) -> io::Result<()> {
        loop {
            let held = self.partial.len();
            buffer[..held].copy_from_slice(&self.partial);
            let space = buffer.len() - held;
            let got = match self.stream.read(&mut buffer[held..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            let filled = held + got;
            let taken = self.process(&buffer[..filled], reply)?;
            self.partial.clear();
            self.partial.extend_from_slice(&buffer[taken..filled]);
            if got < space {
                break;
            }
        }
        self.flush()?;
        if self.close && self.active == 0 && self.output.is_empty() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }

    fn process(&mut self, input: &[u8], reply: &[u8]) -> io::Result<usize> {
        let mut at = 0;
        while input.len() - at >= 8 {
            let header = &input[at..at + 8];
            let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
            let end = at + 8 + length + usize::from(header[6]);
            if end > input.len() {
                break;
            }
            match header[1] {
                _ if header[0] != 1 => return Err(io::ErrorKind::InvalidData.into()),
                1 => {
                    self.active += 1;
                    self.close |= length == 8 && input[at + 10] & 1 == 0;
                }
                5 if length == 0 => {
                    self.active -= 1;
                    let start = self.output.len();
                    self.output.extend_from_slice(reply);
                    for record in [start, start + 8 + STDOUT.len(), start + 16 + STDOUT.len()] {
                        self.output[record + 2..record + 4].copy_from_slice(&header[2..4]);
                    }
                }
                9 => {
                    self.output
                        .extend_from_slice(&[1, 10, 0, 0, 0, VALUES.len() as u8, 0, 0]);
                    self.output.extend_from_slice(VALUES);
                }
                _ => {}
            }
            at = end;
        }
        Ok(at)
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(sent) => self.written += sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        self.written = 0;
        Ok(())
    }
}
