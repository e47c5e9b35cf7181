//! Which files are scripts: never sent as files, and run where there is an application for them.
//!
//! The file that was found decides, by the last part of its name, and by the last part of the name that it has when
//! symbolic links are followed. How the path of a request is split does not come into it. Byte by byte, as ASCII: what
//! maps case by Unicode can be made to find a script where there is none.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::config::Files;

/// How names of files end whose text is for PHP alone, whether or not there is an application that runs them.
const ENDINGS: [&str; 11] = [
    ".php", ".phtml", ".phar", ".phps", ".pht", ".php3", ".php4", ".php5", ".php6", ".php7",
    ".php8",
];

/// What a file is to the route that found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One to send.
    File,
    /// One to run.
    Script,
    /// One that is not there: the text of a script, and none to run here.
    Hidden,
}

impl Kind {
    /// Looks at a regular file. It asks the file system, so it blocks.
    pub(crate) fn of(file: &Path, files: &Files, scripts: &Scripts) -> Self {
        if ends(last(file), &files.split_path) {
            return Self::Script;
        }
        if files.send_scripts {
            return Self::File;
        }
        let resolved = file.canonicalize();
        let is_script =
            |path: &Path| scripts.holds(path) || ends_about(last(path), files.split_path.iter());
        // What cannot be looked at may be anything.
        if !is_script(file) && resolved.is_ok_and(|resolved| !is_script(&resolved)) {
            return Self::File;
        }
        refused(file);
        Self::Hidden
    }
}

/// Tells why a file is not sent.
pub(crate) fn refused(file: &Path) {
    let file = file.as_os_str().as_bytes().escape_ascii();
    tracing::warn!(%file, "a file is not sent because its name looks like a script, whose text may hold secrets: \
        `send_scripts = true` in its route sends such files");
}

/// What is known of scripts in the folders of all routes: a file that one route runs another must not send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scripts(Vec<(PathBuf, Vec<String>)>);

impl Scripts {
    /// The roots of routes, and how names of scripts end there.
    pub(crate) fn new(roots: impl Iterator<Item = (PathBuf, Vec<String>)>) -> Self {
        Self(roots.collect())
    }

    /// Whether a file is a script.
    fn holds(&self, file: &Path) -> bool {
        let name = last(file);
        ends_about(name, ENDINGS.iter())
            || (self.0.iter())
                .any(|(root, endings)| file.starts_with(root) && ends_about(name, endings.iter()))
    }

    /// Whether a file, all of whose links were followed, is a script in the root of a route. In a folder that is for
    /// files alone there may be any.
    pub(crate) fn hold_in_a_root(&self, file: &Path) -> bool {
        self.0.iter().any(|(root, _)| file.starts_with(root)) && self.holds(file)
    }
}

/// Ends of the parts of a path that may be the name of a script: where one of the endings is behind something, at the end
/// or before a `/`.
pub(crate) fn candidates<'a>(
    path: &'a [u8],
    endings: &'a [String],
) -> impl Iterator<Item = usize> + 'a {
    let part_ends = (path.iter().enumerate())
        .filter_map(|(at, &byte)| (byte == b'/').then_some(at))
        .chain([path.len()]);
    part_ends.filter(|&end| {
        let part = path.get(..end).unwrap_or_default();
        let name = part.rsplit(|&byte| byte == b'/').next();
        ends(name.unwrap_or_default(), endings)
    })
}

fn last(file: &Path) -> &[u8] {
    file.file_name().map_or(b"", OsStrExt::as_bytes)
}

/// Whether a name is that of a script to run.
fn ends(name: &[u8], endings: &[String]) -> bool {
    endings.iter().any(|ending| has_ending(name, ending))
}

/// Whether a name is that of a script, or one that some file systems take for it: they drop dots and spaces at the end.
fn ends_about(name: &[u8], mut endings: impl Iterator<Item = impl AsRef<str>>) -> bool {
    let kept = name
        .iter()
        .rposition(|byte| !matches!(byte, b'.' | b' '))
        .map_or(0, |at| at + 1);
    let name = name.get(..kept).unwrap_or_default();
    endings.any(|ending| has_ending(name, ending.as_ref()))
}

fn has_ending(name: &[u8], ending: &str) -> bool {
    let end = (name.len().checked_sub(ending.len())).and_then(|at| name.get(at..));
    end.is_some_and(|end| end.eq_ignore_ascii_case(ending.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn php() -> Vec<String> {
        vec![".php".to_owned(), ".phtml".to_owned()]
    }

    #[test]
    fn every_part_of_a_path_may_be_the_script() {
        for (path, expected) in [
            ("/a.php", &[6][..]),
            ("/a.php/", &[6]),
            ("/a.php/b.php/c", &[6, 12]),
            ("/A.PHP/b.phtml", &[6, 14]),
            ("/a.php.txt", &[]),
            ("/a.phpx/b", &[]),
            ("/a.php.", &[]),
            ("/", &[]),
            ("", &[]),
            // The long s is no s, whatever Unicode says of its upper case.
            ("/a.ph\u{17f}", &[]),
        ] {
            let found: Vec<_> = candidates(path.as_bytes(), &php()).collect();
            assert_eq!(found, expected, "{path}");
        }
    }

    #[test]
    fn names_of_scripts_and_what_is_taken_for_them() {
        for (name, exact, about) in [
            ("a.php", true, true),
            ("a.PhP", true, true),
            ("a.php.", false, true),
            ("a.php. .", false, true),
            ("a.phps", false, false),
            ("a.php~", false, false),
            ("a.html", false, false),
            ("...", false, false),
            ("", false, false),
        ] {
            assert_eq!(ends(name.as_bytes(), &php()), exact, "{name}");
            assert_eq!(ends_about(name.as_bytes(), php().iter()), about, "{name}");
        }
    }

    #[test]
    fn scripts_of_other_routes() {
        let scripts = Scripts::new([("/srv/app".into(), vec![".inc".to_owned()])].into_iter());
        for (file, is_one, in_a_root) in [
            ("/srv/app/a.php", true, true),
            ("/srv/app/a.INC", true, true),
            ("/srv/app/a.txt", false, false),
            ("/srv/application/a.inc", false, false),
            ("/srv/private/a.php", true, false),
            ("/srv/private/a.inc", false, false),
        ] {
            assert_eq!(scripts.holds(Path::new(file)), is_one, "{file}");
            assert_eq!(scripts.hold_in_a_root(Path::new(file)), in_a_root, "{file}");
        }
    }
}
