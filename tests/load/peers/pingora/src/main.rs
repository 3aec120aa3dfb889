//! The Pingora peer: one upstream, routes by host and path prefix, and what the variants of the benchmark ask for.
//! Settings are `name=value` arguments, written by `tests/load/peers/pingora.py`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::net::IpAddr;
use std::sync::Mutex;

use async_trait::async_trait;
use http::{Method, StatusCode};
use pingora::http::ResponseHeader;
use pingora::listeners::tls::TlsSettings;
use pingora::prelude::*;
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::configuration::{Opt, ServerConf};
use pingora::upstreams::peer::HttpPeer;

const ORIGIN: &str = "https://app.example.com";
const MAX_BODY: usize = 1 << 20;
const MAX_HEAD: usize = 16 << 10;
const MAX_URI: usize = 4 << 10;

struct Proxy {
    upstream: String,
    /// First path segment to nothing, by host (empty: any host); none: everything is forwarded.
    routes: Option<HashMap<String, HashMap<String, ()>>>,
    log: Option<Mutex<BufWriter<File>>>,
    policies: bool,
}

/// What one request remembers: whether its origin may read the answer.
#[derive(Default)]
struct Context {
    cors: bool,
}

impl Proxy {
    fn has_route(&self, session: &Session) -> bool {
        let Some(routes) = &self.routes else { return true };
        let request = session.req_header();
        let host = request.headers.get("host").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let segment = request.uri.path().split('/').nth(1).unwrap_or_default();
        routes.get(host).or_else(|| routes.get("")).is_some_and(|paths| paths.contains_key(segment))
    }

    /// The status that refuses the request, if a policy does.
    fn refusal(session: &Session) -> Option<u16> {
        let client = session.client_addr().and_then(|address| address.as_inet()).map(|address| address.ip());
        let allowed = match client {
            Some(IpAddr::V4(ip)) => match ip.octets() {
                [10, 66, ..] => false,
                [10, ..] | [127, ..] => true,
                _ => false,
            },
            _ => false,
        };
        let request = session.req_header();
        let length =
            request.headers.get("content-length").and_then(|value| value.to_str().ok()?.parse().ok());
        let head: usize =
            request.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        match () {
            () if !allowed => Some(403),
            () if length.is_some_and(|length: usize| length > MAX_BODY) => Some(413),
            () if request.raw_path().len() > MAX_URI => Some(414),
            () if head > MAX_HEAD => Some(431),
            () => None,
        }
    }
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context::default()
    }

    async fn request_filter(&self, session: &mut Session, context: &mut Context) -> Result<bool> {
        if !self.has_route(session) {
            session.respond_error(404).await?;
            return Ok(true);
        }
        if !self.policies {
            return Ok(false);
        }
        if let Some(status) = Self::refusal(session) {
            session.respond_error(status).await?;
            return Ok(true);
        }
        let request = session.req_header();
        context.cors = request.headers.get("origin").is_some_and(|origin| origin == ORIGIN);
        let preflight = request.method == Method::OPTIONS
            && request.headers.contains_key("access-control-request-method");
        if context.cors && preflight {
            let mut response = ResponseHeader::build(StatusCode::NO_CONTENT, Some(4))?;
            response.insert_header("access-control-allow-origin", ORIGIN)?;
            response.insert_header("access-control-allow-methods", "GET, POST")?;
            session.write_response_header(Box::new(response), true).await?;
            return Ok(true);
        }
        Ok(false)
    }

    async fn upstream_peer(&self, _session: &mut Session, _context: &mut Context) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.upstream.as_str(), false, String::new())))
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        request: &mut RequestHeader,
        _context: &mut Context,
    ) -> Result<()> {
        if self.policies {
            request.remove_header("x-client-version");
            request.insert_header("x-gateway", "benchmark")?;
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        context: &mut Context,
    ) -> Result<()> {
        if self.policies {
            response.remove_header("server");
            response.insert_header("x-content-type-options", "nosniff")?;
            response.insert_header("strict-transport-security", "max-age=31536000")?;
        }
        if context.cors {
            response.insert_header("access-control-allow-origin", ORIGIN)?;
            response.insert_header("access-control-allow-credentials", "true")?;
            response.insert_header("access-control-expose-headers", "x-request-id")?;
            response.append_header("vary", "origin")?;
        }
        Ok(())
    }

    async fn logging(&self, session: &mut Session, _error: Option<&Error>, _context: &mut Context) {
        let Some(log) = &self.log else { return };
        let request = session.req_header();
        let status = session.response_written().map_or(0, |response| response.status.as_u16());
        let client = session.client_addr().map(|address| address.to_string()).unwrap_or_default();
        let bytes = session.body_bytes_sent();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let mut log = log.lock().expect("no writer panics");
        let _ = writeln!(
            log,
            "{client} [{}] \"{} {} {:?}\" {status} {bytes}",
            now.as_millis(),
            request.method,
            request.uri,
            request.version
        );
    }
}

fn routes(count: u32, hosts: u32) -> Option<HashMap<String, HashMap<String, ()>>> {
    let mut routes: HashMap<String, HashMap<String, ()>> = HashMap::new();
    for route in 0..count {
        let host = if hosts == 0 { String::new() } else { format!("h{}.bench.test", route % hosts) };
        routes.entry(host).or_default().insert(format!("r{route}"), ());
    }
    (count > 0).then_some(routes)
}

fn main() {
    let settings: HashMap<String, String> = std::env::args()
        .skip(1)
        .filter_map(|argument| {
            argument.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
        })
        .collect();
    let get = |name: &str| settings.get(name).map(String::as_str).unwrap_or_default();
    let number = |name: &str| get(name).parse().unwrap_or(0);
    let conf = ServerConf {
        threads: number("threads").max(1) as usize,
        upstream_keepalive_pool_size: 1024,
        upgrade_sock: format!("{}/upgrade.sock", get("directory")),
        pid_file: format!("{}/pid", get("directory")),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None::<Opt>, conf);
    server.bootstrap();
    let log = (!get("log").is_empty())
        .then(|| Mutex::new(BufWriter::with_capacity(65_536, File::create(get("log")).expect("a log file"))));
    let proxy = Proxy {
        upstream: get("upstream").to_owned(),
        routes: routes(number("routes"), number("hosts")),
        log,
        policies: !get("policies").is_empty(),
    };
    let mut service = http_proxy_service(&server.configuration, proxy);
    if get("cert").is_empty() {
        service.add_tcp(get("listen"));
    } else {
        let mut tls = TlsSettings::intermediate(get("cert"), get("key")).expect("certificate and key");
        tls.enable_h2();
        service.add_tls_with_settings(get("listen"), None, tls);
    }
    server.add_service(service);
    server.run_forever();
}
