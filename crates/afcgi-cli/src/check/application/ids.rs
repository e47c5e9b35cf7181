//! Request ids [3.3]: from BEGIN_REQUEST to END_REQUEST, and what is for no request.

use std::time::Duration;

use crate::check::case::{Outcome, cases, deviation, ensure};
use crate::check::probe::Probe;
use crate::check::raw::{self, kind, record};

cases! { Probe:
    "3.3/21" Must [10 13] "id 65535 is answered with id 65535" highest;
    "3.3/22" Must [10] "id 256 is answered with id 256" second_byte;
    "3.3/23" Must [10] "an id is used again when its request has ended" again;
    "3.3/24" Must [10] "ids come in any order" any_order;
    "3.3/25" Must [11] "STDIN of no request is ignored" stdin_of_none;
    "3.3/26" Must [11] "PARAMS of no request is ignored" params_of_none;
    "3.3/27" Must [11] "DATA of no request is ignored" data_of_none;
    "3.3/28" Must [11 57] "ABORT_REQUEST of no request is ignored" abort_of_none;
    "3.3/29" Must [11] "STDIN that comes after END_REQUEST is ignored" late_stdin;
    "3.3/30" Robust [12] "BEGIN_REQUEST for an active id is not answered by two responses" twice;
    "3.3/31" Robust [5] "a request with id 0 is not served" zero;
    "3.3/32" Robust [5 40] "GET_VALUES with the id of a request harms nobody" values_with_an_id;
}

async fn highest(p: &Probe) -> Outcome {
    let mut talk = p.connect().await?;
    talk.answers(&p.ask(65_535).bytes(), 65_535).await
}

async fn second_byte(p: &Probe) -> Outcome {
    let mut talk = p.connect().await?;
    talk.answers(&p.ask(256).bytes(), 256).await
}

async fn again(p: &Probe) -> Outcome {
    p.keeps()?;
    let mut talk = p.connect().await?;
    for _ in 0..3 {
        talk.answers(&p.ask(5).bytes(), 5).await?;
    }
    Ok(())
}

async fn any_order(p: &Probe) -> Outcome {
    p.keeps()?;
    let mut talk = p.connect().await?;
    for id in [9, 3, 700, 2] {
        talk.answers(&p.ask(id).bytes(), id).await?;
    }
    Ok(())
}

/// A record of request 9, which there is not, before the plain request.
async fn is_ignored(p: &Probe, stray: Vec<u8>) -> Outcome {
    let mut talk = p.connect().await?;
    talk.answers(&[stray, p.ask(1).bytes()].concat(), 1).await?;
    talk.nothing_for(9, "no answer to a record of no request")
}

async fn stdin_of_none(p: &Probe) -> Outcome {
    is_ignored(p, record(kind::STDIN, 9, b"nobody's")).await
}

async fn params_of_none(p: &Probe) -> Outcome {
    is_ignored(p, record(kind::PARAMS, 9, &raw::pair(b"NAME", b"nobody's"))).await
}

async fn data_of_none(p: &Probe) -> Outcome {
    is_ignored(p, record(kind::DATA, 9, b"nobody's")).await
}

async fn abort_of_none(p: &Probe) -> Outcome {
    is_ignored(p, raw::abort(9)).await
}

async fn late_stdin(p: &Probe) -> Outcome {
    p.keeps()?;
    let mut talk = p.connect().await?;
    talk.answers(&p.ask(6).bytes(), 6).await?;
    let late = record(kind::STDIN, 6, b"late");
    talk.answers(&[late, p.ask(8).bytes()].concat(), 8).await?;
    talk.nothing_for(6, "nothing for a request that has ended")
}

async fn twice(p: &Probe) -> Outcome {
    let ask = p.ask(7);
    let mut talk = p.connect().await?;
    talk.send(&[ask.begin(), ask.bytes()].concat()).await?;
    if talk.response(7).await.is_err() {
        return ensure(
            talk.link.has_ended(),
            "the end of the connection, or one response",
            "neither",
        );
    }
    // A second response would be there before that of the next request.
    _ = talk.answers(&p.ask(8).bytes(), 8).await;
    talk.nothing_for(7, "one response at most")
}

async fn zero(p: &Probe) -> Outcome {
    let mut talk = p.connect().await?;
    talk.send(&p.ask(0).bytes()).await?;
    let behind = talk.answers(&p.ask(1).bytes(), 1).await;
    // It may come behind the other.
    let late = talk.link.within(Duration::from_millis(50)).await;
    if talk.open.contains_key(&0) || late.is_some_and(|record| record.id() == 0) {
        return Err(deviation("no response with id 0", "one came"));
    }
    match behind {
        Err(failure) if !talk.link.has_ended() => Err(failure),
        _ => Ok(()),
    }
}

async fn values_with_an_id(p: &Probe) -> Outcome {
    let mut talk = p.connect().await?;
    let question = record(kind::GET_VALUES, 9, &raw::pair(b"FCGI_MPXS_CONNS", b""));
    talk.send(&question).await?;
    talk.closes_or_goes_on().await
}
