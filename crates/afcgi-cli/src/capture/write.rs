//! Writes a pcapng file: <https://www.ietf.org/archive/id/draft-ietf-opsawg-pcapng-02.html>. Packets are made up as TCP would send them,
//! without those that only acknowledge.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use etherparse::{PacketBuilder, TcpOptionElement};

use crate::wire::Side;

/// What the comment of a file says whose secrets were overwritten.
pub(crate) const MASKED: &str = "secrets are overwritten with *";

/// The program that writes, before its version.
pub(super) const SOFTWARE: &str = "afcgi tap ";

/// Bytes of content in a packet, which with its headers is below the 64 KiB of IP.
const SEGMENT: usize = 60_000;
/// What a block of the file is.
const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;
/// Packets begin with their IP header (LINKTYPE_RAW).
const RAW_IP: u16 = 101;
/// The most that a TCP window can be: nobody is to think that one was full.
const WINDOW: u16 = u16::MAX;
const WINDOW_SCALE: u8 = 14;
/// Hops that a packet may take.
const HOPS: u8 = 64;

/// What a file begins with: who wrote it, and what of.
pub(crate) fn header(comment: &str, description: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut body = Vec::new();
    body.extend(0x1a2b_3c4d_u32.to_le_bytes());
    body.extend(1_u16.to_le_bytes());
    body.extend(0_u16.to_le_bytes());
    // The length of the section is not known.
    body.extend(u64::MAX.to_le_bytes());
    option(&mut body, 1, comment.as_bytes());
    option(
        &mut body,
        4,
        format!("{SOFTWARE}{}", env!("CARGO_PKG_VERSION")).as_bytes(),
    );
    option(&mut body, 0, b"");
    block(&mut out, SECTION, &body);
    let mut body = Vec::new();
    body.extend(RAW_IP.to_le_bytes());
    body.extend([0; 2]);
    body.extend(0_u32.to_le_bytes());
    option(&mut body, 2, b"tap");
    option(&mut body, 3, description.as_bytes());
    // Nanoseconds.
    option(&mut body, 9, &[9]);
    option(&mut body, 0, b"");
    block(&mut out, INTERFACE, &body);
    out
}

fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(1000)];
    out.extend(code.to_le_bytes());
    out.extend((value.len() as u16).to_le_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

fn block(out: &mut Vec<u8>, kind: u32, body: &[u8]) {
    let length = (body.len() + 12) as u32;
    out.extend(kind.to_le_bytes());
    out.extend(length.to_le_bytes());
    out.extend(body);
    out.extend(length.to_le_bytes());
}

/// A connection, as the packets of one.
#[derive(Debug)]
pub(crate) struct Stream {
    addresses: [SocketAddr; 2],
    /// What each side sends next.
    sequence: [u32; 2],
    closed: [bool; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flag {
    None,
    Syn,
    Push,
    Fin,
    Reset,
}

impl Stream {
    /// Begins one from the web server's address to that of the application, in `out`.
    pub(crate) fn open(web: SocketAddr, app: SocketAddr, at: Duration, out: &mut Vec<u8>) -> Self {
        let mut stream = Self {
            addresses: same_family(web, app),
            sequence: [0, 0],
            closed: [false, false],
        };
        stream.packet(Side::Web, at, Flag::Syn, b"", out);
        stream.packet(Side::App, at, Flag::Syn, b"", out);
        stream.packet(Side::Web, at, Flag::None, b"", out);
        stream
    }

    /// Bytes that one side sent.
    pub(crate) fn data(&mut self, side: Side, at: Duration, bytes: &[u8], out: &mut Vec<u8>) {
        for piece in bytes.chunks(SEGMENT) {
            self.packet(side, at, Flag::Push, piece, out);
        }
    }

    /// A side closed its half, or reset the connection.
    pub(crate) fn close(&mut self, side: Side, at: Duration, reset: bool, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.closed[side as usize], true) {
            let flag = match reset {
                true => Flag::Reset,
                false => Flag::Fin,
            };
            self.packet(side, at, flag, b"", out);
        }
    }

    fn packet(&mut self, side: Side, at: Duration, flag: Flag, bytes: &[u8], out: &mut Vec<u8>) {
        let from = self.addresses[side as usize];
        let to = self.addresses[side.other() as usize];
        let (sequence, acknowledged) = (
            self.sequence[side as usize],
            self.sequence[side.other() as usize],
        );
        let builder = match (from.ip(), to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                PacketBuilder::ipv4(from.octets(), to.octets(), HOPS)
            }
            (from, to) => PacketBuilder::ipv6(v6(from), v6(to), HOPS),
        };
        let mut packet = builder.tcp(from.port(), to.port(), sequence, WINDOW);
        if flag != Flag::Syn || side == Side::App {
            packet = packet.ack(acknowledged);
        }
        let mut count = bytes.len() as u32;
        match flag {
            Flag::None => {}
            Flag::Syn => {
                packet = packet.syn();
                let scale = [TcpOptionElement::WindowScale(WINDOW_SCALE)];
                // There is room for it.
                let Ok(with_options) = packet.options(&scale) else {
                    return;
                };
                packet = with_options;
                count = 1;
            }
            Flag::Push => packet = packet.psh(),
            Flag::Fin => {
                packet = packet.fin();
                count = 1;
            }
            Flag::Reset => packet = packet.rst(),
        }
        let sequence = &mut self.sequence[side as usize];
        *sequence = sequence.wrapping_add(count);
        let length = packet.size(bytes.len());
        let padded = length.next_multiple_of(4);
        let nanos = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        out.reserve(padded + 32);
        out.extend(PACKET.to_le_bytes());
        out.extend(((padded + 32) as u32).to_le_bytes());
        out.extend(0_u32.to_le_bytes());
        out.extend(((nanos >> 32) as u32).to_le_bytes());
        out.extend((nanos as u32).to_le_bytes());
        out.extend((length as u32).to_le_bytes());
        out.extend((length as u32).to_le_bytes());
        let begin = out.len();
        // To memory, and of a size that IP has: it cannot fail.
        _ = packet.write(out, bytes);
        out.resize(begin + padded, 0);
        out.extend(((padded + 32) as u32).to_le_bytes());
    }
}

fn v6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// A connection has both addresses of one family.
fn same_family(web: SocketAddr, app: SocketAddr) -> [SocketAddr; 2] {
    let canonical =
        |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    [canonical(web), canonical(app)]
}
