//! Servers by name, whose addresses change (`resolve`, in nginx from 1.27.3 on).

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use afcgi_interop::fake::{Fake, next_request, response, values, write};
use afcgi_interop::http::{client, get_ok};
use afcgi_interop::wait::{SOON, eventually};
use afcgi_nginx_tests::nginx::{Nginx, check, version};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

/// A name server that gives every name the addresses that the test says.
struct Names {
    port: u16,
    addresses: Arc<Mutex<Vec<[u8; 4]>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Names {
    async fn start(addresses: Vec<[u8; 4]>) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let port = socket.local_addr().expect("its address").port();
        let addresses = Arc::new(Mutex::new(addresses));
        let known = addresses.clone();
        let task = tokio::spawn(async move {
            let mut query = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut query).await {
                let answer = answer(&query[..length], &known.lock().expect("no panic"));
                _ = socket.send_to(&answer, from).await;
            }
        });
        Self {
            port,
            addresses,
            task,
        }
    }

    fn set(&self, addresses: Vec<[u8; 4]>) {
        *self.addresses.lock().expect("no panic") = addresses;
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// RFC 1035: the question again, and an A record for each address, to be forgotten after a second.
fn answer(query: &[u8], addresses: &[[u8; 4]]) -> Vec<u8> {
    let name = query[12..]
        .iter()
        .position(|&byte| byte == 0)
        .expect("a name");
    let question = &query[12..12 + name + 1 + 4];
    let mut out = query[..2].to_vec();
    out.extend([0x81, 0x80, 0, 1, 0, addresses.len() as u8, 0, 0, 0, 0]);
    out.extend(question);
    for address in addresses {
        out.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        out.extend(address);
    }
    out
}

/// It answers with where it listens, and tells when a connection is closed.
async fn at(address: ([u8; 4], u16), closed: mpsc::UnboundedSender<u8>) -> Fake {
    let number = address.0[3];
    Fake::start_at(address, move |mut socket, _| {
        let closed = closed.clone();
        async move {
            while let Some(id) = next_request(&mut socket, Some(&values(true))).await {
                write(&mut socket, &response(id, &number.to_string())).await;
            }
            _ = closed.send(number);
        }
    })
    .await
}

#[tokio::test]
async fn addresses_come_and_go() {
    let upstream = |names: u16, port: u16| {
        format!(
            "resolver 127.0.0.1:{names} valid=1s ipv6=off;
             upstream app {{ zone app 256k; server app.test:{port} resolve;
                 fastcgi_multiplex idle_timeout=1s; }}
             server {{ listen LISTEN; location / {{ fastcgi_pass app; }} }}"
        )
    };
    if version() < [1, 27, 3] {
        // There it cannot be asked for, so that nothing is left to be tested.
        let (ok, text) = check(&upstream(9, 9).replace("LISTEN", "127.0.0.1:9"));
        assert!(!ok, "{text}");
        assert!(text.contains("invalid parameter \"resolve\""), "{text}");
        return;
    }
    let (tell, mut closed) = mpsc::unbounded_channel();
    let first = at(([127, 0, 0, 1], 0), tell.clone()).await;
    let second = at(([127, 0, 0, 2], first.port()), tell).await;
    let names = Names::start(vec![[127, 0, 0, 1]]).await;
    let nginx = Nginx::start(1, &upstream(names.port, second.port())).await;
    let client = client();
    let url = nginx.url("/");
    let seen = async |expected: HashSet<&'static str>| {
        eventually("the addresses are known", SOON, || async {
            let mut seen = HashSet::new();
            for _ in 0..20 {
                let answer = client.get(&url).send().await;
                let answer = answer.map_err(|error| error.to_string())?;
                seen.insert(answer.text().await.map_err(|error| error.to_string())?);
            }
            if seen.iter().map(String::as_str).collect::<HashSet<_>>() == expected {
                Ok(())
            } else {
                Err(format!("{seen:?}"))
            }
        })
        .await;
    };
    seen(HashSet::from(["1"])).await;
    names.set(vec![[127, 0, 0, 1], [127, 0, 0, 2]]);
    seen(HashSet::from(["1", "2"])).await;
    names.set(vec![[127, 0, 0, 2]]);
    seen(HashSet::from(["2"])).await;
    // Nobody asks for the connection to the address that is gone, so its time runs out.
    let left = async {
        while closed.recv().await != Some(1) {
            get_ok(&client, &url).await;
        }
    };
    tokio::time::timeout(SOON + Duration::from_secs(1), left)
        .await
        .expect("the connection is closed");
}
