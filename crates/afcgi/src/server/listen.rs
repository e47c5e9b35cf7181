//! Where a server listens: TCP, unix sockets, and sockets that were inherited.

use std::fmt;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::net::AddressFamily;
use socket2::{Domain, Protocol, Socket, Type};

use crate::address::Address;

/// Connections that wait to be accepted. The system may have a lower limit.
const BACKLOG: i32 = 4096;

/// Who may connect to a unix socket: the file's mode and owner.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct UnixOptions {
    /// Permission bits, such as `0o660`. `None`: as the umask makes them.
    pub mode: Option<u32>,
    /// The user, by number. Changing it takes root.
    pub uid: Option<u32>,
    /// The group, by number.
    pub gid: Option<u32>,
}

/// A socket that listens. A unix socket's file is removed when it is dropped.
#[derive(Debug)]
pub struct Listener {
    pub(crate) socket: ListenSocket,
    /// The file that is to be removed, and its inode.
    pub(crate) file: Option<SocketFile>,
}

#[derive(Debug)]
pub(crate) enum ListenSocket {
    Tcp(std::net::TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Listens at an address, as [`Address`] reads it.
    ///
    /// A unix socket that nobody listens on any more is replaced. Fails with
    /// [`io::ErrorKind::AddrInUse`] where somebody does.
    pub fn bind(address: &str) -> io::Result<Self> {
        let address = address
            .parse()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        Self::bind_with(&address, UnixOptions::default())
    }

    /// [`Listener::bind`], with the mode and owner of a unix socket.
    pub fn bind_with(address: &Address, options: UnixOptions) -> io::Result<Self> {
        match address {
            Address::Tcp { host, port } => {
                bind_tcp(host, *port).map_err(|error| explain(&error, address))
            }
            Address::Unix(path) => {
                bind_unix(path, options).map_err(|error| explain(&error, address))
            }
        }
    }

    /// The socket that was inherited as descriptor 0, as `spawn-fcgi` and web servers that
    /// start their applications do it.
    pub fn inherited() -> io::Result<Self> {
        let stdin = rustix::stdio::stdin();
        let listening = rustix::net::sockopt::socket_acceptconn(stdin).unwrap_or(false);
        let connected = rustix::net::getpeername(stdin) != Err(rustix::io::Errno::NOTCONN);
        if !listening || connected {
            return Err(io::Error::new(
                io::ErrorKind::NotConnected,
                "descriptor 0 is not a listening socket: name an address to listen at, or start this by spawn-fcgi or a web server",
            ));
        }
        Self::from_fd(stdin.try_clone_to_owned()?)
    }

    /// The sockets that systemd passed (`LISTEN_FDS`): none if it passed none.
    #[cfg(feature = "systemd")]
    pub fn from_systemd() -> io::Result<Vec<Self>> {
        let mut passed = listenfd::ListenFd::from_env();
        let mut listeners = Vec::new();
        for index in 0..passed.len() {
            // Which of both it is, only the attempt tells.
            let socket = match passed.take_unix_listener(index) {
                Ok(Some(listener)) => ListenSocket::Unix(listener),
                Ok(None) => continue,
                Err(_) => match passed.take_tcp_listener(index)? {
                    Some(listener) => ListenSocket::Tcp(listener),
                    None => continue,
                },
            };
            listeners.push(Self::from_socket(socket));
        }
        Ok(listeners)
    }

    /// A socket that listens already.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let family = rustix::net::getsockname(&fd)?.address_family();
        let socket = if family == AddressFamily::UNIX {
            ListenSocket::Unix(fd.into())
        } else {
            ListenSocket::Tcp(fd.into())
        };
        Ok(Self::from_socket(socket))
    }

    fn from_socket(socket: ListenSocket) -> Self {
        Self { socket, file: None }
    }

    /// The TCP address, with the port that was chosen for port 0; `None` for a unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.socket {
            ListenSocket::Tcp(listener) => listener.local_addr().ok(),
            ListenSocket::Unix(_) => None,
        }
    }

    /// Whether anybody on the network may connect. To reach a FastCGI application is to make it
    /// run, with parameters of one's choice.
    pub fn is_public(&self) -> bool {
        self.local_addr()
            .is_some_and(|addr| !addr.ip().to_canonical().is_loopback())
    }
}

/// The socket: for those who accept connections themselves. A duplicate of the descriptor goes on listening when this is
/// dropped, but the file of a unix socket is removed then.
impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            ListenSocket::Tcp(listener) => listener.as_fd(),
            ListenSocket::Unix(listener) => listener.as_fd(),
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.socket {
            ListenSocket::Tcp(listener) => match listener.local_addr() {
                Ok(addr) => addr.fmt(f),
                Err(_) => f.write_str("TCP socket"),
            },
            ListenSocket::Unix(listener) => {
                let addr = listener.local_addr();
                match addr.as_ref().ok().and_then(|addr| addr.as_pathname()) {
                    Some(path) => write!(f, "unix:{}", path.display()),
                    None => f.write_str("unix socket"),
                }
            }
        }
    }
}

impl From<std::net::TcpListener> for Listener {
    fn from(listener: std::net::TcpListener) -> Self {
        Self::from_socket(ListenSocket::Tcp(listener))
    }
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Self {
        Self::from_socket(ListenSocket::Unix(listener))
    }
}

fn explain(error: &io::Error, address: &Address) -> io::Error {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => ": another process listens there",
        io::ErrorKind::PermissionDenied => ": not permitted",
        _ => "",
    };
    io::Error::new(
        error.kind(),
        format!("cannot listen at {address}{hint} ({error})"),
    )
}

fn bind_tcp(host: &str, port: u16) -> io::Result<Listener> {
    let addresses: Vec<SocketAddr> = if host.is_empty() {
        vec![
            (Ipv6Addr::UNSPECIFIED, port).into(),
            (Ipv4Addr::UNSPECIFIED, port).into(),
        ]
    } else {
        (host, port).to_socket_addrs()?.collect()
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match listen_tcp(address) {
            Ok(listener) => return Ok(listener.into()),
            Err(error) => last = error,
        }
        if last.kind() == io::ErrorKind::AddrInUse {
            break;
        }
    }
    Err(last)
}

fn listen_tcp(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `*` is every address, of both families.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn bind_unix(path: &Path, options: UnixOptions) -> io::Result<Listener> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            remove_stale(path)?;
            UnixListener::bind(path)?
        }
        other => other?,
    };
    let file = SocketFile::new(path)?;
    rustix::net::listen(&listener, BACKLOG)?;
    if options.uid.is_some() || options.gid.is_some() {
        std::os::unix::fs::chown(path, options.uid, options.gid)?;
    }
    if let Some(mode) = options.mode {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    Ok(Listener {
        socket: ListenSocket::Unix(listener),
        file: Some(file),
    })
}

/// Removes a socket file that nobody listens on. Anything else is an error.
fn remove_stale(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is a file that is no socket",
        ));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        // One that takes connections, or is too busy to, is alive.
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

/// Removes a socket's file, unless another took its place.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(Self {
            // The working directory may change before it is removed.
            path: std::path::absolute(path)?,
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|now| (now.dev(), now.ino()) == (self.device, self.inode));
        if ours {
            // That it stays is no reason to fail: the next start replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_unix_socket_is_refused_and_a_stale_one_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.sock");
        let address = Address::Unix(path.clone());
        let options = UnixOptions {
            mode: Some(0o660),
            ..UnixOptions::default()
        };
        let first = Listener::bind_with(&address, options).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
        let error = Listener::bind_with(&address, options).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(
            error.to_string().contains("another process listens"),
            "{error}"
        );
        drop(first);
        assert!(!path.exists());

        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let second = Listener::bind_with(&address, options).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
        // Whoever has the socket may accept connections from it, but it has no file any more.
        let socket = UnixListener::from(second.as_fd().try_clone_to_owned().unwrap());
        assert!(socket.accept().is_ok());
        drop(second);
        assert!(!path.exists());

        fs::write(&path, "precious").unwrap();
        assert!(Listener::bind_with(&address, options).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_tcp_port_in_use_is_named() {
        let listener = Listener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let error = Listener::bind(&address).unwrap_err().to_string();
        assert!(
            error.contains(&address) && error.contains("another process"),
            "{error}"
        );
        assert!(!listener.is_public());
        assert!(Listener::bind(":0").unwrap().is_public());
    }
}
