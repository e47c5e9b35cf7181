//! Settings from a configuration file and options.

use std::path::Path;
use std::sync::Arc;

use afcgi::Address;
use rustls::ServerConfig;

use super::error::ConfigError;
use super::meaning::{folder, read};
use super::options::Options;
use super::settings::{COMMAND_LINE, Files, Host, Route, Settings, Tls, Upstream};
use super::tls;

/// Where to listen unless told otherwise.
const LISTEN: &str = "127.0.0.1:8888";
/// The default of `collect_body` where there are scripts.
const COLLECT_BODY: u64 = 1 << 20;

impl Settings {
    /// Reads the configuration file, if there is one, and adds what the options say.
    ///
    /// Fails where something cannot be right, and says where it stands and what would be. Certificates are not looked at: see
    /// [`check`](Self::check).
    pub fn load(options: &Options) -> Result<Self, ConfigError> {
        let mut settings = match &options.config {
            None => read(Path::new(""), "")?,
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| ConfigError::new(format!("{}: {error}", path.display())))?;
                read(path, &text)?
            }
        };
        settings.add(options)?;
        if settings.routes.is_empty() {
            return Err(ConfigError::new(
                "nothing to serve: name the address of an application (such as 127.0.0.1:5000 or unix:/run/php/php-fpm.sock), \
                 a folder with --root, or a file with [[route]] sections with --config",
            ));
        }
        settings.finish();
        Ok(settings)
    }

    /// Looks whether the certificate and its key can be used.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.certificate().map(drop)
    }

    /// Reads the certificate and its key, if there are any.
    pub(crate) fn certificate(&self) -> Result<Option<Arc<ServerConfig>>, ConfigError> {
        self.tls.as_ref().map(tls::load).transpose()
    }

    /// What the options say goes before what the file says.
    fn add(&mut self, options: &Options) -> Result<(), ConfigError> {
        if !options.listen.is_empty() {
            self.listen.clone_from(&options.listen);
        }
        if self.listen.is_empty() {
            self.listen.extend(LISTEN.parse::<Address>());
        }
        if let Some(admin) = &options.admin {
            self.admin = Some(admin.clone());
        }
        if let Some(mode) = options.socket_mode {
            self.socket_mode = Some(mode.bits());
        }
        if let Some(log) = &options.access_log {
            self.access_log = Some(log.clone());
        }
        if let Some(format) = options.log_format {
            self.log_format = format;
        }
        self.trusted.extend(&options.trusted_proxies);
        if let Some((cert, key)) = &options.tls {
            self.tls = Some(Tls {
                cert: cert.clone(),
                key: key.clone(),
            });
        }
        if options.addresses.is_empty() && options.root.is_none() {
            return Ok(());
        }
        if self
            .routes
            .iter()
            .any(|route| route.hosts.is_empty() && route.path.is_empty())
        {
            return Err(ConfigError::new(
                "the configuration file has a route for every path already: leave out the addresses and --root, or give that route a path",
            ));
        }
        let upstream = (!options.addresses.is_empty()).then(|| {
            let upstream = Upstream::new(options.addresses.clone());
            self.upstreams.insert(COMMAND_LINE.to_owned(), upstream);
            COMMAND_LINE.to_owned()
        });
        let files = match &options.root {
            None => None,
            Some(root) => Some(Files {
                root: folder(root).map_err(|why| ConfigError::new(format!("--root {why}")))?,
                ..Files::new(upstream.is_some())
            }),
        };
        let mut route = Route::new();
        route.upstream = upstream;
        route.files = files;
        self.routes.push(route);
        Ok(())
    }

    fn finish(&mut self) {
        // Hosts by name go first, then those below one, then all; longer paths before shorter ones.
        self.routes.sort_by_key(|route| {
            let rank = match route
                .hosts
                .iter()
                .all(|host| matches!(host, Host::Exact(_)))
            {
                _ if route.hosts.is_empty() => 2,
                true => 0,
                false => 1,
            };
            (rank, std::cmp::Reverse(route.path.len()))
        });
        // A redirect that the client library follows comes by no route, so past what protects one.
        if self.routes.iter().any(|route| route.authorizer.is_some()) {
            for upstream in self.upstreams.values_mut() {
                upstream.local_redirects = false;
            }
        }
        for route in &self.routes {
            if let Some(upstream) = route.upstream.as_ref().filter(|_| route.files.is_some())
                && let Some(upstream) = self.upstreams.get_mut(upstream)
            {
                upstream.local_redirects = false;
                if route.has_scripts() {
                    upstream.collect_body.get_or_insert(COLLECT_BODY);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_exact_route_goes_first() {
        let text = r#"
            [upstream.a]
            addresses = [":1"]
            [[route]]
            upstream = "a"
            [[route]]
            upstream = "a"
            path = "/a/"
            [[route]]
            upstream = "a"
            hosts = ["*.example.org"]
            [[route]]
            upstream = "a"
            hosts = ["www.example.org"]
        "#;
        let mut settings = read(Path::new(""), text).unwrap();
        settings.finish();
        let order: Vec<_> = settings
            .routes
            .iter()
            .map(|route| (route.hosts.clone(), &*route.path))
            .collect();
        let exact = Host::Exact("www.example.org".into());
        let below = Host::Below(".example.org".into());
        assert_eq!(
            order,
            [
                (vec![exact], ""),
                (vec![below], ""),
                (vec![], "/a"),
                (vec![], "")
            ]
        );
    }
}
