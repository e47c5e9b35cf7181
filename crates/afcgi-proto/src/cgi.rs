//! The head of a CGI response: what stands on STDOUT before the body (R-58, RFC 3875 section 6).

use std::fmt;

/// A response head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head<'a> {
    /// The status code: that of `Status`, otherwise 302 with a `Location`, otherwise 200.
    pub status: u16,
    /// What stands behind the code in `Status`, often empty.
    pub reason: &'a [u8],
    /// The other fields in order: name as sent, value without white space around it.
    pub fields: Vec<(&'a [u8], &'a [u8])>,
    /// Bytes of the head, its empty line included: the body begins there.
    pub length: usize,
}

/// Why bytes are not a response head. The application is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeadError {
    /// The head is longer than the limit.
    TooLong,
    /// The head has more fields than the limit.
    TooManyFields,
    /// A line is not `name: value`, or the name is not a token, or the value holds a control
    /// character.
    Field,
    /// `Status` does not begin with a number from 100 to 999.
    Status,
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "the response head is over the limit of bytes",
            Self::TooManyFields => "the response head is over the limit of fields",
            Self::Field => "a line of the response head is not a header field",
            Self::Status => "the Status of the response head is not a status code",
        })
    }
}

impl std::error::Error for HeadError {}

/// The limits of [`Head::parse`].
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Bytes of the head, its empty line included. Default: 64 KiB.
    pub bytes: usize,
    /// Fields of the head. Default: 256.
    pub fields: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self {
            bytes: 64 * 1024,
            fields: 256,
        }
    }
}

impl<'a> Head<'a> {
    /// Reads a head off the front of what has come of STDOUT so far; `None` when it is not
    /// complete. Lines may end in LF or CR LF.
    ///
    /// ```
    /// use afcgi_proto::cgi::Head;
    ///
    /// let stdout = b"Status: 404 Not Found\r\nContent-Type: text/plain\r\n\r\nnothing";
    /// let head = Head::parse(stdout, Default::default())?.unwrap();
    /// assert_eq!(head.status, 404);
    /// assert_eq!(head.fields, [(&b"Content-Type"[..], &b"text/plain"[..])]);
    /// assert_eq!(&stdout[head.length..], b"nothing");
    /// # Ok::<(), afcgi_proto::cgi::HeadError>(())
    /// ```
    pub fn parse(stdout: &'a [u8], limits: HeadLimits) -> Result<Option<Self>, HeadError> {
        let mut head = Self {
            status: 0,
            reason: b"",
            fields: Vec::new(),
            length: 0,
        };
        let mut redirect = false;
        let mut rest = stdout;
        loop {
            let Some(end) = rest.iter().position(|&byte| byte == b'\n') else {
                return if stdout.len() >= limits.bytes {
                    Err(HeadError::TooLong)
                } else {
                    Ok(None)
                };
            };
            let (line, tail) = rest.split_at_checked(end).unwrap_or_default();
            rest = tail.get(1..).unwrap_or_default();
            head.length = stdout.len().saturating_sub(rest.len());
            if head.length > limits.bytes {
                return Err(HeadError::TooLong);
            }
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() {
                break;
            }
            let (name, value) = field(line).ok_or(HeadError::Field)?;
            if name.eq_ignore_ascii_case(b"status") {
                (head.status, head.reason) = status(value).ok_or(HeadError::Status)?;
                continue;
            }
            redirect |= name.eq_ignore_ascii_case(b"location");
            if head.fields.len() == limits.fields {
                return Err(HeadError::TooManyFields);
            }
            head.fields.push((name, value));
        }
        if head.status == 0 {
            head.status = if redirect { 302 } else { 200 };
        }
        Ok(Some(head))
    }
}

fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let (name, value) = line.split_at_checked(colon)?;
    let value = value.get(1..)?.trim_ascii();
    let valid = !name.is_empty()
        && name.iter().copied().all(is_token)
        && value.iter().copied().all(is_text);
    valid.then_some((name, value))
}

/// Whether a byte may stand in a field name (RFC 9110 section 5.6.2).
pub(crate) const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

/// Whether a byte may stand in a field value (RFC 9110 section 5.5).
const fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

fn status(value: &[u8]) -> Option<(u16, &[u8])> {
    let (code, reason) = value.split_at_checked(3)?;
    let code = std::str::from_utf8(code).ok()?.parse::<u16>().ok()?;
    let separated = reason.is_empty() || reason.starts_with(b" ");
    (code >= 100 && separated).then_some((code, reason.trim_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(stdout: &[u8]) -> Result<Option<Head<'_>>, HeadError> {
        Head::parse(stdout, HeadLimits::default())
    }

    fn status_of(stdout: &[u8]) -> u16 {
        parse(stdout).unwrap().unwrap().status
    }

    #[test]
    fn r58_status_and_its_defaults() {
        assert_eq!(status_of(b"Content-Type: a/b\n\n"), 200);
        assert_eq!(status_of(b"Location: /x\n\n"), 302);
        assert_eq!(status_of(b"Location: /x\nStatus: 201 Created\n\n"), 201);
        assert_eq!(status_of(b"status:404\r\n\r\n"), 404);
        assert_eq!(status_of(b"\n"), 200);
        assert_eq!(
            parse(b"Status: 404 Not Found\n\n").unwrap().unwrap().reason,
            b"Not Found"
        );
        for bad in [
            "Status: \n\n",
            "Status: 42\n\n",
            "Status: abc\n\n",
            "Status: 2000\n\n",
            "Status: 099 x\n\n",
        ] {
            assert_eq!(parse(bad.as_bytes()), Err(HeadError::Status), "{bad:?}");
        }
    }

    #[test]
    fn r58_lf_and_cr_lf_at_every_cut() {
        let stdout = b"Set-Cookie: a=1\nSet-Cookie:  b=2 \r\nX-Empty:\r\n\r\nbody\n\n";
        let end = stdout.len() - b"body\n\n".len();
        for cut in 0..end {
            assert_eq!(parse(&stdout[..cut]), Ok(None), "{cut}");
        }
        for cut in end..=stdout.len() {
            let head = parse(&stdout[..cut]).unwrap().unwrap();
            assert_eq!(head.length, end);
            let fields: [(&[u8], &[u8]); 3] = [
                (b"Set-Cookie", b"a=1"),
                (b"Set-Cookie", b"b=2"),
                (b"X-Empty", b""),
            ];
            assert_eq!(head.fields, fields);
        }
    }

    #[test]
    fn lines_that_are_no_fields() {
        for bad in [
            &b"no colon\n\n"[..],
            b": no name\n\n",
            b"bad name: x\n\n",
            b" folded: x\n\n",
            b"A: x\0y\n\n",
            b"A: x\ry\n\n",
            b"A\xff: x\n\n",
        ] {
            assert_eq!(parse(bad), Err(HeadError::Field), "{bad:?}");
        }
        assert!(parse(b"A: \xe4\n\n").is_ok());
    }

    #[test]
    fn limits_are_reached() {
        let limits = HeadLimits {
            bytes: 20,
            fields: 2,
        };
        assert!(Head::parse(b"A: 1\nB: 2\n\n", limits).unwrap().is_some());
        assert_eq!(
            Head::parse(b"A: 1\nB: 2\nC: 3\n\n", limits),
            Err(HeadError::TooManyFields)
        );
        assert_eq!(
            Head::parse(b"A: 12345678901234567\n\n", limits),
            Err(HeadError::TooLong)
        );
        assert_eq!(Head::parse(&[b'A'; 20], limits), Err(HeadError::TooLong));
        assert_eq!(Head::parse(&[b'A'; 19], limits), Ok(None));
    }
}
