//! The web servers, and their configurations.

use std::path::Path;

use crate::peers::Places;

/// Keep-alive connections of the load.
pub(super) const CLIENTS: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gateway {
    NginxReturn,
    NginxKeepalive,
    NginxModule,
    HaproxyMpxs { bufsize: u32 },
    HaproxyKeepConn,
    Caddy,
    Afcgi,
}

impl Gateway {
    pub(super) fn is_nginx(self) -> bool {
        matches!(
            self,
            Self::NginxReturn | Self::NginxKeepalive | Self::NginxModule
        )
    }

    /// Whether thousands of requests can wait in an application behind it.
    pub(super) fn holds(self) -> bool {
        !matches!(
            self,
            Self::NginxReturn | Self::HaproxyMpxs { bufsize: 16_384 }
        )
    }

    /// The command that serves on a port, with the file `configuration` in a folder.
    pub(super) fn command(
        self,
        places: &Places,
        folder: &Path,
        port: u16,
        behind: &str,
    ) -> Vec<String> {
        let configuration = folder.join("configuration");
        match self {
            Self::Caddy => {
                let file = configuration.display().to_string();
                // One thread that runs, as the others have.
                let home = format!("HOME={}", folder.display());
                let words = [
                    "env",
                    "-u",
                    "XDG_CONFIG_HOME",
                    "-u",
                    "XDG_DATA_HOME",
                    "GOMAXPROCS=1",
                    &home,
                    "caddy",
                    "run",
                ];
                let words = words
                    .into_iter()
                    .chain(["--adapter", "caddyfile", "--config", &file]);
                words.map(str::to_owned).collect()
            }
            Self::Afcgi => {
                let program = places.own("afcgi").display().to_string();
                let listen = format!("127.0.0.1:{port}");
                let words = [
                    &program,
                    "gateway",
                    "--threads",
                    "1",
                    "--listen",
                    &listen,
                    behind,
                ];
                words.into_iter().map(str::to_owned).collect()
            }
            _ => command(self.is_nginx(), folder, &configuration),
        }
    }

    pub(super) fn configuration(self, places: &Places, port: u16, behind: &str) -> String {
        match self {
            Self::NginxReturn => nginx(
                "",
                "",
                port,
                "default_type text/plain; return 200 \"Hello world\\n\";",
            ),
            Self::NginxKeepalive => nginx(
                "",
                &format!("server {behind}; keepalive {CLIENTS};"),
                port,
                PASS,
            ),
            Self::NginxModule => nginx(
                &load_module(places),
                &format!("server {behind}; fastcgi_multiplex;"),
                port,
                PASS,
            ),
            Self::HaproxyMpxs { bufsize } => haproxy(
                port,
                behind,
                bufsize,
                "option mpxs-conns\n    option max-reqs 1024",
            ),
            Self::HaproxyKeepConn => haproxy(port, behind, 16_384, ""),
            Self::Caddy => format!(
                "{{
    admin off
    auto_https off
}}
http://:{port} {{
    bind 127.0.0.1
    reverse_proxy {behind} {{
        transport fastcgi
    }}
}}
"
            ),
            Self::Afcgi => String::new(),
        }
    }
}

/// The command of nginx or HAProxy, in a folder and with a configuration.
pub(crate) fn command(is_nginx: bool, folder: &Path, configuration: &Path) -> Vec<String> {
    let (folder, configuration) = (
        folder.display().to_string(),
        configuration.display().to_string(),
    );
    let words: &[&str] = if is_nginx {
        &["nginx", "-p", &folder, "-e", "stderr", "-c", &configuration]
    } else {
        &["haproxy", "-db", "-f", &configuration]
    };
    words.iter().map(|&word| word.to_owned()).collect()
}

/// The directive that loads the module.
pub(crate) fn load_module(places: &Places) -> String {
    let module = "nginx/build/ngx_http_fastcgi_multiplex_module.so";
    format!("load_module {};", places.root.join(module).display())
}

const PASS: &str = "fastcgi_pass application; fastcgi_keep_conn on;";

/// A configuration of nginx: the `servers` of the upstream `application`, and what is in the only location.
pub(crate) fn nginx(load: &str, servers: &str, port: u16, location: &str) -> String {
    // `user root` only matters to a master that runs as root, in a folder that only root can read.
    let user = if rustix::process::geteuid().is_root() {
        "user root;"
    } else {
        ""
    };
    let upstream = if servers.is_empty() {
        String::new()
    } else {
        format!("upstream application {{ {servers} }}")
    };
    format!(
        "{load} {user} daemon off; worker_processes 1; pid nginx.pid; error_log stderr warn;
events {{ worker_connections 16384; }}
http {{
    access_log off; keepalive_requests 100000000;
    client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;
    {upstream}
    fastcgi_param QUERY_STRING $query_string; fastcgi_param REQUEST_METHOD $request_method;
    fastcgi_param CONTENT_TYPE $content_type; fastcgi_param CONTENT_LENGTH $content_length;
    fastcgi_param SCRIPT_NAME $fastcgi_script_name; fastcgi_param REQUEST_URI $request_uri;
    fastcgi_param DOCUMENT_URI $document_uri; fastcgi_param DOCUMENT_ROOT $document_root;
    fastcgi_param SERVER_PROTOCOL $server_protocol; fastcgi_param REQUEST_SCHEME $scheme;
    fastcgi_param GATEWAY_INTERFACE CGI/1.1; fastcgi_param SERVER_SOFTWARE nginx/$nginx_version;
    fastcgi_param REMOTE_ADDR $remote_addr; fastcgi_param REMOTE_PORT $remote_port;
    fastcgi_param SERVER_ADDR $server_addr; fastcgi_param SERVER_PORT $server_port;
    fastcgi_param SERVER_NAME $server_name; fastcgi_param REDIRECT_STATUS 200;
    server {{ listen 127.0.0.1:{port}; location / {{ {location} }} }}
}}
"
    )
}

/// A configuration of HAProxy, with further options of its fcgi-app.
pub(crate) fn haproxy(port: u16, behind: &str, bufsize: u32, option: &str) -> String {
    format!(
        "global
    nbthread 1
    maxconn 8192
    tune.bufsize {bufsize}
defaults
    mode http
    timeout connect 5s
    timeout client 10s
    timeout server 10s
fcgi-app application
    docroot /var/www/html
    option keep-conn
    {option}
frontend web
    bind 127.0.0.1:{port}
    default_backend application
backend application
    http-reuse always
    use-fcgi-app application
    server one {behind} proto fcgi
"
    )
}
