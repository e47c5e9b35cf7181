//! The picture on a terminal of 80 columns and 24 lines, by ratatui's backend for tests.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::super::page::Answer;
use super::super::source::Poll;
use super::super::view::Act;
use super::*;

const FPM: &str = include_str!("../fpm.json");

const MODULE: &str = r#"{"entries":900,"entries_used":2,"addresses":[
{"address":"127.0.0.1:5000","multiplexes":true,"flow_control":true,"upgrade":null,"connections":2,"active":130,"draining":3,"waiting":0,"requests":1000,"aside":0,"bytes_sent":5000,"bytes_received":2500000,"aborts":17,"stalls":4,"stall_aborts":0,"refusals":0,"connects":2,"connect_failures":0,"retired":0,"astray":0},
{"address":"unix:/srv/applications/with/a/long/name/app.sock","multiplexes":false,"flow_control":false,"upgrade":null,"connections":0,"active":0,"draining":0,"waiting":7,"requests":3,"aside":9000,"bytes_sent":1,"bytes_received":1,"aborts":0,"stalls":0,"stall_aborts":0,"refusals":0,"connects":1,"connect_failures":12,"retired":1,"astray":0}
]}"#;

const GATEWAY: &str = "afcgi_gateway_requests_active 5\nafcgi_gateway_connections_active 9\n\
    afcgi_gateway_requests_total{code=\"2xx\"} 98\nafcgi_gateway_requests_total{code=\"5xx\"} 2\n\
    afcgi_gateway_request_duration_seconds_bucket{le=\"0.01\"} 50\n\
    afcgi_gateway_request_duration_seconds_bucket{le=\"0.05\"} 100\n\
    afcgi_gateway_request_duration_seconds_bucket{le=\"+Inf\"} 100\n\
    afcgi_gateway_upstream_connections{upstream=\"app\"} 1\nafcgi_gateway_upstream_requests_total{upstream=\"app\"} 100\n\
    afcgi_gateway_upstream_up{upstream=\"app\",address=\"127.0.0.1:1\"} 0\n";

fn view(labels: &[&str]) -> View {
    let labels = labels.iter().map(|&label| label.to_owned()).collect();
    View::new(labels, Duration::from_secs(2), false)
}

fn answer(view: &mut View, source: usize, body: &str, at: Instant) {
    view.sources[source].take(Poll {
        answer: Answer::read(body.as_bytes()),
        took: Duration::from_micros(1_200),
        at,
    });
}

fn fail(view: &mut View, source: usize, why: &str, at: Instant) {
    view.sources[source].take(Poll {
        answer: Err(why.to_owned()),
        took: Duration::from_secs(3),
        at,
    });
}

fn screen(view: &View, width: u16, height: u16, now: Instant) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    terminal
        .draw(|frame| draw(frame, view, now))
        .expect("a picture");
    let buffer = terminal.backend().buffer();
    let row = |y| {
        (0..width)
            .map(|x| buffer[(x, y)].symbol())
            .collect::<String>()
    };
    (0..height).map(|y| row(y).trim_end().to_owned()).collect()
}

fn press(view: &mut View, keys: &str) {
    for key in keys.chars() {
        view.key(KeyEvent::new(KeyCode::Char(key), KeyModifiers::NONE));
    }
}

#[test]
fn all_pages_at_80_columns() {
    let mut view = view(&[
        "http://127.0.0.1/status",
        "http://127.0.0.1:8889",
        "unix:/run/php/www.sock",
    ]);
    let start = Instant::now();
    let later = start + Duration::from_secs(2);
    answer(&mut view, 0, MODULE, start);
    let more = MODULE
        .replace("\"requests\":1000", "\"requests\":1500")
        .replace("2500000", "4597152");
    answer(&mut view, 0, &more, later);
    answer(&mut view, 1, GATEWAY, later);
    answer(&mut view, 2, FPM, later);
    let lines = screen(&view, 80, 24, later);
    let expected = [
        "afcgi top every 2s, 3 sources",
        "1 http://127.0.0.1/status: nginx module, 1.2ms",
        "2 http://127.0.0.1:8889: gateway, 1.2ms",
        "3 unix:/run/php/www.sock: PHP-FPM, 1.2ms",
        "",
        " # GATEWAY                 CONN ACTIVE REQ/S 5XX/S OUT/S  HELD   P50   P90   P99",
        " 2 127.0.0.1:8889             9      5     -     -     -     -  10ms  42ms  49ms",
        "",
        " # APPLICATION          CONN ACTIVE HELD WAIT REQ/S  IN/S OUT/S ABORT STALL FAIL",
        " 1 127.0.0.1:5000          2    130    3    0   250  1.0M     0    17     4    0",
    ];
    for (line, expected) in lines.iter().zip(expected) {
        assert_eq!(line, expected, "in\n{}", lines.join("\n"));
    }
    let all = lines.join("\n");
    for words in [
        " 1 …/long/name/app.sock    0      0    0    7     0     0     0     0     0   12",
        " 2 app                     1      -    -    -     -     -     -     -     -    -",
        " 3 www                dynamic      2    1     3     0    1     -    1    0    3m",
        "running   1.5s      3     0     0 GET /report.php?year=2026",
        "q quit  s sort: REQ/S↓  r reverse",
    ] {
        assert!(all.contains(words), "{words:?} in\n{all}");
    }
}

#[test]
fn a_source_without_an_answer() {
    let mut view = view(&["unix:/run/a.sock", "127.0.0.1:9000"]);
    let start = Instant::now();
    let later = start + Duration::from_secs(90);
    let why = "PHP-FPM has no status page at this path: set `pm.status_path = /status` in the pool";
    fail(&mut view, 1, why, start);
    view.sources[0].asked = Some(start);
    let lines = screen(&view, 80, 24, later);
    assert_eq!(
        lines[0],
        "afcgi top every 2s, 2 sources, 1 without an answer"
    );
    assert_eq!(lines[1], "1 unix:/run/a.sock: slow, asked 90s ago");
    assert_eq!(
        lines[2],
        "2 127.0.0.1:9000: no answer for 90s: PHP-FPM has no status page at this path:"
    );
    assert_eq!(lines[3], "    set `pm.status_path = /status` in the pool");
    // What it said before stays, and goes on from there.
    answer(&mut view, 1, FPM, later);
    fail(&mut view, 1, "gone", later);
    let all = screen(&view, 80, 24, later).join("\n");
    assert!(all.contains("no answer for 1s: gone"), "{all}");
    assert!(all.contains(" 2 www "), "{all}");
}

#[test]
fn keys_sort_and_move() {
    let mut view = view(&["http://a"]);
    let now = Instant::now();
    answer(&mut view, 0, MODULE, now);
    let first = |view: &View| {
        let lines = screen(view, 80, 24, now);
        lines[4].split(' ').next().unwrap_or_default().to_owned()
    };
    // Without rates: by name.
    assert_eq!(first(&view), "127.0.0.1:5000");
    // From REQ/S back to WAIT, of which the other has more.
    press(&mut view, "S");
    assert!(first(&view).starts_with('…') || first(&view).starts_with("unix:"));
    press(&mut view, "r");
    assert_eq!(first(&view), "127.0.0.1:5000");
    let lines = screen(&view, 80, 24, now);
    assert!(lines[23].contains("sort: WAIT↑"), "{}", lines[23]);
    press(&mut view, "jjjj");
    assert_eq!(view.place(Group::Applications).selected, 1);
    press(&mut view, "k");
    assert_eq!(view.place(Group::Applications).selected, 0);
    // Round all columns, the name among them.
    for _ in 0..11 {
        press(&mut view, "s");
    }
    assert!(screen(&view, 80, 24, now)[23].contains("sort: WAIT"));
    press(&mut view, "+");
    assert_eq!(view.interval, Duration::from_secs(5));
    press(&mut view, &"-".repeat(40));
    assert_eq!(view.interval, Duration::from_millis(100));
    press(&mut view, "p?");
    let lines = screen(&view, 80, 24, now);
    assert!(lines[0].ends_with(", paused"), "{}", lines[0]);
    assert!(lines[2].starts_with("q  Ctrl-C"), "{}", lines[2]);
    let key = |code, with| KeyEvent::new(code, with);
    assert_eq!(
        view.key(key(KeyCode::Char('c'), KeyModifiers::CONTROL)),
        Act::Quit
    );
    assert_eq!(
        view.key(key(KeyCode::Char('z'), KeyModifiers::CONTROL)),
        Act::Suspend
    );
    assert_eq!(
        view.key(key(KeyCode::Char('q'), KeyModifiers::NONE)),
        Act::Quit
    );
}

#[test]
fn long_tables_scroll() {
    let mut view = view(&["http://a", "unix:/b"]);
    let now = Instant::now();
    let addresses: Vec<_> = (100..400)
        .map(|n| format!("{{\"address\":\"app-{n}\",\"active\":1}}"))
        .collect();
    let body = format!("{{\"addresses\":[{}]}}", addresses.join(","));
    answer(&mut view, 0, &body, now);
    answer(&mut view, 1, FPM, now);
    view.key(KeyEvent::new(KeyCode::End, KeyModifiers::NONE));
    let all = screen(&view, 80, 24, now).join("\n");
    assert!(all.contains("-300/300"), "{all}");
    assert!(all.contains(" 1 app-399 "), "{all}");
    // The other tables are whole.
    assert!(all.contains(" 2 www "), "{all}");
    assert_eq!(all.matches(" running ").count(), 2, "{all}");
    view.key(KeyEvent::new(KeyCode::Tab, KeyModifiers::NONE));
    assert_eq!(view.focus(), Some(Group::Pools));
    view.key(KeyEvent::new(KeyCode::BackTab, KeyModifiers::NONE));
    assert_eq!(view.focus(), Some(Group::Applications));
    view.key(KeyEvent::new(KeyCode::BackTab, KeyModifiers::NONE));
    assert_eq!(view.focus(), Some(Group::Processes));
}

#[test]
fn a_narrow_terminal_keeps_the_names() {
    let mut view = view(&["http://a"]);
    let now = Instant::now();
    answer(&mut view, 0, MODULE, now);
    let lines = screen(&view, 40, 24, now);
    assert_eq!(lines[3], "APPLICATION        CONN ACTIVE HELD WAIT");
    assert_eq!(lines[4], "127.0.0.1:5000        2    130    3    0");
}

#[test]
fn any_size_and_any_text() {
    let mut view = view(&["http://a/ü\u{4e16}\u{754c}", "unix:/b", "c:1", "d:1", "e:1"]);
    let now = Instant::now();
    answer(&mut view, 0, MODULE, now);
    let wide = FPM.replace("report.php", &"\u{4e16}\u{754c}".repeat(90));
    answer(&mut view, 1, &wide, now);
    answer(&mut view, 2, GATEWAY, now);
    fail(&mut view, 3, &"x".repeat(500), now);
    fail(&mut view, 4, &"\u{4e16} ".repeat(200), now);
    for width in [1, 2, 10, 21, 40, 79, 80, 81, 200] {
        for height in [1, 2, 3, 5, 10, 24, 60] {
            for help in [false, true] {
                view.help = help;
                screen(&view, width, height, now);
            }
        }
    }
}

#[test]
fn rows_are_shared_out() {
    assert_eq!(share(&[1, 300, 3], 15, 1), [1, 11, 3]);
    assert_eq!(share(&[100, 100], 10, 0), [5, 5]);
    assert_eq!(share(&[2, 100], 3, 0), [2, 1]);
    assert_eq!(share(&[], 5, 0), [0; 0]);
    assert_eq!(share(&[5], 0, 0), [0]);
}

#[test]
fn texts_are_cut_by_their_width() {
    assert_eq!(fit("abcdef", 4, false), "abc…");
    assert_eq!(fit("abcdef", 4, true), "…def");
    assert_eq!(fit("\u{4e16}\u{754c}\u{4e16}", 4, false), "\u{4e16}…");
    assert_eq!(fit("abc", 0, false), "");
    assert_eq!(pad("ab", 4, false), "ab  ");
    assert_eq!(wrap("a bc def", 4, 0), ["a bc", "def"]);
    assert_eq!(wrap("abcdefgh", 3, 0), ["abc", "def", "gh"]);
}
