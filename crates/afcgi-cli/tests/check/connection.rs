//! One connection of the breakable server: bytes in, records in their order, and its end.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, mpsc};
use tokio::task::spawn_local;
use tokio::time::timeout;

use crate::mutant::Mutant;
use crate::request::{Ended, Request};
use crate::server::Shared;
use crate::wire::{BEGIN, END, GET_VALUES, PARAMS, STDIN, UNKNOWN_TYPE, record};

/// What comes of a record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Go,
    /// The connection is closed.
    Close,
    /// Nothing more is read, for ever.
    Hang,
    /// These bytes are read next.
    Read(Vec<u8>),
}

/// A record that came.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) kind: u8,
    pub(crate) id: u16,
    pub(crate) content: Vec<u8>,
    pub(crate) padding: usize,
}

/// What one record leaves behind for the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Last {
    #[default]
    Other,
    Refused,
    AbortedInParams(u16),
    /// GET_VALUES as the first record, in this read.
    FirstValues(usize),
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) shared: Rc<Shared>,
    out: mpsc::Sender<Vec<u8>>,
    pub(crate) active: RefCell<HashMap<u16, Rc<Request>>>,
    pub(crate) ended: RefCell<HashMap<u16, Ended>>,
    pub(crate) last: Cell<Last>,
    pub(crate) reads: Cell<usize>,
    pub(crate) records: Cell<usize>,
    pub(crate) begun: Cell<usize>,
    pub(crate) aborted: Cell<usize>,
    pub(crate) values: Cell<usize>,
    pub(crate) unknown: Cell<usize>,
    pub(crate) strays: Cell<usize>,
    pub(crate) first_flags: Cell<Option<u8>>,
    pub(crate) flow: Cell<bool>,
    pub(crate) last_params: Cell<u16>,
    pub(crate) last_stdin: Cell<u16>,
    /// Whether the writer had to wait long.
    pub(crate) slow: Cell<bool>,
    pub(crate) at_end: Cell<bool>,
    reset: Cell<bool>,
    quit: Notify,
    pub(crate) idle: Notify,
}

impl Connection {
    pub(crate) fn is(&self, mutant: Mutant) -> bool {
        self.shared.is(mutant)
    }

    pub(crate) async fn send(&self, bytes: Vec<u8>) {
        _ = self.out.send(bytes).await;
    }

    /// Closes it when all is written.
    pub(crate) fn close(&self) {
        self.quit.notify_one();
    }

    /// Closes it rudely.
    pub(crate) fn reset(&self) {
        self.reset.set(true);
        self.close();
    }

    pub(crate) fn request(&self, id: u16) -> Option<Rc<Request>> {
        self.active.borrow().get(&id).cloned()
    }

    pub(crate) fn ended(&self, id: u16) -> Option<Ended> {
        self.ended.borrow().get(&id).copied()
    }

    /// END_REQUEST for a request that is none.
    pub(crate) async fn stray_end(&self, id: u16) {
        self.send(record(END, id, &[0; 8])).await;
    }
}

/// What tells the writer that the connection is to be reset.
const RESET: &[u8] = b"reset";

async fn write(
    shared: Rc<Shared>,
    mut socket: OwnedWriteHalf,
    mut queue: mpsc::Receiver<Vec<u8>>,
    slow: mpsc::Sender<()>,
) {
    while let Some(bytes) = queue.recv().await {
        if bytes.is_empty() {
            break;
        }
        if bytes == RESET {
            return socket.forget();
        }
        let mut writing = std::pin::pin!(socket.write_all(&bytes));
        let mut written = timeout(Duration::from_millis(10), writing.as_mut()).await;
        if written.is_err() {
            shared.blocked.set(shared.blocked.get() + 1);
            let begin = tokio::time::Instant::now();
            written = Ok(writing.await);
            shared.blocked.set(shared.blocked.get() - 1);
            if begin.elapsed() > Duration::from_millis(80) {
                _ = slow.try_send(());
            }
        }
        if matches!(written, Ok(Err(_))) {
            // What was for a client that has left is thrown away.
            while queue.recv().await.is_some_and(|bytes| !bytes.is_empty()) {}
            break;
        }
    }
    _ = socket.shutdown().await;
}

pub(crate) async fn serve(shared: Rc<Shared>, socket: TcpStream) {
    let (mut from, to) = socket.into_split();
    let (out, queue) = mpsc::channel(16);
    let (tell_slow, mut told_slow) = mpsc::channel(1);
    let writer = spawn_local(write(shared.clone(), to, queue, tell_slow));
    let connection = Rc::new(Connection {
        shared: shared.clone(),
        out,
        active: RefCell::default(),
        ended: RefCell::default(),
        last: Cell::default(),
        reads: Cell::default(),
        records: Cell::default(),
        begun: Cell::default(),
        aborted: Cell::default(),
        values: Cell::default(),
        unknown: Cell::default(),
        strays: Cell::default(),
        first_flags: Cell::default(),
        flow: Cell::default(),
        last_params: Cell::default(),
        last_stdin: Cell::default(),
        slow: Cell::default(),
        at_end: Cell::default(),
        reset: Cell::default(),
        quit: Notify::new(),
        idle: Notify::new(),
    });
    let watching = connection.clone();
    let watcher = spawn_local(async move {
        if told_slow.recv().await.is_some() {
            watching.slow.set(true);
        }
    });
    shared.silent.set(shared.silent.get() + 1);
    let (verdict, said) = read(&connection, &mut from).await;
    if verdict == Verdict::Hang {
        // The socket stays open as long as the program runs.
        std::future::pending::<()>().await;
    }
    for (_, request) in connection.active.borrow_mut().drain() {
        request.drop_task();
        request.no_more_stdin();
    }
    if connection.reset.get() {
        connection.send(RESET.to_vec()).await;
        _ = writer.await;
        watcher.abort();
        _ = socket2::SockRef::from(from.as_ref()).set_linger(Some(Duration::ZERO));
        return;
    }
    connection.send(Vec::new()).await;
    _ = writer.await;
    watcher.abort();
    // What still comes is read, so that the system does not break the connection.
    let mut rest = [0; 4096];
    let drain = async { while from.read(&mut rest).await.is_ok_and(|count| count > 0) {} };
    _ = timeout(Duration::from_secs(2), drain).await;
    shared.open.set(shared.open.get() - usize::from(said));
}

/// Reads to the end of the connection; whether anything came.
async fn read(connection: &Rc<Connection>, from: &mut OwnedReadHalf) -> (Verdict, bool) {
    let shared = &connection.shared;
    let (mut piece, mut buffer) = (vec![0; 32 * 1024], Vec::new());
    let mut counted = false;
    let mut came = 0;
    let verdict = loop {
        let reading = from.read(&mut piece);
        let waited = tokio::time::Instant::now();
        let count = tokio::select! {
            count = reading => count.unwrap_or(0),
            () = connection.quit.notified() => break Verdict::Close,
        };
        if connection.is(Mutant::HasNoPatienceInARecord)
            && !buffer.is_empty()
            && waited.elapsed() > Duration::from_millis(40)
        {
            break Verdict::Close;
        }
        if came == 0 {
            shared.silent.set(shared.silent.get() - 1);
        }
        if count == 0 {
            connection.at_end.set(true);
            break at_end(connection, came, &buffer).await;
        }
        if came == 0 {
            shared.open.set(shared.open.get() + 1);
        }
        came += count;
        if came < 8 && connection.reads.get() == 0 && connection.is(Mutant::WantsAHeaderAtOnce) {
            break Verdict::Close;
        }
        connection.reads.set(connection.reads.get() + 1);
        if counted || came == 9 {
            let more = came == 9;
            shared
                .stopped
                .set(shared.stopped.get() + usize::from(more) - usize::from(counted));
            counted = more;
        }
        buffer.extend_from_slice(&piece[..count]);
        match records(connection, &mut buffer).await {
            Verdict::Go => {}
            verdict => break verdict,
        }
    };
    if counted {
        shared.stopped.set(shared.stopped.get() - 1);
    }
    if came == 0 && verdict == Verdict::Close && !connection.at_end.get() {
        shared.silent.set(shared.silent.get() - 1);
    }
    (verdict, came > 0)
}

/// Takes the records that are whole.
async fn records(connection: &Rc<Connection>, buffer: &mut Vec<u8>) -> Verdict {
    loop {
        let record = match cut(connection, buffer) {
            Ok(Some(record)) => record,
            Ok(None) => return Verdict::Go,
            Err(b'G') if connection.is(Mutant::AnswersHttp) => {
                connection
                    .send(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec())
                    .await;
                return Verdict::Close;
            }
            Err(0x16) if connection.is(Mutant::KeepsTls) => return Verdict::Hang,
            Err(0xa7) if connection.is(Mutant::StaysWithNoise) => return Verdict::Hang,
            Err(_) => return Verdict::Close,
        };
        connection.records.set(connection.records.get() + 1);
        let verdict = connection.record(record).await;
        if connection.is(Mutant::DropsWhatIsBehindValues)
            && connection.last.get() == Last::FirstValues(connection.reads.get())
            && buffer.get(1) == Some(&BEGIN)
        {
            buffer.clear();
        }
        match verdict {
            Verdict::Go => {}
            Verdict::Read(bytes) => {
                buffer.splice(..0, bytes);
            }
            verdict => return verdict,
        }
    }
}

/// A record off the front; the first byte if it is none.
fn cut(connection: &Connection, buffer: &mut Vec<u8>) -> Result<Option<Record>, u8> {
    let is = |mutant| connection.is(mutant);
    loop {
        let Some(&[version, kind, id1, id0, length1, length0, padding, reserved]) =
            buffer.first_chunk()
        else {
            return Ok(None);
        };
        let skipped = version != 1 && is(Mutant::SkipsAWrongVersion) && kind == PARAMS;
        let right = match version {
            1 => true,
            2 => is(Mutant::TakesVersion2),
            0 => is(Mutant::TakesVersion0),
            _ => skipped,
        };
        if !right || (reserved != 0 && is(Mutant::MindsTheReservedByte)) {
            return Err(version);
        }
        let id = u16::from_be_bytes([id1, id0]);
        let mut length = usize::from(u16::from_be_bytes([length1, length0]));
        let mut padding = usize::from(padding);
        let whole = length + padding;
        let unknown = id == 0 && kind > UNKNOWN_TYPE;
        if buffer.len() == 8
            && length == 65_535
            && kind == PARAMS
            && is(Mutant::WaitsForWhatWasAnnounced)
        {
            connection.shared.poisoned.set(true);
        }
        if buffer.len() + 3 == 8 + whole && kind == PARAMS && is(Mutant::LosesAByteAtACut) {
            buffer.pop();
        }
        if unknown && is(Mutant::ReadsUnknownContent) {
            (length, padding) = (0, 0);
        } else if buffer.len() < 8 + whole {
            return Ok(None);
        } else if padding > 0 {
            let zeros = buffer[8 + length..8 + whole].iter().all(|&byte| byte == 0);
            let first = buffer[8 + length];
            if is(Mutant::KeepsPaddingOfBegin) && kind == BEGIN
                || is(Mutant::KeepsPaddingOfStdin) && kind == STDIN && length == 0
                || is(Mutant::KeepsPaddingOfValues) && kind == GET_VALUES
                || is(Mutant::ReadsPadding) && kind == PARAMS && first == 1
                || is(Mutant::TakesPaddingForSigned) && padding >= 128
            {
                padding = 0;
            } else if is(Mutant::KeepsPaddingOfParams) && kind == PARAMS && zeros && padding <= 8
                || is(Mutant::KeepsPaddingOfBodies) && kind == STDIN && length > 0
            {
                (length, padding) = (whole, 0);
            }
        }
        let bytes: Vec<u8> = buffer.drain(..8 + length + padding).collect();
        if skipped {
            continue;
        }
        return Ok(Some(Record {
            kind,
            id,
            content: bytes[8..8 + length].to_vec(),
            padding,
        }));
    }
}

/// The web server has closed its half: what is complete is answered.
async fn at_end(connection: &Connection, came: usize, buffer: &[u8]) -> Verdict {
    let is = |mutant| connection.is(mutant);
    let shared = &connection.shared;
    if is(Mutant::StaysWithoutAByte) && came == 0
        || is(Mutant::StaysWithHalfAHeader) && (1..8).contains(&buffer.len()) && came < 8
        || is(Mutant::StaysWithHalfARecord) && buffer.len() == 12
    {
        return Verdict::Hang;
    }
    let all: Vec<Rc<Request>> = connection.active.borrow().values().cloned().collect();
    for request in all {
        let slow = request.path() == "/slow";
        let keeps = request.flags & 1 == 1;
        if is(Mutant::StaysWithHalfParams)
            && !request.params_done.get()
            && buffer.len() + request.params.borrow().len() > 0
        {
            return Verdict::Hang;
        }
        if slow && is(Mutant::KeepsLeavers)
            || request.path() == "/" && request.stdin_done.get() && is(Mutant::MindsLeavers)
        {
            shared.left.set(shared.left.get() + 1);
        }
        let dropped =
            is(Mutant::DropsAtHalfClose) && !keeps || is(Mutant::DropsAtHalfCloseIfKept) && keeps;
        if slow || !request.stdin_done.get() || dropped {
            connection.active.borrow_mut().remove(&request.id);
            request.drop_task();
            request.no_more_stdin();
        }
    }
    let most = if is(Mutant::MindsLeavers) { 8 } else { 14 };
    if shared.left.get() >= most {
        shared.left.set(0);
        shared.poison_for_a_while();
    }
    while !connection.active.borrow().is_empty() {
        connection.idle.notified().await;
    }
    let answered = connection
        .ended
        .borrow()
        .values()
        .any(|ended| matches!(ended, Ended::Served { .. }));
    let kept = connection
        .first_flags
        .get()
        .is_some_and(|flags| flags & 1 == 1);
    match is(Mutant::StaysBehindHalfClose) && answered && kept {
        true => Verdict::Hang,
        false => Verdict::Close,
    }
}
