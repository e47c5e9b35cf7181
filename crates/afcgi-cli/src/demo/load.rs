//! The clients that the page asks for, since a browser opens six connections to a server and no more:
//! each is an HTTP client of its own, with a connection of its own to the web server, that holds an
//! event stream open and counts what comes.
//!
//! They are bounded in number and in time, and end with the page that asked for them.

use std::error::Error;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::{Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::public::Public;
use super::room::Room;

/// Clients that connect at a time, all pages together.
const CONNECTING: usize = 32;
/// How long a client waits for the head of its answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes that a client reads at a time: the least that hyper takes.
const BUFFER: usize = 8192;

type Failure = Box<dyn Error + Send + Sync>;

/// What all clients share; a clone is the same.
#[derive(Clone, Debug)]
pub(super) struct Load {
    public: Public,
    room: Room,
    connecting: Arc<Semaphore>,
    longest: Duration,
}

/// The clients of one page; they end when this is dropped.
#[derive(Debug, Default)]
pub(super) struct Clients(Mutex<Batch>);

#[derive(Debug, Default)]
struct Batch {
    tasks: JoinSet<()>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    opening: AtomicUsize,
    open: AtomicUsize,
    failed: AtomicUsize,
    events: AtomicU64,
    why: Mutex<Option<String>>,
}

/// What there is of a page's clients.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Tally {
    /// Those that wait for the head of their answer.
    opening: usize,
    /// Those that have it.
    open: usize,
    /// Those that ended before their time.
    failed: usize,
    /// Events that came, to all of them together.
    events: u64,
    /// Why the last one failed.
    why: Option<String>,
}

impl Load {
    pub(super) fn new(public: Public, most: usize, longest: Duration) -> Self {
        Self {
            public,
            room: Room::new(most),
            connecting: Arc::new(Semaphore::new(CONNECTING)),
            longest,
        }
    }

    pub(super) fn public(&self) -> &Public {
        &self.public
    }

    pub(super) fn longest(&self) -> Duration {
        self.longest
    }

    pub(super) fn most(&self) -> usize {
        self.room.most()
    }

    /// Begins to open clients for a page: how many, which is less than asked for where all pages
    /// together would have too many.
    pub(super) fn open(&self, clients: &Clients, count: usize) -> usize {
        let mut batch = clients.0.lock().unwrap_or_else(PoisonError::into_inner);
        while batch.tasks.try_join_next().is_some() {}
        for opened in 0..count {
            let Some(place) = self.room.enter() else {
                return opened;
            };
            let (load, counts) = (self.clone(), Arc::clone(&batch.counts));
            counts.opening.fetch_add(1, Ordering::Relaxed);
            batch.tasks.spawn(async move {
                let _place = place;
                load.client(&counts).await;
            });
        }
        count
    }

    /// One client, from its connection to its end.
    async fn client(&self, counts: &Counts) {
        let Ok(turn) = self.connecting.acquire().await else {
            return;
        };
        let answered = timeout(PATIENCE, self.ask(counts)).await;
        drop(turn);
        counts.opening.fetch_sub(1, Ordering::Relaxed);
        let result = match answered {
            Ok(Ok(stream)) => {
                counts.open.fetch_add(1, Ordering::Relaxed);
                let result = timeout(self.longest, stream).await;
                counts.open.fetch_sub(1, Ordering::Relaxed);
                // That its time is over is no failure.
                result.unwrap_or(Ok(()))
            }
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs()).into()),
        };
        if let Err(failure) = result {
            tracing::debug!(%failure, "a client of the demonstration has ended");
            counts.failed.fetch_add(1, Ordering::Relaxed);
            let mut why = counts.why.lock().unwrap_or_else(PoisonError::into_inner);
            *why = Some(failure.to_string());
        }
    }

    /// Sends the request and waits for the head of its answer; the rest of it is what comes back.
    async fn ask<'a>(
        &self,
        counts: &'a Counts,
    ) -> Result<impl Future<Output = Result<(), Failure>> + use<'a>, Failure> {
        let stream = self.public.connect().await?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(BUFFER)
            .handshake(TokioIo::new(stream))
            .await?;
        let request = Request::get(self.public.route("clock"))
            .header(header::HOST, self.public.host())
            .header(header::ACCEPT, "text/event-stream")
            .body(Empty::<Bytes>::new())?;
        let mut connection = Box::pin(connection);
        let response = tokio::select! {
            response = sender.send_request(request) => response?,
            ended = &mut connection => {
                ended?;
                return Err("the web server closed the connection".into());
            }
        };
        if response.status() != StatusCode::OK {
            return Err(format!("the web server answered {}", response.status()).into());
        }
        let mut body = response.into_body();
        let reading = async move {
            // Kept, so that the connection is.
            let _sender = sender;
            // Whether the last byte ended a line: an empty line ends an event.
            let mut line_ended = false;
            while let Some(frame) = body.frame().await {
                for byte in frame?.data_ref().into_iter().flatten() {
                    if *byte == b'\n' && line_ended {
                        counts.events.fetch_add(1, Ordering::Relaxed);
                    }
                    line_ended = *byte == b'\n';
                }
            }
            Err("the application ended the stream".into())
        };
        Ok(async move {
            let mut reading = Box::pin(reading);
            tokio::select! {
                result = &mut reading => result,
                // What it has read is there to be taken.
                _ = connection => reading.await,
            }
        })
    }
}

impl Clients {
    /// Ends all of them, and forgets what they counted.
    pub(super) fn close(&self) {
        let mut batch = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *batch = Batch::default();
    }

    pub(super) fn tally(&self) -> Tally {
        let batch = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = &batch.counts;
        let why = counts.why.lock().unwrap_or_else(PoisonError::into_inner);
        Tally {
            opening: counts.opening.load(Ordering::Relaxed),
            open: counts.open.load(Ordering::Relaxed),
            failed: counts.failed.load(Ordering::Relaxed),
            events: counts.events.load(Ordering::Relaxed),
            why: why.clone(),
        }
    }
}
