//! Peers that are slow, and many at a time.

use crate::check::application::end::is_whole;
use crate::check::case::{Outcome, cases};
use crate::check::probe::{Probe, because, pause};
use crate::check::raw::{kind, record};
use crate::check::suite::Route;

cases! { Probe:
    "load/1" Must [53] "a client that reads a long response slowly gets all of it" slow_reader;
    "load/2" Robust [53] "a client that does not read a long response holds up no other connection" no_reader;
    "load/3" Must [53] "a web server that sends a request with pauses is answered" slow_writer;
    "load/4" Robust [31] "clients that leave in the middle of a long response hold up nobody" leavers_in_response;
    "load/5" Must [53] "16 connections at a time are served" connections;
    "load/6" Must [53 6] "a long body and a long response at the same time do not lock each other out" both_ways;
    "load/7" Robust [31] "clients that leave while their request is worked on hold up nobody" leavers;
}

async fn slow_reader(p: &Probe) -> Outcome {
    let mut talk = p.connect().await?;
    talk.send(&p.to(Route::Large, 1)?.bytes()).await?;
    // Long enough for every buffer on the way to be full.
    pause(200).await;
    is_whole(&talk.response(1).await?)
}

async fn no_reader(p: &Probe) -> Outcome {
    let mut talk = p.connect().await?;
    talk.send(&p.to(Route::Large, 1)?.bytes()).await?;
    pause(20).await;
    p.is_served().await
}

async fn slow_writer(p: &Probe) -> Outcome {
    let ask = p.ask(1);
    let mut talk = p.connect().await?;
    for part in [ask.begin(), ask.params(), ask.stdin()] {
        let (head, tail) = part.split_at(part.len() / 2);
        talk.send(head).await?;
        pause(60).await;
        talk.send(tail).await?;
    }
    talk.is_plain(1).await
}

async fn leavers(p: &Probe) -> Outcome {
    for _ in 0..16 {
        let mut talk = p.connect().await?;
        talk.send(&p.to(Route::Slow, 1)?.bytes()).await?;
    }
    p.is_served().await
}

async fn leavers_in_response(p: &Probe) -> Outcome {
    for _ in 0..16 {
        let mut talk = p.connect().await?;
        talk.send(&p.to(Route::Large, 1)?.bytes()).await?;
        talk.read().await?;
    }
    p.is_served().await
}

async fn connections(p: &Probe) -> Outcome {
    let mut all = Vec::new();
    for _ in 0..16 {
        let mut talk = p.connect().await?;
        talk.send(&p.ask(1).closing().unfinished()).await?;
        all.push(talk);
    }
    for mut talk in all.into_iter().rev() {
        talk.send(&record(kind::STDIN, 1, &[])).await?;
        let answered = talk.is_plain(1).await;
        answered.map_err(|failure| because("each of 16 connections is answered", failure))?;
    }
    Ok(())
}

async fn both_ways(p: &Probe) -> Outcome {
    let body = super::streams::noise(1_500_000);
    let ask = p.to(Route::Echo, 1)?.body(&body);
    let mut talk = p.connect().await?;
    talk.gives(&ask.bytes(), 1, &body).await
}
