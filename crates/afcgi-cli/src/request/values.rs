//! `--values`: what an application says that it can do, in words.

use std::fmt::Write;
use std::time::{Duration, Instant};

use afcgi::Address;
use afcgi_proto::Values;
use afcgi_proto::web::Event;
use serde_json::json;

use super::arguments::Arguments;
use super::failure::Failure;
use super::link::{Clock, Link, Turn};
use super::observer::Observer;

/// How long an answer is waited for: it costs an application nothing, and those that do not know the question are silent.
const PATIENCE: Duration = Duration::from_secs(1);

/// What came of the question.
enum Answer {
    Values(Values),
    Silence,
    Closed,
}

/// Asks, and prints the answer; says how the program ends.
pub(super) async fn ask(
    arguments: &Arguments,
    address: &Address,
    observer: &mut Observer,
) -> Result<u8, Failure> {
    let clock = Clock::start(arguments.max_time);
    let mut link = Link::connect(address, arguments.timeout, &clock, true).await?;
    let connected = clock.at();
    link.connection.probe();
    let patience = PATIENCE.min(arguments.timeout);
    let until = Instant::now() + patience;
    let until = clock.end().map_or(until, |end| end.min(until));
    let answer = loop {
        if let Some(Event::Values(values)) = link.connection.poll_event() {
            break Answer::Values(values);
        }
        if link.at_end {
            break Answer::Closed;
        }
        match link.turn(until, &clock, observer).await {
            // An application may send what is none of this for ever.
            Ok(Turn::Moved) if Instant::now() < until => {}
            Ok(_) => break Answer::Silence,
            Err(Failure::Lost(_)) => break Answer::Closed,
            Err(failure) => return Err(failure),
        }
    };
    let took = clock.at() - connected;
    let code = match answer {
        Answer::Values(_) => 0,
        Answer::Silence => 28,
        Answer::Closed => 52,
    };
    let text = match arguments.json {
        true => as_json(address, &answer, took),
        false => as_text(address, &answer, took),
    };
    print(&text)?;
    Ok(code)
}

/// Prints on the standard output.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(Failure::Write)
}

fn as_text(address: &Address, answer: &Answer, took: Duration) -> String {
    let values = match answer {
        Answer::Values(values) => values,
        Answer::Silence => {
            return format!(
                "{address} takes connections and does not answer GET_VALUES within {}.\n\
                 libfcgi and Perl's FCGI do not: their answer stays in a buffer until a request ends. Take it that the application\n\
                 has one request at a time on a connection, and knows neither flow control nor upgrades.\n\
                 An application that hangs, or whose processes are all busy, is silent as well: a request tells.\n",
                humantime::format_duration(PATIENCE.min(took))
            );
        }
        Answer::Closed => {
            return format!(
                "{address} closes the connection in place of an answer to GET_VALUES.\n\
                 Take it that the application has one request at a time on a connection. It may also not allow this client.\n"
            );
        }
    };
    let mut out = format!(
        "{address} answers GET_VALUES after {:.1} ms.\n",
        took.as_secs_f64() * 1000.0
    );
    let mut line = |name: &str, text: String| {
        _ = writeln!(out, "  {name:<13}{text}");
    };
    line(
        "multiplexing",
        match values.mpxs_conns {
            Some(true) => {
                "yes: a connection carries many requests at a time (FCGI_MPXS_CONNS)".into()
            }
            Some(false) => "no: one request at a time on a connection (FCGI_MPXS_CONNS)".into(),
            None => "not said: take it for no (FCGI_MPXS_CONNS)".into(),
        },
    );
    line("connections", at_most(values.max_conns, "FCGI_MAX_CONNS"));
    line("requests", at_most(values.max_reqs, "FCGI_MAX_REQS"));
    line(
        "flow control",
        match values.flow_control {
            Some(credit) => format!(
                "yes: a body of {credit} bytes may be sent before the application asks for more (FCGI_FLOW_CONTROL)"
            ),
            None => "no: a slow body or reader holds up the other requests of a connection (FCGI_FLOW_CONTROL)".into(),
        },
    );
    line(
        "upgrades",
        match values.upgrade {
            Some(true) => "yes: a request may become a WebSocket (FCGI_UPGRADE)".into(),
            Some(false) | None => "no: no WebSocket through FastCGI (FCGI_UPGRADE)".into(),
        },
    );
    out
}

fn at_most(most: Option<u32>, name: &str) -> String {
    match most {
        Some(most) => format!("{most} at a time ({name})"),
        None => format!("not said ({name})"),
    }
}

fn as_json(address: &Address, answer: &Answer, took: Duration) -> String {
    let (what, values) = match answer {
        Answer::Values(values) => ("values", *values),
        Answer::Silence => ("silence", Values::default()),
        Answer::Closed => ("closed", Values::default()),
    };
    let object = json!({
        "address": address.to_string(),
        "answer": what,
        "after": took.as_secs_f64(),
        "max_conns": values.max_conns,
        "max_reqs": values.max_reqs,
        "mpxs_conns": values.mpxs_conns,
        "flow_control": values.flow_control,
        "upgrade": values.upgrade,
    });
    format!("{object:#}\n")
}
