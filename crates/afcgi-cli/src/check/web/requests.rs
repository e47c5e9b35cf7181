//! What a web server sends: records, ids, parameters as RFC 3875 has them, bodies.

use super::stage::{HELLO, Incoming, Stage};
use crate::check::application::noise;
use crate::check::case::{Failure, Outcome, cases, deviation, ensure};
use crate::check::raw::{Record, hex, kind, pairs};

cases! { Stage:
    "web/1" Must [1 7] "it sends whole records, of types that are a web server's" records;
    "web/2" Should [1 50] "reserved bytes of headers and of BEGIN_REQUEST are 0" reserved;
    "web/3" Must [10] "all records of a request have its id, which is not 0" ids;
    "web/4" Must [50] "BEGIN_REQUEST has 8 bytes, the role of a responder, and no flags but FCGI_KEEP_CONN" begin;
    "web/5" Must [20] "PARAMS are whole pairs" whole_pairs;
    "web/6" Should [20] "no parameter comes twice" no_doubles;
    "web/7" Should [53] "BEGIN_REQUEST, PARAMS and STDIN come in this order, and PARAMS are ended once" order;
    "web/8" Must [53] "REQUEST_METHOD is the client's method" method;
    "web/9" Must [53] "QUERY_STRING is the client's, not decoded" query;
    "web/10" Should [53] "SERVER_PROTOCOL is the client's" protocol;
    "web/11" Must [53] "a header field comes as HTTP_NAME" field;
    "web/12" Must [20] "a field of 127 bytes, and one of 128" lengths;
    "web/13" Must [20] "a field of 3,000 bytes" long_field;
    "web/14" Robust [53] "Proxy does not become HTTP_PROXY" httpoxy;
    "web/15" Must [53] "a request without a body has an empty STDIN" no_body;
    "web/16" Must [53] "a body comes as STDIN, with CONTENT_LENGTH and CONTENT_TYPE" body;
    "web/17" Must [6] "a body of 200,000 bytes" long_body;
    "web/18" Must [53] "a chunked body comes without its chunks, and CONTENT_LENGTH is right or absent" chunked;
}

async fn plain(p: &Stage) -> Result<Incoming, Failure> {
    p.comes_of("GET", "", "", b"").await
}

async fn records(p: &Stage) -> Outcome {
    let request = plain(p).await?;
    let known = [
        kind::BEGIN_REQUEST,
        kind::ABORT_REQUEST,
        kind::PARAMS,
        kind::STDIN,
        kind::DATA,
        kind::GET_VALUES,
    ];
    let odd = request
        .records
        .iter()
        .find(|record| !known.contains(&record.kind()));
    ensure(
        odd.is_none(),
        "records of a web server",
        odd.map_or_else(String::new, |record| hex(&record.header)),
    )
}

async fn reserved(p: &Stage) -> Outcome {
    let request = plain(p).await?;
    for record in &request.records {
        ensure(
            record.header[7] == 0,
            "0 in the last byte of a header",
            hex(&record.header),
        )?;
    }
    // The first four may be credit (docs/flow-control.md), which was not agreed on here.
    ensure(
        request.begin.iter().skip(3).all(|&byte| byte == 0),
        "0 in the last five bytes",
        hex(&request.begin),
    )
}

async fn ids(p: &Stage) -> Outcome {
    let request = plain(p).await?;
    ensure(request.id != 0, "an id above 0", "0")?;
    let stray = request
        .records
        .iter()
        .find(|record| record.kind() <= kind::DATA && record.id() != request.id);
    ensure(
        stray.is_none(),
        &format!("the id {}", request.id),
        stray.map_or_else(String::new, |record| hex(&record.header)),
    )
}

async fn begin(p: &Stage) -> Outcome {
    let begin = plain(p).await?.begin;
    let right = begin.len() == 8 && begin[..2] == [0, 1] && begin[2] < 2;
    ensure(right, "role 1, and flags 0 or 1", hex(&begin))
}

async fn whole_pairs(p: &Stage) -> Outcome {
    let request = plain(p).await?;
    let found = pairs(&request.params);
    ensure(
        found.is_some_and(|pairs| !pairs.is_empty()),
        "whole pairs",
        hex(&request.params),
    )
}

async fn no_doubles(p: &Stage) -> Outcome {
    let request = plain(p).await?;
    let mut names: Vec<Vec<u8>> = pairs(&request.params)
        .unwrap_or_default()
        .into_iter()
        .map(|pair| pair.0)
        .collect();
    names.sort();
    let double = names.windows(2).find(|two| two[0] == two[1]);
    ensure(
        double.is_none(),
        "each name once",
        double.map_or_else(String::new, |two| crate::wire::escaped(&two[0])),
    )
}

async fn order(p: &Stage) -> Outcome {
    let request = plain(p).await?;
    let kinds: Vec<u8> = request
        .records
        .iter()
        .map(Record::kind)
        .filter(|&code| code <= kind::DATA)
        .collect();
    let sorted = kinds.is_sorted();
    let ends = request
        .records
        .iter()
        .filter(|record| record.kind() == kind::PARAMS && record.content.is_empty())
        .count();
    ensure(
        sorted && ends == 1,
        "BEGIN_REQUEST, PARAMS, their end, STDIN",
        format!("types {kinds:?}, {ends} ends of PARAMS"),
    )
}

async fn method(p: &Stage) -> Outcome {
    p.comes_of("OPTIONS", "", "", b"")
        .await?
        .has("REQUEST_METHOD", b"OPTIONS")
}

async fn query(p: &Stage) -> Outcome {
    p.comes_of("GET", "?a=1&b=%20c+d", "", b"")
        .await?
        .has("QUERY_STRING", b"a=1&b=%20c+d")
}

async fn protocol(p: &Stage) -> Outcome {
    plain(p).await?.has("SERVER_PROTOCOL", b"HTTP/1.1")
}

async fn field(p: &Stage) -> Outcome {
    p.comes_of("GET", "", "X-Check: one, two\r\n", b"")
        .await?
        .has("HTTP_X_CHECK", b"one, two")
}

async fn lengths(p: &Stage) -> Outcome {
    let (short, long) = ("s".repeat(127), "l".repeat(128));
    let request = p
        .comes_of(
            "GET",
            "",
            &format!("X-Short: {short}\r\nX-Long: {long}\r\n"),
            b"",
        )
        .await?;
    request.has("HTTP_X_SHORT", short.as_bytes())?;
    request.has("HTTP_X_LONG", long.as_bytes())
}

async fn long_field(p: &Stage) -> Outcome {
    let value = "v".repeat(3000);
    let request = p
        .comes_of("GET", "", &format!("X-Longer: {value}\r\n"), b"")
        .await?;
    request.has("HTTP_X_LONGER", value.as_bytes())
}

async fn httpoxy(p: &Stage) -> Outcome {
    let request = p
        .comes_of("GET", "", "Proxy: http://evil.example/\r\n", b"")
        .await?;
    let value = request.value("HTTP_PROXY").unwrap_or_default();
    ensure(
        value.is_empty(),
        "no HTTP_PROXY, which programs take for a proxy to use",
        crate::wire::escaped(&value),
    )
}

async fn no_body(p: &Stage) -> Outcome {
    let request = plain(p).await?;
    let length = request.value("CONTENT_LENGTH").unwrap_or_default();
    let right = request.stdin.is_empty() && (length.is_empty() || length == b"0");
    ensure(
        right,
        "an empty STDIN, and no CONTENT_LENGTH but 0",
        format!(
            "{} bytes, CONTENT_LENGTH `{}`",
            request.stdin.len(),
            crate::wire::escaped(&length)
        ),
    )
}

async fn body(p: &Stage) -> Outcome {
    let fields = "Content-Type: text/x-check\r\nContent-Length: 9\r\n";
    let request = p.comes_of("POST", "", fields, b"some body").await?;
    request.has("CONTENT_LENGTH", b"9")?;
    request.has("CONTENT_TYPE", b"text/x-check")?;
    ensure(
        request.stdin == b"some body",
        "`some body`",
        crate::wire::escaped(&request.stdin[..request.stdin.len().min(50)]),
    )
}

async fn long_body(p: &Stage) -> Outcome {
    let body = noise(200_000);
    let request = p
        .comes_of("POST", "", "Content-Length: 200000\r\n", &body)
        .await?;
    ensure(
        request.stdin == body,
        "200,000 bytes as they were sent",
        format!("{} bytes", request.stdin.len()),
    )
}

async fn chunked(p: &Stage) -> Outcome {
    let body = b"5\r\nhello\r\n7\r\n chunks\r\n0\r\n\r\n";
    let client = p
        .ask("POST", "", "Transfer-Encoding: chunked\r\n", body)
        .await?;
    let Ok((mut peer, request)) = p.request().await else {
        // It may refuse what it cannot know the length of.
        let status = client.response().await?.status;
        super::stage::unless(status == 411, "the web server takes no chunked body (411)")?;
        return Err(deviation(
            "a request, or status 411",
            format!("status {status}"),
        ));
    };
    peer.answer(&request, HELLO).await?;
    let length = request.value("CONTENT_LENGTH").unwrap_or_default();
    let right = request.stdin == b"hello chunks" && (length.is_empty() || length == b"12");
    ensure(
        right,
        "`hello chunks`",
        format!(
            "`{}`, CONTENT_LENGTH `{}`",
            crate::wire::escaped(&request.stdin),
            crate::wire::escaped(&length)
        ),
    )
}
