//! The tables: which columns each has, what is in their cells, and how a cell is written in a narrow column.

use std::cmp::Ordering;

use serde_json::Value;

/// What a table has rows of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Group {
    /// Gateways, with what their clients get.
    Gateways,
    /// Applications behind a gateway or the module.
    Applications,
    /// Pools of PHP-FPM.
    Pools,
    /// Processes of these pools.
    Processes,
}

/// How a cell is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Show {
    Text,
    /// What there is now.
    Count,
    /// What has happened so often.
    Total,
    /// How often a second a total grows; the key of that total.
    Rate(&'static str),
    /// The same of bytes.
    ByteRate(&'static str),
    Bytes,
    Seconds,
    Microseconds,
    /// This part of the requests took as long at most, in seconds.
    Percentile(f64),
    Percent,
}

/// A column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    /// Its name in JSON.
    pub(super) key: &'static str,
    pub(super) title: &'static str,
    /// Characters; 0: it is in JSON alone.
    pub(super) width: usize,
    pub(super) show: Show,
}

const fn column(key: &'static str, title: &'static str, width: usize, show: Show) -> Column {
    Column {
        key,
        title,
        width,
        show,
    }
}

const fn hidden(key: &'static str, show: Show) -> Column {
    column(key, "", 0, show)
}

const GATEWAYS: &[Column] = &[
    column("connections", "CONN", 5, Show::Count),
    column("active", "ACTIVE", 6, Show::Count),
    hidden("requests", Show::Total),
    column("requests_per_second", "REQ/S", 5, Show::Rate("requests")),
    hidden("server_errors", Show::Total),
    column(
        "server_errors_per_second",
        "5XX/S",
        5,
        Show::Rate("server_errors"),
    ),
    hidden("response_bytes", Show::Total),
    column(
        "response_bytes_per_second",
        "OUT/S",
        5,
        Show::ByteRate("response_bytes"),
    ),
    column("held_bytes", "HELD", 5, Show::Bytes),
    hidden("overloaded", Show::Total),
    column("p50_seconds", "P50", 5, Show::Percentile(0.5)),
    column("p90_seconds", "P90", 5, Show::Percentile(0.9)),
    column("p99_seconds", "P99", 5, Show::Percentile(0.99)),
];

const APPLICATIONS: &[Column] = &[
    column("connections", "CONN", 4, Show::Count),
    column("active", "ACTIVE", 6, Show::Count),
    column("held", "HELD", 4, Show::Count),
    column("waiting", "WAIT", 4, Show::Count),
    hidden("requests", Show::Total),
    column("requests_per_second", "REQ/S", 5, Show::Rate("requests")),
    hidden("bytes_received", Show::Total),
    column(
        "bytes_received_per_second",
        "IN/S",
        5,
        Show::ByteRate("bytes_received"),
    ),
    hidden("bytes_sent", Show::Total),
    column(
        "bytes_sent_per_second",
        "OUT/S",
        5,
        Show::ByteRate("bytes_sent"),
    ),
    column("aborts", "ABORT", 5, Show::Total),
    column("stalls", "STALL", 5, Show::Total),
    column("connect_failures", "FAIL", 4, Show::Total),
    hidden("aside", Show::Total),
    hidden("connects", Show::Total),
    hidden("refusals", Show::Total),
    hidden("stall_aborts", Show::Total),
    hidden("retired", Show::Total),
    hidden("astray", Show::Total),
    hidden("retries", Show::Total),
    hidden("timeouts", Show::Total),
    hidden("failures", Show::Total),
    hidden("upgrades", Show::Total),
    hidden("addresses_down", Show::Count),
    hidden("multiplexes", Show::Text),
    hidden("flow_control", Show::Text),
    hidden("upgrade", Show::Text),
];

const POOLS: &[Column] = &[
    column("process_manager", "PM", 8, Show::Text),
    column("active", "ACTIVE", 6, Show::Count),
    column("idle", "IDLE", 4, Show::Count),
    column("processes", "PROCS", 5, Show::Count),
    column("queue", "QUEUE", 5, Show::Count),
    column("max_queue", "MAXQ", 4, Show::Count),
    hidden("queue_length", Show::Count),
    hidden("max_active", Show::Count),
    hidden("accepted", Show::Total),
    column("accepted_per_second", "REQ/S", 5, Show::Rate("accepted")),
    column("slow_requests", "SLOW", 4, Show::Total),
    column("max_children_reached", "FULL", 4, Show::Total),
    column("up_seconds", "UP", 5, Show::Seconds),
];

const PROCESSES: &[Column] = &[
    column("pid", "PID", 7, Show::Count),
    column("state", "STATE", 9, Show::Text),
    column("running_microseconds", "TIME", 6, Show::Microseconds),
    hidden("request_microseconds", Show::Microseconds),
    column("requests", "REQS", 6, Show::Count),
    column("cpu_percent", "CPU%", 5, Show::Percent),
    column("memory_bytes", "MEM", 5, Show::Bytes),
    hidden("method", Show::Text),
    hidden("uri", Show::Text),
    hidden("script", Show::Text),
    hidden("user", Show::Text),
    hidden("pool", Show::Text),
];

impl Group {
    /// In the order in which they are shown.
    pub(super) const ALL: [Self; 4] = [
        Self::Gateways,
        Self::Applications,
        Self::Pools,
        Self::Processes,
    ];

    pub(super) fn columns(self) -> &'static [Column] {
        match self {
            Self::Gateways => GATEWAYS,
            Self::Applications => APPLICATIONS,
            Self::Pools => POOLS,
            Self::Processes => PROCESSES,
        }
    }

    /// What its rows are called in JSON.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Gateways => "gateways",
            Self::Applications => "applications",
            Self::Pools => "pools",
            Self::Processes => "processes",
        }
    }

    /// The title of the names.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Gateways => "GATEWAY",
            Self::Applications => "APPLICATION",
            Self::Pools => "POOL",
            Self::Processes => "REQUEST",
        }
    }

    /// Where a column is.
    pub(super) fn position(self, key: &str) -> Option<usize> {
        self.columns().iter().position(|column| column.key == key)
    }

    /// The column by which its rows are sorted at first, the largest on top.
    pub(super) fn first_sort(self) -> usize {
        let key = match self {
            Self::Gateways | Self::Applications => "requests_per_second",
            Self::Pools => "accepted_per_second",
            Self::Processes => "running_microseconds",
        };
        self.position(key).unwrap_or_default()
    }

    /// Whether the end of a name says more than its beginning.
    pub(super) fn keeps_end(self) -> bool {
        self != Self::Processes
    }
}

/// What is in a row at a column.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Cell {
    /// The source does not say it.
    #[default]
    Unknown,
    Count(u64),
    Real(f64),
    Text(String),
}

impl Cell {
    pub(super) fn count(&self) -> Option<u64> {
        match self {
            Self::Count(count) => Some(*count),
            Self::Unknown | Self::Real(_) | Self::Text(_) => None,
        }
    }

    fn number(&self) -> Option<f64> {
        match self {
            Self::Count(count) => Some(*count as f64),
            Self::Real(real) => Some(*real),
            Self::Unknown | Self::Text(_) => None,
        }
    }

    pub(super) fn json(&self) -> Value {
        match self {
            Self::Unknown => Value::Null,
            Self::Count(count) => Value::from(*count),
            Self::Real(real) => Value::from(*real),
            Self::Text(text) => match text.as_str() {
                "true" => Value::from(true),
                "false" => Value::from(false),
                text => Value::from(text),
            },
        }
    }

    /// As it is shown in so many characters, if that is possible.
    pub(super) fn shown(&self, show: Show, width: usize) -> String {
        let Some(number) = self.number() else {
            return match self {
                Self::Text(text) => text.clone(),
                _ => String::from("-"),
            };
        };
        match show {
            Show::Text | Show::Count | Show::Total => short(number, width, 1000.0),
            Show::Rate(_) => rate(number, width, 1000.0),
            Show::ByteRate(_) => rate(number, width, 1024.0),
            Show::Bytes => short(number, width, 1024.0),
            Show::Seconds => time(number),
            Show::Percentile(_) if number.is_infinite() => String::from(">600s"),
            Show::Percentile(_) => time(number),
            Show::Microseconds => time(number / 1e6),
            Show::Percent => format!("{number:.0}"),
        }
    }
}

/// The larger before the smaller, texts by the alphabet, what is not known last.
pub(super) fn compare(one: &Cell, other: &Cell, reverse: bool) -> Ordering {
    let order = match (one, other) {
        (Cell::Unknown, Cell::Unknown) => return Ordering::Equal,
        (Cell::Unknown, _) => return Ordering::Greater,
        (_, Cell::Unknown) => return Ordering::Less,
        (Cell::Text(one), Cell::Text(other)) => one.cmp(other),
        (one, other) => other
            .number()
            .unwrap_or_default()
            .total_cmp(&one.number().unwrap_or_default()),
    };
    if reverse { order.reverse() } else { order }
}

/// A row.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    pub(super) name: String,
    /// One for each column of its group.
    pub(super) cells: Vec<Cell>,
    /// How many requests took at most so many seconds, in ascending order.
    pub(super) buckets: Vec<(f64, u64)>,
}

impl Row {
    pub(super) fn new(group: Group, name: String) -> Self {
        Self {
            name,
            cells: vec![Cell::Unknown; group.columns().len()],
            buckets: Vec::new(),
        }
    }

    /// Sets the cell of a column. Columns that a group has not are left out.
    pub(super) fn set(&mut self, group: Group, key: &str, cell: Cell) {
        if let Some(at) = group.position(key) {
            self.cells[at] = cell;
        }
    }

    /// Adds to the cell of a column.
    pub(super) fn add(&mut self, group: Group, key: &str, count: u64) {
        if let Some(at) = group.position(key) {
            let before = self.cells[at].count().unwrap_or_default();
            self.cells[at] = Cell::Count(before.saturating_add(count));
        }
    }

    pub(super) fn json(&self, group: Group) -> Value {
        let columns = group.columns().iter().zip(&self.cells);
        let cells = columns.map(|(column, cell)| (column.key.to_owned(), cell.json()));
        let name = ("name".to_owned(), Value::from(self.name.as_str()));
        Value::Object(std::iter::once(name).chain(cells).collect())
    }
}

const UNITS: [&str; 6] = ["k", "M", "G", "T", "P", "E"];

/// A number in so many characters: `1234`, `12k`, `1.2M`.
fn short(number: f64, width: usize, step: f64) -> String {
    let whole = format!("{number:.0}");
    // Bytes are seldom wanted to the last.
    let fits = whole.len() <= width && (step < 1024.0 || number < step);
    if fits {
        return whole;
    }
    let mut rest = number;
    for unit in UNITS {
        rest /= step;
        if rest < 9.95 && width >= 4 {
            return format!("{rest:.1}{unit}");
        }
        // As it is rounded, it must be short of the next unit.
        if rest < step - 0.5 {
            return format!("{rest:.0}{unit}");
        }
    }
    format!("{rest:.0}{}", UNITS[UNITS.len() - 1])
}

/// The same, of what may be less than one.
fn rate(number: f64, width: usize, step: f64) -> String {
    match number {
        0.0 => String::from("0"),
        small if small < 9.95 => format!("{small:.1}"),
        large => short(large, width, step),
    }
}

/// A time in five characters.
pub(super) fn time(seconds: f64) -> String {
    match seconds {
        0.0 => String::from("0"),
        s if s < 0.000_999_5 => format!("{:.0}µs", s * 1e6),
        s if s < 0.009_95 => format!("{:.1}ms", s * 1e3),
        s if s < 0.999_5 => format!("{:.0}ms", s * 1e3),
        s if s < 9.95 => format!("{s:.1}s"),
        s if s < 99.5 => format!("{s:.0}s"),
        s if s < 3_600.0 => format!("{:.0}m", (s / 60.0).floor()),
        s if s < 86_400.0 => format!("{:.0}h", (s / 3_600.0).floor()),
        s if s < 9_999.0 * 86_400.0 => format!("{:.0}d", (s / 86_400.0).floor()),
        _ => String::from("years"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fit_their_columns() {
        for (number, width, step, expected) in [
            (0.0, 4, 1000.0, "0"),
            (9_999.0, 4, 1000.0, "9999"),
            (10_000.0, 4, 1000.0, "10k"),
            (99_999.0, 4, 1000.0, "100k"),
            (999_600.0, 4, 1000.0, "1.0M"),
            (1_234_567.0, 5, 1000.0, "1.2M"),
            (1_023.0, 5, 1024.0, "1023"),
            (1_024.0, 5, 1024.0, "1.0k"),
            (1_048_575.0, 5, 1024.0, "1.0M"),
            (1_023.4 * 1_024.0, 5, 1024.0, "1023k"),
            (u64::MAX as f64, 4, 1000.0, "18E"),
        ] {
            assert_eq!(short(number, width, step), expected, "{number}");
        }
        for exponent in 0..64 {
            for number in [1_u64 << exponent, (1 << exponent) - 1] {
                let (short, rate) = (
                    short(number as f64, 4, 1000.0),
                    rate(number as f64, 5, 1024.0),
                );
                assert!(short.len() <= 4, "{number}: {short}");
                assert!(rate.len() <= 5, "{number}: {rate}");
            }
        }
    }

    #[test]
    fn times() {
        for (seconds, expected) in [
            (0.0, "0"),
            (0.000_12, "120µs"),
            (0.000_999_7, "1.0ms"),
            (0.009_96, "10ms"),
            (0.999_7, "1.0s"),
            (59.7, "60s"),
            (100.0, "1m"),
            (3_599.0, "59m"),
            (90_000.0, "1d"),
            (1e18, "years"),
        ] {
            assert_eq!(time(seconds), expected, "{seconds}");
        }
    }

    #[test]
    fn what_is_not_known_comes_last_either_way() {
        let mut cells = [
            Cell::Unknown,
            Cell::Count(3),
            Cell::Real(4.5),
            Cell::Count(0),
        ];
        cells.sort_by(|one, other| compare(one, other, false));
        let down = [
            Cell::Real(4.5),
            Cell::Count(3),
            Cell::Count(0),
            Cell::Unknown,
        ];
        assert_eq!(cells, down);
        cells.sort_by(|one, other| compare(one, other, true));
        let up = [
            Cell::Count(0),
            Cell::Count(3),
            Cell::Real(4.5),
            Cell::Unknown,
        ];
        assert_eq!(cells, up);
    }

    #[test]
    fn all_fits_into_80_columns() {
        for group in Group::ALL {
            let widths = group.columns().iter().filter(|column| column.width > 0);
            let all: usize = widths.clone().map(|column| column.width + 1).sum();
            assert!(all + 17 <= 80, "{group:?}: {all}");
            assert!(widths.clone().all(|c| c.title.len() <= c.width));
        }
    }
}
