//! The program `afcgi`: a module for each of its subcommands, which `main.rs` lists.

#![forbid(unsafe_code)]

pub mod check;
pub mod demo;
pub mod gateway;
pub mod logging;
pub mod request;
pub mod spawn;
mod terminal;
mod wire;
