//! A configuration at work: clients of the applications, and which route a request takes.

use std::collections::BTreeMap;
use std::sync::Arc;

use afcgi::client::{self, Client, Script};

use super::files::Root;
use super::path::CleanPath;
use super::script::Scripts;
use crate::config::{self, ConfigError, Host, Settings};
use crate::say::AccessLog;

/// A configuration at work. Requests keep the one they began with.
pub(crate) struct Site {
    pub(crate) settings: Settings,
    pub(crate) upstreams: BTreeMap<String, Arc<Upstream>>,
    pub(crate) log: Option<AccessLog>,
    routes: Vec<Route>,
}

/// An application and its client.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) name: Arc<str>,
    pub(crate) client: Client,
    settings: config::Upstream,
}

/// A route and what it leads to.
pub(crate) struct Route {
    pub(crate) rules: config::Route,
    pub(crate) files: Option<Arc<Root>>,
    /// Of all routes.
    pub(crate) scripts: Arc<Scripts>,
    pub(crate) upstream: Option<Arc<Upstream>>,
    pub(crate) authorizer: Option<Arc<Upstream>>,
    pub(crate) filter: Option<Arc<Upstream>>,
}

impl Site {
    /// Puts a configuration to work. Applications that are the same as in `before` keep their connections.
    pub(crate) fn new(mut settings: Settings, before: Option<&Self>) -> Result<Self, ConfigError> {
        let log = match &settings.access_log {
            None => None,
            Some(path) => Some(AccessLog::open(path, settings.log_format).map_err(|error| {
                ConfigError::new(format!(
                    "cannot open the access log {}: {error}",
                    path.display()
                ))
            })?),
        };
        let mut upstreams = BTreeMap::new();
        for (name, upstream) in &settings.upstreams {
            let kept = before.and_then(|before| before.upstreams.get(name));
            let upstream = match kept.filter(|kept| kept.settings == *upstream) {
                Some(kept) => Arc::clone(kept),
                None => Arc::new(Upstream::new(name, upstream)?),
            };
            upstreams.insert(name.clone(), upstream);
        }
        let upstream =
            |name: &Option<String>| name.as_ref().and_then(|name| upstreams.get(name)).cloned();
        let routes = std::mem::take(&mut settings.routes);
        let roots = routes.iter().filter_map(|route| {
            let files = route.files.as_ref()?;
            Some((files.root.clone(), files.split_path.clone()))
        });
        let scripts = Arc::new(Scripts::new(roots));
        let root = |files| {
            let scripts = Arc::clone(&scripts);
            Arc::new(Root { files, scripts })
        };
        let routes = routes.into_iter().map(|mut rules| Route {
            files: rules.files.take().map(root),
            scripts: Arc::clone(&scripts),
            upstream: upstream(&rules.upstream),
            authorizer: upstream(&rules.authorizer),
            filter: upstream(&rules.filter),
            rules,
        });
        let routes = routes.collect();
        Ok(Self {
            settings,
            upstreams,
            log,
            routes,
        })
    }

    /// The route of a request to a host, in lower case.
    pub(crate) fn route(&self, host: &str, path: &CleanPath) -> Option<&Route> {
        self.routes
            .iter()
            .find(|route| route.rules.is_for(host) && path.is_below(&route.rules.path))
    }

    /// Connects to the applications, so that it is known whether they can be, and whether they multiplex, before the
    /// first requests come.
    pub(crate) fn begin(&self) {
        for upstream in self.upstreams.values() {
            let upstream = Arc::clone(upstream);
            tokio::spawn(async move {
                if let Err(error) = upstream.client.ready().await {
                    tracing::warn!(upstream = %upstream.name, %error, "the application cannot be reached yet");
                }
            });
        }
    }
}

impl Route {
    /// What is the application's name in a path, where the configuration says so.
    pub(crate) fn script(&self, path: &CleanPath) -> Option<Script> {
        let name = &self.rules.script_name;
        if name.is_empty() {
            return None;
        }
        let (name, info) = path
            .as_bytes()
            .split_at_checked(name.len())
            .unwrap_or_default();
        Some(Script {
            script_name: name.to_vec(),
            path_info: info.to_vec(),
            script_filename: None,
        })
    }

    /// The application for what is neither a file nor a script: none where there are scripts.
    pub(crate) fn for_the_rest(&self) -> Option<&Arc<Upstream>> {
        let root = self.files.as_ref();
        let has_scripts = root.is_some_and(|root| !root.files.split_path.is_empty());
        self.upstream.as_ref().filter(|_| !has_scripts)
    }
}

impl config::Route {
    fn is_for(&self, host: &str) -> bool {
        self.hosts.is_empty()
            || self.hosts.iter().any(|wanted| match wanted {
                Host::Exact(name) => host == name,
                Host::Below(end) => host.len() > end.len() && host.ends_with(&**end),
            })
    }
}

impl Upstream {
    fn new(name: &str, settings: &config::Upstream) -> Result<Self, ConfigError> {
        let mut config = client::Config::default();
        config.multiplex = settings.multiplex;
        config.patience.unknown = settings.probe_timeout;
        config.connections = settings.connections;
        config.single_connections = settings.single_connections;
        config.keep_conn = settings.keep_conn;
        config.single_idle = settings.single_idle;
        config.single_idle_timeout = settings.single_idle_timeout;
        config.idle_timeout = settings.idle_timeout;
        config.resolve_interval = settings.resolve_interval;
        config.queue = settings.queue;
        config.queue_timeout = settings.queue_timeout;
        config.connect_timeout = settings.connect_timeout;
        config.send_timeout = settings.send_timeout;
        config.first_byte_timeout = settings.first_byte_timeout;
        config.read_timeout = settings.read_timeout;
        config.retries = settings.retries;
        // One that is as long as may be is to be seen to its end.
        let collect = settings
            .collect_body
            .map_or(0, |most| most.saturating_add(1));
        config.collect_body = usize::try_from(collect).unwrap_or(usize::MAX);
        if !settings.local_redirects {
            config.local_redirects = 0;
        }
        let builder = Client::builder().config(config);
        let add = |builder: client::Builder, address: &afcgi::Address| {
            builder.address(address.to_string())
        };
        let client = settings.addresses.iter().fold(builder, add).build();
        Ok(Self {
            name: name.into(),
            client: client.map_err(|error| ConfigError::new(error.to_string()))?,
            settings: settings.clone(),
        })
    }

    /// Bytes of a body of unknown length that a script may get.
    pub(crate) fn collects(&self) -> u64 {
        self.settings.collect_body.unwrap_or(0)
    }

    /// Whether none of the addresses can be connected to, as far as is known.
    pub(crate) fn is_down(&self) -> bool {
        let addresses = self.client.addresses();
        !addresses.is_empty() && addresses.iter().all(|address| address.is_failing)
    }
}
