//! Byte streams [5.3]: STDIN however it is cut, and bodies that are not as long as announced.

use crate::check::case::{Outcome, cases};
use crate::check::probe::Probe;
use crate::check::raw::{self, begin, kind, padded, record, stream};
use crate::check::suite::Route;

cases! { Probe:
    "5.3/1" Must [53] "a body arrives" small;
    "5.3/2" Must [53] "an empty body arrives as such" empty;
    "5.3/3" Must [6] "a body in records of one byte" by_byte;
    "5.3/4" Must [3 6] "a body in a record of 65,535 bytes" longest;
    "5.3/5" Must [6] "a body of 300,000 bytes in many records" long;
    "5.3/6" Must [3] "padding between the records of a body is skipped" padding;
    "5.3/7" Must [6] "a body that looks like records is a body" like_records;
    "5.3/8" Must [53] "a body with every byte" every_byte;
    "5.3/9" Should [41 53] "records of other kinds come between those of a body" between;
    "5.3/10" Must [6 53] "a body that the application does not read is not taken for the next request" unread;
    "5.3/11" Robust [59] "a body shorter than CONTENT_LENGTH is the end of the request, not of the application" shorter;
    "5.3/12" Robust [59] "a body longer than CONTENT_LENGTH does no harm" longer;
    "5.3/13" Robust [6] "STDIN that goes on behind its end does no harm" after_the_end;
    "5.3/14" Must [53 6] "the end of STDIN may come much later than its content" late_end;
}

async fn is_echoed(p: &Probe, body: &[u8], most: usize) -> Outcome {
    let ask = p.to(Route::Echo, 1)?.body(body);
    let mut talk = p.connect().await?;
    let stdin = stream(kind::STDIN, 1, body, most);
    talk.gives(&[ask.begin(), ask.params(), stdin].concat(), 1, body)
        .await
}

async fn small(p: &Probe) -> Outcome {
    is_echoed(p, b"a=1&b=2", 100).await
}

async fn empty(p: &Probe) -> Outcome {
    is_echoed(p, b"", 100).await
}

async fn by_byte(p: &Probe) -> Outcome {
    is_echoed(p, b"one byte in each record", 1).await
}

async fn longest(p: &Probe) -> Outcome {
    is_echoed(p, &noise(raw::MOST), raw::MOST).await
}

async fn long(p: &Probe) -> Outcome {
    is_echoed(p, &noise(300_000), 8_000).await
}

async fn padding(p: &Probe) -> Outcome {
    let body = b"with padding between";
    let ask = p.to(Route::Echo, 1)?.body(body);
    let mut bytes = [ask.begin(), ask.params()].concat();
    for (number, part) in body.chunks(3).enumerate() {
        bytes.extend(padded(kind::STDIN, 1, part, &vec![0xee; number]));
    }
    bytes.extend(ask.end());
    let mut talk = p.connect().await?;
    talk.gives(&bytes, 1, body).await
}

async fn like_records(p: &Probe) -> Outcome {
    let body = [raw::abort(1), begin(2, 1, 1), record(kind::STDIN, 1, &[])].concat();
    is_echoed(p, &body, raw::MOST).await
}

async fn every_byte(p: &Probe) -> Outcome {
    let body: Vec<u8> = (0..=255).collect();
    is_echoed(p, &body, 100).await
}

async fn between(p: &Probe) -> Outcome {
    let body = b"cut by others";
    let ask = p.to(Route::Echo, 1)?.body(body);
    let bytes = [
        ask.begin(),
        ask.params(),
        record(kind::STDIN, 1, &body[..5]),
        record(kind::STDIN, 8, b"nobody's"),
        record(98, 1, b"of a later version"),
        record(kind::STDIN, 1, &body[5..]),
        ask.end(),
    ];
    let mut talk = p.connect().await?;
    talk.gives(&bytes.concat(), 1, body).await
}

async fn unread(p: &Probe) -> Outcome {
    let ask = p.ask(1).body(&p.ask(3).bytes());
    let mut talk = p.connect().await?;
    talk.send(&ask.bytes()).await?;
    // Whatever it says to a body.
    talk.response(1).await?;
    talk.goes_on().await?;
    talk.nothing_for(3, "a body is no request")
}

async fn shorter(p: &Probe) -> Outcome {
    let ask = p.to(Route::Echo, 1)?.body(b"ten bytes.");
    let stdin = stream(kind::STDIN, 1, b"four", 100);
    let mut talk = p.connect().await?;
    talk.send(&[ask.begin(), ask.params(), stdin].concat())
        .await?;
    if talk.response(1).await.is_err() {
        talk.closes().await?;
    }
    drop(talk);
    p.is_served().await
}

async fn longer(p: &Probe) -> Outcome {
    let ask = p.to(Route::Echo, 1)?.body(b"four");
    let stdin = stream(kind::STDIN, 1, b"four and more", 100);
    let mut talk = p.connect().await?;
    talk.send(&[ask.begin(), ask.params(), stdin].concat())
        .await?;
    if talk.response(1).await.is_ok() {
        return talk.goes_on().await;
    }
    drop(talk);
    p.is_served().await
}

async fn after_the_end(p: &Probe) -> Outcome {
    let ask = p.to(Route::Echo, 1)?.body(b"body");
    let mut talk = p.connect().await?;
    talk.send(&[ask.bytes(), record(kind::STDIN, 1, b"more"), ask.end()].concat())
        .await?;
    // It may take that for a fault.
    _ = talk.response(1).await?;
    talk.closes_or_goes_on().await
}

async fn late_end(p: &Probe) -> Outcome {
    let ask = p.to(Route::Echo, 1)?.body(b"waits for its end");
    let mut talk = p.connect().await?;
    talk.send(&ask.unfinished()).await?;
    crate::check::probe::pause(150).await;
    talk.gives(&ask.end(), 1, b"waits for its end").await
}

/// Bytes without a pattern.
pub(crate) fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    std::iter::repeat_with(next).take(count).collect()
}
