//! What the file means: its sections checked, and made what the gateway works with. An error names line and column.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use toml::Spanned;

use super::error::ConfigError;
use super::position::Position;
use super::settings::{Files, HeaderRules, Host, Limits, Route, Settings, Tls, Try, Upstream};
use super::{file, values};

/// Reads the text of a file at a path.
pub(super) fn read(path: &Path, text: &str) -> Result<Settings, ConfigError> {
    let position = Position { path, text };
    let file = file::parse(text, &position)?;
    if let Some(listen) = &file.listen
        && listen.get_ref().is_empty()
    {
        return Err(position.at(
            listen,
            "`listen` is empty: expected addresses, such as [\"127.0.0.1:8888\"]",
        ));
    }
    let listen = file.listen.map(Spanned::into_inner).unwrap_or_default();
    let limits = limits(&file.limits, &position)?;
    let mut upstreams = BTreeMap::new();
    for (name, upstream) in file.upstream {
        let made = upstream_of(upstream.get_ref(), &position)?;
        upstreams.insert(name, made);
    }
    let mut routes: Vec<Route> = Vec::new();
    for route in &file.route {
        let made = route_of(route, &upstreams, &position)?;
        if routes
            .iter()
            .any(|other| other.path == made.path && other.overlaps(&made))
        {
            let path = match &*made.path {
                "" => "/",
                path => path,
            };
            let message = format!("this host already has a route for the path `{path}`");
            return Err(position.at(route, message));
        }
        routes.push(made);
    }
    Ok(Settings {
        listen: listen.into_iter().map(|address| address.0).collect(),
        admin: file.admin.map(|address| address.0),
        socket_mode: file.socket_mode.map(|mode| mode.0.bits()),
        tls: file.tls.map(|tls| Tls {
            cert: tls.cert,
            key: tls.key,
        }),
        access_log: file.access_log,
        log_format: file.log_format.map(|format| format.0).unwrap_or_default(),
        trusted: file
            .trusted_proxies
            .into_iter()
            .map(|network| network.0)
            .collect(),
        limits,
        upstreams,
        routes,
    })
}

/// A folder that exists, in full: what is in it is compared with it.
pub(super) fn folder(path: &Path) -> Result<PathBuf, String> {
    let folder = path
        .canonicalize()
        .map_err(|error| format!("`{}`: {error}: expected a folder", path.display()))?;
    if !folder.is_dir() {
        return Err(format!("`{}` is not a folder", path.display()));
    }
    Ok(folder)
}

fn limits(file: &file::Limits, position: &Position<'_>) -> Result<Limits, ConfigError> {
    let default = Limits::default();
    let span = |span: &Option<values::Text<values::Span>>, default| {
        span.as_ref().map_or(default, |span| span.0.0)
    };
    if let Some(header) = &file.header
        && !(8 << 10..=1 << 20).contains(&header.get_ref().0)
    {
        return Err(position.at(
            header,
            "`header` is out of range: expected \"8K\" to \"1M\"",
        ));
    }
    let count = |name, value: &Option<Spanned<usize>>, default| match value {
        Some(value) if *value.get_ref() == 0 => {
            Err(position.at(value, format!("`{name}` is 0: expected at least 1")))
        }
        Some(value) => Ok(*value.get_ref()),
        None => Ok(default),
    };
    Ok(Limits {
        body: file.body.map_or(default.body, |size| size.0),
        header: file
            .header
            .as_ref()
            .map_or(default.header, |size| size.get_ref().0 as usize),
        connections: count("connections", &file.connections, default.connections)?,
        requests: count("requests", &file.requests, default.requests)?,
        responses: file.responses.map_or(default.responses, |size| {
            usize::try_from(size.0).unwrap_or(usize::MAX)
        }),
        header_timeout: span(&file.header_timeout, default.header_timeout),
        body_timeout: span(&file.body_timeout, default.body_timeout),
        send_timeout: span(&file.send_timeout, default.send_timeout),
        idle_timeout: span(&file.idle_timeout, default.idle_timeout),
        drain_timeout: span(&file.drain_timeout, default.drain_timeout),
    })
}

fn upstream_of(file: &file::Upstream, position: &Position<'_>) -> Result<Upstream, ConfigError> {
    let addresses = file.addresses.get_ref();
    if addresses.is_empty() {
        return Err(position.at(
            &file.addresses,
            "`addresses` is empty: expected at least one, such as [\"127.0.0.1:5000\"]",
        ));
    }
    let addresses = addresses.iter().map(|address| address.0.clone()).collect();
    let default = Upstream::new(addresses);
    let span = |span: &Option<values::Text<values::Span>>, default| {
        span.as_ref().map_or(default, |span| span.0.0)
    };
    let patience = |patience: &Option<values::Text<values::Patience>>, default| {
        patience.as_ref().map_or(default, |patience| patience.0.0)
    };
    Ok(Upstream {
        multiplex: file.multiplex.unwrap_or(default.multiplex),
        probe_timeout: span(&file.probe_timeout, default.probe_timeout),
        connections: file.connections.unwrap_or(default.connections),
        single_connections: file
            .single_connections
            .unwrap_or(default.single_connections),
        keep_conn: file.keep_conn.unwrap_or(default.keep_conn),
        single_idle: file.single_idle.unwrap_or(default.single_idle),
        single_idle_timeout: span(&file.single_idle_timeout, default.single_idle_timeout),
        idle_timeout: span(&file.idle_timeout, default.idle_timeout),
        resolve_interval: span(&file.resolve_interval, default.resolve_interval),
        queue: file.queue.unwrap_or(default.queue),
        queue_timeout: span(&file.queue_timeout, default.queue_timeout),
        connect_timeout: span(&file.connect_timeout, default.connect_timeout),
        send_timeout: span(&file.send_timeout, default.send_timeout),
        first_byte_timeout: patience(&file.first_byte_timeout, default.first_byte_timeout),
        read_timeout: patience(&file.read_timeout, default.read_timeout),
        retries: file.retries.unwrap_or(default.retries),
        collect_body: file.collect_body.map(|size| size.0),
        ..default
    })
}

fn route_of(
    spanned: &Spanned<file::Route>,
    upstreams: &BTreeMap<String, Upstream>,
    position: &Position<'_>,
) -> Result<Route, ConfigError> {
    let file = spanned.get_ref();
    let mut route = Route::new();
    for host in &file.hosts {
        let text = host.get_ref().to_ascii_lowercase();
        let (name, wild) = match text.strip_prefix('*') {
            Some(rest) => (rest, true),
            None => (&*text, false),
        };
        let valid = !name.is_empty()
            && name.starts_with('.') == wild
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b".-_[:]".contains(&byte));
        if !valid {
            let message = format!(
                "`{text}` is not a host name: expected a name without a port, or `*.` followed by a name"
            );
            return Err(position.at(host, message));
        }
        route.hosts.push(match wild {
            true => Host::Below(name.to_owned()),
            false => Host::Exact(name.to_owned()),
        });
    }
    if let Some(path) = &file.path {
        let text = path.get_ref();
        let odd = |part: &str| matches!(part, "." | "..");
        if !text.starts_with('/')
            || text.contains(['?', '%', '*'])
            || text.contains("//")
            || text.split('/').any(odd)
        {
            let message = format!(
                "`{text}` is not a path: expected one that begins with `/`, decoded, without a query or wildcards"
            );
            return Err(position.at(path, message));
        }
        route.path = text.trim_end_matches('/').to_owned();
    }
    let known = |name: &Spanned<String>| match upstreams.contains_key(name.get_ref()) {
        true => Ok(name.get_ref().clone()),
        false => {
            let names: Vec<_> = upstreams.keys().map(|name| format!("`{name}`")).collect();
            let names = match names.is_empty() {
                true => "none is defined".to_owned(),
                false => format!("defined are {}", names.join(", ")),
            };
            Err(position.at(
                name,
                format!(
                    "there is no upstream `{}`: {names}; expected the NAME of an [upstream.NAME]",
                    name.get_ref()
                ),
            ))
        }
    };
    route.upstream = file.upstream.as_ref().map(known).transpose()?;
    route.authorizer = file.authorizer.as_ref().map(known).transpose()?;
    route.filter = file.filter.as_ref().map(known).transpose()?;
    if let (Some(filter), None) = (&file.filter, &file.root) {
        return Err(position.at(filter, "`filter` needs a `root`: it filters files"));
    }
    if route.upstream.is_none() && file.root.is_none() {
        return Err(position.at(
            spanned,
            "the route leads nowhere: expected `upstream`, `root`, or both",
        ));
    }
    if let Some(send) = &file.send_scripts {
        if file.root.is_none() && file.sendfile.is_empty() {
            return Err(position.at(
                send,
                "`send_scripts` has no effect in a route without `root` and `sendfile`",
            ));
        }
        route.send_scripts = *send.get_ref();
    }
    route.files = files_of(file, &route, position)?;
    if let Some(name) = &file.script_name {
        let text = name.get_ref().trim_end_matches('/');
        if !text.starts_with('/') || !route.path.starts_with(text) {
            return Err(position.at(
                name,
                "`script_name` is not the beginning of the route's `path`",
            ));
        }
        route.script_name = text.to_owned();
    }
    for (name, value) in &file.params {
        route
            .params
            .push((name.clone().into(), value.clone().into()));
    }
    if let Some(name) = &file.server_name {
        route
            .params
            .push((Bytes::from_static(b"SERVER_NAME"), name.clone().into()));
    }
    route.request_headers = rules(
        &file.set_request_headers,
        &file.remove_request_headers,
        position,
    )?;
    route.response_headers = rules(
        &file.set_response_headers,
        &file.remove_response_headers,
        position,
    )?;
    for (prefix, root) in &file.sendfile {
        if !prefix.starts_with('/') || !prefix.ends_with('/') {
            return Err(position.at(root, format!("`{prefix}` of `sendfile` is not a prefix: expected one that begins and ends with `/`")));
        }
        let root = folder(root.get_ref()).map_err(|why| position.at(root, why))?;
        route.sendfile.push((prefix.clone(), root));
    }
    route
        .sendfile
        .sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
    route.body = file.body.map(|size| size.0);
    Ok(route)
}

fn files_of(
    file: &file::Route,
    route: &Route,
    position: &Position<'_>,
) -> Result<Option<Files>, ConfigError> {
    let Some(root) = &file.root else {
        let needless = [
            (file.strip, "strip"),
            (file.index.is_some(), "index"),
            (file.split_path.is_some(), "split_path"),
            (file.try_files.is_some(), "try_files"),
        ];
        if let (Some((_, name)), Some(upstream)) =
            (needless.iter().find(|(given, _)| *given), &file.upstream)
        {
            return Err(position.at(
                upstream,
                format!("`{name}` has no effect in a route without `root`"),
            ));
        }
        return Ok(None);
    };
    let mut files = Files::new(route.upstream.is_some());
    files.root = folder(root.get_ref()).map_err(|why| position.at(root, why))?;
    files.send_scripts = route.send_scripts;
    if file.strip {
        files.strip = route.path.len();
    }
    if let Some(split) = &file.split_path {
        files.split_path.clear();
        for ending in split {
            let text = ending.get_ref();
            if !text.starts_with('.') || text.contains('/') || !text.is_ascii() {
                return Err(position.at(
                    ending,
                    format!(
                        "`{text}` cannot be the ending of a script: expected one such as `.php`"
                    ),
                ));
            }
            if route.upstream.is_none() {
                return Err(position.at(ending, "`split_path` needs an `upstream` to run scripts"));
            }
            files.split_path.push(text.clone());
        }
        if split.is_empty() {
            // What is no file is for the application.
            files.index.retain(|name| name != "index.php");
            files
                .try_files
                .retain(|entry| *entry != Try::Path("/index.php".to_owned()));
        }
    }
    if let Some(index) = &file.index {
        files.index.clear();
        for name in index {
            if name.get_ref().is_empty() || name.get_ref().contains('/') {
                return Err(position.at(name, "expected a file name, such as `index.html`"));
            }
            files.index.push(name.get_ref().clone());
        }
    }
    if let Some(entries) = &file.try_files {
        files.try_files.clear();
        for (number, entry) in entries.iter().enumerate() {
            let made = Try::parse(entry.get_ref()).map_err(|why| position.at(entry, why))?;
            if matches!(made, Try::Status(_)) && number + 1 < entries.len() {
                return Err(position.at(entry, "a status must be the last entry of `try_files`"));
            }
            files.try_files.push(made);
        }
    }
    Ok(Some(files))
}

fn rules(
    set: &BTreeMap<Spanned<String>, String>,
    remove: &[Spanned<String>],
    position: &Position<'_>,
) -> Result<HeaderRules, ConfigError> {
    let name_of = |name: &Spanned<String>| {
        HeaderName::from_bytes(name.get_ref().as_bytes()).map_err(|_| {
            position.at(
                name,
                format!("`{}` is not the name of a header field", name.get_ref()),
            )
        })
    };
    let mut rules = HeaderRules::default();
    for (name, value) in set {
        let value = HeaderValue::from_str(value).map_err(|_| {
            position.at(
                name,
                format!(
                    "the value of `{}` is not allowed in a header",
                    name.get_ref()
                ),
            )
        })?;
        rules.set.push((name_of(name)?, value));
    }
    for name in remove {
        rules.remove.push(name_of(name)?);
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        read(Path::new("a.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn errors_name_line_and_column() {
        for (text, place, words) in [
            ("listen = [\"x\"]", "1:11", "expected HOST:PORT"),
            ("listen = []", "1:10", "expected addresses"),
            ("socket_mode = \"rw\"", "1:15", "octal"),
            ("log_format = \"xml\"", "1:14", "\"text\" or \"json\""),
            ("\nlisten = 5", "2:10", "sequence"),
            ("[limits]\nbody = \"1T\"", "2:8", "100M"),
            ("[limits]\nheader = 1", "2:10", "8K"),
            ("[limits]\nrequests = 0", "2:12", "at least 1"),
            ("[limits]\nresponses = \"1T\"", "2:13", "100M"),
            (
                "[limits]\nbodies = 1",
                "2:1",
                "unknown field `bodies`, expected",
            ),
            ("[limits]\nheader_timeout = \"5\"", "2:18", "10s"),
            ("[upstream.a]\naddresses = []", "2:13", "at least"),
            (
                "[upstream.a]\nread_timeout = \"x\"\naddresses = [\":1\"]",
                "2:16",
                "never",
            ),
            (
                "[upstream.a]\ncollect_body = \"x\"\naddresses = [\":1\"]",
                "2:16",
                "100M",
            ),
            ("[[route]]\npath = \"/a\"", "1:1", "leads nowhere"),
            ("[[route]]\nupstream = \"a\"", "2:12", "no upstream `a`"),
            ("[[route]]\nroot = \"/no/such\"", "2:8", "folder"),
            (
                "[[route]]\nroot = \"/\"\nfilter = \"f\"",
                "3:10",
                "no upstream `f`",
            ),
            (
                "[upstream.f]\naddresses = [\":1\"]\n[[route]]\nupstream = \"f\"\nfilter = \"f\"",
                "5:10",
                "needs a `root`",
            ),
            (
                "[upstream.f]\naddresses = [\":1\"]\n[[route]]\nupstream = \"f\"\nsend_scripts = true",
                "5:16",
                "without `root` and `sendfile`",
            ),
            (
                "[[route]]\nroot = \"/\"\npath = \"a\"",
                "3:8",
                "begins with",
            ),
            (
                "[[route]]\nroot = \"/\"\nhosts = [\"a:80/\"]",
                "3:10",
                "host",
            ),
            (
                "[[route]]\nroot = \"/\"\ntry_files = [\"=404\", \"$uri\"]",
                "3:14",
                "last",
            ),
            (
                "[[route]]\nroot = \"/\"\ntry_files = [\"index.php\"]",
                "3:14",
                "/index.php",
            ),
            (
                "[[route]]\nroot = \"/\"\nset_response_headers = { \"a b\" = \"\" }",
                "3:26",
                "header",
            ),
            (
                "[[route]]\nroot = \"/\"\n[[route]]\nroot = \"/\"",
                "3:1",
                "already",
            ),
            ("trusted_proxies = [\"10.0.0.0/40\"]", "1:20", "10.0.0.0/8"),
            ("trusted_proxies = [\"unix:\"]", "1:20", "`unix`"),
            ("a = ", "1:5", ""),
        ] {
            let error = error(text);
            assert!(
                error.starts_with(&format!("a.toml:{place}: ")),
                "{text}: {error}"
            );
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
