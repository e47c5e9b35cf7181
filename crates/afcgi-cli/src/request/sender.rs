//! The same request again and again, on one connection as long as that lasts.

use super::arguments::Arguments;
use super::exchange::{Plan, Timings, exchange};
use super::failure::Failure;
use super::link::{Clock, Link};
use super::observer::Observer;
use super::report::Outcome;
use super::response::Response;

/// Sends requests, on one connection as long as that lasts.
pub(super) struct Sender<'a> {
    plan: &'a Plan,
    pub(super) observer: Observer,
    pub(super) link: Option<Link>,
    /// How many it has opened.
    pub(super) connections: u32,
}

impl<'a> Sender<'a> {
    pub(super) fn new(plan: &'a Plan, observer: Observer) -> Self {
        Self {
            plan,
            observer,
            link: None,
            connections: 0,
        }
    }

    /// Sends the request once. One that goes to a kept connection which the application closes without a word is sent again on a new one: it
    /// may have been closing already.
    pub(super) async fn send(&mut self, arguments: &Arguments) -> (Outcome, Response) {
        self.send_to(|| Response::new(arguments)).await
    }

    /// The same, with a place for the answer: one for each attempt.
    pub(super) async fn send_to(&mut self, response: impl Fn() -> Response) -> (Outcome, Response) {
        loop {
            let reused = self.link.is_some();
            self.observer.begin();
            let clock = Clock::start(self.plan.max_time);
            let mut response = response();
            let mut timings = Timings::default();
            let result = self.attempt(&clock, &mut response, &mut timings).await;
            timings.total = clock.at();
            self.observer.end();
            let closed = matches!(result, Err(Failure::Empty | Failure::Lost(_)));
            if reused && closed && timings.first_byte.is_none() {
                continue;
            }
            return (Outcome { result, timings }, response);
        }
    }

    async fn attempt(
        &mut self,
        clock: &Clock,
        response: &mut Response,
        timings: &mut Timings,
    ) -> Result<afcgi_proto::EndRequest, Failure> {
        let plan = self.plan;
        let mut link = match self.link.take() {
            Some(link) => link,
            None => {
                let link =
                    Link::connect(&plan.address, plan.timeout, clock, plan.keep_conn).await?;
                self.connections += 1;
                let at = clock.at();
                self.observer
                    .note(at, &format!("connected to {}", plan.address));
                timings.connected = Some(at);
                link
            }
        };
        let end = exchange(
            &mut link,
            plan,
            clock,
            &mut self.observer,
            response,
            timings,
        )
        .await?;
        if plan.keep_conn && !link.at_end && timings.aborted.is_none() {
            self.link = Some(link);
        }
        Ok(end)
    }
}
