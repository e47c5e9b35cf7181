//! What comes of asking an application whether it multiplexes.

use std::sync::Arc;
use std::time::Duration;

use afcgi_proto::Values;
use afcgi_proto::verdict::Verdict;

use super::super::shared::Shared;
use super::Pool;
use super::state::kind;

impl Pool {
    /// The application has answered GET_VALUES on a connection that is to be shared.
    pub(in super::super) fn answered(self: &Arc<Self>, shared: &Arc<Shared>, values: &Values) {
        // What is said of one is said by each of several processes of itself.
        let number = |said: Option<u32>| match said {
            None | Some(0 | 1) => usize::MAX,
            Some(most) => usize::try_from(most).unwrap_or(usize::MAX),
        };
        let mut state = self.lock();
        state.opening_shared = false;
        state.asking = None;
        state.most_connections = number(values.max_conns);
        state.most_requests = number(values.max_reqs);
        // An idle connection takes a process of the application: leave half of them to others.
        state.most_idle = (state.most_connections / 2).min(self.config.single_idle);
        let verdict = (state.verdict).answered(values, crate::clock::now(), &self.config.patience);
        let change;
        let mut obsolete = Vec::new();
        if let Verdict::Shared { .. } = verdict {
            let most = u16::try_from(state.most_requests).unwrap_or(u16::MAX);
            shared.lock().connection.limit_requests(most);
            let controlled = shared.lock().connection.is_controlled();
            change = state.judge(Verdict::Shared { controlled });
            state.shared.push(Arc::clone(shared));
            if state.closed {
                shared.retire();
            }
        } else {
            change = state.judge(verdict);
            obsolete = state.obsolete(self.config.keep_conn);
            // It is closed, and nothing is lost with it.
            obsolete.push(Arc::clone(shared));
        }
        let unwanted = self.serve(&mut state);
        drop(state);
        drop(unwanted);
        for shared in obsolete {
            shared.retire();
        }
        self.log(change, "that is its answer to GET_VALUES");
    }

    /// The application has not answered GET_VALUES, or refused what it should take.
    pub(in super::super) fn silent(self: &Arc<Self>, shared: &Arc<Shared>, why: &str) {
        let mut state = self.lock();
        if (state.asking)
            .take_if(|asking| Arc::ptr_eq(asking, shared))
            .is_some()
        {
            state.opening_shared = false;
        }
        let verdict = (state.verdict).silent(crate::clock::now(), &self.config.patience);
        let change = state.judge(verdict);
        let mut obsolete = state.obsolete(self.config.keep_conn);
        obsolete.push(Arc::clone(shared));
        let unwanted = self.serve(&mut state);
        drop(state);
        drop(unwanted);
        for shared in obsolete {
            shared.retire();
        }
        self.log(change, why);
    }

    /// Says that another thing is known of the application; not to be called with the lock.
    fn log(&self, change: Option<Verdict>, why: &str) {
        if let Some(verdict) = change {
            tracing::info!(address = %self.name, why, "the application {}", kind(verdict));
        }
    }

    /// How long an application may go on not answering from when it was asked, as things are now;
    /// `round_trip`: what connecting to it took.
    pub(in super::super) fn patience(&self, round_trip: Duration) -> Duration {
        let patience = &self.config.patience;
        let verdict = self.lock().verdict;
        match verdict.is_single() && self.load() > 0 {
            true => patience.beside(verdict, round_trip),
            false => patience.of(verdict, round_trip),
        }
    }
}
