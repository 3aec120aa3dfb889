//! A connection to a control plane: TCP, the handshake of this moment, HTTP/2.

use std::time::Duration;

use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::ClientConfig;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::Service as _;

use super::{IdentityError, Passport};
use crate::config::ControlPlane;

/// For connecting, and again for the first word of the server.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// Something here.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The network, or the other side.
    #[error("{}", chain(.0))]
    Transport(#[from] tonic::transport::Error),
}

impl ConnectError {
    /// Whether one side did not take the other's certificate.
    pub(crate) fn is_about_certificates(&self) -> bool {
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = next {
            let io = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
            let tls = io.and_then(|inner| inner.downcast_ref::<rustls::Error>());
            if matches!(tls, Some(rustls::Error::InvalidCertificate(_) | rustls::Error::AlertReceived(_))) {
                return true;
            }
            next = error.source();
        }
        false
    }
}

/// An error with what is behind it: tonic's own text is only "transport error".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}

/// Connects with what is in force now.
///
/// # Errors
/// [`ConnectError`]
pub(crate) async fn connect(url: &ControlPlane, passport: &Passport) -> Result<Channel, ConnectError> {
    if url.is_tls() {
        return channel(url, passport.tls(None)?).await;
    }
    let endpoint = Endpoint::from(url.uri().clone()).connect_timeout(ANSWER_WITHIN).tcp_nodelay(true);
    Ok(endpoint.connect().await?)
}

/// Connects to an https URL. tonic has no way to be given a handshake: it is told that there is none, and gets a
/// connection that has had it.
pub(super) async fn channel(url: &ControlPlane, tls: ClientConfig) -> Result<Channel, ConnectError> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let mut config = tls;
    config.alpn_protocols.clear();
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http2().wrap_connector(tcp);
    let secured = url.uri().clone();
    let service = tower::service_fn(move |_: Uri| connector.clone().call(secured.clone()));
    let endpoint = Endpoint::from(clear(url.uri())).connect_timeout(ANSWER_WITHIN);
    Ok(endpoint.connect_with_connector(service).await?)
}

/// The same address without the scheme that tonic would want to act on.
fn clear(uri: &Uri) -> Uri {
    let mut parts = uri.clone().into_parts();
    parts.scheme = Some(http::uri::Scheme::HTTP);
    // Made of the parts of a sound one.
    Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}
