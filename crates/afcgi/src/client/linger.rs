//! What an application says after its response: STDERR up to END_REQUEST, for the log.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use afcgi_proto::inbox::Read;
use afcgi_proto::web::Input;

use super::place::Place;
use super::stderr::Stderr;

/// How long an application that has said all of its response may take to end the request, before it is given up.
const LINGER: Duration = Duration::from_secs(1);

/// Lets a request end of which nothing more is wanted, and whose body was sent.
pub(super) fn linger(place: Place, stderr: Stderr) {
    let mut request = Lingering { place, stderr };
    if request.is_over() {
        return;
    }
    // There may be none left at the end of the program.
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        let over = poll_fn(move |cx| request.poll(cx));
        runtime.spawn(tokio::time::timeout(LINGER, over));
    }
}

struct Lingering {
    place: Place,
    stderr: Stderr,
}

impl Lingering {
    fn is_over(&mut self) -> bool {
        let Place { shared, handle, .. } = &self.place;
        let over = !matches!(shared.ended(*handle), Ok(None));
        self.stderr.read(&self.place);
        over
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.is_over() {
                return Poll::Ready(());
            }
            let Place { shared, handle, .. } = &self.place;
            while let Read::Content(_) = shared.read(*handle, Input::Stdout, usize::MAX) {}
            if shared.wait_to_read(cx, *handle) {
                return Poll::Pending;
            }
        }
    }
}
