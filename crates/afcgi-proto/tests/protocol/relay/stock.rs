//! A model of nginx's stock module on a relay, and of an application.

use afcgi_proto::inbox::Read;
use afcgi_proto::relay::{Recv, Relay};
use afcgi_proto::{Handle, app, web};
use afcgi_testkit::Pair;
use afcgi_testkit::record::{self, code};

/// A record as nginx writes it, padded to eight bytes.
pub(super) fn padded(code: u8, content: &[u8]) -> Vec<u8> {
    let padding = [0; 8];
    let length = content.len().next_multiple_of(8) - content.len();
    record::padded(code, 1, content, &padding[..length])
}

/// A request as nginx writes it.
pub(super) fn request(key: &str, body: &[u8]) -> Vec<u8> {
    let params = record::pairs(&[("KEY", key), ("HTTP_X", &"x".repeat(40))]);
    let mut bytes = record::begin(1, 1, 1);
    bytes.extend(padded(code::PARAMS, &params));
    bytes.extend(record::record(code::PARAMS, 1, b""));
    for part in body.chunks(32 * 1024) {
        bytes.extend(padded(code::STDIN, part));
    }
    bytes.extend(record::record(code::STDIN, 1, b""));
    bytes
}

/// The stock module, as far as a relay sees it: it acts on events only.
pub(super) struct Stock {
    pub(super) relay: Relay,
    pub(super) bytes: Vec<u8>,
    pub(super) sent: usize,
    pub(super) received: Vec<u8>,
    pub(super) end: Option<Recv>,
    pub(super) can_write: bool,
    pub(super) can_read: bool,
}

impl Stock {
    pub(super) fn new(pair: &mut Pair, bytes: Vec<u8>) -> Self {
        Self {
            relay: Relay::new(pair.web.open().unwrap()),
            bytes,
            sent: 0,
            received: Vec::new(),
            end: None,
            can_write: true,
            can_read: true,
        }
    }

    pub(super) fn send(&mut self, pair: &mut Pair, most: usize) -> bool {
        let rest = &self.bytes[self.sent..];
        if !self.can_write || rest.is_empty() {
            return false;
        }
        let part = &rest[..rest.len().min(most)];
        let count = self.relay.send(&mut pair.web, part).unwrap();
        self.sent += count;
        self.can_write = count == part.len();
        true
    }

    pub(super) fn recv(&mut self, pair: &mut Pair, most: usize) -> bool {
        if !self.can_read || self.end.is_some() {
            return false;
        }
        let mut buffer = vec![0; most];
        match self.relay.recv(&mut pair.web, &mut &mut buffer[..]) {
            Recv::Bytes(count) => {
                assert!(count > 0);
                self.received.extend(&buffer[..count]);
            }
            Recv::Pending => self.can_read = false,
            end => self.end = Some(end),
        }
        true
    }

    pub(super) fn event(&mut self, event: &web::Event) {
        self.can_read |= *event == web::Event::Readable(self.relay.handle());
        self.can_write |= *event == web::Event::Writable(self.relay.handle());
    }

    /// STDOUT, STDERR and the status, of a response that is complete.
    pub(super) fn response(&self) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
        assert_eq!(self.end, Some(Recv::End));
        let records = record::parse(&self.received);
        assert!(records.iter().all(|record| record.id == 1));
        let [.., stdout_end, end] = &records[..] else {
            panic!("{records:?}");
        };
        assert_eq!(
            (stdout_end.code, stdout_end.content.len()),
            (code::STDOUT, 0)
        );
        assert_eq!((end.code, end.content.len()), (code::END, 8));
        let ends = records.iter().filter(|record| record.content.is_empty());
        assert_eq!(ends.count(), 1, "an empty record ends a stream");
        let content = |code| record::content(&self.received, code, 1);
        (
            content(code::STDOUT),
            content(code::STDERR),
            end.content.clone(),
        )
    }
}

/// An application that sends back each body, and its KEY as STDERR.
#[derive(Default)]
pub(super) struct Echo {
    tasks: Vec<Task>,
}

struct Task {
    handle: Handle,
    /// What has not been written to STDERR.
    key: Vec<u8>,
    body: Vec<u8>,
    complete: bool,
    sent: usize,
}

impl Echo {
    pub(super) fn run(&mut self, pair: &mut Pair) -> bool {
        let mut progress = false;
        while let Some(event) = pair.app.poll_event() {
            progress = true;
            match event {
                app::Event::Request { handle, params, .. } => {
                    self.tasks.push(Task {
                        handle,
                        key: params.get("KEY").unwrap().to_vec(),
                        body: Vec::new(),
                        complete: false,
                        sent: 0,
                    });
                }
                app::Event::Aborted(handle) => self.tasks.retain(|task| task.handle != handle),
                _ => {}
            }
        }
        self.tasks.retain_mut(|task| {
            let (app, handle) = (&mut pair.app, task.handle);
            while !task.complete {
                match app.read(handle, app::Input::Stdin, usize::MAX) {
                    Ok(Read::Content(content)) => task.body.extend(content),
                    Ok(Read::End) => task.complete = true,
                    Ok(Read::Pending) => break,
                    other => panic!("{other:?}"),
                }
            }
            let count = app.write(handle, app::Output::Stderr, &task.key).unwrap();
            task.key.drain(..count);
            let rest = &task.body[task.sent..];
            task.sent += app.write(handle, app::Output::Stdout, rest).unwrap();
            if !task.complete || task.sent < task.body.len() || !task.key.is_empty() {
                return true;
            }
            app.finish(handle, task.body.len() as u32).unwrap();
            false
        });
        progress
    }
}

pub(super) fn drive(pair: &mut Pair, stocks: &mut [Stock], piece: usize, buffer: usize) {
    let mut echo = Echo::default();
    let mut progress = true;
    while progress {
        progress = echo.run(pair);
        while let Some(event) = pair.web.poll_event() {
            for stock in &mut *stocks {
                stock.event(&event);
            }
        }
        for stock in &mut *stocks {
            progress |= stock.send(pair, piece);
            progress |= stock.recv(pair, buffer);
        }
        progress |= pair.settle().unwrap() > 0;
    }
    assert_eq!(echo.tasks.len(), 0);
}

pub(super) fn body(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 + i / 251) as u8).collect()
}
