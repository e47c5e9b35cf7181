//! Records [3.3]: the header, padding, and that no boundary has a meaning.

use crate::check::case::{Failure, Outcome, cases, deviation, ensure};
use crate::check::probe::{Probe, pause};
use crate::check::raw::{self, hex, kind, padded, record};

cases! { Probe:
    "3.3/1" Must [4 6] "a request that comes byte by byte is answered as in one piece" byte_by_byte;
    "3.3/2" Must [4 6] "a request cut in two at any byte is answered as in one piece" every_split;
    "3.3/3" Must [4] "a management record and a request in one piece are both answered" in_one_piece;
    "3.3/4" Must [3] "padding of BEGIN_REQUEST is skipped" padded_begin;
    "3.3/5" Must [3] "padding of PARAMS is skipped" padded_params;
    "3.3/6" Must [3] "padding of the empty STDIN record is skipped, and the connection goes on" padded_end;
    "3.3/7" Must [3] "padding of GET_VALUES is skipped" padded_values;
    "3.3/8" Must [3] "padding may hold anything, also what looks like a record" padding_like_a_record;
    "3.3/9" Must [3] "padding may be 255 bytes" most_padding;
    "3.3/10" Should [1] "the reserved byte of a header is ignored" reserved_byte;
    "3.3/11" Must [1] "a connection carries whole records to its end" whole_records;
    "3.3/12" Should [1] "the reserved byte of each header that comes is 0" reserved_byte_sent;
    "3.3/13" Must [5 7] "all that comes for a request is STDOUT, STDERR and END_REQUEST with its id" own_records;
    "3.3/14" Robust [2] "a record of version 2 is not answered, and the connection is closed" version_2;
    "3.3/15" Robust [2] "a record of version 0 is not answered, and the connection is closed" version_0;
    "3.3/16" Robust [2] "HTTP is not answered, and the connection is closed" http;
    "3.3/17" Robust [2] "TLS is not answered, and the connection is closed" tls;
    "3.3/18" Robust [2] "a wrong version in the middle of a request closes the connection" version_later;
    "3.3/19" Must [7] "a record of an unknown type for a request is ignored" unknown_type;
    "3.3/20" Must [6] "a record may have 65,535 bytes of content" longest;
}

async fn byte_by_byte(p: &Probe) -> Outcome {
    let mut talk = p.connect().await?;
    talk.dribble(&p.ask(1).bytes()).await?;
    talk.is_plain(1).await
}

/// A few connections at a time, so that this does not take long; each is used again as long as it is kept.
async fn every_split(p: &Probe) -> Outcome {
    let length = p.ask(1).bytes().len();
    let lane = async |first: usize| {
        let mut open = None;
        for at in (first..length).step_by(4) {
            let mut talk = match open.take() {
                Some(talk) => talk,
                None => p.connect().await?,
            };
            let id = at as u16;
            let (head, tail) = p
                .ask(id)
                .bytes()
                .split_at_checked(at)
                .map(|(a, b)| (a.to_vec(), b.to_vec()))
                .unwrap_or_default();
            talk.send(&head).await?;
            // So that it is read by itself.
            pause(1).await;
            let answered = talk.answers(&tail, id).await;
            answered.map_err(|failure| match failure {
                Failure::Deviation { expected, came } => {
                    deviation(format!("{expected}, cut behind byte {at}"), came)
                }
                skip => skip,
            })?;
            open = p.suite.keeps.then_some(talk);
        }
        Ok(())
    };
    tokio::try_join!(lane(1), lane(2), lane(3), lane(4)).map(|_| ())
}

async fn in_one_piece(p: &Probe) -> Outcome {
    p.tells()?;
    let mut talk = p.connect().await?;
    let question = raw::get_values(&["FCGI_MPXS_CONNS"]);
    talk.answers(&[question, p.ask(1).bytes()].concat(), 1)
        .await?;
    talk.answer().await.map(drop)
}

async fn padded_begin(p: &Probe) -> Outcome {
    let ask = p.ask(1);
    let begin = padded(
        kind::BEGIN_REQUEST,
        1,
        &[0, 1, ask.flags, 0, 0, 0, 0, 0],
        &[0; 7],
    );
    let mut talk = p.connect().await?;
    talk.answers(&[begin, ask.params(), ask.stdin()].concat(), 1)
        .await
}

async fn padded_params(p: &Probe) -> Outcome {
    let ask = p.ask(1);
    let params = [
        padded(kind::PARAMS, 1, &ask.pairs(), &[0; 5]),
        record(kind::PARAMS, 1, &[]),
    ];
    let mut talk = p.connect().await?;
    talk.answers(&ask.with_params(&params.concat()), 1).await
}

async fn padded_end(p: &Probe) -> Outcome {
    let mut talk = p.connect().await?;
    let end = padded(kind::STDIN, 1, &[], &[0; 8]);
    talk.answers(&[p.ask(1).unfinished(), end].concat(), 1)
        .await?;
    talk.goes_on().await
}

async fn padded_values(p: &Probe) -> Outcome {
    p.tells()?;
    let mut talk = p.connect().await?;
    let question = padded(
        kind::GET_VALUES,
        0,
        &raw::pair(b"FCGI_MPXS_CONNS", b""),
        &[0; 3],
    );
    talk.send(&question).await?;
    talk.answer().await?;
    talk.goes_on().await
}

async fn padding_like_a_record(p: &Probe) -> Outcome {
    let ask = p.ask(1);
    let params = [
        padded(kind::PARAMS, 1, &ask.pairs(), &raw::abort(1)),
        record(kind::PARAMS, 1, &[]),
    ];
    let mut talk = p.connect().await?;
    talk.answers(&ask.with_params(&params.concat()), 1).await
}

async fn most_padding(p: &Probe) -> Outcome {
    let ask = p.ask(1);
    let params = [
        padded(kind::PARAMS, 1, &ask.pairs(), &[0; 255]),
        padded(kind::PARAMS, 1, &[], &[0; 255]),
    ];
    let mut talk = p.connect().await?;
    talk.answers(&ask.with_params(&params.concat()), 1).await
}

async fn reserved_byte(p: &Probe) -> Outcome {
    let ask = p.ask(1);
    let mut begin = ask.begin();
    begin[7] = 0x55;
    let mut talk = p.connect().await?;
    talk.answers(&[begin, ask.params(), ask.stdin()].concat(), 1)
        .await
}

async fn whole_records(p: &Probe) -> Outcome {
    let mut talk = p.connect().await?;
    talk.send(&p.ask(1).closing().bytes()).await?;
    talk.response(1).await?;
    talk.link.finish().await;
    while talk.read().await?.is_some() {}
    Ok(())
}

async fn reserved_byte_sent(p: &Probe) -> Outcome {
    let mut talk = p.connect().await?;
    talk.send(&p.ask(1).bytes()).await?;
    loop {
        let Some(record) = talk.read().await? else {
            return Ok(());
        };
        ensure(
            record.header[7] == 0,
            "0 in the last byte of the header",
            hex(&record.header),
        )?;
        if record.kind() == kind::END_REQUEST {
            return Ok(());
        }
    }
}

async fn own_records(p: &Probe) -> Outcome {
    let mut talk = p.connect().await?;
    talk.send(&p.ask(77).bytes()).await?;
    talk.response(77).await?;
    let expected = "STDOUT, STDERR and END_REQUEST of request 77 alone";
    let stray = talk.odd.first().or(talk.management.front());
    ensure(
        stray.is_none(),
        expected,
        stray.map_or_else(String::new, |record| hex(&record.header)),
    )?;
    match talk.open.keys().next() {
        Some(&id) => talk.nothing_for(id, expected),
        None => Ok(()),
    }
}

/// Closed, and before that neither STDOUT nor anything else.
async fn is_closed_without_a_word(p: &Probe, bytes: &[u8]) -> Outcome {
    let mut talk = p.connect().await?;
    talk.send(bytes).await?;
    match talk.link.next().await? {
        None => Ok(()),
        Some(record) => Err(deviation(
            "the end of the connection, without an answer",
            hex(&record.header),
        )),
    }
}

async fn version_2(p: &Probe) -> Outcome {
    let mut bytes = p.ask(1).bytes();
    bytes[0] = 2;
    is_closed_without_a_word(p, &bytes).await
}

async fn version_0(p: &Probe) -> Outcome {
    let mut bytes = p.ask(1).bytes();
    bytes[0] = 0;
    is_closed_without_a_word(p, &bytes).await
}

async fn http(p: &Probe) -> Outcome {
    is_closed_without_a_word(
        p,
        b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    )
    .await
}

async fn tls(p: &Probe) -> Outcome {
    let mut hello = vec![0x16, 3, 1, 0, 0x40, 1, 0, 0, 0x3c, 3, 3];
    hello.resize(69, 0xa5);
    is_closed_without_a_word(p, &hello).await
}

async fn version_later(p: &Probe) -> Outcome {
    let ask = p.ask(1);
    let mut params = ask.params();
    params[0] = 9;
    is_closed_without_a_word(p, &ask.with_params(&params)).await
}

async fn unknown_type(p: &Probe) -> Outcome {
    let ask = p.ask(1);
    let unknown = record(99, 1, b"of a later version");
    let mut talk = p.connect().await?;
    talk.answers(
        &[ask.begin(), unknown, ask.params(), ask.stdin()].concat(),
        1,
    )
    .await
}

async fn longest(p: &Probe) -> Outcome {
    let ask = p.ask(1);
    let mut pairs = ask.pairs();
    // Two lengths and the name are before the value.
    let room = raw::MOST - pairs.len() - 5 - 6;
    pairs.extend(raw::pair(b"FILLER", &vec![b'x'; room]));
    let params = [
        record(kind::PARAMS, 1, &pairs),
        record(kind::PARAMS, 1, &[]),
    ];
    let mut talk = p.connect().await?;
    talk.answers(&ask.with_params(&params.concat()), 1).await
}
