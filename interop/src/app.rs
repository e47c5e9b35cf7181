//! The applications under test: `afcgitest`, the examples `websocket` and `filter`, `afcgi demo`, and programs with the same routes as the
//! first that are not ours: over Go's net/http/fcgi, the C libfcgi, Perl's FCGI and Python's flup.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::process::Process;
use crate::wait::{SOON, eventually, free_port};

/// A running application on a port of 127.0.0.1.
#[derive(Debug)]
pub struct App {
    /// The process, for its log, its memory and its end.
    pub process: Process,
    name: String,
    command: Command,
    port: u16,
    dir: TempDir,
    /// Whether it is killed at the end of the test: it would take its time otherwise.
    hasty: bool,
}

impl App {
    /// Starts `afcgitest` with `options` and waits until it listens.
    pub async fn afcgitest(options: &[&str]) -> Self {
        let mut command = Command::new(afcgitest());
        command
            .args(options)
            .env_remove("FCGI_WEB_SERVER_ADDRS")
            .env_remove("LISTEN_FDS");
        Self::start("afcgitest", command).await
    }

    /// Starts the example `websocket` with `options` and waits until it listens.
    pub async fn websocket(options: &[&str]) -> Self {
        static BINARY: OnceLock<PathBuf> = OnceLock::new();
        let mut command = Command::new(BINARY.get_or_init(|| built("websocket")));
        command
            .args(options)
            .env_remove("FCGI_WEB_SERVER_ADDRS")
            .env_remove("LISTEN_FDS");
        Self::start("websocket", command).await
    }

    /// Starts the example `filter` and waits until it listens.
    pub async fn filter() -> Self {
        Self::example("filter").await
    }

    /// Starts an example that takes nothing but its address, and waits until it listens.
    pub async fn example(name: &str) -> Self {
        let mut command = Command::new(built(name));
        command
            .env_remove("FCGI_WEB_SERVER_ADDRS")
            .env_remove("LISTEN_FDS");
        Self::start(name, command).await
    }

    /// Starts `afcgi demo` on a port of 127.0.0.1, for a web server that has it at the URL `public`, and waits until it listens.
    pub async fn demo(port: u16, public: &str) -> Self {
        let mut command = Command::new(afcgi());
        command.args(["demo", "--public", public, "--behind"]);
        Self::start_at("afcgi demo", command, port).await
    }

    /// Starts `afcgi demo` with its own gateway and waits until it listens, by HTTP.
    pub async fn demo_alone() -> Self {
        let mut command = Command::new(afcgi());
        command.args(["demo", "--listen"]);
        Self::start("afcgi demo", command).await
    }

    /// Starts the Go program and waits until it listens.
    pub async fn go() -> Self {
        Self::start("go peer", Command::new(go_peer())).await
    }

    /// Starts the C program on libfcgi by spawn-fcgi: a thread and a connection for each request.
    pub async fn libfcgi() -> Self {
        Self::spawn_fcgi("libfcgi", &[libfcgi_peer().as_os_str()]).await
    }

    /// The same with so many threads, 64 at most.
    pub async fn libfcgi_with(threads: usize) -> Self {
        let threads = format!("THREADS={threads}");
        Self::spawn_fcgi("libfcgi", &[threads.as_ref(), libfcgi_peer().as_os_str()]).await
    }

    /// Starts the program on Perl's FCGI by spawn-fcgi: eight processes, each with one request at a time.
    pub async fn perl() -> Self {
        let script = workspace().join("interop/peers/perl/app.pl");
        Self::spawn_fcgi("perl", &["perl".as_ref(), script.as_os_str()]).await
    }

    /// Starts the program on Python's flup by spawn-fcgi: a thread and a connection for each request.
    pub async fn flup() -> Self {
        let script = workspace().join("interop/peers/flup/app.py");
        Self::spawn_fcgi("flup", &["python3".as_ref(), script.as_os_str()]).await
    }

    /// The same, which takes all requests on one connection, with a thread for each.
    pub async fn flup_multiplexed() -> Self {
        let script = workspace().join("interop/peers/flup/app.py");
        let program = [
            "python3".as_ref(),
            script.as_os_str(),
            "multiplexed".as_ref(),
        ];
        Self::spawn_fcgi("flup", &program).await
    }

    async fn spawn_fcgi(name: &str, program: &[&OsStr]) -> Self {
        let port = free_port();
        let mut command = Command::new("spawn-fcgi");
        command
            .args(["-n", "-a", "127.0.0.1", "-p", &port.to_string()])
            // It looks for no program by itself.
            .args(["--", "/usr/bin/env"])
            .args(program)
            .env("PYTHONPATH", workspace().join("target/interop/flup"))
            .env_remove("FCGI_WEB_SERVER_ADDRS");
        let mut app = Self::run(name, command, port).await;
        app.hasty = true;
        app
    }

    async fn start(name: &str, command: Command) -> Self {
        Self::start_at(name, command, free_port()).await
    }

    async fn start_at(name: &str, mut command: Command, port: u16) -> Self {
        command.arg(format!("127.0.0.1:{port}"));
        Self::run(name, command, port).await
    }

    async fn run(name: &str, command: Command, port: u16) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let process = Process::start(name, &command, &dir.path().join("log"));
        let mut app = Self {
            process,
            name: name.to_owned(),
            command,
            port,
            dir,
            hasty: false,
        };
        app.listens().await;
        app
    }

    async fn listens(&mut self) {
        let (name, port, process) = (&self.name, self.port, &mut self.process);
        eventually(&format!("{name} listens"), SOON, || {
            process.assert_running();
            async move {
                TcpStream::connect(("127.0.0.1", port))
                    .await
                    .map(drop)
                    .map_err(|error| error.to_string())
            }
        })
        .await;
    }

    /// Kills it with all processes that it has started (SIGKILL), and waits until nobody listens any more.
    pub async fn kill(&mut self) {
        self.process.kill_all();
        eventually("nobody listens", SOON, || async {
            match TcpStream::connect(("127.0.0.1", self.port)).await {
                Ok(_) => Err(String::from("somebody does")),
                Err(_) => Ok(()),
            }
        })
        .await;
    }

    /// Starts it once more after [`kill`](Self::kill), on the same port, and waits until it listens.
    pub async fn start_again(&mut self) {
        let log = self.dir.path().join("log");
        self.process = Process::start(&self.name, &self.command, &log);
        self.listens().await;
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of a path, for one that serves HTTP.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}

impl Drop for App {
    fn drop(&mut self) {
        if self.hasty {
            self.process.kill_all();
        }
    }
}

/// The `afcgitest` binary: the one named by the environment variable AFCGITEST, or built now.
pub fn afcgitest() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("AFCGITEST") {
            let path = PathBuf::from(path);
            assert!(
                path.is_file(),
                "AFCGITEST names no file: {}",
                path.display()
            );
            return path;
        }
        built("afcgitest")
    })
}

/// The `afcgi` binary: the one named by the environment variable AFCGI, or built now.
pub fn afcgi() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let Some(path) = std::env::var_os("AFCGI") else {
            return built("afcgi");
        };
        let path = PathBuf::from(path);
        assert!(path.is_file(), "AFCGI names no file: {}", path.display());
        path
    })
}

/// Builds one of our binaries.
fn built(name: &str) -> PathBuf {
    let mut command = Command::new(env!("CARGO"));
    command
        .args(["build", "--quiet", "--bin", name, "--message-format=json"])
        .current_dir(workspace());
    let output = run(&mut command, "cargo");
    // Of the lines of JSON, the one of the binary is the only one with an executable.
    output
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find_map(|message| message.get("executable")?.as_str().map(PathBuf::from))
        .expect("cargo build names the executable")
}

fn go_peer() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| compiled("go-peer", &workspace().join("interop/peers/go")))
}

/// The C program on libfcgi.
pub fn libfcgi_peer() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| compiled("libfcgi-peer", &workspace().join("interop/peers/libfcgi")))
}

/// A program that is not ours, built now from the folder of its source: `main.go`, or `main.c` with libfcgi.
pub fn compiled(name: &str, source: &Path) -> PathBuf {
    once(name, |own| {
        if source.join("main.c").is_file() {
            let mut command = Command::new("cc");
            command
                .args(["-O1", "-Wall", "-o"])
                .arg(own)
                .arg(source.join("main.c"))
                .args(["-lfcgi", "-lpthread"]);
            run(&mut command, "cc (packages gcc and libfcgi-dev)");
            return;
        }
        let mut command = Command::new("go");
        command
            .args(["build", "-o"])
            .arg(own)
            .arg(".")
            .current_dir(source);
        command
            .env("GOCACHE", workspace().join("target/interop/go-cache"))
            .env("GOFLAGS", "-mod=mod")
            .env("GOTOOLCHAIN", "local")
            .env("CGO_ENABLED", "0");
        run(&mut command, "go (package golang-go)");
    })
}

/// A program in `target/interop`. Test programs may build it at the same time: each under its own name, renamed when it is whole.
fn once(name: &str, build: impl FnOnce(&Path)) -> PathBuf {
    let target = workspace().join("target/interop");
    std::fs::create_dir_all(&target).expect("target/interop");
    let own = target.join(format!("{name}.{}", std::process::id()));
    let binary = target.join(name);
    build(&own);
    std::fs::rename(&own, &binary).expect("renaming the program");
    binary
}

/// The folder of this project.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the folder above interop/")
}

fn run(command: &mut Command, name: &str) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{name} cannot be run: {error}"));
    assert!(
        output.status.success(),
        "{name}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
