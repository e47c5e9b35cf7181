//! HTTP/1.1 keep-alive clients that send by the clock: each at its own times, evenly spread, so that latencies show what
//! holds a request up and not how many there are. One thread. Every answer is checked as in [`http`](crate::http); here one
//! that is wrong, or does not come, is counted, and its client goes on with a new connection.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use crate::http::{answer, request};
use crate::load::{Expect, LoadError, Output, Stats, Stream, Target};

/// What is sent, where, by how many and how often.
#[derive(Clone, Debug)]
pub struct Config {
    /// The web server.
    pub target: Target,
    /// Clients, each with its connection.
    pub clients: usize,
    /// Path and query of the GET.
    pub path: String,
    /// What must come back.
    pub expect: Expect,
    /// From one request of a client to its next. An answer that takes longer puts the next one off.
    pub interval: Duration,
    /// How long an answer may take before it counts as failed.
    pub patience: Duration,
}

/// Clients between or in their runs. Dropping it closes their connections.
#[derive(Debug)]
pub struct Load {
    poll: Poll,
    events: Events,
    clients: Vec<Client>,
    config: Config,
    request: Vec<u8>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Client {
    stream: Stream,
    input: Vec<u8>,
    output: Output,
    started: Option<Instant>,
    due: Instant,
}

/// What came of one run.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Requests answered, and their latencies from the moment of sending. An answer that took longer than the interval
    /// counts once more for each request that could not be sent meanwhile, with what that would have waited.
    pub stats: Stats,
    /// Requests that were answered wrongly or not at all.
    pub failed: u64,
    /// What was wrong with the first of them.
    pub failure: Option<String>,
}

impl Figures {
    /// Microseconds below which so much (0 to 1) of the latencies are.
    pub fn micros(&self, quantile: f64) -> f64 {
        self.stats.latency.value_at_quantile(quantile) as f64 / 1000.0
    }

    fn record(&mut self, took: Duration, interval: Duration) {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        // Beyond the histogram's range is impossible within the patience.
        let _ = (self.stats.latency).record_correct(nanos(took).max(1), nanos(interval));
    }
}

impl Load {
    /// Connects; nothing is sent before [`Load::run`].
    pub fn connect(config: Config) -> Result<Self, LoadError> {
        let poll = Poll::new()?;
        let clients = (0..config.clients)
            .map(|index| Client::connect(&config, &poll, index))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            poll,
            events: Events::with_capacity(1024),
            clients,
            request: request("GET", &config.path, ""),
            config,
            buffer: vec![0; 64 * 1024],
        })
    }

    /// Sends for so long, then waits for the last answers. May be called again.
    pub fn run(&mut self, time: Duration) -> Result<Figures, LoadError> {
        let mut figures = Figures::default();
        let start = Instant::now();
        let end = start + time;
        for (client, number) in self.clients.iter_mut().zip(0_u32..) {
            let clients = u32::try_from(self.config.clients).unwrap_or(u32::MAX);
            client.due = start + self.config.interval * number / clients;
        }
        loop {
            let now = Instant::now();
            let mut wake = (now < end).then_some(end);
            for index in 0..self.clients.len() {
                if let Some(at) = self.turn(index, now, end, &mut figures)? {
                    wake = Some(wake.map_or(at, |wake| wake.min(at)));
                }
            }
            let Some(wake) = wake else {
                return Ok(figures);
            };
            let wait = wake.saturating_duration_since(Instant::now());
            match self.poll.poll(&mut self.events, Some(wait)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            let mut failed = Vec::new();
            for event in &self.events {
                let Some(client) = self.clients.get_mut(event.token().0) else {
                    continue;
                };
                let received = client.receive(
                    &self.config,
                    &mut self.buffer,
                    &mut figures,
                    event.is_writable(),
                );
                if let Err(error) = received {
                    failed.push((event.token().0, error));
                }
            }
            for (index, error) in failed {
                self.fail(index, &error, &mut figures)?;
            }
        }
    }

    /// Does what is due for one client, and says when that is the case again.
    fn turn(
        &mut self,
        index: usize,
        now: Instant,
        end: Instant,
        figures: &mut Figures,
    ) -> Result<Option<Instant>, LoadError> {
        let Config {
            interval, patience, ..
        } = self.config;
        let Some(client) = self.clients.get_mut(index) else {
            return Ok(None);
        };
        if let Some(started) = client.started {
            let late = started + patience;
            if late > now {
                return Ok(Some(late));
            }
            self.fail(index, &LoadError::Stalled { unanswered: 1 }, figures)?;
            return Ok((now < end).then_some(now));
        }
        if now >= end {
            return Ok(None);
        }
        if client.due > now {
            return Ok((client.due < end).then_some(client.due));
        }
        // Times that have passed are left out, so that the clients stay spread.
        while client.due <= now {
            client.due += interval;
        }
        client.started = Some(Instant::now());
        client.output.bytes.extend_from_slice(&self.request);
        if let Err(error) = client.output.flush(&mut client.stream, &mut figures.stats) {
            self.fail(index, &error.into(), figures)?;
        }
        Ok(Some(now + patience))
    }

    fn fail(
        &mut self,
        index: usize,
        error: &LoadError,
        figures: &mut Figures,
    ) -> Result<(), LoadError> {
        let Some(client) = self.clients.get_mut(index) else {
            return Ok(());
        };
        figures.failed += 1;
        figures.failure.get_or_insert_with(|| error.to_string());
        if let Some(started) = client.started {
            figures.record(started.elapsed(), self.config.interval);
        }
        let due = client.due;
        *client = Client::connect(&self.config, &self.poll, index)?;
        client.due = due;
        Ok(())
    }
}

impl Client {
    fn connect(config: &Config, poll: &Poll, index: usize) -> Result<Self, LoadError> {
        Ok(Self {
            stream: Stream::connect(&config.target, poll.registry(), Token(index))?,
            input: Vec::new(),
            output: Output::default(),
            started: None,
            due: Instant::now(),
        })
    }

    fn receive(
        &mut self,
        config: &Config,
        buffer: &mut [u8],
        figures: &mut Figures,
        writable: bool,
    ) -> Result<(), LoadError> {
        if writable {
            self.output.flush(&mut self.stream, &mut figures.stats)?;
        }
        loop {
            let got = match self.stream.read(buffer) {
                Ok(0) => {
                    let unanswered = usize::from(self.started.is_some());
                    return Err(LoadError::Closed { unanswered });
                }
                Ok(got) => got,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            let Some(started) = self.started else {
                let what = "bytes that nobody asked for";
                return Err(LoadError::Protocol(what.to_owned()));
            };
            self.input.extend_from_slice(&buffer[..got]);
            let Some((status, body, length)) = answer(&self.input)? else {
                continue;
            };
            if length != self.input.len() {
                return Err(LoadError::Protocol("bytes behind the answer".to_owned()));
            }
            config.expect.check(status, &body)?;
            figures.record(started.elapsed(), config.interval);
            figures.stats.completed += 1;
            self.started = None;
            self.input.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Answers each request of each connection, the third of all after `pause`.
    fn server(pause: Duration) -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = Target::Tcp(listener.local_addr().unwrap());
        thread::spawn(move || {
            let mut count = 0;
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut buffer = [0; 1024];
                while stream.read(&mut buffer).is_ok_and(|got| got > 0) {
                    count += 1;
                    if count == 3 {
                        thread::sleep(pause);
                    }
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                }
            }
        });
        target
    }

    fn run(pause: Duration) -> Figures {
        let mut load = Load::connect(Config {
            target: server(pause),
            clients: 1,
            path: "/".to_owned(),
            expect: Expect::Body(b"ok".to_vec()),
            interval: Duration::from_millis(5),
            patience: Duration::from_millis(400),
        })
        .unwrap();
        load.run(Duration::from_millis(600)).unwrap()
    }

    #[test]
    fn an_answer_that_is_late_counts_for_those_that_it_put_off() {
        let figures = run(Duration::from_millis(200));
        assert_eq!(figures.failed, 0, "{:?}", figures.failure);
        assert!(figures.stats.completed > 3);
        assert!(figures.micros(1.0) >= 190_000.0);
        // 40 requests could not be sent meanwhile.
        assert!(figures.stats.latency.len() >= figures.stats.completed + 35);
    }

    #[test]
    fn an_answer_that_does_not_come_is_a_failure_and_the_client_goes_on() {
        let figures = run(Duration::from_millis(500));
        assert_eq!(figures.failed, 1);
        assert!(figures.failure.unwrap().contains("stalled"));
        assert!(figures.stats.completed > 3);
    }
}
