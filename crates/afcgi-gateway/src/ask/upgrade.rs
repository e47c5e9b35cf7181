//! Tunnels: WebSocket, by `Upgrade` of HTTP/1.1 or by an extended CONNECT of HTTP/2 (RFC 8441), which becomes the
//! former for the application (`docs/upgrade.md`).

use std::io;

use afcgi::client::{Upgraded, asks_for_upgrade};
use h2::ext::Protocol;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, Version};
use hyper::upgrade::OnUpgrade;

use crate::front::OnTunnel;

/// Sixteen bytes in base64. What it is for is between a client and its server, which is the gateway here: HTTP/2 has no such
/// field, and the answer to it goes nowhere.
const KEY: HeaderValue = HeaderValue::from_static("YWZjZ2kgYWZjZ2kgYWZjZw==");

/// The client's end of a tunnel that may open.
pub(crate) enum Offer {
    Upgrade(OnUpgrade),
    /// An extended CONNECT.
    Extended(OnTunnel),
}

impl Offer {
    /// What a request asks for, that is made one of HTTP/1.1 if it was not. The error is the status to refuse it with.
    pub(crate) fn of(parts: &mut Parts, has_body: bool) -> Result<Option<Self>, StatusCode> {
        let on_upgrade = parts.extensions.remove::<OnUpgrade>();
        if parts.method == Method::CONNECT {
            let protocol = parts.extensions.remove::<Protocol>();
            let on_tunnel = parts.extensions.remove::<OnTunnel>();
            let (Some(protocol), Some(on_tunnel)) = (protocol, on_tunnel) else {
                // For proxies.
                return Err(StatusCode::METHOD_NOT_ALLOWED);
            };
            let protocol =
                HeaderValue::from_str(protocol.as_str()).map_err(|_| StatusCode::BAD_REQUEST)?;
            parts.method = Method::GET;
            parts.version = Version::HTTP_11;
            parts.headers.insert(UPGRADE, protocol);
            parts
                .headers
                .insert(CONNECTION, HeaderValue::from_static("upgrade"));
            parts.headers.insert(SEC_WEBSOCKET_KEY, KEY);
            // RFC 9220 section 3.
            return match asks_for_upgrade(parts, has_body) {
                true => Ok(Some(Self::Extended(on_tunnel))),
                false => Err(StatusCode::NOT_IMPLEMENTED),
            };
        }
        match on_upgrade.filter(|_| asks_for_upgrade(parts, has_body)) {
            Some(on_upgrade) => Ok(Some(Self::Upgrade(on_upgrade))),
            None => {
                // There would be nothing to tunnel to.
                parts.headers.remove(UPGRADE);
                Ok(None)
            }
        }
    }

    /// Makes the application's answer, a status 101, one that the client understands.
    pub(crate) fn accept<B>(&self, response: &mut Response<B>) {
        if self.is_extended() {
            *response.status_mut() = StatusCode::OK;
            for name in [UPGRADE, CONNECTION, SEC_WEBSOCKET_ACCEPT] {
                response.headers_mut().remove(name);
            }
        } else {
            response
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("upgrade"));
        }
    }

    /// Whether the client would take an ordinary response with this status for a tunnel.
    pub(crate) fn is_misled_by(&self, status: StatusCode) -> bool {
        self.is_extended() && status.is_success()
    }

    fn is_extended(&self) -> bool {
        matches!(self, Self::Extended(_))
    }

    /// Joins the two ends until both are done.
    pub(crate) async fn join(self, tunnel: Upgraded) -> io::Result<()> {
        match self {
            Self::Upgrade(client) => tunnel.join(client).await,
            Self::Extended(client) => tunnel.join_io(client.tunnel().await?).await,
        }
    }
}
