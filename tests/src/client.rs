//! Clients: one-shot requests, the admin API with a token, and a closed-loop load that counts what failed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::wait;

/// A pooled HTTP client.
#[derive(Clone, Debug)]
pub struct Http(Client<HttpConnector, Full<Bytes>>);

impl Default for Http {
    fn default() -> Self {
        let mut builder = Client::builder(TokioExecutor::new());
        // Retrying would hide exactly the failures that the tests count.
        builder.pool_timer(TokioTimer::new()).retry_canceled_requests(false);
        Http(builder.build_http())
    }
}

impl Http {
    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// When there is no complete answer in time.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> anyhow::Result<Response<Bytes>> {
        let exchange = async {
            let (head, body) = self.0.request(request).await?.into_parts();
            anyhow::Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
        };
        wait::within("an answer", exchange).await?
    }

    /// GET `path` from `address`, with a Host header.
    ///
    /// # Errors
    /// Those of [`Http::send`].
    pub async fn get(&self, address: SocketAddr, host: &str, path: &str) -> anyhow::Result<Response<Bytes>> {
        let request = Request::get(format!("http://{address}{path}")).header(http::header::HOST, host);
        self.send(request.body(Full::default())?).await
    }
}

/// The admin API, with a token.
#[derive(Clone, Debug)]
pub struct Admin {
    http: Http,
    address: SocketAddr,
    token: String,
}

impl Admin {
    /// A client of the control plane at `address`.
    pub fn new(address: SocketAddr, token: impl Into<String>) -> Self {
        Admin { http: Http::default(), address, token: token.into() }
    }

    /// One call; the answer is JSON or empty.
    ///
    /// # Errors
    /// When there is no answer, or it is no JSON. An error status is not an error here.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<(u16, Value)> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address))
            .header(http::header::AUTHORIZATION, format!("Bearer {}", self.token))
            .header(http::header::CONTENT_TYPE, "application/json");
        let answer = self.http.send(request.body(Full::from(body))?).await?;
        let value = match answer.body() {
            empty if empty.is_empty() => Value::Null,
            json => serde_json::from_slice(json)
                .with_context(|| format!("{path}: not JSON: {}", String::from_utf8_lossy(json)))?,
        };
        Ok((answer.status().as_u16(), value))
    }

    /// A GET that must answer 200.
    ///
    /// # Errors
    /// When it does not.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let (status, value) = self.call(Method::GET, path, None).await?;
        anyhow::ensure!(status == 200, "GET {path}: {status}: {value}");
        Ok(value)
    }

    /// The sum of a metric's values.
    ///
    /// # Errors
    /// When there is no answer, or none that holds it.
    pub async fn metrics(&self, name: &str) -> anyhow::Result<f64> {
        let request = Request::get(format!("http://{}/metrics", self.address))
            .header(http::header::AUTHORIZATION, format!("Bearer {}", self.token));
        let answer = self.http.send(request.body(Full::default())?).await?;
        let text = String::from_utf8_lossy(answer.body()).into_owned();
        let value =
            |line: &str| line.starts_with(name).then(|| line.rsplit(' ').next()?.parse::<f64>().ok())?;
        let values: Vec<f64> = text.lines().filter_map(value).collect();
        anyhow::ensure!(!values.is_empty(), "there is no {name} in {text}");
        Ok(values.iter().sum())
    }

    /// Applies objects; must answer 200. Returns the revision.
    ///
    /// # Errors
    /// When it does not.
    pub async fn apply(&self, resources: &[Value]) -> anyhow::Result<u64> {
        let (status, value) = self
            .call(Method::POST, "/v1/apply", Some(&serde_json::json!({ "resources": resources })))
            .await?;
        anyhow::ensure!(status == 200, "apply: {status}: {value}");
        value["revision"].as_u64().with_context(|| format!("no revision in {value}"))
    }
}

/// Counts of a load.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Answers with status 200.
    pub ok: u64,
    /// What went wrong, at most 20 kept.
    pub failures: Vec<String>,
}

/// A closed-loop load: each connection sends its next request when it has the last answer.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    done: watch::Sender<u64>,
    tasks: JoinSet<Tally>,
}

impl Load {
    /// Starts `connections` loops of GET `path`, spread over `addresses`.
    pub fn start(addresses: &[SocketAddr], host: &str, path: &str, connections: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (done, _) = watch::channel(0);
        let mut tasks = JoinSet::new();
        for address in addresses.iter().copied().cycle().take(connections) {
            let (stop, done) = (Arc::clone(&stop), done.clone());
            let (host, path) = (host.to_owned(), path.to_owned());
            tasks.spawn(async move {
                let http = Http::default();
                let mut tally = Tally::default();
                while !stop.load(Ordering::Relaxed) {
                    match http.get(address, &host, &path).await {
                        Ok(answer) if answer.status() == 200 => tally.ok += 1,
                        Ok(answer) => tally.fail(format!("{} {:?}", answer.status(), answer.body())),
                        Err(error) => tally.fail(format!("{error:#}")),
                    }
                    done.send_modify(|done| *done += 1);
                }
                tally
            });
        }
        Load { stop, done, tasks }
    }

    /// Waits until so many more requests were answered or have failed: a pause that is measured in work.
    ///
    /// # Errors
    /// When they are not.
    pub async fn more(&self, requests: u64) -> anyhow::Result<()> {
        let mut done = self.done.subscribe();
        let goal = *done.borrow() + requests;
        wait::within("requests of the load", done.wait_for(|done| *done >= goal)).await??;
        Ok(())
    }

    /// Stops it and adds up the counts.
    pub async fn finish(mut self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut total = Tally::default();
        while let Some(tally) = self.tasks.join_next().await {
            match tally {
                Ok(tally) => total.add(tally),
                Err(error) => total.fail(error.to_string()),
            }
        }
        total
    }
}

impl Tally {
    /// Counts those of another one too.
    pub fn add(&mut self, other: Tally) {
        self.ok += other.ok;
        other.failures.into_iter().for_each(|failure| self.fail(failure));
    }

    /// Keeps what went wrong.
    pub fn fail(&mut self, failure: String) {
        if self.failures.len() < 20 {
            self.failures.push(failure);
        }
    }
}
