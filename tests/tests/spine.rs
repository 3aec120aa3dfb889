//! Two data planes and one control plane as separate processes on PostgreSQL: the whole way of a change, and what
//! happens when a part of it is killed.

use std::time::{Duration, Instant};

use gateway_tests::client::{Http, Load};
use gateway_tests::services::Postgres;
use gateway_tests::stack::Stack;
use gateway_tests::upstream::{Seen, Upstream};
use gateway_tests::{full_profile, wait};
use http::Method;
use serde_json::{Value, json};

fn listener() -> Value {
    json!({"apiVersion": "gateway/v1", "kind": "Listener", "metadata": {"name": "public"},
           "spec": {"address": "127.0.0.1", "port": 0}})
}

fn upstream(name: &str, target: &Upstream) -> Value {
    json!({"apiVersion": "gateway/v1", "kind": "Upstream", "metadata": {"name": name},
           "spec": {"targets": [{"address": target.address().to_string()}]}})
}

fn route(name: &str, prefix: &str, upstream: &str) -> Value {
    json!({"apiVersion": "gateway/v1", "kind": "Route", "metadata": {"name": name},
           "spec": {"matches": [{"path": {"prefix": prefix}}], "forward": {"backends": [{"upstream": upstream}]}}})
}

async fn served_by(http: &Http, address: std::net::SocketAddr, path: &str) -> anyhow::Result<String> {
    let answer = http.get(address, "any", path).await?;
    anyhow::ensure!(answer.status() == 200, "{path}: {}: {:?}", answer.status(), answer.body());
    Ok(Seen::parse(answer.body())?.upstream)
}

#[tokio::test]
async fn an_apply_reaches_every_data_plane_and_status_says_so() -> anyhow::Result<()> {
    let (blue, green) = (Upstream::start("blue").await?, Upstream::start("green").await?);
    let stack = Stack::new().postgres().planes(2).start().await?;
    let (admin, http) = (stack.admin(), Http::default());

    let first = admin
        .apply(&[listener(), upstream("blue", &blue), upstream("green", &green), route("shop", "/", "blue")])
        .await?;
    stack.applied(first).await?;
    let addresses = stack.listeners("default/public").await?;
    for address in &addresses {
        assert_eq!(served_by(&http, *address, "/x").await?, "blue");
    }

    let second = admin.apply(&[route("shop", "/", "green")]).await?;
    assert_eq!(second, first + 1);
    stack.applied(second).await?;
    for address in &addresses {
        assert_eq!(served_by(&http, *address, "/x").await?, "green");
    }

    let status = admin.get("/v1/status/routes/shop").await?;
    let planes = status["dataPlanes"].as_array().expect("a list");
    assert_eq!(planes.len(), 2, "{status}");
    assert!(planes.iter().all(|it| it["state"] == "applied"), "{status}");

    let nodes = stack.gatewayctl(&["nodes"]).await?;
    let text = String::from_utf8(nodes.stdout)?;
    assert!(nodes.status.success() && text.contains("dp-0") && text.contains("dp-1"), "{text}");

    // Rollback restores exactly the earlier behaviour, as a new revision.
    let (code, answer) = admin.call(Method::POST, &format!("/v1/revisions/{first}/rollback"), None).await?;
    assert_eq!((code, answer["revision"].as_u64()), (200, Some(second + 1)), "{answer}");
    stack.applied(second + 1).await?;
    for address in &addresses {
        assert_eq!(served_by(&http, *address, "/x").await?, "blue");
    }
    assert!(stack.complaints(&[]).is_empty(), "{:?}", stack.complaints(&[]));
    Ok(())
}

#[tokio::test]
async fn applies_under_load_lose_no_request() -> anyhow::Result<()> {
    let (blue, green) = (Upstream::start("blue").await?, Upstream::start("green").await?);
    let stack = Stack::new().planes(2).start().await?;
    let admin = stack.admin();
    let revision = admin
        .apply(&[listener(), upstream("blue", &blue), upstream("green", &green), route("shop", "/", "blue")])
        .await?;
    stack.applied(revision).await?;
    let addresses = stack.listeners("default/public").await?;

    let load = Load::start(&addresses, "any", "/x", 8);
    let end = Instant::now() + Duration::from_secs(if full_profile() { 60 } else { 0 });
    let (mut last, mut applies) = (revision, 0);
    while applies < 200 || Instant::now() < end {
        load.more(100).await?;
        let round = applies;
        applies += 1;
        let name = if round % 2 == 0 { "green" } else { "blue" };
        // The route that is under load changes, and an object beside it comes and goes.
        let beside = route(&format!("beside-{}", round % 7), &format!("/beside/{round}"), name);
        last = admin.apply(&[route("shop", "/", name), beside]).await?;
    }
    stack.applied(last).await?;
    let tally = load.finish().await;
    assert_eq!(last, revision + applies);
    assert!(tally.failures.is_empty() && tally.ok > 1000, "{tally:?}");
    assert!(blue.served() > 0 && green.served() > 0);
    Ok(())
}

#[tokio::test]
async fn killing_the_control_plane_leaves_a_whole_revision_and_a_serving_gateway() -> anyhow::Result<()> {
    let backend = Upstream::start("backend").await?;
    let mut stack = Stack::new().postgres().planes(2).start().await?;
    let revision = stack
        .admin()
        .apply(&[listener(), upstream("backend", &backend), route("shop", "/", "backend")])
        .await?;
    stack.applied(revision).await?;
    let addresses = stack.listeners("default/public").await?;
    let load = Load::start(&addresses, "any", "/x", 4);

    // The process dies before its transaction has written anything, before the last statement of it, and after it.
    for (round, stopped_at) in [Some("revisions"), Some("meta"), None].into_iter().enumerate() {
        let batch: Vec<Value> = (0..2_000)
            .map(|index| route(&format!("batch-{index}"), &format!("/batch/{round}/{index}"), "backend"))
            .collect();
        let (postgres, database) = (stack.postgres.as_ref().expect("on postgres"), stack.database_url());
        let (admin, head) = (stack.admin(), revisions(postgres, database).await?);
        let held = match stopped_at {
            Some(table) => Some(postgres.hold(database, table).await?),
            None => None,
        };
        let apply = tokio::spawn(async move { admin.apply(&batch).await });
        if held.is_some() {
            postgres.somebody_waits(database).await?;
        } else {
            wait::until("the revision to be there", || async {
                match revisions(postgres, database).await {
                    Ok(now) if now == head + 1 => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await?;
        }
        stack.kill_control_plane().await?;
        drop(held);
        let answered = apply.await?.is_ok();
        stack.start_control_plane().await?;

        let expected = if stopped_at.is_some() { 1 } else { 2_001 };
        assert_eq!(count_routes(&stack).await?, expected, "round {round}");
        assert!(stopped_at.is_none() || !answered, "round {round}: acknowledged and gone");
        let head = stack.admin().get("/v1/routes?limit=1").await?["revision"].as_u64().expect("a number");
        stack.applied(head).await?;
    }
    let tally = load.finish().await;
    assert!(tally.failures.is_empty() && tally.ok > 0, "{tally:?}");
    Ok(())
}

async fn revisions(postgres: &Postgres, database: &str) -> anyhow::Result<u64> {
    Ok(postgres.query(database, "SELECT revision FROM meta").await?.parse()?)
}

async fn count_routes(stack: &Stack) -> anyhow::Result<usize> {
    let admin = stack.admin();
    let (mut total, mut cursor) = (0, String::new());
    loop {
        let page = admin.get(&format!("/v1/routes?limit=500{cursor}")).await?;
        total += page["items"].as_array().map_or(0, Vec::len);
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(total),
        }
    }
}

#[tokio::test]
async fn killing_postgres_stops_writes_with_a_clear_error_and_recovery_needs_nobody() -> anyhow::Result<()> {
    let backend = Upstream::start("backend").await?;
    let mut stack = Stack::new().postgres().planes(2).start().await?;
    let admin = stack.admin();
    let revision =
        admin.apply(&[listener(), upstream("backend", &backend), route("shop", "/", "backend")]).await?;
    stack.applied(revision).await?;
    let addresses = stack.listeners("default/public").await?;
    let load = Load::start(&addresses, "any", "/x", 4);

    stack.postgres.as_mut().expect("on postgres").kill().await?;
    let change = json!({"resources": [route("shop", "/shop", "backend")]});
    let (code, problem) = admin.call(Method::POST, "/v1/apply", Some(&change)).await?;
    assert_eq!((code, problem["type"].as_str()), (503, Some("unavailable")), "{problem}");
    assert!(
        problem["detail"].as_str().is_some_and(|text| text.contains("store does not answer")),
        "{problem}"
    );

    stack.postgres.as_mut().expect("on postgres").resume().await?;
    let next = wait::until("writes to work again", || async {
        admin.apply(&[route("other", "/other", "backend")]).await.map_err(|error| format!("{error:#}"))
    })
    .await?;
    stack.applied(next).await?;
    let tally = load.finish().await;
    assert!(tally.failures.is_empty() && tally.ok > 0, "{tally:?}");
    Ok(())
}
