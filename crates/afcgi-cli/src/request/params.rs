//! The CGI parameters of a request (RFC 3875), as a web server would set them.

use afcgi::client::Mapping;
use afcgi_proto::params::encode_pair;
use percent_encoding::percent_decode_str;

use super::arguments::{Arguments, Asked, RoleName};
use super::body::{self, Body};
use super::failure::Failure;
use super::target::Target;

const SOFTWARE: &str = concat!("afcgi/", env!("CARGO_PKG_VERSION"));

/// Parameters in their order; names are there once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Params(Vec<(String, Vec<u8>)>);

impl Params {
    pub(crate) fn set(&mut self, name: &str, value: impl AsRef<[u8]>) {
        let value = value.as_ref().to_vec();
        match self.0.iter_mut().find(|pair| pair.0 == name) {
            Some(pair) => pair.1 = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    fn remove(&mut self, name: &str) {
        self.0.retain(|pair| pair.0 != name);
    }

    pub(crate) fn get(&self, name: &str) -> Option<&[u8]> {
        let pair = self.0.iter().find(|pair| pair.0 == name)?;
        Some(&pair.1)
    }

    /// Names and values, in their order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// As they are sent.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, value) in &self.0 {
            // A command line is not as long as that.
            encode_pair(&mut out, name.as_bytes(), value);
        }
        out
    }
}

/// What the command line asks for; `kind` is the type of the body if that follows from how it was given.
pub(super) fn params(
    arguments: &Arguments,
    target: &Target,
    body: Option<&Body>,
    kind: Option<&str>,
    data: Option<&Body>,
) -> Result<Params, Failure> {
    let way = Way {
        method: if arguments.head { "HEAD" } else { "GET" },
        role: arguments.role,
        length: body.map(Body::length),
        kind,
        websocket: arguments.websocket,
        file: arguments.data_file.as_deref().zip(data),
    };
    asked_for(&arguments.asked, target, &way)
}

/// How something is asked for.
#[derive(Debug)]
pub(crate) struct Way<'a> {
    /// The method, if there is no body and none was given.
    pub(crate) method: &'static str,
    pub(crate) role: RoleName,
    /// The length of the body.
    pub(crate) length: Option<u64>,
    /// Its type, if that follows from how it was given.
    pub(crate) kind: Option<&'a str>,
    pub(crate) websocket: bool,
    /// The name of the file of a filter, and the file.
    pub(crate) file: Option<(&'a str, &'a Body)>,
}

/// The parameters with which something is asked for.
pub(crate) fn asked_for(asked: &Asked, target: &Target, way: &Way) -> Result<Params, Failure> {
    let mut params = Params::default();
    let script = Script::find(asked, target)?;
    let method = match (&asked.method, way.length) {
        (Some(method), _) => method,
        (None, Some(_)) => "POST",
        (None, None) => way.method,
    };
    params.set("GATEWAY_INTERFACE", "CGI/1.1");
    params.set("REQUEST_METHOD", method);
    params.set("SCRIPT_FILENAME", &script.filename);
    params.set("SCRIPT_NAME", &script.name);
    params.set("QUERY_STRING", &target.query);
    params.set("REQUEST_URI", &script.uri);
    params.set("DOCUMENT_URI", &script.name);
    params.set("DOCUMENT_ROOT", &script.root);
    if !script.info.is_empty() {
        params.set("PATH_INFO", &script.info);
        params.set(
            "PATH_TRANSLATED",
            [script.root.trim_end_matches('/').as_bytes(), &script.info].concat(),
        );
    }
    if let Some(length) = way.length {
        params.set("CONTENT_LENGTH", length.to_string());
        params.set("CONTENT_TYPE", way.kind.unwrap_or(""));
    }
    for (name, value) in [
        ("SERVER_SOFTWARE", SOFTWARE),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("SERVER_NAME", "localhost"),
        ("SERVER_ADDR", "127.0.0.1"),
        ("SERVER_PORT", "80"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("REMOTE_PORT", "0"),
        ("REQUEST_SCHEME", "http"),
        // php-cgi runs nothing without it (cgi.force_redirect).
        ("REDIRECT_STATUS", "200"),
        ("HTTP_HOST", "localhost"),
        ("HTTP_USER_AGENT", SOFTWARE),
        ("HTTP_ACCEPT", "*/*"),
    ] {
        params.set(name, value);
    }
    if way.websocket {
        for (name, value) in [
            ("HTTP_CONNECTION", "upgrade"),
            ("HTTP_UPGRADE", "websocket"),
            ("HTTP_SEC_WEBSOCKET_VERSION", "13"),
        ] {
            params.set(name, value);
        }
    }
    for field in &asked.headers {
        header(&mut params, field)?;
    }
    if way.role == RoleName::Authorizer {
        //
        for name in [
            "CONTENT_LENGTH",
            "PATH_INFO",
            "PATH_TRANSLATED",
            "SCRIPT_NAME",
        ] {
            params.remove(name);
        }
    }
    if let Some((name, data)) = way.file {
        //
        params.set("FCGI_DATA_LENGTH", data.length().to_string());
        let modified = body::modified(name).unwrap_or_default();
        params.set("FCGI_DATA_LAST_MOD", modified.to_string());
    }
    for pair in &asked.param {
        let (name, value) = pair.split_once('=').ok_or_else(|| {
            Failure::Usage(format!(
                "`{}` is no parameter: expected NAME=VALUE",
                pair.escape_debug()
            ))
        })?;
        params.set(name, value);
    }
    for name in &asked.no_param {
        params.remove(name);
    }
    Ok(params)
}

/// What a web server makes of a path.
struct Script {
    filename: Vec<u8>,
    name: Vec<u8>,
    info: Vec<u8>,
    uri: String,
    root: String,
}

impl Script {
    fn find(asked: &Asked, target: &Target) -> Result<Self, Failure> {
        let path = match target.path.as_str() {
            "" => "/",
            path => path,
        };
        let decoded: Vec<u8> = percent_decode_str(path).collect();
        let query = match target.query.as_str() {
            "" => String::new(),
            query => format!("?{query}"),
        };
        let Some(script) = &asked.script else {
            let root = asked.root.clone().unwrap_or_else(|| "/".to_owned());
            // As nginx's fastcgi_split_path_info of most configurations: `.php/` ends a script's name.
            let mut mapping = Mapping::php(&root);
            mapping.index = None;
            let (name, info) = match mapping.script(path.as_bytes()) {
                Ok(script) => (script.script_name, script.path_info),
                Err(_) => (decoded, Vec::new()),
            };
            return Ok(Self {
                filename: [root.trim_end_matches('/').as_bytes(), &name].concat(),
                name,
                info,
                uri: format!("{path}{query}"),
                root,
            });
        };
        let absolute = std::path::absolute(script)
            .map_err(|error| Failure::Read(script.clone(), error))?
            .to_string_lossy()
            .into_owned();
        let folder = absolute.rsplit_once('/').map_or("", |(folder, _)| folder);
        let root = match asked.root.as_deref() {
            Some(root) => root.trim_end_matches('/'),
            None => folder,
        };
        let Some(name) = absolute.strip_prefix(root).filter(|n| n.starts_with('/')) else {
            return Err(Failure::Usage(format!(
                "the script {absolute} is not in the folder {root} (--root)"
            )));
        };
        // A path that does not begin with the script is one that a front controller is given.
        let info = decoded.strip_prefix(name.as_bytes());
        let info = info.filter(|info| info.starts_with(b"/"));
        let uri = match target.path.as_str() {
            "" => name,
            path => path,
        };
        Ok(Self {
            info: info.unwrap_or_default().to_vec(),
            uri: format!("{uri}{query}"),
            name: name.as_bytes().to_vec(),
            root: match root {
                "" => String::from("/"),
                root => root.to_owned(),
            },
            filename: absolute.into_bytes(),
        })
    }
}

/// A header field as curl is told it. One that a web server would not pass on is refused: a parameter of that name can still be set.
fn header(params: &mut Params, field: &str) -> Result<(), Failure> {
    let refuse = |why: &str| {
        let field = field.escape_debug();
        Err(Failure::Usage(format!("`{field}` is {why}")))
    };
    let (name, value) = match (field.split_once(':'), field.strip_suffix(';')) {
        (Some((name, value)), _) => (name.trim(), Some(value.trim()).filter(|v| !v.is_empty())),
        (None, Some(name)) => (name.trim(), Some("")),
        (None, None) => {
            return refuse("no header field: expected `NAME: VALUE`, or `NAME;` for an empty one");
        }
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if name.is_empty() || !name.bytes().all(plain) {
        return refuse(
            "not passed on by web servers: its name is not made of letters, digits and `-`. --param sets any parameter",
        );
    }
    let name = name.to_ascii_uppercase().replace('-', "_");
    let name = match name.as_str() {
        "PROXY" => {
            return refuse(
                "never passed on: programs take HTTP_PROXY for a setting (httpoxy). --param HTTP_PROXY=… sets it",
            );
        }
        "CONTENT_TYPE" | "CONTENT_LENGTH" => name,
        name => format!("HTTP_{name}"),
    };
    match value {
        Some(value) => {
            if name == "HTTP_HOST" {
                let port = value
                    .rsplit_once(':')
                    .filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
                params.set("SERVER_NAME", port.map_or(value, |(host, _)| host));
                if let Some((_, port)) = port {
                    params.set("SERVER_PORT", port);
                }
            }
            params.set(&name, value);
        }
        None => params.remove(&name),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn made(line: &[&str]) -> Result<Params, Failure> {
        let line = [&["request"], line].concat();
        let arguments = Line::try_parse_from(line).expect("arguments").arguments;
        let target = Target::parse(&arguments.target)?;
        let body = match arguments.data.as_slice() {
            [] => None,
            values => Some(body::data(values, false)?),
        };
        params(&arguments, &target, body.as_ref(), Some("text/x"), None)
    }

    fn text(params: &Params, names: &[&str]) -> String {
        let value = |name| params.get(name).map(String::from_utf8_lossy);
        let values = names.iter().map(|&name| value(name).unwrap_or("-".into()));
        values.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn scripts_and_paths() {
        let names = [
            "SCRIPT_FILENAME",
            "SCRIPT_NAME",
            "PATH_INFO",
            "REQUEST_URI",
            "DOCUMENT_ROOT",
        ];
        for (line, expected) in [
            (&["a:1"][..], "/ / - / /"),
            (
                &["a:1/status?full&json"],
                "/status /status - /status?full&json /",
            ),
            (&["a:1/a%20b?c"], "/a b /a b - /a%20b?c /"),
            (
                &["a:1/x.php/y", "--root", "/srv/"],
                "/srv/x.php /x.php /y /x.php/y /srv/",
            ),
            (&["a:1/../x"], "/../x /../x - /../x /"),
            (
                &["a:1?q", "--script", "/srv/app/job.php"],
                "/srv/app/job.php /job.php - /job.php?q /srv/app",
            ),
            (
                &["a:1/blog/", "--script", "/srv/i.php"],
                "/srv/i.php /i.php - /blog/ /srv",
            ),
            (
                &["a:1/i.php/b", "--script", "/srv/i.php"],
                "/srv/i.php /i.php /b /i.php/b /srv",
            ),
            (
                &["a:1/i.phpx/b", "--script", "/srv/i.php"],
                "/srv/i.php /i.php - /i.phpx/b /srv",
            ),
            (
                &["a:1", "--script", "/s/a/b.php", "--root", "/s"],
                "/s/a/b.php /a/b.php - /a/b.php /s",
            ),
            (&["a:1", "--script", "/b.php"], "/b.php /b.php - /b.php /"),
        ] {
            assert_eq!(
                text(&made(line).expect("params"), &names),
                expected,
                "{line:?}"
            );
        }
        let failure = made(&["a:1", "--script", "/s/b.php", "--root", "/t"]).expect_err("outside");
        assert_eq!(failure.code(), 2, "{failure}");
    }

    #[test]
    fn header_fields() {
        let params = made(&[
            "a:1",
            "-H",
            "Host: b.example:8080",
            "-H",
            "X-Ab: c: d ",
            "-H",
            "accept:",
            "-H",
            "X-E;",
            "-d",
            "x=1",
            "-H",
            "Content-Type: a/b",
            "--param",
            "REMOTE_ADDR=10.0.0.1",
            "--no-param",
            "SERVER_PORT",
        ])
        .expect("params");
        let names = [
            "HTTP_HOST",
            "SERVER_NAME",
            "SERVER_PORT",
            "HTTP_X_AB",
            "HTTP_ACCEPT",
            "HTTP_X_E",
            "CONTENT_TYPE",
            "CONTENT_LENGTH",
            "REQUEST_METHOD",
            "REMOTE_ADDR",
        ];
        assert_eq!(
            text(&params, &names),
            "b.example:8080 b.example - c: d -  a/b 3 POST 10.0.0.1"
        );
        for (field, words) in [
            ("X_Real-IP: 1", "not passed on"),
            ("Proxy: x", "httpoxy"),
            ("nothing", "no header field"),
            (": x", "not passed on"),
        ] {
            let failure = made(&["a:1", "-H", field]).expect_err(field);
            assert!(failure.to_string().contains(words), "{failure}");
            assert_eq!(failure.code(), 2);
        }
        assert_eq!(
            made(&["a:1", "--param", "x"]).expect_err("no value").code(),
            2
        );
    }

    #[test]
    fn roles() {
        let params = made(&["a:1/x.php/y", "--role", "authorizer"]).expect("params");
        let names = [
            "SCRIPT_NAME",
            "PATH_INFO",
            "PATH_TRANSLATED",
            "CONTENT_LENGTH",
            "REQUEST_METHOD",
        ];
        assert_eq!(text(&params, &names), "- - - - GET");
    }
}
