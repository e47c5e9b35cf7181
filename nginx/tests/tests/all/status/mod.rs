//! What operators see: the variables in the access log, and the page of `fastcgi_multiplex_status`.

mod page;
mod support;
mod variables;
