//! The report as a page: one file, with its style, its charts and its figures in it.

use serde_json::{Value, json};

use super::super::outcome::{Outcome, millis};
use super::json::json as report;

/// What stands in the page for the figures.
const PLACE: &str = "\"FIGURES\"";
const PAGE: &str = include_str!("page.html");
/// Points of the curve of latencies between two nines.
const STEPS: i32 = 30;

pub(in super::super) fn html(outcome: &Outcome) -> String {
    let mut figures = report(outcome);
    if let Value::Object(object) = &mut figures {
        object.insert("distribution".into(), distribution(outcome));
        object.insert("description".into(), json!(outcome.plan.to_string()));
    }
    PAGE.replacen(PLACE, &embedded(&figures), 1)
}

/// A value as a script in a page may hold it, whatever an application has said.
fn embedded(value: &Value) -> String {
    value
        .to_string()
        .replace('<', "\\u003c")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

/// Percentiles and milliseconds, the closer the nearer to all.
fn distribution(outcome: &Outcome) -> Value {
    let times = &outcome.stats.latency;
    let mut curve = Vec::new();
    for step in 0.. {
        let left = 10_f64.powf(f64::from(-step) / f64::from(STEPS));
        if times.is_empty() || left * (times.len() as f64) < 1.0 {
            break;
        }
        let value = times.value_at_quantile(1.0 - left);
        curve.push(json!([(1.0 - left) * 100.0, millis(value)]));
    }
    if !times.is_empty() {
        let left = 1.0 / (times.len() + 1) as f64;
        curve.push(json!([(1.0 - left) * 100.0, millis(times.max())]));
    }
    Value::Array(curve)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_application_says_does_not_end_the_script() {
        let text = embedded(&json!({ "a": "</script><b>\u{2028}" }));
        assert_eq!(text, r#"{"a":"\u003c/script>\u003cb>\u2028"}"#);
        assert_eq!(
            serde_json::from_str::<Value>(&text).expect("JSON")["a"],
            "</script><b>\u{2028}"
        );
        assert_eq!(PAGE.matches(PLACE).count(), 1);
    }
}
