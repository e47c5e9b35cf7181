//! Closing a connection whose web server still sends: a socket that is closed with something to read is
//! reset, and then the web server may lose an answer that it has not read yet. So its writing half is closed,
//! and what comes is read and dropped, for a while.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::connection::BUFFER;
use super::shared::Shared;

/// How long, and how much.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Linger {
    pub(crate) time: Duration,
    pub(crate) bytes: usize,
}

impl Linger {
    /// Returns when the web server has closed its half too, at the limits, or when the connection is cut.
    pub(super) async fn run<IO>(self, io: &mut IO, shared: &Shared)
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let drop_all = async {
            if io.shutdown().await.is_err() {
                return;
            }
            let mut left = self.bytes;
            while left > 0 {
                let count = read(io, shared).await;
                if count == 0 {
                    return;
                }
                left = left.saturating_sub(count);
                tokio::task::yield_now().await;
            }
        };
        // Whatever is left then is reset.
        let _ = tokio::time::timeout(self.time, drop_all).await;
    }
}

/// How many bytes came; 0 at the end.
async fn read<IO>(io: &mut IO, shared: &Shared) -> usize
where
    IO: AsyncRead + Unpin,
{
    poll_fn(|cx| {
        let mut state = shared.lock();
        if state.is_cut() {
            return Poll::Ready(0);
        }
        state.park(cx);
        drop(state);
        BUFFER.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            let read = ready!(Pin::new(&mut *io).poll_read(cx, &mut buffer));
            Poll::Ready(read.map_or(0, |()| buffer.filled().len()))
        })
    })
    .await
}
