//! `afcgi request` as a process: what it sends, what it shows, and how it ends.

mod answers;
mod failures;
mod hostile;
mod rig;
mod shown;
mod websocket;
