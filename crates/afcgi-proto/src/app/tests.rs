//! What the connection keeps count of is what there is, after any operation.

use super::*;
use crate::record::{BODY_LEN, Header, Role};
use std::time::Duration;

impl Connection {
    fn check(&self) {
        let incomplete = || (self.table.iter()).filter(|(_, request)| !request.is_delivered());
        assert_eq!(self.incomplete.count, incomplete().count());
        let bytes: usize = incomplete().map(|(_, r)| r.incomplete_bytes()).sum();
        assert_eq!(self.incomplete.bytes, bytes);
        assert!(bytes <= self.config.incomplete_bytes);
        assert!(self.table.len() <= self.config.requests);
        let mut excess = 0;
        for (_, request) in self.table.iter() {
            let inputs = [Some(&request.stdin), request.data.as_deref()];
            let held: usize = (inputs.into_iter().flatten())
                .map(|input| input.inbox.len())
                .sum();
            let most = match (&request.flow, &request.data) {
                (Some(_), _) => self.config.stdin_buffer.max(self.config.window_most),
                (None, None) => self.config.stdin_buffer,
                (None, Some(_)) => 2 * self.config.stdin_buffer,
            };
            excess += request.excess(self.config.stdin_buffer);
            assert!(held <= most + request.excess(self.config.stdin_buffer));
        }
        assert_eq!(self.overflow.used, excess);
        assert!(excess <= self.config.overflow);
    }
}

fn put(out: &mut Vec<u8>, record_type: RecordType, id: u16, content: &[u8]) {
    let length = content.len() as u16;
    let header = Header::new(record_type, RequestId::new(id), length);
    out.extend(header.encode());
    out.extend(content);
}

fn run(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let config = Config {
        requests: 6,
        params_bytes: 60,
        params_pairs: 10,
        incomplete_bytes: 100,
        stdin_buffer: 50,
        overflow: rng.usize(0..100),
        window_most: rng.usize(0..200),
        windows_grow: rng.usize(0..300),
        params_timeout: Duration::from_secs(20),
        output_buffer: 200,
        output_turn: 60,
        ..Config::default()
    };
    let mut now = Instant::now();
    let mut connection = Connection::new(config, now);
    let total = OverflowTotal::new(rng.usize(0..100));
    connection.share_overflow(total.clone());
    let mut handles = Vec::new();
    let mut backlog = Vec::new();
    for _ in 0..400 {
        let id = rng.u16(1..10);
        let content = vec![rng.u8(0..4); rng.usize(0..40)];
        match rng.u8(0..14) {
            0 | 1 if connection.table.find(RequestId::new(id).unwrap()).is_none() => {
                let begin = BeginRequest {
                    role: rng.u16(1..5).into(),
                    flags: rng.u8(..),
                    credit: rng.u32(0..200),
                };
                if backlog.is_empty() {
                    let body: [u8; BODY_LEN] = begin.encode();
                    put(&mut backlog, RecordType::BeginRequest, id, &body);
                }
            }
            2 | 3 => put(&mut backlog, RecordType::Params, id, &content),
            4 => put(&mut backlog, RecordType::Params, id, b""),
            5 => put(&mut backlog, RecordType::Stdin, id, &content),
            6 => put(&mut backlog, RecordType::Data, id, &content),
            7 if rng.bool() => put(&mut backlog, RecordType::AbortRequest, id, b""),
            7 => {
                let query = crate::Values::query();
                put(&mut backlog, RecordType::GetValues, 0, &query);
            }
            8 => {
                let body = crate::credit::encode(rng.u32(0..300));
                put(&mut backlog, RecordType::Credit, id, &body);
            }
            9 => {
                now += Duration::from_secs(rng.u64(0..8));
                connection.handle_timeout(now);
                assert!(connection.deadline(now).is_none_or(|at| at > now));
            }
            10 => connection.transmitted(rng.usize(0..100)),
            11 => while connection.next_round() {},
            _ if !handles.is_empty() => {
                let handle = handles[rng.usize(0..handles.len())];
                let most = rng.usize(1..60);
                match rng.u8(0..9) {
                    8 => _ = connection.end_output(handle, Output::Stdout),
                    0 => _ = connection.finish(handle, 0),
                    1 => _ = connection.refuse(handle, ProtocolStatus::Overloaded),
                    2 => _ = connection.write(handle, Output::Stderr, &content),
                    3 => _ = connection.write(handle, Output::Stdout, &content),
                    4 => _ = connection.read(handle, Input::Data, most),
                    _ => _ = connection.read(handle, Input::Stdin, most),
                }
            }
            _ => {}
        }
        let part = rng.usize(0..=backlog.len());
        let taken = connection.receive(now, &backlog[..part]).unwrap();
        backlog.drain(..taken);
        while let Some(event) = connection.poll_event() {
            if let Event::Request { handle, begin, .. } = event {
                assert!(!matches!(begin.role, Role::Other(_)));
                handles.push(handle);
            }
        }
        connection.check();
        assert_eq!(total.used(), connection.overflow.used);
    }
    match rng.bool() {
        true => _ = connection.end_of_input(now),
        false => connection.lost(),
    }
    connection.check();
    assert_eq!(
        (connection.incomplete.count, connection.incomplete.bytes),
        (0, 0)
    );
    drop(connection);
    assert_eq!(total.used(), 0);
}

#[test]
fn counts_hold_after_any_operation() {
    for seed in 0..300 {
        run(seed);
    }
}

#[test]
fn few_of_those_that_have_ended_are_remembered() {
    let now = Instant::now();
    let mut connection = Connection::new(Config::default(), now);
    let begin = BeginRequest {
        role: Role::Other(9),
        flags: 1,
        credit: 0,
    };
    for id in 1..=u16::MAX {
        let mut record = Vec::new();
        put(&mut record, RecordType::BeginRequest, id, &begin.encode());
        assert_eq!(connection.receive(now, &record), Ok(record.len()));
        connection.transmitted(connection.transmit().len());
        while connection.poll_event().is_some() {}
    }
    assert_eq!(connection.unended.len(), 1024);
    assert!(connection.is_still_sent());
}
