//! BEGIN_REQUEST [5.1]: roles, flags, reserved bytes.

use crate::check::case::{Outcome, cases, deviation, ensure};
use crate::check::probe::Probe;
use crate::check::raw::{KEEP, kind, record};

cases! { Probe:
    "5.1/1" Must [56 51] "an unknown role is refused with UNKNOWN_ROLE" unknown_role;
    "5.1/2" Must [50 56] "a role is a number of two bytes: 257 is not 1" second_byte;
    "5.1/3" Must [56] "role 0 is refused with UNKNOWN_ROLE" role_0;
    "5.1/4" Must [56 30] "the connection goes on after a refusal" goes_on;
    "5.1/5" Must [56 11] "PARAMS and STDIN of a refused request are ignored" rest_ignored;
    "5.1/6" Should [50] "flags without a meaning are ignored" other_flags;
    "5.1/7" Should [50] "reserved bytes of the body are ignored" reserved;
    "5.1/8" Robust [50] "a body of 7 bytes is not served" too_short;
    "5.1/9" Robust [50] "a body of 9 bytes is not served" too_long;
    "5.1/10" Robust [50] "an empty body is not served" empty;
}

async fn is_refused(p: &Probe, role: u16) -> Outcome {
    let mut talk = p.connect().await?;
    talk.send(&p.ask(1).role(role).bytes()).await?;
    let response = talk.response(1).await?;
    let status = response.protocol_status();
    ensure(
        status == Some(3),
        "END_REQUEST with UNKNOWN_ROLE (3)",
        format!("protocolStatus {status:?}"),
    )
}

async fn unknown_role(p: &Probe) -> Outcome {
    is_refused(p, 9).await
}

async fn second_byte(p: &Probe) -> Outcome {
    is_refused(p, 257).await
}

async fn role_0(p: &Probe) -> Outcome {
    is_refused(p, 0).await
}

async fn goes_on(p: &Probe) -> Outcome {
    let mut talk = p.connect().await?;
    talk.send(&p.ask(1).role(10).begin()).await?;
    talk.response(1).await?;
    talk.goes_on().await
}

async fn rest_ignored(p: &Probe) -> Outcome {
    let ask = p.ask(1).role(11);
    let mut talk = p.connect().await?;
    talk.send(&ask.begin()).await?;
    talk.response(1).await?;
    talk.send(&[ask.params(), ask.stdin()].concat()).await?;
    talk.goes_on().await?;
    talk.nothing_for(1, "nothing for a request that was refused")
}

async fn other_flags(p: &Probe) -> Outcome {
    let mut ask = p.ask(1);
    // The bit of flow control is left out: it means nothing here, and would tell other cases apart.
    ask.flags = 0xfc | KEEP;
    let mut talk = p.connect().await?;
    talk.answers(&ask.bytes(), 1).await
}

async fn reserved(p: &Probe) -> Outcome {
    let ask = p.ask(1);
    let begin = record(kind::BEGIN_REQUEST, 1, &[0, 1, KEEP, 1, 2, 3, 4, 5]);
    let mut talk = p.connect().await?;
    talk.answers(&[begin, ask.params(), ask.stdin()].concat(), 1)
        .await
}

/// Closed, refused or ignored, but no response to what is no request.
async fn is_not_served(p: &Probe, body: &[u8]) -> Outcome {
    let ask = p.ask(1);
    let begin = record(kind::BEGIN_REQUEST, 1, body);
    let mut talk = p.connect().await?;
    talk.send(&[begin, ask.params(), ask.stdin()].concat())
        .await?;
    talk.closes_or_goes_on().await?;
    match talk.open.get(&1) {
        Some(response) if !response.stdout.is_empty() => {
            Err(deviation("no response", "STDOUT came"))
        }
        _ => Ok(()),
    }
}

async fn too_short(p: &Probe) -> Outcome {
    is_not_served(p, &[0, 1, KEEP, 0, 0, 0, 0]).await
}

async fn too_long(p: &Probe) -> Outcome {
    is_not_served(p, &[0, 1, KEEP, 0, 0, 0, 0, 0, 0]).await
}

async fn empty(p: &Probe) -> Outcome {
    is_not_served(p, &[]).await
}
