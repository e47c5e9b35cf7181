//! The cases about memory: the server is a process of its own, so that nothing else counts.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use afcgi_cli::check::Selection;

use crate::mutant::{ALL, Mutant};
use crate::{Came, against, selection};

/// How long a server may take for anything.
const LIMIT: Duration = Duration::from_secs(6);

/// Says which fault the process has.
const FAULT: &str = "AFCGI_CHECK_FAULT";

/// This program as a server. It ends with its standard input.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(fault: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args([
            "--exact",
            "memory::is_a_server_if_it_is_told_a_fault",
            "--nocapture",
        ]);
        command
            .env(FAULT, fault)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().expect("a process");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let address = lines.map_while(Result::ok).find_map(|line| {
            let (_, address) = line.split_once("listening on ")?;
            Some(address.to_owned())
        });
        Self {
            child,
            address: address.expect("its address"),
        }
    }

    fn check(&self, only: &Selection) -> Came {
        against(&self.address, LIMIT, Some(self.child.id()), only)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// A server when this program is started for it, and nothing otherwise.
#[test]
fn is_a_server_if_it_is_told_a_fault() {
    let Ok(fault) = std::env::var(FAULT) else {
        return;
    };
    let known = ALL
        .iter()
        .find(|known| format!("{:?}", known.mutant) == fault);
    let mutant: Option<Mutant> = known.map(|known| known.mutant);
    std::thread::spawn(|| {
        _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, async {
        println!("listening on {}", crate::server::start(mutant));
        std::future::pending::<()>().await;
    });
}

#[test]
fn a_server_that_hoards_nothing_passes() {
    let came = Server::start("none").check(&selection(&["memory"], &[]));
    assert!(
        came.failed.is_empty() && came.skipped.is_empty(),
        "{came:#?}"
    );
}

#[test]
fn each_hoard_is_found_by_its_case_alone() {
    let known: Vec<_> = ALL
        .iter()
        .filter(|known| known.case.starts_with("memory/"))
        .collect();
    assert_eq!(known.len(), 5);
    let all: Vec<&str> = known.iter().map(|known| known.case).collect();
    std::thread::scope(|scope| {
        for fault in known {
            let only = all.clone();
            // What one case leaves behind would be found by the next: each has a server of its own.
            scope.spawn(move || {
                let failed = only.into_iter().filter(|case| {
                    let server = Server::start(&format!("{:?}", fault.mutant));
                    !server.check(&selection(&[case], &[])).failed.is_empty()
                });
                assert_eq!(failed.collect::<Vec<_>>(), [fault.case], "{fault:?}");
            });
        }
    });
}
