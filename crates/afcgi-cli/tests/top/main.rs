//! `afcgi top` as a process: with sources that do what they should not, for Prometheus, and on a terminal.

mod sources;
mod terminal;
mod web;
