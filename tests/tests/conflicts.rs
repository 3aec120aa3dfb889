//! Two writers, one base: who wins, and what the other is told.

use gateway_tests::stack::Stack;
use http::Method;
use serde_json::{Value, json};

fn route(name: &str, body: &str) -> Value {
    json!({"apiVersion": "gateway/v1", "kind": "Route", "metadata": {"name": name}, "spec": {"respond": {"body": body}}})
}

#[tokio::test]
async fn of_two_writers_on_one_base_one_wins_and_the_other_gets_409() -> anyhow::Result<()> {
    let stack = Stack::new().postgres().start().await?;
    let admin = stack.admin();
    let base = admin.apply(&[route("a", "0")]).await?;
    let write = |body: &str| json!({"resources": [route("a", body)], "baseRevision": base});
    let (one, two) = (write("1"), write("2"));
    let (first, second) = tokio::join!(
        admin.call(Method::POST, "/v1/apply", Some(&one)),
        admin.call(Method::POST, "/v1/apply", Some(&two)),
    );
    let (first, second) = (first?, second?);
    let mut codes = [first.0, second.0];
    codes.sort_unstable();
    assert_eq!(codes, [200, 409], "{first:?} {second:?}");
    let loser = if first.0 == 409 { &first.1 } else { &second.1 };
    assert_eq!(loser["type"], "conflict", "{loser}");
    Ok(())
}

#[tokio::test]
async fn a_stale_base_ends_gatewayctl_with_exit_code_4() -> anyhow::Result<()> {
    let stack = Stack::new().start().await?;
    let base = stack.admin().apply(&[route("a", "0")]).await?;
    stack.admin().apply(&[route("a", "1")]).await?;
    tokio::fs::write(stack.directory().join("a.json"), route("a", "2").to_string()).await?;
    let output = stack.gatewayctl(&["apply", "-f", "a.json", "--base-revision", &base.to_string()]).await?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{text}");
    assert!(text.contains(&base.to_string()), "{text}");
    Ok(())
}

#[tokio::test]
async fn a_stale_etag_gets_412() -> anyhow::Result<()> {
    let stack = Stack::new().start().await?;
    let admin = stack.admin();
    admin.apply(&[route("a", "0")]).await?;
    let http = gateway_tests::client::Http::default();
    let url = format!("{}/v1/routes/a", stack.server());
    let request = |method: Method, etag: Option<&str>, body: String| {
        let mut request = http::Request::builder().method(method).uri(&url);
        request = request.header("authorization", format!("Bearer {}", stack.token()));
        request = request.header("content-type", "application/json");
        if let Some(etag) = etag {
            request = request.header("if-match", etag);
        }
        request.body(http_body_util::Full::from(body))
    };
    let read = http.send(request(Method::GET, None, String::new())?).await?;
    let etag = read.headers().get("etag").expect("an ETag").to_str()?.to_owned();
    let first = http.send(request(Method::PUT, Some(&etag), route("a", "1").to_string())?).await?;
    assert_eq!(first.status(), 200, "{:?}", first.body());
    let second = http.send(request(Method::PUT, Some(&etag), route("a", "2").to_string())?).await?;
    assert_eq!(second.status(), 412, "{:?}", second.body());
    Ok(())
}
