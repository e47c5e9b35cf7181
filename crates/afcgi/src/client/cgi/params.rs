//! An [`http::Request`] to CGI parameters (RFC 3875 section 4.1).
//!
//! What the client sends becomes `HTTP_*`, CONTENT_*, or part of the request line's variables, and
//! nothing else. A field is left out whose name could be taken for another's once `-` is `_`, and so
//! is `Proxy`, which programs would take for a setting.

use std::borrow::Cow;
use std::net::SocketAddr;

use afcgi_proto::Role;
use afcgi_proto::params::encode_pair;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST};
use http::request::Parts;
use http::uri::Scheme;
use http::{HeaderMap, HeaderName, Method, Version};

use super::hop::upgrade;
use super::mapping::{Mapping, MappingError, Script};
use crate::types::RemoteAddr;

/// The address that the client connected to: SERVER_ADDR and SERVER_PORT. Among the extensions of a
/// request to an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalAddr(pub SocketAddr);

/// Further parameters. Among the extensions of a request to an application; they replace those of
/// the same name.
#[derive(Clone, Debug, Default)]
pub struct ExtraParams(pub Vec<(Bytes, Bytes)>);

/// Parameters, encoded.
#[derive(Debug)]
pub(crate) struct Encoded {
    params: Vec<u8>,
    /// How many bytes of them are for every application; behind them is what asks for an upgrade.
    plain: usize,
}

impl Encoded {
    /// The parameters of a request that is not offered an upgrade.
    pub(crate) fn plain(&self) -> &[u8] {
        self.params.get(..self.plain).unwrap_or_default()
    }

    /// Those of one that is; `None`: it does not ask for any.
    pub(crate) fn with_upgrade(&self) -> Option<&[u8]> {
        (self.plain < self.params.len()).then_some(&self.params)
    }
}

/// What is known of a request beside its head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About<'a> {
    pub(crate) mapping: &'a Mapping,
    pub(crate) role: Role,
    /// The length of the body, if it has one and that is known.
    pub(crate) length: Option<u64>,
    /// Whether there is a body.
    pub(crate) body: bool,
    /// What is known of the file of a filter: how long it is, and when it was last modified, in seconds
    /// since 1970.
    pub(crate) data: Option<(u64, Option<u64>)>,
    pub(crate) most: usize,
}

/// Encodes the parameters of a request.
pub(crate) fn encode(parts: &Parts, about: About<'_>) -> Result<Encoded, MappingError> {
    if parts.method == Method::CONNECT {
        return Err(MappingError::Connect);
    }
    let path = parts.uri.path().as_bytes();
    let script = match parts.extensions.get::<Script>() {
        Some(script) => Cow::Borrowed(script),
        None => Cow::Owned(about.mapping.script(path)?),
    };
    let extra = parts.extensions.get::<ExtraParams>();
    let mut list = List::new(about, extra);
    request_line(&mut list, parts);
    script_of(&mut list, &script, about);
    ends_of(&mut list, parts, about)?;
    if about.role != Role::Authorizer {
        let length = about.length.map(|length| length.to_string());
        if let Some(length) = &length {
            list.push(b"CONTENT_LENGTH", length.as_bytes());
        }
        if let Some(content_type) = parts.headers.get(CONTENT_TYPE) {
            list.push(b"CONTENT_TYPE", content_type.as_bytes());
        }
    }
    if let Some((length, modified)) = about.data {
        list.push(b"FCGI_DATA_LENGTH", length.to_string().as_bytes());
        if let Some(modified) = modified {
            list.push(b"FCGI_DATA_LAST_MOD", modified.to_string().as_bytes());
        }
    }
    header_fields(&mut list, &parts.headers);
    let own = about.mapping.params.iter();
    for (name, value) in own {
        if extra.is_none_or(|extra| !has(&extra.0, name)) {
            list.force(name, value);
        }
    }
    for (name, value) in extra.iter().flat_map(|extra| &extra.0) {
        list.force(name, value);
    }
    if list.out.len() > about.most {
        return Err(MappingError::TooLong);
    }
    let plain = list.out.len();
    if about.role == Role::Responder
        && let Some(protocol) = upgrade(parts, about.body)
    {
        list.push(b"HTTP_UPGRADE", &protocol);
        list.push(b"HTTP_CONNECTION", b"upgrade");
    }
    Ok(Encoded {
        params: list.out,
        plain,
    })
}

/// Pairs, without those that are given by whoever runs this.
struct List<'a> {
    out: Vec<u8>,
    about: About<'a>,
    extra: &'a [(Bytes, Bytes)],
}

fn has(pairs: &[(Bytes, Bytes)], name: &[u8]) -> bool {
    pairs.iter().any(|pair| pair.0 == name)
}

impl<'a> List<'a> {
    fn new(about: About<'a>, extra: Option<&'a ExtraParams>) -> Self {
        Self {
            out: Vec::with_capacity(1024),
            about,
            extra: extra.map_or(&[], |extra| &extra.0),
        }
    }

    fn push(&mut self, name: &[u8], value: &[u8]) {
        if !has(&self.about.mapping.params, name) && !has(self.extra, name) {
            self.force(name, value);
        }
    }

    fn force(&mut self, name: &[u8], value: &[u8]) {
        // What is too long for a pair is over the limit of all.
        if name.len().saturating_add(value.len()) <= self.about.most {
            encode_pair(&mut self.out, name, value);
        } else {
            self.out.resize(self.about.most.saturating_add(1), 0);
        }
    }
}

fn request_line(list: &mut List<'_>, parts: &Parts) {
    list.push(b"GATEWAY_INTERFACE", b"CGI/1.1");
    list.push(
        b"SERVER_SOFTWARE",
        concat!("afcgi/", env!("CARGO_PKG_VERSION")).as_bytes(),
    );
    list.push(b"SERVER_PROTOCOL", protocol(parts.version));
    list.push(b"REQUEST_METHOD", parts.method.as_str().as_bytes());
    let uri = parts.uri.path_and_query().map_or("/", |uri| uri.as_str());
    list.push(b"REQUEST_URI", uri.as_bytes());
    list.push(
        b"QUERY_STRING",
        parts.uri.query().unwrap_or_default().as_bytes(),
    );
}

fn script_of(list: &mut List<'_>, script: &Script, about: About<'_>) {
    let root = about.mapping.document_root.as_deref();
    let root = root.map(|root| root.as_os_str().as_encoded_bytes());
    if let Some(root) = root {
        list.push(b"DOCUMENT_ROOT", root);
    }
    if let Some(file) = &script.script_filename {
        list.push(b"SCRIPT_FILENAME", file);
        // PHP runs nothing without it where it was built to ask.
        list.push(b"REDIRECT_STATUS", b"200");
    }
    if about.role == Role::Authorizer {
        return;
    }
    list.push(b"SCRIPT_NAME", &script.script_name);
    if !script.path_info.is_empty() {
        list.push(b"PATH_INFO", &script.path_info);
        if let Some(root) = root {
            let root = root.strip_suffix(b"/").unwrap_or(root);
            list.push(b"PATH_TRANSLATED", &[root, &script.path_info].concat());
        }
    }
    let uri = [&script.script_name[..], &script.path_info[..]].concat();
    list.push(b"DOCUMENT_URI", &uri);
}

/// Who talks to whom.
fn ends_of(list: &mut List<'_>, parts: &Parts, about: About<'_>) -> Result<(), MappingError> {
    let secure = (parts.extensions.get::<Scheme>())
        .or(parts.uri.scheme())
        .is_some_and(|scheme| *scheme == Scheme::HTTPS);
    list.push(
        b"REQUEST_SCHEME",
        if secure { &b"https"[..] } else { b"http" },
    );
    if secure {
        list.push(b"HTTPS", b"on");
    }
    let mut hosts = parts.headers.get_all(HOST).iter();
    let field = hosts.next();
    if hosts.next().is_some() {
        return Err(MappingError::Host);
    }
    let host: &[u8] = match (parts.uri.authority(), field) {
        // RFC 9112 section 3.2.2: the authority goes before the field.
        (Some(authority), _) => {
            let text = authority.as_str();
            text.rsplit_once('@')
                .map_or(text, |(_, host)| host)
                .as_bytes()
        }
        (None, Some(field)) => field.as_bytes(),
        (None, None) => b"",
    };
    if !host.is_empty() {
        list.push(b"HTTP_HOST", host);
    }
    let (name, port) = split_host(host);
    match &about.mapping.server_name {
        Some(name) => list.push(b"SERVER_NAME", name.as_bytes()),
        None => list.push(b"SERVER_NAME", name),
    }
    let local = parts.extensions.get::<LocalAddr>();
    let default: &[u8] = if secure { b"443" } else { b"80" };
    match local {
        Some(LocalAddr(local)) => {
            list.push(
                b"SERVER_ADDR",
                local.ip().to_canonical().to_string().as_bytes(),
            );
            list.push(b"SERVER_PORT", local.port().to_string().as_bytes());
        }
        None => list.push(b"SERVER_PORT", port.unwrap_or(default)),
    }
    if let Some(RemoteAddr(remote)) = parts.extensions.get::<RemoteAddr>() {
        list.push(
            b"REMOTE_ADDR",
            remote.ip().to_canonical().to_string().as_bytes(),
        );
        list.push(b"REMOTE_PORT", remote.port().to_string().as_bytes());
    }
    Ok(())
}

/// Name and port; a port that is no number is none.
fn split_host(host: &[u8]) -> (&[u8], Option<&[u8]>) {
    let Some(colon) = host.iter().rposition(|&byte| byte == b':') else {
        return (host, None);
    };
    let (name, port) = host.split_at(colon);
    let port = &port[1..];
    // The colons of an IPv6 address without a port are within brackets.
    if port.contains(&b']') || (name.contains(&b':') && !name.ends_with(b"]")) {
        return (host, None);
    }
    let valid = (1..=5).contains(&port.len()) && port.iter().all(u8::is_ascii_digit);
    (name, valid.then_some(port))
}

/// Header fields as `HTTP_*`, repeated ones as one (RFC 3875 section 4.1.18).
fn header_fields(list: &mut List<'_>, headers: &HeaderMap) {
    let mut named = Vec::new();
    let mut joined = Vec::new();
    for name in headers.keys() {
        if is_dropped(name) {
            continue;
        }
        named.clear();
        named.extend_from_slice(b"HTTP_");
        named.extend(name.as_str().bytes().map(|byte| match byte {
            b'-' => b'_',
            other => other.to_ascii_uppercase(),
        }));
        let mut values = headers.get_all(name).iter();
        let Some(first) = values.next() else { continue };
        let Some(second) = values.next() else {
            list.push(&named, first.as_bytes());
            continue;
        };
        let between: &[u8] = if *name == COOKIE { b"; " } else { b", " };
        joined.clear();
        joined.extend_from_slice(first.as_bytes());
        for value in std::iter::once(second).chain(values) {
            joined.extend_from_slice(between);
            joined.extend_from_slice(value.as_bytes());
        }
        list.push(&named, &joined);
    }
}

/// Fields that do not become `HTTP_*`.
fn is_dropped(name: &HeaderName) -> bool {
    // A `_` could be a `-` in another field; whoever trusts that would trust anybody.
    let odd = |byte: u8| !(byte.is_ascii_alphanumeric() || byte == b'-');
    *name == CONTENT_LENGTH
        || *name == CONTENT_TYPE
        || *name == HOST
        || name.as_str() == "proxy"
        || super::hop::is_hop_by_hop(name)
        || name.as_str().bytes().any(odd)
}

fn protocol(version: Version) -> &'static [u8] {
    match version {
        Version::HTTP_09 => b"HTTP/0.9",
        Version::HTTP_10 => b"HTTP/1.0",
        Version::HTTP_2 => b"HTTP/2.0",
        Version::HTTP_3 => b"HTTP/3.0",
        _ => b"HTTP/1.1",
    }
}
