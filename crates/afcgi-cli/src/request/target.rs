//! Where a request goes: an address, and behind it the path and the query, as people write them.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use afcgi::Address;

use super::failure::Failure;

/// An address and what is asked for there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) address: Address,
    /// The path as it was written; empty: none was given.
    pub(crate) path: String,
    /// What is behind the first `?`.
    pub(crate) query: String,
}

impl Target {
    /// `HOST:PORT/path?query`, or `unix:SOCKET/path?query`, where the socket ends at the first part of the path that is one.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let end = text.find(['/', '?']).unwrap_or(text.len());
        if let Ok(address @ Address::Tcp { .. }) = text[..end].parse() {
            return Ok(Self::at(address, &text[end..]));
        }
        // Says what an address is to one that is neither.
        text.parse::<Address>()
            .map_err(|error| Failure::Usage(error.to_string()))?;
        let path = text.strip_prefix("unix:").unwrap_or(text);
        let ends = path
            .char_indices()
            .filter(|&(at, c)| at > 0 && matches!(c, '/' | '?'))
            .map(|(at, _)| at)
            .chain([path.len()]);
        let mut refused = None;
        for end in ends {
            match fs::metadata(&path[..end]) {
                Ok(found) if found.file_type().is_socket() => {
                    return Ok(Self::at(Address::Unix(path[..end].into()), &path[end..]));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    refused.get_or_insert((path[..end].to_owned(), error));
                }
                Err(_) => {}
            }
        }
        let (at, error) = refused.unwrap_or_else(|| missing(path));
        Err(Failure::Connect(format!("unix:{at}"), error))
    }

    pub(super) fn at(address: Address, rest: &str) -> Self {
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        Self {
            address,
            path: path.to_owned(),
            query: query.to_owned(),
        }
    }
}

/// The first part of a path that is not there; the whole path if it is there and no socket.
fn missing(path: &str) -> (String, io::Error) {
    let path = path.split('?').next().unwrap_or(path);
    let mut parts: Vec<&Path> = Path::new(path).ancestors().collect();
    parts.reverse();
    let gone = parts
        .into_iter()
        .find(|part| !part.as_os_str().is_empty() && !part.exists());
    match gone {
        Some(part) => (
            part.display().to_string(),
            io::Error::new(io::ErrorKind::NotFound, "there is no such file"),
        ),
        None => (
            path.to_owned(),
            io::Error::new(io::ErrorKind::InvalidInput, "no part of it is a socket"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn over_tcp() {
        for (text, address, path, query) in [
            ("127.0.0.1:9000", "127.0.0.1:9000", "", ""),
            ("[::1]:9000/a/b?c/d?e", "[::1]:9000", "/a/b", "c/d?e"),
            (":9000?full", "*:9000", "", "full"),
            ("localhost:9000/", "localhost:9000", "/", ""),
        ] {
            let target = Target::parse(text).expect(text);
            assert_eq!(target.address.to_string(), address, "{text}");
            assert_eq!((target.path.as_str(), target.query.as_str()), (path, query));
        }
        for text in ["", "9000", "a:b", "localhost"] {
            let failure = Target::parse(text).expect_err(text);
            assert_eq!(failure.code(), 2, "{text}: {failure}");
        }
    }

    #[test]
    fn over_a_socket() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = dir.path().join("a?b.sock");
        let _listener = UnixListener::bind(&at).expect("a socket");
        let at = at.to_str().expect("a name");
        for prefix in ["unix:", ""] {
            for (rest, path, query) in [
                ("", "", ""),
                ("/status?full&json", "/status", "full&json"),
                ("?x", "", "x"),
                ("/a.sock/b", "/a.sock/b", ""),
            ] {
                let target = Target::parse(&format!("{prefix}{at}{rest}")).expect(rest);
                assert_eq!(target.address, Address::Unix(at.into()));
                assert_eq!((target.path.as_str(), target.query.as_str()), (path, query));
            }
        }
        let folder = dir.path().display();
        let failure = Target::parse(&format!("unix:{folder}/none/a.sock/ping")).expect_err("none");
        let expected = format!("unix:{folder}/none: there is no such file");
        assert!(failure.to_string().ends_with(&expected), "{failure}");
        assert_eq!(failure.code(), 7);
        let failure = Target::parse(&format!("unix:{folder}")).expect_err("a folder");
        assert!(failure.to_string().contains("no part of it is a socket"));
    }
}
