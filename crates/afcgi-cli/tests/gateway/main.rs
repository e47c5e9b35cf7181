//! `afcgi gateway` as a process: what it serves, what it refuses, and what it says of it.

mod answers;
mod beside_nginx;
mod files;
mod filter;
mod heads;
mod hoarders;
mod http2;
mod hygiene;
mod interim;
mod limits;
mod logs;
mod php;
mod refusals;
mod rig;
mod routes;
mod scripts;
mod signals;
mod tls;
mod trailers;
mod unix;
mod upgrade;
mod way_out;
