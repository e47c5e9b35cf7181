//! What the gateway is to do: from options and the configuration file, checked, with defaults.
//!
//! An error of the file names its line and column and says what would be right. `file` is the file as it is written, `meaning`
//! checks it, `load` adds the options, and [`Settings`] is what comes of it. Nothing here knows of what is done with it.

mod error;
mod file;
mod load;
mod meaning;
mod network;
mod options;
mod position;
mod settings;
mod tls;
mod values;

pub use error::ConfigError;
pub use network::{Network, NetworkError};
pub use options::Options;
pub use settings::Settings;
pub(crate) use settings::{Files, HeaderRules, Host, Limits, Route, Try, Upstream};
pub use values::{LogFormat, Mode};
