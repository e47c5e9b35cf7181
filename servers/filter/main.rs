//! `filter`: the filter role, on the native API: a file comes as DATA and leaves in upper case.
//!
//! The web server that plays this role is `afcgi gateway`, by `filter` of a route. A file may be of any size, for it is
//! never held.

use std::io;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use afcgi::{Request, Role};
use afcgi_servers::Listen;
use clap::Parser;

/// A FastCGI filter: gives files back in upper case.
#[derive(Debug, Parser)]
#[command(name = "filter", version)]
struct Arguments {
    #[command(flatten)]
    listen: Listen,
}

/// A number among the parameters.
fn number(request: &Request, name: &str) -> Option<u64> {
    std::str::from_utf8(request.params().get(name)?)
        .ok()?
        .parse()
        .ok()
}

/// FCGI_DATA_LAST_MOD is in seconds since 1970. A time that HTTP cannot write is left out.
fn last_modified(request: &Request) -> Option<SystemTime> {
    const YEAR_10000: u64 = 253_402_300_800;
    let seconds = number(request, "FCGI_DATA_LAST_MOD").filter(|&seconds| seconds < YEAR_10000)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

fn is_fresh(request: &Request, modified: Option<SystemTime>) -> bool {
    let since = request.params().get("HTTP_IF_MODIFIED_SINCE");
    let since =
        since.and_then(|since| httpdate::parse_http_date(std::str::from_utf8(since).ok()?).ok());
    matches!((modified, since), (Some(modified), Some(since)) if modified <= since)
}

async fn filter(request: Request) -> io::Result<()> {
    let mut stdout = request.stdout();
    if request.role() != Role::Filter {
        let answer =
            b"Status: 501 Not Implemented\r\nContent-Type: text/plain\r\n\r\nthis is a filter\n";
        return Ok(stdout.write(answer).await?);
    }
    let modified = last_modified(&request);
    if is_fresh(&request, modified) {
        return Ok(stdout.write(b"Status: 304 Not Modified\r\n\r\n").await?);
    }
    // STDIN comes before DATA; this filter has no use for it.
    let mut stdin = request.stdin();
    while stdin.read().await?.is_some() {}

    let mut head = String::from("Content-Type: text/plain\r\n");
    if let Some(length) = number(&request, "FCGI_DATA_LENGTH") {
        head += &format!("Content-Length: {length}\r\n");
    }
    if let Some(modified) = modified {
        head += &format!("Last-Modified: {}\r\n", httpdate::fmt_http_date(modified));
    }
    stdout.write((head + "\r\n").as_bytes()).await?;
    let mut data = request.data();
    // A file that is shorter than announced is an error here, and ends the request with status 1.
    while let Some(piece) = data.read().await? {
        stdout.write(&piece.to_ascii_uppercase()).await?;
    }
    Ok(())
}

fn main() -> ExitCode {
    afcgi_servers::main(|arguments: Arguments| {
        arguments.listen.server()?.run(None, afcgi::native(filter))
    })
}
