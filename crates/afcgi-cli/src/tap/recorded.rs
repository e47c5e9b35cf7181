//! `--read`: what a file has, shown as if it went by.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::rc::Rc;

use super::arguments::Arguments;
use super::observe::{Form, Observer, Shown, Tap};
use super::said::{CHECKED, say};
use super::stats;
use crate::capture::{Found, Reader};

/// Opens a recording; `-`: the standard input.
pub(crate) fn open(name: &str) -> io::Result<Box<dyn Read + Send>> {
    match name {
        "-" => Ok(Box::new(io::stdin())),
        name => match File::open(name) {
            Ok(file) => Ok(Box::new(file)),
            Err(error) => Err(io::Error::new(
                error.kind(),
                format!("cannot read {name}: {error}"),
            )),
        },
    }
}

/// Shows all of it; says how the program ends.
pub(super) fn run(arguments: &Arguments, name: &str) -> io::Result<u8> {
    let file = open(name)?;
    let tap = Rc::new(Tap::new(
        arguments.form(),
        arguments.palette(),
        arguments.filter(),
        arguments.show_secrets,
        Shown::Direct(Ok(io::BufWriter::new(io::stdout()))),
        None,
    ));
    let mut observers: HashMap<u64, Observer> = HashMap::new();
    let mut reader = Reader::new(arguments.port);
    let read = reader.read(file, |number, at, found| {
        if let Found::Open = found {
            observers.insert(number, Observer::new(&tap, number, at, None));
            return Ok(());
        }
        let Some(observer) = observers.get_mut(&number) else {
            return Ok(());
        };
        match found {
            Found::Open => {}
            Found::Bytes(side, bytes) => observer.bytes(side, at, bytes),
            Found::Close(side, reset) => observer.close(side, at, reset),
            Found::Gap => {
                observer.gap(at);
                observers.remove(&number);
            }
            Found::End => {
                observer.stop(at);
                observers.remove(&number);
            }
        }
        match &mut *tap.shown.borrow_mut() {
            Shown::Direct(Err(error)) => Err(io::Error::new(error.kind(), "nobody reads")),
            Shown::Direct(Ok(_)) | Shown::Thread(_) => Ok(()),
        }
    });
    drop(observers);
    let Some(tap) = Rc::into_inner(tap) else {
        return Err(io::Error::other("a connection is still there"));
    };
    let stats = tap.stats.into_inner();
    if let Shown::Direct(out) = tap.shown.into_inner() {
        let written = out.and_then(|mut out| {
            if tap.form == Form::Json && read.is_ok() {
                writeln!(out, "{}", stats.as_json())?;
            }
            out.flush()
        });
        match written {
            // As with `| head`.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(0),
            Err(error) => {
                return Err(io::Error::new(
                    error.kind(),
                    format!("cannot write the output: {error}"),
                ));
            }
            Ok(()) => {}
        }
    }
    read.map_err(|error| io::Error::new(error.kind(), format!("cannot use {name}: {error}")))?;
    if reader.truncated {
        say("the file ends in the middle of a packet, as after a crash or while it is written");
    }
    if reader.other_connections > 0 {
        let count = stats::count(reader.other_connections, "connection");
        say(&format!(
            "left out: {count}, not FastCGI or not seen from the beginning; --port says where FastCGI is spoken"
        ));
    }
    if reader.other_packets > 0 {
        let count = stats::count(reader.other_packets, "packet");
        say(&format!("left out: {count} without TCP"));
    }
    if tap.form != Form::Json {
        // Where nobody hears it, it is not said.
        _ = io::stderr().lock().write_all(stats.as_text().as_bytes());
    }
    Ok(match arguments.check && stats.violations() > 0 {
        true => CHECKED,
        false => 0,
    })
}
