//! Values of the configuration file that are written as text: durations, sizes, addresses.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};

/// What is written as text and parsed; the error says what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Text<T>(pub(crate) T);

impl<'de, T> Deserialize<'de> for Text<T>
where
    T: FromStr,
    T::Err: fmt::Display,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parse<T>(PhantomData<T>);
        impl<T> Visitor<'_> for Parse<T>
        where
            T: FromStr,
            T::Err: fmt::Display,
        {
            type Value = Text<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text in quotes")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text<T>, E> {
                text.parse().map(Text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Parse(PhantomData))
    }
}

/// The longest duration, a hundred years: a time that is further away cannot be told by every clock.
const LONGEST: Duration = Duration::from_secs(36_525 * 24 * 60 * 60);

/// A duration, such as `10s` or `1m 30s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match humantime::parse_duration(text) {
            Ok(duration) if duration > LONGEST => Err(format!(
                "`{}` is too long: expected 100 years at most",
                text.escape_debug()
            )),
            Ok(duration) if !duration.is_zero() => Ok(Self(duration)),
            _ => Err(format!(
                "`{}` is not a duration: expected a number with a unit, above 0, such as \"500ms\", \"10s\" or \"5m\"",
                text.escape_debug()
            )),
        }
    }
}

/// A duration, or `never`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Patience(pub(crate) Option<Duration>);

impl FromStr for Patience {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "never" {
            return Ok(Self(None));
        }
        match text.parse() {
            Ok(Span(duration)) => Ok(Self(Some(duration))),
            Err(error) => Err(format!("{error}, or \"never\"")),
        }
    }
}

/// Permission bits of a file, in octal: `660`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode(u32);

impl Mode {
    /// The bits, as `chmod` takes them.
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        match u32::from_str_radix(text, 8) {
            Ok(mode @ 0..=0o777) if digits => Ok(Self(mode)),
            _ => Err(format!(
                "`{}` is not a file mode: expected permission bits in octal, such as \"660\"",
                text.escape_debug()
            )),
        }
    }
}

/// How a log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// A JSON object on each line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!(
                "`{}` is not a log format: expected \"text\" or \"json\"",
                text.escape_debug()
            )),
        }
    }
}

/// A number of bytes: `65536`, or as text with K, M or G for powers of 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (digits, shift) = match text.as_bytes().last() {
            Some(b'k' | b'K') => (&text[..text.len() - 1], 10),
            Some(b'm' | b'M') => (&text[..text.len() - 1], 20),
            Some(b'g' | b'G') => (&text[..text.len() - 1], 30),
            _ => (text, 0),
        };
        let number = digits.parse::<u64>().ok();
        number
            .filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|number| number.checked_mul(1 << shift))
            .map(Self)
            .ok_or_else(|| {
                format!(
                    "`{}` is not a size: expected a number of bytes, such as 65536, \"64K\", \"100M\" or \"2G\"",
                    text.escape_debug()
                )
            })
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parse;
        impl Visitor<'_> for Parse {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes, such as 65536, \"64K\", \"100M\" or \"2G\"")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Size, E> {
                u64::try_from(number)
                    .map(Size)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Parse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_as_people_write_them() {
        assert_eq!("64K".parse(), Ok(Size(65_536)));
        assert_eq!("2g".parse(), Ok(Size(2 << 30)));
        assert_eq!("0".parse(), Ok(Size(0)));
        for bad in ["", "K", "+1", "-1", "1T", "1 K", "99999999999G", "1é"] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
        assert_eq!("1m 30s".parse(), Ok(Span(Duration::from_secs(90))));
        for bad in ["", "0s", "5", "never"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
        assert_eq!("36525d".parse(), Ok(Span(LONGEST)));
        let error = "36525d 1s".parse::<Span>().unwrap_err();
        assert!(error.contains("100 years"), "{error}");
        assert_eq!("0660".parse(), Ok(Mode(0o660)));
        for bad in ["", "8", "1000", "+7", "rw"] {
            assert!(bad.parse::<Mode>().is_err(), "{bad}");
        }
        assert_eq!("never".parse(), Ok(Patience(None)));
        assert!("ever".parse::<Patience>().unwrap_err().contains("never"));
    }
}
