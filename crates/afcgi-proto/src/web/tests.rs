//! What the connection keeps count of is what there is, after any operation.

use std::time::Duration;

use super::*;
use crate::record::{Header, ProtocolStatus, RequestId};

impl Connection {
    fn check(&self) {
        let count = |wanted: fn(&Phase) -> bool| {
            (self.table.iter())
                .filter(|(_, request)| wanted(&request.phase))
                .count()
        };
        let ended = count(|phase| matches!(phase, Phase::Ended(_)));
        assert_eq!(self.ended, ended);
        assert_eq!(self.active(), self.table.len() - ended);
        let draining = count(|phase| matches!(phase, Phase::Draining(_)));
        assert_eq!(self.draining, draining);
        assert!(draining == 0 || self.drain_check_at.is_some());
        assert!(self.active() <= usize::from(self.config.requests));
        assert!(self.table.len() <= 2 * usize::from(self.config.requests));
        let stalled = (self.table.iter())
            .filter(|(_, request)| request.stalled)
            .count();
        assert_eq!(self.stalled, stalled);
        let lingers = |handle| (self.lingering.iter()).any(|&(_, lingering)| lingering == handle);
        for (handle, request) in self.table.iter() {
            assert!(request.linger.is_none() || (request.closed && lingers(handle)));
            // Whoever holds an id is found under it, and nobody else is.
            let holds = !matches!(request.phase, Phase::Ended(_));
            assert_eq!(self.table.find(handle.id()) == Some(handle), holds);
            let held = request.stdout.len() + request.stderr.len();
            assert!(
                held <= self
                    .config
                    .receive_buffer
                    .saturating_add(self.config.overflow)
                    .max(self.config.window)
                    .max(self.config.window_most)
            );
        }
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
        requests: rng.u16(1..6),
        receive_buffer: 50,
        overflow: rng.usize(0..200),
        window: rng.usize(0..80),
        window_most: rng.usize(0..200),
        windows_total: rng.usize(0..2000),
        linger_bytes: rng.usize(0..100),
        drain_timeout: Duration::from_secs(rng.u64(20..10_000)),
        output_buffer: 200,
        output_turn: 60,
        ..Config::default()
    };
    let mut now = Instant::now();
    let mut connection = Connection::new(config);
    let mut handles = Vec::new();
    let mut backlog = Vec::new();
    for _ in 0..400 {
        let id = rng.u16(1..10);
        let content = vec![7; rng.usize(0..40)];
        match rng.u8(0..14) {
            0 | 1 => {
                let room = connection.has_room();
                let opened = connection.open();
                assert_eq!(opened.is_ok(), room);
                handles.extend(opened);
            }
            2 => put(&mut backlog, RecordType::Stdout, id, &content),
            3 => put(&mut backlog, RecordType::Stderr, id, &content),
            4 => put(&mut backlog, RecordType::Stdout, id, b""),
            5 => {
                let end = EndRequest {
                    app_status: 0,
                    protocol_status: ProtocolStatus::RequestComplete,
                };
                put(&mut backlog, RecordType::EndRequest, id, &end.encode());
            }
            6 => {
                let body = credit::encode(rng.u32(0..300));
                put(&mut backlog, RecordType::Credit, id, &body);
            }
            7 if rng.bool() => connection.probe(),
            7 => {
                let answer = b"\x11\x02FCGI_FLOW_CONTROL99";
                put(&mut backlog, RecordType::GetValuesResult, 0, answer);
            }
            8 => {
                now += Duration::from_secs(rng.u64(0..8));
                connection.handle_timeout(now);
                assert!(connection.deadline(now).is_none_or(|at| at > now));
            }
            9 => connection.transmitted(rng.usize(0..100)),
            10 => while connection.next_round() {},
            _ if !handles.is_empty() => {
                let handle = handles[rng.usize(0..handles.len())];
                let most = rng.usize(1..60);
                match rng.u8(0..10) {
                    0 | 1 => _ = connection.begin(handle, Role::Responder),
                    2 if rng.bool() => connection.close(handle, now),
                    2 => connection.close_gently(handle, now),
                    3 => _ = connection.write(handle, Output::Params, &content),
                    4 => _ = connection.write(handle, Output::Stdin, &content),
                    5 => _ = connection.end(handle, Output::Params),
                    6 => _ = connection.end(handle, Output::Stdin),
                    7 => _ = connection.read(handle, Input::Stderr, most),
                    8 => _ = connection.ended(handle),
                    _ => _ = connection.read(handle, Input::Stdout, most),
                }
            }
            _ => {}
        }
        let part = rng.usize(0..=backlog.len());
        let taken = connection.receive(now, &backlog[..part]).unwrap();
        backlog.drain(..taken);
        while connection.poll_event().is_some() {}
        connection.check();
    }
    connection.lost();
    connection.check();
    assert_eq!((connection.active(), connection.draining()), (0, 0));
    for handle in handles {
        connection.close(handle, now);
    }
    assert!(connection.table.is_empty());
    assert!(connection.is_finished());
}

#[test]
fn counts_hold_after_any_operation() {
    for seed in 0..300 {
        run(seed);
    }
}
