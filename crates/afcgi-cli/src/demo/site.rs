//! What the application has, beside its routes.

use afcgi::{Stats, Stopping};

use super::chat::Chat;
use super::load::Load;
use super::pages::Pages;
use super::room::Room;

/// What there may only be so many of, by its kind.
#[derive(Clone, Debug)]
pub(super) struct Rooms {
    pub(super) pages: Room,
    pub(super) clocks: Room,
    pub(super) sockets: Room,
    pub(super) downloads: Room,
}

/// What all requests share.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) stats: Stats,
    pub(super) stopping: Stopping,
    pub(super) chat: Chat,
    pub(super) pages: Pages,
    pub(super) load: Load,
    pub(super) rooms: Rooms,
    /// Why there is no room for more clients, if it is the limit of open files.
    pub(super) descriptors: Option<u64>,
    /// The number of this run.
    pub(super) run: u64,
}
