//! On a terminal: what it shows, what keys do, and that the terminal is left as it was.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};

use afcgi_interop::wait::{SOON, eventually, free_port};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::web::{MODULE, Web};

/// What a terminal of 80 columns shows of what was written to it, as far as the program writes it.
#[derive(Default)]
struct Picture {
    all: Vec<u8>,
    cells: std::collections::BTreeMap<(usize, usize), char>,
    at: (usize, usize),
    rest: Vec<u8>,
}

impl Picture {
    fn feed(&mut self, bytes: &[u8]) {
        self.all.extend(bytes);
        self.rest.extend(bytes);
        let rest = std::mem::take(&mut self.rest);
        let mut left = rest.as_slice();
        while let Some(&first) = left.first() {
            if first == 0x1b {
                let Some(end) = left[1..]
                    .iter()
                    .skip(1)
                    .position(|b| b.is_ascii_alphabetic())
                else {
                    break;
                };
                let (code, last) = (&left[2..end + 2], left[end + 2]);
                let code = String::from_utf8_lossy(code).into_owned();
                match last {
                    b'H' => {
                        let mut numbers = code.split(';').map(|n| n.parse().unwrap_or(1));
                        let (row, column) = (numbers.next(), numbers.next());
                        self.at = (row.unwrap_or(1), column.unwrap_or(1));
                    }
                    b'J' => self.cells.clear(),
                    b'h' | b'l' if code == "?1049" => self.cells.clear(),
                    _ => {}
                }
                left = &left[end + 3..];
                continue;
            }
            let length = match first {
                0..0x80 => 1,
                0x80..0xe0 => 2,
                0xe0..0xf0 => 3,
                _ => 4,
            };
            let Some(bytes) = left.get(..length) else {
                break;
            };
            if let Some(c) = String::from_utf8_lossy(bytes).chars().next() {
                self.cells.insert(self.at, c);
                self.at.1 += 1;
            }
            left = &left[length..];
        }
        self.rest = left.to_vec();
    }

    fn line(&self, row: usize) -> String {
        let cell = |column| self.cells.get(&(row, column)).copied().unwrap_or(' ');
        let line: String = (1..=200).map(cell).collect();
        line.trim_end().to_owned()
    }

    fn text(&self) -> String {
        let lines = (1..=60).map(|row| self.line(row));
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// A terminal, and the program in it.
struct Session {
    terminal: Arc<OwnedFd>,
    child: Child,
    picture: Arc<Mutex<Picture>>,
    before: LocalModes,
}

impl Session {
    fn start(arguments: &[&str]) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let terminal = openpt(flags).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let name = ptsname(&terminal, Vec::new()).unwrap();
        let tty = OpenOptions::new()
            .read(true)
            .write(true)
            .open(name.to_str().unwrap())
            .unwrap();
        size(&terminal, 80, 24);
        let before = tcgetattr(&tty).unwrap().local_modes;
        let child = Command::new("setsid")
            .args(["--ctty", env!("CARGO_BIN_EXE_afcgi"), "top"])
            .args(arguments)
            .env("TERM", "xterm")
            .env_remove("NO_COLOR")
            .stdin(tty.try_clone().unwrap())
            .stdout(tty.try_clone().unwrap())
            .stderr(tty)
            .spawn()
            .unwrap();
        let terminal = Arc::new(terminal);
        let picture = Arc::new(Mutex::new(Picture::default()));
        let (from, to) = (
            std::fs::File::from(terminal.try_clone().unwrap()),
            picture.clone(),
        );
        std::thread::spawn(move || read_all(from, &to));
        Self {
            terminal,
            child,
            picture,
            before,
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn press(&self, keys: &str) {
        let mut terminal = std::fs::File::from(self.terminal.try_clone().unwrap());
        terminal.write_all(keys.as_bytes()).unwrap();
    }

    async fn shows(&self, words: &str) {
        self.shows_at(words, None).await;
    }

    /// Waits until it shows words, in a row or anywhere.
    async fn shows_at(&self, words: &str, row: Option<usize>) {
        eventually(&format!("it shows {words:?}"), SOON, || async {
            let picture = self.picture.lock().unwrap();
            let text = match row {
                Some(row) => picture.line(row),
                None => picture.text(),
            };
            match text.contains(words) {
                true => Ok(()),
                false => Err(picture.text()),
            }
        })
        .await;
    }

    /// Whether the terminal is as it was: lines, echo, the first screen, a cursor.
    async fn is_restored(&self) {
        eventually("the terminal is restored", SOON, || async {
            let modes = tcgetattr(&*self.terminal).unwrap().local_modes;
            if modes != self.before {
                return Err(format!("{modes:?} and not {:?}", self.before));
            }
            let picture = self.picture.lock().unwrap();
            let last = |bytes: &[u8]| {
                let mut parts = picture.all.windows(bytes.len());
                parts.rposition(|part| part == bytes)
            };
            match (
                last(b"\x1b[?1049l"),
                last(b"\x1b[?1049h"),
                last(b"\x1b[?25h"),
                last(b"\x1b[?25l"),
            ) {
                (Some(left), Some(entered), Some(shown), Some(hidden))
                    if left > entered && shown > hidden =>
                {
                    Ok(())
                }
                found => Err(format!("{found:?}")),
            }
        })
        .await;
    }

    async fn ends(&mut self) {
        let child = std::cell::RefCell::new(&mut self.child);
        let status = eventually("it ends", SOON, || {
            let status = child.borrow_mut().try_wait().unwrap();
            std::future::ready(status.ok_or_else(|| "it runs".to_owned()))
        })
        .await;
        assert!(status.success(), "{status}");
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        _ = kill_process_group(self.pid(), Signal::KILL);
        _ = self.child.wait();
    }
}

fn read_all(mut from: std::fs::File, to: &Mutex<Picture>) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        to.lock().unwrap().feed(&buffer[..count]);
    }
}

fn size(terminal: &OwnedFd, columns: u16, rows: u16) {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size).unwrap();
}

#[tokio::test]
async fn the_keyboard() {
    let web = Web::with(MODULE).await;
    let silent = Web::raw(Vec::new(), 0).await;
    let nobody = format!("127.0.0.1:{}", free_port());
    let mut session = Session::start(&[&web.url(), &silent.url(), &nobody]);
    session.shows("nginx module").await;
    session.shows("Nobody listens there").await;
    session.shows_at("127.0.0.1:5000", None).await;
    // One that never answers holds up no key.
    session.press("s");
    session.shows_at("sort: IN/S", Some(24)).await;
    session.press("r");
    session.shows_at("sort: IN/S↑", Some(24)).await;
    session.press("+");
    session.shows_at("every 5s", Some(1)).await;
    session.press("p");
    session.shows_at("paused", Some(1)).await;
    session.press("?");
    session.shows("next table").await;
    session.press("?");
    session.shows("ACTIVE").await;
    size(&session.terminal, 100, 30);
    session.shows_at("q quit", Some(30)).await;
    session.press("q");
    session.ends().await;
    session.is_restored().await;
}

#[tokio::test]
async fn signals_leave_the_terminal_as_it_was() {
    let web = Web::with(MODULE).await;
    let mut session = Session::start(&["--interval", "100ms", &web.url()]);
    session.shows("nginx module").await;
    for _ in 0..2 {
        kill_process(session.pid(), Signal::TSTP).unwrap();
        session.is_restored().await;
        eventually("it stands", SOON, || async {
            let file = format!("/proc/{}/stat", session.pid());
            let stat = std::fs::read_to_string(file).unwrap();
            match stat.contains(") T ") {
                true => Ok(()),
                false => Err(stat),
            }
        })
        .await;
        kill_process(session.pid(), Signal::CONT).unwrap();
        session.shows("nginx module").await;
        session.shows("every 100ms").await;
    }
    session.press("p");
    session.shows_at("paused", Some(1)).await;
    kill_process(session.pid(), Signal::TERM).unwrap();
    session.ends().await;
    session.is_restored().await;
    // Ctrl-C is a key there.
    let mut session = Session::start(&[&web.url()]);
    session.shows("nginx module").await;
    session.press("\u{3}");
    session.ends().await;
    session.is_restored().await;
}
