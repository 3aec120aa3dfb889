//! Every file in `deploy/examples/` is applied with `gatewayctl apply` on a gateway of its own and serves.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use gateway_tests::client::Http;
use gateway_tests::https::{Https, Pair};
use gateway_tests::process::program;
use gateway_tests::stack::Stack;
use gateway_tests::tokens::Accounts;
use gateway_tests::upstream::{Seen, Upstream};
use gateway_tests::wait;

/// Host and path of a request, and the status and text of its answer.
type Expectation = (&'static str, &'static str, u16, &'static str);

/// For each file, what it serves.
const EXPECTED: &[(&str, &[Expectation])] = &[
    ("hello.yaml", &[("any", "/", 200, "hello, 127.0.0.1")]),
    (
        "proxy.yaml",
        &[("any", "/api/users/7?x=1", 200, "/api/users/7?x=1"), ("any", "/other", 404, "no_route")],
    ),
    (
        "matching.yaml",
        &[
            ("any", "/", 404, "nothing here"),
            ("api.example.com", "/v1/things", 200, "api"),
            ("eu.api.example.org", "/v1", 200, "api"),
            ("api.example.com", "/v1/users/42", 200, "user 42"),
            ("api.example.com", "/v1?beta=1", 200, "beta"),
            ("any", "/reports/2026-11", 200, "report"),
            ("api.example.com", "/maintenance", 503, "back soon"),
            ("any", "/admin", 404, "nothing here"),
        ],
    ),
    ("canary.yaml", &[("any", "/cart", 200, "shop.internal")]),
    ("policies.yaml", &[("any", "/shop/cart", 200, "/v2/cart"), ("any", "/", 404, "no_route")]),
    ("http2.yaml", &[("any", "/hello", 200, "HTTP/2.0"), ("any", "/plain", 200, "HTTP/1.1")]),
    ("redirect.yaml", &[("any", "/old/page?q=1", 301, ""), ("www.example.com", "/x", 308, "")]),
    // With tokens: has a test of its own.
    ("jwt.yaml", &[("any", "/health", 200, "ok"), ("any", "/shop/cart", 401, "unauthorized")]),
    // With keys: has a test of its own.
    ("keys.yaml", &[("any", "/health", 200, "ok"), ("any", "/shop/cart", 401, "unauthorized")]),
    // The control plane of every stack has a folder for its file.
    (
        "discovery-file.yaml",
        &[("any", "/api/users/7", 200, "/api/users/7"), ("any", "/other", 404, "no_route")],
    ),
    ("groups.yaml", &[]),
    // Over TLS: has a test of its own.
    ("https.yaml", &[]),
];

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples").canonicalize().expect("the examples")
}

#[test]
fn every_example_is_expected_here() {
    let mut files: Vec<String> = std::fs::read_dir(examples())
        .expect("the examples")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".yaml"))
        .collect();
    files.sort();
    let mut expected: Vec<_> = EXPECTED.iter().map(|(file, _)| (*file).to_owned()).collect();
    expected.sort();
    assert_eq!(files, expected);
}

/// The certificate of `https.yaml`.
static PAIR: LazyLock<Pair> = LazyLock::new(|| Pair::new().expect("there is randomness"));

/// The issuer of `jwt.yaml`.
static ACCOUNTS: LazyLock<Accounts> = LazyLock::new(|| Accounts::new("https://accounts.example.com"));

async fn apply(stack: &Stack, backend: &str, file: &Path) -> anyhow::Result<()> {
    let output = tokio::process::Command::new(program("gatewayctl")?)
        .args(["apply", "--wait", "-f"])
        .arg(file)
        .env("GATEWAY_SERVER", stack.server())
        .env("GATEWAY_TOKEN", stack.token())
        .env("PORT", "0")
        .env("BACKEND", backend)
        .env("JWKS", ACCOUNTS.jwks())
        .env("TLS_CERT", &PAIR.cert)
        .env("TLS_KEY", &PAIR.key)
        .output()
        .await?;
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    anyhow::ensure!(output.status.success(), "{}: {:?}\n{text}", file.display(), output.status.code());
    Ok(())
}

/// Waits until the data plane has what the control plane read: `apply --wait` waits for the configuration only.
async fn discovered(stack: &Stack) -> anyhow::Result<()> {
    let address = stack.listener(0, "default/public").await?;
    wait::until("the discovered target to serve", || async {
        match Http::default().get(address, "any", "/api/users/7").await {
            Ok(answer) if answer.status() == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

#[tokio::test]
async fn every_example_serves() -> anyhow::Result<()> {
    let backend = Upstream::start("backend").await?;
    let http = Http::default();
    for (file, requests) in EXPECTED {
        let stack = Stack::new().start().await?;
        let services = std::fs::read_to_string(examples().join("discovery/services.yaml"))?;
        let services = services.replace("127.0.0.1:9101", &backend.address().to_string());
        std::fs::write(stack.discovery().join("services.yaml"), services)?;
        apply(&stack, &backend.address().to_string(), &examples().join(file)).await?;
        if *file == "discovery-file.yaml" {
            discovered(&stack).await?;
        }
        for (host, path, status, text) in *requests {
            let address = stack.listener(0, "default/public").await?;
            let answer = http.get(address, host, path).await?;
            let body = String::from_utf8_lossy(answer.body()).into_owned();
            assert_eq!(answer.status(), *status, "{file}: {host} {path}: {body}");
            assert!(body.contains(text), "{file}: {host} {path}: {body}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_policies_example_does_what_its_comments_say() -> anyhow::Result<()> {
    let backend = Upstream::start("backend").await?;
    let stack = Stack::new().start().await?;
    apply(&stack, &backend.address().to_string(), &examples().join("policies.yaml")).await?;
    let address = stack.listener(0, "default/public").await?;

    let request = http::Request::get(format!("http://{address}/shop/cart?a=1"))
        .header("origin", "https://app.example.com")
        .header("x-internal", "secret")
        .body(http_body_util::Full::default())?;
    let answer = Http::default().send(request).await?;
    let header =
        |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap_or("?").to_owned());
    assert_eq!(header("access-control-allow-origin").as_deref(), Some("https://app.example.com"));
    assert_eq!(header("x-content-type-options").as_deref(), Some("nosniff"));
    assert!(header("x-request-id").is_some() && header("x-took").is_some(), "{:?}", answer.headers());
    let seen = Seen::parse(answer.body())?;
    assert_eq!(seen.target, "/v2/cart?a=1");
    assert_eq!(seen.headers.get("x-client").map(String::as_str), Some("127.0.0.1"));
    assert_eq!(seen.headers.get("x-route").map(String::as_str), Some("default/shop"));
    assert!(!seen.headers.contains_key("x-internal"), "{seen:?}");
    Ok(())
}

#[tokio::test]
async fn the_jwt_example_tells_the_upstream_who_asks() -> anyhow::Result<()> {
    let backend = Upstream::start("backend").await?;
    let stack = Stack::new().start().await?;
    apply(&stack, &backend.address().to_string(), &examples().join("jwt.yaml")).await?;
    let address = stack.listener(0, "default/public").await?;
    let ask = |token: String| {
        let request = http::Request::get(format!("http://{address}/shop/cart"))
            .header("authorization", format!("Bearer {token}"))
            .header("x-consumer-username", "root");
        async { Http::default().send(request.body(http_body_util::Full::default())?).await }
    };
    let answer = ask(ACCOUNTS.token("alice", "shop-api", 60)).await?;
    assert_eq!((answer.status().as_u16(), &answer.headers()["x-tier"]), (200, &"gold".parse()?));
    let seen = Seen::parse(answer.body())?;
    for (name, expected) in
        [("x-consumer-username", "alice"), ("x-consumer-groups", "gold"), ("x-subject", "alice")]
    {
        assert_eq!(seen.headers.get(name).map(String::as_str), Some(expected), "{seen:?}");
    }
    assert_eq!(ask(ACCOUNTS.token("nobody", "shop-api", 60)).await?.status(), 403);
    for token in [ACCOUNTS.token("alice", "other", 60), ACCOUNTS.token("alice", "shop-api", -60)] {
        let answer = ask(token).await?;
        assert_eq!(answer.status(), 401);
        let challenge = "Bearer realm=\"gateway\", error=\"invalid_token\"";
        assert_eq!(answer.headers()["www-authenticate"], challenge);
    }
    Ok(())
}

#[tokio::test]
async fn the_keys_example_does_what_its_comments_say() -> anyhow::Result<()> {
    let backend = Upstream::start("backend").await?;
    let stack = Stack::new().start().await?;
    let file = examples().join("keys.yaml");
    apply(&stack, &backend.address().to_string(), &file).await?;
    let address = stack.listener(0, "default/public").await?;
    let ask = async |key: &str| {
        let request = http::Request::get(format!("http://{address}/shop/cart")).header("x-api-key", key);
        Http::default().send(request.body(http_body_util::Full::default())?).await
    };
    let output = stack.gatewayctl(&["key", "rotate", "tablet"]).await?;
    let key = String::from_utf8(output.stdout)?.trim().to_owned();
    apply(&stack, &backend.address().to_string(), &file).await?;
    let answer = wait::until("the key to be good", || async {
        match ask(&key).await {
            Ok(answer) if answer.status() == 200 => Ok(answer),
            other => Err(format!("{other:?}")),
        }
    });
    let answer = answer.await?;
    assert_eq!(answer.headers()["x-tier"], "gold");
    let seen = Seen::parse(answer.body())?;
    assert_eq!(seen.headers.get("x-consumer-username").map(String::as_str), Some("alice"), "{seen:?}");
    assert!(!seen.headers.contains_key("x-api-key"), "{seen:?}");
    Ok(())
}

#[tokio::test]
async fn the_https_example_serves_with_the_certificate_from_the_environment() -> anyhow::Result<()> {
    let stack = Stack::new().start().await?;
    apply(&stack, "", &examples().join("https.yaml")).await?;
    let address = stack.listener(0, "default/public").await?;
    let answer = Https::trusting(&[&PAIR])?.get(address, "/").await?;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello over TLS\n"), "{answer}");
    let stranger = Https::trusting(&[&Pair::new()?])?.get(address, "/").await;
    assert!(stranger.is_err(), "{stranger:?}");
    Ok(())
}
