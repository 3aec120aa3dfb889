//! Key sets at an address, with real processes: fetched before the issuer is in force, fetched again when a token brings
//! an unknown key, kept while the address fails. The address is a route of the same gateway.

use std::net::SocketAddr;

use gateway_tests::client::Http;
use gateway_tests::process::free_port;
use gateway_tests::stack::Stack;
use gateway_tests::tokens::Accounts;
use gateway_tests::upstream::Upstream;
use gateway_tests::wait;
use serde_json::{Value, json};

const ISSUER: &str = "https://accounts.example.com";

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "gateway/v1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// What the address answers.
fn address_answers(status: u16, body: &str) -> Value {
    let respond = json!({"status": status, "headers": {"content-type": "application/json"}, "body": body});
    object("Route", "keys", json!({"matches": [{"path": {"exact": "/keys"}}], "respond": respond}))
}

/// It is an upstream's `path` from now on.
fn address_is(name: &str, upstream: &Upstream, path: &str) -> [Value; 2] {
    let target = json!({"targets": [{"address": upstream.address().to_string()}]});
    let route = json!({"matches": [{"path": {"exact": "/keys"}}], "forward": {"backends": [{"upstream": name}]},
        "policies": [{"rewrite": {"path": path}}]});
    [object("Upstream", name, target), object("Route", "keys", route)]
}

fn issuer(port: u16, more: Value) -> Value {
    let mut spec = json!({"issuer": ISSUER, "jwksUri": format!("http://127.0.0.1:{port}/keys")});
    spec.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    object("TokenIssuer", "accounts", spec)
}

async fn status(address: SocketAddr, token: &str) -> anyhow::Result<u16> {
    let request = http::Request::get(format!("http://{address}/private"))
        .header("authorization", format!("Bearer {token}"))
        .body(http_body_util::Full::default())?;
    Ok(Http::default().send(request).await?.status().as_u16())
}

#[tokio::test]
async fn keys_at_an_address_are_fetched_rotated_and_kept() -> anyhow::Result<()> {
    let stack = Stack::new().start().await?;
    let admin = stack.admin();
    let port = free_port()?;
    let (old, new) = (Accounts::new(ISSUER), Accounts::new(ISSUER));
    let private = object(
        "Route",
        "private",
        json!({"matches": [{"path": {"exact": "/private"}}], "respond": {"status": 200},
            "policies": [{"auth": {"any": [{"jwt": {"issuers": ["accounts"]}}]}}]}),
    );
    let listener = object("Listener", "public", json!({"address": "127.0.0.1", "port": port}));
    let revision = admin.apply(&[listener, address_answers(503, "not yet")]).await?;
    stack.applied(revision).await?;
    let address = stack.listener(0, "default/public").await?;

    // Nobody can say yet whether a token is right.
    let revision = admin.apply(&[issuer(port, json!({})), private]).await?;
    stack.applied(revision).await?;
    assert_eq!(status(address, &old.token("alice", "a", 60)).await?, 503);
    assert_eq!(status(address, "nonsense").await?, 401);

    // The address recovers; the first fetch that gets the set is enough.
    stack.applied(admin.apply(&[address_answers(200, &old.jwks())]).await?).await?;
    becomes(address, &old, 200).await?;
    assert_eq!(status(address, &new.token("alice", "a", 60)).await?, 401);

    // Rotation: a token of the new key has the set fetched again.
    stack.applied(admin.apply(&[address_answers(200, &new.jwks())]).await?).await?;
    becomes(address, &new, 200).await?;
    assert_eq!(status(address, &old.token("alice", "a", 60)).await?, 401);

    // The address fails: the last good set stays, also for an issuer that is changed meanwhile.
    for (name, path) in [("refusing", "/status/500"), ("without-keys", "/no-keys")] {
        let broken = Upstream::start(name).await?;
        stack.applied(admin.apply(&address_is(name, &broken, path)).await?).await?;
        wait::until("the broken address to be asked", || async {
            // A key that nobody has, again and again, until it is looked for.
            let refused = status(address, &old.token("alice", "a", 60)).await;
            if matches!(refused, Ok(401)) && broken.served() > 0 { Ok(()) } else { Err(refused) }
        })
        .await?;
        assert_eq!(status(address, &new.token("alice", "a", 60)).await?, 200, "{name}");
    }
    let changed = issuer(port, json!({"audiences": ["shop"]}));
    stack.applied(admin.apply(&[changed]).await?).await?;
    assert_eq!(status(address, &new.token("alice", "shop", 60)).await?, 200);
    assert_eq!(status(address, &new.token("alice", "other", 60)).await?, 401);
    Ok(())
}

/// Waits until tokens of these accounts are answered so.
async fn becomes(address: SocketAddr, accounts: &Accounts, expected: u16) -> anyhow::Result<()> {
    wait::until("the set to be fetched", || async {
        match status(address, &accounts.token("alice", "a", 60)).await {
            Ok(status) if status == expected => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}
