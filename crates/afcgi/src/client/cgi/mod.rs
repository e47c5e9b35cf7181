//! HTTP to CGI and back: [`http::Request`] to parameters, the head of a CGI response to that of an
//! [`http::Response`].

pub(super) mod answer;
pub(super) mod hop;
pub(super) mod mapping;
pub(super) mod params;
