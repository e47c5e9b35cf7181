//! How the path of a request becomes SCRIPT_NAME and PATH_INFO (RFC 3875 sections 4.1.5 and 4.1.13),
//! and what else an application is told.
//!
//! Paths are decoded once and then looked at byte by byte, as ASCII: what maps case or decodes
//! twice can be made to find a script where there is none. A path with a line break, a zero byte or a
//! `..` is refused.

use std::fmt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::StatusCode;

/// What requests look like to an application, beside what they say themselves.
///
/// ```
/// use afcgi::client::Mapping;
///
/// // An application that has all paths: SCRIPT_NAME is empty, PATH_INFO is the path.
/// let whole = Mapping::default();
/// // Scripts in a folder, as PHP-FPM runs them.
/// let php = Mapping::php("/srv/www");
/// let script = php.script(b"/blog/index.php/2024/").unwrap();
/// assert_eq!(script.script_name, b"/blog/index.php");
/// assert_eq!(script.path_info, b"/2024/");
/// assert_eq!(script.script_filename.unwrap(), b"/srv/www/blog/index.php");
/// # let _ = whole;
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Mapping {
    /// DOCUMENT_ROOT, and the folder of SCRIPT_FILENAME. `None`: the application has no files.
    pub document_root: Option<PathBuf>,
    /// What a script's name ends with, such as `.php`: the first of them in the path, at its end or
    /// before a `/`, ends SCRIPT_NAME, and the rest is PATH_INFO. In either case of ASCII letters.
    pub split_path: Vec<String>,
    /// The script of a folder, added to a path that ends in `/`.
    pub index: Option<String>,
    /// The script of every path that names none, such as `/index.php`; PATH_INFO is the path then.
    pub front: Option<String>,
    /// Where in the URI the application is: SCRIPT_NAME, where there are no scripts. Without a `/` at
    /// its end.
    pub prefix: String,
    /// Parameters that every request gets. They replace those of the same name.
    pub params: Vec<(Bytes, Bytes)>,
    /// SERVER_NAME. `None`: the host that the request names.
    pub server_name: Option<String>,
}

impl Mapping {
    /// Scripts of PHP in a folder: `.php` ends a script's name, a folder's script is `index.php`.
    pub fn php(document_root: impl Into<PathBuf>) -> Self {
        Self {
            document_root: Some(document_root.into()),
            split_path: vec![".php".to_owned()],
            index: Some("index.php".to_owned()),
            ..Self::default()
        }
    }

    /// Sets the script of paths that name none: a front controller.
    #[must_use]
    pub fn front(mut self, script: impl Into<String>) -> Self {
        self.front = Some(script.into());
        self
    }

    /// Adds a parameter that every request gets.
    #[must_use]
    pub fn param(mut self, name: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        self.params.push((name.into(), value.into()));
        self
    }

    /// Finds the script of a path, encoded as in a URI.
    ///
    /// Does not look whether there is a file: whoever serves files does, before it asks for this.
    pub fn script(&self, path: &[u8]) -> Result<Script, MappingError> {
        let path: Vec<u8> = percent_encoding::percent_decode(path).collect();
        if path.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            return Err(MappingError::PathBytes);
        }
        if path.split(|&byte| byte == b'/').any(|part| part == b"..") {
            return Err(MappingError::PathDots);
        }
        if self.split_path.is_empty() && self.index.is_none() && self.front.is_none() {
            let prefix = self.prefix.as_bytes();
            let (script_name, path_info) = match path.strip_prefix(prefix) {
                Some(rest) if rest.is_empty() || rest.starts_with(b"/") => (prefix, rest),
                _ => (&b""[..], &path[..]),
            };
            return Ok(Script {
                script_name: script_name.to_vec(),
                path_info: path_info.to_vec(),
                script_filename: None,
            });
        }
        let (script_name, path_info) = self.split(&path).ok_or(MappingError::NoScript)?;
        Ok(Script {
            script_filename: self
                .document_root
                .as_deref()
                .map(|root| beneath(root, &script_name)),
            script_name,
            path_info,
        })
    }

    fn split(&self, path: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        let mut first: Option<usize> = None;
        for ending in self.split_path.iter().map(String::as_bytes) {
            let found = end_of_script(path, ending);
            first = match (first, found) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        if let Some(end) = first {
            let (script, info) = path.split_at_checked(end)?;
            return Some((script.to_vec(), info.to_vec()));
        }
        if let Some(index) = &self.index
            && path.ends_with(b"/")
            && self.front.is_none()
        {
            return Some(([path, index.as_bytes()].concat(), Vec::new()));
        }
        let front = self.front.as_ref()?;
        let slash = if front.starts_with('/') { "" } else { "/" };
        Some(([slash, front].concat().into_bytes(), path.to_vec()))
    }
}

/// Where the first script name in a path ends.
fn end_of_script(path: &[u8], ending: &[u8]) -> Option<usize> {
    if ending.is_empty() {
        return None;
    }
    path.windows(ending.len())
        .enumerate()
        .filter(|(_, window)| window.eq_ignore_ascii_case(ending))
        .map(|(at, _)| at + ending.len())
        .find(|&end| matches!(path.get(end), None | Some(b'/')))
}

fn beneath(root: &Path, script_name: &[u8]) -> Vec<u8> {
    let root = root.as_os_str().as_encoded_bytes();
    let root = root.strip_suffix(b"/").unwrap_or(root);
    let slash: &[u8] = if script_name.starts_with(b"/") {
        b""
    } else {
        b"/"
    };
    [root, slash, script_name].concat()
}

/// Which script a request is for. Among the extensions of a request it goes before what the
/// [`Mapping`] would find: for whoever has looked which files there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// SCRIPT_NAME: the part of the path that names the script, decoded.
    pub script_name: Vec<u8>,
    /// PATH_INFO: the rest of the path, decoded; left out where it is empty.
    pub path_info: Vec<u8>,
    /// SCRIPT_FILENAME: the script's file.
    pub script_filename: Option<Vec<u8>>,
}

/// Why a request cannot be put into parameters. Whoever made the request is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MappingError {
    /// The path holds a line break or a zero byte.
    PathBytes,
    /// The path holds a `..`.
    PathDots,
    /// The path names no script.
    NoScript,
    /// The request has several Host fields.
    Host,
    /// The method is CONNECT, which no application serves.
    Connect,
    /// The parameters are longer than the limit.
    TooLong,
    /// The role is that of a filter, and there is no [`Data`](crate::client::Data) for it (R-55).
    NoData,
}

impl MappingError {
    /// The status that a gateway answers with.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::PathBytes | Self::PathDots | Self::Host => StatusCode::BAD_REQUEST,
            Self::NoScript => StatusCode::NOT_FOUND,
            Self::Connect => StatusCode::NOT_IMPLEMENTED,
            Self::TooLong => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::NoData => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl fmt::Display for MappingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PathBytes => "the path holds a line break or a zero byte",
            Self::PathDots => "the path holds a `..`",
            Self::NoScript => "the path names no script",
            Self::Host => "the request has several Host fields",
            Self::Connect => "the method CONNECT is for proxies",
            Self::TooLong => "the parameters of the request are over the limit of bytes",
            Self::NoData => "there is no file for the filter",
        })
    }
}

impl std::error::Error for MappingError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(mapping: &Mapping, path: &str) -> Option<(String, String)> {
        let script = mapping.script(path.as_bytes()).ok()?;
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        Some((text(&script.script_name), text(&script.path_info)))
    }

    fn expect(mapping: &Mapping, path: &str, name: &str, info: &str) {
        let expected = Some((name.to_owned(), info.to_owned()));
        assert_eq!(split(mapping, path), expected, "{path}");
    }

    #[test]
    fn the_first_script_in_a_path_ends_its_name() {
        let php = Mapping::php("/srv");
        for (path, name, info) in [
            ("/a.php", "/a.php", ""),
            ("/a.php/", "/a.php", "/"),
            ("/a.php/b.php/c", "/a.php", "/b.php/c"),
            ("/a.PhP/x", "/a.PhP", "/x"),
            ("/a.phpx/b.php", "/a.phpx/b.php", ""),
            ("/.php", "/.php", ""),
            ("/", "/index.php", ""),
            ("/a/", "/a/index.php", ""),
            ("/a%20b.php/%2f", "/a b.php", "//"),
            // What is no letter of ASCII has no other case, and is as long as it is.
            ("/%E2%84%AA.php/x", "/\\xe2\\x84\\xaa.php", "/x"),
            ("/a.%C5%BFphp/b.php", "/a.\\xc5\\xbfphp/b.php", ""),
            // Decoded once.
            ("/a%252ephp/", "/a%2ephp/index.php", ""),
        ] {
            expect(&php, path, name, info);
        }
        assert_eq!(split(&php, "/a.txt"), None);
        assert_eq!(split(&php, "/a.php."), None);
        let script = php.script(b"/a/b.php/c").unwrap();
        assert_eq!(script.script_filename.unwrap(), b"/srv/a/b.php");
    }

    #[test]
    fn paths_that_mean_harm() {
        let php = Mapping::php("/srv");
        for (path, expected) in [
            ("/a.php%0a/x", MappingError::PathBytes),
            ("/a.php%0d/x", MappingError::PathBytes),
            ("/a%00.php", MappingError::PathBytes),
            ("/../a.php", MappingError::PathDots),
            ("/x/%2e%2E/a.php", MappingError::PathDots),
            ("/x%2f..%2fa.php", MappingError::PathDots),
            ("/a.php/..", MappingError::PathDots),
            ("/a", MappingError::NoScript),
        ] {
            for mapping in [&php, &php.clone().front("index.php")] {
                match mapping.script(path.as_bytes()) {
                    Err(found) => assert_eq!(found, expected, "{path}"),
                    Ok(_) => assert_eq!(expected, MappingError::NoScript, "{path}"),
                }
            }
        }
        expect(&Mapping::default(), "/a..b/...", "", "/a..b/...");
    }

    #[test]
    fn a_front_controller_has_what_names_no_script() {
        let front = Mapping::php("/srv/").front("index.php");
        expect(&front, "/blog/2024", "/index.php", "/blog/2024");
        expect(&front, "/admin.php/x", "/admin.php", "/x");
        let script = front.script(b"/blog").unwrap();
        assert_eq!(script.script_filename.unwrap(), b"/srv/index.php");
    }

    #[test]
    fn a_prefix_is_the_name_of_what_is_mounted_there() {
        let mapping = Mapping {
            prefix: "/app".to_owned(),
            ..Mapping::default()
        };
        expect(&mapping, "/app/x", "/app", "/x");
        expect(&mapping, "/app", "/app", "");
        expect(&mapping, "/apple", "", "/apple");
    }
}
