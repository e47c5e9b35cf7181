//! `authorizer`: the authorizer role (R-54), over the HTTP mapping: who may see what a web server
//! has.
//!
//! Status 200 lets a request pass, with `REMOTE_USER` and `AUTH_TYPE` as parameters of the request
//! that follows; any other status is the answer to the client. It serves lighttpd's
//! `"mode" => "authorizer"` and, as a responder, nginx's `auth_request` alike.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use afcgi_servers::Listen;
use axum::Router;
use axum::http::header::WWW_AUTHENTICATE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use clap::Parser;
use headers::authorization::Basic;
use headers::{Authorization, HeaderMapExt};
use sha2::{Digest, Sha256};

/// Lets known users pass, by their name and password (HTTP Basic authentication).
#[derive(Debug, Parser)]
#[command(name = "authorizer", version)]
struct Arguments {
    #[command(flatten)]
    listen: Listen,
    /// A file with a line NAME:PASSWORD for everyone who may pass
    #[arg(long, value_name = "FILE")]
    users: PathBuf,
    /// A user of that file who may not pass any more; to be given several times
    #[arg(long, value_name = "NAME")]
    blocked: Vec<String>,
}

#[derive(Debug)]
struct User {
    name: String,
    password: [u8; 32],
    blocked: bool,
}

/// Hashed, so that the time of a comparison tells nothing about the password.
fn hash(password: &str) -> [u8; 32] {
    Sha256::digest(password).into()
}

fn read(arguments: &Arguments) -> io::Result<Vec<User>> {
    let text = fs::read_to_string(&arguments.users).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("{}: {error}", arguments.users.display()),
        )
    })?;
    let user = |line: &str| {
        let (name, password) = line.split_once(':')?;
        // The name becomes a header field.
        let valid = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
        valid.then(|| User {
            name: name.to_owned(),
            password: hash(password),
            blocked: arguments.blocked.iter().any(|blocked| blocked == name),
        })
    };
    let lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.is_empty());
    lines
        .map(|(number, line)| {
            let file = arguments.users.display();
            let what = format!(
                "{file}, line {}: expected NAME:PASSWORD, the name in visible ASCII",
                number + 1
            );
            user(line).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, what))
        })
        .collect()
}

fn authorize(users: &[User], headers: &HeaderMap) -> Response {
    let credentials: Option<Authorization<Basic>> = headers.typed_get();
    let user = credentials.and_then(|Authorization(basic)| {
        let password = hash(basic.password());
        let known = |user: &&User| user.name == basic.username() && user.password == password;
        users.iter().find(known)
    });
    let Some(user) = user else {
        let ask = [(WWW_AUTHENTICATE, r#"Basic realm="afcgi", charset="UTF-8""#)];
        return (StatusCode::UNAUTHORIZED, ask, "who are you?\n").into_response();
    };
    if user.blocked {
        return (StatusCode::FORBIDDEN, "not for you\n").into_response();
    }
    [
        ("variable-remote_user", user.name.as_str()),
        ("variable-auth_type", "Basic"),
    ]
    .into_response()
}

fn run(arguments: Arguments) -> io::Result<()> {
    let users: Arc<[User]> = read(&arguments)?.into();
    let app = Router::new().fallback(async move |headers: HeaderMap| authorize(&users, &headers));
    arguments.listen.server()?.run(None, afcgi::http(app))
}

fn main() -> ExitCode {
    afcgi_servers::main(run)
}
