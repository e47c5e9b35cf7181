//! What the program says by itself.

use std::io::{self, Write};

/// Says why it does not work. Where there is nobody to hear it, it is not said.
pub(super) fn say(text: &str) {
    _ = writeln!(io::stderr(), "afcgi top: {text}");
}
