//! A FastCGI application by hand, right in all that the tool looks at, and wrong in one thing if it is told so.
//!
//! It shares no code with the libraries of the project. It is small, not fast; what it holds is bounded all the same, since a case
//! looks at that.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::spawn_local;

use crate::connection::serve;
use crate::mutant::Mutant;

/// What all connections share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) mutant: Option<Mutant>,
    /// The next connection is not served.
    pub(crate) poisoned: Cell<bool>,
    poisoned_until: Cell<Option<Instant>>,
    /// Open connections that have sent nothing; nine bytes.
    pub(crate) silent: Cell<usize>,
    pub(crate) stopped: Cell<usize>,
    /// Open connections that have sent something.
    pub(crate) open: Cell<usize>,
    /// Connections that wait to write.
    pub(crate) blocked: Cell<usize>,
    /// Clients that left while something was done for them.
    pub(crate) left: Cell<usize>,
    /// What a fault keeps for ever.
    pub(crate) hoard: RefCell<Vec<Vec<u8>>>,
    /// Connections that are not served.
    swallowed: RefCell<Vec<TcpStream>>,
}

impl Shared {
    pub(crate) fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Keeps memory that is really used.
    pub(crate) fn hoard(&self, bytes: usize) {
        self.hoard.borrow_mut().push(vec![1; bytes]);
    }

    /// Whoever connects now is not served.
    pub(crate) fn poison_for_a_while(&self) {
        self.poisoned_until
            .set(Some(Instant::now() + Duration::from_millis(150)));
    }

    fn swallows(&self) -> bool {
        self.poisoned.take()
            || self
                .poisoned_until
                .get()
                .is_some_and(|until| Instant::now() < until)
            || self.is(Mutant::TakesFewSilent) && self.silent.get() >= 18
            || self.is(Mutant::TakesFewStopped) && self.stopped.get() >= 18
            || self.is(Mutant::WaitsForAReader) && self.blocked.get() > 0
    }
}

/// Starts it on a port of its own, on the local task set, and says where it is.
pub(crate) fn start(mutant: Option<Mutant>) -> String {
    let socket = TcpSocket::new_v4().expect("a socket");
    // So that a reader that does not read is felt soon.
    socket
        .set_send_buffer_size(32 * 1024)
        .expect("a small buffer");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let listener = socket.listen(1024).expect("a listener");
    let address = listener.local_addr().expect("its address").to_string();
    spawn_local(accept(listener, mutant));
    address
}

async fn accept(listener: TcpListener, mutant: Option<Mutant>) {
    let shared = Rc::new(Shared {
        mutant,
        ..Shared::default()
    });
    while let Ok((socket, _)) = listener.accept().await {
        if shared.swallows() {
            shared.swallowed.borrow_mut().push(socket);
            continue;
        }
        _ = socket.set_nodelay(true);
        spawn_local(serve(shared.clone(), socket));
    }
}
