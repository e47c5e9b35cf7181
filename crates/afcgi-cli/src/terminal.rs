//! The terminal that the program was started in, and what asks the program to end.
//!
//! SIGHUP means two things: that a terminal was closed, to the programs in it, and that a configuration is to be read again, to
//! servers. [`Terminal::is_gone`] tells which. Programs that were started with SIGHUP ignored, as by `nohup`, outlive their terminal.

use std::fs::File;
use std::io;
use std::time::Duration;

use rustix::process::getpgrp;
use rustix::termios::tcgetpgrp;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::interval;

/// How often the terminal is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// The terminal of this process; none for a daemon, nor for a program that is to outlive its terminal.
#[derive(Debug)]
pub(crate) struct Terminal {
    tty: Option<File>,
    /// Whether this process was in its foreground when that was last looked at.
    in_front: bool,
    ignores_hangup: bool,
}

impl Terminal {
    /// That of this process. A signal handler changes what this finds: it comes first.
    pub(crate) fn of_this_process() -> Self {
        let ignores_hangup = ignores_hangup();
        let tty = (!ignores_hangup).then(|| File::open("/dev/tty").ok());
        let tty = tty.flatten();
        Self {
            in_front: tty
                .as_ref()
                .is_some_and(|tty| is_in_front(tty) == Some(true)),
            tty,
            ignores_hangup,
        }
    }

    /// Whether there was one, and it was closed.
    pub(crate) fn is_gone(&self) -> bool {
        let tty = self.tty.as_ref();
        tty.is_some_and(|tty| is_in_front(tty).is_none())
    }

    /// Returns when it was closed while this process was in its foreground.
    ///
    /// SIGHUP tells that to the first process of a terminal only, and that may be one that waits for this process to end, as
    /// `make` does.
    async fn lost(&mut self) {
        let mut ticks = interval(LOOK);
        while let Some(tty) = &self.tty {
            ticks.tick().await;
            match is_in_front(tty) {
                Some(in_front) => self.in_front = in_front,
                None => {
                    self.tty = None;
                    if self.in_front {
                        return;
                    }
                }
            }
        }
        std::future::pending().await
    }
}

/// Whether this process is in the foreground of the terminal; `None` if that was closed.
fn is_in_front(tty: &File) -> Option<bool> {
    tcgetpgrp(tty).ok().map(|group| group == getpgrp())
}

/// What asks a program to end that has no configuration to read again: SIGINT, SIGTERM, SIGHUP and the end of its terminal.
#[derive(Debug)]
pub(crate) struct Ending {
    interrupt: Signal,
    terminate: Signal,
    hangup: Option<Signal>,
    terminal: Terminal,
}

impl Ending {
    /// Within a runtime.
    pub(crate) fn new(terminal: Terminal) -> io::Result<Self> {
        let hangup = match terminal.ignores_hangup {
            true => None,
            false => Some(signal(SignalKind::hangup())?),
        };
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup,
            terminal,
        })
    }

    /// Returns when one of them asks; called again, when one asks again.
    pub(crate) async fn wait(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = hangup => {}
            () = self.terminal.lost() => {}
        }
    }
}

/// Whether this process was started with SIGHUP ignored; no where that cannot be told.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignored(&status) & 1 != 0
}

/// The ignored signals that the file says, the first in the lowest bit.
fn ignored(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals() {
        for (status, expected) in [
            ("Name:\tx\nSigIgn:\t0000000000001001\nSigCgt:\t0\n", 0x1001),
            ("SigIgn:\t0000000000000000\n", 0),
            ("SigIgn:\tx", 0),
            ("", 0),
        ] {
            assert_eq!(ignored(status), expected, "{status:?}");
        }
    }
}
