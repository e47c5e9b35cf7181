//! Where clients connect, and how many may at a time.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use afcgi::{Address, UnixOptions};
use rustix::fd::AsFd;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::io::{self as client, Listener};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;
/// After an error of accepting, such as having no descriptors left.
const PAUSE: Duration = Duration::from_millis(100);

/// The files of unix sockets, which are removed when this is dropped.
pub(crate) type Files = Vec<afcgi::Listener>;

/// Listens on an address; on all that a name has. A unix socket gets permission bits, or what the umask leaves, and its
/// file is among `files` then.
pub(crate) fn bind(
    address: &Address,
    mode: Option<u32>,
    files: &mut Files,
) -> io::Result<Vec<Listener>> {
    let failed = |error: io::Error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => {
                " (another program already listens there: stop it, or choose another address with --listen)"
            }
            io::ErrorKind::PermissionDenied => " (ports below 1024 need a permission)",
            _ => "",
        };
        io::Error::new(
            error.kind(),
            format!("cannot listen on {address}: {error}{hint}"),
        )
    };
    let addresses: Vec<SocketAddr> = match address {
        Address::Unix(_) => {
            let mut options = UnixOptions::default();
            options.mode = mode;
            let file = afcgi::Listener::bind_with(address, options)?;
            let socket = std::os::unix::net::UnixListener::from(file.as_fd().try_clone_to_owned()?);
            socket.set_nonblocking(true)?;
            files.push(file);
            return Ok(vec![Listener::Unix(UnixListener::from_std(socket)?)]);
        }
        Address::Tcp { host, port } if host.is_empty() => {
            // Both families by one socket, where there is IPv6.
            let both = bind_one((Ipv6Addr::UNSPECIFIED, *port).into());
            let listener = both.or_else(|error| match error.kind() {
                io::ErrorKind::AddrInUse => Err(error),
                _ => bind_one((Ipv4Addr::UNSPECIFIED, *port).into()),
            });
            return Ok(vec![Listener::Tcp(listener.map_err(failed)?)]);
        }
        Address::Tcp { host, port } => (host.as_str(), *port)
            .to_socket_addrs()
            .map_err(failed)?
            .collect(),
    };
    addresses
        .into_iter()
        .map(|address| bind_one(address).map(Listener::Tcp).map_err(failed))
        .collect()
}

fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts connections until it is told to stop. Each goes to `serve` with the address of its client and its place.
pub(crate) async fn accept(
    listener: Listener,
    places: Arc<Semaphore>,
    stop: CancellationToken,
    serve: impl Fn(client::Socket, Option<SocketAddr>, OwnedSemaphorePermit),
) {
    let stopped = stop.cancelled();
    let mut stopped = pin!(stopped);
    loop {
        let next = async {
            let place = match Arc::clone(&places).try_acquire_owned() {
                Ok(place) => place,
                Err(_) => {
                    tracing::warn!(
                        "as many connections as may be open are open: further ones wait"
                    );
                    // It is never closed.
                    Arc::clone(&places)
                        .acquire_owned()
                        .await
                        .map_err(io::Error::other)?
                }
            };
            let (socket, peer) = listener.accept().await?;
            io::Result::Ok((socket, peer, place))
        };
        let accepted = tokio::select! {
            () = &mut stopped => return,
            accepted = next => accepted,
        };
        match accepted {
            Ok((socket, peer, place)) => serve(socket, peer, place),
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections; trying again shortly");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
