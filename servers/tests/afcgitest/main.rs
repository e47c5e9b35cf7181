//! Tests of `afcgitest`: its routes, where it listens, its limits, and how it stops.

#[path = "../common/mod.rs"]
mod common;
mod limits;
mod listen;
mod routes;
mod stop;

const AFCGITEST: &str = env!("CARGO_BIN_EXE_afcgitest");
