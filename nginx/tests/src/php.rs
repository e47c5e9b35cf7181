//! PHP-FPM with a pool of its own.

use std::path::PathBuf;
use std::process::Command;

use afcgi_interop::process::Process;
use afcgi_interop::wait::{SOON, eventually, free_port};
use tempfile::TempDir;
use tokio::net::TcpStream;

/// A running PHP-FPM, and the folder with its scripts.
#[derive(Debug)]
pub struct Php {
    _process: Process,
    port: u16,
    dir: TempDir,
}

impl Php {
    /// Starts PHP-FPM with so many processes, and the script `/index.php` that the test gives.
    pub async fn start(children: u32, script: &str) -> Self {
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
[www]
listen = 127.0.0.1:{port}
user = root
group = root
pm = static
pm.max_children = {children}
php_admin_value[post_max_size] = 64M
php_admin_value[enable_post_data_reading] = 0
"
        );
        std::fs::write(dir.path().join("fpm.conf"), config).expect("fpm.conf");
        std::fs::write(dir.path().join("index.php"), script).expect("index.php");
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
        Self {
            _process: process,
            port,
            dir,
        }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of the scripts.
    pub fn root(&self) -> String {
        self.dir.path().display().to_string()
    }
}

fn program() -> PathBuf {
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
