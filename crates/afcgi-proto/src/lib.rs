//! The FastCGI protocol without IO.
//!
//! Bytes that were received go in, events come out, and bytes to transmit come out: there is no
//! socket, clock, task or waker here. Where a deadline matters the caller passes the time in and
//! asks for the next one. The rules of the protocol are numbered (`R-12`) in `docs/protocol.md`;
//! code and tests cite them.
//!
//! Two state machines stand over one core:
//!
//! - [`app::Connection`] is the application's side: it accepts requests and answers them.
//! - [`web::Connection`] is the web server's side: it opens requests and reads the answers.
//!   [`relay::Relay`] puts the records of a FastCGI client that knows only one request per
//!   connection (nginx's stock module) onto it.
//!
//! The core: [`record`] (the wire format), [`reader`] (records out of arbitrary pieces),
//! [`params`] and [`values`] (name-value pairs), [`table`] (request ids, slots, generations),
//! [`writer`] (bounded output, in turns), [`inbox`] (received content of one stream), [`credit`]
//! (flow control, an extension that both sides have to agree on: `docs/flow-control.md`), [`upgrade`]
//! (which requests ask for one: `docs/upgrade.md`), and [`cgi`] (the response head).
//!
//! Over connections stands [`pool`]: which of those to an address a request goes to, and when one is
//! opened, asked or closed.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unreachable
    )
)]

pub mod app;
pub mod cgi;
pub mod credit;
mod error;
pub mod inbox;
pub mod params;
pub mod pool;
pub mod reader;
pub mod record;
pub mod relay;
pub mod table;
pub mod upgrade;
pub mod values;

pub mod web;
pub mod writer;

pub use error::{BeginError, ConnectionError, Gone, RequestError};
pub use params::Params;
pub use pool::verdict::{Patience, Verdict};
pub use record::{BeginRequest, EndRequest, Header, ProtocolStatus, RecordType, RequestId, Role};
pub use table::Handle;
pub use values::Values;
