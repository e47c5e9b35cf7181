//! What the tests of the nginx module share: an nginx with the module, slow clients, and many applications.
//!
//! The module must have been built (`make module`). It is tested in the nginx that it was built for: the one in `nginx/build` if there is
//! one, otherwise the one of the distribution.

#![forbid(unsafe_code)]

pub mod crowd;
pub mod nginx;
pub mod slow;
