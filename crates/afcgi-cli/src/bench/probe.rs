//! What is found out before the load: which address takes connections, and whether the application multiplexes.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use afcgi::Address;
use afcgi_proto::Values;

use super::engine::Endpoint;
use crate::request::failure::Failure;

/// How long an answer is waited for: it costs an application nothing, and those that do not know the question are silent.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of what comes in place of an answer.
const MOST: usize = 256 * 1024;

/// What an application says of multiplexing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It was not asked.
    NotAsked,
    /// A connection carries many requests at a time.
    Multiplexes,
    /// One at a time.
    One,
    /// It does not answer, as libfcgi and Perl's FCGI.
    Silent,
    /// It closes the connection.
    Closed,
}

impl Answer {
    /// In JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::NotAsked => "not asked",
            Self::Multiplexes => "multiplexes",
            Self::One => "one request at a time",
            Self::Silent => "silent",
            Self::Closed => "closed",
        }
    }
}

trait Socket: Read + Write {
    fn wait(&self, time: Duration) -> io::Result<()>;
}

impl Socket for TcpStream {
    fn wait(&self, time: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(time))
    }
}

impl Socket for UnixStream {
    fn wait(&self, time: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(time))
    }
}

/// Connects, and asks if that is wanted.
pub(super) fn probe(
    address: &Address,
    timeout: Duration,
    asks: bool,
) -> Result<(Endpoint, Answer), Failure> {
    let (endpoint, mut socket) = connect(address, timeout)?;
    if !asks {
        return Ok((endpoint, Answer::NotAsked));
    }
    let answer = match ask(&mut *socket, PATIENCE.min(timeout)) {
        Ok(Some(values)) if values.mpxs_conns == Some(true) => Answer::Multiplexes,
        Ok(Some(_)) => Answer::One,
        Ok(None) => Answer::Silent,
        Err(_) => Answer::Closed,
    };
    Ok((endpoint, answer))
}

fn connect(address: &Address, timeout: Duration) -> Result<(Endpoint, Box<dyn Socket>), Failure> {
    let failed = |error| Failure::Connect(address.to_string(), error);
    let (host, port) = match address {
        Address::Unix(path) => {
            let socket = UnixStream::connect(path).map_err(failed)?;
            return Ok((Endpoint::Unix(path.clone()), Box::new(socket)));
        }
        Address::Tcp { host, port } if host.is_empty() => ("127.0.0.1", *port),
        Address::Tcp { host, port } => (host.as_str(), *port),
    };
    let addresses = (host, port).to_socket_addrs();
    let addresses = addresses.map_err(|error| Failure::Resolve(host.to_owned(), error))?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(socket) => return Ok((Endpoint::Tcp(address), Box::new(socket))),
            Err(error) => last = error,
        }
    }
    Err(failed(last))
}

/// Asks by GET_VALUES; nothing: there is no answer in time, or none among what comes.
fn ask(socket: &mut dyn Socket, patience: Duration) -> io::Result<Option<Values>> {
    let end = Instant::now() + patience;
    let query = Values::query();
    // A few names.
    let length = u8::try_from(query.len()).unwrap_or(u8::MAX);
    socket.write_all(&[&[1, 9, 0, 0, 0, length, 0, 0], &query[..]].concat())?;
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let mut rest = bytes.as_slice();
        while let Some(&[version, kind, _, _, high, low, padding, _]) = rest.first_chunk() {
            if version != 1 {
                return Ok(None);
            }
            let end = 8 + usize::from(u16::from_be_bytes([high, low]));
            let Some(content) = rest.get(8..end) else {
                break;
            };
            if kind == 10 {
                return Ok(Some(Values::parse(content)));
            }
            rest = rest.get(end + usize::from(padding)..).unwrap_or_default();
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || bytes.len() > MOST {
            return Ok(None);
        }
        socket.wait(left)?;
        match socket.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => bytes.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
