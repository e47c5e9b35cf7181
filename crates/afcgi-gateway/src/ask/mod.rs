//! Applications are asked: for a response, for leave (authorizers), for what becomes of a file (filters), and for tunnels.

pub(crate) mod application;
pub(crate) mod authorizer;
mod body;
pub(crate) mod filter;
mod outcome;
mod upgrade;

pub(crate) use body::RequestBody;
pub(crate) use outcome::Answer;
pub(crate) use upgrade::Offer;
