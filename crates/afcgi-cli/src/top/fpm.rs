//! The status page of PHP-FPM, and which of the pages in JSON an answer is.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::Value;

use super::prometheus::Numbers;
use super::shape::{Kind, Page, ROWS, clean};
use super::table::{Cell, Group, Row};

/// The status of a pool.
#[derive(Debug, Default)]
pub(super) struct Fpm {
    pool: String,
    manager: String,
    /// The numbers of the pool by their names there.
    numbers: BTreeMap<String, u64>,
    processes: Vec<Process>,
    left_out: usize,
}

/// A process, as PHP-FPM tells of it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Process {
    pid: u64,
    state: String,
    requests: u64,
    /// Microseconds: of the request that it works on, or of the one before.
    #[serde(rename = "request duration")]
    duration: u64,
    #[serde(rename = "request method")]
    method: String,
    #[serde(rename = "request uri")]
    uri: String,
    user: String,
    script: String,
    #[serde(rename = "last request cpu")]
    cpu: f64,
    #[serde(rename = "last request memory")]
    memory: u64,
}

/// The beginning of a list, and how much longer it is.
#[derive(Debug)]
struct First<T>(Vec<T>, usize);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for First<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Taker<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Taker<T> {
            type Value = First<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<First<T>, A::Error> {
                let mut first = Vec::new();
                while first.len() < ROWS {
                    match list.next_element()? {
                        Some(element) => first.push(element),
                        None => return Ok(First(first, 0)),
                    }
                }
                let mut more = 0;
                while list.next_element::<IgnoredAny>()?.is_some() {
                    more += 1;
                }
                Ok(First(first, more))
            }
        }
        deserializer.deserialize_seq(Taker(PhantomData))
    }
}

/// All that tells the pages in JSON apart, and what they have.
#[derive(Deserialize)]
struct Json {
    addresses: Option<First<BTreeMap<String, Value>>>,
    pool: Option<String>,
    #[serde(rename = "process manager")]
    manager: Option<String>,
    processes: Option<First<Process>>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

/// A page in JSON.
pub(super) enum Read {
    /// That of the module: an object for each address, and how many more there are.
    Module(Vec<BTreeMap<String, Value>>, usize),
    Fpm(Box<Fpm>),
}

/// Reads a page in JSON.
pub(super) fn read(text: &str) -> Result<Read, String> {
    let json: Json =
        serde_json::from_str(text).map_err(|error| format!("no valid JSON came: {error}"))?;
    if let Some(First(addresses, left_out)) = json.addresses {
        return Ok(Read::Module(addresses, left_out));
    }
    let (Some(pool), Some(manager)) = (json.pool, json.manager) else {
        return Err(String::from(
            "JSON came that is no status page of module or PHP-FPM",
        ));
    };
    let numbers = json.rest.into_iter();
    let First(processes, left_out) = json.processes.unwrap_or(First(Vec::new(), 0));
    Ok(Read::Fpm(Box::new(Fpm {
        pool: clean(&pool),
        manager: clean(&manager),
        numbers: numbers
            .filter_map(|(name, value)| Some((name, value.as_u64()?)))
            .collect(),
        processes,
        left_out,
    })))
}

/// The columns of the numbers of a pool.
const NUMBERS: &[(&str, &str)] = &[
    ("active processes", "active"),
    ("idle processes", "idle"),
    ("total processes", "processes"),
    ("listen queue", "queue"),
    ("max listen queue", "max_queue"),
    ("listen queue len", "queue_length"),
    ("max active processes", "max_active"),
    ("accepted conn", "accepted"),
    ("slow requests", "slow_requests"),
    ("max children reached", "max_children_reached"),
    ("start since", "up_seconds"),
];

impl Fpm {
    /// The name of the pool.
    pub(super) fn pool(&self) -> &str {
        &self.pool
    }

    pub(super) fn page(&self) -> Page {
        let mut pool = Row::new(Group::Pools, self.pool.clone());
        let manager = Cell::Text(self.manager.clone());
        pool.set(Group::Pools, "process_manager", manager);
        for (name, column) in NUMBERS {
            if let Some(&number) = self.numbers.get(*name) {
                pool.set(Group::Pools, column, Cell::Count(number));
            }
        }
        let processes = self.processes.iter().map(|process| process.row(&self.pool));
        Page {
            kind: Kind::Fpm,
            started: self.numbers.get("start time").copied(),
            tables: vec![
                (Group::Pools, vec![pool]),
                (Group::Processes, processes.collect()),
            ],
            left_out: self.left_out,
        }
    }

    /// For Prometheus, by the names that exporters of PHP-FPM have used for years.
    pub(super) fn numbers(&self, source: &str) -> Numbers {
        let mut out = Numbers::default();
        for (name, kind, help, from) in METRICS {
            if let Some(&number) = self.numbers.get(*from) {
                out.family(name, kind, help);
                let labels = [("pool", self.pool.as_str()), ("scrape_uri", source)];
                out.push(name, &labels, number as f64);
            }
        }
        for (name, kind, help) in PROCESS_METRICS {
            out.family(name, kind, help);
        }
        for (n, process) in self.processes.iter().enumerate() {
            let child = n.to_string();
            let labels = [
                ("pool", self.pool.as_str()),
                ("child", child.as_str()),
                ("scrape_uri", source),
            ];
            let numbers = [
                process.requests as f64,
                process.memory as f64,
                process.cpu,
                process.duration as f64,
            ];
            for ((name, ..), number) in PROCESS_METRICS.iter().zip(numbers) {
                out.push(name, &labels, number);
            }
            for state in STATES {
                let labels = [
                    ("pool", self.pool.as_str()),
                    ("child", child.as_str()),
                    ("state", state),
                    ("scrape_uri", source),
                ];
                let is = f64::from(u8::from(process.state == *state));
                out.push("phpfpm_process_state", &labels, is);
            }
        }
        out
    }
}

/// Name, type, what it is, and what PHP-FPM calls it.
const METRICS: &[(&str, &str, &str, &str)] = &[
    (
        "phpfpm_start_since",
        "counter",
        "Seconds since the pool was started.",
        "start since",
    ),
    (
        "phpfpm_accepted_connections",
        "counter",
        "Requests that the pool accepted.",
        "accepted conn",
    ),
    (
        "phpfpm_listen_queue",
        "gauge",
        "Connections that wait for a process.",
        "listen queue",
    ),
    (
        "phpfpm_max_listen_queue",
        "counter",
        "The most connections that have waited for a process since the start.",
        "max listen queue",
    ),
    (
        "phpfpm_listen_queue_length",
        "gauge",
        "Connections that may wait for a process.",
        "listen queue len",
    ),
    (
        "phpfpm_idle_processes",
        "gauge",
        "Processes without a request.",
        "idle processes",
    ),
    (
        "phpfpm_active_processes",
        "gauge",
        "Processes with a request.",
        "active processes",
    ),
    (
        "phpfpm_total_processes",
        "gauge",
        "Processes of the pool.",
        "total processes",
    ),
    (
        "phpfpm_max_active_processes",
        "counter",
        "The most processes that had a request at a time since the start.",
        "max active processes",
    ),
    (
        "phpfpm_max_children_reached",
        "counter",
        "How often there were as many processes as pm.max_children allows, and more were wanted.",
        "max children reached",
    ),
    (
        "phpfpm_slow_requests",
        "counter",
        "Requests that took longer than request_slowlog_timeout.",
        "slow requests",
    ),
];

const PROCESS_METRICS: &[(&str, &str, &str)] = &[
    (
        "phpfpm_process_requests",
        "counter",
        "Requests that the process has served.",
    ),
    (
        "phpfpm_process_last_request_memory",
        "gauge",
        "Bytes of memory that the last request took at most.",
    ),
    (
        "phpfpm_process_last_request_cpu",
        "gauge",
        "Per cent of a CPU that the last request took.",
    ),
    (
        "phpfpm_process_request_duration",
        "gauge",
        "Microseconds that the request takes, or that the last one took.",
    ),
    (
        "phpfpm_process_state",
        "gauge",
        "1 for the state that the process is in.",
    ),
];

/// What PHP-FPM calls the states of a process.
const STATES: &[&str] = &[
    "Idle",
    "Running",
    "Finishing",
    "Reading headers",
    "Getting request informations",
    "Ending",
];

impl Process {
    fn row(&self, pool: &str) -> Row {
        let group = Group::Processes;
        let (method, uri, script) = (clean(&self.method), clean(&self.uri), clean(&self.script));
        let is_idle = self.state == "Idle";
        let name = match (uri.as_str(), script.as_str()) {
            ("" | "-", "" | "-") => String::from("-"),
            (uri, "" | "-") => format!("{method} {uri}"),
            (uri, script) => format!("{method} {uri} ({script})"),
        };
        let mut row = Row::new(group, name);
        let state = match self.state.as_str() {
            "Reading headers" => String::from("reading"),
            // As PHP-FPM spells it.
            "Getting request informations" => String::from("preparing"),
            state => clean(state).to_lowercase(),
        };
        let running = match is_idle {
            true => Cell::Unknown,
            false => Cell::Count(self.duration),
        };
        for (key, cell) in [
            ("pid", Cell::Count(self.pid)),
            ("state", Cell::Text(state)),
            ("running_microseconds", running),
            ("request_microseconds", Cell::Count(self.duration)),
            ("requests", Cell::Count(self.requests)),
            ("cpu_percent", Cell::Real(self.cpu)),
            ("memory_bytes", Cell::Count(self.memory)),
            ("method", Cell::Text(method)),
            ("uri", Cell::Text(uri)),
            ("script", Cell::Text(script)),
            ("user", Cell::Text(clean(&self.user))),
            ("pool", Cell::Text(pool.to_owned())),
        ] {
            row.set(group, key, cell);
        }
        row
    }
}

#[cfg(test)]
mod tests {
    use super::super::page::Answer;
    use super::*;

    /// As PHP-FPM 8.2 wrote it, with a script that runs.
    const PAGE: &str = include_str!("fpm.json");

    #[test]
    fn a_pool_and_its_processes() {
        let Ok(answer @ Answer::Fpm(_)) = Answer::read(PAGE.as_bytes()) else {
            panic!("no page of PHP-FPM");
        };
        let page = answer.page("a");
        let cell = |n: usize, row: usize, key| {
            let (group, rows) = &page.tables[n];
            rows[row].cells[group.position(key).expect(key)].clone()
        };
        assert_eq!(page.started, Some(1_795_626_768));
        assert_eq!(page.tables[0].1[0].name, "www");
        assert_eq!(cell(0, 0, "active"), Cell::Count(2));
        assert_eq!(cell(0, 0, "slow_requests"), Cell::Count(1));
        assert_eq!(cell(1, 0, "running_microseconds"), Cell::Count(1_500_321));
        assert_eq!(cell(1, 1, "running_microseconds"), Cell::Unknown);
        assert_eq!(
            page.tables[1].1[0].name,
            "GET /report.php?year=2026 (/srv/app/report.php)"
        );
    }

    #[test]
    fn what_is_something_else() {
        for (body, words) in [
            ("", "the answer is empty"),
            ("{\"a\": 1}", "no status page of module or PHP-FPM"),
            ("{\"pool\": \"www\"", "no valid JSON came"),
            ("{\"addresses\": 7}", "no valid JSON came"),
            ("<html>\u{1b}[2J", "it begins with `<html>\\u{1b}[2J`"),
            ("pool:   www", "?json&full"),
            ("node_load1 0.1\n", "neither of the nginx module nor"),
        ] {
            let why = Answer::read(body.as_bytes()).map(drop).expect_err(body);
            assert!(why.contains(words), "{why}");
        }
        assert!(Answer::read(&[0xff; 100]).is_err());
        let deep = "{\"a\":".to_owned() + &"[".repeat(100_000);
        assert!(Answer::read(deep.as_bytes()).is_err());
    }

    #[test]
    fn rows_are_bounded() {
        let processes = vec!["{}"; ROWS + 10].join(",");
        let text = format!(
            "{{\"pool\":\"a\",\"process manager\":\"static\",\"processes\":[{processes}]}}"
        );
        let page = Answer::read(text.as_bytes()).expect("a page").page("a");
        assert_eq!((page.tables[1].1.len(), page.left_out), (ROWS, 10));
        let addresses = vec!["{\"address\":\"a\"}"; ROWS + 7].join(",");
        let text = format!("{{\"addresses\":[{addresses}]}}");
        let page = Answer::read(text.as_bytes()).expect("a page").page("a");
        assert_eq!((page.tables[0].1.len(), page.left_out), (ROWS, 7));
        let lines = |n| format!("fastcgi_multiplex_connections{{address=\"{n}\"}} 1\n");
        let text: String = (0..ROWS + 3).map(lines).collect();
        let page = Answer::read(text.as_bytes()).expect("a page").page("a");
        assert_eq!((page.tables[0].1.len(), page.left_out), (ROWS, 3));
    }

    #[test]
    fn texts_are_bounded_and_harmless() {
        let long = "ü".repeat(1000);
        let text = format!("{{\"pool\":\"\\u001b[2J{long}\",\"process manager\":\"static\"}}");
        let page = Answer::read(text.as_bytes()).expect("a page").page("a");
        let name = &page.tables[0].1[0].name;
        assert!(name.starts_with("\\u{1b}[2Jü"), "{name}");
        assert!(name.chars().count() < 300);
    }

    #[test]
    fn for_prometheus() {
        let Ok(Answer::Fpm(fpm)) = Answer::read(PAGE.as_bytes()) else {
            panic!("no page of PHP-FPM");
        };
        let text = fpm.numbers("unix:/run/php.sock/status").write();
        for line in [
            "# TYPE phpfpm_accepted_connections counter\n",
            "phpfpm_accepted_connections{pool=\"www\",scrape_uri=\"unix:/run/php.sock/status\"} 7\n",
            "phpfpm_process_state{pool=\"www\",child=\"0\",state=\"Running\",scrape_uri=\"unix:/run/php.sock/status\"} 1\n",
            "phpfpm_process_request_duration{pool=\"www\",child=\"0\",scrape_uri=\"unix:/run/php.sock/status\"} 1500321\n",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
