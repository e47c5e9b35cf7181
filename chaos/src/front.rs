//! The web servers: their configurations, reloads, and what they hold.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use afcgi_interop::own::Own;
use afcgi_interop::process::Signal;
use afcgi_interop::wait::{SOON, eventually};
use afcgi_nginx_tests::nginx::{Nginx, PARAMS};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::events::Front;
use crate::fleet::{Fleet, Kind, descriptors};

/// nginx's worker processes.
const WORKERS: u32 = 2;

/// Descriptors that the module takes with its first request for good: a socket that stands for all those that are not real.
const PLACEHOLDERS: usize = 1;

/// Where nginx writes the token of each request that it has read.
const TOKENS: &str = "tokens.log";

/// What nginx finds critical, and is no wonder while an application is restarted.
const NO_SOCKET: &str = "failed (2: No such file or directory)";

/// Both web servers.
#[derive(Debug)]
pub struct Fronts {
    nginx: Nginx,
    gateway: Own,
    /// Descriptors of each when nothing has happened yet.
    at_rest: BTreeMap<Front, usize>,
}

impl Fronts {
    /// Starts both before all applications.
    pub async fn start(fleet: &Fleet) -> Self {
        let mut nginx = Nginx::start(WORKERS, &nginx_config(fleet)).await;
        nginx.wants(NO_SOCKET);
        let gateway = Own::start(&[], &gateway_config(fleet, 0)).await;
        let mut fronts = Self {
            nginx,
            gateway,
            at_rest: BTreeMap::new(),
        };
        for front in Front::ALL {
            eventually("it answers", SOON, || async {
                match fronts.open(front).await {
                    Some(_) => Ok(()),
                    None => Err(String::from("it does not")),
                }
            })
            .await;
            let settled = fronts.settled(front).await;
            fronts.at_rest.insert(front, settled);
        }
        fronts
    }

    /// Where they listen, in the order of [`Front::ALL`].
    pub fn addresses(&self) -> [SocketAddr; 2] {
        [self.nginx.port(), self.gateway.port()].map(|port| ([127, 0, 0, 1], port).into())
    }

    /// Reloads nginx, and waits until the old workers have left.
    pub async fn reload_nginx(&self) {
        self.nginx.reload().await;
        self.nginx.has_workers(WORKERS as usize).await;
    }

    /// Has the gateway read another configuration, which replaces a part of its upstreams, and waits until it has. `generation` is 1 more
    /// than the last.
    pub async fn reload_gateway(&mut self, fleet: &Fleet, generation: usize) {
        let config = gateway_config(fleet, generation);
        std::fs::write(self.gateway.config_path(), config).expect("gateway.toml");
        self.gateway.signal(Signal::HUP);
        eventually("the gateway has reloaded", SOON, || async {
            let numbers = numbers(self.gateway.admin_port()).await?;
            match numbers.get("reloads_total{result=\"ok\"}") {
                Some(count) if *count >= generation as f64 => Ok(()),
                count => Err(format!("{count:?} reloads: {}", self.gateway.process.log())),
            }
        })
        .await;
    }

    /// What is left when all requests have ended and all idle times are over: one line for each thing that should not be there.
    pub async fn left_over(&self, front: Front) -> Vec<String> {
        let mut found = Vec::new();
        // Before its connections are asked for, which takes one.
        let then = self.at_rest[&front]
            + match front {
                Front::Nginx => PLACEHOLDERS,
                Front::Gateway => 0,
            };
        let now = self.descriptors(front);
        if now.len() > then {
            let list = now.join(" ");
            found.push(format!(
                "{}: {} descriptors, {then} at first: {list}",
                front.name(),
                now.len()
            ));
        }
        match self.open(front).await {
            Some(0) => {}
            Some(open) => found.push(format!(
                "{}: {open} requests and connections, by its own account",
                front.name()
            )),
            None => found.push(format!("{} does not tell what it has", front.name())),
        }
        found
    }

    /// What in their logs should not be there.
    pub fn complaints(&self) -> Vec<String> {
        let serious = |line: &&str| {
            ["[emerg]", "[alert]", "[crit]", "panicked"]
                .iter()
                .any(|word| line.contains(word))
                && !line.contains(NO_SOCKET)
        };
        let (nginx, gateway) = (self.nginx.log(), self.gateway.process.log());
        let lines = nginx.lines().chain(gateway.lines()).filter(serious);
        lines.take(20).map(str::to_owned).collect()
    }

    /// Of requests that were sent again since nginx was said to have closed their connection before it read them: those that it did read.
    pub fn read_twice(&self, tokens: &BTreeSet<u64>) -> Vec<String> {
        let log = std::fs::read_to_string(self.nginx.dir().join(TOKENS)).unwrap_or_default();
        let mut read = BTreeMap::<u64, usize>::new();
        for token in log
            .lines()
            .filter_map(|line| u64::from_str_radix(line, 16).ok())
        {
            if tokens.contains(&token) {
                *read.entry(token).or_default() += 1;
            }
        }
        let twice = read.into_iter().filter(|(_, times)| *times > 1);
        let told = |(token, _)| {
            format!(
                "nginx read the request {token:016x}, and closed the connection without a response"
            )
        };
        twice.take(20).map(told).collect()
    }

    /// The descriptors of that process of it which has most.
    fn descriptors(&self, front: Front) -> Vec<String> {
        let processes = match front {
            Front::Nginx => self.nginx.workers(),
            Front::Gateway => vec![self.gateway.process.id()],
        };
        let found = processes.iter().map(|id| descriptors(*id));
        found.max_by_key(Vec::len).unwrap_or_default()
    }

    /// How many those are, when that has not changed for a while: workers are still being started, and what asked them is leaving.
    async fn settled(&self, front: Front) -> usize {
        let (mut last, mut times) = (0, 0);
        while times < 20 {
            let now = self.descriptors(front).len();
            times = if now == last { times + 1 } else { 0 };
            last = now;
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        last
    }

    /// Requests and connections to applications, by its own account.
    async fn open(&self, front: Front) -> Option<u64> {
        match front {
            Front::Nginx => {
                let page = fetch(self.nginx.port(), "/-/status").await.ok()?;
                let page: serde_json::Value = serde_json::from_str(&page).ok()?;
                let addresses = page["addresses"].as_array()?;
                let keys = ["connections", "active", "draining", "waiting"];
                let numbers = addresses
                    .iter()
                    .flat_map(|address| keys.map(|key| address[key].as_u64().unwrap_or(0)));
                Some(numbers.sum())
            }
            Front::Gateway => {
                let numbers = numbers(self.gateway.admin_port()).await.ok()?;
                let counts = |name: &str| {
                    name.starts_with("upstream_connections{")
                        || name.contains("_active")
                        || name.contains("_waiting")
                };
                let numbers = numbers.iter().filter(|(name, _)| counts(name));
                Some(numbers.map(|(_, count)| *count as u64).sum())
            }
        }
    }
}

/// GET on a connection of its own; the body.
async fn fetch(port: u16, path: &str) -> Result<String, String> {
    let exchange = async {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: chaos\r\n\r\n");
        socket.write_all(request.as_bytes()).await?;
        let mut all = Vec::new();
        socket.read_to_end(&mut all).await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&all).into_owned())
    };
    let all = exchange.await.map_err(|error| error.to_string())?;
    let (_, body) = all.split_once("\r\n\r\n").ok_or("no answer")?;
    Ok(body.to_owned())
}

async fn numbers(admin: u16) -> Result<BTreeMap<String, f64>, String> {
    let text = fetch(admin, "/metrics").await?;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        let name = name.strip_prefix("afcgi_gateway_")?;
        Some((name.to_owned(), value.parse().ok()?))
    });
    Ok(pairs.collect())
}

fn nginx_config(fleet: &Fleet) -> String {
    let mut upstreams = String::new();
    let mut locations = String::new();
    for (index, app) in fleet.apps.iter().enumerate() {
        let (name, socket) = (&app.name, app.socket.display());
        // Short, so that connections come and go, and the end of the run need not be waited for.
        upstreams += &format!(
            "upstream {name} {{ server unix:{socket}; fastcgi_multiplex idle_timeout=4s; }}\n"
        );
        let more = match (app.kind, index % 3) {
            (Kind::Afcgitest, _) => format!("rewrite ^/{name}(/.*)$ $1 break;"),
            (Kind::Php, _) | (_, 0) => String::new(),
            (_, 1) => String::from("fastcgi_buffering off;"),
            _ => String::from("fastcgi_buffering off; fastcgi_request_buffering off;"),
        };
        locations += &format!("location /{name}/ {{ {more} fastcgi_pass {name}; }}\n");
    }
    // afcgitest goes by the path, which is another one here than the client's.
    let params = PARAMS.replace("REQUEST_URI $request_uri", "REQUEST_URI $uri$is_args$args");
    format!(
        "log_format token '$arg_t';
        fastcgi_multiplex_status_zone 4m;
        keepalive_timeout 1h; keepalive_requests 1000000;
        fastcgi_read_timeout 30s; fastcgi_send_timeout 30s;
        {upstreams}
        server {{
            listen LISTEN reuseport;
            root {};
            access_log {TOKENS} token;
            {params}
            location = /-/status {{ fastcgi_multiplex_status; }}
            {locations}
        }}",
        fleet.scripts().display()
    )
}

/// Every eighth upstream is another one in each generation.
fn gateway_config(fleet: &Fleet, generation: usize) -> String {
    let mut config = String::from("[limits]\nidle_timeout = \"1h\"\n");
    for (index, app) in fleet.apps.iter().enumerate() {
        let (name, socket) = (&app.name, app.socket.display());
        let queue = if index % 8 == generation % 8 {
            1000
        } else {
            1024
        };
        config += &format!(
            "[upstream.{name}]\naddresses = [\"unix:{socket}\"]\nidle_timeout = \"4s\"\nqueue = {queue}\n\
             first_byte_timeout = \"30s\"\nread_timeout = \"30s\"\n"
        );
        let params = match app.kind {
            Kind::Php => {
                config += "collect_body = \"4M\"\n";
                let script = fleet.scripts().join(name).join("index.php");
                format!(
                    "params = {{ SCRIPT_FILENAME = \"{}\" }}\n",
                    script.display()
                )
            }
            Kind::Afcgitest => String::from(
                "params = { SCRIPT_NAME = \"\", PATH_INFO = \"/echo\", REQUEST_URI = \"/echo\" }\n",
            ),
            _ => String::new(),
        };
        config += &format!("[[route]]\npath = \"/{name}\"\nupstream = \"{name}\"\n{params}");
    }
    config
}
