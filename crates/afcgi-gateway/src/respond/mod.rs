//! What responses are made of: a status, a file or what an application sent, and fields.

mod body;
pub(crate) mod fields;
pub(crate) mod file;

pub(crate) use body::{Body, Refused, is_whole, refuse, text};
