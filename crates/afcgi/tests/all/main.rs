//! The library from outside: one program, since linking each file by itself takes longer than its tests.

mod client;
mod client_balance;
mod client_fields;
mod client_filter;
mod client_limits;
mod client_log;
mod client_mount;
mod client_peers;
mod client_redirects;
mod client_retry;
mod client_single;
mod common;
mod connections;
mod docs;
mod http;
mod limits;
mod server;
mod upgrade;
mod websocket;
