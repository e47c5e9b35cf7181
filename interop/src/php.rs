//! PHP-FPM with a pool of its own.

use std::path::PathBuf;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::process::{Process, read};
use crate::wait::{SOON, eventually, free_port};

/// Plain nginx before PHP-FPM, which no server of this project is to be worse than: every path is for `/index.php`.
#[derive(Debug)]
pub struct PlainNginx {
    _process: Process,
    port: u16,
    _dir: TempDir,
}

/// A running PHP-FPM, and the folder with its scripts.
#[derive(Debug)]
pub struct Php {
    process: Process,
    port: u16,
    dir: TempDir,
}

impl Php {
    /// Starts PHP-FPM with so many processes, and the script `/index.php` that the test gives, which reads bodies by itself.
    pub async fn start(children: u32, script: &str) -> Self {
        let own = "php_admin_value[enable_post_data_reading] = 0";
        Self::start_with(children, own, &[("index.php", script)]).await
    }

    /// Starts PHP-FPM with so many processes, further settings of its pool, in which DIR is a folder of its own, and files below its root.
    pub async fn start_with(children: u32, settings: &str, files: &[(&str, &str)]) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("afcgi-php")
            .tempdir()
            .expect("a temporary folder");
        let at = dir.path().display();
        let port = free_port();
        let config = format!(
            "[global]
daemonize = no
error_log = {at}/error.log
process_control_timeout = 5s
[www]
listen = 127.0.0.1:{port}
user = root
group = root
pm = static
pm.max_children = {children}
php_admin_value[post_max_size] = 64M
{}
",
            settings.replace("DIR", &at.to_string())
        );
        std::fs::write(dir.path().join("fpm.conf"), config).expect("fpm.conf");
        for (name, content) in files {
            let path = dir.path().join("www").join(name);
            std::fs::create_dir_all(path.parent().expect(name)).expect(name);
            std::fs::write(path, content).expect(name);
        }
        let mut command = Command::new(program());
        command
            .args(["--nodaemonize", "--allow-to-run-as-root", "--fpm-config"])
            .arg(dir.path().join("fpm.conf"));
        let mut process = Process::start("php-fpm", &command, &dir.path().join("log"));
        eventually("php-fpm listens", SOON, || {
            process.assert_running();
            async move {
                TcpStream::connect(("127.0.0.1", port))
                    .await
                    .map(drop)
                    .map_err(|error| error.to_string())
            }
        })
        .await;
        Self { process, port, dir }
    }

    /// Starts a PHP-FPM with so many pools that start a process when a request comes, which listen on unix sockets, see [`Php::socket`]. Files
    /// are as with [`Php::start_with`].
    pub async fn start_pools(count: usize, files: &[(&str, &str)]) -> Self {
        let pools: String = (0..count)
            .map(|n| {
                format!(
                    "[pool{n}]
listen = DIR/{n}.sock
user = root
group = root
pm = ondemand
pm.max_children = 4
pm.process_idle_timeout = 2s
env[POOL] = {n}
"
                )
            })
            .collect();
        let php = Self::start_with(1, &pools, files).await;
        let sockets = || (0..count).all(|n| PathBuf::from(php.socket(n)).exists());
        eventually("all pools listen", SOON, || async {
            sockets().then_some(()).ok_or_else(|| php.process.log())
        })
        .await;
        php
    }

    /// The socket of a pool.
    pub fn socket(&self, pool: usize) -> String {
        self.dir
            .path()
            .join(format!("{pool}.sock"))
            .display()
            .to_string()
    }

    /// The socket of a pool that is among the settings as `listen = DIR/NAME.sock`, once it is there.
    pub async fn socket_named(&self, name: &str) -> String {
        let path = self.dir.path().join(format!("{name}.sock"));
        eventually("the pool listens", SOON, || async {
            path.exists()
                .then_some(())
                .ok_or_else(|| self.process.log())
        })
        .await;
        path.display().to_string()
    }

    /// Has it begin anew: processes that work on a request have five seconds to end it.
    pub fn reload(&self) {
        let pid = i32::try_from(self.process.id())
            .ok()
            .and_then(Pid::from_raw);
        kill_process(pid.expect("a process id"), Signal::USR2).expect("a signal to PHP-FPM");
    }

    /// A file of its folder, which the settings call DIR and which is above that of the scripts; empty if it is not there.
    pub fn file(&self, name: &str) -> String {
        read(&self.dir.path().join(name))
    }

    /// Writes such a file.
    pub fn put(&self, name: &str, content: &str) {
        std::fs::write(self.dir.path().join(name), content).expect(name);
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of the scripts.
    pub fn root(&self) -> String {
        self.dir.path().join("www").display().to_string()
    }
}

impl PlainNginx {
    /// Starts it, and waits until it listens.
    pub async fn before(php: &Php) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let port = free_port();
        let (root, app) = (php.root(), php.port());
        let config = format!(
            "daemon off; user root; pid nginx.pid; error_log error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path body; fastcgi_temp_path fastcgi; proxy_temp_path proxy; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            fastcgi_param SCRIPT_FILENAME {root}/index.php;
            fastcgi_param SCRIPT_NAME /index.php;
            fastcgi_param REQUEST_URI $request_uri;
            fastcgi_param QUERY_STRING $query_string;
            fastcgi_param REQUEST_METHOD $request_method;
            fastcgi_param CONTENT_TYPE $content_type;
            fastcgi_param CONTENT_LENGTH $content_length;
            fastcgi_pass 127.0.0.1:{app};
        }}
    }}
}}
"
        );
        std::fs::write(dir.path().join("nginx.conf"), config).expect("nginx.conf");
        let mut command = Command::new("/usr/sbin/nginx");
        command.arg("-p").arg(dir.path());
        command.arg("-c").arg(dir.path().join("nginx.conf"));
        command.arg("-e").arg(dir.path().join("error.log"));
        let mut process = Process::start("nginx", &command, &dir.path().join("log"));
        eventually("nginx listens", SOON, || {
            process.assert_running();
            async move {
                TcpStream::connect(("127.0.0.1", port))
                    .await
                    .map(drop)
                    .map_err(|error| error.to_string())
            }
        })
        .await;
        Self {
            _process: process,
            port,
            _dir: dir,
        }
    }

    /// The URL of a path with its query.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}

/// The PHP-FPM of this machine.
pub fn program() -> PathBuf {
    let mut found: Vec<_> = std::fs::read_dir("/usr/sbin")
        .expect("/usr/sbin")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("php-fpm"))
        })
        .collect();
    found.sort();
    found.pop().expect("php-fpm in /usr/sbin (package php-fpm)")
}
