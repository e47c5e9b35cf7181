//! What the breakable server answers: the plain response, and the paths that the tool can be told of. Management records are here, too.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::connection::{Connection, Last, Record, Verdict};
use crate::mutant::Mutant;
use crate::request::{MOST, Request, WINDOW};
use crate::wire::{
    CREDIT, GET_VALUES, GET_VALUES_RESULT, STDERR, STDOUT, UNKNOWN_TYPE, pair, pairs, record,
};

/// Bytes of the long response.
const LARGE: usize = 1_000_000;

pub(crate) async fn handle(connection: Rc<Connection>, request: Rc<Request>) {
    let is = |mutant| connection.is(mutant);
    let path = request.path();
    let has = |path: &str, flag: fn(&Request) -> bool| {
        let active = connection.active.borrow();
        active
            .values()
            .any(|other| other.id != request.id && other.path() == path && flag(other))
    };
    if path == "/" {
        let blocked = connection
            .active
            .borrow()
            .values()
            .any(|other| other.credit.get().is_some_and(|left| left <= 0));
        let swallowed = is(Mutant::TakesFewConnections)
            && connection.shared.open.get() - connection.shared.stopped.get() >= 10
            || is(Mutant::WaitsForABody) && has("/echo", |other| !other.stdin_done.get())
            || is(Mutant::WaitsForSlow) && has("/slow", |_| true)
            || is(Mutant::BlocksOthers) && blocked
            || is(Mutant::BlocksBesideATunnel) && has("/ws", |other| other.tunnel.get());
        if swallowed {
            return std::future::pending().await;
        }
        while is(Mutant::WaitsForLarge) && has("/large", |_| true) {
            sleep(Duration::from_millis(2)).await;
        }
        if is(Mutant::DropsAtHalfClose)
            || is(Mutant::DropsAtHalfCloseIfKept)
            || is(Mutant::MindsLeavers)
        {
            sleep(Duration::from_millis(3)).await;
        }
    }
    match path.as_str() {
        "/echo" => echo(&connection, &request).await,
        "/params" => params(&connection, &request).await,
        "/slow" => std::future::pending().await,
        "/large" => large(&connection, &request).await,
        "/stderr" => stderr(&connection, &request).await,
        "/ws" => websocket(&connection, &request).await,
        _ => plain(&connection, &request).await,
    }
    if !is(Mutant::LeavesStdoutOpen) {
        stream(&connection, &request, STDOUT, b"").await;
    }
    if is(Mutant::EndsStdoutTwice) {
        stream(&connection, &request, STDOUT, b"").await;
    }
    if is(Mutant::WantsMoreThanEnough) && request.credit.get().is_some_and(|left| left <= 0) {
        return std::future::pending().await;
    }
    connection.end(&request).await;
}

/// A part of a stream, as there is credit for it; its end if it is empty.
async fn stream(connection: &Connection, request: &Request, kind: u8, content: &[u8]) {
    let id = connection.wire_id(request.id);
    if content.is_empty() {
        return connection.send(record(kind, id, &[])).await;
    }
    for mut part in content.chunks(16_000) {
        while !part.is_empty() {
            let mut count = part.len();
            if let Some(left) = request.credit.get()
                && !connection.is(Mutant::IgnoresCredit)
            {
                if left <= 0 {
                    request.more.notified().await;
                    continue;
                }
                count = count.min(left as usize);
                request.credit.set(Some(left - count as i64));
            }
            let (now, rest) = part.split_at(count);
            request.sent.set(request.sent.get() + count);
            connection.send(record(kind, id, now)).await;
            part = rest;
        }
    }
}

async fn plain(connection: &Connection, request: &Request) {
    let is = |mutant| connection.is(mutant);
    let asks = request.value("FCGI_UPGRADE") == "1";
    if is(Mutant::DeclinesLate) && asks
        || is(Mutant::IgnoresAbortInStdin) && request.value("REQUEST_METHOD") == "POST"
    {
        body(connection, request).await;
    }
    let response: &[u8] = match () {
        () if is(Mutant::HasNoEmptyLine) => b"Content-Type: text/plain\r\nX-Greeting: hello\n",
        () if is(Mutant::HasABadLine) => b"Content Type: text/plain\r\n\r\nhello\n",
        () => b"Content-Type: text/plain\r\n\r\nhello\n",
    };
    match is(Mutant::WritesByteByByte) {
        true => {
            for byte in response.chunks(1) {
                stream(connection, request, STDOUT, byte).await;
            }
        }
        false => stream(connection, request, STDOUT, response).await,
    }
}

/// The whole body.
async fn body(connection: &Connection, request: &Request) -> Vec<u8> {
    let Some(mut from) = request.body.take() else {
        return Vec::new();
    };
    let (mut all, mut taken, mut granted) = (Vec::new(), 0i64, 0i64);
    loop {
        let next = match connection.is(Mutant::HasNoPatience) {
            true => match timeout(Duration::from_millis(80), from.recv()).await {
                Ok(next) => next,
                Err(_) => return Vec::new(),
            },
            false => from.recv().await,
        };
        let Some(part) = next else {
            return all;
        };
        all.extend_from_slice(&part);
        taken += part.len() as i64;
        let grants = !(connection.is(Mutant::GrantsOnce) && granted > 0);
        if request.credit.get().is_some() && taken >= WINDOW / 2 && grants {
            let last = u8::from(connection.is(Mutant::FillsCredit));
            let mut content = (taken as u32).to_be_bytes().to_vec();
            content.extend([0, 0, 0, last]);
            request.window.set(request.window.get() + taken);
            connection.send(record(CREDIT, request.id, &content)).await;
            granted += taken;
            taken = 0;
        }
        if connection.is(Mutant::LocksUp) && all.len() > 1_000_000 {
            return std::future::pending().await;
        }
    }
}

async fn echo(connection: &Connection, request: &Request) {
    let is = |mutant| connection.is(mutant);
    let mut all = body(connection, request).await;
    if is(Mutant::LosesTheFirstByte) && (1..8).contains(&all.len()) {
        all.remove(0);
    }
    if is(Mutant::SaysNothingCame) && all.is_empty() {
        all = b"(nothing)".to_vec();
    }
    if is(Mutant::CutsLongBodies) && (250_000..1_000_000).contains(&all.len()) {
        all.truncate(250_000);
    }
    if is(Mutant::EndsAtAByte255) && all.len() < 1000 {
        let end = all.iter().position(|&byte| byte == 255);
        all.truncate(end.unwrap_or(all.len()));
    }
    stream(
        connection,
        request,
        STDOUT,
        b"Content-Type: application/octet-stream\r\n\r\n",
    )
    .await;
    if !all.is_empty() {
        stream(connection, request, STDOUT, &all).await;
    }
}

async fn params(connection: &Connection, request: &Request) {
    let mut out = b"Content-Type: text/plain\r\n\r\n".to_vec();
    let pairs = request.pairs.borrow().clone();
    for (name, value) in pairs {
        out.extend([&name[..], b"=", &value, b"\n"].concat());
    }
    stream(connection, request, STDOUT, &out).await;
}

async fn large(connection: &Connection, request: &Request) {
    let is = |mutant| connection.is(mutant);
    if is(Mutant::HoardsResponses) {
        connection.shared.hoard(16 << 20);
    }
    if is(Mutant::HoldsBackWithoutFlag) && connection.flow.get() && request.credit.get().is_none() {
        return std::future::pending().await;
    }
    let head = format!("Content-Type: text/plain\r\nContent-Length: {LARGE}\r\n\r\n");
    stream(connection, request, STDOUT, head.as_bytes()).await;
    let part = [b'x'; 10_000];
    for number in 1..=LARGE / part.len() {
        let last = number == LARGE / part.len();
        let cut = last && is(Mutant::CutsForASlowReader) && connection.slow.get()
            || last
                && is(Mutant::LosesTheLastByte)
                && !connection.slow.get()
                && connection.values.get() == 0;
        stream(connection, request, STDOUT, &part[usize::from(cut)..]).await;
        if connection.at_end.get() {
            break;
        }
    }
    if is(Mutant::DiesOfLeavers) && connection.at_end.get() {
        let left = connection.shared.left.get() + 1;
        connection.shared.left.set(left);
        if left >= 12 {
            connection.shared.poison_for_a_while();
        }
    }
}

async fn stderr(connection: &Connection, request: &Request) {
    let is = |mutant| connection.is(mutant);
    stream(connection, request, STDERR, b"written to STDERR\n").await;
    if !is(Mutant::LeavesStderrOpen) {
        stream(connection, request, STDERR, b"").await;
    }
    if is(Mutant::EndsStderrTwice) {
        stream(connection, request, STDERR, b"").await;
    }
    plain(connection, request).await;
    if is(Mutant::MixesStderr) {
        stream(connection, request, STDOUT, b"written to STDERR\n").await;
    }
}

async fn websocket(connection: &Connection, request: &Request) {
    let is = |mutant| connection.is(mutant);
    let h2c = request.value("HTTP_UPGRADE").contains("h2c") && !is(Mutant::UpgradesToH2c);
    let marked = request.value("FCGI_UPGRADE") == "1" || is(Mutant::UpgradesUnmarked);
    if h2c || !marked {
        return plain(connection, request).await;
    }
    request.tunnel.set(true);
    let Some(mut from) = request.body.take() else {
        return;
    };
    if is(Mutant::WaitsForTheEnd) {
        while from.recv().await.is_some() {}
    }
    if is(Mutant::LosesEarlyBytes) {
        while from.try_recv().is_ok() {}
    }
    let early = !from.is_empty();
    let head = b"Status: 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
    stream(connection, request, STDOUT, head).await;
    while let Some(frame) = from.recv().await {
        // A short message with a mask.
        let (Some(mask), Some(text)) = (frame.get(2..6), frame.get(6..)) else {
            continue;
        };
        let mut answer = vec![0x81, text.len() as u8];
        answer.extend(
            text.iter()
                .zip(mask.iter().cycle())
                .map(|(byte, mask)| byte ^ mask),
        );
        if is(Mutant::ChangesAMessage) && !early {
            answer.reverse();
        }
        stream(connection, request, STDOUT, &answer).await;
    }
    if is(Mutant::IgnoresTheEnd) {
        std::future::pending::<()>().await;
    }
}

impl Connection {
    pub(crate) async fn management(self: &Rc<Self>, record: Record) -> Verdict {
        if record.kind == GET_VALUES {
            return self.get_values(record).await;
        }
        let is = |mutant| self.is(mutant);
        self.unknown.set(self.unknown.get() + 1);
        if is(Mutant::HangsAtManyUnknown) && self.unknown.get() > 1500 {
            return Verdict::Hang;
        }
        let kind = record
            .kind
            .wrapping_add(u8::from(is(Mutant::NamesAnotherType)));
        let last = u8::from(is(Mutant::FillsUnknownType));
        self.send(crate::wire::record(
            UNKNOWN_TYPE,
            0,
            &[kind, 0, 0, 0, 0, 0, 0, last],
        ))
        .await;
        match is(Mutant::ClosesAfterUnknownType) && record.content.is_empty() {
            true => Verdict::Close,
            false => Verdict::Go,
        }
    }

    async fn get_values(self: &Rc<Self>, record: Record) -> Verdict {
        let is = |mutant| self.is(mutant);
        self.values.set(self.values.get() + 1);
        if is(Mutant::HoardsAnswers) {
            self.shared.hoard(65_536);
        }
        let Ok(asked) = pairs(&record.content, &[], None) else {
            return match is(Mutant::HangsAtBadValues) {
                true => Verdict::Hang,
                false => Verdict::Close,
            };
        };
        let only = |name: &[u8]| matches!(asked.as_slice(), [(asked, _)] if asked == name);
        let active = !self.active.borrow().is_empty();
        let silent = is(Mutant::IgnoresNoNames) && asked.is_empty()
            || is(Mutant::AnswersNoValuesDuring) && active
            || is(Mutant::AnswersNoValuesBetween) && !active && !self.ended.borrow().is_empty()
            || is(Mutant::IgnoresValuesWithValues) && asked.iter().any(|pair| !pair.1.is_empty())
            || is(Mutant::AnswersAHundredValues) && self.values.get() > 100
            || is(Mutant::IgnoresLongValues) && record.content.len() > 32_768;
        if silent {
            return Verdict::Go;
        }
        let most = MOST.to_string();
        let mut answer = Vec::new();
        for (name, _) in &asked {
            let value = match name.as_slice() {
                b"FCGI_MAX_CONNS" if is(Mutant::SaysMany) => "many",
                b"FCGI_MAX_CONNS" | b"FCGI_MAX_REQS" => &most,
                b"FCGI_MPXS_CONNS" => "1",
                b"FCGI_FLOW_CONTROL" if is(Mutant::OffersWords) => "64k",
                b"FCGI_FLOW_CONTROL" => {
                    self.flow.set(true);
                    "65536"
                }
                b"FCGI_UPGRADE" if is(Mutant::SaysYes) => "yes",
                b"FCGI_UPGRADE" => "1",
                _ if is(Mutant::KnowsEveryName) => "",
                _ => continue,
            };
            answer.extend(pair(name, value.as_bytes()));
        }
        for (mutant, name, more) in [
            (
                Mutant::TellsMore,
                &b"FCGI_MPXS_CONNS"[..],
                &b"FCGI_MAX_CONNS"[..],
            ),
            (
                Mutant::OffersUnasked,
                b"FCGI_MAX_REQS",
                b"FCGI_FLOW_CONTROL",
            ),
            (Mutant::UpgradesUnasked, b"FCGI_MAX_CONNS", b"FCGI_UPGRADE"),
        ] {
            if is(mutant) && only(name) {
                answer.extend(pair(more, b"1"));
            }
        }
        let id = u16::from(is(Mutant::AnswersValuesWithAnId));
        self.send(crate::wire::record(GET_VALUES_RESULT, id, &answer))
            .await;
        if is(Mutant::AnswersValuesTwice) {
            self.send(crate::wire::record(GET_VALUES_RESULT, 0, &[]))
                .await;
        }
        if self.records.get() == 1 && only(b"FCGI_MPXS_CONNS") && record.padding == 0 {
            self.last.set(Last::FirstValues(self.reads.get()));
        }
        Verdict::Go
    }
}
