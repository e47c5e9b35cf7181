//! `afcgi check --web-server`: a web server by hand, right unless it is told a fault, and for each case a fault that it finds.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use afcgi_cli::check::web::{Place, SECTIONS, run};
use afcgi_cli::check::{Failure, Selection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use crate::wire::{
    ABORT, BEGIN, END, GET_VALUES_RESULT, PARAMS, STDERR, STDIN, STDOUT, pair, record,
};
use crate::{Came, LIMIT, PATIENCE, local, selection};

macro_rules! faults {
    ($($name:ident = $case:literal $(also [$($also:literal)*])?;)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum Fault { $($name),* }

        /// Each fault, the case that finds it, and those that may as well.
        const FAULTS: &[(Fault, &str, &[&str])] = &[$((Fault::$name, $case, &[$($($also),*)?])),*];
    };
}

faults! {
    SendsAnAnswer = "web/1";
    FillsReservedBytes = "web/2";
    AbortsAnother = "web/3";
    SetsFlags = "web/4";
    CutsAPair = "web/5";
    SaysHostTwice = "web/6";
    EndsParamsTwice = "web/7";
    SaysGet = "web/8";
    DecodesTheQuery = "web/9";
    SaysHttp10 = "web/10";
    LosesAField = "web/11";
    Loses128 = "web/12";
    CutsLongFields = "web/13";
    PassesProxy = "web/14";
    InventsALength = "web/15";
    LosesTheType = "web/16";
    CutsLongBodies = "web/17";
    PassesChunks = "web/18";
    // A plain response is in these, too.
    AddsALine = "web/21" also ["web/28" "web/34" "web/35" "web/36" "web/38"];
    LosesManyRecords = "web/22";
    ReadsPadding = "web/23";
    CutsLongResponses = "web/24";
    LosesTheLongestRecord = "web/25";
    PassesStatus = "web/26";
    WantsCrLf = "web/27";
    MixesStderr = "web/28";
    WantsAnEmptyRecord = "web/29";
    PassesHalf = "web/30";
    PassesNothing = "web/31";
    PassesARefusal = "web/32";
    PassesGarbage = "web/33";
    MixesIds = "web/34";
    // The connection is open there as well, until the response is here.
    WaitsForTheClose = "web/35" also ["web/36"];
    GoesToAClosedOne = "web/36";
    ForgetsTheClient = "web/37";
    Multiplexes = "web/38";
}

struct Web {
    app: String,
    fault: Option<Fault>,
    /// The next request goes to a connection that is closed.
    stale: Cell<bool>,
    /// The connection of a request that is active.
    active: RefCell<Option<mpsc::UnboundedSender<Vec<u8>>>>,
}

struct Asked {
    method: String,
    query: String,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Web {
    fn is(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    async fn serve(self: Rc<Self>, mut client: TcpStream) {
        let Some(asked) = read(&mut client, self.is(Fault::PassesChunks)).await else {
            return;
        };
        if self.is(Fault::GoesToAClosedOne) && self.stale.take() {
            return fail(&mut client).await;
        }
        let request = self.request(&asked);
        let other = self.active.borrow().clone();
        if let (true, Some(other)) = (self.is(Fault::Multiplexes), other) {
            _ = other.send(request);
            return std::future::pending().await;
        }
        let app = TcpStream::connect(&self.app)
            .await
            .expect("the application");
        let (mut from, mut to) = app.into_split();
        let (sender, mut queue) = mpsc::unbounded_channel::<Vec<u8>>();
        _ = sender.send(request);
        *self.active.borrow_mut() = Some(sender);
        let writing = spawn_local(async move {
            while let Some(bytes) = queue.recv().await {
                if to.write_all(&bytes).await.is_err() {
                    break;
                }
            }
            // Its half is closed with the other.
            to.forget();
        });
        let mut came = Vec::new();
        let mut piece = vec![0; 64 * 1024];
        let mut left = [0; 1];
        loop {
            tokio::select! {
                read = from.read(&mut piece) => match read {
                    Ok(0) | Err(_) => break,
                    Ok(count) => came.extend_from_slice(&piece[..count]),
                },
                read = client.read(&mut left) => {
                    if matches!(read, Ok(0) | Err(_)) && !self.is(Fault::ForgetsTheClient) {
                        writing.abort();
                        *self.active.borrow_mut() = None;
                        return;
                    }
                    if self.is(Fault::ForgetsTheClient) {
                        return std::future::pending().await;
                    }
                }
            }
            if !self.is(Fault::WaitsForTheClose) && Answer::new(&came, self.fault).ended {
                break;
            }
        }
        *self.active.borrow_mut() = None;
        if self.is(Fault::GoesToAClosedOne) {
            let open = timeout(Duration::from_millis(20), from.read(&mut piece))
                .await
                .is_err();
            self.stale.set(open);
        }
        writing.abort();
        drop(from);
        self.respond(&mut client, Answer::new(&came, self.fault))
            .await;
    }

    fn request(&self, asked: &Asked) -> Vec<u8> {
        let mut pairs = self.pairs(asked);
        if self.is(Fault::CutsAPair) {
            pairs.push(9);
        }
        let flags = if self.is(Fault::SetsFlags) { 0x80 } else { 0 };
        let reserved = u8::from(self.is(Fault::FillsReservedBytes));
        let mut out = record(BEGIN, 1, &[0, 1, flags, 0, 0, 0, 0, reserved]);
        if self.is(Fault::SendsAnAnswer) {
            out.extend(record(GET_VALUES_RESULT, 0, &[]));
            // It comes first, so that the order is another case's.
            out.rotate_right(8);
        }
        if self.is(Fault::AbortsAnother) {
            out.extend(record(ABORT, 9, &[]));
        }
        out.extend(record(PARAMS, 1, &pairs));
        out.extend(record(PARAMS, 1, &[]));
        if self.is(Fault::EndsParamsTwice) {
            out.extend(record(PARAMS, 1, &[]));
        }
        let mut body = &asked.body[..];
        if self.is(Fault::CutsLongBodies) {
            body = &body[..body.len().min(100_000)];
        }
        for part in body.chunks(50_000) {
            out.extend(record(STDIN, 1, part));
        }
        out.extend(record(STDIN, 1, &[]));
        out
    }

    fn pairs(&self, asked: &Asked) -> Vec<u8> {
        let is = |fault| self.is(fault);
        let method = if is(Fault::SaysGet) {
            "GET"
        } else {
            &asked.method
        };
        let query = match is(Fault::DecodesTheQuery) {
            true => asked.query.replace("%20", " "),
            false => asked.query.clone(),
        };
        let protocol = if is(Fault::SaysHttp10) {
            "HTTP/1.0"
        } else {
            "HTTP/1.1"
        };
        let mut all = vec![
            (String::from("REQUEST_METHOD"), method.to_owned()),
            (String::from("QUERY_STRING"), query),
            (String::from("SERVER_PROTOCOL"), protocol.to_owned()),
        ];
        if !asked.body.is_empty() {
            all.push((String::from("CONTENT_LENGTH"), asked.body.len().to_string()));
        } else if is(Fault::InventsALength) {
            all.push((String::from("CONTENT_LENGTH"), String::from("5")));
        }
        for (name, value) in &asked.fields {
            let mut value = value.clone();
            let name = name.to_uppercase().replace('-', "_");
            if is(Fault::CutsLongFields) {
                value.truncate(1000);
            }
            let lost = name == "PROXY" && !is(Fault::PassesProxy)
                || name == "CONTENT_LENGTH"
                || name == "CONTENT_TYPE" && is(Fault::LosesTheType)
                || name == "X_CHECK" && is(Fault::LosesAField)
                || value.len() == 128 && is(Fault::Loses128);
            if lost {
                continue;
            }
            let twice = name == "HOST" && is(Fault::SaysHostTwice);
            let name = if name == "CONTENT_TYPE" {
                name
            } else {
                format!("HTTP_{name}")
            };
            all.extend(std::iter::repeat_n((name, value), 1 + usize::from(twice)));
        }
        all.iter()
            .flat_map(|(name, value)| pair(name.as_bytes(), value.as_bytes()))
            .collect()
    }

    async fn respond(&self, client: &mut TcpStream, answer: Answer) {
        let is = |fault| self.is(fault);
        let Answer {
            mut stdout,
            ended,
            refused,
            garbage,
            closed,
            records,
        } = answer;
        let half = !ended && !stdout.is_empty() && is(Fault::PassesHalf)
            || !ended && stdout.is_empty() && !garbage && is(Fault::PassesNothing)
            || refused && is(Fault::PassesARefusal)
            || garbage && is(Fault::PassesGarbage);
        let good = ended && !refused && !garbage && (closed || !is(Fault::WantsAnEmptyRecord));
        if !good && !half {
            return fail(client).await;
        }
        if is(Fault::CutsLongResponses) && stdout.len() > 250_000 {
            stdout.truncate(250_000);
        }
        if is(Fault::LosesManyRecords) && records > 20 {
            stdout.truncate(stdout.len() - 1);
        }
        let text = String::from_utf8_lossy(&stdout).into_owned();
        let crlf = stdout
            .windows(4)
            .position(|part| part == b"\r\n\r\n")
            .map(|at| (at, at + 4));
        let lf = text
            .find("\n\n")
            .map(|at| (at, at + 2))
            .filter(|_| !is(Fault::WantsCrLf));
        let (head, body) = match crlf.or(lf) {
            Some((end, begin)) => (
                String::from_utf8_lossy(&stdout[..end]).into_owned(),
                stdout[begin..].to_vec(),
            ),
            None if half => (String::new(), Vec::new()),
            None => return fail(client).await,
        };
        let mut body = body;
        if is(Fault::AddsALine) && body == b"hello\n" && records == 2 && head.lines().count() == 1 {
            body.push(b'\n');
        }
        let status = head
            .lines()
            .find_map(|line| line.strip_prefix("Status: "))
            .unwrap_or("200 OK")
            .to_owned();
        let mut out = format!(
            "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n",
            body.len()
        );
        for line in head.lines() {
            let own = line.starts_with("Content-Length")
                || line.starts_with("Status") && !is(Fault::PassesStatus);
            if !own {
                out += &format!("{line}\r\n");
            }
        }
        _ = client
            .write_all(&[out.as_bytes(), b"\r\n", &body].concat())
            .await;
    }
}

/// What an application sent, as far as it came.
#[derive(Default)]
struct Answer {
    stdout: Vec<u8>,
    ended: bool,
    refused: bool,
    garbage: bool,
    closed: bool,
    records: usize,
}

impl Answer {
    fn new(mut bytes: &[u8], fault: Option<Fault>) -> Self {
        let is = |other| fault == Some(other);
        let mut answer = Self::default();
        while let Some((header, rest)) = bytes.split_first_chunk::<8>() {
            if header[0] != 1 {
                answer.garbage = true;
                break;
            }
            let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
            let whole = length + usize::from(header[6]);
            let Some(content) = rest.get(..whole) else {
                break;
            };
            bytes = &rest[whole..];
            let own = u16::from_be_bytes([header[2], header[3]]) == 1 || is(Fault::MixesIds);
            let content = if is(Fault::ReadsPadding) {
                content
            } else {
                &content[..length]
            };
            match header[1] {
                STDOUT if own => {
                    answer.records += 1;
                    answer.closed = length == 0;
                    if !(is(Fault::LosesTheLongestRecord) && length == 65_535) {
                        answer.stdout.extend_from_slice(content);
                    }
                }
                STDERR if is(Fault::MixesStderr) => answer.stdout.extend_from_slice(content),
                END => {
                    answer.ended = true;
                    answer.refused = content[4] != 0;
                }
                _ => {}
            }
        }
        answer
    }
}

async fn fail(client: &mut TcpStream) {
    let text = b"HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    _ = client.write_all(text).await;
}

/// An HTTP request.
async fn read(client: &mut TcpStream, chunks: bool) -> Option<Asked> {
    let (mut all, mut piece) = (Vec::new(), vec![0; 64 * 1024]);
    let (mut head, mut body) = (String::new(), 0);
    loop {
        if body == 0
            && let Some(at) = all.windows(4).position(|part| part == b"\r\n\r\n")
        {
            head = String::from_utf8_lossy(&all[..at]).into_owned();
            body = at + 4;
        }
        if body > 0 {
            let field = |name: &str| {
                head.lines()
                    .find_map(|line| line.strip_prefix(name))
                    .map(str::trim)
            };
            let length = field("Content-Length:")
                .and_then(|value| value.parse().ok())
                .unwrap_or(0);
            let chunked = field("Transfer-Encoding:").is_some();
            if if chunked {
                all.ends_with(b"0\r\n\r\n")
            } else {
                all.len() >= body + length
            } {
                break;
            }
        }
        match client.read(&mut piece).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => all.extend_from_slice(&piece[..count]),
        }
    }
    let mut content = all[body..].to_vec();
    if head.contains("Transfer-Encoding:") && !chunks {
        // There is one way in which the tool sends them.
        content = b"hello chunks".to_vec();
    }
    let mut lines = head.lines();
    let mut words = lines.next()?.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?);
    let query = target
        .split_once('?')
        .map_or("", |(_, query)| query)
        .to_owned();
    let fields = lines.filter_map(|line| line.split_once(": "));
    let fields = fields
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    Some(Asked {
        method,
        query,
        fields,
        body: content,
    })
}

/// Runs cases against a web server with a fault, or without any.
fn check(fault: Option<Fault>, limit: Duration, selection: &Selection) -> Came {
    local(async {
        let (application, web) = (
            TcpListener::bind("127.0.0.1:0").await,
            TcpListener::bind("127.0.0.1:0").await,
        );
        let (application, web) = (application.expect("a port"), web.expect("a port"));
        let server = Rc::new(Web {
            app: application.local_addr().expect("its address").to_string(),
            fault,
            stale: Cell::new(false),
            active: RefCell::new(None),
        });
        let place = Arc::new(Place {
            listener: application,
            host: web.local_addr().expect("its address").to_string(),
            path: String::from("/check"),
            limit,
        });
        spawn_local(async move {
            while let Ok((client, _)) = web.accept().await {
                spawn_local(server.clone().serve(client));
            }
        });
        let mut came = Came::default();
        run(&place, selection, |done| match done.outcome {
            Ok(()) => came.passed += 1,
            Err(Failure::Skip(reason)) => came.skipped.push((done.case.id, reason)),
            Err(Failure::Deviation {
                expected,
                came: what,
            }) => {
                came.failed
                    .push((done.case.id, format!("expected {expected}; came {what}")));
            }
        })
        .await;
        sleep(Duration::ZERO).await;
        came
    })
}

#[test]
fn a_web_server_without_a_fault_passes_every_case() {
    let came = check(None, PATIENCE, &selection(&[], &[]));
    assert!(
        came.failed.is_empty() && came.skipped.is_empty(),
        "{came:#?}"
    );
    assert_eq!(came.passed, FAULTS.len());
}

#[test]
fn each_fault_of_a_web_server_is_found_by_its_case_alone() {
    let cases = SECTIONS
        .iter()
        .flat_map(|section| section.cases)
        .map(|case| case.id);
    assert!(
        cases.eq(FAULTS.iter().map(|fault| fault.1)),
        "a fault for each case"
    );
    let next = AtomicUsize::new(0);
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let work = || {
            let mut wrong = Vec::new();
            while let Some(fault) = FAULTS.get(next.fetch_add(1, Ordering::Relaxed)) {
                wrong.extend(judge(fault).err());
            }
            wrong
        };
        let threads: Vec<_> = (0..6).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("no panic"))
            .collect()
    });
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

fn judge(&(fault, case, also): &(Fault, &str, &[&str])) -> Result<(), String> {
    let came = check(Some(fault), LIMIT, &selection(&[], &[]));
    let failed: BTreeSet<&str> = came.failed.iter().map(|failed| failed.0).collect();
    if !failed.contains(case) {
        return Err(format!("{fault:?} is not found: {came:#?}"));
    }
    let others: Vec<&str> = failed
        .into_iter()
        .filter(|&other| other != case && !also.contains(&other))
        .collect();
    if others.is_empty() {
        return Ok(());
    }
    // Perhaps this machine was busy.
    let came = check(Some(fault), PATIENCE, &selection(&others, &[]));
    match came.failed.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "{fault:?} is found by others as well: {:#?}",
            came.failed
        )),
    }
}
