//! What the program says by itself: messages, and an exit status.

use std::io::{self, Write};

/// The exit status of `--check`.
pub(super) const CHECKED: u8 = 3;

/// A message of the program itself.
pub(super) fn say(text: &str) {
    // Where nobody hears it, it is not said.
    _ = writeln!(io::stderr().lock(), "afcgi tap: {text}");
}
