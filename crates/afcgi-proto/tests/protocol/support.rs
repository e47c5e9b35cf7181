//! Short ways to drive one side by hand.

use std::time::{Duration, Instant};

use afcgi_proto::inbox::Read;
use afcgi_proto::{Handle, Role, app, web};

/// The application's side, and a clock.
pub(crate) struct App {
    pub(crate) conn: app::Connection,
    pub(crate) now: Instant,
}

impl App {
    pub(crate) fn new() -> Self {
        Self::with(app::Config::default())
    }

    pub(crate) fn with(config: app::Config) -> Self {
        let now = Instant::now();
        let conn = app::Connection::new(config, now);
        Self { conn, now }
    }

    /// Receives bytes, all of which have to be taken.
    #[track_caller]
    pub(crate) fn feed(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        assert_eq!(self.conn.receive(self.now, bytes), Ok(bytes.len()));
    }

    pub(crate) fn events(&mut self) -> Vec<app::Event> {
        std::iter::from_fn(|| self.conn.poll_event()).collect()
    }

    /// The handles of the requests that were announced; nothing else may have been told.
    #[track_caller]
    pub(crate) fn requests(&mut self) -> Vec<Handle> {
        (self.events().into_iter())
            .map(|event| match event {
                app::Event::Request { handle, .. } => handle,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    /// Transmits everything that is pending, and gives those that wait their turns.
    pub(crate) fn output(&mut self) -> Vec<u8> {
        let out = self.conn.transmit().to_vec();
        self.conn.transmitted(out.len());
        while self.conn.next_round() {}
        out
    }

    pub(crate) fn stdin(&mut self, handle: Handle) -> Read {
        self.conn
            .read(handle, app::Input::Stdin, usize::MAX)
            .unwrap()
    }

    #[track_caller]
    pub(crate) fn stdout(&mut self, handle: Handle, content: &[u8]) -> usize {
        (self.conn)
            .write(handle, app::Output::Stdout, content)
            .unwrap()
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.conn.handle_timeout(self.now);
    }
}

/// The web server's side, and a clock.
pub(crate) struct Web {
    pub(crate) conn: web::Connection,
    pub(crate) now: Instant,
}

impl Web {
    pub(crate) fn new() -> Self {
        Self::with(web::Config::default())
    }

    pub(crate) fn with(config: web::Config) -> Self {
        Self {
            conn: web::Connection::new(config),
            now: Instant::now(),
        }
    }

    /// Receives bytes, all of which have to be taken.
    #[track_caller]
    pub(crate) fn feed(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        assert_eq!(self.conn.receive(self.now, bytes), Ok(bytes.len()));
    }

    pub(crate) fn events(&mut self) -> Vec<web::Event> {
        std::iter::from_fn(|| self.conn.poll_event()).collect()
    }

    /// Transmits everything that is pending, and gives those that wait their turns.
    pub(crate) fn output(&mut self) -> Vec<u8> {
        let out = self.conn.transmit().to_vec();
        self.conn.transmitted(out.len());
        while self.conn.next_round() {}
        out
    }

    /// A request of a responder that was begun.
    #[track_caller]
    pub(crate) fn begin(&mut self) -> Handle {
        let handle = self.conn.open().unwrap();
        self.conn.begin(handle, Role::Responder).unwrap();
        handle
    }

    /// A request that was sent, without parameters or body.
    #[track_caller]
    pub(crate) fn request(&mut self) -> Handle {
        let handle = self.begin();
        self.conn.end(handle, web::Output::Params).unwrap();
        self.conn.end(handle, web::Output::Stdin).unwrap();
        handle
    }

    pub(crate) fn stdout(&mut self, handle: Handle) -> Read {
        self.conn
            .read(handle, web::Input::Stdout, usize::MAX)
            .unwrap()
    }

    pub(crate) fn close(&mut self, handle: Handle) {
        self.conn.close(handle, self.now);
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.conn.handle_timeout(self.now);
    }
}

/// What a read gives when there is content.
pub(crate) fn content(bytes: impl AsRef<[u8]>) -> Read {
    Read::Content(bytes.as_ref().to_vec().into())
}
