//! The configuration file as it is written, in TOML. What it means is for `meaning` to say.

use std::collections::BTreeMap;
use std::path::PathBuf;

use afcgi::Address;
use serde::Deserialize;
use toml::Spanned;

use super::error::ConfigError;
use super::network::Network;
use super::position::Position;
use super::values::{LogFormat, Mode, Patience, Size, Span, Text};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) listen: Option<Spanned<Vec<Text<Address>>>>,
    pub(super) admin: Option<Text<Address>>,
    pub(super) socket_mode: Option<Text<Mode>>,
    pub(super) access_log: Option<PathBuf>,
    pub(super) log_format: Option<Text<LogFormat>>,
    pub(super) trusted_proxies: Vec<Text<Network>>,
    pub(super) tls: Option<Tls>,
    pub(super) limits: Limits,
    pub(super) upstream: BTreeMap<String, Spanned<Upstream>>,
    pub(super) route: Vec<Spanned<Route>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    pub(super) body: Option<Size>,
    pub(super) header: Option<Spanned<Size>>,
    pub(super) connections: Option<Spanned<usize>>,
    pub(super) requests: Option<Spanned<usize>>,
    pub(super) responses: Option<Size>,
    pub(super) header_timeout: Option<Text<Span>>,
    pub(super) body_timeout: Option<Text<Span>>,
    pub(super) send_timeout: Option<Text<Span>>,
    pub(super) idle_timeout: Option<Text<Span>>,
    pub(super) drain_timeout: Option<Text<Span>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Upstream {
    pub(super) addresses: Spanned<Vec<Text<Address>>>,
    pub(super) multiplex: Option<bool>,
    pub(super) probe_timeout: Option<Text<Span>>,
    pub(super) connections: Option<usize>,
    pub(super) single_connections: Option<usize>,
    pub(super) keep_conn: Option<bool>,
    pub(super) single_idle: Option<usize>,
    pub(super) single_idle_timeout: Option<Text<Span>>,
    pub(super) idle_timeout: Option<Text<Span>>,
    pub(super) resolve_interval: Option<Text<Span>>,
    pub(super) queue: Option<usize>,
    pub(super) queue_timeout: Option<Text<Span>>,
    pub(super) connect_timeout: Option<Text<Span>>,
    pub(super) send_timeout: Option<Text<Span>>,
    pub(super) first_byte_timeout: Option<Text<Patience>>,
    pub(super) read_timeout: Option<Text<Patience>>,
    pub(super) retries: Option<u32>,
    pub(super) collect_body: Option<Size>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Route {
    #[serde(default)]
    pub(super) hosts: Vec<Spanned<String>>,
    pub(super) path: Option<Spanned<String>>,
    pub(super) upstream: Option<Spanned<String>>,
    pub(super) root: Option<Spanned<PathBuf>>,
    #[serde(default)]
    pub(super) strip: bool,
    pub(super) index: Option<Vec<Spanned<String>>>,
    pub(super) split_path: Option<Vec<Spanned<String>>>,
    pub(super) send_scripts: Option<Spanned<bool>>,
    pub(super) try_files: Option<Vec<Spanned<String>>>,
    pub(super) script_name: Option<Spanned<String>>,
    pub(super) server_name: Option<String>,
    #[serde(default)]
    pub(super) params: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) set_request_headers: BTreeMap<Spanned<String>, String>,
    #[serde(default)]
    pub(super) remove_request_headers: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) set_response_headers: BTreeMap<Spanned<String>, String>,
    #[serde(default)]
    pub(super) remove_response_headers: Vec<Spanned<String>>,
    pub(super) authorizer: Option<Spanned<String>>,
    pub(super) filter: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) sendfile: BTreeMap<String, Spanned<PathBuf>>,
    pub(super) body: Option<Size>,
}

/// Reads the text of a file.
pub(super) fn parse(text: &str, position: &Position<'_>) -> Result<File, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let message = error.message().trim_end().replace('\n', "; ");
        match error.span() {
            Some(span) => position.error(span.start, message),
            None => position.error(text.len(), message),
        }
    })
}
