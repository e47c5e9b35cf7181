//! The module in nginx: one program, since linking each file by itself takes longer than its tests.

mod beside_plain;
mod demo;
mod directives;
mod isolation;
mod leaving;
mod load;
mod many_addresses;
mod names;
mod odd_apps;
mod outages;
mod php;
mod production;
mod status;
mod websocket;
