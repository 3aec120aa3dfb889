//! A control plane under test, and a client of its admin API.

use std::net::SocketAddr;

use bytes::Bytes;
use gateway_control_plane::config::Config;
use gateway_control_plane::{Running, run};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A control plane that serves, and its first admin token.
pub(crate) struct Plane {
    pub(crate) running: Running,
    pub(crate) admin: Api,
    pub(crate) dir: TempDir,
}

/// The admin API as somebody with a token sees it.
#[derive(Clone)]
pub(crate) struct Api {
    address: SocketAddr,
    token: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

pub(crate) fn settings(dir: &TempDir) -> Config {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    Config { admin_listen: any, stream_listen: any, ..Config::in_dir(dir.path()) }
}

impl Plane {
    pub(crate) async fn start() -> Plane {
        let dir = tempfile::tempdir().expect("a folder");
        Plane::start_in(dir).await
    }

    /// On a folder that may hold a store already.
    pub(crate) async fn start_in(dir: TempDir) -> Plane {
        let running = run(settings(&dir)).await.expect("starts");
        let token = std::fs::read_to_string(dir.path().join("admin-token")).expect("the token file");
        let admin = Api::new(running.admin, token.trim());
        Plane { running, admin, dir }
    }

    /// Makes a token and the client that has it.
    pub(crate) async fn with_token(&self, name: &str, role: &str, namespaces: &[&str]) -> Api {
        let wish = json!({ "name": name, "role": role, "namespaces": namespaces });
        let answer = self.admin.post("/v1/tokens", &wish).await.expect(StatusCode::CREATED);
        Api::new(self.running.admin, answer["token"].as_str().expect("shown once"))
    }

    pub(crate) async fn stop(self) -> TempDir {
        self.running.shutdown().await;
        self.dir
    }
}

impl Api {
    pub(crate) fn new(address: SocketAddr, token: &str) -> Api {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Api { address, token: token.to_owned(), client }
    }

    /// The same client without or with another token.
    pub(crate) fn with(&self, token: &str) -> Api {
        Api { token: token.to_owned(), ..self.clone() }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], None).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, &[], None).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.json(Method::POST, path, &[], body).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.json(Method::PUT, path, &[], body).await
    }

    pub(crate) async fn json(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Answer {
        let mut all = vec![("content-type", "application/json")];
        all.extend(headers);
        self.send(method, path, &all, Some(body.to_string().into())).await
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Bytes>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        if !self.token.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.token));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.unwrap_or_default())).expect("a request");
        let response = self.client.request(request).await.expect("an answer");
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("whole").to_bytes();
        Answer {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8(body.to_vec()).expect("text"),
        }
    }

    /// Applies documents as one batch and returns the revision.
    pub(crate) async fn apply(&self, documents: &[Value]) -> u64 {
        let answer = self.post("/v1/apply", &json!({ "resources": documents })).await.expect(StatusCode::OK);
        answer["revision"].as_u64().expect("a number")
    }

    /// Opens `/v1/watch`.
    pub(crate) async fn events(&self) -> Events {
        self.try_events().await.expect("a place")
    }

    /// Opens `/v1/watch` if there is a place.
    pub(crate) async fn try_events(&self) -> Option<Events> {
        let request = Request::builder()
            .uri(format!("http://{}/v1/watch", self.address))
            .header("authorization", format!("Bearer {}", self.token))
            .body(Full::default())
            .expect("a request");
        let response = self.client.request(request).await.expect("an answer");
        if response.status() != StatusCode::OK {
            return None;
        }
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Some(Events { body: response.into_body(), read: String::new() })
    }
}

/// A stream of server-sent events.
pub(crate) struct Events {
    body: hyper::body::Incoming,
    read: String,
}

impl Events {
    /// Waits until the server ends the stream, whatever it says before.
    pub(crate) async fn ended(mut self) {
        let end = async { while self.body.frame().await.is_some_and(|frame| frame.is_ok()) {} };
        tokio::time::timeout(std::time::Duration::from_secs(20), end).await.expect("within 20 s");
    }

    /// The next event, name and data.
    pub(crate) async fn next(&mut self) -> (String, Value) {
        loop {
            if let Some(end) = self.read.find("\n\n") {
                let text: String = self.read.drain(..end + 2).collect();
                let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
                if let (Some(name), Some(data)) = (field("event:"), field("data:")) {
                    return (name.to_owned(), serde_json::from_str(data).expect("JSON"));
                }
                continue;
            }
            let frame = self.body.frame().await.expect("goes on").expect("unbroken");
            if let Ok(data) = frame.into_data() {
                self.read.push_str(std::str::from_utf8(&data).expect("text"));
            }
        }
    }
}

impl Answer {
    /// The body as JSON, of an answer with this status.
    #[track_caller]
    pub(crate) fn expect(&self, status: StatusCode) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        serde_json::from_str(&self.text).expect("JSON")
    }

    /// The problem, with this status and slug.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, slug: &str) -> Value {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{} {}", self.status, self.text);
        let problem: Value = serde_json::from_str(&self.text).expect("JSON");
        assert_eq!((self.status.as_u16(), problem["type"].as_str()), (status, Some(slug)), "{problem}");
        assert_eq!(problem["status"], status);
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{problem}");
        problem
    }

    pub(crate) fn etag(&self) -> &str {
        self.headers["etag"].to_str().expect("text")
    }
}

pub(crate) fn listener(name: &str, port: u16) -> Value {
    json!({
        "apiVersion": "gateway/v1",
        "kind": "Listener",
        "metadata": { "name": name },
        "spec": { "address": "127.0.0.1", "port": port },
    })
}

pub(crate) fn upstream(name: &str) -> Value {
    json!({
        "apiVersion": "gateway/v1",
        "kind": "Upstream",
        "metadata": { "name": name },
        "spec": { "targets": [{ "address": "127.0.0.1:9101" }] },
    })
}

/// A route to an upstream, for its own path.
pub(crate) fn route(name: &str, upstream: &str) -> Value {
    json!({
        "apiVersion": "gateway/v1",
        "kind": "Route",
        "metadata": { "name": name },
        "spec": {
            "matches": [{ "path": { "prefix": format!("/{name}") } }],
            "forward": { "backends": [{ "upstream": upstream }] },
        },
    })
}

/// The same document in another namespace.
pub(crate) fn in_namespace(namespace: &str, mut document: Value) -> Value {
    document["metadata"]["namespace"] = json!(namespace);
    document
}

/// The same document with a label.
pub(crate) fn labelled(label: &str, value: &str, mut document: Value) -> Value {
    document["metadata"]["labels"][label] = json!(value);
    document
}
