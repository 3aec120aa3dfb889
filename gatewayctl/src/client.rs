//! The admin API over HTTP: one call, one typed answer. Knows nothing of commands. Bounds: 10 s to connect, 5 minutes
//! for an answer, 512 MiB of it; an event of `/v1/watch` may have 16 MiB.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use gateway_engine::manifest::{Class, Document};
use gateway_proto::admin::{Problem, collection_path};
use gateway_proto::kind::Key;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, IF_NONE_MATCH, USER_AGENT};
use http::{HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::de::DeserializeOwned;

use crate::context::Endpoint;
use crate::report::{Exit, Failure};
use crate::spans;

const CONNECT_WITHIN: Duration = Duration::from_secs(10);
const ANSWER_WITHIN: Duration = Duration::from_secs(300);
const MAX_ANSWER: usize = 512 << 20;
const MAX_EVENT: usize = 16 << 20;

/// A control plane, and who asks it.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    server: String,
    authorization: Option<HeaderValue>,
}

/// Why a call has no answer.
#[derive(Debug)]
pub(crate) enum CallError {
    /// The server said no, and why.
    Refused(Box<Problem>),
    /// There was no answer, or one that makes no sense.
    Failed { server: String, reason: String, help: &'static str },
}

/// What to do when nobody answers.
const IS_IT_THERE: &str =
    "is the control plane running? name it with --server, GATEWAY_SERVER or `gatewayctl login`";
/// What to do when somebody else answers.
const IS_IT_OURS: &str = "name a gateway's admin API with --server, GATEWAY_SERVER or `gatewayctl login`";

/// Query parameters of a call.
pub(crate) type Query<'a> = &'a [(&'a str, &'a str)];

/// A body, and header fields beyond the usual.
type Content<'a> = (Option<Vec<u8>>, &'a [(HeaderName, &'static str)]);

impl Client {
    /// A client; nothing is sent yet.
    pub(crate) fn new(endpoint: &Endpoint) -> Result<Self, Failure> {
        let server = endpoint.server.trim_end_matches('/').to_owned();
        if server.split('/').nth(2).is_some_and(|authority| authority.contains('@')) {
            let message = "the server's URL must not hold a user or password".to_owned();
            return Err(usage(message).help("give a token with --token or GATEWAY_TOKEN"));
        }
        let uri: http::Uri =
            server.parse().map_err(|error| usage(format!("{server:?} is no URL: {error}")))?;
        if !matches!(uri.scheme_str(), Some("http" | "https"))
            || uri.authority().is_none()
            || uri.query().is_some()
        {
            return Err(usage(format!("{server:?} is no URL such as http://127.0.0.1:9000")));
        }
        let authorization = match &endpoint.token {
            None => None,
            Some(token) => {
                let value = HeaderValue::from_str(&format!("Bearer {token}"));
                let mut value =
                    value.map_err(|_| usage("the token has characters that no token has".to_owned()))?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(CONNECT_WITHIN));
        let https = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls(endpoint, uri.scheme_str() == Some("https"))?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let http = legacy::Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(https);
        Ok(Client { http, server, authorization })
    }

    /// URL of the server.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// Reads something.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: Query<'_>,
    ) -> Result<T, CallError> {
        self.call(Method::GET, path, query, None).await
    }

    /// Sends something; the body is JSON.
    pub(crate) async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        query: Query<'_>,
        body: Option<Vec<u8>>,
    ) -> Result<T, CallError> {
        self.exchange(method, path, query, (body, &[])).await
    }

    /// Makes an object that must not be there yet.
    pub(crate) async fn create<T: DeserializeOwned>(
        &self,
        path: &str,
        query: Query<'_>,
        body: Vec<u8>,
    ) -> Result<T, CallError> {
        self.exchange(Method::PUT, path, query, (Some(body), &[(IF_NONE_MATCH, "*")])).await
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        query: Query<'_>,
        content: Content<'_>,
    ) -> Result<T, CallError> {
        let exchange = async {
            let response = self.send(method, path, query, content).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            let body =
                body.map_err(|error| self.failed(format!("the answer broke off: {error}")))?.to_bytes();
            if !status.is_success() {
                return Err(self.refused(status, &body));
            }
            let body: &[u8] = if body.is_empty() { b"null" } else { &body };
            serde_json::from_slice(body)
                .map_err(|error| self.strange(format!("its answer makes no sense: {error}")))
        };
        let late = || self.failed(format!("no answer within {} s", ANSWER_WITHIN.as_secs()));
        tokio::time::timeout(ANSWER_WITHIN, exchange).await.map_err(|_| late())?
    }

    /// Follows `/v1/watch`.
    pub(crate) async fn watch(&self) -> Result<Events, CallError> {
        let response = self.send(Method::GET, "/v1/watch", &[], (None, &[])).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(Events {
                body: response.into_body(),
                buffer: Vec::new(),
                server: self.server.clone(),
            });
        }
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        Err(self.refused(status, &body.map(|body| body.to_bytes()).unwrap_or_default()))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        query: Query<'_>,
        (body, fields): Content<'_>,
    ) -> Result<Response<Incoming>, CallError> {
        let mut url = format!("{}{path}", self.server);
        for (index, (name, value)) in query.iter().enumerate() {
            url.push(if index == 0 { '?' } else { '&' });
            url.push_str(name);
            url.push('=');
            url.push_str(&percent_encoded(value));
        }
        let mut request = Request::builder().method(method).uri(&url);
        request = request
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("gatewayctl/", env!("CARGO_PKG_VERSION")));
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        for (name, value) in fields {
            request = request.header(name, *value);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::from(body.unwrap_or_default()));
        let request = request.map_err(|error| self.failed(format!("cannot ask for {url}: {error}")))?;
        self.http.request(request).await.map_err(|error| CallError::Failed {
            server: self.server.clone(),
            reason: format!("cannot be reached: {}", reason(&error)),
            help: remedy(&error),
        })
    }

    fn failed(&self, reason: String) -> CallError {
        CallError::Failed { server: self.server.clone(), reason, help: IS_IT_THERE }
    }

    /// What answers is no gateway.
    fn strange(&self, reason: String) -> CallError {
        CallError::Failed { server: self.server.clone(), reason, help: IS_IT_OURS }
    }

    fn refused(&self, status: http::StatusCode, body: &[u8]) -> CallError {
        match serde_json::from_slice::<Problem>(body) {
            Ok(problem) => CallError::Refused(Box::new(problem)),
            Err(_) => {
                self.strange(format!("answered {status} without saying why: is it a gateway's admin API?"))
            }
        }
    }
}

/// REST path of one object.
pub(crate) fn object_path(key: &Key) -> String {
    collection_path(key.kind, Some(&percent_encoded(&key.name)))
}

fn usage(message: String) -> Failure {
    Failure::new(Exit::Usage, message)
}

/// The innermost cause is the one that helps: "connection refused", not "client error (Connect)".
fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// What to do about a connection or an exchange that failed: what TLS says is worth more than that nobody answered.
fn remedy(error: &(dyn std::error::Error + 'static)) -> &'static str {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(tls) = cause.downcast_ref() {
            return tls_remedy(tls);
        }
        if cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse) {
            return "it does not answer in HTTP: does it want https:// instead of http://?";
        }
        // An I/O error hides what it was made of from `source`.
        next = match cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => cause.source(),
        };
    }
    IS_IT_THERE
}

fn tls_remedy(error: &rustls::Error) -> &'static str {
    use rustls::{CertificateError, Error};
    match error {
        Error::InvalidMessage(_) => "it does not speak TLS: does it want http:// instead of https://?",
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "name the authority that signed its certificate with --ca-file or GATEWAY_CA_FILE"
        }
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "its certificate is for other names: reach it by one of them",
        // The TLS library has no variant of its own for it.
        Error::InvalidCertificate(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "its certificate is that of an authority (CA:TRUE): give the server one that the authority signed"
        }
        _ => "look at its certificate, and at --ca-file or GATEWAY_CA_FILE",
    }
}

fn tls(endpoint: &Endpoint, wanted: bool) -> Result<rustls::ClientConfig, Failure> {
    let builder = rustls::ClientConfig::builder();
    let mut roots = rustls::RootCertStore::empty();
    if let Some(path) = endpoint.ca_file.as_ref().filter(|_| wanted) {
        let unusable = |why: &dyn fmt::Display| {
            Failure::runtime(format!("cannot use --ca-file {}: {why}", path.display()))
        };
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unusable(&error))? {
            roots.add(certificate.map_err(|error| unusable(&error))?).map_err(|error| unusable(&error))?;
        }
        if roots.is_empty() {
            return Err(unusable(&"it holds no certificate"));
        }
    } else if wanted {
        let native = builder.with_native_roots();
        let native = native
            .map_err(|error| Failure::runtime(format!("cannot read the system's certificates: {error}")))?;
        return Ok(native.with_no_client_auth());
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/,=".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

impl CallError {
    /// The failure of a command, with what is wrong shown in these documents.
    pub(crate) fn about(self, documents: &[Document]) -> Failure {
        match self {
            CallError::Failed { server, reason, help } => {
                Failure::runtime(format!("{server}: {reason}")).help(help)
            }
            CallError::Refused(problem) => {
                let mut failure = Failure::new(exit(&problem.slug), sentence(&problem));
                (failure.findings, failure.more) =
                    spans::findings(&problem.errors, documents, Class::Invalid);
                if problem.slug == "unauthorized" {
                    failure = failure.help(
                        "give a token with --token or GATEWAY_TOKEN, or save one with `gatewayctl login`",
                    );
                }
                failure
            }
        }
    }

    /// The object is not there.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, CallError::Refused(problem) if problem.slug == "not_found")
    }

    /// Somebody else was first: the head is another, or the name is taken.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, CallError::Refused(problem) if problem.slug == "conflict")
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        error.about(&[])
    }
}

/// What there is to say besides the findings: of one fault the detail says the same again.
fn sentence(problem: &Problem) -> String {
    match problem.errors.as_slice() {
        [only] if problem.detail.ends_with(&only.message) => String::new(),
        [] | [_] if problem.detail.is_empty() => problem.title.to_lowercase(),
        [] | [_] => problem.detail.clone(),
        many => format!("{} faults, nothing is changed", many.len()),
    }
}

fn exit(slug: &str) -> Exit {
    match slug {
        "validation_failed" | "too_large" => Exit::Invalid,
        "conflict" | "in_use" | "precondition_failed" => Exit::Conflict,
        _ => Exit::Runtime,
    }
}

/// The events of `/v1/watch`.
#[derive(Debug)]
pub(crate) struct Events {
    body: Incoming,
    buffer: Vec<u8>,
    server: String,
}

impl Events {
    /// The name of the next event; `None` when the server ends the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<String>, CallError> {
        let failed = |server: &str, reason: String| CallError::Failed {
            server: server.to_owned(),
            reason,
            help: IS_IT_THERE,
        };
        loop {
            if let Some(end) = self.buffer.windows(2).position(|two| two == b"\n\n") {
                let event: Vec<u8> = self.buffer.drain(..end + 2).collect();
                if let Some(name) = event_name(&event) {
                    return Ok(Some(name));
                }
                continue;
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            let frame =
                frame.map_err(|error| failed(&self.server, format!("the stream broke off: {error}")))?;
            if let Some(data) = frame.data_ref() {
                self.buffer.extend(data.iter().filter(|&&byte| byte != b'\r'));
            }
            if self.buffer.len() > MAX_EVENT {
                return Err(failed(&self.server, "an event of the stream is too large".to_owned()));
            }
        }
    }
}

/// The `event:` of one block; comments (heartbeats) have none.
fn event_name(block: &[u8]) -> Option<String> {
    let block = std::str::from_utf8(block).ok()?;
    block.lines().find_map(|line| line.strip_prefix("event:")).map(|name| name.trim().to_owned())
}

#[cfg(test)]
mod tests;
