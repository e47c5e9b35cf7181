//! `make chaos`: many applications of several kinds behind nginx with the module and behind the gateway, clients that check every byte, and
//! everything that can happen meanwhile.
//!
//! - [`block`]: bodies that tell whose they are;
//! - [`plan`]: what each request is to be;
//! - [`client`]: what sends it and compares the answer;
//! - [`app`] and `peers/`: what answers;
//! - [`fleet`] and [`front`]: the processes of applications and web servers;
//! - [`havoc`]: what is done to them;
//! - [`events`]: when, which decides what is an excuse;
//! - [`run`] and [`tally`]: all of it together, and what came of it.
//!
//! What must be 0: answers that are wrong in any byte, requests that failed though nothing was done to their application, those without an
//! end, and what is left of requests, connections and descriptors when all is over.
//!
//! Like the harness in `interop` it panics with a reason where it cannot go on.

#![forbid(unsafe_code)]

pub mod app;
pub mod block;
pub mod client;
pub mod events;
pub mod fleet;
pub mod front;
pub mod havoc;
pub mod plan;
pub mod run;
pub mod tally;
