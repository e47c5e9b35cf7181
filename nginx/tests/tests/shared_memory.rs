//! The unit tests of what workers share, which are beside the code in `nginx/src`: the module itself links to nginx, and can have none.

#[allow(dead_code, unused_imports, reason = "the module uses all of it")]
#[path = "../../src/status/mod.rs"]
mod status;

#[allow(dead_code, reason = "the module uses all of it")]
#[path = "../../src/verdicts.rs"]
mod verdicts;
