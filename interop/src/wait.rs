//! Waiting for a condition, with a deadline, and free ports to wait on.

use std::future::Future;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// How long anything may take that should be quick: generous, since the machine may be busy with other tests.
pub const SOON: Duration = Duration::from_secs(30);

/// Tries until `attempt` succeeds and returns what it gave.
///
/// # Panics
/// When `within` has passed, with `what` and the reason of the last attempt.
pub async fn eventually<T, F>(what: &str, within: Duration, mut attempt: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let start = Instant::now();
    let mut pause = Duration::from_millis(5);
    loop {
        let reason = match attempt().await {
            Ok(value) => return value,
            Err(reason) => reason,
        };
        assert!(
            start.elapsed() < within,
            "{what}: not within {within:?}: {reason}"
        );
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(200));
    }
}

/// A TCP port on 127.0.0.1 that nobody listens on, and that this function gives nobody else while this process lives.
///
/// It lies below the range from which the kernel takes ports for outgoing connections (32768 and up), so that none of the thousands of
/// connections of a test run can take it before its server does. Test programs that run side by side know of each other by a socket in
/// the abstract namespace, whose name holds the port; the kernel removes it with the process.
pub fn free_port() -> u16 {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    static RESERVED: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());
    // Each program starts somewhere else, so that they seldom meet.
    let start = (std::process::id().wrapping_mul(997) % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + start.wrapping_add(step) % COUNT;
        let name = SocketAddr::from_abstract_name(format!("afcgi-interop-port-{port}"))
            .expect("a short name");
        let Ok(reserved) = UnixListener::bind_addr(&name) else {
            continue;
        };
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            RESERVED
                .lock()
                .expect("no panic while it is held")
                .push(reserved);
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}
