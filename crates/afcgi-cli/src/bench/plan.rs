//! What the command line asks for, checked, and fitted to what the application and this system can do.

use std::fmt;
use std::time::Duration;

use afcgi_proto::Role;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::arguments::Arguments;
use super::engine::{Config, Endpoint, Expect, Template};
use super::probe::{self, Answer};
use crate::request::arguments::RoleName;
use crate::request::body;
use crate::request::failure::Failure;
use crate::request::params::{Way, asked_for};
use crate::request::target::Target;

/// Requests at once on a connection, if nothing is said.
const CONCURRENT: u16 = 64;
/// How long it lasts, if nothing is said.
const DURATION: Duration = Duration::from_secs(10);
const HOLD: Duration = Duration::from_secs(5);
/// Descriptors that are needed beside those of connections.
const DESCRIPTORS: u64 = 64;

/// A run.
#[derive(Debug)]
pub(super) struct Plan {
    /// As it was written.
    pub(super) target: String,
    pub(super) endpoint: Endpoint,
    pub(super) connections: usize,
    pub(super) concurrent: u16,
    pub(super) threads: usize,
    pub(super) requests: Option<u64>,
    /// How long it lasts; how long requests are held.
    pub(super) duration: Option<Duration>,
    pub(super) warm_up: Duration,
    pub(super) rate: Option<f64>,
    pub(super) hold: Option<u64>,
    pub(super) timeout: Duration,
    pub(super) keep_conn: bool,
    pub(super) aborts: Option<Aborts>,
    pub(super) template: Template,
    pub(super) body: usize,
    pub(super) expect: Expect,
    pub(super) answer: Answer,
    /// What is worth saying of all that.
    pub(super) notes: Vec<String>,
}

/// Requests that are aborted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Aborts {
    pub(super) after: Duration,
    /// The share, 0 to 1.
    pub(super) share: f64,
    pub(super) seed: u64,
}

impl Plan {
    /// Checks everything, and asks the application.
    pub(super) fn new(arguments: &Arguments) -> Result<Self, Failure> {
        let usage = |text: &str| Err(Failure::Usage(text.to_owned()));
        let target = Target::parse(&arguments.target)?;
        let (body, kind) = sent(arguments)?;
        if arguments.role == RoleName::Filter {
            return usage("a filter is not loaded: --role is responder or authorizer");
        }
        if body.is_some() && arguments.role == RoleName::Authorizer {
            return usage("an authorizer is sent no body");
        }
        let keep_conn = !arguments.no_keep_conn;
        let way = Way {
            method: "GET",
            role: arguments.role,
            length: body.as_ref().map(|body| body.len() as u64),
            kind,
            websocket: false,
            file: None,
        };
        let params = asked_for(&arguments.asked, &target, &way)?;
        let body = body.unwrap_or_default();
        let pairs = params.iter().map(|(name, value)| (name.as_bytes(), value));
        let role = Role::from(arguments.role);
        let template = Template::new(role.code(), keep_conn, pairs, &body);

        // Without FCGI_KEEP_CONN Go closes after the first answer, whatever else is on the connection.
        let single = arguments.concurrent == Some(1) || !keep_conn;
        let asks = !single && !arguments.force;
        let (endpoint, answer) = probe::probe(&target.address, arguments.timeout, asks)?;
        let mut notes = Vec::new();
        let (connections, concurrent) = width(arguments, &answer, &mut notes)?;
        let threads = usize::try_from(arguments.threads).unwrap_or(1);
        if threads > connections {
            return usage("there are more threads than connections: each thread needs one (-c)");
        }
        descriptors(connections)?;
        if let (Endpoint::Tcp(_), 28_001..) = (&endpoint, connections) {
            notes.push(String::from(
                "An address of TCP usually has 28,232 ports for connections to one port (net.ipv4.ip_local_port_range): \
                 a unix socket has no such limit.",
            ));
        }
        let aborts = arguments.abort_after.map(|after| Aborts {
            after,
            share: arguments.aborts.unwrap_or(100.0) / 100.0,
            seed: arguments.seed.unwrap_or_else(|| fastrand::u64(..)),
        });
        let duration = match (arguments.duration, arguments.requests, arguments.hold) {
            (Some(duration), _, _) => Some(duration),
            (None, _, Some(_)) => Some(HOLD),
            (None, Some(_), None) => None,
            (None, None, None) => Some(DURATION),
        };
        Ok(Self {
            target: arguments.target.clone(),
            endpoint,
            connections,
            concurrent,
            threads,
            requests: arguments.requests,
            duration,
            warm_up: arguments.warm_up.unwrap_or_default(),
            rate: arguments.rate,
            hold: arguments.hold,
            timeout: arguments.timeout,
            keep_conn,
            aborts,
            body: body.len(),
            template,
            expect: Expect {
                status: arguments.expect_status.unwrap_or_default(),
                length: arguments.expect_length,
                text: arguments.expect_text.clone().map(String::into_bytes),
                body: None,
                hash: arguments.expect_hash,
                quiet: arguments.expect_quiet,
            },
            answer,
            notes,
        })
    }

    /// What one of the threads does.
    pub(super) fn config(&self, thread: usize) -> Config {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let aborts = self.aborts;
        Config {
            endpoints: vec![self.endpoint.clone()],
            connections: self.connections_of(thread),
            concurrent: self.concurrent,
            template: self.template.clone(),
            keep_conn: self.keep_conn,
            expect: self.expect.clone(),
            timeout: nanos(self.timeout),
            patience: match self.hold {
                Some(_) => u64::MAX,
                None => nanos(self.timeout),
            },
            abort_after: aborts.map_or(0, |aborts| nanos(aborts.after)),
            aborts: aborts.map_or(0.0, |aborts| aborts.share),
            seed: aborts.map_or(0, |aborts| aborts.seed.wrapping_add(thread as u64)),
            // What ends by itself needs no other end.
            stall: (self.duration.is_none())
                .then(|| self.timeout.saturating_add(Duration::from_secs(1))),
        }
    }

    /// The connections that one of the threads has.
    fn connections_of(&self, thread: usize) -> usize {
        let rest = usize::from(thread < self.connections % self.threads);
        self.connections / self.threads + rest
    }

    /// The part of a number of requests that one of the threads has: as much as it has of the connections.
    pub(super) fn share(&self, number: u64, thread: usize) -> u64 {
        let before: usize = (0..thread).map(|other| self.connections_of(other)).sum();
        let up_to = |connections: usize| {
            let part = u128::from(number) * connections as u128 / self.connections as u128;
            u64::try_from(part).unwrap_or(number)
        };
        up_to(before + self.connections_of(thread)) - up_to(before)
    }

    /// The part of the rate that it has.
    pub(super) fn rate_of(&self, rate: f64, thread: usize) -> f64 {
        rate * self.connections_of(thread) as f64 / self.connections as f64
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let several = |count: usize| if count == 1 { "" } else { "s" };
        write!(
            f,
            "{} connection{} × {} request{} at once, {} thread{}",
            self.connections,
            several(self.connections),
            self.concurrent,
            several(usize::from(self.concurrent)),
            self.threads,
            several(self.threads)
        )?;
        match (self.hold, self.rate) {
            (Some(hold), _) => write!(f, ", {hold} held"),
            (None, Some(rate)) => write!(f, ", open loop of {rate} requests/s"),
            (None, None) => write!(f, ", closed loop"),
        }
    }
}

/// The body, and its type if that follows from how it was given.
fn sent(arguments: &Arguments) -> Result<(Option<Vec<u8>>, Option<&'static str>), Failure> {
    let form = Some("application/x-www-form-urlencoded");
    if let Some(size) = arguments.body_size {
        let letters = (b'a'..=b'z').cycle();
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let body = letters.take(size).collect();
        return Ok((Some(body), Some("application/octet-stream")));
    }
    let binary = arguments.data.is_empty();
    let values = match binary {
        true => &arguments.data_binary,
        false => &arguments.data,
    };
    if values.is_empty() {
        return Ok((None, None));
    }
    Ok((Some(body::data(values, binary)?.bytes()?), form))
}

/// Connections, and requests at once on each.
fn width(
    arguments: &Arguments,
    answer: &Answer,
    notes: &mut Vec<String>,
) -> Result<(usize, u16), Failure> {
    let asked = arguments.concurrent;
    let multiplexes = arguments.force || *answer == Answer::Multiplexes;
    let why = match answer {
        Answer::One => Some("says that it takes one request at a time on a connection"),
        Answer::Silent => {
            Some("does not answer GET_VALUES, so it takes one request at a time on a connection")
        }
        Answer::Closed => Some(
            "closes the connection when it is asked by GET_VALUES: take it for one request at a time",
        ),
        Answer::Multiplexes | Answer::NotAsked => None,
    };
    if let Some(why) = why {
        let more = match arguments.hold {
            Some(_) => "Each request has a connection of its own.",
            None => "-c is how many there are at once. --force does as -m says.",
        };
        notes.push(format!("The application {why}. {more}"));
    }
    if let Some(hold) = arguments.hold {
        let most = match (multiplexes, asked) {
            (false, _) => 1,
            (true, Some(asked)) => u64::from(asked),
            (true, None) => 65_534,
        };
        let connections = arguments.connections.max(hold.div_ceil(most)).min(hold);
        let concurrent = hold.div_ceil(connections).min(most);
        return Ok((
            usize::try_from(connections).unwrap_or(usize::MAX),
            u16::try_from(concurrent).unwrap_or(u16::MAX),
        ));
    }
    let concurrent = match (asked, multiplexes) {
        (Some(asked), true) => asked,
        (None, true) => CONCURRENT,
        (_, false) => 1,
    };
    let connections = usize::try_from(arguments.connections).unwrap_or(usize::MAX);
    Ok((connections, concurrent))
}

/// Sees to it that there are descriptors for so many connections.
fn descriptors(connections: usize) -> Result<(), Failure> {
    let needed = connections as u64 + DESCRIPTORS;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let raised = Rlimit {
        current: Some(needed),
        maximum: limit.maximum,
    };
    let most = limit.maximum.unwrap_or(u64::MAX);
    if needed > most || setrlimit(Resource::Nofile, raised).is_err() {
        return Err(Failure::Usage(format!(
            "{connections} connections need {needed} descriptors, and this process may have {most}: `ulimit -Hn` or \
             LimitNOFILE= raises that"
        )));
    }
    Ok(())
}
