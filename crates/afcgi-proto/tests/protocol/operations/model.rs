//! The requests of the random operations, and how far each side is with them.

use afcgi_proto::Handle;
use afcgi_proto::inbox::Read;
use fastrand::Rng;

/// What a request is like: a function of its key, so that both sides know.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Handler {
    /// Reads the body to its end, then answers.
    Polite,
    /// Sends back what it reads, as it comes.
    Echo,
    /// Answers and ends without having read.
    Hasty,
    /// Refuses.
    Refuse,
}

/// The status of an echo whose body was given up.
pub(super) const BODY_GIVEN_UP: u32 = u32::MAX;

pub(super) struct Spec {
    pub(super) handler: Handler,
    pub(super) stdin: Vec<u8>,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
    /// The consumer goes away when it has read so much.
    pub(super) abort_at: Option<usize>,
    /// The consumer does not read as long as there is something else to do.
    pub(super) lazy: bool,
    /// So does the handler.
    pub(super) dawdles: bool,
}

pub(super) fn spec(key: u64) -> Spec {
    let mut rng = Rng::with_seed(key);
    let mut bytes = |most: &[usize]| {
        let most = *rng.choice(most).unwrap();
        let length = rng.usize(0..=most);
        (0..length).map(|_| rng.u8(..)).collect::<Vec<u8>>()
    };
    let stdin = bytes(&[0, 0, 30, 3000, 30_000]);
    let mut stdout = bytes(&[0, 30, 30, 3000, 30_000]);
    let stderr = bytes(&[0, 0, 0, 500]);
    let handler = match rng.u8(0..8) {
        0 => Handler::Refuse,
        1 | 2 => Handler::Hasty,
        3 | 4 => Handler::Echo,
        _ => Handler::Polite,
    };
    if handler == Handler::Echo {
        stdout.clone_from(&stdin);
    }
    Spec {
        handler,
        stdout,
        stdin,
        stderr,
        abort_at: (rng.u8(0..5) == 0).then(|| rng.usize(0..3000)),
        lazy: rng.u8(0..6) == 0,
        dawdles: rng.u8(0..10) == 0,
    }
}

/// The web server's consumer of a request.
pub(super) struct Job {
    pub(super) key: u64,
    pub(super) handle: Handle,
    pub(super) spec: Spec,
    pub(super) params: Vec<u8>,
    pub(super) params_sent: usize,
    pub(super) stdin_sent: usize,
    pub(super) sent: bool,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
    pub(super) can_write: bool,
    pub(super) can_read: bool,
}

/// The application's handler of a request.
pub(super) struct Task {
    pub(super) key: u32,
    pub(super) spec: Spec,
    pub(super) handle: Handle,
    pub(super) stdin: Vec<u8>,
    pub(super) stdin_end: Option<Read>,
    pub(super) stdout_sent: usize,
    pub(super) stderr_sent: usize,
    pub(super) can_write: bool,
    pub(super) can_read: bool,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) complete: usize,
    pub(super) refused: usize,
    pub(super) closed: usize,
    pub(super) stalled: usize,
    pub(super) bodies_given_up: usize,
}
