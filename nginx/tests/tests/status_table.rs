//! The unit tests of what the module counts, which are beside the code in `nginx/src/status`: the module itself links to nginx, and can
//! have none.

#[allow(dead_code, unused_imports, reason = "the module uses all of it")]
#[path = "../../src/status/mod.rs"]
mod status;
