//! The gateway of this project before applications whose names lead somewhere else from time to time.

use std::cell::Cell;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use afcgi_interop::fake::{Fake, response, values, write};
use afcgi_interop::http::{client, get_ok, noise};
use afcgi_interop::own::Own;
use afcgi_interop::raw::{self, kind};
use afcgi_interop::wait::{SOON, eventually, free_port};
use futures_util::future::join_all;
use tokio::net::TcpStream;
use tokio::sync::mpsc::unbounded_channel;

/// Names, each of which is an upstream.
const SITES: usize = 20;
/// Addresses, so that some are no name's.
const ADDRESSES: usize = 30;
/// How often the names move.
const ROUNDS: u64 = 5;
/// Requests to each name before it moves again.
const REQUESTS: usize = 40;

fn address(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 7, u8::try_from(number + 1).expect("a few"))
}

/// An application that multiplexes, tells its number, and takes its time for some requests.
async fn tell(socket: TcpStream, number: usize, open: Arc<AtomicUsize>) {
    open.fetch_add(1, Ordering::SeqCst);
    let (mut from, mut to) = socket.into_split();
    let (send, mut sent) = unbounded_channel::<Vec<u8>>();
    let writer = tokio::spawn(async move {
        while let Some(bytes) = sent.recv().await {
            write(&mut to, &bytes).await;
        }
    });
    while let Some(record) = raw::read(&mut from).await {
        match record.kind {
            kind::GET_VALUES => _ = send.send(values(true)),
            kind::STDIN if record.content.is_empty() => {
                let (send, id) = (send.clone(), record.id);
                tokio::spawn(async move {
                    let wait = if id.is_multiple_of(4) { 60 } else { 0 };
                    tokio::time::sleep(Duration::from_millis(wait)).await;
                    _ = send.send(response(id, &number.to_string()));
                });
            }
            _ => {}
        }
    }
    writer.abort();
    open.fetch_sub(1, Ordering::SeqCst);
}

/// Where each name leads in a round: another permutation each time, so that names also take each other's addresses.
fn leads(round: u64) -> Vec<usize> {
    let random = noise(8 * ADDRESSES, round + 1);
    let mut order: Vec<usize> = (0..ADDRESSES).collect();
    for (at, bytes) in random.chunks_exact(8).enumerate() {
        let bytes: [u8; 8] = bytes.try_into().expect("eight bytes");
        order.swap(at, (u64::from_le_bytes(bytes) % ADDRESSES as u64) as usize);
    }
    order.truncate(SITES);
    order
}

fn write_hosts(path: &Path, leads: &[usize]) {
    let lines = leads
        .iter()
        .enumerate()
        .map(|(site, number)| format!("{} site{site}.test\n", address(*number)));
    std::fs::write(path, lines.collect::<String>()).expect("the hosts");
}

/// Every answer comes from where its name leads, or led when the request began; nothing stays at an address that it has left.
#[tokio::test]
async fn names_lead_to_other_addresses() {
    let port = free_port();
    let mut apps = Vec::new();
    let mut open = Vec::new();
    for number in 0..ADDRESSES {
        let count = Arc::new(AtomicUsize::new(0));
        open.push(count.clone());
        let app = Fake::start_at((address(number).octets(), port), move |socket, _| {
            tell(socket, number, count.clone())
        });
        apps.push(app.await);
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hosts = folder.path().join("hosts");
    let mut now = leads(0);
    write_hosts(&hosts, &now);
    let config: String = (0..SITES)
        .map(|site| {
            format!(
                "[upstream.site{site}]\naddresses = [\"site{site}.test:{port}\"]\nresolve_interval = \"50ms\"\nidle_timeout = \"1s\"\n\
                 [[route]]\npath = \"/{site}\"\nupstream = \"site{site}\"\n"
            )
        })
        .collect();
    let gateway = Own::with_hosts(&hosts, &config).await;
    let client = client();
    let ask = async |site: usize| -> usize {
        let body = get_ok(&client, &gateway.url(&format!("/{site}"))).await;
        let text = String::from_utf8(body.to_vec()).expect("text");
        text.parse().expect("a number")
    };
    for round in 1..=ROUNDS {
        // As it is.
        join_all((0..SITES * REQUESTS).map(async |n| {
            let site = n % SITES;
            assert_eq!(
                ask(site).await,
                now[site],
                "site {site} before round {round}"
            );
        }))
        .await;
        // While it changes: one or the other, and once the other has answered, that one.
        let next = leads(round);
        write_hosts(&hosts, &next);
        join_all((0..SITES).map(async |site| {
            let moved = Cell::new(false);
            eventually(&format!("site {site} has moved"), SOON, || async {
                let had_moved = moved.get();
                let found = ask(site).await;
                assert!(
                    found == next[site] || (found == now[site] && !had_moved),
                    "site {site} in round {round}: {found} in place of {} or {}",
                    now[site],
                    next[site]
                );
                moved.set(found == next[site]);
                match moved.get() {
                    true => Ok(()),
                    false => Err(format!("it leads to {found}")),
                }
            })
            .await;
        }))
        .await;
        now = next;
        for number in (0..ADDRESSES).filter(|number| !now.contains(number)) {
            eventually(
                "an address that was left has no connection",
                SOON,
                || async {
                    match open[number].load(Ordering::SeqCst) {
                        0 => Ok(()),
                        count => Err(format!("{count} at {}", address(number))),
                    }
                },
            )
            .await;
        }
    }
    eventually("all are closed when they are idle", SOON, || async {
        match open.iter().map(|count| count.load(Ordering::SeqCst)).sum() {
            0 => Ok(()),
            count => Err(format!("{count} connections")),
        }
    })
    .await;
    drop(client);
    gateway.is_idle().await;
}
