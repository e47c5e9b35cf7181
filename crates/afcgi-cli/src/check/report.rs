//! What is said of the cases: lines as they are over, one JSON object, or the XML of JUnit.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::case::{Case, Done, Failure, Level, Outcome, Section};
use crate::wire::{Palette, escaped};

/// How many cases came to what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// As they should be.
    pub passed: usize,
    /// Not as they should be.
    pub failed: usize,
    /// Of those, the ones of the level `should`.
    pub failed_should: usize,
    /// Not judged.
    pub skipped: usize,
}

impl Summary {
    pub(crate) fn add(&mut self, level: Level, outcome: &Outcome) {
        match outcome {
            Ok(()) => self.passed += 1,
            Err(Failure::Skip(_)) => self.skipped += 1,
            Err(Failure::Deviation { .. }) => {
                self.failed += 1;
                self.failed_should += usize::from(level == Level::Should);
            }
        }
    }

    /// The exit status.
    pub(crate) fn code(&self, strict: bool) -> u8 {
        let forgiven = if strict { 0 } else { self.failed_should };
        u8::from(self.failed > forgiven)
    }

    pub(crate) fn line(&self) -> String {
        let should = match self.failed_should {
            0 => String::new(),
            count => format!(" ({count} of them should, not must)"),
        };
        format!(
            "{} passed, {} failed{should}, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

/// A rule as it is cited.
fn rules(rules: &[u8]) -> String {
    let all: Vec<String> = rules.iter().map(|rule| format!("R-{rule:02}")).collect();
    all.join(", ")
}

/// The lines of a case that is over.
pub(crate) fn lines<P>(done: &Done<P>, palette: Palette, verbose: bool) -> String {
    let mut out = String::new();
    let (mark, style) = match &done.outcome {
        Ok(()) => ("✓", palette.received),
        Err(Failure::Skip(_)) => ("-", palette.note),
        Err(Failure::Deviation { .. }) => ("✗", palette.bad),
    };
    let Case {
        id, name, level, ..
    } = done.case;
    let level = level.name();
    _ = write!(out, "  {style}{mark}{style:#} {id:<13} {level:<6}  {name}");
    match &done.outcome {
        Ok(()) => out.push('\n'),
        Err(Failure::Skip(reason)) => {
            let note = palette.note;
            _ = writeln!(out, " {note}({reason}){note:#}");
        }
        Err(Failure::Deviation { expected, came }) => {
            out.push('\n');
            for (name, text) in [
                ("rule", &rules(done.case.rules)),
                ("expected", expected),
                ("came", came),
            ] {
                _ = writeln!(out, "      {name:<9} {}", escaped(text.as_bytes()));
            }
        }
    }
    if verbose || matches!(done.outcome, Err(Failure::Deviation { .. })) {
        for line in done.transcript.lines(palette) {
            _ = writeln!(out, "      {line}");
        }
    }
    out
}

/// The table of all cases.
pub(crate) fn list<P>(sections: &[Section<P>]) -> String {
    let mut out = String::new();
    let mut count = 0;
    for section in sections {
        _ = writeln!(out, "{} [{}]", section.title, section.slug);
        for case in section.cases {
            count += 1;
            let (id, level, rules) = (case.id, case.level.name(), rules(case.rules));
            _ = writeln!(out, "  {id:<13} {level:<6}  {} [{rules}]", case.name);
        }
    }
    _ = writeln!(out, "{count} cases");
    out
}

/// A case for JSON.
pub(crate) fn json_case<P>(done: &Done<P>) -> Value {
    let rules: Vec<String> = done
        .case
        .rules
        .iter()
        .map(|rule| format!("R-{rule:02}"))
        .collect();
    let mut value = json!({
        "id": done.case.id,
        "section": done.section.slug,
        "name": done.case.name,
        "level": done.case.level.name(),
        "rules": rules,
        "seconds": done.took.as_secs_f64(),
    });
    let (outcome, more) = match &done.outcome {
        Ok(()) => ("pass", Value::Null),
        Err(Failure::Skip(reason)) => ("skip", json!({ "reason": reason })),
        Err(Failure::Deviation { expected, came }) => {
            let transcript = done.transcript.lines(Palette::default());
            (
                "fail",
                json!({ "expected": expected, "came": came, "transcript": transcript }),
            )
        }
    };
    value["outcome"] = json!(outcome);
    if let Value::Object(more) = more {
        for (name, more) in more {
            value[name] = more;
        }
    }
    value
}

/// The whole object.
pub(crate) fn json(peer: &str, about: &str, cases: &[Value], summary: Summary) -> String {
    let report = json!({
        "peer": peer,
        "about": about,
        "passed": summary.passed,
        "failed": summary.failed,
        "failed_should": summary.failed_should,
        "skipped": summary.skipped,
        "cases": cases,
    });
    serde_json::to_string_pretty(&report).unwrap_or_default() + "\n"
}

/// A report in the XML of JUnit. A deviation of the level `should` is a failure there with `strict` only.
#[derive(Debug)]
pub(crate) struct Junit {
    cases: String,
    summary: Summary,
    took: Duration,
    strict: bool,
}

impl Junit {
    pub(crate) fn new(strict: bool) -> Self {
        Self {
            cases: String::new(),
            summary: Summary::default(),
            took: Duration::ZERO,
            strict,
        }
    }

    pub(crate) fn add<P>(&mut self, done: &Done<P>) {
        let case = done.case;
        self.summary.add(case.level, &done.outcome);
        self.took += done.took;
        let name = xml(&format!("{} {}", case.id, case.name));
        let (class, time) = (xml(done.section.slug), done.took.as_secs_f64());
        _ = write!(
            self.cases,
            "  <testcase classname=\"{class}\" name=\"{name}\" time=\"{time:.6}\">"
        );
        match &done.outcome {
            Ok(()) => {}
            Err(Failure::Skip(reason)) => {
                _ = write!(self.cases, "<skipped message=\"{}\"/>", xml(reason))
            }
            Err(Failure::Deviation { expected, came }) => {
                let message = xml(&format!("expected {expected}; came {came}"));
                let text = xml(&done.transcript.lines(Palette::default()).join("\n"));
                let counts = self.strict || case.level != Level::Should;
                _ = match counts {
                    true => write!(
                        self.cases,
                        "\n    <failure type=\"{}\" message=\"{message}\">{text}</failure>\n  ",
                        case.level.name()
                    ),
                    false => write!(self.cases, "<skipped message=\"should: {message}\"/>"),
                };
            }
        }
        self.cases.push_str("</testcase>\n");
    }

    pub(crate) fn finish(self, peer: &str) -> String {
        let Summary {
            passed,
            failed,
            failed_should,
            skipped,
        } = self.summary;
        let forgiven = if self.strict { 0 } else { failed_should };
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"afcgi check {}\" tests=\"{}\" failures=\"{}\" errors=\"0\" skipped=\"{}\" time=\"{:.6}\">\n{}</testsuite>\n",
            xml(peer),
            passed + failed + skipped,
            failed - forgiven,
            skipped + forgiven,
            self.took.as_secs_f64(),
            self.cases
        )
    }
}

/// Text inside XML. Characters that XML cannot hold are written out.
fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            '\u{fffe}' | '\u{ffff}' => out.extend(character.escape_unicode()),
            character if character.is_control() => out.extend(character.escape_unicode()),
            character => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xml_holds_any_text() {
        assert_eq!(
            xml("<a b=\"c\">\n&\u{1b}\0"),
            "&lt;a b=&quot;c&quot;&gt;&#10;&amp;\\u{1b}\\u{0}"
        );
    }

    #[test]
    fn only_strict_counts_what_should_be() {
        let mut summary = Summary::default();
        let fails = || {
            Err(Failure::Deviation {
                expected: String::new(),
                came: String::new(),
            })
        };
        summary.add(Level::Must, &Ok(()));
        summary.add(Level::Must, &Err(Failure::Skip(String::new())));
        summary.add(Level::Should, &fails());
        assert_eq!((summary.code(false), summary.code(true)), (0, 1));
        assert_eq!(
            summary.line(),
            "1 passed, 1 failed (1 of them should, not must), 1 skipped"
        );
        summary.add(Level::Robust, &fails());
        assert_eq!((summary.code(false), summary.code(true)), (1, 1));
    }
}
