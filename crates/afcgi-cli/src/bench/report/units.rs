//! Numbers as people read them.

/// A number in groups of three digits.
pub(in super::super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Milliseconds in a unit that suits them, with three digits.
pub(in super::super) fn time(millis: f64) -> String {
    let (number, unit) = match millis {
        millis if millis < 0.9995 => (millis * 1000.0, "µs"),
        millis if millis < 999.5 => (millis, "ms"),
        millis => (millis / 1000.0, "s"),
    };
    format!("{} {unit}", digits(number))
}

/// Bytes in a unit that suits them, with three digits.
pub(in super::super) fn bytes(bytes: f64) -> String {
    let (mut number, mut units) = (bytes, ["B", "kB", "MB", "GB", "TB"].iter());
    let mut unit = units.next().unwrap_or(&"B");
    while number >= 999.5
        && let Some(next) = units.next()
    {
        (number, unit) = (number / 1000.0, next);
    }
    match unit {
        &"B" => format!("{number:.0} B"),
        unit => format!("{} {unit}", digits(number)),
    }
}

/// Three digits, or all of those before the point.
pub(in super::super) fn digits(number: f64) -> String {
    match number {
        number if number > 0.0 && number < 0.9995 => format!("{number:.3}"),
        number if number < 9.995 => format!("{number:.2}"),
        number if number < 99.95 => format!("{number:.1}"),
        number => format!("{number:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(number), text);
        }
        for (millis, text) in [
            (0.0, "0.00 µs"),
            (0.000_123, "0.123 µs"),
            (0.0123, "12.3 µs"),
            (0.9999, "1.00 ms"),
            (123.4, "123 ms"),
            (1234.0, "1.23 s"),
            (123_456.0, "123 s"),
        ] {
            assert_eq!(time(millis), text);
        }
        for (number, text) in [
            (0.0, "0 B"),
            (999.0, "999 B"),
            (1000.0, "1.00 kB"),
            (999_999.0, "1.00 MB"),
            (1e15, "1000 TB"),
        ] {
            assert_eq!(bytes(number), text);
        }
    }
}
