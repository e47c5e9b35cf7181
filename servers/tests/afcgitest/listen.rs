//! Where it listens: every form of address, and sockets that were opened before it.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use afcgi_interop::wait::free_port;
use tempfile::tempdir;

use crate::AFCGITEST;
use crate::common::client::Client;
use crate::common::{command, left, listens_tcp, listens_unix, logs, start};

async fn says_hello(mut client: Client) {
    assert_eq!(client.get("/").await.text(), "Hello world\n");
}

#[tokio::test]
async fn tcp_in_every_form() {
    let folder = tempdir().expect("a folder");
    for (form, hosts, public) in [
        ("127.0.0.1", &["127.0.0.1"][..], false),
        ("localhost", &["localhost"], false),
        ("[::1]", &["[::1]"], false),
        ("*", &["127.0.0.1", "[::1]"], true),
        ("", &["127.0.0.1", "[::1]"], true),
    ] {
        let port = free_port();
        let mut command = command(AFCGITEST);
        command.arg(format!("{form}:{port}"));
        let mut process = start(&command, folder.path());
        for host in hosts {
            let address = format!("{host}:{port}");
            listens_tcp(&mut process, &address).await;
            says_hello(Client::tcp(&address).await).await;
        }
        // Whoever reaches an application makes it run: to listen to the network is worth a warning.
        let warned = process.log().contains("whoever can reach this address");
        assert_eq!(warned, public, "{form}: {}", process.log());
        assert!(process.stop().success());
    }
}

#[tokio::test]
async fn unix_sockets_in_every_form_and_several_at_once() {
    let folder = tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let port = free_port();
    let mut command = command(AFCGITEST);
    command
        .current_dir(folder.path())
        .args(["--mode", "640", "unix:a.sock", "./b.sock"]);
    command
        .arg(at("c.sock"))
        .arg(format!("unix:{}", at("d.sock").display()));
    command.arg(format!("127.0.0.1:{port}"));
    let mut process = start(&command, folder.path());
    listens_tcp(&mut process, &format!("127.0.0.1:{port}")).await;
    says_hello(Client::tcp(&format!("127.0.0.1:{port}")).await).await;
    for name in ["a.sock", "b.sock", "c.sock", "d.sock"] {
        says_hello(Client::unix(&at(name)).await).await;
        let mode = std::fs::metadata(at(name))
            .expect("a socket")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o640, "{name}");
    }
    assert!(process.stop().success());
    for name in ["a.sock", "b.sock", "c.sock", "d.sock"] {
        assert!(!at(name).exists(), "{name} is left behind");
    }
}

#[tokio::test]
async fn a_live_socket_is_refused_and_a_stale_one_replaced() {
    let folder = tempdir().expect("a folder");
    let socket = folder.path().join("app.sock");
    let mut command = command(AFCGITEST);
    command.arg(&socket);
    let mut first = start(&command, folder.path());
    listens_unix(&mut first, &socket).await;

    let other = tempdir().expect("a folder");
    let mut second = start(&command, other.path());
    assert_eq!(left(&mut second).await.code(), Some(1));
    logs(&second, "app.sock: another process listens there").await;
    says_hello(Client::unix(&socket).await).await;

    // Killed, it leaves its socket behind.
    first.kill();
    assert!(socket.exists());
    let mut third = start(&command, folder.path());
    listens_unix(&mut third, &socket).await;
    says_hello(Client::unix(&socket).await).await;
    assert!(third.stop().success());
    assert!(!socket.exists());

    // What is no socket stays.
    std::fs::write(&socket, "precious").expect("a file");
    let mut fourth = start(&command, folder.path());
    assert_eq!(left(&mut fourth).await.code(), Some(1));
    logs(&fourth, "there is a file that is no socket").await;
    assert_eq!(
        std::fs::read_to_string(&socket).expect("a file"),
        "precious"
    );
}

#[tokio::test]
async fn a_port_in_use_is_said() {
    let folder = tempdir().expect("a folder");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let mut command = command(AFCGITEST);
    command.arg(&address);
    let mut process = start(&command, folder.path());
    assert_eq!(left(&mut process).await.code(), Some(1));
    logs(
        &process,
        &format!("cannot listen at {address}: another process listens there"),
    )
    .await;
}

/// `spawn-fcgi` with these options, in the foreground, in front of a command.
fn spawn_fcgi(options: &[&str], program: &[&str]) -> Command {
    let mut command = command("spawn-fcgi");
    command.arg("-n").args(options).arg("--").args(program);
    command
}

#[tokio::test]
async fn r33_a_socket_is_inherited_from_spawn_fcgi() {
    let folder = tempdir().expect("a folder");
    let port = free_port();
    let options = ["-a", "127.0.0.1", "-p", &port.to_string()];
    let mut process = start(&spawn_fcgi(&options, &[AFCGITEST]), folder.path());
    listens_tcp(&mut process, &format!("127.0.0.1:{port}")).await;
    says_hello(Client::tcp(&format!("127.0.0.1:{port}")).await).await;
    assert!(process.stop().success());

    let socket = folder.path().join("app.sock");
    let options = ["-s", socket.to_str().expect("a path")];
    let mut process = start(&spawn_fcgi(&options, &[AFCGITEST]), folder.path());
    listens_unix(&mut process, &socket).await;
    says_hello(Client::unix(&socket).await).await;
    assert!(process.stop().success());
}

#[tokio::test]
async fn sockets_are_passed_by_systemd() {
    let folder = tempdir().expect("a folder");
    let socket = folder.path().join("app.sock");
    let port = free_port();
    // systemd's convention, in a shell: descriptors from 3 on, and whom they are for.
    let last = format!("exec 4<&0 0</dev/null; LISTEN_FDS=2 LISTEN_PID=$$ exec {AFCGITEST}");
    let second = format!(
        "exec 3<&0; exec spawn-fcgi -n -s {} -- /bin/sh -c '{last}'",
        socket.to_str().expect("a path")
    );
    let options = ["-a", "127.0.0.1", "-p", &port.to_string()];
    let mut process = start(
        &spawn_fcgi(&options, &["/bin/sh", "-c", &second]),
        folder.path(),
    );
    listens_unix(&mut process, &socket).await;
    says_hello(Client::tcp(&format!("127.0.0.1:{port}")).await).await;
    says_hello(Client::unix(&socket).await).await;
    assert!(process.stop().success());
}

#[tokio::test]
async fn a_socket_that_was_passed_belongs_to_who_passed_it() {
    let folder = tempdir().expect("a folder");
    let socket = folder.path().join("app.sock");
    let options = ["-s", socket.to_str().expect("a path")];
    let mut process = start(&spawn_fcgi(&options, &[AFCGITEST]), folder.path());
    listens_unix(&mut process, &socket).await;
    // spawn-fcgi listens before the server runs.
    says_hello(Client::unix(&socket).await).await;
    assert!(process.stop().success());
    assert!(Path::exists(&socket));
    assert!(UnixListener::bind(&socket).is_err());
}
