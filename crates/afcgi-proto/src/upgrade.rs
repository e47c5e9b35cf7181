//! Which requests ask for an upgrade that an application may be offered (`docs/upgrade.md`, rule 3): one rule for every
//! web server and every application.
//!
//! What asks in another way, or for something that is about the connection to the web server, is an ordinary request.

/// What a request says that matters here, as the client sent it.
///
/// ```
/// use afcgi_proto::upgrade::Head;
///
/// let head = Head {
///     method: b"GET",
///     is_http_11: true,
///     has_body: false,
///     connection: [&b"keep-alive, Upgrade"[..]],
///     upgrade: [&b"websocket"[..]],
/// };
/// assert!(head.asks());
/// ```
#[derive(Clone, Debug)]
pub struct Head<'a, C, U>
where
    C: IntoIterator<Item = &'a [u8]>,
    U: IntoIterator<Item = &'a [u8]>,
{
    /// The method, whose case matters.
    pub method: &'a [u8],
    /// Whether it is of HTTP/1.1: earlier versions know no upgrades, later ones ask in another way.
    pub is_http_11: bool,
    /// Whether it has a body, or says that it has: a Content-Length other than 0, or a Transfer-Encoding.
    pub has_body: bool,
    /// The values of all its `Connection` fields, in any order.
    pub connection: C,
    /// The values of all its `Upgrade` fields, in any order.
    pub upgrade: U,
}

impl<'a, C, U> Head<'a, C, U>
where
    C: IntoIterator<Item = &'a [u8]>,
    U: IntoIterator<Item = &'a [u8]>,
{
    /// Whether the request may be upgraded: a GET of HTTP/1.1 without a body, with the option `upgrade` in `Connection`,
    /// and with an `Upgrade` that names at least one protocol, nothing but protocols, and not `h2c`.
    pub fn asks(self) -> bool {
        self.method == b"GET"
            && self.is_http_11
            && !self.has_body
            && self.connection.into_iter().any(names_upgrade)
            && may_be_offered(self.upgrade)
    }
}

/// Whether a value of `Connection` has the option `upgrade` (RFC 9110 section 7.6.1).
pub fn names_upgrade(connection: &[u8]) -> bool {
    members(connection).any(|option| option.eq_ignore_ascii_case(b"upgrade"))
}

/// Whether `Upgrade` fields with these values are for an application. What hides `h2c` among others would reach it by a
/// tunnel that nobody looks into.
fn may_be_offered<'a>(upgrade: impl IntoIterator<Item = &'a [u8]>) -> bool {
    let mut protocols = upgrade.into_iter().flat_map(members).peekable();
    protocols.peek().is_some()
        && protocols.all(|protocol| {
            let mut parts = protocol.splitn(2, |&byte| byte == b'/');
            let name = parts.next().unwrap_or_default();
            is_token(name)
                && parts.next().is_none_or(is_token)
                && !name.eq_ignore_ascii_case(b"h2c")
        })
}

/// The members of a list, without those that are empty (RFC 9110 section 5.6.1.2).
fn members(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let members = list.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    members.filter(|member| !member.is_empty())
}

fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().copied().all(crate::cgi::is_token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(connection: &[&str], upgrade: &[&str]) -> bool {
        head(b"GET", true, false, connection, upgrade)
    }

    fn head(
        method: &[u8],
        is_http_11: bool,
        has_body: bool,
        connection: &[&str],
        upgrade: &[&str],
    ) -> bool {
        Head {
            method,
            is_http_11,
            has_body,
            connection: connection.iter().map(|value| value.as_bytes()),
            upgrade: upgrade.iter().map(|value| value.as_bytes()),
        }
        .asks()
    }

    #[test]
    fn a_get_of_http_11_without_a_body() {
        let (connection, upgrade) = (&["upgrade"], &["websocket"]);
        assert!(head(b"GET", true, false, connection, upgrade));
        for (method, is_http_11, has_body) in [
            (&b"POST"[..], true, false),
            (b"HEAD", true, false),
            (b"get", true, false),
            (b"", true, false),
            (b"GET", false, false),
            (b"GET", true, true),
        ] {
            assert!(
                !head(method, is_http_11, has_body, connection, upgrade),
                "{method:?} {is_http_11} {has_body}"
            );
        }
    }

    #[test]
    fn connection_is_a_list_of_options() {
        for connection in [
            &["upgrade"][..],
            &["Upgrade"],
            &["keep-alive,\tUPGRADE ,"],
            &["keep-alive", "x, upgrade"],
            &[",,upgrade"],
        ] {
            assert!(asks(connection, &["websocket"]), "{connection:?}");
        }
        for connection in [
            &[][..],
            &[""],
            &["keep-alive"],
            &["upgrades, no-upgrade"],
            &["up", "grade"],
            &["upgrade;x"],
            &["\"upgrade\""],
            &["keep-alive upgrade"],
        ] {
            assert!(!asks(connection, &["websocket"]), "{connection:?}");
        }
    }

    #[test]
    fn upgrade_is_a_list_of_protocols_without_h2c() {
        for upgrade in [
            &["websocket"][..],
            &["WebSocket"],
            &["shout/1.0"],
            &["a, b/2"],
            &["a", "b"],
            &["h2", "h2cc"],
            &[", websocket ,"],
        ] {
            assert!(asks(&["upgrade"], upgrade), "{upgrade:?}");
        }
        for upgrade in [
            &[][..],
            &[""],
            &[" , "],
            &["h2c"],
            &["H2C"],
            &["h2c/1"],
            &["websocket, h2c"],
            &["h2c", "websocket"],
            &["websocket", "\th2c"],
            &["web socket"],
            &["websocket;h2c"],
            &["a/"],
            &["/a"],
            &["a/b/c"],
            &["a", "\u{e4}"],
        ] {
            assert!(!asks(&["upgrade"], upgrade), "{upgrade:?}");
        }
    }
}
