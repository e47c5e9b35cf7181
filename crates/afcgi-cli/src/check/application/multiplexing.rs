//! Several requests on a connection: what an application must do that says it takes them, and what one that
//! does not.

use crate::check::case::{Outcome, cases, deviation, ensure, skip};
use crate::check::probe::{Probe, because};
use crate::check::raw::{abort, begin, kind, pair, record};
use crate::check::suite::Route;

cases! { Probe:
    "mpx/1" Must [40 51] "a second request beside the first is answered, or refused if FCGI_MPXS_CONNS is not 1" second;
    "mpx/2" Must [10] "PARAMS of two requests in turns are kept apart" params_in_turns;
    "mpx/3" Must [10] "bodies of two requests in turns are kept apart" bodies_in_turns;
    "mpx/4" Must [13] "20 requests at a time are all answered" twenty;
    "mpx/5" Must [53] "a request is answered while another waits for its body" beside_a_body;
    "mpx/6" Must [53] "a request is answered while another is being worked on" beside_a_slow_one;
    "mpx/7" Should [53] "a short response is not held up by a long one in front of it" beside_a_long_one;
    "mpx/8" Must [22] "a request with bad PARAMS ends alone" beside_a_bad_one;
    "mpx/9" Must [56] "a request of an unknown role is refused alone" beside_a_refused_one;
    "mpx/10" Must [57] "a request that is being worked on is aborted alone" beside_an_aborted_one;
    "mpx/11" Should [51 40] "more than FCGI_MAX_REQS requests: the rest is refused with OVERLOADED" overloaded;
    "mpx/12" Must [10] "responses come with the ids of their requests" own_ids;
}

async fn second(p: &Probe) -> Outcome {
    let (first, other) = (p.ask(1), p.ask(2));
    let mut talk = p.connect().await?;
    talk.send(&[first.begin(), other.bytes()].concat()).await?;
    talk.send(&[first.params(), first.stdin()].concat()).await?;
    if p.suite.multiplexes() == Some(true) {
        talk.is_plain(2).await?;
        return talk.is_plain(1).await;
    }
    // Refused, answered all the same, or the connection is closed: nothing that leaves a web server waiting.
    match talk.response(2).await {
        Ok(response) => {
            let status = response.protocol_status();
            let right =
                matches!(status, Some(0 | 1)) && (status == Some(1) || !response.stdout.is_empty());
            ensure(
                right,
                "a response, or END_REQUEST with CANT_MPX_CONN (1)",
                format!("protocolStatus {status:?} without a response"),
            )
        }
        Err(failure) => match talk.link.has_ended() {
            true => Ok(()),
            false => Err(because("request 2 is refused with CANT_MPX_CONN", failure)),
        },
    }
}

async fn params_in_turns(p: &Probe) -> Outcome {
    p.multiplexes()?;
    let (first, other) = (p.ask(1), p.ask(2).param(b"HTTP_X_OTHER", b"yes"));
    let mut bytes = [first.begin(), other.begin()].concat();
    let (a, b) = (first.pairs(), other.pairs());
    let (mut a, mut b) = (a.chunks(60), b.chunks(60));
    loop {
        let (x, y) = (a.next(), b.next());
        for (id, part) in [(1, x), (2, y)] {
            bytes.extend(
                part.map(|part| record(kind::PARAMS, id, part))
                    .unwrap_or_default(),
            );
        }
        if x.is_none() && y.is_none() {
            break;
        }
    }
    for id in [1, 2] {
        bytes.extend([record(kind::PARAMS, id, &[]), record(kind::STDIN, id, &[])].concat());
    }
    let mut talk = p.connect().await?;
    talk.answers(&bytes, 1).await?;
    talk.is_plain(2).await
}

async fn bodies_in_turns(p: &Probe) -> Outcome {
    p.multiplexes()?;
    let (one, two) = (vec![b'1'; 900], vec![b'2'; 900]);
    let (first, other) = (
        p.to(Route::Echo, 1)?.body(&one),
        p.to(Route::Echo, 2)?.body(&two),
    );
    let mut bytes = [first.begin(), other.begin(), first.params(), other.params()].concat();
    for (a, b) in one.chunks(90).zip(two.chunks(90)) {
        bytes.extend([record(kind::STDIN, 1, a), record(kind::STDIN, 2, b)].concat());
    }
    bytes.extend([other.end(), first.end()].concat());
    let mut talk = p.connect().await?;
    talk.gives(&bytes, 1, &one).await?;
    talk.is_body(2, &two).await
}

async fn twenty(p: &Probe) -> Outcome {
    p.multiplexes()?;
    let asks: Vec<_> = (1..=20).map(|id| p.ask(id)).collect();
    let mut talk = p.connect().await?;
    for ask in &asks {
        talk.send(&ask.unfinished()).await?;
    }
    for ask in asks.iter().rev() {
        talk.send(&ask.end()).await?;
    }
    for ask in &asks {
        talk.is_plain(ask.id).await?;
    }
    Ok(())
}

async fn beside_a_body(p: &Probe) -> Outcome {
    p.multiplexes()?;
    let waits = p.to(Route::Echo, 1)?.body(b"half of it");
    let mut talk = p.connect().await?;
    talk.send(&waits.unfinished()).await?;
    talk.answers(&p.ask(2).bytes(), 2).await?;
    talk.gives(&waits.end(), 1, b"half of it").await
}

async fn beside_a_slow_one(p: &Probe) -> Outcome {
    p.multiplexes()?;
    let mut talk = p.connect().await?;
    talk.send(&p.to(Route::Slow, 1)?.bytes()).await?;
    talk.answers(&p.ask(2).bytes(), 2).await?;
    let over = talk
        .open
        .get(&1)
        .is_some_and(|response| response.end.is_some());
    ensure(
        !over,
        "response 2 while request 1 is worked on",
        "response 1 was over before; --slow has to take longer",
    )
}

async fn beside_a_long_one(p: &Probe) -> Outcome {
    p.multiplexes()?;
    let mut talk = p.connect().await?;
    talk.send(&p.to(Route::Large, 1)?.bytes()).await?;
    // It has begun, and more of it is on the way.
    talk.read().await?;
    talk.answers(&p.ask(2).bytes(), 2).await?;
    let (ended, length) = match talk.open.get(&1) {
        Some(response) => (response.end.is_some(), response.stdout.len()),
        None => (false, 0),
    };
    // What sockets hold by themselves comes first, whatever the application does.
    let came = format!(
        "all {length} bytes of response 1 came before it; --large has to be longer than what sockets hold, about 8 MB"
    );
    ensure(!ended, "response 2 before the end of response 1", came)
}

async fn beside_a_bad_one(p: &Probe) -> Outcome {
    p.multiplexes()?;
    let other = p.ask(2);
    let mut bad = pair(b"NAME", b"value");
    bad.truncate(7);
    let bytes = [
        other.begin(),
        begin(1, 1, 1),
        record(kind::PARAMS, 1, &bad),
        record(kind::PARAMS, 1, &[]),
        record(kind::STDIN, 1, &[]),
    ];
    let mut talk = p.connect().await?;
    talk.send(&bytes.concat()).await?;
    talk.response(1).await?;
    talk.answers(&[other.params(), other.stdin()].concat(), 2)
        .await
}

async fn beside_a_refused_one(p: &Probe) -> Outcome {
    p.multiplexes()?;
    let other = p.ask(2);
    let mut talk = p.connect().await?;
    talk.send(&[other.begin(), p.ask(1).role(12).begin()].concat())
        .await?;
    talk.response(1).await?;
    talk.answers(&[other.params(), other.stdin()].concat(), 2)
        .await
}

async fn beside_an_aborted_one(p: &Probe) -> Outcome {
    p.multiplexes()?;
    let waits = p.ask(2);
    let mut talk = p.connect().await?;
    talk.send(&[waits.begin(), p.to(Route::Slow, 1)?.bytes(), abort(1)].concat())
        .await?;
    talk.response(1).await?;
    talk.answers(&[waits.params(), waits.stdin()].concat(), 2)
        .await
}

/// Requests that this case begins at most.
const MOST: u16 = 20_000;

async fn overloaded(p: &Probe) -> Outcome {
    p.multiplexes()?;
    let most = p
        .suite
        .value("FCGI_MAX_REQS")
        .and_then(|value| value.parse::<u32>().ok());
    let most = most.ok_or_else(|| skip("the application does not say FCGI_MAX_REQS"))?;
    let count = u16::try_from(most).ok().filter(|&count| count < MOST);
    let count = count.ok_or_else(|| {
        skip(format!(
            "FCGI_MAX_REQS is {most}, more than this case begins"
        ))
    })?;
    let mut talk = p.connect().await?;
    for id in 1..=count + 1 {
        talk.send(&begin(id, 1, 1)).await?;
    }
    let refused = talk.response(count + 1).await?;
    let status = refused.protocol_status();
    ensure(
        status == Some(2),
        "OVERLOADED (2)",
        format!("protocolStatus {status:?}"),
    )
}

async fn own_ids(p: &Probe) -> Outcome {
    p.multiplexes()?;
    let mut talk = p.connect().await?;
    let all: Vec<u8> = [300, 44, 12]
        .iter()
        .flat_map(|&id| p.ask(id).bytes())
        .collect();
    talk.send(&all).await?;
    for id in [12, 300, 44] {
        talk.is_plain(id).await?;
    }
    match talk.open.keys().next() {
        Some(id) => Err(deviation(
            "records of requests 12, 44 and 300",
            format!("records of request {id}"),
        )),
        None => Ok(()),
    }
}
