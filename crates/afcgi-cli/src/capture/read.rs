//! Reads pcapng and pcap files, and finds the FastCGI connections in them.

use std::collections::HashMap;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};

use super::flow::Flow;
use super::write::{MASKED, SOFTWARE};
use crate::wire::Side;

/// Bytes of a block of the file.
const BLOCK: usize = 4 * 1024 * 1024;
/// Connections at a time.
const CONNECTIONS: usize = 65_536;
/// Bytes of a header of Linux's cooked capture, and of its second version.
const COOKED_LENGTH: usize = 16;
const COOKED_2_LENGTH: usize = 20;
/// BSD's loopback has the family before the packet.
const NULL_LENGTH: usize = 4;

/// Something that the file tells.
#[derive(Debug)]
pub(crate) enum Found<'a> {
    /// A connection by number, from 1.
    Open,
    /// Bytes that a side sent.
    Bytes(Side, &'a [u8]),
    /// A side closed its half, or reset the connection.
    Close(Side, bool),
    /// Bytes are missing: nothing more comes of it.
    Gap,
    /// The file has no more of it.
    End,
}

/// What was found in all.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// Bytes of a block of the file, at most.
    pub(super) block: usize,
    /// Connections that are known to be FastCGI by this port of the application.
    port: Option<u16>,
    /// Whether all are: the file is one of this program's.
    own: bool,
    /// Whether secrets were overwritten when it was written.
    pub(crate) masked: bool,
    /// Packets that have no TCP in them.
    pub(crate) other_packets: u64,
    /// Connections that are no FastCGI, or began before the file.
    pub(crate) other_connections: u64,
    /// Whether the file ends in the middle.
    pub(crate) truncated: bool,
    connections: HashMap<(SocketAddr, SocketAddr), Connection>,
    pub(super) count: u64,
    interfaces: Vec<Interface>,
}

/// Interfaces of a file that are told apart.
const INTERFACES: usize = 1024;

#[derive(Clone, Copy, Debug)]
struct Interface {
    link: Linktype,
    /// Units in a second.
    resolution: u64,
    offset: i64,
}

#[derive(Debug, Default)]
struct Connection {
    /// 0: it is no FastCGI, as far as that is known.
    number: u64,
    /// Of the lower address, and of the other.
    flows: [Flow; 2],
    /// Which of both is the web server.
    web: usize,
    decided: bool,
    /// Who began the connection, if that was seen.
    opener: Option<usize>,
    over: bool,
}

struct Packet<'a> {
    at: Duration,
    from: SocketAddr,
    to: SocketAddr,
    sequence: u32,
    syn: bool,
    ack: bool,
    fin: bool,
    reset: bool,
    bytes: &'a [u8],
    /// Whether it was longer.
    cut: bool,
}

impl Reader {
    pub(crate) fn new(port: Option<u16>) -> Self {
        Self {
            block: BLOCK,
            port,
            ..Self::default()
        }
    }

    /// Reads all of it, and tells of each connection by its number, and when.
    pub(crate) fn read(
        &mut self,
        file: impl Read + Send,
        mut tell: impl FnMut(u64, Duration, Found<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut last = Duration::ZERO;
        let mut blocks = create_reader(self.block, file).map_err(|error| explain(&error))?;
        loop {
            let length = match blocks.next() {
                Ok((length, block)) => {
                    if let Some((at, original, link, bytes)) = self.block(&block) {
                        last = at;
                        self.packet(at, original, link, bytes, &mut tell)?;
                    }
                    length
                }
                Err(PcapError::Eof) => break,
                Err(PcapError::Incomplete(_)) => {
                    let before = blocks.data().len();
                    blocks.refill().map_err(|error| explain(&error))?;
                    if blocks.data().len() == before && !blocks.reader_exhausted() {
                        return Err(explain(&PcapError::BufferTooSmall));
                    }
                    continue;
                }
                Err(PcapError::UnexpectedEof) => {
                    self.truncated = true;
                    break;
                }
                Err(error) => return Err(explain(&error)),
            };
            blocks.consume(length);
        }
        let mut left: Vec<Connection> = self.connections.drain().map(|pair| pair.1).collect();
        left.sort_unstable_by_key(|connection| connection.number);
        for connection in left {
            if connection.number > 0 {
                if connection.flows.iter().any(Flow::has_gap) {
                    tell(connection.number, last, Found::Gap)?;
                }
                tell(connection.number, last, Found::End)?;
            }
        }
        Ok(())
    }

    /// A packet: when it came, how long it was, what it begins with, and its bytes.
    fn block<'a>(
        &mut self,
        block: &'a PcapBlockOwned<'_>,
    ) -> Option<(Duration, u32, Linktype, &'a [u8])> {
        match block {
            PcapBlockOwned::LegacyHeader(header) => {
                let resolution = match header.is_nanosecond_precision() {
                    true => 1_000_000_000,
                    false => 1_000_000,
                };
                self.interfaces = vec![Interface {
                    link: header.network,
                    resolution,
                    offset: 0,
                }];
                None
            }
            PcapBlockOwned::Legacy(packet) => {
                let interface = self.interfaces.first()?;
                let nanos = u64::from(packet.ts_usec) * 1_000_000_000 / interface.resolution;
                let at = Duration::from_secs(packet.ts_sec.into()) + Duration::from_nanos(nanos);
                Some((at, packet.origlen, interface.link, packet.data))
            }
            PcapBlockOwned::NG(Block::SectionHeader(section)) => {
                self.interfaces.clear();
                let writer = section.shb_userappl().and_then(Result::ok);
                self.own = writer.is_some_and(|writer| writer.starts_with(SOFTWARE));
                let comment = section.options.iter().find(|option| option.code.0 == 1);
                self.masked |= comment.is_some_and(|comment| {
                    String::from_utf8_lossy(comment.value()).contains(MASKED)
                });
                None
            }
            PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
                if self.interfaces.len() < INTERFACES {
                    self.interfaces.push(Interface {
                        link: interface.linktype,
                        resolution: interface.ts_resolution().unwrap_or(1_000_000).max(1),
                        offset: interface.ts_offset(),
                    });
                }
                None
            }
            PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                let interface = self.interfaces.get(packet.if_id as usize)?;
                let units = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                let rest = u128::from(units % interface.resolution) * 1_000_000_000;
                let nanos = rest / u128::from(interface.resolution);
                let seconds =
                    (units / interface.resolution).saturating_add_signed(interface.offset);
                // A year of four digits, whatever the file says.
                let at = Duration::new(seconds.min(200_000_000_000), nanos as u32);
                let length = (packet.caplen as usize).min(packet.data.len());
                Some((at, packet.origlen, interface.link, &packet.data[..length]))
            }
            PcapBlockOwned::NG(_) => None,
        }
    }

    fn packet(
        &mut self,
        at: Duration,
        original: u32,
        link: Linktype,
        bytes: &[u8],
        tell: &mut impl FnMut(u64, Duration, Found<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        match parse(at, original as usize, link, bytes) {
            Some(packet) => self.tcp(&packet, tell),
            None => {
                self.other_packets += 1;
                Ok(())
            }
        }
    }

    fn tcp(
        &mut self,
        packet: &Packet<'_>,
        tell: &mut impl FnMut(u64, Duration, Found<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let key = (packet.from.min(packet.to), packet.from.max(packet.to));
        let from = usize::from(packet.from != key.0);
        if packet.syn && !packet.ack {
            // The ports are used again.
            if let Some(old) = self.connections.remove(&key)
                && old.number > 0
            {
                tell(old.number, packet.at, Found::End)?;
            }
        } else if packet.reset && !self.connections.contains_key(&key) {
            return Ok(());
        }
        if self.connections.len() >= CONNECTIONS && !self.connections.contains_key(&key) {
            self.other_connections += 1;
            return Ok(());
        }
        let connection = self.connections.entry(key).or_default();
        if packet.syn {
            connection.flows[from].begin(packet.sequence.wrapping_add(1));
            if !packet.ack {
                connection.opener = Some(from);
            }
        }
        if !connection.decided && (!packet.bytes.is_empty() || (self.own && packet.syn)) {
            connection.decided = true;
            let known = self.own || self.port.is_some();
            let web = match self.port {
                Some(port) if packet.to.port() == port => Some(from),
                Some(port) if packet.from.port() == port => Some(1 - from),
                Some(_) => None,
                None => match connection.opener {
                    Some(opener) if known || opener == from => Some(opener),
                    Some(_) => None,
                    None => Some(from),
                },
            };
            let begins = matches!(packet.bytes, [1] | [1, 1 | 9, ..]);
            match web.filter(|_| known || begins) {
                Some(web) => {
                    self.count += 1;
                    connection.number = self.count;
                    connection.web = web;
                    tell(connection.number, packet.at, Found::Open)?;
                }
                None => self.other_connections += 1,
            }
        }
        if connection.number == 0 {
            return Ok(());
        }
        let number = connection.number;
        let side = match from == connection.web {
            true => Side::Web,
            false => Side::App,
        };
        let flow = &mut connection.flows[from];
        let mut result = Ok(());
        let was_broken = flow.broken;
        let first = packet.sequence.wrapping_add(u32::from(packet.syn));
        flow.push(first, packet.bytes, packet.cut, |bytes| {
            if result.is_ok() {
                result = tell(number, packet.at, Found::Bytes(side, bytes));
            }
        });
        result?;
        if flow.broken && !was_broken {
            tell(number, packet.at, Found::Gap)?;
        }
        if packet.fin {
            flow.end(first.wrapping_add(packet.bytes.len() as u32));
        }
        if flow.ended() {
            tell(number, packet.at, Found::Close(side, false))?;
        }
        if packet.reset && !connection.over {
            connection.over = true;
            tell(number, packet.at, Found::Close(side, true))?;
            tell(number, packet.at, Found::Close(side.other(), true))?;
        }
        Ok(())
    }
}

/// The TCP in a packet, if there is some.
fn parse(at: Duration, original: usize, link: Linktype, bytes: &[u8]) -> Option<Packet<'_>> {
    let after = |length| LaxSlicedPacket::from_ip(bytes.get(length..)?).ok();
    let sliced = match link {
        Linktype::ETHERNET => LaxSlicedPacket::from_ethernet(bytes).ok()?,
        Linktype::LINUX_SLL => after(COOKED_LENGTH)?,
        Linktype::LINUX_SLL2 => after(COOKED_2_LENGTH)?,
        Linktype::NULL | Linktype::LOOP => after(NULL_LENGTH)?,
        // What 101 is called on some systems.
        Linktype::RAW | Linktype::IPV4 | Linktype::IPV6 | Linktype(12) => after(0)?,
        _ => return None,
    };
    let (from, to): (IpAddr, IpAddr) = match sliced.net? {
        LaxNetSlice::Ipv4(ip) => {
            let header = ip.header();
            (
                header.source_addr().into(),
                header.destination_addr().into(),
            )
        }
        LaxNetSlice::Ipv6(ip) => {
            let header = ip.header();
            (
                header.source_addr().into(),
                header.destination_addr().into(),
            )
        }
        LaxNetSlice::Arp(_) => return None,
    };
    let Some(TransportSlice::Tcp(tcp)) = sliced.transport else {
        return None;
    };
    Some(Packet {
        at,
        from: SocketAddr::new(from, tcp.source_port()),
        to: SocketAddr::new(to, tcp.destination_port()),
        sequence: tcp.sequence_number(),
        syn: tcp.syn(),
        ack: tcp.ack(),
        fin: tcp.fin(),
        reset: tcp.rst(),
        bytes: tcp.payload(),
        cut: original > bytes.len(),
    })
}

fn explain(error: &PcapError<&[u8]>) -> io::Error {
    let text = match error {
        PcapError::HeaderNotRecognized | PcapError::Incomplete(_) | PcapError::Eof => {
            "it is neither a pcapng nor a pcap file"
        }
        PcapError::BufferTooSmall => "a block of it is longer than 4 MiB",
        PcapError::ReadError => "it cannot be read",
        _ => "a block of it is not as pcapng and pcap have them",
    };
    io::Error::new(io::ErrorKind::InvalidData, text)
}
