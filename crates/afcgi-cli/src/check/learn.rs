//! What is found out of the application before the first case.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::ask::Ask;
use super::case::Failure;
use super::probe::{Probe, Talk};
use super::raw::{kind, pairs};
use super::suite::{Baseline, Route, Settings, Suite};
use super::transcript::Transcript;

/// The names that are asked for.
const NAMES: [&str; 5] = [
    "FCGI_MAX_CONNS",
    "FCGI_MAX_REQS",
    "FCGI_MPXS_CONNS",
    "FCGI_FLOW_CONTROL",
    "FCGI_UPGRADE",
];

impl Suite {
    /// Asks the application what it answers. Fails if it does not answer the plain request.
    pub async fn prepare(settings: Settings) -> Result<Self, String> {
        let suite = Self {
            settings,
            baseline: Baseline::new(&[], &[]),
            values: None,
            keeps: false,
        };
        let probe = Probe::new(Arc::new(suite));
        match learn(&probe).await {
            Ok((baseline, keeps)) => {
                let values = values(&probe).await;
                let settings = probe.suite.settings.clone();
                Ok(Self {
                    settings,
                    baseline,
                    values,
                    keeps,
                })
            }
            Err(Failure::Deviation { came, .. } | Failure::Skip(came)) => Err(came),
        }
    }
}

async fn learn(probe: &Probe) -> Result<(Baseline, bool), Failure> {
    let mut talk = probe.connect().await?;
    talk.send(&probe.ask(1).bytes()).await?;
    let first = talk.response(1).await?.stdout;
    talk.send(&probe.ask(2).bytes()).await?;
    if let Ok(second) = talk.response(2).await {
        return Ok((Baseline::new(&first, &second.stdout), true));
    }
    let mut talk = probe.connect().await?;
    talk.send(&probe.ask(1).bytes()).await?;
    let second = talk.response(1).await?.stdout;
    Ok((Baseline::new(&first, &second), false))
}

async fn values(probe: &Probe) -> Option<BTreeMap<String, String>> {
    let mut talk: Talk = probe.connect().await.ok()?;
    talk.ask_values(&NAMES).await.ok()?;
    let answer = talk.answer().await.ok()?;
    let pairs = pairs(&answer.content).filter(|_| answer.kind() == kind::GET_VALUES_RESULT)?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let pairs = pairs
        .into_iter()
        .map(|(name, value)| (text(name), text(value)));
    Some(pairs.collect())
}

impl Probe {
    /// The plain request.
    pub(crate) fn ask(&self, id: u16) -> Ask {
        Ask::new(id, &self.suite.settings.base)
    }

    /// A request to a route; a reason to skip the case if the tool was not told of it.
    pub(crate) fn to(&self, route: Route, id: u16) -> Result<Ask, Failure> {
        let mut routes = self.suite.settings.routes.iter();
        match routes.find(|known| known.0 == route) {
            Some((_, params)) => Ok(Ask::new(id, params)),
            None => Err(Failure::Skip(format!("{} is not given", route.flag()))),
        }
    }

    pub(crate) fn new(suite: Arc<Suite>) -> Self {
        Self {
            suite,
            transcript: Arc::new(Mutex::new(Transcript::new())),
        }
    }
}
