//! `--websocket`: a tunnel through FastCGI (`docs/upgrade.md`), and a WebSocket in it. Lines of the standard input are messages, and messages
//! are lines of the standard output.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use afcgi_proto::cgi::{Head, HeadLimits};
use afcgi_proto::inbox::Read;
use afcgi_proto::web::{Event, Input, Output};
use afcgi_proto::{EndRequest, Handle};
use bytes::{Buf, Bytes};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{
    AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream, duplex, split,
};
use tokio::time::sleep_until;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::exchange::Plan;
use super::failure::Failure;
use super::link::{Clock, Link, Turn};
use super::observer::Observer;
use crate::wire::Cleaner;

/// Bytes of a message, and of a line of the standard input.
const MESSAGE: usize = 1024 * 1024;
/// Bytes that are on their way between the tunnel and the WebSocket in it.
const PIECE: usize = 64 * 1024;
/// How long the answer to GET_VALUES is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// A tunnel may be silent for as long as both ends like.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Opens it, and carries messages until one side closes it. Says how the request ended.
pub(super) async fn websocket(
    plan: &mut Plan,
    observer: &mut Observer,
) -> Result<EndRequest, Failure> {
    let clock = Clock::start(plan.max_time);
    let mut link = Link::connect(&plan.address, plan.timeout, &clock, false).await?;
    offered(&mut link, plan, &clock, observer).await?;
    let key = generate_key();
    plan.params.set("HTTP_SEC_WEBSOCKET_KEY", &key);
    plan.encoded = plan.params.encode();
    // Nothing else is on the connection.
    let handle = link.connection.open().map_err(|_| Failure::Empty)?;
    _ = link.connection.begin(handle, plan.role);
    let first = open(&mut link, handle, plan, &key, &clock, observer).await?;
    let (near, far) = duplex(PIECE);
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE))
        .max_frame_size(Some(MESSAGE));
    let socket = WebSocketStream::from_raw_socket(near, Role::Client, Some(config)).await;
    let carried = carry(&mut link, handle, plan, far, first, &clock, observer);
    let (end, talked) = tokio::join!(carried, talk(socket));
    talked?;
    end
}

/// Asks whether the application takes upgrades.
async fn offered(
    link: &mut Link,
    plan: &Plan,
    clock: &Clock,
    observer: &mut Observer,
) -> Result<(), Failure> {
    link.connection.probe();
    let until = Instant::now() + PATIENCE.min(plan.timeout);
    loop {
        if let Some(Event::Values(_)) = link.connection.poll_event() {
            break;
        }
        let turn = link.turn(until, clock, observer).await?;
        if link.at_end || turn == Turn::Due || until <= Instant::now() {
            break;
        }
    }
    match link.connection.offers_upgrade() {
        true => Ok(()),
        false => Err(Failure::Upgrade(
            "the application does not say that it takes upgrades (FCGI_UPGRADE, see --values)"
                .into(),
        )),
    }
}

/// Sends the request and takes the head of the answer: what came behind it.
async fn open(
    link: &mut Link,
    handle: Handle,
    plan: &Plan,
    key: &str,
    clock: &Clock,
    observer: &mut Observer,
) -> Result<Bytes, Failure> {
    _ = link.connection.offer_upgrade(handle);
    let mut sent = 0;
    let mut stdout = Vec::new();
    let idle = Instant::now() + plan.timeout;
    let until = clock.end().map_or(idle, |end| end.min(idle));
    loop {
        if sent < plan.encoded.len() {
            let rest = &plan.encoded[sent..];
            sent += (link.connection.write(handle, Output::Params, rest)).unwrap_or(rest.len());
            if sent == plan.encoded.len() {
                _ = link.connection.end(handle, Output::Params);
            }
        }
        take_stderr(link, handle, observer);
        while let Ok(Read::Content(bytes)) = link.connection.read(handle, Input::Stdout, PIECE) {
            stdout.extend_from_slice(&bytes);
            let head = Head::parse(&stdout, HeadLimits::default()).map_err(Failure::Head)?;
            if let Some(head) = head {
                accepted(&head, key)?;
                return Ok(Bytes::copy_from_slice(&stdout[head.length..]));
            }
        }
        match link.connection.ended(handle) {
            Ok(None) => {}
            Ok(Some(_)) => return Err(Failure::NoHead),
            Err(_) => return Err(Failure::Truncated),
        }
        while link.connection.poll_event().is_some() {}
        let turn = link.turn(until, clock, observer).await?;
        if turn == Turn::Due || until <= Instant::now() {
            return Err(late(plan, clock));
        }
    }
}

fn late(plan: &Plan, clock: &Clock) -> Failure {
    match clock.end() {
        Some(end) if end <= Instant::now() => clock.over(),
        _ => Failure::Timeout("gave up waiting for the application", plan.timeout),
    }
}

/// Whether the head is that of a WebSocket.
fn accepted(head: &Head<'_>, key: &str) -> Result<(), Failure> {
    if head.status != 101 {
        let text = format!(
            "the application declined the upgrade with the status {}",
            head.status
        );
        return Err(Failure::Upgrade(text));
    }
    let accept = derive_accept_key(key.as_bytes());
    let is_accept = |(name, value): &(&[u8], &[u8])| {
        name.eq_ignore_ascii_case(b"sec-websocket-accept") && *value == accept.as_bytes()
    };
    match head.fields.iter().any(is_accept) {
        true => Ok(()),
        false => Err(Failure::Upgrade(
            "the answer has the status 101 and no Sec-WebSocket-Accept that fits: it is no WebSocket"
                .into(),
        )),
    }
}

fn take_stderr(link: &mut Link, handle: Handle, observer: &mut Observer) {
    while let Ok(Read::Content(bytes)) = link.connection.read(handle, Input::Stderr, PIECE) {
        observer.stderr(&bytes);
    }
}

/// Carries bytes between the request's streams and the WebSocket, until END_REQUEST.
async fn carry(
    link: &mut Link,
    handle: Handle,
    plan: &Plan,
    far: DuplexStream,
    first: Bytes,
    clock: &Clock,
    observer: &mut Observer,
) -> Result<EndRequest, Failure> {
    let (mut from, mut to) = split(far);
    let mut incoming = first;
    let mut outgoing = Bytes::new();
    let mut buffer = vec![0; PIECE];
    // When STDIN was ended: the application has some time to end the request.
    let mut closing: Option<Instant> = None;
    let mut deaf = false;
    loop {
        take_stderr(link, handle, observer);
        let mut over = false;
        if incoming.is_empty() {
            match link.connection.read(handle, Input::Stdout, PIECE) {
                Ok(Read::Content(bytes)) => incoming = bytes,
                Ok(Read::Pending) => {}
                _ => over = true,
            }
        }
        if deaf {
            incoming.clear();
        }
        if over {
            match link.connection.ended(handle) {
                Ok(Some(end)) => return Ok(end),
                Ok(None) => {}
                Err(_) => return Err(Failure::Truncated),
            }
        }
        if !outgoing.is_empty() {
            let count = link.connection.write(handle, Output::Stdin, &outgoing);
            outgoing.advance(count.unwrap_or(outgoing.len()));
        }
        while link.connection.poll_event().is_some() {}
        let until = closing.map_or(Instant::now() + FOREVER, |closing| closing + plan.timeout);
        let until = clock.end().map_or(until, |end| end.min(until));
        if until <= Instant::now() {
            return Err(late(plan, clock));
        }
        let blocked = link.connection.is_blocked();
        tokio::select! {
            turn = link.turn(until, clock, observer), if !blocked => {
                turn?;
            }
            () = sleep_until(until.into()), if blocked => {}
            written = to.write(&incoming), if !incoming.is_empty() => match written {
                Ok(count) if count > 0 => incoming.advance(count),
                // Nobody hears it any more.
                _ => deaf = true,
            },
            read = from.read(&mut buffer), if outgoing.is_empty() && closing.is_none() => match read {
                Ok(count) if count > 0 => outgoing = Bytes::copy_from_slice(&buffer[..count]),
                _ => {
                    _ = link.connection.end(handle, Output::Stdin);
                    closing = Some(Instant::now());
                }
            },
        }
    }
}

/// Lines to messages and messages to lines, until one side closes the WebSocket. Neither waits for the other.
async fn talk(socket: WebSocketStream<DuplexStream>) -> Result<(), Failure> {
    let (mut sink, mut stream) = socket.split();
    let send = async {
        let mut input = BufReader::new(tokio::io::stdin());
        let mut line = Vec::new();
        loop {
            // What is longer than a message is several.
            let mut bounded = (&mut input).take(MESSAGE as u64);
            let read = bounded.read_until(b'\n', &mut line).await;
            if read.map_err(|error| Failure::Read("-".into(), error))? == 0 {
                _ = sink.close().await;
                break;
            }
            let text = line.strip_suffix(b"\n").unwrap_or(&line);
            let text = String::from_utf8_lossy(text).into_owned();
            line.clear();
            if sink.send(Message::text(text)).await.is_err() {
                break;
            }
        }
        // The other side has the last word.
        std::future::pending().await
    };
    let receive = async {
        let mut output = tokio::io::stdout();
        let mut cleaner = io::stdout().is_terminal().then(Cleaner::default);
        while let Some(message) = stream.next().await {
            let mut bytes = match message {
                Ok(Message::Text(text)) => text.as_bytes().to_vec(),
                Ok(Message::Binary(bytes)) => bytes.to_vec(),
                Ok(_) => continue,
                Err(Error::Capacity(error)) => {
                    return Err(Failure::Upgrade(format!("a message is too long: {error}")));
                }
                // What became of the request is told by its end.
                Err(_) => break,
            };
            bytes.push(b'\n');
            if let Some(cleaner) = &mut cleaner {
                bytes = cleaner.clean(&bytes).into_bytes();
            }
            output.write_all(&bytes).await.map_err(Failure::Write)?;
            output.flush().await.map_err(Failure::Write)?;
        }
        Ok(())
    };
    tokio::select! {
        result = send => result,
        result = receive => result,
    }
}
