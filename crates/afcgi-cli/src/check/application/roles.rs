//! Roles [6]: what an application answers that is no authorizer and no filter, and requests that lack something.

use crate::check::ask::Ask;
use crate::check::case::{Outcome, cases, ensure};
use crate::check::probe::Probe;
use crate::check::raw::{kind, record, stream};

cases! { Probe:
    "6/1" Must [54 56] "an authorizer's request is served, or refused with UNKNOWN_ROLE" authorizer;
    "6/2" Must [55 56] "a filter's request is served, or refused with UNKNOWN_ROLE" filter;
    "6/3" Must [53] "a responder may be sent parameters in any order" any_order;
    "6/4" Robust [53] "a request without parameters is ended" no_params;
    "6/5" Robust [55] "DATA for a responder harms nobody" data;
    "6/6" Robust [53] "PARAMS that go on behind their end harm nobody" params_after_end;
}

async fn authorizer(p: &Probe) -> Outcome {
    let mut ask = p.ask(1).role(2);
    let absent: [&[u8]; 4] = [
        b"CONTENT_LENGTH",
        b"PATH_INFO",
        b"PATH_TRANSLATED",
        b"SCRIPT_NAME",
    ];
    ask.params
        .retain(|pair| !absent.contains(&pair.0.as_slice()));
    let mut talk = p.connect().await?;
    // It has no STDIN, but some wait for its end as web servers send it.
    talk.send(&ask.bytes()).await?;
    is_served_or_refused(&talk.response(1).await?.protocol_status())
}

fn is_served_or_refused(status: &Option<u8>) -> Outcome {
    let right = matches!(status, Some(0 | 3));
    ensure(
        right,
        "REQUEST_COMPLETE (0) or UNKNOWN_ROLE (3)",
        format!("protocolStatus {status:?}"),
    )
}

async fn filter(p: &Probe) -> Outcome {
    let data = b"the file";
    let ask = p
        .ask(1)
        .role(3)
        .param(b"FCGI_DATA_LENGTH", b"8")
        .param(b"FCGI_DATA_LAST_MOD", b"1000000000");
    let mut talk = p.connect().await?;
    talk.send(&[ask.bytes(), stream(kind::DATA, 1, data, 100)].concat())
        .await?;
    is_served_or_refused(&talk.response(1).await?.protocol_status())
}

async fn any_order(p: &Probe) -> Outcome {
    let mut ask: Ask = p.ask(1);
    ask.params.reverse();
    let mut talk = p.connect().await?;
    talk.answers(&ask.bytes(), 1).await
}

async fn no_params(p: &Probe) -> Outcome {
    let mut ask = p.ask(1);
    ask.params.clear();
    let mut talk = p.connect().await?;
    talk.send(&ask.with_params(&record(kind::PARAMS, 1, &[])))
        .await?;
    if talk.response(1).await.is_err() {
        ensure(
            talk.link.has_ended(),
            "END_REQUEST, or the end of the connection",
            "neither",
        )?;
    }
    drop(talk);
    p.is_served().await
}

async fn data(p: &Probe) -> Outcome {
    let ask = p.ask(1);
    let mut talk = p.connect().await?;
    talk.send(
        &[
            ask.begin(),
            ask.params(),
            stream(kind::DATA, 1, b"a file", 100),
            ask.stdin(),
        ]
        .concat(),
    )
    .await?;
    _ = talk.response(1).await;
    talk.closes_or_goes_on().await?;
    drop(talk);
    p.is_served().await
}

async fn params_after_end(p: &Probe) -> Outcome {
    let ask = p.ask(1);
    let more = record(kind::PARAMS, 1, &ask.pairs());
    let mut talk = p.connect().await?;
    talk.send(&[ask.begin(), ask.params(), more, ask.stdin()].concat())
        .await?;
    _ = talk.response(1).await;
    talk.closes_or_goes_on().await?;
    drop(talk);
    p.is_served().await
}
