//! The download for a client that reads slowly: zeros, as fast as they are taken.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use afcgi::Stopping;
use bytes::Bytes;
use futures_util::{Stream, stream};

use super::room::Place;

/// Bytes of a download.
pub(super) const LENGTH: u64 = 200_000_000;

static ZEROS: [u8; 16 * 1024] = [0; 16 * 1024];

/// The body. `handed` counts what was handed over to be sent; the place is free when it ends.
pub(super) fn body(
    handed: Arc<AtomicU64>,
    stopping: Stopping,
    place: Place,
) -> impl Stream<Item = io::Result<Bytes>> {
    handed.store(0, Ordering::Relaxed);
    stream::unfold(LENGTH, move |left| {
        let _place = &place;
        let length = left.min(ZEROS.len() as u64);
        let item = if length == 0 {
            None
        } else {
            handed.fetch_add(length, Ordering::Relaxed);
            let block = Bytes::from_static(&ZEROS).slice(..length as usize);
            Some((Ok(block), left - length))
        };
        // It cannot end in order before its length, and nothing is wrong that an error would tell: what ends it is that the
        // demonstration does not wait for it for long.
        let stopping = stopping.is_stopping();
        async move {
            match stopping {
                true => std::future::pending().await,
                false => item,
            }
        }
    })
}
