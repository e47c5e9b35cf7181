//! The file that a filter is sent as DATA, after STDIN (R-55).
//!
//! It is described here, and read piece by piece as the application takes it: nothing of it is held but
//! the piece that is on its way.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::task::JoinHandle;

use super::BoxError;
use super::error::Error;
use super::upload::{BoxBody, boxed};

/// Bytes that are read of a file at a time, and held of it.
const PIECE: usize = 64 * 1024;

/// The file that a filter transforms (R-55). Among the extensions of a request to an application it makes
/// that a request to a filter: with the parameters FCGI_DATA_LENGTH and FCGI_DATA_LAST_MOD, and the file
/// as DATA after the body of the request, held back as that is. With a [`Role`](crate::Role) among them
/// that is not `Filter` it is left out.
///
/// - A file that turns out shorter or longer than announced, or cannot be read, is an error of the
///   request ([`Error::DataLength`], [`Error::Data`]), which is aborted: the end of DATA is sent after as
///   many bytes as were announced, and never otherwise.
/// - The application may answer early. What is left of the file is sent while the response is read,
///   and is not read any more once the request has ended, or its response is dropped.
/// - A request is sent again, for the reasons that [`Client::request`](super::Client::request) has, where
///   the file [can be begun again](Data::new). What is given [once](Data::once) can be as long as
///   [`Config::replay_buffer`](super::Config::replay_buffer) holds all that was read of it.
/// - [`Config::send_timeout`](super::Config::send_timeout) is for an application that takes nothing. A
///   source that gives nothing is waited for: it has to bring a time-out of its own.
/// - A redirect within the application is not followed: it names a path, and there is no file for that.
/// - No upgrade is offered.
///
/// ```no_run
/// use afcgi::client::{Client, Data};
/// use http_body_util::{BodyExt, Empty};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::connect("127.0.0.1:5000").await?;
/// let file = std::fs::File::open("/srv/www/page.txt")?;
/// let request = http::Request::get("/page.txt")
///     .extension(Data::file(file)?)
///     .body(Empty::<&[u8]>::new())?;
/// let response = client.request(request).await?;
/// println!("{:?}", response.into_body().collect().await?.to_bytes());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Data {
    length: u64,
    /// Seconds since 1970.
    modified: Option<u64>,
    source: Source,
}

pub(super) type Again = Arc<dyn Fn() -> BoxBody + Send + Sync>;

#[derive(Clone)]
enum Source {
    Again(Again),
    /// `None`: it was taken.
    Once(Arc<Mutex<Option<BoxBody>>>),
}

/// Where the content of a file comes from, for one request.
pub(super) struct Opened {
    pub(super) length: u64,
    pub(super) body: BoxBody,
    /// Makes the body anew.
    pub(super) again: Option<Again>,
}

impl Data {
    /// A file of this many bytes whose content `make` gives from its start, each time it is asked: once
    /// for each attempt at the request.
    ///
    /// To wait for something to be opened is for the body to do, as its first frame.
    pub fn new<F, B>(length: u64, make: F) -> Self
    where
        F: Fn() -> B + Send + Sync + 'static,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let again: Again = Arc::new(move || boxed(make()));
        Self::of(length, Source::Again(again))
    }

    /// A file of this many bytes whose content can be had once. Clones share it: the first request that is
    /// sent gets it, and others fail with [`Error::Data`].
    pub fn once<B>(length: u64, body: B) -> Self
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let body = Arc::new(Mutex::new(Some(boxed(body))));
        Self::of(length, Source::Once(body))
    }

    /// An open file, from its first byte wherever its cursor is, as long as it is now and as it was last
    /// modified. What is appended later is not sent; where it is cut meanwhile the request fails.
    ///
    /// It is read on tokio's threads for what blocks, 64 KiB at a time. It is closed when the request is over.
    ///
    /// Fails where that cannot be told, and with [`io::ErrorKind::InvalidInput`] where it is no regular
    /// file.
    pub fn file(file: File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            let why = "a filter is sent a regular file";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let (file, length) = (Arc::new(file), metadata.len());
        let data = Self::new(length, move || Pieces::new(&file, length));
        Ok(match metadata.modified() {
            Ok(modified) => data.modified(modified),
            Err(_) => data,
        })
    }

    /// When it was last modified. FCGI_DATA_LAST_MOD tells whole seconds; it is left out where nothing is
    /// known, or that was before 1970.
    #[must_use]
    pub fn modified(mut self, modified: SystemTime) -> Self {
        let since = modified.duration_since(SystemTime::UNIX_EPOCH);
        self.modified = since.ok().map(|since| since.as_secs());
        self
    }

    fn of(length: u64, source: Source) -> Self {
        Self {
            length,
            modified: None,
            source,
        }
    }

    /// FCGI_DATA_LENGTH and, if it is known, FCGI_DATA_LAST_MOD.
    pub(crate) fn params(&self) -> (u64, Option<u64>) {
        (self.length, self.modified)
    }

    pub(super) fn open(&self) -> Result<Opened, Error> {
        let (body, again) = match &self.source {
            Source::Again(again) => (again(), Some(Arc::clone(again))),
            Source::Once(body) => {
                let body = body.lock().unwrap_or_else(PoisonError::into_inner).take();
                let gone = || {
                    Error::Data(Arc::new(io::Error::other(
                        "it was sent with another request",
                    )))
                };
                (body.ok_or_else(gone)?, None)
            }
        };
        Ok(Opened {
            length: self.length,
            body,
            again,
        })
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Data")
            .field("length", &self.length)
            .field("modified", &self.modified)
            .finish_non_exhaustive()
    }
}

/// A file, piece by piece.
struct Pieces {
    file: Arc<File>,
    at: u64,
    left: u64,
    /// A piece that is being read.
    piece: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Pieces {
    fn new(file: &Arc<File>, length: u64) -> Self {
        Self {
            file: Arc::clone(file),
            at: 0,
            left: length,
            piece: None,
        }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if this.left == 0 {
            return Poll::Ready(None);
        }
        let (file, at) = (&this.file, this.at);
        let most = usize::try_from(this.left).map_or(PIECE, |left| left.min(PIECE));
        let piece = this.piece.get_or_insert_with(|| {
            let file = Arc::clone(file);
            tokio::task::spawn_blocking(move || read(&file, at, most))
        });
        let read = ready!(Pin::new(piece).poll(cx));
        this.piece = None;
        let piece = match read {
            Ok(Ok(piece)) => piece,
            Ok(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            Err(error) => return Poll::Ready(Some(Err(error.into()))),
        };
        if piece.is_empty() {
            // It was cut: whoever reads this knows how long it was to be.
            return Poll::Ready(None);
        }
        let count = piece.len() as u64;
        this.at = this.at.saturating_add(count);
        this.left = this.left.saturating_sub(count);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

fn read(file: &File, at: u64, most: usize) -> io::Result<Bytes> {
    let mut piece = vec![0; most];
    loop {
        match file.read_at(&mut piece, at) {
            Ok(count) => {
                piece.truncate(count);
                return Ok(piece.into());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom, Write};
    use std::time::Duration;

    use http_body_util::{BodyExt, Full};

    use super::*;

    #[tokio::test]
    async fn a_file_is_read_from_its_start_each_time() {
        let mut file = tempfile::tempfile().unwrap();
        let content = b"0123456789".repeat(20_000);
        file.write_all(&content).unwrap();
        let data = Data::file(file.try_clone().unwrap()).unwrap();
        assert_eq!(data.params().0, 200_000);
        assert!(
            data.params()
                .1
                .is_some_and(|modified| modified > 1_000_000_000)
        );
        file.write_all(b"more").unwrap();
        file.seek(SeekFrom::Start(7)).unwrap();
        for _ in 0..2 {
            let mut body = data.open().unwrap().body;
            let mut all = Vec::new();
            while let Some(frame) = body.frame().await {
                let piece = frame.unwrap().into_data().unwrap();
                assert!(piece.len() <= PIECE);
                all.extend_from_slice(&piece);
            }
            assert!(all == content);
        }
        file.set_len(70_000).unwrap();
        let cut = data.open().unwrap().body.collect().await.unwrap();
        assert_eq!(cut.to_bytes().len(), 70_000);
    }

    #[test]
    fn what_is_no_file_is_none() {
        let folder = Data::file(File::open("/").unwrap()).unwrap_err();
        assert_eq!(folder.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn times_and_sources() {
        let data = Data::once(3, Full::<Bytes>::from("abc"));
        assert_eq!(data.params(), (3, None));
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_millis(seconds);
        let data = data.modified(at(5999));
        assert_eq!(data.params(), (3, Some(5)));
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(data.clone().modified(before).params().1, None);
        assert!(data.open().is_ok());
        assert!(matches!(data.clone().open(), Err(Error::Data(_))));
        let data = Data::new(3, || Full::<Bytes>::from("abc"));
        assert!(data.open().is_ok() && data.open().is_ok());
    }
}
