//! The web servers in front of the application, each with a configuration as its users write it.
//!
//! None of them is a daemon of the distribution: each runs in the foreground from a temporary folder on a free port.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::http;
use crate::process::{Process, read, tail};
use crate::wait::{SOON, eventually, free_port};

/// A web server that speaks FastCGI to applications.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Stock nginx: a connection per request, response not buffered so that events come as they are sent.
    Nginx,
    /// nginx with the module of this project: all requests of a worker on one connection. The module must be built (`make module`).
    /// Its status page is at `/fastcgi-status`.
    Module,
    /// HAProxy with `mpxs-conns`: several requests on a connection, with odd ids.
    Haproxy,
    /// lighttpd: a connection per request, and a tunnel for WebSocket where it can ([`lighttpd_tunnels`]).
    Lighttpd,
    /// Apache httpd with mod_proxy_fcgi: a connection per request.
    Apache,
    /// Caddy: a connection per request.
    Caddy,
    /// The gateway of this project: all requests on one connection.
    Afcgi,
}

/// A running web server.
#[derive(Debug)]
pub struct Gateway {
    /// Which one.
    pub kind: Kind,
    /// The process, for its end.
    pub process: Process,
    url: String,
    error_log: PathBuf,
    _dir: TempDir,
}

impl Gateway {
    /// Starts the web server in front of the application on port `app` and waits until a request passes through both.
    pub async fn start(kind: Kind, app: u16) -> Self {
        let temp = tempfile::Builder::new()
            .prefix("afcgi-interop")
            .tempdir()
            .expect("a temporary folder");
        let dir = temp.path();
        // Started by root, Apache changes to another user, which must get in here.
        std::fs::set_permissions(dir, Permissions::from_mode(0o755))
            .expect("permissions of the folder");
        let port = free_port();
        let command = match kind {
            Kind::Nginx => nginx(dir, port, app, false),
            Kind::Module => nginx(dir, port, app, true),
            Kind::Haproxy => haproxy(dir, port, app),
            Kind::Lighttpd => lighttpd(dir, port, app),
            Kind::Apache => apache(dir, port, app),
            Kind::Caddy => caddy(dir, port, app),
            Kind::Afcgi => afcgi(port, app),
        };
        let process = Process::start(&format!("{kind:?}"), &command, &dir.join("log"));
        let mut gateway = Self {
            kind,
            process,
            url: format!("http://127.0.0.1:{port}"),
            error_log: dir.join("error.log"),
            _dir: temp,
        };
        let client = http::client();
        let url = gateway.url("/ready");
        eventually(&format!("{kind:?} answers"), SOON, || {
            gateway.process.assert_running();
            let request = client.get(&url);
            async move {
                let response = request.send().await.map_err(|error| format!("{error:?}"))?;
                if response.status().is_success() {
                    Ok(())
                } else {
                    Err(response.status().to_string())
                }
            }
        })
        .await;
        gateway
    }

    /// The URL of a path with its query.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// `127.0.0.1:PORT`
    pub fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        self.process.log() + &read(&self.error_log)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "--- error log of {:?}:\n{}\n---",
                self.kind,
                tail(&read(&self.error_log))
            );
        }
    }
}

fn afcgi(port: u16, app: u16) -> Command {
    let mut command = Command::new(crate::app::afcgi());
    command
        .args(["gateway", &format!("127.0.0.1:{app}")])
        .args(["--listen", &format!("127.0.0.1:{port}")]);
    command
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

fn nginx(dir: &Path, port: u16, app: u16, with_module: bool) -> Command {
    let (mut load, mut multiplex, mut status) = (String::new(), "", "");
    let mut program = PathBuf::from("/usr/sbin/nginx");
    if with_module {
        let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nginx/build");
        let module = build.join("ngx_http_fastcgi_multiplex_module.so");
        assert!(
            module.is_file(),
            "{} is not there: run make module",
            module.display()
        );
        load = format!("load_module {};", module.display());
        multiplex = "fastcgi_multiplex;";
        status = "location = /fastcgi-status { fastcgi_multiplex_status; }";
        // The module may be for an nginx that was built beside it.
        if build.join("nginx").is_file() {
            program = build.join("nginx");
        }
    }
    let config = format!(
        r#"{load}
daemon off;
user root;
worker_processes 2;
pid nginx.pid;
error_log error.log info;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path body;
    fastcgi_temp_path fastcgi;
    proxy_temp_path proxy;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    client_max_body_size 100m;
    upstream app {{
        server 127.0.0.1:{app};
        {multiplex}
    }}
    server {{
        listen 127.0.0.1:{port};
        {status}
        location / {{
            fastcgi_param QUERY_STRING $query_string;
            fastcgi_param REQUEST_METHOD $request_method;
            fastcgi_param CONTENT_TYPE $content_type;
            fastcgi_param CONTENT_LENGTH $content_length;
            fastcgi_param SCRIPT_NAME $fastcgi_script_name;
            fastcgi_param REQUEST_URI $request_uri;
            fastcgi_param SERVER_PROTOCOL $server_protocol;
            fastcgi_param REMOTE_ADDR $remote_addr;
            fastcgi_pass app;
            fastcgi_buffering off;
            fastcgi_request_buffering off;
        }}
    }}
}}
"#
    );
    write(&dir.join("nginx.conf"), &config);
    let mut command = Command::new(program);
    command
        .arg("-p")
        .arg(dir)
        .args(["-c", "nginx.conf", "-e", "error.log"]);
    command
}

fn haproxy(dir: &Path, port: u16, app: u16) -> Command {
    // Without get-values HAProxy believes what it is told here: that the application multiplexes.
    let config = format!(
        r#"global
    maxconn 2000
    nbthread 1
    tune.bufsize 65536
    log stdout format raw local0
defaults
    mode http
    log global
    option httplog
    timeout connect 5s
    timeout client 60s
    timeout server 60s
fcgi-app app
    docroot /srv/app
    log-stderr global
    option keep-conn
    option mpxs-conns
    option max-reqs 1000
frontend web
    bind 127.0.0.1:{port}
    default_backend app
backend app
    use-fcgi-app app
    http-reuse always
    server app 127.0.0.1:{app} proto fcgi
"#
    );
    write(&dir.join("haproxy.cfg"), &config);
    let mut command = Command::new("/usr/sbin/haproxy");
    command.arg("-db").arg("-f").arg(dir.join("haproxy.cfg"));
    command
}

fn lighttpd(dir: &Path, port: u16, app: u16) -> Command {
    let at = dir.display();
    let config = format!(
        r#"server.document-root = "{at}"
server.bind = "127.0.0.1"
server.port = {port}
server.errorlog = "{at}/error.log"
server.upload-dirs = ( "{at}" )
server.modules = ( "mod_fastcgi" )
server.stream-request-body = 1
server.stream-response-body = 1
fastcgi.server = ( "/" => ((
    "host" => "127.0.0.1",
    "port" => {app},
    "check-local" => "disable",
    "fix-root-scriptname" => "enable",
    "upgrade" => "enable",
)))
"#
    );
    write(&dir.join("lighttpd.conf"), &config);
    let mut command = Command::new(lighttpd_binary());
    command.arg("-D").arg("-f").arg(dir.join("lighttpd.conf"));
    command
}

/// The lighttpd that is named by the environment variable LIGHTTPD, or that of the distribution.
fn lighttpd_binary() -> PathBuf {
    std::env::var_os("LIGHTTPD").map_or_else(|| "/usr/sbin/lighttpd".into(), PathBuf::from)
}

/// Whether this lighttpd tunnels WebSockets to FastCGI applications: from version 1.4.74 on. An older one knows the setting and ends
/// STDIN all the same.
pub fn lighttpd_tunnels() -> bool {
    let output = Command::new(lighttpd_binary())
        .arg("-v")
        .output()
        .expect("lighttpd (package lighttpd) runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text
        .strip_prefix("lighttpd/")
        .and_then(|rest| rest.split([' ', '-']).next())
        .unwrap_or_else(|| panic!("no version: {text}"));
    let mut numbers = version
        .split('.')
        .map(|number| number.parse().expect(version));
    let mut next = || numbers.next().unwrap_or(0);
    let found: [u32; 3] = [next(), next(), next()];
    found >= [1, 4, 74]
}

fn apache(dir: &Path, port: u16, app: u16) -> Command {
    let at = dir.display();
    let modules = "/usr/lib/apache2/modules";
    let config = format!(
        r#"ServerRoot "{at}"
DefaultRuntimeDir "{at}"
PidFile "{at}/apache.pid"
Mutex pthread
ErrorLog "{at}/error.log"
Listen 127.0.0.1:{port}
ServerName 127.0.0.1
User www-data
Group www-data
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule proxy_module {modules}/mod_proxy.so
LoadModule proxy_fcgi_module {modules}/mod_proxy_fcgi.so
StartServers 1
ServerLimit 1
ThreadLimit 128
ThreadsPerChild 128
MinSpareThreads 1
MaxRequestWorkers 128
ProxyPass "/" "fcgi://127.0.0.1:{app}/" flushpackets=on
"#
    );
    write(&dir.join("apache.conf"), &config);
    let mut command = Command::new("/usr/sbin/apache2");
    command
        .arg("-D")
        .arg("FOREGROUND")
        .arg("-f")
        .arg(dir.join("apache.conf"));
    command
}

fn caddy(dir: &Path, port: u16, app: u16) -> Command {
    let config = format!(
        r#"{{
    admin off
    auto_https off
}}
http://127.0.0.1:{port} {{
    bind 127.0.0.1
    reverse_proxy 127.0.0.1:{app} {{
        transport fastcgi {{
            root /srv/app
        }}
        flush_interval -1
    }}
}}
"#
    );
    write(&dir.join("Caddyfile"), &config);
    let mut command = Command::new("/usr/bin/caddy");
    command
        .args(["run", "--adapter", "caddyfile", "--config"])
        .arg(dir.join("Caddyfile"));
    command
        .env("HOME", dir)
        .env("XDG_CONFIG_HOME", dir)
        .env("XDG_DATA_HOME", dir);
    command
}
