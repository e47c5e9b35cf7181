//! What a pool decides, one thing at a time.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::*;

#[derive(Clone, Debug, Default)]
struct Line(Rc<RefCell<Look>>);

impl Line {
    fn active(&self) -> usize {
        self.0.borrow().active
    }

    fn leave(&self) {
        self.0.borrow_mut().active -= 1;
    }
}

/// Connections that take any number of requests unless they are said not to.
struct Lines;

impl Connections for Lines {
    type Member = Line;
    type Place = Line;

    fn look(&self, line: &Line) -> Look {
        *line.0.borrow()
    }

    fn open(&mut self, line: &Line) -> Option<Line> {
        let mut look = line.0.borrow_mut();
        look.active += 1;
        look.takes.then(|| line.clone())
    }
}

type Actions = Vec<Action<Line, Line, &'static str>>;

struct Rig {
    pool: Pool<Line, Line, &'static str>,
    now: Instant,
}

const BODY: Wants = Wants {
    body: true,
    single: false,
};

impl Rig {
    fn new(config: Config) -> Self {
        let now = Instant::now();
        Self {
            pool: Pool::new(config, now),
            now,
        }
    }

    fn actions(&mut self) -> Actions {
        std::iter::from_fn(|| self.pool.poll_action())
            .filter(|action| !matches!(action, Action::Judged { .. }))
            .collect()
    }

    /// The connection that is to be opened now, and nothing else is to be done.
    fn opens(&mut self) -> (MemberId, Kind) {
        match self.actions()[..] {
            [Action::Open { id, kind }] => (id, kind),
            ref other => panic!("{other:?}"),
        }
    }

    fn wait(&mut self, wants: Wants, request: &'static str) -> Ticket {
        assert!(matches!(self.ask(wants), Asked::Wait));
        let waited = self.pool.wait(wants, request, self.now, &mut Lines);
        waited.expect("there is something to wait for")
    }

    fn ask(&mut self, wants: Wants) -> Asked<Line> {
        self.pool.ask(wants, self.now, &mut Lines)
    }

    fn connect(&mut self, id: MemberId) -> Line {
        let line = Line::default();
        line.0.borrow_mut().takes = true;
        self.pool.connected(id, line.clone(), self.now, &mut Lines);
        line
    }

    fn answer(&mut self, id: MemberId, line: &Line, values: Values) {
        line.0.borrow_mut().controlled = values.flow_control.is_some();
        self.pool.answered(id, &values, self.now, &mut Lines);
    }

    /// A pool with one shared connection.
    fn sharing(config: Config, values: Values) -> (Self, MemberId, Line) {
        let mut rig = Self::new(config);
        rig.wait(Wants::default(), "first");
        let (id, kind) = rig.opens();
        assert_eq!(kind, Kind::Shared);
        let line = rig.connect(id);
        assert!(rig.actions().is_empty(), "it is asked first");
        rig.answer(id, &line, values);
        assert!(matches!(rig.actions()[..], [Action::Give("first", _)]));
        (rig, id, line)
    }
}

fn multiplexes() -> Values {
    Values {
        mpxs_conns: Some(true),
        flow_control: Some(Default::default()),
        ..Values::default()
    }
}

#[test]
fn requests_share_the_connection_with_the_fewest() {
    let config = Config {
        connections: 2,
        ..Config::default()
    };
    let (mut rig, _, first) = Rig::sharing(config, multiplexes());
    assert!(matches!(rig.ask(Wants::default()), Asked::Placed(_)));
    // A second connection is opened beside the requests, and asked.
    let (id, kind) = rig.opens();
    assert_eq!(kind, Kind::Shared);
    assert!(matches!(rig.ask(Wants::default()), Asked::Placed(_)));
    assert_eq!(first.active(), 3);
    let second = rig.connect(id);
    rig.answer(id, &second, multiplexes());
    for _ in 0..5 {
        assert!(matches!(rig.ask(BODY), Asked::Placed(_)));
    }
    assert_eq!((first.active(), second.active()), (4, 4));
    assert!(rig.actions().is_empty());
}

#[test]
fn a_body_without_flow_control_has_a_connection_of_its_own() {
    let values = Values {
        flow_control: None,
        ..multiplexes()
    };
    let (mut rig, _, shared) = Rig::sharing(Config::default(), values);
    rig.wait(BODY, "body");
    let (id, kind) = rig.opens();
    assert_eq!(kind, Kind::Kept);
    let own = rig.connect(id);
    assert!(matches!(rig.actions()[..], [Action::Give("body", _)]));
    assert_eq!((shared.active(), own.active()), (1, 1));
    // It serves the next one.
    own.leave();
    rig.pool.changed(id, rig.now, &mut Lines);
    assert!(rig.actions().is_empty());
    assert!(matches!(rig.ask(BODY), Asked::Placed(_)));
    assert_eq!(own.active(), 1);
}

#[test]
fn an_application_that_declines_gets_a_connection_for_each_request() {
    let mut rig = Rig::new(Config::default());
    rig.wait(Wants::default(), "a");
    rig.wait(BODY, "b");
    let (id, _) = rig.opens();
    let asked = rig.connect(id);
    rig.answer(id, &asked, Values::default());
    let actions = rig.actions();
    let [
        Action::Retire(_),
        Action::Open {
            id: first,
            kind: Kind::Once,
        },
        Action::Open {
            kind: Kind::Once, ..
        },
    ] = actions[..]
    else {
        panic!("{actions:?}");
    };
    let line = rig.connect(first);
    assert!(matches!(rig.actions()[..], [Action::Give("a", _)]));
    line.leave();
    rig.pool.changed(first, rig.now, &mut Lines);
    assert!(matches!(rig.actions()[..], [Action::Retire(_)]));
}

#[test]
fn they_are_asked_again_beside_the_requests() {
    let config = Config {
        keep_conn: true,
        ..Config::default()
    };
    let mut rig = Rig::new(config);
    rig.wait(Wants::default(), "a");
    let (id, _) = rig.opens();
    rig.connect(id);
    rig.pool.silent(id, Why::Silent, rig.now, &mut Lines);
    let actions = rig.actions();
    let [Action::Retire(_), Action::Open { id: own, .. }] = actions[..] else {
        panic!("{actions:?}");
    };
    rig.pool.closed_by_us(id, rig.now, &mut Lines);
    let line = rig.connect(own);
    assert!(matches!(rig.actions()[..], [Action::Give("a", _)]));
    line.leave();
    rig.pool.changed(own, rig.now, &mut Lines);
    rig.now += Duration::from_secs(2);
    assert!(matches!(rig.ask(BODY), Asked::Placed(_)));
    let (again, kind) = rig.opens();
    assert_eq!(kind, Kind::Shared);
    // Only once.
    rig.pool.ask_again(rig.now);
    assert!(rig.actions().is_empty());
    let shared = rig.connect(again);
    rig.answer(again, &shared, multiplexes());
    assert!(!rig.pool.verdict().is_single());
    assert!(matches!(rig.ask(BODY), Asked::Placed(_)));
    assert_eq!((line.active(), shared.active()), (1, 1));
}

#[test]
fn one_that_is_held_up_gets_a_stand_in() {
    let (mut rig, _, line) = Rig::sharing(Config::default(), multiplexes());
    {
        let mut look = line.0.borrow_mut();
        (look.stalled, look.takes) = (true, false);
    }
    rig.wait(Wants::default(), "next");
    let (id, kind) = rig.opens();
    assert_eq!(kind, Kind::Shared);
    let stand_in = rig.connect(id);
    rig.answer(id, &stand_in, multiplexes());
    assert!(matches!(rig.actions()[..], [Action::Give("next", _)]));
    assert_eq!(stand_in.active(), 1);
}

#[test]
fn nobody_waits_for_what_cannot_be_connected_to() {
    let backoff = Backoff {
        first: Duration::from_millis(100),
        most: Duration::from_secs(10),
    };
    let mut rig = Rig::new(Config {
        backoff: Some(backoff),
        ..Config::default()
    });
    rig.wait(Wants::default(), "a");
    let (id, _) = rig.opens();
    assert!(rig.pool.connect_failed(id, rig.now, 0.0));
    assert_eq!(rig.actions(), [Action::Fail("a")]);
    assert_eq!(rig.pool.failing(rig.now), Some(false));
    // It is too early: the next one fails at once.
    assert!(matches!(rig.ask(BODY), Asked::Wait));
    assert_eq!(rig.pool.wait(BODY, "b", rig.now, &mut Lines), Err("b"));
    rig.now += Duration::from_millis(100);
    assert_eq!(rig.pool.failing(rig.now), Some(true));
    rig.wait(Wants::default(), "c");
    let (id, _) = rig.opens();
    assert!(!rig.pool.connect_failed(id, rig.now, 0.0));
    assert_eq!(rig.pool.retry_in(rig.now), Some(Duration::from_millis(200)));
}

impl PartialEq for Line {
    fn eq(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

#[test]
fn the_queue_has_a_limit_and_an_order() {
    let mut rig = Rig::new(Config {
        queue: 3,
        ..Config::default()
    });
    rig.wait(Wants::default(), "a");
    let gone = rig.wait(BODY, "b");
    rig.wait(Wants::default(), "c");
    assert!(matches!(rig.ask(Wants::default()), Asked::Full));
    assert_eq!(rig.pool.cancel(gone), Some("b"));
    assert_eq!(rig.pool.cancel(gone), None);
    rig.wait(BODY, "d");
    let (id, _) = rig.opens();
    let line = rig.connect(id);
    rig.answer(id, &line, multiplexes());
    let given: Vec<_> = (rig.actions().into_iter())
        .map(|action| match action {
            Action::Give(request, _) => request,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(given, ["a", "c", "d"]);
}

#[test]
fn an_application_gets_no_more_than_it_says_it_takes() {
    let values = Values {
        max_reqs: Some(2),
        ..multiplexes()
    };
    let (mut rig, id, line) = Rig::sharing(Config::default(), values);
    assert!(matches!(rig.ask(BODY), Asked::Placed(_)));
    rig.wait(Wants::default(), "third");
    assert!(rig.actions().is_empty());
    line.leave();
    rig.pool.changed(id, rig.now, &mut Lines);
    assert!(matches!(rig.actions()[..], [Action::Give("third", _)]));
}

#[test]
fn a_name_that_outlives_its_connection_finds_nothing() {
    let mut rig = Rig::new(Config::default());
    rig.wait(Wants::default(), "a");
    let (old, _) = rig.opens();
    rig.pool.connect_failed(old, rig.now, 0.0);
    assert_eq!(rig.actions(), [Action::Fail("a")]);
    rig.wait(Wants::default(), "b");
    let (new, _) = rig.opens();
    assert_ne!(old, new);
    // News of the old one change nothing of what came to its place.
    rig.pool.gone(old, rig.now, &mut Lines);
    rig.pool.answered(old, &multiplexes(), rig.now, &mut Lines);
    rig.pool.connect_failed(old, rig.now, 0.0);
    rig.pool.changed(old, rig.now, &mut Lines);
    assert!(rig.actions().is_empty());
    let line = rig.connect(new);
    rig.answer(new, &line, multiplexes());
    assert!(matches!(rig.actions()[..], [Action::Give("b", _)]));
}

#[test]
fn a_connection_that_ends_while_it_is_asked_does_not_multiplex() {
    let mut rig = Rig::new(Config::default());
    rig.wait(Wants::default(), "a");
    let (id, _) = rig.opens();
    let line = rig.connect(id);
    // Its owner sees first that it takes nothing more.
    line.0.borrow_mut().retired = true;
    rig.pool.changed(id, rig.now, &mut Lines);
    rig.pool.gone(id, rig.now, &mut Lines);
    assert!(rig.pool.verdict().is_single());
    assert_eq!(rig.opens().1, Kind::Once);
    // One that we closed tells nothing.
    let mut rig = Rig::new(Config::default());
    rig.wait(Wants::default(), "a");
    let (id, _) = rig.opens();
    rig.connect(id);
    rig.pool.closed_by_us(id, rig.now, &mut Lines);
    assert!(!rig.pool.verdict().is_single());
    assert_eq!(rig.opens().1, Kind::Shared);
}
