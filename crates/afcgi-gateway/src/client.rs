//! A client is served: here its connection meets what answers its requests.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use crate::answer::answer;
use crate::front::{self, BoxError, Busy, Ends, Socket, Terms};
use crate::respond::fields;
use crate::route::access;
use crate::say;
use crate::shared::Shared;

/// Serves a client until it leaves, or is to.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    socket: Socket,
    peer: Option<SocketAddr>,
    _place: OwnedSemaphorePermit,
    stop: CancellationToken,
) {
    let _open = shared.metrics.open();
    if let Err(error) = serve_client(shared, socket, peer, stop).await {
        tracing::debug!(%error, "a connection of a client broke off");
    }
}

async fn serve_client(
    shared: Arc<Shared>,
    mut socket: Socket,
    peer: Option<SocketAddr>,
    stop: CancellationToken,
) -> Result<(), BoxError> {
    let tls = shared.tls.load_full();
    let limits = shared.site.load().settings.limits;
    socket.set_nodelay(true)?;
    socket.set_send_timeout(limits.send_timeout);
    let ends = Ends {
        peer,
        local: socket.local_addr()?,
        secure: tls.is_some(),
    };
    let refused = {
        let shared = Arc::clone(&shared);
        move |status, line: &[u8]| {
            let log = shared.site.load().log.clone();
            say::refused(log, &shared.metrics, access::name(peer), (status, line));
        }
    };
    let terms = Terms {
        limits,
        budget: Arc::clone(&shared.budget),
        refused: &refused,
        tidy: fields::keep_inside,
        stop,
    };
    let activity = Arc::clone(socket.activity());
    let service = move |request| {
        let busy = Busy::new(&activity);
        answer(Arc::clone(&shared), ends, busy, request)
    };
    front::serve(socket, tls, service, terms).await
}
