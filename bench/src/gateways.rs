//! CPU time per request of one nginx worker (or HAProxy thread), in front of the application that answers with a canned
//! reply: what each way to speak FastCGI costs the web server.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use afcgi_bench::http::{Config, Load};
use afcgi_bench::load::{Expect, Limit, Target};
use afcgi_bench::process::{self, Process, free_port};
use anyhow::{Context, Result, bail};

use crate::peers::{Places, RAW};
use crate::suite::{Cores, Options, progress};
use crate::table::Table;

/// Row names that the targets refer to.
pub(crate) const MODULE: &str = "nginx, this module";
pub(crate) const KEEPALIVE: &str = "nginx, stock keepalive";

const CLIENTS: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gateway {
    NginxReturn,
    NginxKeepalive,
    NginxModule,
    HaproxyMpxs { bufsize: u32 },
    HaproxyKeepConn,
}

const GATEWAYS: [(&str, Gateway); 6] = [
    ("nginx, return 200 (the floor)", Gateway::NginxReturn),
    (KEEPALIVE, Gateway::NginxKeepalive),
    (MODULE, Gateway::NginxModule),
    (
        "HAProxy mpxs-conns, 64k buffers",
        Gateway::HaproxyMpxs { bufsize: 65_536 },
    ),
    (
        "HAProxy mpxs-conns, default",
        Gateway::HaproxyMpxs { bufsize: 16_384 },
    ),
    ("HAProxy keep-conn", Gateway::HaproxyKeepConn),
];

/// One pass over the gateways a round. `without` names rows to leave out.
pub(crate) fn measure(places: &Places, cores: Cores, options: &Options) -> Result<Table> {
    let gateways: Vec<_> = GATEWAYS
        .iter()
        .filter(|(name, _)| !options.leaves_out(name))
        .collect();
    let title = format!(
        "Gateways: CPU µs per request of one worker ({CLIENTS} keep-alive clients, canned reply behind)"
    );
    let rows = gateways.iter().map(|(name, _)| (*name).to_owned());
    let mut table = Table::new(&title, vec!["CPU µs".to_owned()], rows);
    for round in 1..=options.rounds {
        for (row, (name, gateway)) in gateways.iter().enumerate() {
            if table.is_closed(row, 0) {
                continue;
            }
            progress(&format!("round {round}: {name}"));
            table.add(row, 0, once(places, *gateway, cores, options));
        }
    }
    Ok(table)
}

fn once(places: &Places, gateway: Gateway, cores: Cores, options: &Options) -> Result<f64> {
    // The application shares the generator's core: the measured worker has its own.
    let (mut application, Target::Tcp(behind)) = places.start(&RAW, cores.load, cores.load)? else {
        bail!("not TCP")
    };
    let folder = tempfile::tempdir()?;
    let port = free_port()?;
    let configuration = folder.path().join("configuration");
    fs::write(
        &configuration,
        gateway.configuration(places, port, &behind.to_string()),
    )?;
    let mut process = Process::spawn(
        "gateway",
        &gateway.command(folder.path(), &configuration),
        cores.server,
        cores.load,
    )?;
    let target = Target::Tcp(([127, 0, 0, 1], port).into());
    process.wait_for(&target)?;
    let measured = if gateway.is_nginx() {
        worker(&process)?
    } else {
        process.pid()
    };

    let mut load = Load::connect(Config {
        target,
        clients: CLIENTS,
        path: "/hello".to_owned(),
        expect: Expect::Body(b"Hello world\n".to_vec()),
        stall: Duration::from_secs(3),
    })?;
    load.run(Limit::time(options.warm_up()))
        .with_context(|| process.output())?;
    load.stats().reset();
    let before = process::cpu(measured)?;
    load.run(Limit::time(options.window()))
        .with_context(|| process.output())?;
    let used = process::cpu(measured)? - before;
    let completed = load.stats().completed;
    load.drain(Duration::from_secs(5))?;
    application.check()?;
    process.check()?;
    let output = process.output();
    if gateway.is_nginx()
        && ["[error]", "[crit]", "[alert]", "[emerg]"]
            .iter()
            .any(|level| output.contains(level))
    {
        bail!("nginx complains: {output}");
    }
    if completed == 0 {
        bail!("no request answered");
    }
    Ok(used.as_secs_f64() * 1e6 / completed as f64)
}

/// The one worker of an nginx.
pub(crate) fn worker(master: &Process) -> Result<u32> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        if let [worker] = process::children(master.pid())?[..] {
            return Ok(worker);
        }
        if Instant::now() > deadline {
            bail!("nginx has no worker: {}", master.output());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Gateway {
    fn is_nginx(self) -> bool {
        matches!(
            self,
            Self::NginxReturn | Self::NginxKeepalive | Self::NginxModule
        )
    }

    fn command(self, folder: &Path, configuration: &Path) -> Vec<String> {
        command(self.is_nginx(), folder, configuration)
    }

    fn configuration(self, places: &Places, port: u16, behind: &str) -> String {
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
events {{ worker_connections 1024; }}
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
