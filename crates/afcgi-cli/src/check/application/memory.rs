//! Memory: what peers can make an application hold is bounded. For these the tool is told its process (`--pid`).

use std::time::Duration;

use crate::check::case::{Failure, Outcome, cases, deviation, skip};
use crate::check::probe::Probe;
use crate::check::raw::{MOST, begin, get_values, kind, record};
use crate::check::suite::Route;

cases! { Probe:
    "memory/1" Robust [22] "answers to management records that nobody reads" unread_answers;
    "memory/2" Robust [22] "lengths of 2 GiB that are only announced, by 50 requests" announced;
    "memory/3" Robust [22] "64 MB of PARAMS" long_params;
    "memory/4" Robust [53] "64 MB of a body that nobody reads" unread_body;
    "memory/5" Robust [53] "ten long responses that nobody reads" unread_responses;
}

/// How much more an application may hold, in bytes, while 64 MB or more are thrown at it.
const MORE: u64 = 48 << 20;
struct Meter {
    pid: u32,
    before: u64,
    /// How long it is waited until the application reads on, and until it holds what it was sent.
    patience: Duration,
}

impl Meter {
    fn start(p: &Probe) -> Result<Self, Failure> {
        let pid = p
            .suite
            .settings
            .pid
            .ok_or_else(|| skip("--pid is not given"))?;
        let before = resident(pid)?;
        Ok(Self {
            pid,
            before,
            patience: p.suite.settings.limit / 4,
        })
    }

    /// Looks for a while.
    async fn watch(&self) -> Outcome {
        for _ in 0..10 {
            self.check()?;
            tokio::time::sleep(self.patience / 10).await;
        }
        self.check()
    }

    fn check(&self) -> Outcome {
        let more = resident(self.pid)?.saturating_sub(self.before);
        match more > MORE {
            true => Err(deviation(
                format!("at most {} MiB more", MORE >> 20),
                format!("{} MiB more", more >> 20),
            )),
            false => Ok(()),
        }
    }
}

/// Bytes that a process and those that it has started hold, of those that are there.
fn resident(pid: u32) -> Result<u64, Failure> {
    let own = status(pid, "VmRSS:")
        .ok_or_else(|| skip(format!("there is no process {pid} that can be looked at")))?;
    let children =
        std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = children
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok());
    let others: u64 = children.filter_map(|pid| status(pid, "VmRSS:")).sum();
    Ok((own + others) * 1024)
}

fn status(pid: u32, name: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

async fn unread_answers(p: &Probe) -> Outcome {
    let meter = Meter::start(p)?;
    let mut talk = p.connect().await?;
    let questions = [
        get_values(&["FCGI_MAX_CONNS", "FCGI_MPXS_CONNS"]),
        record(199, 0, &[]),
    ]
    .concat()
    .repeat(1000);
    for _ in 0..1400 {
        if talk.link.press(&questions, meter.patience).await < questions.len() {
            break;
        }
        meter.check()?;
    }
    meter.watch().await
}

async fn announced(p: &Probe) -> Outcome {
    let meter = Meter::start(p)?;
    let mut all = Vec::new();
    for _ in 0..50 {
        let mut talk = p.connect().await?;
        let params = record(kind::PARAMS, 1, b"\x04\xff\xff\xff\xffNAMEvalue");
        talk.send(&[begin(1, 1, 1), params].concat()).await?;
        all.push(talk);
    }
    meter.watch().await
}

async fn long_params(p: &Probe) -> Outcome {
    let meter = Meter::start(p)?;
    let mut talk = p.connect().await?;
    let mut part = b"\x04\x84\x00\x00\x00NAME".to_vec();
    talk.send(&begin(1, 1, 1)).await?;
    part.resize(MOST, b'x');
    press(&mut talk, &record(kind::PARAMS, 1, &part), &meter).await
}

async fn unread_body(p: &Probe) -> Outcome {
    let meter = Meter::start(p)?;
    let mut talk = p.connect().await?;
    let ask = p
        .to(Route::Slow, 1)?
        .param(b"REQUEST_METHOD", b"POST")
        .param(b"CONTENT_LENGTH", b"67108864");
    talk.send(&[ask.begin(), ask.params()].concat()).await?;
    press(&mut talk, &record(kind::STDIN, 1, &[b'x'; MOST]), &meter).await
}

async fn press(talk: &mut crate::check::probe::Talk, record: &[u8], meter: &Meter) -> Outcome {
    for number in 0..1024 {
        if talk.link.press(record, meter.patience).await < record.len() {
            break;
        }
        if number % 64 == 0 {
            meter.check()?;
        }
    }
    meter.watch().await
}

async fn unread_responses(p: &Probe) -> Outcome {
    let meter = Meter::start(p)?;
    let mut all = Vec::new();
    for _ in 0..10 {
        let mut talk = p.connect().await?;
        let ask = p.to(Route::Large, 1)?;
        talk.send(&ask.bytes()).await?;
        all.push(talk);
    }
    meter.watch().await
}
