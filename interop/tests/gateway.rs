//! The gateway of this project in front of `afcgitest` and of Go's net/http/fcgi: what holds behind other web servers holds here, on one
//! connection.

use afcgi_interop::gateway::Kind;
use afcgi_interop::suite::{self, Rig};
use afcgi_interop::websocket;

macro_rules! behind {
    ($($name:ident = $rig:ident: $($test:ident)*;)*) => {$(
        mod $name {
            use super::*;
            $(
                #[tokio::test]
                async fn $test() {
                    suite::$test(Rig::$rig(Kind::Afcgi).await).await;
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

/// Messages of every length go both ways, and each side can close.
#[tokio::test]
async fn tunnels_websockets() {
    let app = afcgi_interop::app::App::websocket(&[]).await;
    let gateway = afcgi_interop::gateway::Gateway::start(Kind::Afcgi, app.port()).await;
    websocket::echoes(&gateway.url("/echo")).await;
    websocket::echoes_megabytes(&gateway.url("/echo")).await;
    websocket::the_client_closes(&gateway.url("/echo")).await;
    websocket::the_application_closes(&gateway.url("/board")).await;
}
