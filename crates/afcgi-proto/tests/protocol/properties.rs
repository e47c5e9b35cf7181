//! Properties, against readers that are too simple to be wrong, and bytes of any kind.

use afcgi_proto::cgi::{Head, HeadLimits};
use afcgi_proto::params::encode_pair;
use afcgi_proto::reader::Reader;
use afcgi_proto::{ConnectionError, Params, RequestError, RequestId, Values};
use afcgi_testkit::record::{self, Record};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::support::{App, Web};

fn any_record() -> impl Strategy<Value = Record> {
    let code = prop_oneof![4 => 1..=11_u8, 1 => any::<u8>()];
    let id = prop_oneof![4 => 0..4_u16, 1 => any::<u16>()];
    let content = prop_oneof![
        1 => Just(Vec::new()),
        2 => vec(any::<u8>(), 8),
        3 => vec(any::<u8>(), 0..40),
        1 => (0..=65_535_usize).prop_map(|length| vec![1; length]),
    ];
    (code, id, content, vec(any::<u8>(), 0..10)).prop_map(|(code, id, content, padding)| Record {
        code,
        id,
        content,
        padding,
    })
}

fn encode(records: &[Record]) -> Vec<u8> {
    (records.iter())
        .flat_map(|r| record::padded(r.code, r.id, &r.content, &r.padding))
        .collect()
}

/// Pieces of the sizes that are given, in turns.
fn pieces<'a>(mut bytes: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    let mut sizes = sizes.iter().cycle();
    while !bytes.is_empty() {
        let (piece, rest) = bytes.split_at(bytes.len().min(*sizes.next().unwrap()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

/// Type, id, content; and how it ended.
type Found = (Vec<(u8, u16, Vec<u8>)>, Result<bool, ConnectionError>);

fn read(pieces: &[&[u8]], room: usize) -> Found {
    let mut reader = Reader::new();
    let mut records = Vec::new();
    let mut content = Vec::new();
    for &piece in pieces {
        let mut piece = piece;
        loop {
            match reader.read_within(&mut piece, |_| room) {
                Ok(Some(fragment)) => {
                    assert!(fragment.content.len() <= room);
                    assert_eq!(fragment.first, content.is_empty());
                    content.extend_from_slice(fragment.content);
                    if fragment.last {
                        let header = fragment.header;
                        assert_eq!(content.len(), usize::from(header.content_length));
                        let id = header.request_id.map_or(0, RequestId::get);
                        records.push((header.record_type.code(), id, std::mem::take(&mut content)));
                    }
                }
                Ok(None) => break,
                Err(error) => return (records, Err(error)),
            }
        }
        assert!(piece.is_empty());
    }
    (records, Ok(reader.at_boundary()))
}

/// Pairs, or nothing where they are malformed. Lengths are read in 64 bits.
fn naive_pairs(bytes: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut at = 0_u64;
    let byte = |at: u64| bytes.get(usize::try_from(at).unwrap()).copied();
    let mut pairs = Vec::new();
    while at < bytes.len() as u64 {
        let mut lengths = [0_u64; 2];
        for length in &mut lengths {
            let first = byte(at)?;
            at += 1;
            *length = u64::from(first);
            if first >= 128 {
                *length -= 128;
                for _ in 0..3 {
                    *length = *length * 256 + u64::from(byte(at)?);
                    at += 1;
                }
            }
        }
        let mut parts = lengths.map(|length| {
            let range = usize::try_from(at).ok()?..usize::try_from(at + length).ok()?;
            at += length;
            Some(bytes.get(range)?.to_vec())
        });
        pairs.push((parts[0].take()?, parts[1].take()?));
    }
    Some(pairs)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn r04_reader_finds_what_was_written(
        records in vec(any_record(), 0..8),
        sizes in vec(1..50_usize, 1..5),
        room in 1..1000_usize,
    ) {
        let bytes = encode(&records);
        let expected: Vec<_> = records.into_iter().map(|r| (r.code, r.id, r.content)).collect();
        prop_assert_eq!(read(&pieces(&bytes, &sizes), room), (expected.clone(), Ok(true)));
        prop_assert_eq!(read(&[&bytes], usize::MAX), (expected, Ok(true)));
    }

    #[test]
    fn r02_reader_and_any_bytes(
        records in vec(any_record(), 0..3),
        rest in vec(prop_oneof![Just(1_u8), Just(0_u8), any::<u8>()], 0..60),
        sizes in vec(1..20_usize, 1..5),
    ) {
        let bytes = [encode(&records), rest].concat();
        let mut left = &bytes[..];
        let mut expected = Vec::new();
        while left.first() == Some(&1) {
            // Only the simple reader minds the reserved byte.
            let mut zeroed = left.to_vec();
            if let Some(reserved) = zeroed.get_mut(7) {
                *reserved = 0;
            }
            let mut zeroed = &zeroed[..];
            let Some(r) = record::take(&mut zeroed) else { break };
            left = &left[left.len() - zeroed.len()..];
            expected.push((r.code, r.id, r.content));
        }
        let (mut found, end) = read(&pieces(&bytes, &sizes), usize::MAX);
        match left.first() {
            None => prop_assert_eq!(end, Ok(true)),
            Some(1) => prop_assert_eq!(end, Ok(false)),
            Some(&found) => prop_assert_eq!(end, Err(ConnectionError::Version { found })),
        }
        // A record whose padding is cut off is complete for the reader.
        found.truncate(expected.len());
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn r20_pairs_round_trip(list in vec((vec(any::<u8>(), 0..200), vec(any::<u8>(), 0..200)), 0..20)) {
        let mut bytes = Vec::new();
        for (name, value) in &list {
            prop_assert!(encode_pair(&mut bytes, name, value));
        }
        prop_assert_eq!(naive_pairs(&bytes), Some(list.clone()));
        let params = Params::parse(bytes.into(), 20).unwrap();
        let found: Vec<_> = params.iter().map(|(n, v)| (n.to_vec(), v.to_vec())).collect();
        prop_assert_eq!(found, list);
    }

    #[test]
    fn r21_r22_pairs_of_any_bytes(bytes in vec(prop_oneof![4 => 0..6_u8, 1 => Just(0x80_u8), 1 => any::<u8>()], 0..60)) {
        let found = match Params::parse(bytes.clone().into(), usize::MAX) {
            Ok(params) => {
                prop_assert_eq!(params.len(), params.iter().count());
                Some(params.iter().map(|(n, v)| (n.to_vec(), v.to_vec())).collect())
            }
            Err(error) => {
                prop_assert_eq!(error, RequestError::MalformedParams);
                None
            }
        };
        prop_assert_eq!(found, naive_pairs(&bytes));
        // Neither of these may mind.
        let values = Values::parse(&bytes);
        prop_assert!(values.answer(&bytes).len() <= 100);
    }

    #[test]
    fn r58_head_of_any_bytes(
        head in "([A-Za-z:-]{0,12}:? ?[ -~]{0,12}\r?\n){0,4}\r?\n?",
        body in vec(any::<u8>(), 0..20),
        bytes in 10..70_usize,
    ) {
        let stdout = [head.as_bytes(), &body].concat();
        let limits = HeadLimits { bytes, fields: 3 };
        // As soon as it is decided, more bytes change nothing; until then nothing is said.
        let whole = Head::parse(&stdout, limits);
        for cut in 0..stdout.len() {
            match Head::parse(&stdout[..cut], limits) {
                Ok(None) => {}
                decided => {
                    prop_assert_eq!(&decided, &whole);
                    if let Ok(Some(head)) = decided {
                        prop_assert!(head.length <= bytes && head.length <= cut);
                        prop_assert!(stdout[..head.length].ends_with(b"\n"));
                        prop_assert!((100..1000).contains(&head.status));
                    }
                }
            }
        }
    }

    #[test]
    fn no_bytes_make_the_application_panic(
        records in vec(any_record(), 0..12),
        noise in vec(any::<u8>(), 0..30),
        sizes in vec(1..300_usize, 1..5),
    ) {
        let mut app = App::new();
        let bytes = [encode(&records), noise].concat();
        for piece in pieces(&bytes, &sizes) {
            let received = app.conn.receive(app.now, piece);
            app.events();
            // What it answers is well-formed, or this panics.
            record::parse(&app.output());
            if received.is_err() {
                break;
            }
        }
        let _ = app.conn.end_of_input(app.now);
        app.conn.lost();
        prop_assert_eq!(app.conn.active(), 0);
    }

    #[test]
    fn no_bytes_make_the_web_server_panic(
        records in vec(any_record(), 0..12),
        noise in vec(any::<u8>(), 0..30),
        sizes in vec(1..300_usize, 1..5),
    ) {
        let mut web = Web::new();
        let handles = [(); 3].map(|()| web.begin());
        web.close(handles[0]);
        let bytes = [encode(&records), noise].concat();
        for piece in pieces(&bytes, &sizes) {
            let received = web.conn.receive(web.now, piece);
            web.events();
            record::parse(&web.output());
            for handle in &handles[1..] {
                web.stdout(*handle);
            }
            if received.is_err() {
                break;
            }
        }
        let _ = web.conn.end_of_input();
        prop_assert_eq!((web.conn.active(), web.conn.draining()), (0, 0));
    }
}
