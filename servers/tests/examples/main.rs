//! Tests of the example servers, by a FastCGI client and behind the web servers that people use.

mod authorizer;
mod axum_app;
#[path = "../common/mod.rs"]
mod common;
mod events;
mod filter;
mod hello;
mod upload;
mod usage;
mod websocket;
