//! Peers that mean no good, or are broken: lengths, garbage and floods. Whoever sends such is refused, closed or ignored;
//! everybody else is served.

use crate::check::application::streams::noise;
use crate::check::case::{Outcome, cases, ensure};
use crate::check::probe::{Probe, pause};
use crate::check::raw::{begin, kind, record, stream};

cases! { Probe:
    "hostile/1" Robust [22] "a value of 2 GiB that was only announced" value_length;
    "hostile/2" Robust [22] "a name of 2 GiB that was only announced" name_length;
    "hostile/3" Robust [22] "lengths whose sum is more than 32 bits" sum_of_lengths;
    "hostile/4" Robust [22] "PARAMS that end inside a pair" cut_pair;
    "hostile/5" Robust [22] "PARAMS that end inside a length" cut_length;
    "hostile/6" Robust [22] "PARAMS that end behind the length of a name" no_value_length;
    "hostile/7" Robust [7] "STDOUT from a web server" stdout;
    "hostile/8" Robust [7] "END_REQUEST from a web server" end_request;
    "hostile/9" Robust [4 31] "half a header, and the end of the connection" half_a_header;
    "hostile/10" Robust [4 31] "half of a record's content, and the end of the connection" half_a_record;
    "hostile/11" Robust [2] "10,000 bytes of noise" random;
    "hostile/12" Robust [3] "65,535 bytes announced and never sent do not hold up others" announced;
    "hostile/13" Robust [13] "2,000 requests that are begun and go no further" begun;
    "hostile/14" Robust [11] "5,000 records of no request" for_nobody;
    "hostile/15" Robust [42] "2,000 management records of unknown types" unknown;
    "hostile/16" Robust [31] "20 connections that are open and say nothing" silent;
    "hostile/17" Robust [31] "20 connections that stop inside BEGIN_REQUEST" stopped;
    "hostile/18" Robust [6] "1,000 empty PARAMS records behind the end of PARAMS" empty_records;
}

/// Bad PARAMS: the request is ended or the connection closed, soon; and others are served.
async fn bad_params(p: &Probe, content: &[u8]) -> Outcome {
    let mut talk = p.connect().await?;
    let bytes = [
        begin(1, 1, 1),
        stream(kind::PARAMS, 1, content, 1000),
        record(kind::STDIN, 1, &[]),
    ];
    talk.send(&bytes.concat()).await?;
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

async fn value_length(p: &Probe) -> Outcome {
    bad_params(p, b"\x04\xff\xff\xff\xffNAMEvalue").await
}

async fn name_length(p: &Probe) -> Outcome {
    bad_params(p, b"\xff\xff\xff\xff\x05NAMEvalue").await
}

async fn sum_of_lengths(p: &Probe) -> Outcome {
    bad_params(p, b"\xff\xff\xff\xff\xff\xff\xff\xffNAMEvalue").await
}

async fn cut_pair(p: &Probe) -> Outcome {
    bad_params(p, b"\x04\x10NAMEvalue").await
}

async fn cut_length(p: &Probe) -> Outcome {
    bad_params(p, b"\x80\x00").await
}

async fn no_value_length(p: &Probe) -> Outcome {
    bad_params(p, b"\x04").await
}

/// A record that a web server does not send, within a request.
async fn of_the_wrong_side(p: &Probe, code: u8) -> Outcome {
    let ask = p.ask(1);
    let mut talk = p.connect().await?;
    talk.send(
        &[
            ask.begin(),
            record(code, 1, &[0; 8]),
            ask.params(),
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

async fn stdout(p: &Probe) -> Outcome {
    of_the_wrong_side(p, kind::STDOUT).await
}

async fn end_request(p: &Probe) -> Outcome {
    of_the_wrong_side(p, kind::END_REQUEST).await
}

/// The beginning of a connection, and its end: the application closes as well, and serves others.
async fn broken_off(p: &Probe, bytes: &[u8]) -> Outcome {
    let mut talk = p.connect().await?;
    talk.send(bytes).await?;
    talk.link.finish().await;
    talk.closes().await?;
    drop(talk);
    p.is_served().await
}

async fn half_a_header(p: &Probe) -> Outcome {
    broken_off(p, &begin(1, 1, 1)[..5]).await
}

async fn half_a_record(p: &Probe) -> Outcome {
    broken_off(p, &begin(1, 1, 1)[..12]).await
}

async fn random(p: &Probe) -> Outcome {
    let mut bytes = noise(10_000);
    bytes[0] = 0xa7;
    let mut talk = p.connect().await?;
    talk.send(&bytes).await?;
    talk.link.finish().await;
    talk.closes().await?;
    drop(talk);
    p.is_served().await
}

async fn announced(p: &Probe) -> Outcome {
    let mut held = p.connect().await?;
    held.send(
        &[
            begin(1, 1, 1),
            vec![1, kind::PARAMS, 0, 1, 0xff, 0xff, 0, 0],
        ]
        .concat(),
    )
    .await?;
    pause(10).await;
    p.is_served().await
}

async fn begun(p: &Probe) -> Outcome {
    let mut talk = p.connect().await?;
    let all: Vec<u8> = (1..=2000).flat_map(|id| begin(id, 1, 1)).collect();
    talk.send(&all).await?;
    pause(20).await;
    drop(talk);
    p.is_served().await
}

async fn for_nobody(p: &Probe) -> Outcome {
    let mut talk = p.connect().await?;
    talk.send(&record(kind::STDIN, 60_000, b"nobody's").repeat(5000))
        .await?;
    talk.closes_or_goes_on().await?;
    drop(talk);
    p.is_served().await
}

async fn unknown(p: &Probe) -> Outcome {
    let mut talk = p.connect().await?;
    let all: Vec<u8> = (0..2000)
        .flat_map(|n| record(100 + (n % 100) as u8, 0, b"what?"))
        .collect();
    talk.send(&all).await?;
    talk.closes_or_goes_on().await?;
    drop(talk);
    p.is_served().await
}

async fn held(p: &Probe, bytes: &[u8]) -> Outcome {
    let mut all = Vec::new();
    for _ in 0..20 {
        let mut talk = p.connect().await?;
        talk.send(bytes).await?;
        all.push(talk);
    }
    p.is_served().await
}

async fn silent(p: &Probe) -> Outcome {
    held(p, &[]).await
}

async fn stopped(p: &Probe) -> Outcome {
    held(p, &begin(1, 1, 1)[..9]).await
}

async fn empty_records(p: &Probe) -> Outcome {
    let ask = p.ask(1);
    let mut talk = p.connect().await?;
    let empty = record(kind::PARAMS, 1, &[]).repeat(1000);
    talk.send(&[ask.begin(), ask.params(), empty, ask.stdin()].concat())
        .await?;
    _ = talk.response(1).await;
    talk.closes_or_goes_on().await?;
    drop(talk);
    p.is_served().await
}
