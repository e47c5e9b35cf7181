//! The text format of Prometheus, version 0.0.4: read, and written with the numbers of several sources in one.

use std::collections::BTreeMap;
use std::fmt::Write;

/// Lines with a number that are read of a source; what is behind them is left out.
const SAMPLES: usize = 50_000;

/// A line with a number.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) name: String,
    pub(super) labels: Vec<(String, String)>,
    pub(super) value: f64,
}

impl Sample {
    pub(super) fn label(&self, name: &str) -> Option<&str> {
        let label = self.labels.iter().find(|label| label.0 == name)?;
        Some(&label.1)
    }
}

/// What is said of a name.
#[derive(Clone, Debug, Default, PartialEq)]
struct About {
    help: String,
    kind: String,
}

/// The numbers of a source, or of several.
#[derive(Clone, Debug, Default)]
pub(super) struct Numbers {
    about: BTreeMap<String, About>,
    pub(super) samples: Vec<Sample>,
    pub(super) left_out: usize,
}

impl Numbers {
    /// What of a text is in the format: lines that are not are passed over.
    pub(super) fn read(text: &str) -> Self {
        let mut numbers = Self::default();
        for line in text.lines() {
            let line = line.trim();
            if let Some(comment) = line.strip_prefix('#') {
                numbers.read_comment(comment.trim_start());
            } else if let Some(sample) = read_sample(line) {
                match numbers.samples.len() < SAMPLES {
                    true => numbers.samples.push(sample),
                    false => numbers.left_out += 1,
                }
            }
        }
        numbers
    }

    fn read_comment(&mut self, comment: &str) {
        let mut words = comment.splitn(3, ' ');
        let (Some(what), Some(name)) = (words.next(), words.next()) else {
            return;
        };
        let rest = words.next().unwrap_or_default().to_owned();
        if !is_name(name) || (self.about.len() >= SAMPLES && !self.about.contains_key(name)) {
            return;
        }
        match what {
            "HELP" => self.about.entry(name.to_owned()).or_default().help = rest,
            "TYPE" => self.about.entry(name.to_owned()).or_default().kind = rest,
            _ => {}
        }
    }

    /// Says what a name is, before its samples.
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        let about = self.about.entry(name.to_owned()).or_default();
        kind.clone_into(&mut about.kind);
        help.clone_into(&mut about.help);
    }

    pub(super) fn push(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        self.samples.push(Sample {
            name: name.to_owned(),
            labels: labels.iter().map(owned).collect(),
            value,
        });
    }

    /// Takes the numbers of another source in, with a label that tells them apart.
    pub(super) fn take(&mut self, other: Self, label: (&str, &str)) {
        for (name, about) in other.about {
            self.about.entry(name).or_insert(about);
        }
        self.left_out += other.left_out;
        for mut sample in other.samples {
            sample.labels.retain(|(name, _)| name != label.0);
            let (name, value) = label;
            sample.labels.push((name.to_owned(), value.to_owned()));
            self.samples.push(sample);
        }
    }

    /// The family of a sample: what it is about is said of that.
    fn family_of<'a>(&self, name: &'a str) -> &'a str {
        for end in ["_bucket", "_sum", "_count"] {
            if let Some(family) = name.strip_suffix(end)
                && let Some(about) = self.about.get(family)
                && matches!(about.kind.as_str(), "histogram" | "summary")
            {
                return family;
            }
        }
        name
    }

    /// As text. All samples of a family are in one place, as the format asks.
    pub(super) fn write(&self) -> String {
        let mut families: BTreeMap<&str, Vec<&Sample>> = BTreeMap::new();
        for sample in &self.samples {
            let family = self.family_of(&sample.name);
            families.entry(family).or_default().push(sample);
        }
        let mut out = String::new();
        for (family, samples) in families {
            if let Some(about) = self.about.get(family) {
                if !about.help.is_empty() {
                    _ = writeln!(out, "# HELP {family} {}", about.help);
                }
                if !about.kind.is_empty() {
                    _ = writeln!(out, "# TYPE {family} {}", about.kind);
                }
            }
            for sample in samples {
                write_sample(&mut out, sample);
            }
        }
        out
    }
}

fn write_sample(out: &mut String, sample: &Sample) {
    out.push_str(&sample.name);
    for (n, (name, value)) in sample.labels.iter().enumerate() {
        out.push(if n == 0 { '{' } else { ',' });
        _ = write!(out, "{name}=\"");
        for c in value.chars() {
            match c {
                '"' | '\\' => out.extend(['\\', c]),
                '\n' => out.push_str("\\n"),
                c => out.push(c),
            }
        }
        out.push('"');
    }
    if !sample.labels.is_empty() {
        out.push('}');
    }
    // Rust writes what is not finite as `inf`.
    _ = match sample.value {
        value if value.is_nan() => writeln!(out, " NaN"),
        f64::INFINITY => writeln!(out, " +Inf"),
        f64::NEG_INFINITY => writeln!(out, " -Inf"),
        value => writeln!(out, " {value}"),
    };
}

fn is_name(name: &str) -> bool {
    let first = name.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    first
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':'))
}

fn read_sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' ', '\t'])?;
    let (name, rest) = line.split_at(end);
    if !is_name(name) {
        return None;
    }
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => read_labels(rest)?,
        None => (Vec::new(), rest),
    };
    let value = rest.split_ascii_whitespace().next()?;
    Some(Sample {
        name: name.to_owned(),
        labels,
        value: value.parse().ok()?,
    })
}

/// Labels up to the brace, and what is behind it.
fn read_labels(mut rest: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', ',']);
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, behind) = rest.split_once('=')?;
        let name = name.trim();
        let mut chars = behind.trim_start().strip_prefix('"')?.char_indices();
        let text = behind.trim_start().strip_prefix('"')?;
        let mut value = String::new();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    c => value.push(c),
                },
                (_, c) => value.push(c),
            }
        };
        if !is_name(name) {
            return None;
        }
        labels.push((name.to_owned(), value));
        rest = &text[end + 1..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP a_total How often.\n# TYPE a_total counter\n\
        a_total{x=\"q\\\"b\\\\c\\nd\",y=\"}\"} 3 1700000000000\n\
        # TYPE h histogram\nh_bucket{le=\"0.5\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 0.25\nh_count 2\n\
        plain 1e3\ninf +Inf\n";

    #[test]
    fn reads_and_writes() {
        let numbers = Numbers::read(TEXT);
        assert_eq!(numbers.samples.len(), 7);
        assert_eq!(numbers.samples[0].label("x"), Some("q\"b\\c\nd"));
        assert_eq!(numbers.samples[0].label("y"), Some("}"));
        assert!(numbers.samples[6].value.is_infinite());
        let mut all = Numbers::default();
        for source in ["one", "two"] {
            all.take(Numbers::read(TEXT), ("scrape_uri", source));
        }
        let text = all.write();
        assert_eq!(text.matches("# TYPE a_total counter\n").count(), 1);
        assert!(text.contains(
            "a_total{x=\"q\\\"b\\\\c\\nd\",y=\"}\",scrape_uri=\"one\"} 3\na_total{x=\"q\\\"b\\\\c\\nd\",y=\"}\",scrape_uri=\"two\"} 3\n"
        ));
        // The parts of a histogram stay below its name.
        assert_eq!(text.matches("# TYPE h histogram\nh_bucket{").count(), 1);
        assert!(text.contains("inf{scrape_uri=\"one\"} +Inf\n"), "{text}");
        assert_eq!(
            Numbers::read(&text).samples.len(),
            2 * numbers.samples.len()
        );
    }

    #[test]
    fn passes_over_what_is_no_sample() {
        for line in [
            "",
            "a",
            "a x",
            "1a 1",
            "a{ 1",
            "a{b} 1",
            "a{b=c} 1",
            "a{b=\"c} 1",
            "a{b=\"c\\",
            "a{=\"c\"} 1",
            "a{b=\"ü\"",
            "<html> 1",
        ] {
            assert!(read_sample(line).is_none(), "{line:?}");
        }
        let many = "a 1\n".repeat(SAMPLES + 5);
        let numbers = Numbers::read(&many);
        assert_eq!((numbers.samples.len(), numbers.left_out), (SAMPLES, 5));
    }
}
