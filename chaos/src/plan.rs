//! What each request is to be: the same for the same seed and number, whoever sends it and when.

use fastrand::Rng;

use crate::events::Front;
use crate::fleet::{App, Kind};

/// How a client leaves before its request has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Leave {
    /// It does not.
    Never,
    /// In the middle of the request's body.
    InRequest,
    /// After so many milliseconds without an answer.
    Waiting(u64),
    /// In the middle of the response.
    InResponse,
}

/// What the application does wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// Nothing.
    None,
    /// It sends records for an id that is no request's; this request must succeed.
    Stray,
    /// It answers after three seconds; this request must succeed.
    Late,
    /// It refuses the request, as overloaded.
    Refuse,
    /// It ends the request before the length that it has announced.
    Short,
    /// It closes the connection in the middle of the response.
    Close,
    /// It sends bytes that are no records.
    Misframe,
}

impl Fault {
    /// The word that asks for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "ok",
            Self::Stray => "stray",
            Self::Late => "late",
            Self::Refuse => "refuse",
            Self::Short => "short",
            Self::Close => "close",
            Self::Misframe => "misframe",
        }
    }

    /// Whether the request cannot succeed.
    pub fn is_fatal(self) -> bool {
        !matches!(self, Self::None | Self::Stray | Self::Late)
    }

    /// Whether it takes the connection with it, and what else is on that.
    pub fn takes_others(self) -> bool {
        matches!(self, Self::Close | Self::Misframe)
    }
}

/// A request.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its number, mixed up: no two are the same.
    pub token: u64,
    /// The web server.
    pub front: Front,
    /// The application, as an index.
    pub app: usize,
    /// POST, otherwise GET.
    pub post: bool,
    /// Bytes of its body.
    pub length: usize,
    /// Whether the length of the body is not told.
    pub chunked: bool,
    /// Blocks of the response.
    pub blocks: usize,
    /// Milliseconds before the response.
    pub delay: u64,
    /// Milliseconds in the middle of the response.
    pub pause: u64,
    /// Whether the application tells the length of the response.
    pub announced: bool,
    /// Whether the client reads slowly.
    pub slow: bool,
    /// How the client leaves.
    pub leave: Leave,
    /// What the application does wrong.
    pub fault: Fault,
}

/// Which application the next request is for.
#[derive(Debug)]
pub struct Choice {
    /// Indices, each as often as its kind weighs.
    weighted: Vec<usize>,
    hot: usize,
}

/// Requests after which others are asked more often.
const HOT_FOR: u64 = 2_000;
/// How many are, at a time.
const HOT: usize = 6;

impl Choice {
    /// Among these.
    pub fn new(apps: &[App]) -> Self {
        let weighted = apps
            .iter()
            .enumerate()
            .flat_map(|(index, app)| std::iter::repeat_n(index, app.kind.weight() as usize))
            .collect();
        Self {
            weighted,
            hot: apps.len(),
        }
    }

    fn of(&self, rng: &mut Rng, seed: u64, number: u64) -> usize {
        if rng.f32() < 0.3 {
            // A few are asked by many at a time, other ones every while.
            let mut hot = Rng::with_seed(seed ^ (number / HOT_FOR + 1));
            let first = hot.usize(..self.hot);
            return (first + rng.usize(..HOT)) % self.hot;
        }
        self.weighted[rng.usize(..self.weighted.len())]
    }
}

impl Plan {
    /// The request with this number.
    pub fn new(seed: u64, number: u64, choice: &Choice, apps: &[App], fronts: &[Front]) -> Self {
        let mut rng = Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number);
        let app = choice.of(&mut rng, seed, number);
        let kind = apps[app].kind;
        let heavy = matches!(kind, Kind::Php | Kind::Libfcgi);
        let size = |rng: &mut Rng| match rng.u32(..1000) {
            0..700 => rng.usize(..2_000),
            700..980 => rng.usize(..20_000),
            980..998 => rng.usize(..200_000),
            _ => rng.usize(..2_000_000),
        };
        let post = kind == Kind::Afcgitest || rng.f32() < 0.6;
        let fault = match (kind, rng.u32(..100)) {
            (Kind::Bad, 0..10) => Fault::Stray,
            (Kind::Bad, 10..12) => Fault::Late,
            (Kind::Bad, 12..15) => Fault::Refuse,
            (Kind::Bad, 15..18) => Fault::Short,
            (Kind::Bad, 18..21) => Fault::Close,
            (Kind::Bad, 21..24) => Fault::Misframe,
            _ => Fault::None,
        };
        let leave = match rng.u32(..1000) {
            0..20 if post => Leave::InRequest,
            20..40 => Leave::Waiting(rng.u64(..200)),
            40..60 => Leave::InResponse,
            _ => Leave::Never,
        };
        let delay = match rng.u32(..1000) {
            _ if fault == Fault::Late => 3_000,
            0..850 => 0,
            850..995 => rng.u64(1..200),
            _ => rng.u64(200..2_500),
        };
        let length = if post { size(&mut rng) } else { 0 };
        Self {
            // Odd numbers times any number: a permutation.
            token: (number + 1).wrapping_mul(0xd134_2543_de82_ef95) ^ seed,
            front: fronts[rng.usize(..fronts.len())],
            app,
            post,
            length,
            chunked: rng.f32() < 0.2,
            blocks: 1 + size(&mut rng) / if heavy { 256 } else { 64 },
            delay,
            pause: if rng.f32() < 0.03 { rng.u64(1..200) } else { 0 },
            announced: fault == Fault::Short || rng.bool(),
            slow: rng.f32() < 0.01,
            leave: if fault.is_fatal() {
                Leave::Never
            } else {
                leave
            },
            fault,
        }
    }

    /// Its path and query, for an application of this name.
    pub fn path(&self, app: &App) -> String {
        let file = match app.kind {
            Kind::Afcgitest => "echo",
            Kind::Php => "index.php",
            _ => "x",
        };
        format!(
            "/{}/{file}?t={:016x}&n={}&ms={}&p={}&l={}&do={}",
            app.name,
            self.token,
            self.blocks,
            self.delay,
            self.pause,
            u8::from(self.announced),
            self.fault.word()
        )
    }
}
