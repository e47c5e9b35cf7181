//! The parameters of `fastcgi_multiplex` in an `upstream` block.

/// What an operator may set for the shared connections to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Shared connections per worker and address.
    pub(crate) connections: u16,
    /// Requests that one connection carries at a time. An application may ask for less.
    pub(crate) requests: u16,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connections: 1,
            requests: 16_384,
        }
    }
}

/// The most shared connections that can be asked for.
const MOST_CONNECTIONS: u16 = 1024;

impl Settings {
    /// Reads `connections=N` and `requests=N`, each at most once. The error is for the operator.
    pub(crate) fn parse<'a>(parameters: impl Iterator<Item = &'a [u8]>) -> Result<Self, String> {
        let (mut connections, mut requests) = (None, None);
        for parameter in parameters {
            let shown = parameter.escape_ascii();
            let (slot, value, most) =
                if let Some(value) = parameter.strip_prefix(b"connections=".as_slice()) {
                    (&mut connections, value, MOST_CONNECTIONS)
                } else if let Some(value) = parameter.strip_prefix(b"requests=".as_slice()) {
                    (&mut requests, value, u16::MAX)
                } else {
                    return Err(format!(
                        "invalid parameter \"{shown}\": connections=N and requests=N are known"
                    ));
                };
            let number = std::str::from_utf8(value)
                .ok()
                .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
                .and_then(|text| text.parse().ok())
                .filter(|number| (1..=most).contains(number));
            let Some(number) = number else {
                return Err(format!(
                    "invalid number in \"{shown}\": it must be from 1 to {most}"
                ));
            };
            if slot.replace(number).is_some() {
                return Err(format!("duplicate parameter \"{shown}\""));
            }
        }
        let default = Self::default();
        Ok(Self {
            connections: connections.unwrap_or(default.connections),
            requests: requests.unwrap_or(default.requests),
        })
    }
}
