//! The protocol crate as its users see it: every rule, both sides, hostile peers, and random
//! operations over a simulated pair. Tests that serve a rule begin with its number.

mod fairness;
mod flow;
mod limits;
mod rules_app;
mod rules_app_requests;
mod rules_web;
mod stall;
mod support;
