//! What is said at the end: text for people, JSON for programs, a page for both.

mod html;
mod json;
mod text;
pub(super) mod units;

pub(super) use html::html;
pub(super) use json::json;
pub(super) use text::text;
