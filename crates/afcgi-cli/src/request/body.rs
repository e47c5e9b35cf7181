//! What is sent on STDIN and DATA: text of the command line, files, and forms of both.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::failure::Failure;

/// Bytes that are held of what has no length before it is read: the standard input, a pipe, and a file that is changed on the way.
pub(super) const HELD: u64 = 64 * 1024 * 1024;
/// Bytes that are read of a file at a time.
const PIECE: usize = 32 * 1024;

/// A body, which can be sent any number of times.
#[derive(Clone, Debug, Default)]
pub(crate) struct Body {
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Bytes(Vec<u8>),
    /// A file of so many bytes.
    File(PathBuf, u64),
}

impl Body {
    /// How many bytes it has.
    pub(crate) fn length(&self) -> u64 {
        let lengths = self.parts.iter().map(|part| match part {
            Part::Bytes(bytes) => bytes.len() as u64,
            Part::File(_, length) => *length,
        });
        lengths.sum()
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        if let Some(Part::Bytes(last)) = self.parts.last_mut() {
            last.extend_from_slice(bytes);
        } else {
            self.parts.push(Part::Bytes(bytes.to_vec()));
        }
    }

    /// Appends a file, which is read when it is sent; `-` is the standard input, which is read now.
    pub(super) fn push_file(&mut self, name: &str) -> Result<(), Failure> {
        let path = Path::new(name);
        match path.metadata() {
            Ok(found) if found.is_file() && name != "-" => {
                // Says now that it cannot be read.
                File::open(path).map_err(|error| Failure::Read(name.to_owned(), error))?;
                self.parts.push(Part::File(path.into(), found.len()));
            }
            _ => self.push(&held(name)?),
        }
        Ok(())
    }

    /// All of it, if that is not more than is held of what has no length.
    pub(crate) fn bytes(&self) -> Result<Vec<u8>, Failure> {
        if self.length() > HELD {
            let text = "a body of more than 64 MiB is not sent over and over";
            return Err(Failure::Usage(text.into()));
        }
        let (mut source, mut bytes) = (self.open(), Vec::new());
        loop {
            let piece = source.next()?;
            if piece.is_empty() {
                return Ok(bytes);
            }
            let count = piece.len();
            bytes.extend_from_slice(piece);
            source.sent(count);
        }
    }

    /// Reads it from its start.
    pub(super) fn open(&self) -> Source<'_> {
        Source {
            parts: self.parts.iter(),
            file: None,
            piece: Vec::new(),
            sent: 0,
        }
    }
}

/// What `-d` says, several times: joined by `&`, and without the ends of lines of files unless `binary`.
pub(crate) fn data(values: &[String], binary: bool) -> Result<Body, Failure> {
    let mut body = Body::default();
    for (number, value) in values.iter().enumerate() {
        if number > 0 {
            body.push(b"&");
        }
        match value.strip_prefix('@') {
            Some(name) if binary => body.push_file(name)?,
            Some(name) => {
                let mut bytes = held(name)?;
                bytes.retain(|byte| !matches!(byte, b'\r' | b'\n' | 0));
                body.push(&bytes);
            }
            None => body.push(value.as_bytes()),
        }
    }
    Ok(body)
}

/// What `-F` says, and the type of that: `name=value`, `name=@file`, `name=<file`, with `;type=` and `;filename=` behind files.
pub(super) fn form(fields: &[String]) -> Result<(Body, String), Failure> {
    let boundary = format!("------------------------{:016x}", fastrand::u64(..));
    let mut body = Body::default();
    for field in fields {
        let (name, value) = field.split_once('=').ok_or_else(|| {
            Failure::Usage(format!(
                "`{}` is no field of a form: expected NAME=VALUE or NAME=@FILE",
                field.escape_debug()
            ))
        })?;
        body.push(
            format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"{}\"",
                quoted(name)
            )
            .as_bytes(),
        );
        match (value.strip_prefix('@'), value.strip_prefix('<')) {
            (Some(file), _) => {
                let file = FormFile::parse(file);
                let head = format!(
                    "; filename=\"{}\"\r\nContent-Type: {}\r\n\r\n",
                    quoted(&file.name),
                    file.kind
                );
                body.push(head.as_bytes());
                body.push_file(file.path)?;
            }
            (None, Some(file)) => {
                body.push(b"\r\n\r\n");
                body.push_file(file)?;
            }
            (None, None) => {
                body.push(b"\r\n\r\n");
                body.push(value.as_bytes());
            }
        }
        body.push(b"\r\n");
    }
    body.push(format!("--{boundary}--\r\n").as_bytes());
    Ok((body, format!("multipart/form-data; boundary={boundary}")))
}

struct FormFile<'a> {
    path: &'a str,
    name: String,
    kind: String,
}

impl<'a> FormFile<'a> {
    fn parse(text: &'a str) -> Self {
        let mut path = text;
        let (mut name, mut kind) = (None, None);
        while let Some((rest, last)) = path.rsplit_once(';') {
            if let Some(value) = last.strip_prefix("type=") {
                kind = Some(value.to_owned());
            } else if let Some(value) = last.strip_prefix("filename=") {
                name = Some(value.to_owned());
            } else {
                break;
            }
            path = rest;
        }
        let own = Path::new(path).file_name().unwrap_or_default();
        let name = name.unwrap_or_else(|| own.to_string_lossy().into_owned());
        let guess = || mime_guess::from_path(path).first_or_octet_stream();
        Self {
            path,
            name,
            kind: kind.unwrap_or_else(|| guess().to_string()),
        }
    }
}

/// A name as browsers put it between quotes.
fn quoted(name: &str) -> String {
    name.replace('"', "%22")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

/// All of a file or the standard input, up to the bound.
fn held(name: &str) -> Result<Vec<u8>, Failure> {
    let failed = |error| Failure::Read(name.to_owned(), error);
    let mut bytes = Vec::new();
    let mut read = |from: &mut dyn Read| from.take(HELD + 1).read_to_end(&mut bytes);
    match name {
        "-" => read(&mut io::stdin().lock()),
        _ => File::open(name).and_then(|mut file| read(&mut file)),
    }
    .map_err(failed)?;
    if bytes.len() as u64 > HELD {
        return Err(failed(io::Error::other(
            "it is longer than 64 MiB: only a file that is sent as it is may be (--data-binary)",
        )));
    }
    Ok(bytes)
}

/// When a file was last changed, in seconds since 1970.
pub(super) fn modified(name: &str) -> Option<u64> {
    let time = Path::new(name).metadata().ok()?.modified().ok()?;
    Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

/// A body that is being read.
#[derive(Debug)]
pub(super) struct Source<'a> {
    parts: std::slice::Iter<'a, Part>,
    /// A file with what is left of its length.
    file: Option<(&'a Path, File, u64)>,
    piece: Vec<u8>,
    /// How much of the piece was sent.
    sent: usize,
}

impl Source<'_> {
    /// The next bytes that were not sent yet; empty at the end.
    pub(super) fn next(&mut self) -> Result<&[u8], Failure> {
        while self.sent == self.piece.len() {
            self.sent = 0;
            if let Some((path, file, left)) = &mut self.file {
                let most = (*left).min(PIECE as u64);
                if most == 0 {
                    self.file = None;
                    self.piece.clear();
                    continue;
                }
                self.piece.clear();
                let read = file.take(most).read_to_end(&mut self.piece);
                let read = read.and_then(|count| match count {
                    // The length was promised.
                    0 => Err(io::Error::other("it became shorter while it was sent")),
                    count => Ok(count),
                });
                let failed = |error| Failure::Read(path.display().to_string(), error);
                *left -= read.map_err(failed)? as u64;
                continue;
            }
            self.piece = match self.parts.next() {
                Some(Part::Bytes(bytes)) => bytes.clone(),
                Some(Part::File(path, length)) => {
                    let failed = |error| Failure::Read(path.display().to_string(), error);
                    let file = File::open(path).map_err(failed)?;
                    self.file = Some((path, file, *length));
                    Vec::new()
                }
                None => {
                    self.piece.clear();
                    return Ok(&[]);
                }
            };
        }
        Ok(&self.piece[self.sent..])
    }

    /// So many of them were sent.
    pub(super) fn sent(&mut self, count: usize) {
        self.sent += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(body: &Body) -> String {
        let mut source = body.open();
        let mut out = Vec::new();
        while let piece = source.next().expect("a file")
            && !piece.is_empty()
        {
            let count = piece.len().min(3);
            out.extend_from_slice(&piece[..count]);
            source.sent(count);
        }
        assert_eq!(out.len() as u64, body.length());
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn data_is_joined() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("a.txt");
        std::fs::write(&file, "x\r\ny\n").expect("a file");
        let values = ["a=1".to_owned(), format!("@{}", file.display())];
        assert_eq!(all(&data(&values, false).expect("a body")), "a=1&xy");
        assert_eq!(all(&data(&values, true).expect("a body")), "a=1&x\r\ny\n");
        let failure = data(&["@/nonexistent".to_owned()], true).expect_err("no file");
        assert_eq!(failure.code(), 26);
    }

    #[test]
    fn a_file_that_becomes_shorter() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("a");
        std::fs::write(&file, "12345").expect("a file");
        let body = data(&[format!("@{}", file.display())], true).expect("a body");
        std::fs::write(&file, "").expect("a file");
        let failure = body.open().next().expect_err("shorter").to_string();
        assert!(failure.contains("became shorter"), "{failure}");
    }

    #[test]
    fn what_has_no_length_is_bounded() {
        let failure = data(&["@/dev/zero".to_owned()], true).expect_err("endless");
        assert!(failure.to_string().contains("64 MiB"), "{failure}");
        assert_eq!(failure.code(), 26);
    }

    #[test]
    fn forms() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("a.png");
        std::fs::write(&file, "png").expect("a file");
        let at = file.display();
        let fields = [
            "title=a=b".to_owned(),
            format!("f=@{at}"),
            format!("g\"=@{at};type=text/x;filename=n\nn"),
            format!("h=<{at}"),
        ];
        let (body, kind) = form(&fields).expect("a form");
        let boundary = kind.split_once("boundary=").expect("a boundary").1;
        let expected = "--B\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\na=b\r\n\
            --B\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a.png\"\r\nContent-Type: image/png\r\n\r\npng\r\n\
            --B\r\nContent-Disposition: form-data; name=\"g%22\"; filename=\"n%0An\"\r\nContent-Type: text/x\r\n\r\npng\r\n\
            --B\r\nContent-Disposition: form-data; name=\"h\"\r\n\r\npng\r\n--B--\r\n";
        assert_eq!(all(&body).replace(boundary, "B"), expected);
        assert_eq!(form(&["x".to_owned()]).expect_err("no value").code(), 2);
    }
}
