//! A connection from its first request to its end, whichever HTTP is spoken on it.

use std::pin::Pin;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::activity::Activity;
use super::incoming::BoxError;
use crate::config::Limits;

/// Drives a connection to its end, and has it `finish` when it has been idle for too long or is to stop.
pub(super) async fn drive<C, E>(
    mut served: Pin<Box<C>>,
    finish: fn(Pin<&mut C>),
    activity: &Activity,
    limits: Limits,
    stop: CancellationToken,
) -> Result<(), BoxError>
where
    C: Future<Output = Result<(), E>>,
    E: Into<BoxError>,
{
    let mut stopping = false;
    let first = Instant::now() + limits.header_timeout;
    let mut check = Instant::now() + limits.header_timeout.min(limits.idle_timeout);
    loop {
        tokio::select! {
            result = served.as_mut() => return result.map_err(Into::into),
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                finish(served.as_mut());
            }
            () = sleep_until(check) => {
                let idle = activity.idle(check);
                match idle {
                    // No request has come yet.
                    None if check >= first => return Ok(()),
                    None => check = first,
                    Some(idle) if idle < limits.idle_timeout => check = Instant::now() + (limits.idle_timeout - idle),
                    // It was asked to close before.
                    Some(_) if stopping => return Ok(()),
                    Some(_) => {
                        stopping = true;
                        finish(served.as_mut());
                        check = Instant::now() + limits.header_timeout;
                    }
                }
            }
        }
    }
}
