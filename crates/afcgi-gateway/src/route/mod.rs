//! Where a request goes: who sent it, whether it is certain what it is, which route is for it, and what its path means there.

pub(crate) mod access;
pub(crate) mod check;
pub(crate) mod files;
mod path;
pub(crate) mod script;
mod site;

pub(crate) use path::CleanPath;
pub(crate) use site::{Route, Site, Upstream};
