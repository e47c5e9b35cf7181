//! Where something stands in the configuration file.

use std::fmt;
use std::path::Path;

use toml::Spanned;

use super::error::ConfigError;

/// Tells byte offsets as line and column.
pub(super) struct Position<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
}

impl Position<'_> {
    pub(super) fn error(&self, offset: usize, message: impl fmt::Display) -> ConfigError {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        let column = before[start..].chars().count() + 1;
        let path = self.path.display();
        ConfigError::new(format!("{path}:{line}:{column}: {message}"))
    }

    pub(super) fn at<T>(&self, spanned: &Spanned<T>, message: impl fmt::Display) -> ConfigError {
        self.error(spanned.span().start, message)
    }
}
