//! A connection of a client below HTTP, and what is looked at on it.

mod client;
mod frames;
mod heads;
mod hints;
mod socket;

pub(crate) use client::ClientIo;
pub(crate) use frames::Accepted;
pub(crate) use heads::{Heads, Unclear};
pub(crate) use hints::{Hints, Tidy};
pub(crate) use socket::{Listener, Socket};
