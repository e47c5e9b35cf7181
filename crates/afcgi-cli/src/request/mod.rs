//! `afcgi request`: curl for FastCGI, for any application.
//!
//! It is a web server for a single client: it drives the protocol crate's [`Connection`](afcgi_proto::web::Connection) itself, so that each
//! record can be shown. The application may be hostile: what is held of it is bounded, and no control character of it reaches a terminal.

pub(crate) mod arguments;
pub(crate) mod body;
mod compare;
mod exchange;
pub(crate) mod failure;
mod fetch;
mod link;
mod observer;
pub(crate) mod params;
mod recorded;
mod repeat;
mod replay;
mod report;
mod response;
mod sender;
pub(crate) mod target;
pub(crate) mod values;
mod websocket;

pub use arguments::Arguments;
use arguments::RoleName;
pub(crate) use arguments::duration;
use body::Body;
use exchange::Plan;
pub(crate) use failure::Failure;
pub(crate) use fetch::{Fetched, Page, check, fetch};
pub(crate) use link::{Socket, connect};
use observer::Observer;
use sender::Sender;
use target::Target;

impl Arguments {
    /// Runs it, and says how the program ends.
    pub fn run(self) -> u8 {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let mut observer = Observer::new(&self, None);
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => {
                observer.say(&error.to_string(), true);
                return 1;
            }
        };
        let code = match runtime.block_on(run(&self, &mut observer)) {
            Ok(code) => code,
            Err(failure) => {
                complain(&self, &mut observer, &failure);
                failure.code()
            }
        };
        // A write to a pipe that nobody reads would be waited for.
        runtime.shutdown_background();
        code
    }
}

/// Says why it failed, unless that is not wanted; what is wrong with the command line is said anyway.
fn complain(arguments: &Arguments, observer: &mut Observer, failure: &Failure) {
    if !arguments.silent || matches!(failure, Failure::Usage(_)) {
        observer.say(&failure.to_string(), true);
    }
}

async fn run(arguments: &Arguments, observer: &mut Observer) -> Result<u8, Failure> {
    let target = Target::parse(&arguments.target)?;
    if arguments.values {
        return values::ask(arguments, &target.address, observer).await;
    }
    if let Some(name) = &arguments.replay {
        return replay::replay(arguments, &target, name, observer).await;
    }
    let mut plan = plan(arguments, target)?;
    if arguments.websocket {
        let end = websocket::websocket(&mut plan, observer).await;
        observer.end();
        return end.map(|end| u8::try_from(end.app_status).unwrap_or(u8::MAX));
    }
    match arguments.repeat {
        Some(count) => Ok(repeat::repeat(arguments, &plan, count).await),
        None => Ok(once(arguments, &plan, observer).await),
    }
}

/// Names and values, in their order.
pub(crate) type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// Where an application is, and the parameters of a request to it as the flags of the same name say, for other tools. `path` with its query
/// takes the place of that of the target.
pub(crate) fn parameters(
    target: &str,
    path: Option<&str>,
    script: Option<&str>,
    root: Option<&str>,
    param: &[String],
) -> Result<(afcgi::Address, Pairs), Failure> {
    let command = <Arguments as clap::Args>::augment_args(clap::Command::new("request"));
    let mut words = vec![String::from("request")];
    for (flag, value) in [("--script", script), ("--root", root)] {
        words.extend(value.map(|value| format!("{flag}={value}")));
    }
    words.extend(param.iter().map(|pair| format!("--param={pair}")));
    words.extend([String::from("--"), target.to_owned()]);
    let usage = |error: clap::Error| Failure::Usage(error.to_string());
    let matches = command.try_get_matches_from(words).map_err(usage)?;
    let arguments =
        <Arguments as clap::FromArgMatches>::from_arg_matches(&matches).map_err(usage)?;
    let mut target = Target::parse(target)?;
    if let Some(path) = path {
        target = Target::at(target.address, path);
    }
    let params = params::params(&arguments, &target, None, None, None)?;
    let pairs = params
        .iter()
        .map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec()));
    Ok((target.address, pairs.collect()))
}

/// What the command line asks for.
fn plan(arguments: &Arguments, target: Target) -> Result<Plan, Failure> {
    let (body, kind) = if !arguments.form.is_empty() {
        let (body, kind) = body::form(&arguments.form)?;
        (Some(body), Some(kind))
    } else if !arguments.data.is_empty() || !arguments.data_binary.is_empty() {
        let binary = arguments.data.is_empty();
        let values = match binary {
            true => &arguments.data_binary,
            false => &arguments.data,
        };
        let kind = String::from("application/x-www-form-urlencoded");
        (Some(body::data(values, binary)?), Some(kind))
    } else {
        (None, None)
    };
    let data = match (&arguments.data_file, arguments.role) {
        (Some(name), RoleName::Filter) => {
            let mut data = Body::default();
            data.push_file(name)?;
            Some(data)
        }
        (None, RoleName::Filter) => {
            let text = "a filter is given a file: --data-file says which";
            return Err(Failure::Usage(text.into()));
        }
        (Some(_), _) => {
            let text = "--data-file is for --role filter; -d @FILE sends a file as the body";
            return Err(Failure::Usage(text.into()));
        }
        (None, _) => None,
    };
    if body.is_some() && arguments.role == RoleName::Authorizer {
        let text = "an authorizer is sent no body";
        return Err(Failure::Usage(text.into()));
    }
    let params = params::params(
        arguments,
        &target,
        body.as_ref(),
        kind.as_deref(),
        data.as_ref(),
    )?;
    Ok(Plan {
        address: target.address,
        role: arguments.role.into(),
        encoded: params.encode(),
        params,
        body,
        data,
        // PHP-FPM counts a process as busy for ever whose kept connection is closed, so it is not kept for nothing.
        keep_conn: arguments.keep_conn || (arguments.repeat.is_some() && !arguments.no_keep_conn),
        timeout: arguments.timeout,
        max_time: arguments.max_time,
        abort_after: arguments.abort_after,
    })
}

/// Sends one request, and says all that is to be said of it.
async fn once(arguments: &Arguments, plan: &Plan, observer: &mut Observer) -> u8 {
    let mut sender = Sender::new(
        plan,
        std::mem::replace(observer, Observer::new(arguments, None)),
    );
    let (mut outcome, response) = sender.send(arguments).await;
    *observer = sender.observer;
    if arguments.json
        && let Err(failure) = values::print(&report::json(plan, &outcome, &response, observer))
    {
        outcome.result = Err(failure);
    }
    if arguments.time {
        observer.print(&report::times(&outcome, &response));
    }
    if let Err(failure) = &outcome.result {
        complain(arguments, observer, failure);
    }
    if arguments.silent {
        return outcome.code();
    }
    if let Some(text) = report::explain(plan, observer, arguments.asked.script.is_some()) {
        observer.say(&text, false);
    }
    if let Ok(end) = &outcome.result {
        if let Some(aborted) = outcome.timings.aborted {
            let took = (outcome.timings.total - aborted).as_secs_f64() * 1000.0;
            let text = format!("aborted; the application ended the request {took:.1} ms later");
            observer.say(&text, false);
        }
        if end.app_status != 0 {
            // No message of this kind stands for a failure.
            let text = format!(
                "* the application's status is {} (appStatus)\n",
                end.app_status
            );
            observer.print(&text);
        }
    }
    outcome.code()
}
