//! The vocabulary of the cases for applications: connect, send, take the response, and say what is not as it should be.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::case::{Failure, Outcome, deviation, skip};
use super::link::Link;
use super::raw::{Record, get_values, kind};
use super::suite::Suite;
use super::transcript::{Scribe, Transcript};

/// What a case has at hand.
#[derive(Debug)]
pub struct Probe {
    pub(crate) suite: Arc<Suite>,
    pub(crate) transcript: Arc<Mutex<Transcript>>,
}

/// What came for one request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Response {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    /// Its records in their order: type, bytes of content.
    pub(crate) records: Vec<(u8, usize)>,
    /// The content of END_REQUEST, once that came.
    pub(crate) end: Option<Vec<u8>>,
}

impl Response {
    /// The protocol status.
    pub(crate) fn protocol_status(&self) -> Option<u8> {
        self.end.as_ref()?.get(4).copied()
    }

    /// What is behind the head of the response.
    pub(crate) fn body(&self) -> &[u8] {
        let stdout = &self.stdout;
        let end = |mark: &[u8]| {
            let at = stdout.windows(mark.len()).position(|part| part == mark)?;
            Some(at + mark.len())
        };
        let body = match (end(b"\r\n\r\n"), end(b"\n\n")) {
            (Some(a), Some(b)) => a.min(b),
            (Some(at), None) | (None, Some(at)) => at,
            (None, None) => stdout.len(),
        };
        &stdout[body..]
    }
}

impl Probe {
    /// A new connection.
    pub(crate) async fn connect(&self) -> Result<Talk, Failure> {
        let settings = &self.suite.settings;
        let connecting = crate::request::connect(&settings.address);
        let socket = match tokio::time::timeout(settings.limit, connecting).await {
            Ok(Ok(socket)) => socket,
            Ok(Err(error)) => return Err(deviation("a connection", error.to_string())),
            Err(_) => return Err(deviation("a connection", "none is accepted")),
        };
        Ok(Talk {
            link: Link::new(socket, Scribe::new(&self.transcript), settings.limit),
            suite: self.suite.clone(),
            open: BTreeMap::new(),
            management: VecDeque::new(),
            odd: Vec::new(),
            next: 30_000,
        })
    }

    /// Somebody else is served: a new connection gets the answer to the plain request.
    pub(crate) async fn is_served(&self) -> Outcome {
        let mut talk = self.connect().await?;
        let served = talk.answers(&self.ask(1).bytes(), 1).await;
        served.map_err(|failure| because("another connection is served", failure))
    }

    /// A reason to skip unless the application keeps connections, which a case says for itself.
    pub(crate) fn keeps(&self) -> Outcome {
        match self.suite.keeps {
            true => Ok(()),
            false => Err(skip("the application keeps no connection")),
        }
    }

    /// A reason to skip unless the application answers GET_VALUES.
    pub(crate) fn tells(&self) -> Outcome {
        match self.suite.values {
            Some(_) => Ok(()),
            None => Err(skip("the application does not answer GET_VALUES")),
        }
    }

    /// A reason to skip unless the application says that it multiplexes.
    pub(crate) fn multiplexes(&self) -> Outcome {
        match self.suite.multiplexes() {
            Some(true) => Ok(()),
            Some(false) => Err(skip("the application says that it does not multiplex")),
            None => Err(skip("the application does not say whether it multiplexes")),
        }
    }

    pub(crate) fn take_transcript(&self) -> Transcript {
        self.transcript
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// A deviation with what was expected at large in front.
pub(crate) fn because(expected: &str, failure: Failure) -> Failure {
    match failure {
        Failure::Deviation {
            expected: detail,
            came,
        } => deviation(expected, format!("{came} (expected: {detail})")),
        skip => skip,
    }
}

/// A connection to the application, and what came on it, by request.
pub(crate) struct Talk {
    pub(crate) link: Link,
    suite: Arc<Suite>,
    /// What came and was not asked for yet.
    pub(crate) open: BTreeMap<u16, Response>,
    pub(crate) management: VecDeque<Record>,
    /// Records that no application sends.
    pub(crate) odd: Vec<Record>,
    next: u16,
}

impl Talk {
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Outcome {
        self.link.send(bytes).await
    }

    /// Sends bytes one at a time.
    pub(crate) async fn dribble(&mut self, bytes: &[u8]) -> Outcome {
        for (number, byte) in bytes.chunks(1).enumerate() {
            self.send(byte).await?;
            match number < 24 {
                // So that each byte of the first headers is read by itself.
                true => pause(1).await,
                false => tokio::task::yield_now().await,
            }
        }
        Ok(())
    }

    pub(crate) async fn ask_values(&mut self, names: &[&str]) -> Outcome {
        self.send(&get_values(names)).await
    }

    /// The next record, filed under its request.
    pub(crate) async fn read(&mut self) -> Result<Option<Record>, Failure> {
        let Some(record) = self.link.next().await? else {
            return Ok(None);
        };
        self.file(&record);
        Ok(Some(record))
    }

    fn file(&mut self, record: &Record) {
        let (id, code) = (record.id(), record.kind());
        match code {
            kind::GET_VALUES_RESULT | kind::UNKNOWN_TYPE => {
                self.management.push_back(record.clone())
            }
            kind::STDOUT | kind::STDERR | kind::END_REQUEST => {
                let response = self.open.entry(id).or_default();
                response.records.push((code, record.content.len()));
                match code {
                    kind::STDOUT => response.stdout.extend(&record.content),
                    kind::STDERR => response.stderr.extend(&record.content),
                    _ => response.end = Some(record.content.clone()),
                }
            }
            // Credit that is granted is looked at by the cases about it.
            kind::CREDIT => {}
            _ => self.odd.push(record.clone()),
        }
    }

    /// The response to a request, up to END_REQUEST.
    pub(crate) async fn response(&mut self, id: u16) -> Result<Response, Failure> {
        while self
            .open
            .get(&id)
            .is_none_or(|response| response.end.is_none())
        {
            let expected = || format!("END_REQUEST of request {id}");
            match self.read().await {
                Ok(Some(_)) => {}
                Ok(None) => {
                    let bytes = self
                        .open
                        .get(&id)
                        .map_or(0, |response| response.stdout.len());
                    let came = format!("the end of the connection, after {bytes} bytes of STDOUT");
                    return Err(deviation(expected(), came));
                }
                Err(Failure::Deviation { came, .. }) => return Err(deviation(expected(), came)),
                Err(skip) => return Err(skip),
            }
        }
        Ok(self.open.remove(&id).unwrap_or_default())
    }

    /// The answer to a management record.
    pub(crate) async fn answer(&mut self) -> Result<Record, Failure> {
        loop {
            if let Some(record) = self.management.pop_front() {
                return Ok(record);
            }
            match self.read().await {
                Ok(Some(_)) => {}
                Ok(None) => {
                    return Err(deviation(
                        "an answer to a management record",
                        "the end of the connection",
                    ));
                }
                Err(failure) => return Err(because("an answer to a management record", failure)),
            }
        }
    }

    /// Sends something, and the response to a request is that to the plain one.
    pub(crate) async fn answers(&mut self, bytes: &[u8], id: u16) -> Outcome {
        self.send(bytes).await?;
        self.is_plain(id).await
    }

    /// The response to a request is that to the plain one.
    pub(crate) async fn is_plain(&mut self, id: u16) -> Outcome {
        let response = self.response(id).await?;
        let compared = self.suite.baseline.compare(&response.stdout);
        compared.map_err(|came| deviation("the response to the plain request", came))
    }

    /// Sends something, and the body of the response to a request is this.
    pub(crate) async fn gives(&mut self, bytes: &[u8], id: u16, body: &[u8]) -> Outcome {
        self.send(bytes).await?;
        self.is_body(id, body).await
    }

    /// The body of the response to a request is this.
    pub(crate) async fn is_body(&mut self, id: u16, body: &[u8]) -> Outcome {
        let response = self.response(id).await?;
        if response.body() == body {
            return Ok(());
        }
        let came = response.body();
        let same = came.iter().zip(body).take_while(|(a, b)| a == b).count();
        let came = match came.len() {
            0..=100 => format!("`{}`", crate::wire::escaped(came)),
            length => format!("{length} bytes, of which the first {same} are right"),
        };
        Err(deviation(
            format!("{} bytes as they were sent", body.len()),
            came,
        ))
    }

    /// The connection goes on, if the application keeps connections at all: the next request is answered.
    pub(crate) async fn goes_on(&mut self) -> Outcome {
        if !self.suite.keeps {
            return Ok(());
        }
        self.next += 1;
        let (id, ask) = (
            self.next,
            super::ask::Ask::new(self.next, &self.suite.settings.base),
        );
        let answered = self.answers(&ask.bytes(), id).await;
        answered.map_err(|failure| {
            because(
                "the connection goes on and the next request is answered",
                failure,
            )
        })
    }

    /// The application closes the connection. What it says before is filed.
    pub(crate) async fn closes(&mut self) -> Outcome {
        loop {
            match self.read().await {
                Ok(None) => return Ok(()),
                Ok(Some(_)) => {}
                // How it ends is another case.
                Err(_) if self.link.has_ended() => return Ok(()),
                Err(Failure::Deviation { came, .. }) => {
                    return Err(deviation("the application closes the connection", came));
                }
                Err(skip) => return Err(skip),
            }
        }
    }

    /// The application closes the connection, or goes on with the next request: it does not hang, and answers no request that is
    /// none.
    pub(crate) async fn closes_or_goes_on(&mut self) -> Outcome {
        let next = self.next + 1;
        match self.goes_on().await {
            Err(Failure::Deviation { .. })
                if self.link.has_ended() && !self.open.contains_key(&next) =>
            {
                Ok(())
            }
            Err(failure) => Err(because("the connection is closed, or goes on", failure)),
            Ok(()) => Ok(()),
        }
    }

    /// Nothing came for a request that is none, or was taken already.
    pub(crate) fn nothing_for(&self, id: u16, expected: &str) -> Outcome {
        match self.open.get(&id) {
            None => Ok(()),
            Some(response) => {
                let records: Vec<String> = response
                    .records
                    .iter()
                    .map(|&(code, length)| {
                        format!(
                            "{} of {length} bytes",
                            crate::wire::record_name(code.into())
                        )
                    })
                    .take(8)
                    .collect();
                Err(deviation(
                    expected,
                    format!("for request {id}: {}", records.join(", ")),
                ))
            }
        }
    }
}

/// Waits.
pub(crate) async fn pause(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}
