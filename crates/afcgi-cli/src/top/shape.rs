//! What a page comes to: what it is of, and its tables.

use super::table::{Group, Row};
use crate::wire::escaped;

/// Rows of a table that are kept of a source; how many there are besides is said.
pub(super) const ROWS: usize = 4096;
/// Characters that are kept of a text.
pub(super) const TEXT: usize = 256;

/// What a page is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Module,
    Gateway,
    Fpm,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Module => "nginx module",
            Self::Gateway => "gateway",
            Self::Fpm => "PHP-FPM",
        }
    }

    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Module => "module",
            Self::Gateway => "gateway",
            Self::Fpm => "php-fpm",
        }
    }
}

/// The numbers of a page.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) kind: Kind,
    /// When the source was started, where it says so.
    pub(super) started: Option<u64>,
    pub(super) tables: Vec<(Group, Vec<Row>)>,
    /// Rows that were not kept.
    pub(super) left_out: usize,
}

/// A text of a source as it may be shown.
pub(super) fn clean(text: &str) -> String {
    let mut chars = text.char_indices();
    let end = chars.nth(TEXT).map_or(text.len(), |(at, _)| at);
    escaped(&text.as_bytes()[..end])
}
