//! The harness of the peer tests: real web servers and applications, started for one test and ended with it.
//!
//! - [`process`]: a child process with a captured log, ended when its guard goes;
//! - [`app`]: the applications, `afcgitest` and its twins that are not ours;
//! - [`fake`]: applications made by hand, each with a fault of its own;
//! - [`gateway`]: the web servers, each with the configuration under test;
//! - [`own`]: the gateway of this project with all that can be set;
//! - [`php`]: PHP-FPM with a pool of its own;
//! - [`spawn`]: the process manager of this project;
//! - [`tap`]: what shows and records what both sides say;
//! - [`browser`]: Chromium, by WebDriver;
//! - [`websocket`]: what a WebSocket must do behind every web server that tunnels;
//! - [`suite`]: what every application must do behind every web server;
//! - [`raw`]: FastCGI by hand, for what no web server would send;
//! - [`attack`]: what must hold while somebody sends it.
//!
//! This crate knows the wire format from the specification alone and shares no code with the protocol crate, so that one misreading cannot
//! hide in both. It panics with a reason where a library would return an error: it serves tests only.

#![forbid(unsafe_code)]

pub mod app;
pub mod attack;
pub mod browser;
pub mod demo;
pub mod fake;
pub mod gateway;
pub mod http;
pub mod own;
pub mod php;
pub mod process;
pub mod raw;
pub mod spawn;
pub mod suite;
pub mod tap;
pub mod wait;
pub mod websocket;
