//! ABORT_REQUEST [5.4] at every stage of a request.
//!
//! A request is ended by END_REQUEST when it is aborted, and its connection goes on. One that was answered before the abort came is
//! no fault.

use crate::check::case::{Outcome, cases, deviation, ensure};
use crate::check::probe::{Probe, because};
use crate::check::raw::{abort, kind, padded, record};
use crate::check::suite::Route;

cases! { Probe:
    "5.4/1" Must [57] "a request that has only begun is ended" after_begin;
    "5.4/2" Must [57] "a request whose PARAMS have not ended is ended" in_params;
    "5.4/3" Must [57] "a request whose PARAMS stop inside a pair is ended" in_a_pair;
    "5.4/4" Must [57] "a request whose STDIN has not ended is ended" in_stdin;
    "5.4/5" Must [57] "a request that waits for its body is ended" waits_for_body;
    "5.4/6" Must [57] "a request that is being worked on is ended" at_work;
    "5.4/7" Must [57] "a request whose response is on its way is ended, with at most a part of the response" in_response;
    "5.4/8" Must [57 51] "it is ended with REQUEST_COMPLETE" status;
    "5.4/9" Must [57] "the connection goes on after an abort" goes_on;
    "5.4/10" Must [57 52] "two aborts are one end" twice;
    "5.4/11" Must [57 11] "an abort behind END_REQUEST is ignored" too_late;
    "5.4/12" Must [57 52] "nothing comes for the request behind its end" nothing_behind;
    "5.4/13" Must [57 10] "its id is used again" id_again;
    "5.4/14" Must [57 11] "what still comes of its PARAMS and STDIN is ignored" rest_ignored;
    "5.4/15" Must [57 30] "without FCGI_KEEP_CONN the connection is closed after it" closes;
    "5.4/16" Must [57] "other requests of the connection go on" others;
    "5.4/17" Should [57 3] "an abort with content and padding is an abort" with_content;
    "5.4/18" Robust [57] "100 requests that are begun and aborted harm nobody" many;
}

/// A request whose PARAMS have begun.
fn begun(p: &Probe, id: u16) -> Vec<u8> {
    let ask = p.ask(id);
    let mut first = ask.clone();
    first.params.truncate(3);
    [ask.begin(), record(kind::PARAMS, id, &first.pairs())].concat()
}

/// Sends a part of request 1 and its abort. It is ended.
async fn is_ended(p: &Probe, part: &[u8]) -> Outcome {
    let mut talk = p.connect().await?;
    talk.send(part).await?;
    talk.send(&abort(1)).await?;
    talk.response(1).await.map(drop)
}

async fn after_begin(p: &Probe) -> Outcome {
    is_ended(p, &p.ask(1).begin()).await
}

async fn in_params(p: &Probe) -> Outcome {
    let ask = p.ask(1);
    is_ended(
        p,
        &[ask.begin(), record(kind::PARAMS, 1, &ask.pairs())].concat(),
    )
    .await
}

async fn in_a_pair(p: &Probe) -> Outcome {
    let ask = p.ask(1);
    let pairs = ask.pairs();
    is_ended(
        p,
        &[
            ask.begin(),
            record(kind::PARAMS, 1, &pairs[..pairs.len() - 3]),
        ]
        .concat(),
    )
    .await
}

async fn in_stdin(p: &Probe) -> Outcome {
    is_ended(p, &p.ask(1).body(b"not yet whole").unfinished()).await
}

async fn waits_for_body(p: &Probe) -> Outcome {
    is_ended(
        p,
        &p.to(Route::Echo, 1)?.body(b"not yet whole").unfinished(),
    )
    .await
}

async fn at_work(p: &Probe) -> Outcome {
    is_ended(p, &p.to(Route::Slow, 1)?.bytes()).await
}

async fn in_response(p: &Probe) -> Outcome {
    let mut talk = p.connect().await?;
    talk.send(&p.to(Route::Large, 1)?.bytes()).await?;
    while talk
        .open
        .get(&1)
        .is_none_or(|response| response.stdout.len() < 1000)
    {
        if talk.read().await?.is_none() {
            return Err(deviation("a response", "the end of the connection"));
        }
    }
    talk.send(&abort(1)).await?;
    talk.response(1).await?;
    talk.goes_on().await
}

async fn status(p: &Probe) -> Outcome {
    let mut talk = p.connect().await?;
    talk.send(&[begun(p, 1), abort(1)].concat()).await?;
    let status = talk.response(1).await?.protocol_status();
    ensure(
        status == Some(0),
        "REQUEST_COMPLETE (0)",
        format!("protocolStatus {status:?}"),
    )
}

async fn goes_on(p: &Probe) -> Outcome {
    let mut talk = p.connect().await?;
    talk.send(&[begun(p, 1), abort(1)].concat()).await?;
    talk.goes_on().await
}

async fn twice(p: &Probe) -> Outcome {
    let mut talk = p.connect().await?;
    talk.send(&[begun(p, 1), abort(1), abort(1)].concat())
        .await?;
    talk.response(1).await?;
    talk.goes_on().await?;
    talk.nothing_for(1, "one END_REQUEST")
}

async fn too_late(p: &Probe) -> Outcome {
    p.keeps()?;
    let mut talk = p.connect().await?;
    talk.answers(&p.ask(1).bytes(), 1).await?;
    talk.send(&abort(1)).await?;
    talk.goes_on().await?;
    talk.nothing_for(1, "nothing for a request that has ended")
}

async fn nothing_behind(p: &Probe) -> Outcome {
    let mut talk = p.connect().await?;
    talk.send(&p.to(Route::Large, 1)?.bytes()).await?;
    talk.send(&abort(1)).await?;
    talk.response(1).await?;
    talk.goes_on().await?;
    talk.nothing_for(1, "nothing behind END_REQUEST")
}

async fn id_again(p: &Probe) -> Outcome {
    p.keeps()?;
    let mut talk = p.connect().await?;
    talk.send(&[begun(p, 1), abort(1)].concat()).await?;
    talk.response(1).await?;
    talk.answers(&p.ask(1).bytes(), 1).await
}

async fn rest_ignored(p: &Probe) -> Outcome {
    let ask = p.ask(1);
    let mut talk = p.connect().await?;
    talk.send(&[begun(p, 1), abort(1)].concat()).await?;
    talk.response(1).await?;
    talk.send(&[ask.params(), ask.stdin()].concat()).await?;
    talk.goes_on().await?;
    talk.nothing_for(1, "nothing for a request that has ended")
}

async fn closes(p: &Probe) -> Outcome {
    let mut talk = p.connect().await?;
    talk.send(
        &[
            p.ask(1).closing().begin(),
            record(kind::PARAMS, 1, b"\x01\x01NV"),
            abort(1),
        ]
        .concat(),
    )
    .await?;
    talk.closes().await
}

async fn others(p: &Probe) -> Outcome {
    p.multiplexes()?;
    let other = p.ask(2);
    let mut talk = p.connect().await?;
    talk.send(&[other.begin(), begun(p, 1), abort(1)].concat())
        .await?;
    talk.response(1).await?;
    let answered = talk
        .answers(&[other.params(), other.stdin()].concat(), 2)
        .await;
    answered.map_err(|failure| {
        because(
            "request 2 is answered although request 1 was aborted",
            failure,
        )
    })
}

async fn with_content(p: &Probe) -> Outcome {
    let mut talk = p.connect().await?;
    let odd = padded(kind::ABORT_REQUEST, 1, &[0; 8], &[0; 5]);
    talk.send(&[begun(p, 1), odd].concat()).await?;
    talk.response(1).await?;
    talk.goes_on().await
}

async fn many(p: &Probe) -> Outcome {
    p.keeps()?;
    let mut talk = p.connect().await?;
    for id in 1..=100 {
        talk.send(&[p.ask(id).begin(), abort(id)].concat()).await?;
        talk.response(id).await?;
    }
    talk.goes_on().await
}
