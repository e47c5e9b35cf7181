//! What is secret, what is held, and what is counted.

use super::super::super::stats::Stats;
use super::*;

const MASKING: Keep = Keep {
    all: true,
    secrets: false,
    masks: true,
};

#[test]
fn secrets_are_found_in_all_pieces() {
    let pairs = [
        ("HTTP_COOKIE", "a=secret1"),
        ("QUERY_STRING", "password=secret2&x=1"),
        (
            "CONTENT_TYPE",
            "application/x-www-form-urlencoded; charset=utf-8",
        ),
        ("CONTENT_LENGTH", "15"),
    ];
    let web = [
        begin(1, 1),
        params(1, &pairs),
        record(5, 1, b"a=b&pwd=secret3"),
        record(5, 1, b""),
        // What belongs to nothing may be anything.
        record(5, 9, b"secret4"),
        record(99, 1, b"secret5"),
        record(5, 1, b"secret6"),
    ]
    .concat();
    let app = [
        record(
            6,
            1,
            b"Set-Cookie: secret7\r\nLocation: /?token=secret8\r\n\r\nbody",
        ),
        record(6, 1, b""),
        end(1, 0),
        record(6, 1, b"secret9"),
        b"secret10 and all that follows".to_vec(),
    ]
    .concat();
    for piece in [1, 2, 7, 10_000] {
        let says = [Web(web.clone()), App(app.clone())];
        let heard = hear_with(MASKING, Budget::default(), &says, piece);
        let text = String::from_utf8_lossy(&heard.masks).into_owned();
        assert_eq!(heard.masks.len(), web.len() + app.len());
        assert!(!text.contains("secret"), "{piece}: {text:?}");
        assert!(
            text.contains("a=b&pwd=*******") && text.contains("x=1"),
            "{text:?}"
        );
        let exchange = &heard.ended[0].exchange;
        let all = format!("{:?}{:?}", exchange.told, exchange.head);
        assert!(!all.contains("secret"), "{all}");
        let cookie = (b"HTTP_COOKIE".to_vec(), b"*********".to_vec());
        assert!(exchange.told.all.contains(&cookie));
    }
}

/// As many requests as there are ids, none of which ends, and what they may hold.
#[test]
fn all_ids_at_once() {
    let mut web = Vec::new();
    for id in 1..=u16::MAX {
        web.extend(request(id));
    }
    let heard = hear(&[Web(web)], 65_536);
    assert_eq!((heard.faults.len(), heard.blind), (0, 0));
    assert_eq!(heard.tracker.active(), 65_535);
    let size = size_of::<Exchange>();
    assert!(size <= 1024, "a request takes {size} bytes");
}

/// Above the bound the connection is not looked at any more, and others are, once there is room again.
#[test]
fn requests_and_text_are_bounded() {
    let heard = hear_with(
        Keep::default(),
        Budget::new(2, 1000),
        &[
            Web(request(1)),
            Web(request(2)),
            Web(request(3)),
            Web(request(4)),
        ],
        100,
    );
    assert_eq!(
        (heard.blind, heard.ended.len(), heard.tracker.active()),
        (1, 2, 0)
    );
    // Text that there is no room for is left out, and that is told.
    let long = "x".repeat(3000);
    let pairs = [("SCRIPT_FILENAME", long.as_str()), ("REQUEST_URI", "/a")];
    let web = [begin(1, 1), params(1, &pairs), record(5, 1, b"")].concat();
    let says = [Web(web), App(record(7, 1, &[b'e'; 9000])), App(answer(1))];
    let heard = hear_with(Keep::default(), Budget::new(2, 1000), &says, 100);
    let exchange = &heard.ended[0].exchange;
    assert!(exchange.cut && exchange.told.script.is_empty());
    assert!(exchange.said.len() <= 1000, "{}", exchange.said.len());
    assert_eq!(exchange.stderr.bytes, 9000);
    // With room, by what one request may hold.
    let heard = hear(&says, 100);
    let exchange = &heard.ended[0].exchange;
    assert_eq!(
        (exchange.said.len(), exchange.told.script.len()),
        (4096, 2048)
    );
    // A head without end, and lengths that are lies.
    let head = [record(6, 1, &[b'x'; 60_000]), record(6, 1, &[b'x'; 60_000])].concat();
    let heard = hear(&[Web(request(1)), App(head)], 1000);
    assert!(matches!(heard.faults[0].0, Fault::Head(_)));
    let lie = [
        begin(1, 1),
        record(4, 1, b"\xff\xff\xff\xff\xff\xff\xff\xff"),
    ]
    .concat();
    let heard = hear(&[Web(lie)], 1000);
    assert_eq!(heard.faults.len(), 1);
}

#[test]
fn the_summary_counts() {
    let says = [
        Web(request(1)),
        App(answer(1)),
        App(end(1, 0)),
        App(end(1, 0)),
    ];
    let heard = hear(&says, 100);
    let mut stats = Stats::default();
    for ended in &heard.ended {
        stats.ended(ended);
    }
    for (fault, side, _) in &heard.faults {
        stats.fault(fault, *side);
    }
    let text = stats.as_text();
    assert!(text.contains("status 200: 1\n"), "{text}");
    assert!(
        text.contains("R-52 by app: 2 times, END_REQUEST came twice"),
        "{text}"
    );
    assert_eq!(stats.violations(), 2);
    assert_eq!(stats.as_json()["violations"][0]["count"], 2);
}
