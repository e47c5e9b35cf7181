//! Files as tcpdump and others write them, made by hand, and files that are broken.

use std::time::Duration;

use etherparse::PacketBuilder;

use super::*;
use crate::wire::Side;

const WEB: ([u8; 4], u16) = ([10, 0, 0, 1], 40_000);
const APP: ([u8; 4], u16) = ([10, 0, 0, 2], 9000);

#[derive(Clone, Copy)]
enum Flag {
    Syn,
    Data,
    Fin,
    Reset,
}

/// An IP packet of TCP.
fn packet(side: Side, sequence: u32, flag: Flag, bytes: &[u8]) -> Vec<u8> {
    let (from, to) = match side {
        Side::Web => (WEB, APP),
        Side::App => (APP, WEB),
    };
    let packet = PacketBuilder::ipv4(from.0, to.0, 64).tcp(from.1, to.1, sequence, 1000);
    let packet = match (flag, side) {
        (Flag::Syn, Side::Web) => packet.syn(),
        (Flag::Syn, Side::App) => packet.syn().ack(1),
        (Flag::Data, _) => packet.ack(1),
        (Flag::Fin, _) => packet.fin().ack(1),
        (Flag::Reset, _) => packet.rst(),
    };
    let mut out = Vec::new();
    packet.write(&mut out, bytes).expect("a packet");
    out
}

/// A pcap file with what is in front of each packet.
fn pcap(link: u32, before: &[u8], packets: &[Vec<u8>]) -> Vec<u8> {
    let mut out = 0xa1b2_c3d4_u32.to_le_bytes().to_vec();
    out.extend([2, 0, 4, 0]);
    out.extend([0; 8]);
    out.extend(65_535_u32.to_le_bytes());
    out.extend(link.to_le_bytes());
    for (number, packet) in (1_u32..).zip(packets) {
        let length = (before.len() + packet.len()) as u32;
        out.extend(1000_u32.to_le_bytes());
        out.extend((number * 1000).to_le_bytes());
        out.extend(length.to_le_bytes());
        out.extend(length.to_le_bytes());
        out.extend(before);
        out.extend(packet);
    }
    out
}

/// What a file tells, in a line each, and what the reader knows then.
fn told(bytes: &[u8], port: Option<u16>) -> (Vec<String>, Reader) {
    let mut reader = Reader::new(port);
    // To make it takes its time, and these files are many.
    reader.block = bytes.len() + 200;
    let mut lines = Vec::new();
    let result = reader.read(bytes, |number, _, found| {
        lines.push(match found {
            Found::Open => format!("{number} open"),
            Found::Bytes(side, bytes) => {
                format!("{number} {} {}", side.name(), bytes.escape_ascii())
            }
            Found::Close(side, reset) => format!("{number} {} closes {reset}", side.name()),
            Found::Gap => format!("{number} gap"),
            Found::End => format!("{number} end"),
        });
        Ok(())
    });
    if let Err(error) = result {
        lines.push(error.to_string());
    }
    (lines, reader)
}

const BEGIN: &[u8] = b"\x01\x01AB";

fn conversation() -> Vec<Vec<u8>> {
    vec![
        packet(Side::Web, 99, Flag::Syn, b""),
        packet(Side::App, 499, Flag::Syn, b""),
        packet(Side::Web, 100, Flag::Data, BEGIN),
        // In another order, and once more.
        packet(Side::App, 503, Flag::Data, b"def"),
        packet(Side::App, 500, Flag::Data, b"abc"),
        packet(Side::App, 500, Flag::Data, b"abcd"),
        packet(Side::Web, 104, Flag::Fin, b""),
        packet(Side::App, 506, Flag::Fin, b"g"),
    ]
}

const EXPECTED: [&str; 7] = [
    "1 open",
    "1 web \\x01\\x01AB",
    "1 app abc",
    "1 app def",
    "1 web closes false",
    "1 app g",
    "1 app closes false",
];

#[test]
fn links_of_tcpdump() {
    let ethernet = [&[2; 12][..], &[8, 0]].concat();
    let mut cooked = vec![0, 0, 3, 4, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0, 8, 0];
    for (link, before) in [
        (1, ethernet),
        (113, std::mem::take(&mut cooked)),
        (276, [&[8, 0][..], &[0; 18]].concat()),
        (0, vec![2, 0, 0, 0]),
        (101, vec![]),
        (228, vec![]),
    ] {
        let (lines, reader) = told(&pcap(link, &before, &conversation()), None);
        assert_eq!(&lines[..7], EXPECTED, "{link}");
        assert_eq!(lines[7..], ["1 end"], "{link}");
        assert_eq!((reader.other_packets, reader.other_connections), (0, 0));
        assert!(!reader.masked);
    }
    let (_, reader) = told(&pcap(147, &[], &conversation()), None);
    assert_eq!(reader.other_packets, 8);
}

/// What is no FastCGI is left out, unless a port says that it is.
#[test]
fn connections_of_others() {
    let http = [
        packet(Side::Web, 99, Flag::Syn, b""),
        packet(Side::Web, 100, Flag::Data, b"GET / HTTP/1.1"),
    ];
    let (lines, reader) = told(&pcap(101, &[], &http), None);
    assert_eq!((lines.len(), reader.other_connections), (0, 1));
    let (lines, _) = told(&pcap(101, &[], &http), Some(9000));
    assert_eq!(lines, ["1 open", "1 web GET / HTTP/1.1", "1 end"]);
    let (_, reader) = told(&pcap(101, &[], &http), Some(80));
    assert_eq!(reader.other_connections, 1);
    // Without its beginning, and by its answer first.
    let late = [
        packet(Side::App, 500, Flag::Data, b"\x01\x06"),
        packet(Side::Web, 100, Flag::Data, BEGIN),
    ];
    let (lines, reader) = told(&pcap(101, &[], &late), None);
    assert_eq!((lines.len(), reader.other_connections), (0, 1));
    let (lines, _) = told(&pcap(101, &[], &late), Some(9000));
    assert_eq!(lines[1], "1 app \\x01\\x06");
    let (lines, _) = told(&pcap(101, &[], &late[1..]), None);
    assert_eq!(lines[..2], ["1 open", "1 web \\x01\\x01AB"]);
}

#[test]
fn what_is_missing() {
    // A packet that was not recorded.
    let mut packets = conversation();
    packets.remove(4);
    packets.remove(4);
    let (lines, _) = told(&pcap(101, &[], &packets), None);
    assert_eq!(lines[2..], ["1 web closes false", "1 gap", "1 end"]);
    // One of which the end was not.
    let mut bytes = pcap(101, &[], &conversation()[..3]);
    let at = bytes.len() - BEGIN.len() - 40 - 4;
    bytes[at..at + 4].copy_from_slice(&500_u32.to_le_bytes());
    let (lines, _) = told(&bytes, None);
    assert_eq!(
        lines,
        ["1 open", "1 web \\x01\\x01AB", "1 gap", "1 gap", "1 end"]
    );
    // A reset, and the same ports again.
    let mut packets = conversation();
    packets.truncate(3);
    packets.push(packet(Side::App, 500, Flag::Reset, b""));
    packets.extend(conversation());
    let (lines, _) = told(&pcap(101, &[], &packets), None);
    let begin = [
        "1 open",
        "1 web \\x01\\x01AB",
        "1 app closes true",
        "1 web closes true",
        "1 end",
        "2 open",
    ];
    assert_eq!(lines[..6], begin);
}

/// The end, or anything else, is missing or is different: no panic, and no more than what is there.
#[test]
fn broken_files() {
    let mut own = header(MASKED, "x");
    let address = |port| ([127, 0, 0, 1], port).into();
    let at = Duration::from_secs(5);
    let mut stream = Stream::open(address(1), address(2), at, &mut own);
    stream.data(
        Side::Web,
        at,
        b"no FastCGI, and told all the same",
        &mut own,
    );
    stream.close(Side::Web, at, false, &mut own);
    let (lines, reader) = told(&own, None);
    assert!(reader.masked);
    assert_eq!(
        lines,
        [
            "1 open",
            "1 web no FastCGI, and told all the same",
            "1 web closes false",
            "1 end"
        ]
    );
    let tcpdump = pcap(101, &[], &conversation());
    for file in [&own, &tcpdump] {
        for length in 0..file.len() {
            let (_, reader) = told(&file[..length], None);
            assert!(reader.count <= 1);
        }
        for at in 0..file.len() {
            for value in [0, 0xff] {
                let mut file = file.clone();
                file[at] = value;
                told(&file, None);
            }
        }
    }
    assert_eq!(
        told(b"", None).0,
        ["it is neither a pcapng nor a pcap file"]
    );
    assert_eq!(
        told(&[b'x'; 100], None).0,
        ["it is neither a pcapng nor a pcap file"]
    );
}

#[test]
fn both_families() {
    let mut own = header("", "");
    let at = Duration::from_secs(5);
    let mut stream = Stream::open(
        "[::1]:40000".parse().expect("an address"),
        "127.0.0.1:9000".parse().expect("an address"),
        at,
        &mut own,
    );
    stream.data(Side::App, at, &[b'x'; 130_000], &mut own);
    let (lines, _) = told(&own, None);
    let bytes: usize = lines.iter().map(|line| line.matches('x').count()).sum();
    assert_eq!(bytes, 130_000);
}
