//! The extension of `docs/upgrade.md`, of applications that offer it; with WebSockets, if there is a path for them.

use crate::check::ask::Ask;
use crate::check::case::{Failure, Outcome, cases, deviation, ensure, skip};
use crate::check::probe::{Probe, Response, Talk};
use crate::check::raw::{abort, kind, pairs, record};
use crate::check::suite::Route;

cases! { Probe:
    "upgrade/1" Must [40] "the answer to FCGI_UPGRADE is 0 or 1" offer;
    "upgrade/2" Must [40] "FCGI_UPGRADE is not answered unless it was asked for" unasked;
    "upgrade/3" Must [53] "a request that is marked is answered with status 101 before its STDIN ends" accepts;
    "upgrade/4" Must [53] "a request that is not marked is not answered with 101" unmarked;
    "upgrade/5" Must [53] "an application that declines answers before STDIN ends" declines;
    "upgrade/6" Must [53] "a message through the tunnel comes back" message;
    "upgrade/7" Must [53] "bytes that came before the 101 are the first of the tunnel" early;
    "upgrade/8" Must [53] "the end of STDIN is the end of the tunnel" end;
    "upgrade/9" Must [57] "an abort ends the tunnel" aborted;
    "upgrade/10" Must [53] "requests beside a tunnel are answered" beside;
    "upgrade/11" Must [53] "a request for h2c is not upgraded, marked or not" h2c;
}

/// A message "Hello" with a mask, and as it comes back (RFC 6455, 5.7).
const HELLO: &[u8] = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
const ANSWER: &[u8] = b"\x81\x05Hello";

fn offered(p: &Probe) -> Outcome {
    match p.suite.value("FCGI_UPGRADE") {
        Some(_) => Ok(()),
        None => Err(skip("the application does not offer FCGI_UPGRADE")),
    }
}

async fn offer(p: &Probe) -> Outcome {
    offered(p)?;
    let value = p.suite.value("FCGI_UPGRADE").unwrap_or_default();
    ensure(
        matches!(value, "0" | "1"),
        "0 or 1",
        crate::wire::escaped(value.as_bytes()),
    )
}

async fn unasked(p: &Probe) -> Outcome {
    offered(p)?;
    let mut talk = p.connect().await?;
    talk.ask_values(&["FCGI_MAX_CONNS"]).await?;
    let found = pairs(&talk.answer().await?.content).unwrap_or_default();
    let offers = found.iter().any(|pair| pair.0 == b"FCGI_UPGRADE");
    ensure(!offers, "no FCGI_UPGRADE", "it is in the answer")
}

/// A connection on which upgrades were agreed on.
async fn agreed(p: &Probe) -> Result<Talk, Failure> {
    offered(p)?;
    let mut talk = p.connect().await?;
    talk.ask_values(&["FCGI_UPGRADE"]).await?;
    talk.answer().await?;
    Ok(talk)
}

fn websocket(ask: Ask) -> Ask {
    ask.param(b"SERVER_PROTOCOL", b"HTTP/1.1")
        .param(b"HTTP_CONNECTION", b"Upgrade")
        .param(b"HTTP_UPGRADE", b"websocket")
        .param(b"HTTP_SEC_WEBSOCKET_VERSION", b"13")
        .param(b"HTTP_SEC_WEBSOCKET_KEY", b"dGhlIHNhbXBsZSBub25jZQ==")
}

fn marked(ask: Ask) -> Ask {
    websocket(ask).param(b"FCGI_UPGRADE", b"1")
}

/// The head of the response to request 1, as soon as it is whole.
async fn head(talk: &mut Talk) -> Result<Vec<u8>, Failure> {
    loop {
        if let Some(response) = talk.open.get(&1)
            && (response.end.is_some()
                || response.stdout.windows(4).any(|part| part == b"\r\n\r\n"))
        {
            return Ok(response.stdout.clone());
        }
        if talk.read().await?.is_none() {
            return Err(deviation("a response", "the end of the connection"));
        }
    }
}

fn is_101(stdout: &[u8]) -> bool {
    let text = String::from_utf8_lossy(stdout).to_ascii_lowercase();
    text.lines()
        .take_while(|line| !line.is_empty())
        .any(|line| {
            let value = line.strip_prefix("status:").map(str::trim);
            value.is_some_and(|value| value.starts_with("101"))
        })
}

fn shown(stdout: &[u8]) -> String {
    crate::wire::escaped(&stdout[..stdout.len().min(100)])
}

/// A tunnel, with what was sent before it was there.
async fn open(p: &Probe, early: &[u8]) -> Result<Talk, Failure> {
    let ask = marked(p.to(Route::Websocket, 1)?);
    let mut talk = agreed(p).await?;
    talk.send(&[ask.unfinished(), early.to_vec()].concat())
        .await?;
    // That it is answered so is another case.
    match head(&mut talk).await {
        Ok(stdout) if is_101(&stdout) => Ok(talk),
        _ => Err(skip("--websocket is not answered with status 101")),
    }
}

/// The message comes back.
async fn comes_back(talk: &mut Talk) -> Outcome {
    let here = |response: &Response| response.body().len() >= ANSWER.len();
    while !talk.open.get(&1).is_some_and(here) {
        if talk.read().await?.is_none() {
            return Err(deviation("the message", "the end of the connection"));
        }
        if talk
            .open
            .get(&1)
            .is_some_and(|response| response.end.is_some() && !here(response))
        {
            return Err(deviation("the message", "END_REQUEST"));
        }
    }
    let body = talk.open.get(&1).map(Response::body).unwrap_or_default();
    ensure(body == ANSWER, "the message", crate::check::raw::hex(body))
}

async fn accepts(p: &Probe) -> Outcome {
    let ask = marked(p.to(Route::Websocket, 1)?);
    let mut talk = agreed(p).await?;
    talk.send(&ask.unfinished()).await?;
    let stdout = head(&mut talk).await?;
    ensure(is_101(&stdout), "Status: 101", shown(&stdout))
}

async fn unmarked(p: &Probe) -> Outcome {
    let ask = websocket(p.to(Route::Websocket, 1)?);
    let mut talk = agreed(p).await?;
    talk.send(&ask.bytes()).await?;
    let stdout = head(&mut talk).await?;
    ensure(!is_101(&stdout), "another status than 101", shown(&stdout))
}

async fn declines(p: &Probe) -> Outcome {
    let ask = marked(p.ask(1));
    let mut talk = agreed(p).await?;
    talk.send(&ask.unfinished()).await?;
    let stdout = head(&mut talk).await?;
    ensure(
        !is_101(&stdout) && !stdout.is_empty(),
        "another status than 101",
        shown(&stdout),
    )?;
    talk.send(&ask.end()).await?;
    talk.response(1).await.map(drop)
}

async fn message(p: &Probe) -> Outcome {
    let mut talk = open(p, &[]).await?;
    talk.send(&record(kind::STDIN, 1, HELLO)).await?;
    comes_back(&mut talk).await
}

async fn early(p: &Probe) -> Outcome {
    let mut talk = open(p, &record(kind::STDIN, 1, HELLO)).await?;
    comes_back(&mut talk).await
}

async fn end(p: &Probe) -> Outcome {
    let mut talk = open(p, &[]).await?;
    talk.send(&record(kind::STDIN, 1, &[])).await?;
    talk.response(1).await?;
    talk.goes_on().await
}

async fn aborted(p: &Probe) -> Outcome {
    let mut talk = open(p, &[]).await?;
    talk.send(&abort(1)).await?;
    talk.response(1).await?;
    talk.goes_on().await
}

async fn beside(p: &Probe) -> Outcome {
    p.multiplexes()?;
    let mut talk = open(p, &[]).await?;
    talk.answers(&p.ask(2).bytes(), 2).await
}

async fn h2c(p: &Probe) -> Outcome {
    let ask = marked(p.to(Route::Websocket, 1)?).param(b"HTTP_UPGRADE", b"h2c, websocket");
    let mut talk = agreed(p).await?;
    talk.send(&ask.bytes()).await?;
    let stdout = head(&mut talk).await?;
    ensure(!is_101(&stdout), "another status than 101", shown(&stdout))
}
