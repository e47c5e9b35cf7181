//! Name-value pairs [3.4]: lengths in both forms, and pairs cut anywhere.

use crate::check::ask::Ask;
use crate::check::case::{Failure, Outcome, cases, deviation};
use crate::check::probe::Probe;
use crate::check::raw::{self, kind, pair, record, stream};
use crate::check::suite::Route;

cases! { Probe:
    "3.4/1" Must [20] "a value of 127 bytes, its length in one byte" short_value;
    "3.4/2" Must [20] "a value of 128 bytes, its length in four bytes" long_value;
    "3.4/3" Must [20] "a value of 300 bytes behind a name of 200" long_name;
    "3.4/4" Must [21] "short lengths in four bytes" long_form;
    "3.4/5" Must [21] "an empty value" empty_value;
    "3.4/6" Must [21] "an empty name harms nothing" empty_name;
    "3.4/7" Must [21] "a value with every byte but 0 and the ends of lines" any_byte;
    "3.4/8" Must [20] "a value of 20,000 bytes" longer_value;
    "3.4/9" Must [6] "PARAMS in two records, cut between pairs" cut_between;
    "3.4/10" Must [6] "PARAMS in two records, cut inside a name" cut_in_a_name;
    "3.4/11" Must [6] "PARAMS in two records, cut inside a value" cut_in_a_value;
    "3.4/12" Must [6 20] "PARAMS in two records, cut inside a length of four bytes" cut_in_a_length;
    "3.4/13" Must [6] "PARAMS in records of one byte" records_of_a_byte;
    "3.4/14" Should [20] "400 parameters" many;
    "3.4/15" Should [6 20] "a value that is longer than a record" longer_than_a_record;
}

/// The request whose parameters come back, or the plain one if there is no such.
fn subject(p: &Probe) -> (Ask, bool) {
    match p.to(Route::Params, 1) {
        Ok(ask) => (ask, true),
        Err(_) => (p.ask(1), false),
    }
}

/// The request has the answer that it must have: with the parameter in it, if the application tells its parameters.
async fn arrives(p: &Probe, bytes: &[u8], name: &str, value: &[u8], tells: bool) -> Outcome {
    let mut talk = p.connect().await?;
    if !tells {
        return talk.answers(bytes, 1).await;
    }
    talk.send(bytes).await?;
    let response = talk.response(1).await?;
    let line = [name.as_bytes(), b"=", value].concat();
    let mut lines = response.body().split(|&byte| byte == b'\n');
    match lines.any(|found| found == line) {
        true => Ok(()),
        false => Err(deviation(
            format!("{name} with {} bytes as they were sent", value.len()),
            came(&response.stdout, name),
        )),
    }
}

fn came(stdout: &[u8], name: &str) -> String {
    let begin = format!("{name}=").into_bytes();
    let mut lines = stdout.split(|&byte| byte == b'\n');
    match lines.find(|line| line.starts_with(&begin)) {
        Some(line) => format!(
            "{} bytes: `{}`",
            line.len() - begin.len(),
            crate::wire::escaped(&line[..line.len().min(80)])
        ),
        None => format!("no {name} among {} bytes", stdout.len()),
    }
}

/// With one more pair, as these bytes.
async fn extra(p: &Probe, pair: &[u8], name: &str, value: &[u8]) -> Outcome {
    let (ask, tells) = subject(p);
    let params = stream(kind::PARAMS, 1, &[&ask.pairs(), pair].concat(), raw::MOST);
    arrives(p, &ask.with_params(&params), name, value, tells).await
}

async fn plain(p: &Probe, name: &str, value: &[u8]) -> Outcome {
    extra(p, &pair(name.as_bytes(), value), name, value).await
}

async fn short_value(p: &Probe) -> Outcome {
    plain(p, "HTTP_X_SHORT", &[b's'; 127]).await
}

async fn long_value(p: &Probe) -> Outcome {
    plain(p, "HTTP_X_LONG", &[b'l'; 128]).await
}

async fn long_name(p: &Probe) -> Outcome {
    let name = format!("HTTP_X_{}", "N".repeat(193));
    plain(p, &name, &[b'v'; 300]).await
}

async fn long_form(p: &Probe) -> Outcome {
    let (name, value) = ("HTTP_X_FORM", b"short");
    let mut pair = Vec::new();
    raw::long_length(&mut pair, name.len() as u32);
    raw::long_length(&mut pair, value.len() as u32);
    pair.extend(name.as_bytes());
    pair.extend(value);
    extra(p, &pair, name, value).await
}

async fn empty_value(p: &Probe) -> Outcome {
    let (ask, _) = subject(p);
    let params = [
        record(
            kind::PARAMS,
            1,
            &[pair(b"HTTP_X_EMPTY", b""), ask.pairs()].concat(),
        ),
        record(kind::PARAMS, 1, &[]),
    ];
    // Many applications do not tell an empty one.
    let mut talk = p.connect().await?;
    talk.send(&ask.with_params(&params.concat())).await?;
    talk.response(1).await?;
    let plain = p.ask(1);
    let params = [
        record(
            kind::PARAMS,
            2,
            &[pair(b"HTTP_X_EMPTY", b""), plain.pairs()].concat(),
        ),
        record(kind::PARAMS, 2, &[]),
    ];
    let mut talk = p.connect().await?;
    talk.answers(&p.ask(2).with_params(&params.concat()), 2)
        .await
}

async fn empty_name(p: &Probe) -> Outcome {
    let ask = p.ask(1);
    let params = [
        record(
            kind::PARAMS,
            1,
            &[pair(b"", b"of no name"), ask.pairs()].concat(),
        ),
        record(kind::PARAMS, 1, &[]),
    ];
    let mut talk = p.connect().await?;
    talk.answers(&ask.with_params(&params.concat()), 1).await
}

async fn any_byte(p: &Probe) -> Outcome {
    let value: Vec<u8> = (1..=255).filter(|byte| !b"\r\n".contains(byte)).collect();
    plain(p, "HTTP_X_BYTES", &value).await
}

async fn longer_value(p: &Probe) -> Outcome {
    let value: Vec<u8> = (0..20_000u32).map(|n| b'a' + (n % 23) as u8).collect();
    plain(p, "HTTP_X_LONGER", &value).await
}

/// PARAMS with one more pair at the end, cut so many bytes behind the beginning of that pair.
async fn cut(p: &Probe, name: &str, value: &[u8], behind: usize) -> Outcome {
    let (ask, tells) = subject(p);
    let (before, pair) = (ask.pairs(), pair(name.as_bytes(), value));
    let (head, tail) = pair
        .split_at_checked(behind)
        .ok_or_else(|| Failure::Skip(String::new()))?;
    let params = [
        record(kind::PARAMS, 1, &[&before, head].concat()),
        record(kind::PARAMS, 1, tail),
        record(kind::PARAMS, 1, &[]),
    ];
    arrives(p, &ask.with_params(&params.concat()), name, value, tells).await
}

async fn cut_between(p: &Probe) -> Outcome {
    cut(p, "HTTP_X_BETWEEN", b"value", 0).await
}

async fn cut_in_a_name(p: &Probe) -> Outcome {
    cut(p, "HTTP_X_CUT_NAME", b"value", 2 + 7).await
}

async fn cut_in_a_value(p: &Probe) -> Outcome {
    cut(p, "HTTP_X_CUT", b"a value in two parts", 2 + 10 + 8).await
}

async fn cut_in_a_length(p: &Probe) -> Outcome {
    cut(p, "HTTP_X_CUT_LENGTH", &[b'c'; 150], 3).await
}

async fn records_of_a_byte(p: &Probe) -> Outcome {
    let (ask, tells) = subject(p);
    let ask = ask.param(b"HTTP_X_BY_BYTE", b"value");
    let bytes = ask.with_params(&ask.params_in_records_of(1));
    arrives(p, &bytes, "HTTP_X_BY_BYTE", b"value", tells).await
}

async fn many(p: &Probe) -> Outcome {
    let (mut ask, tells) = subject(p);
    for number in 0..400 {
        ask = ask.param(format!("HTTP_X_NUMBER_{number}").as_bytes(), b"value");
    }
    arrives(p, &ask.bytes(), "HTTP_X_NUMBER_399", b"value", tells).await
}

async fn longer_than_a_record(p: &Probe) -> Outcome {
    let value: Vec<u8> = (0..70_000u32).map(|n| b'a' + (n % 23) as u8).collect();
    plain(p, "HTTP_X_LONGEST", &value).await
}
