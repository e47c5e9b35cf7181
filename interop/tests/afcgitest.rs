//! `afcgitest` behind the web servers that people have: stock nginx, HAProxy, lighttpd, Apache and Caddy.

use afcgi_interop::gateway::Kind;
use afcgi_interop::suite::{self, Rig};

macro_rules! behind {
    ($($name:ident = $kind:ident: $($test:ident)*;)*) => {$(
        mod $name {
            use super::*;
            $(
                #[tokio::test]
                async fn $test() {
                    suite::$test(Rig::afcgitest(Kind::$kind).await).await;
                }
            )*
        }
    )*};
}

behind! {
    nginx = Nginx: says_hello echoes_a_body echoes_megabytes sends_bytes shows_parameters sets_the_status logs_stderr streams_events counts
        holds_fifty_requests survives_a_client_that_leaves survives_a_broken_upload;
    haproxy = Haproxy: says_hello echoes_a_body echoes_megabytes sends_bytes shows_parameters sets_the_status logs_stderr streams_events counts
        holds_fifty_requests survives_a_client_that_leaves survives_a_broken_upload;
    lighttpd = Lighttpd: says_hello echoes_a_body echoes_megabytes sends_bytes shows_parameters sets_the_status logs_stderr streams_events counts
        holds_fifty_requests survives_a_client_that_leaves survives_a_broken_upload;
    apache = Apache: says_hello echoes_a_body echoes_megabytes sends_bytes shows_parameters sets_the_status logs_stderr streams_events counts
        holds_fifty_requests survives_a_client_that_leaves survives_a_broken_upload;
    caddy = Caddy: says_hello echoes_a_body echoes_megabytes sends_bytes shows_parameters sets_the_status logs_stderr streams_events counts
        holds_fifty_requests survives_a_client_that_leaves survives_a_broken_upload;
}
