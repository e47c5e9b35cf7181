//! The gateway of this project with flags, a configuration and its numbers: for tests of itself.
//!
//! [`Gateway`](crate::gateway::Gateway) starts it as its users do; this one has more to look at.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use reqwest::Client;
use tempfile::TempDir;

use crate::app::afcgi;
use crate::http::{client, get_ok};
use crate::process::{Process, Signal};
use crate::wait::{SOON, eventually, free_port};

/// A running gateway.
#[derive(Debug)]
pub struct Own {
    /// The process, for its log, its memory and its end.
    pub process: Process,
    port: u16,
    admin: u16,
    client: Client,
    dir: TempDir,
}

impl Own {
    /// In front of the application on a port of 127.0.0.1, with further keys of its upstream.
    pub async fn before(app: u16, keys: &str) -> Self {
        Self::start(&[], &upstream(app, keys)).await
    }

    /// With flags and a configuration.
    pub async fn start(flags: &[&str], config: &str) -> Self {
        Self::run(Command::new(afcgi()), flags, config).await
    }

    /// With a file of its own in place of `/etc/hosts`, which may change: in a mount namespace of its own.
    pub async fn with_hosts(hosts: &Path, config: &str) -> Self {
        let mut command = Command::new("unshare");
        if !rustix::process::getuid().is_root() {
            command.arg("--map-root-user");
        }
        command.args(["--mount", "sh", "-c"]);
        command.arg("mount --bind \"$1\" /etc/hosts && shift && exec \"$@\"");
        command.arg("sh").arg(hosts).arg(afcgi());
        Self::run(command, &[], config).await
    }

    async fn run(mut command: Command, flags: &[&str], config: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (port, admin) = (free_port(), free_port());
        std::fs::write(dir.path().join("gateway.toml"), config).expect("gateway.toml");
        command.arg("gateway").args(flags);
        command.args(["--listen", &format!("127.0.0.1:{port}")]);
        command.args(["--admin", &format!("127.0.0.1:{admin}")]);
        command.args([
            "--access-log".as_ref(),
            dir.path().join("access").as_os_str(),
        ]);
        command.args([
            "--config".as_ref(),
            dir.path().join("gateway.toml").as_os_str(),
        ]);
        let process = Process::start("afcgi gateway", &command, &dir.path().join("log"));
        let mut gateway = Self {
            process,
            port,
            admin,
            client: client(),
            dir,
        };
        let process = &mut gateway.process;
        eventually("the gateway listens", SOON, || {
            process.assert_running();
            let log = process.log();
            async move {
                match log.contains("listening on ") {
                    true => Ok(()),
                    false => Err(log),
                }
            }
        })
        .await;
        gateway
    }

    /// The port where it serves HTTP.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port of its numbers, `/metrics`.
    pub fn admin_port(&self) -> u16 {
        self.admin
    }

    /// The URL of a path with its query.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Its configuration, which is read again at SIGHUP.
    pub fn config_path(&self) -> PathBuf {
        self.dir.path().join("gateway.toml")
    }

    /// Sends it a signal.
    pub fn signal(&mut self, signal: Signal) {
        self.process.signal(signal);
    }

    /// The access log so far.
    pub fn access_log(&self) -> String {
        crate::process::read(&self.dir.path().join("access"))
    }

    /// Waits for a line of the log that holds all of the words.
    pub async fn logs(&self, words: &[&str]) {
        eventually("a line in the log", SOON, || async {
            let log = self.process.log();
            let found = |line: &str| words.iter().all(|word| line.contains(word));
            match log.lines().any(found) {
                true => Ok(()),
                false => Err(format!("no line with {words:?} in:\n{log}")),
            }
        })
        .await;
    }

    /// Its numbers, by their names without `afcgi_gateway_` and with their labels.
    pub async fn metrics(&self) -> BTreeMap<String, f64> {
        let url = format!("http://127.0.0.1:{}/metrics", self.admin);
        let text = get_ok(&self.client, &url).await;
        let text = String::from_utf8(text.to_vec()).expect("text");
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| {
                let (name, value) = line.rsplit_once(' ').expect(line);
                let name = name.strip_prefix("afcgi_gateway_").expect(line);
                (name.to_owned(), value.parse().expect(line))
            })
            .collect()
    }

    /// One number of the upstream `app`.
    pub async fn upstream(&self, name: &str) -> f64 {
        self.metrics().await[&format!("upstream_{name}{{upstream=\"app\"}}")]
    }

    /// Waits until so many requests are being answered.
    pub async fn active(&self, count: usize) {
        eventually(&format!("{count} are active"), SOON, || async {
            let active = self.metrics().await["requests_active"];
            match active == count as f64 {
                true => Ok(()),
                false => Err(format!("{active} are")),
            }
        })
        .await;
    }

    /// Waits until nothing is going on: nothing is held for a request or a client that is gone.
    pub async fn is_idle(&self) {
        eventually("nothing goes on", SOON, || async {
            let metrics = self.metrics().await;
            let busy = |name: &&String| {
                let tells = name.contains("_active") || name.contains("_waiting");
                tells && metrics[*name] != 0.0
            };
            match metrics.keys().find(busy) {
                None => Ok(()),
                Some(name) => Err(format!("{name} is {}", metrics[name])),
            }
        })
        .await;
    }
}

/// A configuration with the upstream `app` on a port of 127.0.0.1, with further keys, and a route to it.
pub fn upstream(port: u16, keys: &str) -> String {
    format!(
        "[upstream.app]\naddresses = [\"127.0.0.1:{port}\"]\n{keys}\n[[route]]\nupstream = \"app\"\n"
    )
}

/// A folder with a certificate for 127.0.0.1, `cert.pem`, and its `key.pem`.
pub fn certificate() -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let output = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ])
        .args([
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
        ])
        .args(["-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(dir.path())
        .output()
        .expect("openssl (package openssl)");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    dir
}
