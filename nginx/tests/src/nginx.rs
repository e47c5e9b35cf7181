//! An nginx with the module, in a folder of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use afcgi_interop::process::Process;
use afcgi_interop::wait::{SOON, eventually, free_port};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use tempfile::TempDir;
use tokio::net::TcpStream;

/// What an application is told of a request.
pub const PARAMS: &str = "
    fastcgi_param QUERY_STRING $query_string;
    fastcgi_param REQUEST_METHOD $request_method;
    fastcgi_param CONTENT_TYPE $content_type;
    fastcgi_param CONTENT_LENGTH $content_length;
    fastcgi_param SCRIPT_NAME $fastcgi_script_name;
    fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;
    fastcgi_param REQUEST_URI $request_uri;
    fastcgi_param SERVER_PROTOCOL $server_protocol;
    fastcgi_param REMOTE_ADDR $remote_addr;
";

/// A running nginx. When it is dropped it is ended, and its error log must hold nothing worse than errors.
#[derive(Debug)]
pub struct Nginx {
    /// The master process.
    pub process: Process,
    port: u16,
    dir: TempDir,
    /// A text that marks a line of the log as wanted.
    wanted: Option<&'static str>,
}

/// The nginx to test in.
pub fn program() -> PathBuf {
    let vendored = build().join("nginx");
    if vendored.is_file() {
        vendored
    } else {
        PathBuf::from("/usr/sbin/nginx")
    }
}

/// The version of that nginx.
pub fn version() -> [u32; 3] {
    let output = Command::new(program()).arg("-v").output();
    let output = output.expect("nginx -v");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let (_, numbers) = text.split_once("nginx/").expect("a version");
    let numbers = numbers.split_whitespace().next().expect("numbers");
    let mut numbers = (numbers.split('.')).map(|number| number.parse().expect("a number"));
    [(); 3].map(|()| numbers.next().expect("three numbers"))
}

/// Lets this process, and what it starts, have as many descriptors as it may.
fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).expect("a limit below the hard one");
}

fn build() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../build")
}

fn module(file: &str) -> String {
    let module = build().join(file);
    assert!(
        module.is_file(),
        "{} is not there: run make module, and nginx/build.sh --faults",
        module.display()
    );
    module.display().to_string()
}

/// The module as users have it.
const MODULE: &str = "ngx_http_fastcgi_multiplex_module.so";

/// A module that makes mistakes on purpose, and how it is told which.
const FAULTS: &str = "faults.so";

/// A folder with a configuration: `http` is what the http block holds, besides what every test needs.
pub fn configure(workers: u32, http: &str) -> TempDir {
    Setup {
        workers,
        ..Setup::default()
    }
    .configure(http)
}

/// What is around the http block of a configuration.
struct Setup {
    module: &'static str,
    /// Directives at the top.
    main: &'static str,
    workers: u32,
    /// Connections of a worker, those of its clients included.
    connections: u32,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            module: MODULE,
            main: "",
            workers: 1,
            connections: 16_000,
        }
    }
}

impl Setup {
    fn configure(&self, http: &str) -> TempDir {
        let dir = tempfile::Builder::new()
            .prefix("afcgi-nginx")
            .tempdir()
            .expect("a temporary folder");
        let Self {
            main,
            workers,
            connections,
            ..
        } = self;
        let module = module(self.module);
        let config = format!(
            "load_module {module};
{main}
daemon off;
user root;
worker_processes {workers};
worker_shutdown_timeout 60s;
pid nginx.pid;
error_log error.log info;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    client_body_temp_path body;
    fastcgi_temp_path fastcgi;
    proxy_temp_path proxy;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    client_max_body_size 200m;
    {PARAMS}
    {http}
}}
"
        );
        std::fs::write(dir.path().join("nginx.conf"), config).expect("nginx.conf");
        dir
    }
}

fn command(dir: &Path) -> Command {
    let mut command = Command::new(program());
    command
        .arg("-p")
        .arg(dir)
        .args(["-c", "nginx.conf", "-e", "error.log"]);
    command
}

/// What `nginx -t` says of a configuration: whether it is accepted, and its words.
pub fn check(http: &str) -> (bool, String) {
    let dir = configure(1, http);
    let output = command(dir.path()).arg("-t").output().expect("nginx -t");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), text)
}

impl Nginx {
    /// Starts nginx with `LISTEN` in `http` replaced by its address, and waits until it listens.
    pub async fn start(workers: u32, http: &str) -> Self {
        let setup = Setup {
            workers,
            ..Setup::default()
        };
        Self::start_with(setup, http).await
    }

    /// An nginx with one worker that may have so many connections, those of its clients included.
    pub async fn with_connections(connections: u32, http: &str) -> Self {
        let setup = Setup {
            connections,
            ..Setup::default()
        };
        Self::start_with(setup, http).await
    }

    /// An nginx with one worker like that of [`Nginx::before`], and with the module that panics now and then.
    pub async fn panicking(app: u16) -> Self {
        let http = format!(
            "fastcgi_multiplex on;
             server {{ listen LISTEN; location / {{ fastcgi_pass 127.0.0.1:{app}; }} }}"
        );
        let setup = Setup {
            module: FAULTS,
            main: "env AFCGI_FAULT=panics;",
            ..Setup::default()
        };
        let mut nginx = Self::start_with(setup, &http).await;
        nginx.wanted = Some("injected");
        nginx
    }

    /// An nginx with one worker whose module now and then takes a connection to another application.
    pub async fn misdirecting(http: &str) -> Self {
        let setup = Setup {
            module: FAULTS,
            main: "env AFCGI_FAULT=misdirects;",
            ..Setup::default()
        };
        let mut nginx = Self::start_with(setup, http).await;
        nginx.wanted = Some("was not put on a connection to");
        nginx
    }

    async fn start_with(setup: Setup, http: &str) -> Self {
        raise_limit();
        let port = free_port();
        let http = http.replace("LISTEN", &format!("127.0.0.1:{port} backlog=8192"));
        let dir = setup.configure(&http);
        let process = Process::start("nginx", &command(dir.path()), &dir.path().join("log"));
        let mut nginx = Self {
            process,
            port,
            dir,
            wanted: None,
        };
        eventually("nginx listens", SOON, || {
            nginx.process.assert_running();
            async move {
                TcpStream::connect(("127.0.0.1", port))
                    .await
                    .map(drop)
                    .map_err(|error| error.to_string())
            }
        })
        .await;
        nginx
    }

    /// An nginx with one worker that passes everything to the application on a port, with more directives in its location.
    pub async fn before(app: u16, more: &str) -> Self {
        Self::start(
            1,
            &format!(
                "fastcgi_multiplex on;
                 server {{ listen LISTEN; location / {{ {more} fastcgi_pass 127.0.0.1:{app}; }} }}"
            ),
        )
        .await
    }

    /// The URL of a path with its query.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its folder, in which relative paths of the configuration are.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        let log = std::fs::read(self.dir().join("error.log")).unwrap_or_default();
        self.process.log() + &String::from_utf8_lossy(&log)
    }

    /// Waits until the log holds a text.
    pub async fn logs(&self, text: &str) {
        eventually(&format!("{text:?} is in the log"), SOON, || async {
            if self.log().contains(text) {
                Ok(())
            } else {
                Err(String::from("it is not"))
            }
        })
        .await;
    }

    /// The process ids of its workers, old ones that are about to leave included.
    pub fn workers(&self) -> Vec<u32> {
        let id = self.process.id();
        // The master forks from its only thread.
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        children
            .unwrap_or_default()
            .split_whitespace()
            .filter_map(|id| id.parse().ok())
            .collect()
    }

    /// The same when there are any: the master listens before it has started them.
    pub async fn started_workers(&self) -> Vec<u32> {
        eventually("it has workers", SOON, || async {
            match self.workers() {
                workers if workers.is_empty() => Err(String::from("none")),
                workers => Ok(workers),
            }
        })
        .await
    }

    /// Asks for a reload, and waits until it has new workers, and the old ones accept no more clients.
    pub async fn reload(&self) {
        let before = self.workers();
        self.signal(Signal::HUP);
        eventually("new workers", SOON, || async {
            if !self.workers().iter().any(|id| !before.contains(id)) {
                return Err(String::from("only the old ones"));
            }
            // The line before a worker closes what it listens on, with nothing between them.
            let log = self.log();
            let accepts =
                |id: &&u32| !log.contains(&format!("{id}#{id}: gracefully shutting down"));
            match before.iter().find(accepts) {
                None => Ok(()),
                Some(id) => Err(format!("worker {id} still accepts clients")),
            }
        })
        .await;
    }

    /// Waits until it has so many workers.
    pub async fn has_workers(&self, count: usize) {
        eventually("the old workers leave", Duration::from_secs(60), || async {
            match self.workers().len() {
                found if found == count => Ok(()),
                found => Err(format!("{found} workers")),
            }
        })
        .await;
    }

    /// Waits until it has left.
    pub async fn has_left(&mut self) {
        eventually("nginx leaves", SOON, || {
            let status = self.process.exited();
            async move { status.map(drop).ok_or_else(|| String::from("it runs")) }
        })
        .await;
    }

    /// Asks it to quit when its requests have ended.
    pub fn quit(&self) {
        self.signal(Signal::QUIT);
    }

    /// Kills a worker, and takes it that nginx finds that alarming.
    pub fn kill_worker(&mut self, id: u32) {
        self.wanted = Some("exited on signal 9");
        kill(id, Signal::KILL);
    }

    /// Takes it that nginx finds what is in lines with this text alarming.
    pub fn wants(&mut self, text: &'static str) {
        self.wanted = Some(text);
    }

    fn signal(&self, signal: Signal) {
        kill(self.process.id(), signal);
    }

    /// Fails the test if nginx has logged that something is wrong with itself.
    pub fn assert_clean(&self) {
        let log = self.log();
        for line in log.lines() {
            let wanted = self.wanted.is_some_and(|text| line.contains(text));
            let bad = ["[emerg]", "[alert]", "[crit]"]
                .iter()
                .any(|level| line.contains(level));
            assert!(!bad || wanted, "in nginx's log: {line}");
        }
    }
}

fn kill(id: u32, signal: Signal) {
    let pid = i32::try_from(id)
        .ok()
        .and_then(Pid::from_raw)
        .expect("a process id");
    kill_process(pid, signal).expect("a signal to nginx");
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let shown = lines.get(lines.len().saturating_sub(30)..);
            eprintln!("--- nginx:\n{}\n---", shown.unwrap_or_default().join("\n"));
            return;
        }
        if self.process.exited().is_none() {
            // Not to quit: it would wait for HTTP connections that the client of the test has opened and not used.
            self.process.stop();
        }
        let status = self.process.exited();
        assert!(
            status.is_some_and(|status| status.success()),
            "nginx has ended with {status:?}"
        );
        self.assert_clean();
    }
}
