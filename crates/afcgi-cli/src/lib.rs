//! The program `afcgi`: a module for each of its subcommands, which `main.rs` lists.

#![forbid(unsafe_code)]

pub mod bench;
mod capture;
pub mod check;
pub mod demo;
pub mod gateway;
pub mod generate;
pub mod logging;
pub mod request;
pub mod spawn;
pub mod tap;
mod terminal;
pub mod top;
mod wire;
