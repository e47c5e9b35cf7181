//! `afcgi gateway` as a process: what it serves, what it refuses, and what it says of it.

mod files;
mod filter;
mod hygiene;
mod limits;
mod php;
mod refusals;
mod rig;
mod routes;
mod signals;
mod tls;
