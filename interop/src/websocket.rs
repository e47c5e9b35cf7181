//! What a WebSocket must do behind any web server that tunnels: each function is one test, given the URL of the example `websocket`, with
//! a slash at its end, or of one of its routes.

use std::path::Path;

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::browser::Browser;
use crate::http::noise;
use crate::wait::SOON;

/// A WebSocket without TLS.
pub type Socket = WebSocketStream<TcpStream>;

/// Connects to a URL that begins with `http:`; the error is what was answered instead.
pub async fn try_connect(url: &str) -> Result<Socket, Error> {
    let rest = url.strip_prefix("http://").expect("a URL");
    let address = rest.split('/').next().expect("an address");
    let stream = TcpStream::connect(address).await.expect("a connection");
    stream.set_nodelay(true).expect("TCP");
    let connecting = tokio_tungstenite::client_async(format!("ws://{rest}"), stream);
    Ok(soon(connecting).await?.0)
}

/// Connects to a URL that begins with `http:`.
pub async fn connect(url: &str) -> Socket {
    match try_connect(url).await {
        Ok(socket) => socket,
        Err(error) => panic!("{url}: {error:?}"),
    }
}

async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(SOON, future).await.expect("in time")
}

/// The next message that is no ping; `None` at the end, however it came about.
pub async fn next(socket: &mut Socket) -> Option<Message> {
    loop {
        match soon(socket.next()).await?.ok()? {
            Message::Ping(_) | Message::Pong(_) => {}
            message => return Some(message),
        }
    }
}

/// Messages of an echo come back, text and binary, the empty one and those at the limits of WebSocket's lengths.
pub async fn echoes(url: &str) {
    let mut socket = connect(url).await;
    for length in [0, 1, 125, 126, 127, 65_535, 65_536] {
        for message in [
            Message::text("\u{e9}".repeat(length / 2)),
            Message::binary(noise(length, 7)),
        ] {
            soon(socket.send(message.clone())).await.expect("sent");
            let answer = next(&mut socket).await.expect("an answer");
            assert!(answer == message, "{length} bytes differ");
        }
    }
    // Asked and answered by the codec itself.
    soon(socket.send(Message::Ping("are you there".into())))
        .await
        .expect("sent");
    let pong = soon(socket.next()).await.expect("more").expect("a message");
    assert_eq!(pong, Message::Pong("are you there".into()));
}

/// Messages of a megabyte come back, several on their way at a time and on several sockets.
pub async fn echoes_megabytes(url: &str) {
    let one = async |seed: u64| {
        let (mut sender, mut receiver) = connect(url).await.split();
        let messages = [1, 2, 3].map(|n| Message::binary(noise(1 << 20, seed * 10 + n)));
        let sending = async {
            for message in &messages {
                sender.send(message.clone()).await.expect("sent");
            }
        };
        let receiving = async {
            for message in &messages {
                let answer = receiver.next().await.expect("more").expect("a message");
                assert!(answer == *message, "a megabyte differs");
            }
        };
        tokio::join!(sending, receiving);
    };
    soon(futures_util::future::join_all((0..4).map(one))).await;
}

/// The client closes, in order, and the answer is in order.
pub async fn the_client_closes(url: &str) {
    let mut socket = connect(url).await;
    soon(socket.close(None)).await.expect("sent");
    let answer = next(&mut socket).await.expect("an answer");
    assert!(answer.is_close(), "{answer:?}");
    assert_eq!(next(&mut socket).await, None);
}

/// The application closes: the board, of which something is asked that does not exist.
pub async fn the_application_closes(url: &str) {
    let mut socket = connect(url).await;
    let board = next(&mut socket).await.expect("the board");
    assert!(board.to_text().is_ok_and(|text| text.contains("\"board\"")));
    soon(socket.send(Message::text("nonsense")))
        .await
        .expect("sent");
    loop {
        // Somebody else may have come or gone.
        match next(&mut socket).await {
            Some(Message::Text(_)) => {}
            Some(Message::Close(Some(frame))) => {
                assert_eq!(u16::from(frame.code), 1008, "{frame}");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(next(&mut socket).await, None);
}

/// Whether there is something on the board.
const INK: &str = "const board = document.getElementById('board'); \
    return board.getContext('2d').getImageData(0, 0, board.width, board.height).data.some((value, at) => at % 4 === 3 && value > 0)";

/// WebDriver's key codes.
const RIGHT: char = '\u{e014}';
const DOWN: char = '\u{e015}';

/// The whiteboard in two browsers: what is drawn in one, by mouse and by keyboard, is seen in the other. Screenshots go to
/// `target/interop`.
pub async fn whiteboard(url: &str) {
    let (ada, bob) = tokio::join!(Browser::start(), Browser::start());
    for browser in [&ada, &bob] {
        browser.open(url).await;
    }
    for browser in [&ada, &bob] {
        let live = "return document.getElementById('state').textContent === 'live, 2 are here'";
        browser.wait(live).await;
        assert_eq!(browser.run(INK).await, false, "nothing is drawn yet");
    }
    let box_ = "const box = document.getElementById('board').getBoundingClientRect(); return [box.left, box.top, box.width, box.height]";
    let box_ = ada.run(box_).await;
    let [left, top, width, height] = [0, 1, 2, 3].map(|at| box_[at].as_f64().expect("a number"));
    let at = |(x, y): (f64, f64)| ((left + x * width) as i64, (top + y * height) as i64);
    let wave = (0..25).map(|step| {
        let x = f64::from(step) / 24.0;
        at((0.1 + 0.8 * x, 0.4 + 0.2 * (x * 12.0).sin()))
    });
    ada.drag(&wave.collect::<Vec<_>>()).await;
    ada.run("document.querySelector('[name=colour][value=\"1\"]').click(); document.querySelector('[name=width][value=\"24\"]').click()")
        .await;
    ada.drag(&[at((0.2, 0.8)), at((0.5, 0.75)), at((0.8, 0.8))])
        .await;
    bob.wait(INK).await;
    bob.run("document.querySelector('[name=colour][value=\"3\"]').click(); document.getElementById('board').focus()")
        .await;
    let square = [
        " ",
        &RIGHT.to_string().repeat(10),
        &DOWN.to_string().repeat(5),
        " ",
    ];
    bob.press(&square.concat()).await;
    for browser in [&ada, &bob] {
        let green = "return strokes.some(stroke => stroke.colour === 3) && strokes.some(stroke => stroke.colour === 1)";
        browser.wait(green).await;
    }
    let same = "return JSON.stringify(strokes.map(stroke => stroke.points).sort())";
    assert_eq!(ada.run(same).await, bob.run(same).await);
    keep("whiteboard.png", &ada.screenshot().await);
    bob.prefer("prefers-color-scheme", "dark").await;
    keep("whiteboard-dark.png", &bob.screenshot().await);
    // Whoever comes later sees what there is.
    bob.open(url).await;
    bob.wait(INK).await;
    bob.run("setTimeout(() => document.getElementById('clear').click())")
        .await;
    bob.agree().await;
    for browser in [&ada, &bob] {
        browser.wait(&INK.replace("return ", "return !")).await;
        let log = browser.console().await;
        let entries = log.as_array().expect("a list");
        let errors = entries.iter().any(|entry| entry["level"] == "SEVERE");
        assert!(!errors, "{log}");
    }
    drop(bob);
    ada.wait("return document.getElementById('state').textContent === 'live, nobody else is here'")
        .await;
}

fn keep(name: &str, png: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/interop");
    std::fs::create_dir_all(&folder).expect("target/interop");
    std::fs::write(folder.join(name), png).expect(name);
}
