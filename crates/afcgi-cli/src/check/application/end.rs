//! END_REQUEST [5.5], and what of a response comes before it (R-51 to R-53, R-58).

use crate::check::case::{Failure, Outcome, cases, deviation, ensure};
use crate::check::probe::{Probe, Response, Talk};
use crate::check::raw::{hex, kind};
use crate::check::suite::Route;

cases! { Probe:
    "5.5/1" Must [52] "a request has one END_REQUEST, and nothing comes behind it" once;
    "5.5/2" Must [51] "END_REQUEST has 8 bytes of content" length;
    "5.5/3" Must [51] "a request that was served has the protocolStatus REQUEST_COMPLETE" status;
    "5.5/4" Should [51] "the reserved bytes of END_REQUEST are 0" reserved;
    "5.5/5" Should [51] "a request that was served has the appStatus 0" app_status;
    "5.5/6" Must [53] "STDOUT is ended by an empty record" stdout_end;
    "5.5/7" Must [53 6] "nothing comes on STDOUT behind its end" stdout_after_end;
    "5.5/8" Must [53] "STDERR that was used is ended by an empty record" stderr_end;
    "5.5/9" Must [53 6] "nothing comes on STDERR behind its end" stderr_after_end;
    "5.5/10" Must [53] "STDERR does not come on STDOUT" stderr_apart;
    "5.5/11" Should [58] "a response has header lines, an empty line and a body" head;
    "5.5/12" Should [58] "a header line is a name, a colon and a value" lines;
    "5.5/13" Must [53] "a response of many records is whole" large;
    "5.5/14" Should [53] "a response that has fewer bytes than a record comes in one record, or few" few_records;
}

async fn response(p: &Probe) -> Result<Response, Failure> {
    let mut talk = p.connect().await?;
    talk.send(&p.ask(1).bytes()).await?;
    talk.response(1).await
}

async fn once(p: &Probe) -> Outcome {
    let mut talk = p.connect().await?;
    talk.send(&p.ask(1).closing().bytes()).await?;
    talk.response(1).await?;
    talk.link.finish().await;
    // To the end of the connection, if it is closed.
    _ = talk.closes().await;
    talk.nothing_for(1, "nothing behind END_REQUEST")?;
    p.keeps()?;
    let mut talk = p.connect().await?;
    talk.send(&p.ask(1).bytes()).await?;
    talk.response(1).await?;
    talk.goes_on().await?;
    talk.nothing_for(1, "nothing behind END_REQUEST")
}

async fn length(p: &Probe) -> Outcome {
    let end = response(p).await?.end.unwrap_or_default();
    ensure(
        end.len() == 8,
        "8 bytes",
        format!("{} bytes: {}", end.len(), hex(&end)),
    )
}

async fn status(p: &Probe) -> Outcome {
    let status = response(p).await?.protocol_status();
    ensure(
        status.unwrap_or(0) == 0,
        "REQUEST_COMPLETE (0)",
        format!("protocolStatus {status:?}"),
    )
}

async fn reserved(p: &Probe) -> Outcome {
    let end = response(p).await?.end.unwrap_or_default();
    ensure(
        end.iter().skip(5).all(|&byte| byte == 0),
        "0 in the last three bytes",
        hex(&end),
    )
}

async fn app_status(p: &Probe) -> Outcome {
    let end = response(p).await?.end.unwrap_or_default();
    ensure(
        end.iter().take(4).all(|&byte| byte == 0),
        "the appStatus 0",
        hex(&end),
    )
}

/// Whether a stream was ended: its last record is empty.
fn is_ended(response: &Response, stream: u8) -> bool {
    let mut records = response.records.iter().rev();
    records
        .find(|record| record.0 == stream)
        .is_some_and(|record| record.1 == 0)
}

/// Whether something came behind the end of a stream.
fn goes_on_behind_end(response: &Response, stream: u8) -> bool {
    let mut records = response.records.iter().filter(|record| record.0 == stream);
    records.by_ref().any(|record| record.1 == 0) && records.next().is_some()
}

fn outline(response: &Response) -> String {
    let names = response.records.iter().take(12);
    let names: Vec<String> = names
        .map(|&(code, length)| {
            format!(
                "{} of {length} bytes",
                crate::wire::record_name(code.into())
            )
        })
        .collect();
    names.join(", ")
}

async fn stdout_end(p: &Probe) -> Outcome {
    let response = response(p).await?;
    ensure(
        is_ended(&response, kind::STDOUT),
        "an empty STDOUT record before END_REQUEST",
        outline(&response),
    )
}

async fn stdout_after_end(p: &Probe) -> Outcome {
    let response = response(p).await?;
    ensure(
        !goes_on_behind_end(&response, kind::STDOUT),
        "no STDOUT behind its empty record",
        outline(&response),
    )
}

async fn with_stderr(p: &Probe) -> Result<Response, Failure> {
    let mut talk: Talk = p.connect().await?;
    talk.send(&p.to(Route::Stderr, 1)?.bytes()).await?;
    let response = talk.response(1).await?;
    match response
        .records
        .iter()
        .any(|&(code, length)| code == kind::STDERR && length > 0)
    {
        true => Ok(response),
        false => Err(deviation("STDERR", outline(&response))),
    }
}

async fn stderr_end(p: &Probe) -> Outcome {
    let response = with_stderr(p).await?;
    ensure(
        is_ended(&response, kind::STDERR),
        "an empty STDERR record before END_REQUEST",
        outline(&response),
    )
}

async fn stderr_after_end(p: &Probe) -> Outcome {
    let response = match p.to(Route::Stderr, 1) {
        Ok(ask) => {
            let mut talk = p.connect().await?;
            talk.send(&ask.bytes()).await?;
            talk.response(1).await?
        }
        Err(_) => response(p).await?,
    };
    ensure(
        !goes_on_behind_end(&response, kind::STDERR),
        "no STDERR behind its empty record",
        outline(&response),
    )
}

async fn stderr_apart(p: &Probe) -> Outcome {
    let mut talk = p.connect().await?;
    talk.send(&p.to(Route::Stderr, 1)?.bytes()).await?;
    let response = talk.response(1).await?;
    let text = response.stderr.trim_ascii();
    let mixed = !text.is_empty() && response.stdout.windows(text.len()).any(|part| part == text);
    ensure(
        !mixed,
        "what is on STDERR is not on STDOUT as well",
        crate::wire::escaped(text),
    )
}

async fn head(p: &Probe) -> Outcome {
    let stdout = response(p).await?.stdout;
    let blank = |mark: &[u8]| stdout.windows(mark.len()).any(|part| part == mark);
    let came = crate::wire::escaped(&stdout[..stdout.len().min(100)]);
    ensure(
        blank(b"\r\n\r\n") || blank(b"\n\n"),
        "an empty line behind the header lines",
        came,
    )
}

async fn lines(p: &Probe) -> Outcome {
    let stdout = response(p).await?.stdout;
    for line in stdout.split(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(colon) = line.iter().position(|&byte| byte == b':') else {
            return ensure(
                line.is_empty(),
                "NAME: VALUE",
                crate::wire::escaped(&line[..line.len().min(100)]),
            );
        };
        let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        let right = colon > 0 && line[..colon].iter().all(token);
        ensure(
            right,
            "NAME: VALUE",
            crate::wire::escaped(&line[..line.len().min(100)]),
        )?;
    }
    Ok(())
}

async fn large(p: &Probe) -> Outcome {
    let mut talk = p.connect().await?;
    talk.send(&p.to(Route::Large, 1)?.bytes()).await?;
    let response = talk.response(1).await?;
    is_whole(&response)
}

/// A response of 1 MB or more, as long as it says that it is.
pub(super) fn is_whole(response: &Response) -> Outcome {
    let body = response.body();
    let head = &response.stdout[..response.stdout.len() - body.len()];
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let announced = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    let announced = announced.and_then(|value| value.trim().parse::<usize>().ok());
    let expected = announced.unwrap_or(body.len()).max(1_000_000);
    match body.len() == expected || (announced.is_none() && body.len() >= expected) {
        true => Ok(()),
        false => Err(deviation(
            format!("a body of {expected} bytes"),
            format!("{} bytes", body.len()),
        )),
    }
}

async fn few_records(p: &Probe) -> Outcome {
    let response = response(p).await?;
    let records = response
        .records
        .iter()
        .filter(|record| record.0 == kind::STDOUT)
        .count();
    let most = 8 + response.stdout.len() / 64;
    ensure(
        records <= most,
        &format!("at most {most} records for {} bytes", response.stdout.len()),
        format!("{records} records"),
    )
}
