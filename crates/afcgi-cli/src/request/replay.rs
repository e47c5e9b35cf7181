//! `--replay`: recorded requests sent again, and whether they are answered as they were.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use afcgi_proto::ProtocolStatus;
use afcgi_proto::params::decode_pair;
use futures_util::future::join_all;
use serde_json::json;

use super::arguments::Arguments;
use super::body::Body;
use super::compare::{Answer, compare};
use super::exchange::Plan;
use super::failure::Failure;
use super::observer::Observer;
use super::params::Params;
use super::recorded::{self, Recorded};
use super::response::Response;
use super::sender::Sender;
use super::target::Target;
use super::values;
use crate::wire::excerpt;
use crate::wire::mask::{Kind, is_masked, param};

/// The exit status where answers differ.
const DIFFERENT: u8 = 1;
/// Bytes of STDOUT that are kept beyond as many as there were: a head may be longer.
const MORE: usize = 64 * 1024;
/// Parameters of a request that are looked at.
const PAIRS: usize = 5000;
/// Bytes of a URI that are shown.
const SHOWN: usize = 200;

/// A request that is to be sent again.
struct Again {
    plan: Plan,
    method: String,
    uri: String,
    /// Secrets that were overwritten when it was recorded.
    masked: Vec<String>,
}

/// What came of one.
enum Result {
    Same(Duration),
    Different(Vec<String>),
    Failed(Failure),
}

/// Sends them in their order; says how the program ends.
pub(super) async fn replay(
    arguments: &Arguments,
    target: &Target,
    name: &str,
    observer: &mut Observer,
) -> std::result::Result<u8, Failure> {
    if !target.path.is_empty() || !target.query.is_empty() {
        let text = "--replay takes an address alone: what is asked for was recorded";
        return Err(Failure::Usage(text.into()));
    }
    let recording = recorded::read(name).map_err(|error| Failure::Read(name.to_owned(), error))?;
    for (count, why) in [
        (
            recording.partial,
            "were not recorded whole, or were given up",
        ),
        (recording.left_out, "are more than are sent again of a file"),
    ] {
        if count > 0 && !arguments.silent {
            observer.say(&format!("left out: {count} requests that {why}"), false);
        }
    }
    let all = recording.requests.iter();
    let all: std::result::Result<Vec<Again>, Failure> = all
        .map(|recorded| again(arguments, target, recorded))
        .collect();
    let all = all?;
    if all.is_empty() {
        let text = "there is no request in the file: was it written by `afcgi tap --write`?";
        return Err(Failure::Read(
            name.to_owned(),
            std::io::Error::new(std::io::ErrorKind::InvalidData, text),
        ));
    }
    let masked = all.iter().filter(|again| !again.masked.is_empty());
    if let Some(first) = masked.clone().next()
        && !arguments.silent
    {
        let (count, names) = (masked.count(), first.masked.join(", "));
        observer.say(
            &format!(
                "{count} of {} requests carry secrets that were overwritten when they were recorded ({names}), and may be answered \
                 differently: record with --show-secrets, or set them by --param",
                all.len()
            ),
            false,
        );
    }
    let next = Cell::new(0);
    let results: RefCell<Vec<Option<Result>>> = RefCell::default();
    results.borrow_mut().resize_with(all.len(), || None);
    let workers = (arguments.concurrent as usize).min(all.len());
    let work = (1..=workers).map(|number| {
        let (next, results, all, recording) = (&next, &results, &all, &recording);
        async move {
            let number = (workers > 1).then_some(number as u32);
            let mut link = None;
            while next.get() < all.len() {
                let index = next.replace(next.get() + 1);
                let (again, was) = (&all[index], &recording.requests[index]);
                let mut sender = Sender::new(&again.plan, Observer::new(arguments, number));
                sender.link = link.take();
                let result = send(&mut sender, was, &arguments.ignore_field).await;
                link = sender.link.take();
                results.borrow_mut()[index] = Some(result);
            }
        }
    });
    join_all(work).await;
    let results = results.into_inner();
    let (mut same, mut different, mut failed) = (0, 0, 0);
    let mut text = String::new();
    for (again, result) in all.iter().zip(results.into_iter().flatten()) {
        let what = format!("{} {}", again.method, again.uri);
        let (word, lines, took) = match result {
            Result::Same(took) => {
                same += 1;
                ("same", Vec::new(), Some(took.as_secs_f64()))
            }
            Result::Different(lines) => {
                different += 1;
                ("different", lines, None)
            }
            Result::Failed(failure) => {
                failed += 1;
                ("failed", vec![failure.to_string()], None)
            }
        };
        if arguments.json {
            let object = json!({
                "method": again.method,
                "uri": again.uri,
                "result": word,
                "differences": lines,
                "total": took,
                "masked": again.masked,
            });
            text += &format!("{object}\n");
            continue;
        }
        match took {
            Some(took) => text += &format!("{word} {what} {:.3} ms\n", took * 1000.0),
            None => text += &format!("{word} {what}\n"),
        }
        for line in lines {
            text += &format!("  {line}\n");
        }
    }
    if !arguments.json {
        text += &format!(
            "{} sent again: {same} answered as before, {different} differently, {failed} failed\n",
            all.len()
        );
    }
    if !arguments.silent {
        values::print(&text)?;
    }
    Ok(match different + failed {
        0 => 0,
        _ => DIFFERENT,
    })
}

/// Sends one, and compares.
async fn send(sender: &mut Sender<'_>, was: &Recorded, ignored: &[String]) -> Result {
    let most = was.stdout.len() + MORE;
    let (outcome, response) = sender.send_to(|| Response::kept(most)).await;
    let end = match outcome.result {
        Ok(end) => end,
        Err(Failure::Refused(status)) => afcgi_proto::EndRequest {
            app_status: 0,
            protocol_status: status,
        },
        Err(failure) => return Result::Failed(failure),
    };
    let mut was_end = was.end;
    if was_end.protocol_status != ProtocolStatus::RequestComplete {
        // Of a refusal it is not looked at.
        was_end.app_status = 0;
    }
    let was = Answer {
        end: was_end,
        stdout: &was.stdout,
    };
    let is = Answer {
        end,
        stdout: response.held(),
    };
    let mut found = compare(was, is, ignored);
    if response.length > most as u64 {
        found.push(format!("STDOUT has {} bytes in all", response.length));
    }
    match found.is_empty() {
        true => Result::Same(outcome.timings.total),
        false => Result::Different(found),
    }
}

/// How a request is sent again.
fn again(
    arguments: &Arguments,
    target: &Target,
    recorded: &Recorded,
) -> std::result::Result<Again, Failure> {
    let mut params = Params::default();
    let mut rest = recorded.params.as_slice();
    let mut count = 0;
    while count < PAIRS
        && let Ok(Some((name, value))) = decode_pair(&mut rest)
    {
        count += 1;
        params.set(&String::from_utf8_lossy(name), value);
    }
    let changed = !arguments.asked.param.is_empty() || !arguments.asked.no_param.is_empty();
    if changed && !rest.is_empty() {
        let text = format!("a request has more than {PAIRS} parameters: they cannot be changed");
        return Err(Failure::Usage(text));
    }
    params.change(&arguments.asked)?;
    let encoded = match changed {
        true => params.encode(),
        false => recorded.params.clone(),
    };
    let pairs = params.iter();
    let hidden = pairs.filter(|(name, value)| is_masked(param(name.as_bytes()), value));
    let mut masked: Vec<String> = hidden
        .map(|pair| excerpt(pair.0.as_bytes(), SHOWN))
        .collect();
    let form = params.get("CONTENT_TYPE").unwrap_or_default();
    if form.starts_with(b"application/x-www-form-urlencoded")
        && is_masked(Kind::Query, &recorded.stdin)
    {
        masked.push(String::from("STDIN"));
    }
    let body = |bytes: &[u8]| {
        let mut body = Body::default();
        body.push(bytes);
        (!bytes.is_empty()).then_some(body)
    };
    let shown = |name: &str| excerpt(params.get(name).unwrap_or_default(), SHOWN);
    let uri = match shown("REQUEST_URI") {
        uri if uri.is_empty() => shown("SCRIPT_NAME"),
        uri => uri,
    };
    Ok(Again {
        method: shown("REQUEST_METHOD"),
        uri,
        masked,
        plan: Plan {
            address: target.address.clone(),
            role: recorded.role,
            encoded,
            params,
            body: body(&recorded.stdin),
            data: body(&recorded.data),
            keep_conn: arguments.keep_conn,
            timeout: arguments.timeout,
            max_time: arguments.max_time,
            abort_after: None,
        },
    })
}
