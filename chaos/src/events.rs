//! What was done to whom, and when: the only excuses that a request may have.
//!
//! A request that fails has a cause if, and only if, one of these falls between its beginning and its end, on its application or, for a
//! kept connection that was closed, on its web server. Nothing else is a cause: not that the machine is busy, not that another
//! application was killed, not that its own was only stopped for a while, and not a reload.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long after an application listens again a web server may still hold it for dead: at most twice as long as it was, by the pauses of
/// the gateway between two attempts, and it is never down for longer than half of this on a machine that is not overloaded.
pub const RECOVERY: Duration = Duration::from_secs(2);

/// Events that are kept. Those that ended long ago cannot be a cause of what ends now.
const KEPT: Duration = Duration::from_secs(180);

/// To whom something was done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Target {
    /// A process and all applications in it.
    Group(usize),
    /// One application.
    App(usize),
    /// A web server, for the connections that clients keep to it.
    Front(Front),
}

/// A web server.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Front {
    /// nginx with the module.
    Nginx,
    /// `afcgi gateway`.
    Gateway,
}

impl Front {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Nginx, Self::Gateway];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx + module",
            Self::Gateway => "gateway",
        }
    }
}

#[derive(Clone, Debug)]
struct Event {
    number: u64,
    target: Target,
    what: &'static str,
    from: Instant,
    until: Option<Instant>,
}

/// The events, those that go on included.
#[derive(Debug, Default)]
pub struct Events {
    all: RefCell<(u64, VecDeque<Event>)>,
}

/// An event that goes on until it is ended.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Ongoing(u64);

impl Events {
    /// Something is about to be done.
    pub fn begin(&self, target: Target, what: &'static str) -> Ongoing {
        let now = Instant::now();
        let (number, all) = &mut *self.all.borrow_mut();
        *number += 1;
        while let Some(oldest) = all.front() {
            if oldest.until.is_none_or(|until| until + KEPT > now) {
                break;
            }
            all.pop_front();
        }
        all.push_back(Event {
            number: *number,
            target,
            what,
            from: now,
            until: None,
        });
        Ongoing(*number)
    }

    /// It has ended, and may have effects for so long.
    pub fn end(&self, event: Ongoing, effects: Duration) {
        let (_, all) = &mut *self.all.borrow_mut();
        if let Some(found) = all.iter_mut().find(|found| found.number == event.0) {
            found.until = Some(Instant::now() + effects);
        }
    }

    /// What was done to one of the targets between two times, if anything was.
    pub fn cause(&self, targets: &[Target], from: Instant, until: Instant) -> Option<&'static str> {
        let (_, all) = &*self.all.borrow();
        let meets = |event: &&Event| {
            targets.contains(&event.target)
                && event.from <= until
                && event.until.is_none_or(|end| end >= from)
        };
        all.iter().find(meets).map(|event| event.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_falls_between_is_a_cause() {
        let events = Events::default();
        let ms = Duration::from_millis;
        let before = Instant::now();
        let killed = events.begin(Target::Group(1), "killed");
        let during = Instant::now();
        let target = [Target::Group(1), Target::App(3)];
        assert_eq!(events.cause(&target, before, during), Some("killed"));
        assert_eq!(events.cause(&[Target::Group(2)], before, during), None);
        assert_eq!(events.cause(&[Target::App(1)], before, during), None);
        events.end(killed, ms(50));
        let after = Instant::now();
        assert_eq!(events.cause(&target, after, after), Some("killed"));
        let late = after + ms(60);
        assert_eq!(events.cause(&target, late, late + ms(10)), None);
        let early = before - ms(20);
        assert_eq!(events.cause(&target, early, before - ms(10)), None);
    }
}
