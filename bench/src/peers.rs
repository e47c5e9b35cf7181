//! The application servers that are compared: how each is built, started and what it can do.

use std::path::{Path, PathBuf};
use std::process::Command;

use afcgi_bench::load::Target;
use afcgi_bench::process::{Process, free_port};
use anyhow::{Context, Result, bail};

/// One server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    /// Its row's name.
    pub(crate) name: &'static str,
    source: Source,
    program: &'static str,
    /// Written before the port in its first argument.
    prefix: &'static str,
    /// Further arguments.
    arguments: &'static [&'static str],
    /// Whether it serves more than one request on a connection at once.
    pub(crate) multiplexes: bool,
    /// Whether a query of `ms=N` holds a request.
    pub(crate) holds: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// A program of this workspace.
    Own,
    /// `bench/peers/`, the workspace there.
    Rust,
    /// The folder of a Go program.
    Go(&'static str),
    C,
}

/// The row that every other is a multiple of.
pub(crate) const OWN: &str = "afcgitest";

/// All of them, in the order of rows.
pub(crate) const PEERS: [Peer; 7] = [
    Peer {
        name: "raw epoll, canned reply",
        source: Source::Rust,
        program: "peer-raw-epoll",
        prefix: "127.0.0.1:",
        arguments: &[],
        multiplexes: true,
        holds: false,
    },
    Peer {
        name: "bare tokio",
        source: Source::Rust,
        program: "peer-bare-tokio",
        prefix: "127.0.0.1:",
        arguments: &[],
        multiplexes: true,
        holds: true,
    },
    Peer {
        name: OWN,
        source: Source::Own,
        program: "afcgitest",
        prefix: "127.0.0.1:",
        // As many as there are ids, so that 20,000 can be held on one connection.
        arguments: &["--max-connection-requests=65535", "--max-requests=65535"],
        multiplexes: true,
        holds: true,
    },
    Peer {
        name: "hello (axum)",
        source: Source::Own,
        program: "hello",
        prefix: "127.0.0.1:",
        arguments: &[],
        multiplexes: true,
        holds: false,
    },
    Peer {
        name: "tokio-fastcgi 1.3.0",
        source: Source::Rust,
        program: "peer-tokio-fastcgi",
        prefix: "127.0.0.1:",
        arguments: &[],
        multiplexes: true,
        holds: true,
    },
    Peer {
        name: "Go net/http/fcgi",
        source: Source::Go("bench/peers/go"),
        program: "peer-go",
        prefix: "127.0.0.1:",
        arguments: &[],
        multiplexes: true,
        holds: true,
    },
    Peer {
        name: "C libfcgi, 64 threads",
        source: Source::C,
        program: "peer-libfcgi",
        prefix: ":",
        arguments: &[],
        multiplexes: false,
        holds: false,
    },
];

/// The canned-reply application, which also stands behind the gateways.
pub(crate) const RAW: Peer = PEERS[0];

/// [`OWN`] as it is by default.
pub(crate) const ROUTES: Peer = Peer {
    name: OWN,
    source: Source::Own,
    program: "afcgitest",
    prefix: "127.0.0.1:",
    arguments: &[],
    multiplexes: true,
    holds: true,
};

/// [`OWN`] with room for those who have a connection for each request.
pub(crate) const HOLDING: Peer = Peer {
    arguments: &["--max-connections=16384"],
    ..ROUTES
};

/// The routes of afcgitest on Go's net/http/fcgi.
pub(crate) const GO_ROUTES: Peer = Peer {
    name: "Go net/http/fcgi",
    source: Source::Go("interop/peers/go"),
    program: "peer-go-routes",
    prefix: "127.0.0.1:",
    arguments: &[],
    multiplexes: true,
    holds: true,
};

/// Where sources and programs are.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// The workspace.
    pub(crate) root: PathBuf,
    /// Its programs, built for release.
    release: PathBuf,
    /// What is built from `bench/peers/`.
    peers: PathBuf,
}

impl Places {
    pub(crate) fn find() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("no workspace above bench/")?
            .to_owned();
        let target = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| root.join("target"), |target| root.join(target));
        Ok(Self {
            root,
            release: target.join("release"),
            peers: target.join("peers"),
        })
    }

    /// Builds all that `peers` need. A tool that is missing is an error that names it.
    pub(crate) fn build(&self, peers: &[Peer]) -> Result<()> {
        let of = |source| peers.iter().filter(move |peer| peer.source == source);
        let own: Vec<_> = of(Source::Own).map(|peer| peer.program).collect();
        if !own.is_empty() {
            self.build_own(&own)?;
        }
        if of(Source::Rust).next().is_some() {
            let target = self.peers.as_os_str();
            let folder = self.root.join("bench/peers");
            command(
                Command::new("cargo")
                    .current_dir(folder)
                    .args(["build", "--release", "--quiet", "--locked", "--target-dir"])
                    .arg(target),
            )?;
        }
        std::fs::create_dir_all(&self.peers)?;
        for peer in peers {
            let Source::Go(folder) = peer.source else {
                continue;
            };
            command(
                Command::new("go")
                    .current_dir(self.root.join(folder))
                    .args(["build", "-o"])
                    .arg(self.program(peer))
                    .arg("."),
            )?;
        }
        for peer in of(Source::C) {
            let source = self.root.join("bench/peers/libfcgi/main.c");
            command(
                Command::new("cc")
                    .args(["-O2", "-o"])
                    .arg(self.program(peer))
                    .arg(source)
                    .args(["-lfcgi", "-lpthread"]),
            )?;
        }
        Ok(())
    }

    /// Builds programs of this workspace.
    pub(crate) fn build_own(&self, programs: &[&str]) -> Result<()> {
        let bins = programs.iter().flat_map(|program| ["--bin", program]);
        command(
            Command::new("cargo")
                .current_dir(&self.root)
                .args(["build", "--workspace", "--release", "--quiet", "--locked"])
                .args(bins),
        )
    }

    /// Starts a peer on a free port of 127.0.0.1 and waits until it listens.
    pub(crate) fn start(&self, peer: &Peer, core: usize, home: usize) -> Result<(Process, Target)> {
        let port = free_port()?;
        let program = self.program(peer).display().to_string();
        let mut command = vec![program, format!("{}{port}", peer.prefix)];
        command.extend(peer.arguments.iter().map(|&argument| argument.to_owned()));
        let mut process = Process::spawn(peer.name, &command, core, home)?;
        let target = Target::Tcp(([127, 0, 0, 1], port).into());
        process.wait_for(&target)?;
        Ok((process, target))
    }

    /// A program of this workspace.
    pub(crate) fn own(&self, name: &str) -> PathBuf {
        self.release.join(name)
    }

    fn program(&self, peer: &Peer) -> PathBuf {
        match peer.source {
            Source::Own => self.own(peer.program),
            Source::Rust => self.peers.join("release").join(peer.program),
            Source::Go(_) | Source::C => self.peers.join(peer.program),
        }
    }
}

fn command(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}");
    let status = command
        .status()
        .with_context(|| format!("cannot run {shown}"))?;
    if !status.success() {
        bail!("{shown}: {status}");
    }
    Ok(())
}
