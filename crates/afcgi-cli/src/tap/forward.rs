//! Copies bytes both ways, exactly as they come: the end of a half is passed on as that, and a reset as a reset.
//!
//! Bytes are written before they are looked at. What one side does not take is not read from the other, so that a connection never holds
//! more than one piece for each direction.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use afcgi::Address;
use tokio_util::sync::CancellationToken;

use super::observe::{Observer, Tap};
use super::socket::{Socket, addresses};
use crate::wire::Side;

/// Bytes that are read at a time.
pub(super) const PIECE: usize = 64 * 1024;
/// Pieces of one connection before others have their turn.
const TURN: usize = 16;

/// What all connections share.
pub(super) struct Forward {
    pub(super) tap: Rc<Tap>,
    pub(super) connect: Address,
    /// No new connections, and those without requests end.
    pub(super) stopping: CancellationToken,
    /// All end.
    pub(super) hurry: CancellationToken,
    /// One buffer for all: nothing waits in it.
    pub(super) buffer: RefCell<Vec<u8>>,
}

/// How a direction ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The sender closed its half, which was passed on.
    Closed,
    /// The sender reset the connection.
    Reset,
    /// The receiver takes no more.
    Refused,
    /// No request is active, and the tap is to end.
    Idle,
}

impl Forward {
    /// Serves a connection of a web server.
    pub(super) async fn connection(&self, web: Socket, number: u64) {
        let connected = tokio::select! {
            // It has no request yet, as far as is known.
            () = self.stopping.cancelled() => return,
            connected = Socket::connect(&self.connect) => connected,
        };
        let app = match connected {
            Ok(app) => app,
            Err(error) => {
                // As the web server would see it without the tap, as far as that can be.
                web.reset_at_close();
                let text = format!("cannot connect to {}: {error}", self.connect);
                self.tap.stats.borrow_mut().unconnected += 1;
                self.tap.note(self.tap.now(), number, &text);
                return;
            }
        };
        let at = self.tap.now();
        let addresses = addresses(&web, &app, number);
        let observer = RefCell::new(Observer::new(&self.tap, number, at, Some(addresses)));
        self.both(&web, &app, &observer).await;
        let mut observer = observer.into_inner();
        observer.stop(self.tap.now());
    }

    async fn both(&self, web: &Socket, app: &Socket, observer: &RefCell<Observer>) {
        let up = self.copy(Side::Web, web, app, observer);
        let down = self.copy(Side::App, app, web, observer);
        tokio::pin!(up, down);
        let (mut up_end, mut down_end) = (None, None);
        // Later it is found out after each piece.
        let mut told = false;
        while up_end.is_none() || down_end.is_none() {
            tokio::select! {
                biased;
                () = self.hurry.cancelled() => return,
                end = &mut down, if down_end.is_none() => down_end = Some(end),
                end = &mut up, if up_end.is_none() => up_end = Some(end),
                () = self.stopping.cancelled(), if !told => {
                    told = true;
                    if observer.borrow().is_idle() {
                        return;
                    }
                }
            }
            if [&up_end, &down_end].contains(&&Some(End::Idle)) {
                return;
            }
            // What is on its way to somebody who has reset the connection is lost.
            let reset = Some(End::Reset);
            if up_end == reset || down_end == reset {
                let (side, other) = match up_end == reset {
                    true => (Side::App, app),
                    false => (Side::Web, web),
                };
                other.reset_at_close();
                observer.borrow_mut().close(side, self.tap.now(), true);
                return;
            }
        }
        for (end, sender, side) in [(up_end, web, Side::Web), (down_end, app, Side::App)] {
            if end == Some(End::Refused) {
                sender.reset_at_close();
                observer.borrow_mut().close(side, self.tap.now(), false);
            }
        }
    }

    async fn copy(
        &self,
        side: Side,
        from: &Socket,
        to: &Socket,
        observer: &RefCell<Observer>,
    ) -> End {
        let mut turn = 0;
        loop {
            if from.readable().await.is_err() {
                return End::Reset;
            }
            let rest = {
                let mut buffer = self.buffer.borrow_mut();
                let read = from.try_read(&mut buffer);
                let at = self.tap.now();
                let count = match read {
                    Ok(0) => {
                        to.finish();
                        observer.borrow_mut().close(side, at, false);
                        return End::Closed;
                    }
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    Err(_) => {
                        observer.borrow_mut().close(side, at, true);
                        return End::Reset;
                    }
                };
                let bytes = &buffer[..count];
                let written = write(to, bytes);
                observer.borrow_mut().bytes(side, at, bytes);
                match written {
                    Some(written) => bytes[written..].to_vec(),
                    None => return End::Refused,
                }
            };
            let mut rest = rest.as_slice();
            while !rest.is_empty() {
                if to.writable().await.is_err() {
                    return End::Refused;
                }
                match write(to, rest) {
                    Some(written) => rest = &rest[written..],
                    None => return End::Refused,
                }
            }
            if self.stopping.is_cancelled() && observer.borrow().is_idle() {
                return End::Idle;
            }
            turn += 1;
            if turn == TURN {
                turn = 0;
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Writes what is taken; `None`: nothing is any more.
fn write(to: &Socket, bytes: &[u8]) -> Option<usize> {
    match to.try_write(bytes) {
        Ok(written) => Some(written),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Some(0),
        Err(_) => None,
    }
}
