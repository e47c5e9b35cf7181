//! Management records [4]: GET_VALUES and UNKNOWN_TYPE.

use crate::check::case::{Failure, Outcome, cases, deviation, ensure};
use crate::check::probe::{Probe, Talk};
use crate::check::raw::{self, get_values, hex, kind, pair, pairs, record};

cases! { Probe:
    "4/1" Must [40] "GET_VALUES is answered by GET_VALUES_RESULT with id 0" answered;
    "4/2" Must [40] "the answer has only names that were asked for" only_asked;
    "4/3" Must [40] "a name that no application knows is left out" unknown_name;
    "4/4" Should [40] "a question without names is answered" no_name;
    "4/5" Must [40] "values are numbers, and FCGI_MPXS_CONNS is 0 or 1" numbers;
    "4/6" Must [41] "GET_VALUES is answered in the middle of a request" during;
    "4/7" Must [40] "a question has one answer" one_answer;
    "4/8" Must [41] "the connection goes on after GET_VALUES" goes_on;
    "4/9" Must [41] "GET_VALUES is answered between requests, too" between;
    "4/10" Must [42] "a management record of an unknown type is answered by UNKNOWN_TYPE with that type" unknown;
    "4/11" Must [42] "UNKNOWN_TYPE has 8 bytes of content, the last 7 of which are 0" unknown_body;
    "4/12" Must [42] "the connection goes on after UNKNOWN_TYPE" unknown_goes_on;
    "4/13" Must [42 3] "the content of a record of an unknown type is skipped" unknown_content;
    "4/14" Robust [40] "names that come with values are answered all the same" with_values;
    "4/15" Robust [40 22] "GET_VALUES that holds no pairs harms nobody" garbage;
    "4/16" Robust [41] "500 questions in one go are all answered" flood;
    "4/17" Should [40] "GET_VALUES of 65,535 bytes is answered" longest;
}

/// Asks, and the pairs of the answer.
async fn asked(talk: &mut Talk, question: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>, Failure> {
    talk.send(question).await?;
    let answer = talk.answer().await?;
    let found = pairs(&answer.content).filter(|_| answer.kind() == kind::GET_VALUES_RESULT);
    found.ok_or_else(|| deviation("GET_VALUES_RESULT with whole pairs", hex(&answer.content)))
}

fn shown(pairs: &[(Vec<u8>, Vec<u8>)]) -> String {
    let all: Vec<String> = pairs
        .iter()
        .take(6)
        .map(|(name, value)| {
            format!(
                "{}={}",
                crate::wire::escaped(name),
                crate::wire::escaped(value)
            )
        })
        .collect();
    match all.is_empty() {
        true => String::from("no pairs"),
        false => all.join(", "),
    }
}

async fn answered(p: &Probe) -> Outcome {
    let mut talk = p.connect().await?;
    talk.send(&get_values(&[
        "FCGI_MAX_CONNS",
        "FCGI_MAX_REQS",
        "FCGI_MPXS_CONNS",
    ]))
    .await?;
    let answer = talk.answer().await?;
    let right = answer.kind() == kind::GET_VALUES_RESULT && answer.id() == 0;
    ensure(right, "GET_VALUES_RESULT with id 0", hex(&answer.header))
}

async fn only_asked(p: &Probe) -> Outcome {
    p.tells()?;
    let mut talk = p.connect().await?;
    let found = asked(&mut talk, &get_values(&["FCGI_MPXS_CONNS"])).await?;
    let others = found.iter().any(|(name, _)| name != b"FCGI_MPXS_CONNS");
    ensure(!others, "FCGI_MPXS_CONNS alone, or nothing", shown(&found))
}

async fn unknown_name(p: &Probe) -> Outcome {
    p.tells()?;
    let mut talk = p.connect().await?;
    let found = asked(&mut talk, &get_values(&["AFCGI_CHECK_NO_SUCH_NAME"])).await?;
    ensure(found.is_empty(), "no pairs", shown(&found))
}

async fn no_name(p: &Probe) -> Outcome {
    p.tells()?;
    let mut talk = p.connect().await?;
    asked(&mut talk, &get_values(&[])).await.map(drop)
}

async fn numbers(p: &Probe) -> Outcome {
    p.tells()?;
    let mut talk = p.connect().await?;
    let found = asked(
        &mut talk,
        &get_values(&["FCGI_MAX_CONNS", "FCGI_MAX_REQS", "FCGI_MPXS_CONNS"]),
    )
    .await?;
    for (name, value) in &found {
        let number = std::str::from_utf8(value)
            .ok()
            .and_then(|text| text.parse::<u64>().ok());
        let right = match name.as_slice() {
            b"FCGI_MPXS_CONNS" => number.is_some_and(|number| number < 2),
            _ => number.is_some(),
        };
        ensure(
            right,
            "decimal numbers, and 0 or 1 for FCGI_MPXS_CONNS",
            shown(&found),
        )?;
    }
    Ok(())
}

async fn during(p: &Probe) -> Outcome {
    p.tells()?;
    let ask = p.ask(1);
    let mut talk = p.connect().await?;
    talk.send(&ask.begin()).await?;
    asked(&mut talk, &get_values(&["FCGI_MPXS_CONNS"])).await?;
    talk.answers(&[ask.params(), ask.stdin()].concat(), 1).await
}

async fn one_answer(p: &Probe) -> Outcome {
    p.tells()?;
    p.keeps()?;
    let mut talk = p.connect().await?;
    talk.ask_values(&["FCGI_MPXS_CONNS"]).await?;
    talk.answer().await?;
    talk.send(&p.ask(1).bytes()).await?;
    talk.response(1).await?;
    let second = talk.management.front();
    ensure(
        second.is_none(),
        "one answer",
        second.map_or_else(String::new, |record| {
            format!("a second one: {}", hex(&record.header))
        }),
    )
}

async fn goes_on(p: &Probe) -> Outcome {
    p.tells()?;
    let mut talk = p.connect().await?;
    asked(&mut talk, &get_values(&["FCGI_MPXS_CONNS"])).await?;
    talk.goes_on().await
}

async fn between(p: &Probe) -> Outcome {
    p.tells()?;
    p.keeps()?;
    let mut talk = p.connect().await?;
    talk.answers(&p.ask(1).bytes(), 1).await?;
    asked(&mut talk, &get_values(&["FCGI_MPXS_CONNS"]))
        .await
        .map(drop)
}

async fn unknown(p: &Probe) -> Outcome {
    let mut talk = p.connect().await?;
    talk.send(&record(200, 0, &[])).await?;
    let answer = talk.answer().await?;
    let right = answer.kind() == kind::UNKNOWN_TYPE
        && answer.id() == 0
        && answer.content.first() == Some(&200);
    ensure(
        right,
        "UNKNOWN_TYPE of type 200, with id 0",
        hex(&[&answer.header[..], &answer.content].concat()),
    )
}

async fn unknown_body(p: &Probe) -> Outcome {
    let mut talk = p.connect().await?;
    talk.send(&record(201, 0, &[])).await?;
    let content = talk.answer().await?.content;
    let right = content.len() == 8 && content[1..] == [0; 7];
    ensure(right, "8 bytes, 7 of them 0", hex(&content))
}

async fn unknown_goes_on(p: &Probe) -> Outcome {
    let mut talk = p.connect().await?;
    talk.send(&record(202, 0, &[])).await?;
    talk.goes_on().await
}

async fn unknown_content(p: &Probe) -> Outcome {
    let mut talk = p.connect().await?;
    let like_a_record = raw::abort(1);
    talk.send(&raw::padded(203, 0, &like_a_record.repeat(100), &[1; 9]))
        .await?;
    talk.answer().await?;
    talk.goes_on().await
}

async fn with_values(p: &Probe) -> Outcome {
    p.tells()?;
    let mut talk = p.connect().await?;
    let question = record(kind::GET_VALUES, 0, &pair(b"FCGI_MPXS_CONNS", b"what?"));
    asked(&mut talk, &question).await.map(drop)
}

async fn garbage(p: &Probe) -> Outcome {
    let mut talk = p.connect().await?;
    talk.send(&record(kind::GET_VALUES, 0, &[0xff; 64])).await?;
    talk.closes_or_goes_on().await?;
    drop(talk);
    p.is_served().await
}

async fn flood(p: &Probe) -> Outcome {
    p.tells()?;
    let mut talk = p.connect().await?;
    talk.send(&get_values(&["FCGI_MPXS_CONNS"]).repeat(500))
        .await?;
    for number in 1..=500 {
        let answered = talk.answer().await;
        answered.map_err(|failure| {
            crate::check::probe::because(&format!("answer {number} of 500"), failure)
        })?;
    }
    Ok(())
}

async fn longest(p: &Probe) -> Outcome {
    p.tells()?;
    let mut talk = p.connect().await?;
    let mut names: Vec<u8> = (0..3000)
        .flat_map(|n| pair(format!("UNKNOWN_{n:05}").as_bytes(), b""))
        .collect();
    let room = raw::MOST - names.len() - 5;
    names.extend(pair(&vec![b'N'; room], b""));
    asked(&mut talk, &record(kind::GET_VALUES, 0, &names))
        .await
        .map(drop)
}
