//! `afcgi tap`: shows and records what a web server and an application say to each other, whichever they are.
//!
//! Bytes are passed on as they come (`forward`), and a copy is looked at afterwards (`observe`, `track`): nothing that is wrong with them
//! stops them. `docs/tools.md` tells how to use it.

mod arguments;
mod budget;
mod exchange;
mod faults;
mod filter;
mod forward;
mod live;
mod observe;
mod output;
mod recorded;
mod said;
mod show;
mod socket;
mod stats;
mod track;

use std::io;

pub use arguments::Arguments;
pub(crate) use recorded::open;
use said::say;

impl Arguments {
    /// Runs it, and says how the program ends.
    pub fn run(self) -> u8 {
        let result = match &self.read {
            Some(name) => recorded::run(&self, name),
            None => live::run(&self),
        };
        result.unwrap_or_else(|error| {
            say(&error.to_string());
            match error.kind() {
                io::ErrorKind::InvalidInput => 2,
                _ => 1,
            }
        })
    }
}
