//! More addresses in one worker than there are pools kept: a request reaches the application that it is for, and no other.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use afcgi_interop::http::{client, get_ok};
use afcgi_interop::wait::{SOON, eventually};
use afcgi_nginx_tests::crowd::{Crowd, connections_to};
use afcgi_nginx_tests::nginx::Nginx;
use futures_util::future::join_all;
use reqwest::Client;

/// Numbers by chance that come again with the same seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % most
    }
}

/// Every tenth request takes its time, so that connections carry requests while others come and go.
fn pause(chance: &mut Chance) -> usize {
    match chance.below(10) {
        0 => 50 + chance.below(400),
        _ => 0,
    }
}

/// Requests each, of so many clients at a time.
const CLIENTS: usize = 60;
const EACH: usize = 120;

async fn are_gone(ports: &[u16]) {
    eventually("the connections are closed", SOON, || async {
        match connections_to(ports) {
            0 => Ok(()),
            open => Err(format!("{open} are open")),
        }
    })
    .await;
}

/// An nginx with a site for each port, of which `/N/` is the Nth.
async fn sites(module: &str, ports: &[u16]) -> Nginx {
    let upstreams: String = (ports.iter().enumerate())
        .map(|(n, port)| {
            format!(
                "upstream u{n} {{ server 127.0.0.1:{port}; fastcgi_multiplex idle_timeout={} max_requests={}; }}
                ",
                if module == "small" { "1h" } else { "2s" },
                3 + n % 5
            )
        })
        .collect();
    let locations: String = (0..ports.len())
        .map(|n| format!("location /{n}/ {{ fastcgi_pass u{n}; }}\n"))
        .collect();
    let http = format!(
        "{upstreams} server {{ listen LISTEN; location /-/ {{ fastcgi_multiplex_status; }} {locations} }}"
    );
    match module {
        "faults" => Nginx::misdirecting(&http).await,
        "small" => Nginx::with_connections(64, &http).await,
        _ => Nginx::start(1, &http).await,
    }
}

/// Sends requests to sites by chance, and says how many were answered by another one.
async fn wander(nginx: &Nginx, sites: usize) -> usize {
    let wrong = join_all((0..CLIENTS).map(async |number| {
        let client = client();
        let mut chance = Chance(number as u64);
        let mut wrong = 0;
        for n in 0..EACH {
            let (site, ms) = (chance.below(sites), pause(&mut chance));
            let tag = number * EACH + n;
            let url = nginx.url(&format!("/{site}/?ms={ms}&tag={tag}"));
            let request = match chance.below(3) {
                0 => client.post(url).body("a body"),
                _ => client.get(url),
            };
            let response = request.send().await.expect("an answer");
            assert_eq!(response.status().as_u16(), 200, "site {site}");
            let body = response.text().await.expect("the body");
            let expected = format!("{site} 127.0.0.1 {tag}");
            wrong += usize::from(body != expected);
        }
        wrong
    }));
    wrong.await.into_iter().sum()
}

#[tokio::test]
async fn three_hundred_applications() {
    let crowd = Crowd::start(300).await;
    let ports = crowd.ports();
    let nginx = sites("", &ports).await;
    assert_eq!(
        wander(&nginx, 300).await,
        0,
        "answers from another application"
    );
    are_gone(&ports).await;
}

/// `fastcgi_bind $remote_addr`: a connection leaves from the address of its client, and carries no other client's requests.
#[tokio::test]
async fn four_hundred_bound_addresses() {
    let crowd = Crowd::start(2).await;
    let ports = crowd.ports();
    let nginx = Nginx::start(
        1,
        &format!(
            "upstream u0 {{ server 127.0.0.1:{}; fastcgi_multiplex idle_timeout=2s max_requests=2; }}
             upstream u1 {{ server 127.0.0.1:{}; fastcgi_multiplex idle_timeout=2s max_requests=2; }}
             server {{ listen LISTEN; fastcgi_bind $remote_addr;
                 location /0/ {{ fastcgi_pass u0; }} location /1/ {{ fastcgi_pass u1; }} }}",
            ports[0], ports[1]
        ),
    )
    .await;
    let nginx = &nginx;
    join_all((0..CLIENTS).map(async |number| {
        let mut chance = Chance(number as u64);
        for turn in 0..EACH {
            let n = chance.below(400);
            let address = Ipv4Addr::new(127, 0, 1 + (n / 200) as u8, 1 + (n % 200) as u8);
            let client = Client::builder()
                .no_proxy()
                .local_address(IpAddr::V4(address))
                .timeout(Duration::from_secs(60))
                .build()
                .expect("a client");
            let (site, ms) = (chance.below(2), pause(&mut chance));
            let url = nginx.url(&format!("/{site}/?ms={ms}&tag={turn}"));
            let body = get_ok(&client, &url).await;
            assert_eq!(body, format!("{site} {address} {turn}"));
        }
    }))
    .await;
    are_gone(&ports).await;
}

/// Connections without a request are no reason to be out of `worker_connections`: plain nginx would have none, and those that `keepalive`
/// keeps make room too.
#[tokio::test]
async fn idle_connections_make_room() {
    let crowd = Crowd::start(150).await;
    let ports = crowd.ports();
    let nginx = sites("small", &ports).await;
    let client = client();
    for round in 0..3 {
        for site in 0..ports.len() {
            let body = get_ok(&client, &nginx.url(&format!("/{site}/?tag={round}"))).await;
            assert_eq!(body, format!("{site} 127.0.0.1 {round}"));
        }
    }
}

/// A module that now and then takes a connection to another application, as if there were a mistake in the choice: it is found out before
/// the request is put on it.
#[tokio::test]
async fn a_wrong_choice_of_a_connection_is_found_out() {
    let crowd = Crowd::start(20).await;
    let ports = crowd.ports();
    let nginx = sites("faults", &ports).await;
    assert_eq!(
        wander(&nginx, 20).await,
        0,
        "answers from another application"
    );
    let page = get_ok(&client(), &nginx.url("/-/?format=prometheus")).await;
    let page = String::from_utf8_lossy(&page).into_owned();
    let astray: u64 = (page.lines())
        .filter(|line| line.starts_with("fastcgi_multiplex_requests_astray_total{"))
        .map(|line| line.rsplit(' ').next().expect("a value"))
        .map(|value| value.parse::<u64>().expect("a number"))
        .sum();
    assert!(astray > 0, "{page}");
    nginx.logs("was not put on a connection to").await;
}
