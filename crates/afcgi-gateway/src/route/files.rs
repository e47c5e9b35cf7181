//! Files below a root: which of them, or which script, a path means. How one is sent is in `send`.
//!
//! A script is never sent as a file, whatever the case of its ending. Hidden files are not there.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use afcgi::client::Script;
use http::{HeaderMap, StatusCode};

use super::path::{CleanPath, is_hidden};
use super::script::{self, Kind, Scripts};
use crate::config::{Files, Try};

/// What a path means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A file to send.
    File(PathBuf),
    /// A script to run.
    Script(Script),
    /// A folder whose name lacks the `/` at its end.
    Folder,
    /// The end of `try_files`.
    Status(StatusCode),
    /// Nothing.
    Nothing,
}

/// The files and scripts of a route.
#[derive(Debug)]
pub(crate) struct Root {
    pub(crate) files: Files,
    /// Of all routes.
    pub(crate) scripts: Arc<Scripts>,
}

/// Looks a path up. It asks the file system, so it blocks.
pub(crate) fn find(root: &Root, path: &CleanPath) -> Found {
    let files = &root.files;
    let (prefix, path) = path
        .as_bytes()
        .split_at_checked(files.strip)
        .unwrap_or_default();
    let path: &[u8] = if path.is_empty() { b"/" } else { path };
    let lookup = Lookup { root, prefix };
    for end in script::candidates(path, &files.split_path) {
        let (script, info) = path.split_at_checked(end).unwrap_or_default();
        match lookup.at(script).metadata() {
            // Further ones may be in it.
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => match lookup.file(script, info) {
                Some(found) => return found,
                None => break,
            },
            // Below it there is nothing.
            Err(_) => break,
        }
    }
    for entry in &files.try_files {
        let candidate = match entry {
            Try::Status(status) => return Found::Status(*status),
            Try::Path(path) => path.as_bytes().to_vec(),
            Try::Uri { before, after } => [before.as_bytes(), path, after.as_bytes()].concat(),
        };
        // `$uri/` of a path that has one already.
        let slashes = candidate.ends_with(b"//");
        let candidate = if slashes {
            &candidate[..candidate.len() - 1]
        } else {
            &candidate[..]
        };
        let found = match candidate.ends_with(b"/") {
            true => lookup.folder(candidate, !path.ends_with(b"/")),
            false => lookup.file(candidate, b""),
        };
        if let Some(found) = found {
            return found;
        }
    }
    Found::Nothing
}

struct Lookup<'a> {
    root: &'a Root,
    /// What was stripped of the path.
    prefix: &'a [u8],
}

impl Lookup<'_> {
    fn at(&self, path: &[u8]) -> PathBuf {
        let relative = path
            .iter()
            .position(|&byte| byte != b'/')
            .map_or(&b""[..], |at| &path[at..]);
        self.root.files.root.join(OsStr::from_bytes(relative))
    }

    fn file(&self, path: &[u8], info: &[u8]) -> Option<Found> {
        if is_hidden(path) {
            return None;
        }
        let file = self.at(path);
        if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            return None;
        }
        match Kind::of(&file, &self.root.files, &self.root.scripts) {
            Kind::File => info.is_empty().then_some(Found::File(file)),
            Kind::Script => Some(Found::Script(Script {
                script_name: [self.prefix, path].concat(),
                path_info: info.to_vec(),
                script_filename: Some(file.as_os_str().as_bytes().to_vec()),
            })),
            Kind::Hidden => None,
        }
    }

    fn folder(&self, path: &[u8], lacks_slash: bool) -> Option<Found> {
        if is_hidden(path) || !self.at(path).is_dir() {
            return None;
        }
        let mut indexes = self.root.files.index.iter();
        let found = indexes.find_map(|index| self.file(&[path, index.as_bytes()].concat(), b""))?;
        Some(if lacks_slash { Found::Folder } else { found })
    }
}

/// The file that an application wants sent, if that lies within the folders that are for it. It asks the file
/// system, so it blocks.
pub(crate) fn sendfile(folders: &[(String, PathBuf)], headers: &HeaderMap) -> Option<PathBuf> {
    let within = |file: &Path, root: &Path| {
        let file = file.canonicalize().ok()?;
        (file.starts_with(root) && file.is_file()).then_some(file)
    };
    if let Some(uri) = headers.get("x-accel-redirect") {
        // It may hold any bytes: applications send UTF-8 as it is.
        let path = uri.as_bytes().split(|&byte| byte == b'?').next()?;
        let path = CleanPath::new(path)?;
        return folders.iter().find_map(|(prefix, root)| {
            let rest = path.as_bytes().strip_prefix(prefix.as_bytes())?;
            within(&root.join(OsStr::from_bytes(rest)), root)
        });
    }
    let file = Path::new(OsStr::from_bytes(headers.get("x-sendfile")?.as_bytes()));
    file.is_absolute().then_some(())?;
    folders.iter().find_map(|(_, root)| within(file, root))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn site() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in [
            ("index.php", "<?php"),
            ("a.txt", "a"),
            ("UPPER.PHP", "<?php"),
            (".env", "secret"),
            ("blog/index.php", "<?php"),
            ("docs/index.html", "docs"),
            (".git/x.php", "<?php"),
        ] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        std::fs::create_dir(dir.path().join("empty")).unwrap();
        let files = Files {
            root: dir.path().canonicalize().unwrap(),
            ..Files::scripts()
        };
        let scripts = Arc::default();
        (dir, Root { files, scripts })
    }

    fn found(root: &Root, path: &str) -> String {
        let files = &root.files;
        match find(root, &CleanPath::new(path).unwrap()) {
            Found::File(file) => {
                format!("file {}", file.strip_prefix(&files.root).unwrap().display())
            }
            Found::Script(script) => format!(
                "script {} {}",
                String::from_utf8(script.script_name).unwrap(),
                String::from_utf8(script.path_info).unwrap()
            ),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn what_paths_mean() {
        let (_dir, mut root) = site();
        for (path, expected) in [
            ("/", "script /index.php "),
            ("/a.txt", "file a.txt"),
            ("/a.txt/", "script /index.php "),
            ("/index.php/a/b", "script /index.php /a/b"),
            ("/UPPER.PHP", "script /UPPER.PHP "),
            ("/blog", "Folder"),
            ("/blog/", "script /blog/index.php "),
            ("/blog/index.php/2024", "script /blog/index.php /2024"),
            ("/docs/", "file docs/index.html"),
            ("/empty", "script /index.php "),
            ("/no/such.php", "script /index.php "),
            ("/.env", "script /index.php "),
            ("/.git/x.php", "script /index.php "),
            ("/a.txt/x.php", "script /index.php "),
        ] {
            assert_eq!(found(&root, path), expected, "{path}");
        }
        root.files.try_files = vec![Try::Status(StatusCode::NOT_FOUND)];
        assert_eq!(found(&root, "/.env"), "Status(404)");
        assert_eq!(found(&root, "/no.php"), "Status(404)");
        assert_eq!(found(&root, "/.git/x.php"), "Status(404)");
        root.files.try_files.clear();
        assert_eq!(found(&root, "/a.txt"), "Nothing");
    }

    #[test]
    fn files_are_sent_from_their_folders_only() {
        let (dir, root) = site();
        let files = root.files;
        let folders = [("/files/".to_owned(), files.root.join("docs"))];
        let ask = |name: &'static str, value: String| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            sendfile(&folders, &headers).is_some()
        };
        assert!(ask("x-accel-redirect", "/files/index.html".into()));
        assert!(ask("x-accel-redirect", "/files/%69ndex.html?x".into()));
        std::fs::write(dir.path().join("docs/gr\u{fc}n.txt"), "").unwrap();
        for path in ["gr\u{fc}n.txt", "gr%C3%BCn.txt"] {
            assert!(ask("x-accel-redirect", format!("/files/{path}")), "{path}");
        }
        assert!(ask(
            "x-sendfile",
            format!("{}/docs/index.html", files.root.display())
        ));
        std::os::unix::fs::symlink(dir.path().join("a.txt"), dir.path().join("docs/link")).unwrap();
        for (name, value) in [
            ("x-accel-redirect", "/files/../a.txt".to_owned()),
            ("x-accel-redirect", "/files/link".to_owned()),
            ("x-accel-redirect", "/files/".to_owned()),
            ("x-accel-redirect", "/a.txt".to_owned()),
            (
                "x-sendfile",
                format!("{}/docs/../a.txt", files.root.display()),
            ),
            ("x-sendfile", format!("{}/a.txt", files.root.display())),
            ("x-sendfile", "/etc/passwd".to_owned()),
            ("x-sendfile", "docs/index.html".to_owned()),
        ] {
            assert!(!ask(name, value.clone()), "{name}: {value}");
        }
    }
}
