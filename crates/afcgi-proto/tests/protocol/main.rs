//! The protocol crate as its users see it: every rule, both sides, hostile peers, and random
//! operations over a simulated pair. Tests that serve a rule begin with its number.

mod closing;
mod cuts;
mod fairness;
mod flow;
mod hostile;
mod limits;
mod linger;
mod operations;
mod params;
mod properties;
mod relay;
mod rules_app;
mod rules_app_requests;
mod rules_web;
mod stall;
mod support;
