//! The FastCGI load of the comparison: the engine of `afcgi bench` in a closed loop, on the calling thread.
//! Here a failure ends the measurement: one with a wrong answer in it is none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use afcgi_cli::bench::engine::{self, Endpoint, Engine, ExpectStatus, Kind, Stop, Supply};

use crate::load::{Expect, Limit, LoadError, Target};
use crate::request::Request;

/// How long an answer may take. `stall` ends a run before.
const PATIENCE: Duration = Duration::from_secs(600);

/// What is sent, where, and how much of it at once.
#[derive(Clone, Debug)]
pub struct Config {
    /// The application.
    pub target: Target,
    /// Connections, all made at the start.
    pub connections: usize,
    /// Requests in flight on each connection, 1 to 65,534.
    pub requests: u16,
    /// What is sent for each.
    pub request: Request,
    /// What must come back.
    pub expect: Expect,
    /// How long to wait without any answer before the run fails.
    pub stall: Duration,
}

/// A running load. Dropping it closes its connections.
#[derive(Debug)]
pub struct Load {
    engine: Engine,
    places: u64,
}

impl Load {
    /// Connects; nothing is sent before [`Load::run`].
    pub fn connect(config: Config) -> Result<Self, LoadError> {
        let nanos = u64::try_from(PATIENCE.as_nanos()).unwrap_or(u64::MAX);
        let mut expect = engine::Expect {
            status: ExpectStatus::Is(200),
            quiet: true,
            ..engine::Expect::default()
        };
        if let Expect::Body(body) = config.expect {
            expect.body = Some(body);
        }
        let places = config.connections as u64 * u64::from(config.requests);
        let config = engine::Config {
            endpoints: vec![match config.target {
                Target::Tcp(address) => Endpoint::Tcp(address),
                Target::Unix(path) => Endpoint::Unix(path),
            }],
            connections: config.connections,
            concurrent: config.requests,
            template: config.request.into(),
            keep_conn: true,
            expect,
            timeout: nanos,
            patience: nanos,
            abort_after: 0,
            aborts: 0.0,
            seed: 0,
            stall: Some(config.stall),
        };
        let mut engine = Engine::new(config, Arc::default())?;
        engine.connect(Duration::from_secs(10))?;
        Ok(Self { engine, places })
    }

    /// Requests answered since the start or the last [`Load::reset`].
    pub fn completed(&mut self) -> u64 {
        self.engine.stats().completed
    }

    /// Counts from zero again, for a window that begins now.
    pub fn reset(&mut self) {
        self.engine.stats().take();
    }

    /// Whether every byte has been handed to the kernel.
    pub fn sent(&self) -> bool {
        self.engine.is_sent()
    }

    /// Fills every free place with a request, then answers each ending with a new beginning, until a bound is reached.
    /// Returns with requests in flight; may be called again.
    pub fn run(&mut self, limit: Limit) -> Result<(), LoadError> {
        self.engine.supply(Supply::Closed { left: u64::MAX });
        self.turn_until(limit)
    }

    /// Fills every free place with a request, and sends as much as the sockets take.
    pub fn begin_all(&mut self) -> Result<(), LoadError> {
        let left = self.places - self.engine.in_flight();
        self.engine.supply(Supply::Closed { left });
        self.check()
    }

    /// Begins nothing but what [`Load::begin_all`] has; sends what is waiting and counts what comes, within the limit.
    pub fn wait(&mut self, limit: Limit) -> Result<(), LoadError> {
        self.turn_until(limit)
    }

    /// Begins nothing more; returns when nothing is in flight, or at the limit with an error if something is.
    pub fn drain(&mut self, time: Duration) -> Result<(), LoadError> {
        self.engine.stop_supply();
        self.turn_until(Limit::time(time))?;
        match self.unanswered() {
            0 => Ok(()),
            unanswered => Err(LoadError::Stalled { unanswered }),
        }
    }

    fn turn_until(&mut self, limit: Limit) -> Result<(), LoadError> {
        let enough = self.completed().saturating_add(limit.requests);
        let stop = self.engine.run(Instant::now() + limit.time, enough)?;
        self.check()?;
        match stop {
            Stop::Stalled => Err(LoadError::Stalled {
                unanswered: self.unanswered(),
            }),
            Stop::Enough | Stop::Done | Stop::Asked => Ok(()),
        }
    }

    fn unanswered(&self) -> usize {
        usize::try_from(self.engine.in_flight()).unwrap_or(usize::MAX)
    }

    fn check(&mut self) -> Result<(), LoadError> {
        let stats = self.engine.stats();
        let Some(text) = stats.failure() else {
            return Ok(());
        };
        Err(match stats.failures(Kind::Protocol).count {
            0 => LoadError::Answer(text),
            _ => LoadError::Protocol(text),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    fn record(kind: u8, id: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![1, kind, 0, id, 0, content.len() as u8, 0, 0];
        bytes.extend_from_slice(content);
        bytes
    }

    fn good(id: u8) -> Vec<u8> {
        [
            record(6, id, b"Status: 200 OK\r\n\r\nok"),
            record(6, id, b""),
            record(3, id, &[0; 8]),
        ]
        .concat()
    }

    /// Serves one connection: reads two requests, gives back these bytes, waits for the close.
    fn play(answer: Vec<u8>) -> Result<u64, LoadError> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let config = Config {
            target: Target::Tcp(listener.local_addr().unwrap()),
            connections: 1,
            requests: 2,
            request: Request::hello("/", ""),
            expect: Expect::Body(b"ok".to_vec()),
            stall: Duration::from_millis(500),
        };
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut requests = [0; 2 * crate::request::REQUEST_BYTES];
            stream.read_exact(&mut requests).unwrap();
            stream.write_all(&answer).unwrap();
            let _ = stream.read(&mut [0]);
        });
        let mut load = Load::connect(config).unwrap();
        let result = load
            .begin_all()
            .and_then(|()| load.drain(Duration::from_secs(10)));
        let completed = load.completed();
        drop(load);
        server.join().unwrap();
        result.map(|()| completed)
    }

    #[test]
    fn what_is_wrong_fails_the_run() {
        assert_eq!(play([good(2), good(1)].concat()).unwrap(), 2);
        let wrong = [record(6, 1, b"\nno"), record(3, 1, &[0; 8]), good(2)].concat();
        let noise = [record(7, 1, b"oops"), good(1), good(2)].concat();
        for answer in [wrong, noise] {
            assert!(matches!(play(answer), Err(LoadError::Answer(_))));
        }
        let unknown = record(6, 3, b"\nok");
        assert!(matches!(play(unknown), Err(LoadError::Protocol(_))));
    }

    #[test]
    fn silence_is_a_stall() {
        assert!(matches!(
            play(good(1)),
            Err(LoadError::Stalled { unanswered: 1 })
        ));
    }
}
