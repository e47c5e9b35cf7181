//! The module of this project in nginx, in front of `afcgitest` and of Go's net/http/fcgi: what holds behind other web servers holds here, on
//! one connection for each nginx worker.

use afcgi_interop::gateway::Kind;
use afcgi_interop::suite::{self, Rig};

macro_rules! behind {
    ($($name:ident = $rig:ident: $($test:ident)*;)*) => {$(
        mod $name {
            use super::*;
            $(
                #[tokio::test]
                async fn $test() {
                    suite::$test(Rig::$rig(Kind::Module).await).await;
                }
            )*
        }
    )*};
}

// Go's package does not hear ABORT_REQUEST once STDIN has ended, so what its handler writes on must be dropped until it is done.
behind! {
    afcgitest = afcgitest: says_hello echoes_a_body echoes_megabytes sends_bytes shows_parameters sets_the_status
        logs_stderr streams_events counts holds_fifty_requests shares_connections survives_a_client_that_leaves
        survives_a_broken_upload;
    go = go: says_hello echoes_a_body echoes_megabytes sends_bytes shows_parameters sets_the_status streams_events
        counts holds_fifty_requests shares_connections serves_on_when_clients_leave survives_a_broken_upload;
}
