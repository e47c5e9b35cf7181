//! Closing connections [3.5]: who closes, and when.

use crate::check::case::{Outcome, cases, ensure};
use crate::check::probe::{Probe, because};
use crate::check::raw::begin;

cases! { Probe:
    "3.5/1" Must [30] "with FCGI_KEEP_CONN the connection stays open for the next request" keeps;
    "3.5/2" Must [30] "without FCGI_KEEP_CONN the connection is closed after the response" closes;
    "3.5/3" Should [30] "it is closed, not reset: nothing of the response can be lost" closes_gently;
    "3.5/4" Must [30] "a connection takes 20 requests, one after the other" twenty;
    "3.5/5" Must [30] "the flag of the last request counts" last_flag;
    "3.5/6" Must [30] "a connection is not closed under other requests by one without the flag" others_first;
    "3.5/7" Must [32] "a half-close behind a complete request does not cost the response" half_close;
    "3.5/8" Must [32] "nor does it with FCGI_KEEP_CONN" half_close_kept;
    "3.5/9" Should [32] "behind a half-close the application closes when it has answered" half_close_ends;
    "3.5/10" Robust [31] "a half-close in the middle of PARAMS is the end of the connection" broken_off;
    "3.5/11" Robust [31] "a connection that is closed without a byte harms nobody" nothing;
    "3.5/12" Robust [31] "a client that leaves without reading the response harms nobody" leaves;
}

async fn keeps(p: &Probe) -> Outcome {
    let mut talk = p.connect().await?;
    talk.answers(&p.ask(1).bytes(), 1).await?;
    let second = talk.answers(&p.ask(2).bytes(), 2).await;
    second.map_err(|failure| because("a second request is answered on the connection", failure))
}

async fn closes(p: &Probe) -> Outcome {
    let mut talk = p.connect().await?;
    talk.answers(&p.ask(1).closing().bytes(), 1).await?;
    talk.closes().await
}

async fn closes_gently(p: &Probe) -> Outcome {
    let mut talk = p.connect().await?;
    talk.answers(&p.ask(1).closing().bytes(), 1).await?;
    _ = talk.closes().await;
    ensure(
        !talk.link.was_broken(),
        "the end of the connection",
        "it was reset",
    )
}

async fn twenty(p: &Probe) -> Outcome {
    p.keeps()?;
    let mut talk = p.connect().await?;
    for id in 1..=20 {
        talk.answers(&p.ask(id).bytes(), id).await?;
    }
    Ok(())
}

async fn last_flag(p: &Probe) -> Outcome {
    p.keeps()?;
    let mut talk = p.connect().await?;
    talk.answers(&p.ask(1).bytes(), 1).await?;
    talk.answers(&p.ask(2).closing().bytes(), 2).await?;
    talk.closes().await
}

async fn others_first(p: &Probe) -> Outcome {
    p.multiplexes()?;
    let mut talk = p.connect().await?;
    let other = p.ask(1);
    talk.send(&other.begin()).await?;
    talk.answers(&p.ask(2).closing().bytes(), 2).await?;
    let rest = [other.params(), other.stdin()].concat();
    let answered = talk.answers(&rest, 1).await;
    answered.map_err(|failure| {
        because(
            "request 1 is answered although request 2 has ended",
            failure,
        )
    })
}

async fn half_close(p: &Probe) -> Outcome {
    let mut talk = p.connect().await?;
    talk.send(&p.ask(1).closing().bytes()).await?;
    talk.link.finish().await;
    talk.is_plain(1).await
}

async fn half_close_kept(p: &Probe) -> Outcome {
    let mut talk = p.connect().await?;
    talk.send(&p.ask(1).bytes()).await?;
    talk.link.finish().await;
    talk.is_plain(1).await
}

async fn half_close_ends(p: &Probe) -> Outcome {
    let mut talk = p.connect().await?;
    talk.send(&p.ask(1).bytes()).await?;
    talk.link.finish().await;
    _ = talk.response(1).await;
    talk.closes().await
}

async fn broken_off(p: &Probe) -> Outcome {
    let mut talk = p.connect().await?;
    let ask = p.ask(1);
    let params = ask.params();
    talk.send(
        &[
            begin(1, ask.role, ask.flags),
            params[..params.len() / 2].to_vec(),
        ]
        .concat(),
    )
    .await?;
    talk.link.finish().await;
    talk.closes().await
}

async fn nothing(p: &Probe) -> Outcome {
    for _ in 0..8 {
        let mut talk = p.connect().await?;
        talk.link.finish().await;
        talk.closes().await?;
    }
    p.is_served().await
}

async fn leaves(p: &Probe) -> Outcome {
    for _ in 0..8 {
        let mut talk = p.connect().await?;
        talk.send(&p.ask(1).bytes()).await?;
    }
    p.is_served().await
}
