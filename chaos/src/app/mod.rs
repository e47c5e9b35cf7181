//! The applications of ours, each at many addresses in one process: `chaos own` and `chaos bad`.

pub mod bad;
pub mod own;

use std::collections::HashMap;
use std::path::PathBuf;
use std::str::FromStr;

/// `NAME=PATH`: an application's name and its socket.
#[derive(Clone, Debug)]
pub struct Named {
    /// What it says that it is.
    pub name: String,
    /// Where it listens.
    pub path: PathBuf,
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, path) = text.split_once('=').ok_or("expected NAME=PATH")?;
        Ok(Self {
            name: name.to_owned(),
            path: path.into(),
        })
    }
}

/// What a request asks for in its query.
pub(crate) struct Asked {
    pub(crate) token: u64,
    pub(crate) blocks: usize,
    pub(crate) delay: u64,
    pub(crate) pause: u64,
    pub(crate) announced: bool,
    pub(crate) fault: String,
}

impl Asked {
    pub(crate) fn new(query: &str) -> Self {
        let pairs: HashMap<&str, &str> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .collect();
        let text = |name| pairs.get(name).copied().unwrap_or_default();
        let number = |name| text(name).parse().unwrap_or(0);
        Self {
            token: u64::from_str_radix(text("t"), 16).unwrap_or(0),
            blocks: number("n") as usize,
            delay: number("ms"),
            pause: number("p"),
            announced: number("l") != 0,
            fault: text("do").to_owned(),
        }
    }
}
