//! The sockets that workers take their connections from: bound here, or passed by systemd or a parent.

use std::io;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use afcgi::{Address, Listener, UnixOptions};
use rustix::fd::AsFd;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::arguments::{Arguments, each};
use crate::gateway::Mode;

/// The workers' sockets: one for all, or one for each.
#[derive(Debug)]
pub(super) struct Sockets {
    sockets: Vec<Arc<Socket>>,
    /// How many workers there are.
    pub(super) workers: u16,
}

/// A socket that listens as long as this is there or a worker has it. Its file goes when this does.
#[derive(Debug)]
pub(super) struct Socket {
    listener: Listener,
    users: Arc<AtomicUsize>,
}

impl Sockets {
    /// What the command line asks for.
    ///
    /// Fails when an address cannot be used, and when there is none and no socket was passed.
    pub(super) fn new(arguments: &Arguments) -> io::Result<Self> {
        let cpus = || {
            let cpus = std::thread::available_parallelism().map_or(1, usize::from);
            u16::try_from(cpus).unwrap_or(u16::MAX)
        };
        let passed = Listener::from_systemd()?;
        let named = arguments.listen.is_some() || arguments.listen_each.is_some();
        if named && !passed.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a socket was passed (LISTEN_FDS): leave out --listen and --listen-each, or do not pass one",
            ));
        }
        let mut workers = arguments.workers.unwrap_or_else(cpus);
        let listeners = if let Some(pattern) = &arguments.listen_each {
            (1..=workers)
                .map(|number| {
                    let address = each(pattern, number).parse::<Address>();
                    let address = address.map_err(io::Error::other)?;
                    bind(&address, arguments)
                })
                .collect::<io::Result<_>>()?
        } else if let Some(address) = &arguments.listen {
            vec![bind(address, arguments)?]
        } else if passed.is_empty() {
            vec![Listener::inherited().map_err(|_| {
                io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "there is nothing to listen on: say where, with --listen, or pass a socket by systemd or as descriptor 0",
                )
            })?]
        } else {
            passed
        };
        if let (2.., Ok(count)) = (listeners.len(), u16::try_from(listeners.len())) {
            workers = arguments.workers.unwrap_or(count);
            if workers != count {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!(
                        "{count} sockets were passed for {workers} workers: pass one for all of them, or as many as there are workers"
                    ),
                ));
            }
        }
        let sockets = listeners
            .into_iter()
            .map(|listener| {
                Arc::new(Socket {
                    listener,
                    users: Arc::default(),
                })
            })
            .collect();
        Ok(Self { sockets, workers })
    }

    /// The socket of a worker, by its number from 1.
    pub(super) fn of(&self, number: u16) -> Option<Arc<Socket>> {
        let one = self.sockets.get(usize::from(number) - 1);
        one.or(self.sockets.first()).cloned()
    }

    /// Says where they are.
    pub(super) fn announce(&self) {
        for socket in &self.sockets {
            if socket.listener.is_public() {
                tracing::warn!(
                    address = %socket.listener,
                    "whoever can reach this address can run the program with parameters of their choice: \
                     listen on a unix socket or on 127.0.0.1, or set FCGI_WEB_SERVER_ADDRS"
                );
            }
            tracing::info!(address = %socket.listener, "listening");
        }
    }
}

impl Socket {
    /// The socket as descriptor 0 of a worker, until the guard is dropped.
    ///
    /// Whether it blocks is a property that all who have it share. The first worker finds it blocking, as every library
    /// expects it; afterwards it stays as the workers have made it.
    pub(super) fn lend(&self) -> io::Result<(Stdio, Loan)> {
        let loan = Loan(Arc::clone(&self.users));
        if self.users.fetch_add(1, Ordering::Relaxed) == 0 {
            let flags = fcntl_getfl(&self.listener)?;
            fcntl_setfl(&self.listener, flags - OFlags::NONBLOCK)?;
        }
        Ok((self.listener.as_fd().try_clone_to_owned()?.into(), loan))
    }
}

/// That a worker has a socket.
#[derive(Debug)]
pub(super) struct Loan(Arc<AtomicUsize>);

impl Drop for Loan {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn bind(address: &Address, arguments: &Arguments) -> io::Result<Listener> {
    let mut options = UnixOptions::default();
    options.mode = arguments.socket_mode.map(Mode::bits);
    if let Some(owner) = &arguments.socket_owner {
        (options.uid, options.gid) = (owner.uid, owner.gid);
    }
    Listener::bind_with(address, options)
}
