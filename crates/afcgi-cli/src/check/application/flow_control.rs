//! The extension of `docs/flow-control.md`, of applications that offer it.

use std::time::Duration;

use crate::check::case::{Failure, Outcome, cases, deviation, ensure, skip};
use crate::check::probe::{Probe, Talk};
use crate::check::raw::{abort, begin_controlled, credit, hex, kind, pairs, record};
use crate::check::suite::Route;

cases! { Probe:
    "flow/1" Must [40] "the answer to FCGI_FLOW_CONTROL is a number from 1 to 2147483647" offer;
    "flow/2" Must [40] "FCGI_FLOW_CONTROL is not answered unless it was asked for" unasked;
    "flow/3" Must [53] "a response stops when its credit is used up" stops;
    "flow/4" Must [53] "CREDIT lets it go on, to its end" goes_on;
    "flow/5" Must [53] "a request without the flag is not held back" without_flag;
    "flow/6" Must [40] "on a connection where nobody asked, the flag means nothing" without_agreement;
    "flow/7" Must [53] "a response with as much credit as it has bytes ends by itself" just_enough;
    "flow/8" Must [57] "an abort ends a response that waits for credit" abort_waiting;
    "flow/9" Must [11] "CREDIT of no request is ignored" credit_of_none;
    "flow/10" Must [53] "other requests are answered while one waits for credit" others;
    "flow/11" Must [22] "credit above 2147483647 ends that request alone" too_much_credit;
    "flow/12" Must [22] "a body beyond its credit ends that request alone" body_beyond;
    "flow/13" Must [53] "a body that is read gets more credit, to its end" long_body;
    "flow/14" Must [1] "CREDIT that comes has 8 bytes: an increment above 0, and 0" credit_body;
    "flow/15" Must [53] "a response that began with credit 0 begins when there is some" from_zero;
}

/// A connection on which flow control was agreed on, and the credit of its bodies.
async fn agreed(p: &Probe) -> Result<(Talk, u32), Failure> {
    offered(p)?;
    let mut talk = p.connect().await?;
    talk.ask_values(&["FCGI_FLOW_CONTROL"]).await?;
    let answer = talk.answer().await?;
    let found = pairs(&answer.content).unwrap_or_default();
    let value = found.iter().find(|pair| pair.0 == b"FCGI_FLOW_CONTROL");
    let number = value.and_then(|(_, value)| std::str::from_utf8(value).ok()?.parse().ok());
    // What that has to look like is said by the first case.
    number
        .map(|number| (talk, number))
        .ok_or_else(|| skip("FCGI_FLOW_CONTROL is not answered by a number"))
}

fn offered(p: &Probe) -> Outcome {
    match p.suite.value("FCGI_FLOW_CONTROL") {
        Some(_) => Ok(()),
        None => Err(skip("the application does not offer FCGI_FLOW_CONTROL")),
    }
}

async fn offer(p: &Probe) -> Outcome {
    offered(p)?;
    let value = p.suite.value("FCGI_FLOW_CONTROL").unwrap_or_default();
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    let number = value
        .parse::<u32>()
        .ok()
        .filter(|&number| digits && number > 0 && number < 1 << 31);
    ensure(
        number.is_some(),
        "a number from 1 to 2147483647",
        crate::wire::escaped(value.as_bytes()),
    )
}

async fn unasked(p: &Probe) -> Outcome {
    offered(p)?;
    let mut talk = p.connect().await?;
    talk.ask_values(&["FCGI_MAX_REQS"]).await?;
    let answer = talk.answer().await?;
    let found = pairs(&answer.content).unwrap_or_default();
    let offers = found.iter().any(|pair| pair.0 == b"FCGI_FLOW_CONTROL");
    ensure(!offers, "no FCGI_FLOW_CONTROL", "it is in the answer")
}

/// Reads until so many bytes of STDOUT of request 1 are here; then nothing more comes for a while, that is within its credit.
async fn stops_at(talk: &mut Talk, most: usize) -> Outcome {
    let count = |talk: &Talk| {
        let response = talk.open.get(&1);
        response.map_or(0, |response| response.stdout.len() + response.stderr.len())
    };
    while count(talk) < most {
        if talk.read().await?.is_none() {
            return Err(deviation(
                format!("{most} bytes"),
                "the end of the connection",
            ));
        }
    }
    if let Some(record) = talk.link.within(Duration::from_millis(100)).await {
        let more = count(talk) + record.content.len();
        let empty =
            record.content.is_empty() || !matches!(record.kind(), kind::STDOUT | kind::STDERR);
        ensure(
            empty,
            &format!("{most} bytes, as many as there is credit for"),
            format!("{more} bytes at least"),
        )?;
    }
    ensure(
        count(talk) <= most,
        &format!("{most} bytes, as many as there is credit for"),
        format!("{} bytes", count(talk)),
    )
}

async fn stops(p: &Probe) -> Outcome {
    let (mut talk, _) = agreed(p).await?;
    talk.send(&p.to(Route::Large, 1)?.controlled(5000)).await?;
    stops_at(&mut talk, 5000).await
}

async fn goes_on(p: &Probe) -> Outcome {
    let (mut talk, _) = agreed(p).await?;
    talk.send(&p.to(Route::Large, 1)?.controlled(5000)).await?;
    talk.send(&credit(1, 3000)).await?;
    talk.send(&credit(1, 1 << 30)).await?;
    super::end::is_whole(&talk.response(1).await?)
}

async fn without_flag(p: &Probe) -> Outcome {
    let (mut talk, _) = agreed(p).await?;
    talk.send(&p.to(Route::Large, 1)?.bytes()).await?;
    super::end::is_whole(&talk.response(1).await?)
}

async fn without_agreement(p: &Probe) -> Outcome {
    offered(p)?;
    let mut talk = p.connect().await?;
    talk.answers(&p.ask(1).controlled(3), 1).await
}

async fn just_enough(p: &Probe) -> Outcome {
    let length = p.suite.baseline.stdout.as_ref().map(Vec::len);
    let length = length.ok_or_else(|| skip("the plain response is not the same each time"))?;
    let (mut talk, _) = agreed(p).await?;
    talk.answers(&p.ask(1).controlled(length as u32), 1).await
}

async fn abort_waiting(p: &Probe) -> Outcome {
    let (mut talk, _) = agreed(p).await?;
    talk.send(&p.to(Route::Large, 1)?.controlled(100)).await?;
    while talk
        .open
        .get(&1)
        .is_none_or(|response| response.stdout.len() < 100)
    {
        if talk.read().await?.is_none() {
            return Err(deviation("100 bytes", "the end of the connection"));
        }
    }
    talk.send(&abort(1)).await?;
    talk.response(1).await?;
    talk.goes_on().await
}

async fn credit_of_none(p: &Probe) -> Outcome {
    let (mut talk, _) = agreed(p).await?;
    talk.answers(&[credit(9, 100), p.ask(1).controlled(1 << 20)].concat(), 1)
        .await?;
    talk.send(&credit(1, 100)).await?;
    talk.goes_on().await?;
    talk.nothing_for(9, "nothing for no request")
}

async fn others(p: &Probe) -> Outcome {
    let (mut talk, _) = agreed(p).await?;
    talk.send(&p.to(Route::Large, 1)?.controlled(100)).await?;
    talk.answers(&p.ask(2).controlled(1 << 20), 2).await
}

async fn too_much_credit(p: &Probe) -> Outcome {
    let (mut talk, _) = agreed(p).await?;
    let ask = p.to(Route::Slow, 1)?.controlled(1 << 30);
    talk.send(&[ask, credit(1, (1 << 31) - 1)].concat()).await?;
    talk.response(1).await?;
    talk.goes_on().await
}

async fn body_beyond(p: &Probe) -> Outcome {
    let (mut talk, window) = agreed(p).await?;
    if window > 8 << 20 {
        return Err(skip(format!(
            "the credit of a body is {window}, more than this case sends"
        )));
    }
    let ask = p
        .to(Route::Slow, 1)?
        .param(b"REQUEST_METHOD", b"POST")
        .param(b"CONTENT_LENGTH", b"16777216");
    let bytes = [begin_controlled(1, 1 << 20), ask.params()].concat();
    let body = vec![b'x'; window as usize + 1];
    let body: Vec<u8> = body
        .chunks(32_000)
        .flat_map(|part| record(kind::STDIN, 1, part))
        .collect();
    talk.send(&[bytes, body].concat()).await?;
    talk.response(1).await?;
    talk.goes_on().await
}

/// Sends a body under credit, taking what the application grants; the records that granted it.
async fn under_credit(
    talk: &mut Talk,
    bytes: &[u8],
    body: &[u8],
    window: u32,
) -> Result<Vec<crate::check::raw::Record>, Failure> {
    let (mut rest, mut left, mut granted) = (body, window as usize, Vec::new());
    talk.send(bytes).await?;
    while !rest.is_empty() {
        let now = left.min(rest.len()).min(16_000);
        talk.send(&record(kind::STDIN, 1, &rest[..now])).await?;
        rest = &rest[now..];
        left -= now;
        while left == 0 && !rest.is_empty() {
            let Some(record) = talk.read().await? else {
                return Err(deviation(
                    "CREDIT for the rest of the body",
                    "the end of the connection",
                ));
            };
            if let (kind::CREDIT, 1, Some(more)) =
                (record.kind(), record.id(), record.content.first_chunk())
            {
                left += u32::from_be_bytes(*more) as usize;
                granted.push(record);
            }
        }
    }
    talk.send(&record(kind::STDIN, 1, &[])).await?;
    Ok(granted)
}

async fn long_body(p: &Probe) -> Outcome {
    let (mut talk, window) = agreed(p).await?;
    let body = super::streams::noise((window as usize).min(4 << 20) * 2 + 1000);
    let ask = p.to(Route::Echo, 1)?.body(&body);
    let bytes = [begin_controlled(1, 1 << 30), ask.params()].concat();
    under_credit(&mut talk, &bytes, &body, window).await?;
    talk.is_body(1, &body).await
}

async fn credit_body(p: &Probe) -> Outcome {
    let (mut talk, window) = agreed(p).await?;
    let body = super::streams::noise((window as usize).min(4 << 20) + 1000);
    let ask = p.to(Route::Echo, 1)?.body(&body);
    let bytes = [begin_controlled(1, 1 << 30), ask.params()].concat();
    for record in under_credit(&mut talk, &bytes, &body, window).await? {
        let content = &record.content;
        let right = content.len() == 8 && content[..4] != [0; 4] && content[4..] == [0; 4];
        ensure(
            right,
            "4 bytes with a number above 0, and 4 that are 0",
            hex(content),
        )?;
    }
    Ok(())
}

async fn from_zero(p: &Probe) -> Outcome {
    let (mut talk, _) = agreed(p).await?;
    talk.send(&p.ask(1).controlled(0)).await?;
    talk.answers(&credit(1, 1 << 20), 1).await
}
