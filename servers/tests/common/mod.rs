//! What the tests of the servers share: a server in a process of its own, web servers in front of
//! it, and [`client`], a FastCGI client on the protocol crate, with [`tunnel`] on it.
//!
//! Everything runs from a temporary folder and ends with its guard.

#![allow(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod client;
pub(crate) mod tunnel;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use afcgi_interop::process::Process;
use afcgi_interop::wait::{SOON, eventually, free_port};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::net::{TcpStream, UnixStream};

use client::Client;

/// A server that listens on a unix socket in a temporary folder.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) folder: TempDir,
}

impl Server {
    /// Starts a binary with these options and the address of its socket, and waits until it listens.
    pub(crate) async fn start(binary: &str, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = command(binary);
        command.args(options).arg(folder.path().join("app.sock"));
        let mut process = start(&command, folder.path());
        listens_unix(&mut process, &folder.path().join("app.sock")).await;
        Self { process, folder }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("app.sock")
    }

    pub(crate) async fn client(&self) -> Client {
        Client::unix(&self.socket()).await
    }
}

/// A command without what the environment may say of FastCGI and logs.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    for name in [
        "FCGI_WEB_SERVER_ADDRS",
        "LISTEN_FDS",
        "LISTEN_PID",
        "RUST_LOG",
    ] {
        command.env_remove(name);
    }
    command
}

/// Starts a command; its log is kept in the folder.
pub(crate) fn start(command: &Command, folder: &Path) -> Process {
    let program = Path::new(command.get_program());
    let name = program
        .file_name()
        .expect("a name")
        .to_string_lossy()
        .into_owned();
    Process::start(&name, command, &folder.join(format!("{name}.log")))
}

/// Waits until somebody listens on a unix socket.
pub(crate) async fn listens_unix(process: &mut Process, socket: &Path) {
    eventually("it listens", SOON, || {
        process.assert_running();
        async {
            UnixStream::connect(socket)
                .await
                .map(drop)
                .map_err(|error| error.to_string())
        }
    })
    .await;
}

/// Waits until somebody listens on a TCP address.
pub(crate) async fn listens_tcp(process: &mut Process, address: &str) {
    eventually("it listens", SOON, || {
        process.assert_running();
        async {
            TcpStream::connect(address)
                .await
                .map(drop)
                .map_err(|error| error.to_string())
        }
    })
    .await;
}

/// Waits until a process has left.
pub(crate) async fn left(process: &mut Process) -> ExitStatus {
    eventually("it leaves", SOON, || {
        let status = process.exited();
        async move { status.ok_or_else(|| "it runs".to_owned()) }
    })
    .await
}

/// Waits until a text is in a process's log.
pub(crate) async fn logs(process: &Process, text: &str) {
    eventually(&format!("{text:?} is logged"), SOON, || async {
        let log = process.log();
        if log.contains(text) { Ok(()) } else { Err(log) }
    })
    .await;
}

/// Sends a signal to a process that has not been waited for.
pub(crate) fn signal(process: &mut Process, signal: Signal) {
    process.assert_running();
    let id = i32::try_from(process.id()).expect("a process id");
    kill_process(Pid::from_raw(id).expect("a process id"), signal).expect("a signal");
}

/// A web server on a port of 127.0.0.1.
#[derive(Debug)]
pub(crate) struct Web {
    pub(crate) process: Process,
    pub(crate) url: String,
    _folder: TempDir,
}

impl Web {
    /// The nginx of the distribution, with these lines in its `server` block. Two workers.
    pub(crate) async fn nginx(lines: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = free_port();
        let config = format!(
            "daemon off; user root; worker_processes 2; pid nginx.pid; error_log error.log info;
             events {{ worker_connections 1024; }}
             http {{
                 access_log off;
                 client_body_temp_path body; fastcgi_temp_path fastcgi; proxy_temp_path proxy;
                 uwsgi_temp_path uwsgi; scgi_temp_path scgi;
                 client_max_body_size 0;
                 include /etc/nginx/fastcgi_params;
                 server {{ listen 127.0.0.1:{port}; {lines} }}
             }}"
        );
        std::fs::write(folder.path().join("nginx.conf"), config).expect("nginx.conf");
        let mut command = Command::new("/usr/sbin/nginx");
        command
            .arg("-p")
            .arg(folder.path())
            .args(["-c", "nginx.conf", "-e", "error.log"]);
        Self::start(&command, folder, port).await
    }

    /// lighttpd, with the files of a folder, and these lines in its configuration.
    pub(crate) async fn lighttpd(documents: &Path, lines: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = free_port();
        let (at, documents) = (folder.path().display(), documents.display());
        let config = format!(
            "server.document-root = \"{documents}\"\nserver.bind = \"127.0.0.1\"\nserver.port = {port}\n\
             server.errorlog = \"{at}/error.log\"\nserver.modules = ( \"mod_fastcgi\" )\n{lines}\n"
        );
        let file = folder.path().join("lighttpd.conf");
        std::fs::write(&file, config).expect("lighttpd.conf");
        let mut command = Command::new("/usr/sbin/lighttpd");
        command.arg("-D").arg("-f").arg(file);
        Self::start(&command, folder, port).await
    }

    async fn start(command: &Command, folder: TempDir, port: u16) -> Self {
        let mut process = start(command, folder.path());
        listens_tcp(&mut process, &format!("127.0.0.1:{port}")).await;
        Self {
            process,
            url: format!("http://127.0.0.1:{port}"),
            _folder: folder,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }
}
