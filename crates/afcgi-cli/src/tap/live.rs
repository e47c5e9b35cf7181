//! The tap between a web server and an application: connections, signals, and the end.

use std::cell::RefCell;
use std::io::{self, Write};
use std::rc::Rc;
use std::time::Duration;

use afcgi::UnixOptions;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::{JoinSet, LocalSet, spawn_blocking};
use tokio_util::sync::CancellationToken;

use super::arguments::Arguments;
use super::forward::{Forward, PIECE};
use super::observe::{Form, Shown, Tap};
use super::output::Output;
use super::said::{CHECKED, say};
use super::socket::Listener;
use super::stats;
use crate::capture::{self, MASKED};
use crate::gateway::Mode;
use crate::terminal::{Ending, Terminal};

/// After an error of accepting, such as having no descriptors left.
const PAUSE: Duration = Duration::from_millis(100);

/// Runs it until it is told to stop; says how the program ends.
pub(super) fn run(arguments: &Arguments) -> io::Result<u8> {
    raise_descriptors();
    let terminal = Terminal::of_this_process();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = LocalSet::new().block_on(&runtime, serve(arguments, terminal));
    // Neither a write that hangs nor a name that is being looked up is waited for.
    runtime.shutdown_background();
    result
}

/// Each connection takes two descriptors.
fn raise_descriptors() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    // Where it cannot be raised, accepting says what is missing.
    _ = setrlimit(Resource::Nofile, raised);
}

async fn serve(arguments: &Arguments, terminal: Terminal) -> io::Result<u8> {
    let invalid = |text: &str| io::Error::new(io::ErrorKind::InvalidInput, text);
    let (Some(listen), Some(connect)) = (&arguments.listen, &arguments.connect) else {
        return Err(invalid("--listen and --connect say where it is to be"));
    };
    if listen == connect {
        return Err(invalid(
            "--listen and --connect are the same address: the tap would talk to itself",
        ));
    }
    if arguments.write.as_deref() == Some("-") && (arguments.json || arguments.verbose) {
        return Err(invalid(
            "--write - takes the standard output: leave out --json and --verbose",
        ));
    }
    let mut options = UnixOptions::default();
    options.mode = arguments.socket_mode.map(Mode::bits);
    let socket = afcgi::Listener::bind_with(listen, options)?;
    let listener = Listener::of(&socket)?;
    let mut ending = Ending::new(terminal)?;
    let file = match &arguments.write {
        Some(name) => Some(open(name, arguments)?),
        None => None,
    };
    let shown = Output::start(io::BufWriter::with_capacity(PIECE, io::stdout()))?;
    let out_broken = shown.broken();
    let file_broken = file.as_ref().map(Output::broken).unwrap_or_default();
    let tap = Rc::new(Tap::new(
        arguments.form(),
        arguments.palette(),
        arguments.filter(),
        arguments.show_secrets,
        Shown::Thread(shown),
        file,
    ));
    say(&format!("{socket} is tapped before {connect}"));
    if socket.is_public() {
        say(
            "warning: others on the network can connect, and to reach a FastCGI application is to make it run",
        );
    }
    let forward = Rc::new(Forward {
        tap: Rc::clone(&tap),
        connect: connect.clone(),
        stopping: CancellationToken::new(),
        hurry: CancellationToken::new(),
        buffer: RefCell::new(vec![0; PIECE]),
    });
    let mut connections = JoinSet::new();
    let mut number = 0;
    let mut file_failed = false;
    loop {
        let has_room = connections.len() < arguments.max_connections;
        tokio::select! {
            biased;
            () = ending.wait() => break,
            () = out_broken.cancelled() => {
                say("nobody reads the output any more: ending as by SIGINT");
                break;
            }
            () = file_broken.cancelled(), if !file_failed => {
                file_failed = true;
                say("the file cannot be written any more: it ends here, and connections go on");
            }
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if has_room => match accepted {
                Ok(web) => {
                    number += 1;
                    let forward = Rc::clone(&forward);
                    connections.spawn_local(async move { forward.connection(web, number).await });
                    if connections.len() == arguments.max_connections {
                        say("as many connections as --max-connections says: others wait");
                    }
                }
                Err(error) => {
                    say(&format!("cannot accept connections: {error}"));
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    drop(socket);
    forward.stopping.cancel();
    let mut left = connections.len();
    while !connections.is_empty() {
        tokio::select! {
            biased;
            () = ending.wait() => forward.hurry.cancel(),
            Some(_) = connections.join_next() => {}
            // Those that are idle end at once: what is left then is worth a word.
            () = tokio::time::sleep(PAUSE), if left > 0 => {
                left = 0;
                if !connections.is_empty() {
                    let count = stats::count(connections.len() as u64, "connection");
                    say(&format!("waiting for {count} with requests: a second signal ends them"));
                }
            }
        }
    }
    drop(forward);
    let Some(tap) = Rc::into_inner(tap) else {
        return Err(io::Error::other("a connection is still there"));
    };
    finish(arguments, tap, &mut ending).await
}

/// Writes what is left to write, and the summary.
async fn finish(arguments: &Arguments, tap: Tap, ending: &mut Ending) -> io::Result<u8> {
    let stats = tap.stats.into_inner();
    let mut dropped = Vec::new();
    let mut outputs = Vec::new();
    if let Shown::Thread(mut output) = tap.shown.into_inner() {
        if tap.form == Form::Json {
            output.push(format!("{}\n", stats.as_json()).into_bytes());
        }
        if output.dropped.0 > 0 {
            dropped.push(format!(
                "{} were not printed: whoever reads the output is too slow",
                stats::count(output.dropped.0, "piece")
            ));
        }
        outputs.push((output, false));
    }
    if let Some(file) = tap.file {
        let file = file.into_inner();
        if file.dropped.0 > 0 {
            dropped.push(format!(
                "{} bytes are missing in the file: it could not be written as fast as they came",
                file.dropped.1
            ));
        }
        outputs.push((file, true));
    }
    let mut result = Ok(());
    for (output, is_file) in outputs {
        tokio::select! {
            finished = spawn_blocking(move || output.finish()) => {
                let finished = finished.unwrap_or_else(|error| Err(io::Error::other(error)));
                match finished {
                    Err(error) if is_file => {
                        let name = arguments.write.as_deref().unwrap_or_default();
                        result = Err(io::Error::new(error.kind(), format!("cannot write {name}: {error}")));
                    }
                    // That nobody reads it was said.
                    Err(_) | Ok(()) => {}
                }
            }
            () = ending.wait() => {}
        }
    }
    for text in dropped {
        say(&text);
    }
    if tap.form != Form::Json {
        // Where nobody hears it, it is not said.
        _ = io::stderr().lock().write_all(stats.as_text().as_bytes());
    }
    result.map(|()| match arguments.check && stats.violations() > 0 {
        true => CHECKED,
        false => 0,
    })
}

/// The file, with its beginning.
fn open(name: &str, arguments: &Arguments) -> io::Result<Output> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut output = if name == "-" {
        Output::start(io::BufWriter::with_capacity(PIECE, io::stdout()))?
    } else {
        let mut options = std::fs::OpenOptions::new();
        // What goes by is nobody else's affair.
        options.write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(name).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot write {name}: {error}"))
        })?;
        Output::start(io::BufWriter::with_capacity(PIECE, file))?
    };
    let (from, to) = (&arguments.listen, &arguments.connect);
    let text = |address: &Option<afcgi::Address>| {
        address
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default()
    };
    let description = format!("FastCGI from {} to {}", text(from), text(to));
    let comment = match arguments.show_secrets {
        true => "secrets are as they were sent",
        false => MASKED,
    };
    output.push(capture::header(comment, &description));
    Ok(output)
}
