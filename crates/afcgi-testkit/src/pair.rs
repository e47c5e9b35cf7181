//! Both sides of a connection, and between them wires of settable capacity that carry as many bytes
//! at a time as the test says. The clock stands still unless the test moves it.

use std::time::{Duration, Instant};

use afcgi_proto::{ConnectionError, app, web};

/// One direction of a connection.
#[derive(Debug)]
pub struct Wire {
    /// Bytes on their way.
    pub bytes: Vec<u8>,
    /// How many bytes may be on their way: what the sockets' buffers hold.
    pub capacity: usize,
    /// All bytes that the sender gave.
    pub log: Vec<u8>,
}

impl Wire {
    /// An empty wire.
    pub fn new(capacity: usize) -> Self {
        Self {
            bytes: Vec::new(),
            capacity,
            log: Vec::new(),
        }
    }

    /// Takes up to `most` of the bytes that are offered.
    fn put(&mut self, offered: &[u8], most: usize) -> usize {
        let room = self.capacity.saturating_sub(self.bytes.len());
        let part = &offered[..offered.len().min(room).min(most)];
        self.bytes.extend_from_slice(part);
        self.log.extend_from_slice(part);
        part.len()
    }
}

/// A connection between both sides.
#[derive(Debug)]
pub struct Pair {
    /// The web server's side.
    pub web: web::Connection,
    /// The application's side.
    pub app: app::Connection,
    /// From the web server to the application.
    pub to_app: Wire,
    /// From the application to the web server.
    pub to_web: Wire,
    /// The time.
    pub now: Instant,
}

impl Pair {
    /// A new connection.
    pub fn new(web: web::Config, app: app::Config) -> Self {
        let now = Instant::now();
        Self {
            web: web::Connection::new(web),
            app: app::Connection::new(app, now),
            to_app: Wire::new(64 * 1024),
            to_web: Wire::new(64 * 1024),
            now,
        }
    }

    /// Moves up to `most` bytes from the web server onto the wire.
    pub fn web_sends(&mut self, most: usize) -> usize {
        let count = self.to_app.put(self.web.transmit(), most);
        if count > 0 {
            self.web.transmitted(count);
            while self.web.next_round() {}
        }
        count
    }

    /// Moves up to `most` bytes from the application onto the wire.
    pub fn app_sends(&mut self, most: usize) -> usize {
        let count = self.to_web.put(self.app.transmit(), most);
        if count > 0 {
            self.app.transmitted(count);
            while self.app.next_round() {}
        }
        count
    }

    /// Offers up to `most` bytes to the application, and says how many it took.
    pub fn app_receives(&mut self, most: usize) -> Result<usize, ConnectionError> {
        let most = most.min(self.to_app.bytes.len());
        let count = self.app.receive(self.now, &self.to_app.bytes[..most])?;
        self.to_app.bytes.drain(..count);
        Ok(count)
    }

    /// Offers up to `most` bytes to the web server, and says how many it took.
    pub fn web_receives(&mut self, most: usize) -> Result<usize, ConnectionError> {
        let most = most.min(self.to_web.bytes.len());
        let count = self.web.receive(self.now, &self.to_web.bytes[..most])?;
        self.to_web.bytes.drain(..count);
        Ok(count)
    }

    /// Moves bytes in both directions until none can be moved; says how many were.
    pub fn settle(&mut self) -> Result<usize, ConnectionError> {
        let mut total = 0;
        loop {
            let moved = self.web_sends(usize::MAX)
                + self.app_receives(usize::MAX)?
                + self.app_sends(usize::MAX)
                + self.web_receives(usize::MAX)?;
            if moved == 0 {
                return Ok(total);
            }
            total += moved;
        }
    }

    /// Lets time pass, and each side do what is due.
    pub fn pass(&mut self, time: Duration) {
        self.now += time;
        self.web.handle_timeout(self.now);
        self.app.handle_timeout(self.now);
    }
}
