//! What a source answered: which page that is, and its numbers as tables.

use std::collections::BTreeMap;

use serde_json::Value;

use super::fpm::{self, Fpm};
use super::prometheus::{Numbers, Sample};
use super::shape::{Kind, Page, ROWS, TEXT, clean};
use super::table::{Cell, Group, Row};

/// An answer that is a status page.
#[derive(Debug)]
pub(super) enum Answer {
    /// The page of the module as JSON: an object for each address.
    Module(Vec<BTreeMap<String, Value>>, usize),
    /// That of the module or the gateway for Prometheus.
    Prometheus(Kind, Numbers),
    Fpm(Box<Fpm>),
}

impl Answer {
    /// Recognises a page.
    pub(super) fn read(body: &[u8]) -> Result<Self, String> {
        let text = String::from_utf8_lossy(body);
        let text = text.trim();
        if text.starts_with('{') {
            return Ok(match fpm::read(text)? {
                fpm::Read::Module(addresses, left_out) => Self::Module(addresses, left_out),
                fpm::Read::Fpm(fpm) => Self::Fpm(fpm),
            });
        }
        if text.starts_with("pool:") {
            return Err(String::from(
                "the status page of PHP-FPM as text: ask with ?json&full",
            ));
        }
        let numbers = Numbers::read(text);
        let has = |prefix: &str| {
            let mut samples = numbers.samples.iter();
            samples.any(|sample| sample.name.starts_with(prefix))
        };
        let (module, gateway) = (has("fastcgi_multiplex_"), has("afcgi_gateway_"));
        match (module, gateway, numbers.samples.is_empty()) {
            (true, ..) => Ok(Self::Prometheus(Kind::Module, numbers)),
            (_, true, _) => Ok(Self::Prometheus(Kind::Gateway, numbers)),
            (_, _, false) => Err(String::from(
                "numbers for Prometheus, but neither of the nginx module nor of the gateway",
            )),
            (_, _, true) if text.is_empty() => Err(String::from("the answer is empty")),
            (_, _, true) => {
                let line = text.lines().next().unwrap_or_default();
                let begin: String = line.chars().take(40).collect();
                Err(format!(
                    "not a status page of module, gateway or PHP-FPM: it begins with `{}`",
                    clean(&begin)
                ))
            }
        }
    }

    /// Its numbers as tables. A gateway has the name of its source.
    pub(super) fn page(&self, source: &str) -> Page {
        match self {
            Self::Module(addresses, left_out) => Page {
                kind: Kind::Module,
                started: None,
                tables: vec![(Group::Applications, addresses.iter().map(address).collect())],
                left_out: *left_out,
            },
            Self::Prometheus(kind, numbers) => prometheus(*kind, numbers, source),
            Self::Fpm(fpm) => fpm.page(),
        }
    }
}

/// The row of an object of the module's page.
fn address(address: &BTreeMap<String, Value>) -> Row {
    let group = Group::Applications;
    let name = address.get("address").and_then(Value::as_str);
    let mut row = Row::new(group, clean(name.unwrap_or_default()));
    for (key, value) in address {
        let cell = match value {
            Value::Number(number) => number.as_u64().map_or(Cell::Unknown, Cell::Count),
            Value::Bool(yes) => Cell::Text(yes.to_string()),
            _ => continue,
        };
        // The module says what takes a place and is not wanted any more.
        let key = if key == "draining" { "held" } else { key };
        if !matches!(key, "address") {
            row.set(group, key, cell);
        }
    }
    row
}

/// The columns of the names that a page for Prometheus has.
const NAMES: &[(&str, &str)] = &[
    ("fastcgi_multiplex_connections", "connections"),
    ("fastcgi_multiplex_requests_active", "active"),
    ("fastcgi_multiplex_requests_draining", "held"),
    ("fastcgi_multiplex_requests_waiting", "waiting"),
    ("fastcgi_multiplex_requests_total", "requests"),
    ("fastcgi_multiplex_requests_aside_total", "aside"),
    ("fastcgi_multiplex_sent_bytes_total", "bytes_sent"),
    ("fastcgi_multiplex_received_bytes_total", "bytes_received"),
    ("fastcgi_multiplex_aborts_total", "aborts"),
    ("fastcgi_multiplex_stalls_total", "stalls"),
    ("fastcgi_multiplex_stall_aborts_total", "stall_aborts"),
    ("fastcgi_multiplex_refusals_total", "refusals"),
    ("fastcgi_multiplex_connects_total", "connects"),
    (
        "fastcgi_multiplex_connect_failures_total",
        "connect_failures",
    ),
    ("fastcgi_multiplex_connections_retired_total", "retired"),
    ("fastcgi_multiplex_requests_astray_total", "astray"),
    ("fastcgi_multiplex_application_multiplexes", "multiplexes"),
    ("fastcgi_multiplex_application_flow_control", "flow_control"),
    ("fastcgi_multiplex_application_upgrade", "upgrade"),
    ("afcgi_gateway_upstream_connections", "connections"),
    ("afcgi_gateway_upstream_requests_active", "active"),
    ("afcgi_gateway_upstream_requests_waiting", "waiting"),
    ("afcgi_gateway_upstream_connections_total", "connects"),
    (
        "afcgi_gateway_upstream_connect_failures_total",
        "connect_failures",
    ),
    ("afcgi_gateway_upstream_requests_total", "requests"),
    ("afcgi_gateway_upstream_retries_total", "retries"),
    ("afcgi_gateway_upstream_refusals_total", "refusals"),
    ("afcgi_gateway_upstream_timeouts_total", "timeouts"),
    ("afcgi_gateway_upstream_failures_total", "failures"),
    ("afcgi_gateway_upstream_aborts_total", "aborts"),
    ("afcgi_gateway_upstream_stalls_total", "stalls"),
    ("afcgi_gateway_upstream_upgrades_total", "upgrades"),
    ("afcgi_gateway_connections_active", "connections"),
    ("afcgi_gateway_requests_active", "active"),
    ("afcgi_gateway_requests_total", "requests"),
    ("afcgi_gateway_response_bytes_total", "response_bytes"),
    ("afcgi_gateway_responses_waiting_bytes", "held_bytes"),
    ("afcgi_gateway_overloaded_total", "overloaded"),
];

/// The name that Prometheus has for a column of the module's page, and whether it is a total.
pub(super) fn module_name(key: &str) -> Option<(&'static str, bool)> {
    let mut names = NAMES.iter();
    let (name, _) =
        names.find(|(name, column)| *column == key && name.starts_with("fastcgi_multiplex_"))?;
    Some((name, name.ends_with("_total")))
}

fn prometheus(kind: Kind, numbers: &Numbers, source: &str) -> Page {
    let mut rows: BTreeMap<&str, Row> = BTreeMap::new();
    let source = source.strip_prefix("http://").unwrap_or(source);
    let mut gateway = Row::new(Group::Gateways, source.to_owned());
    let mut left_out = numbers.left_out;
    for sample in &numbers.samples {
        let name = sample.label("address").or(sample.label("upstream"));
        let column = NAMES.iter().find(|(name, _)| *name == sample.name);
        let column = column.map(|(_, column)| *column);
        match name.filter(|_| sample.name != "afcgi_gateway_upstream_up") {
            Some(name) => {
                let Some(column) = column else { continue };
                if rows.len() >= ROWS && !rows.contains_key(name) {
                    left_out += usize::from(column == "connections");
                    continue;
                }
                let row = || Row::new(Group::Applications, clean(name));
                let row = rows.entry(name).or_insert_with(row);
                match column {
                    "multiplexes" | "flow_control" | "upgrade" => {
                        let yes = Cell::Text((sample.value != 0.0).to_string());
                        row.set(Group::Applications, column, yes);
                    }
                    column => row.set(Group::Applications, column, count(sample)),
                }
            }
            None => of_gateway(&mut gateway, sample, column),
        }
    }
    for sample in &numbers.samples {
        if sample.name == "afcgi_gateway_upstream_up"
            && let Some(row) = sample.label("upstream").and_then(|name| rows.get_mut(name))
        {
            let down = u64::from(sample.value == 0.0);
            row.add(Group::Applications, "addresses_down", down);
        }
    }
    gateway
        .buckets
        .sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut tables = vec![(Group::Applications, rows.into_values().collect())];
    if kind == Kind::Gateway {
        tables.insert(0, (Group::Gateways, vec![gateway]));
    }
    Page {
        kind,
        started: None,
        tables,
        left_out,
    }
}

fn count(sample: &Sample) -> Cell {
    match sample.value {
        value if value >= 0.0 => Cell::Count(value as u64),
        _ => Cell::Unknown,
    }
}

/// A number of the gateway itself.
fn of_gateway(row: &mut Row, sample: &Sample, column: Option<&str>) {
    let group = Group::Gateways;
    let add = count(sample).count().unwrap_or_default();
    match (sample.name.as_str(), column) {
        ("afcgi_gateway_request_duration_seconds_bucket", _) => {
            let most = sample.label("le").and_then(|le| le.parse().ok());
            if let Some(most) = most.filter(|_| row.buckets.len() < TEXT) {
                row.buckets.push((most, add));
            }
        }
        ("afcgi_gateway_requests_total", _) => {
            row.add(group, "requests", add);
            let error = sample
                .label("code")
                .is_some_and(|code| code.starts_with('5'));
            row.add(group, "server_errors", if error { add } else { 0 });
        }
        (_, Some(column)) => row.set(group, column, Cell::Count(add)),
        (_, None) => {}
    }
}
