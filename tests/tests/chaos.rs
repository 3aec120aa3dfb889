//! Everything breaks in turn while requests and applies go on: no client request fails, no acknowledged write is
//! lost, and at rest every data plane holds the head. The order is random; its seed is printed and may be given
//! back in `GATEWAY_CHAOS_SEED`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gateway_tests::chaos::{Relay, Weather};
use gateway_tests::client::{Admin, Load};
use gateway_tests::full_profile;
use gateway_tests::stack::Stack;
use gateway_tests::upstream::Upstream;
use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

fn objects(backend: &Upstream) -> Vec<Value> {
    let object = |kind: &str, name: &str, spec: Value| json!({"apiVersion": "gateway/v1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    vec![
        object("Listener", "public", json!({"address": "127.0.0.1", "port": 0})),
        object("Upstream", "backend", json!({"targets": [{"address": backend.address().to_string()}]})),
        object("Route", "shop", json!({"forward": {"backends": [{"upstream": "backend"}]}})),
    ]
}

/// Applies one small change after another until told to stop; keeps the number that was last acknowledged.
async fn write(admin: Admin, stop: Arc<AtomicBool>, acknowledged: Arc<AtomicU64>) {
    let mut round = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        let change = json!({"apiVersion": "gateway/v1", "kind": "Route", "metadata": {"name": "counter"},
            "spec": {"matches": [{"path": {"exact": "/counter"}}], "respond": {"body": round.to_string()}}});
        if admin.apply(&[change]).await.is_ok() {
            acknowledged.store(round, Ordering::Relaxed);
        } else {
            // Refused or lost: the next one says the same again, and more.
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_and_no_write_is_lost_whatever_part_breaks() -> anyhow::Result<()> {
    let seed = std::env::var_os("GATEWAY_CHAOS_SEED")
        .and_then(|text| text.to_string_lossy().parse().ok())
        .unwrap_or_else(|| rand::rng().random::<u32>().into());
    println!("GATEWAY_CHAOS_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);

    let backend = Upstream::start("backend").await?;
    let mut stack = Stack::new().postgres().planes(0).start().await?;
    let mut relays = Vec::new();
    for _ in 0..2 {
        let relay = Relay::start(stack.stream_address()).await?;
        stack.start_data_plane(relay.address())?;
        relays.push(relay);
    }
    let revision = stack.admin().apply(&objects(&backend)).await?;
    stack.applied(revision).await?;
    let load = Load::start(&stack.listeners("default/public").await?, "any", "/x", 4);
    let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writer = tokio::spawn(write(stack.admin(), Arc::clone(&stop), Arc::clone(&acknowledged)));

    let end = Instant::now() + Duration::from_secs(if full_profile() { 120 } else { 15 });
    while Instant::now() < end {
        // How long a part stays broken, in requests served meanwhile: from a blink to longer than a retry.
        let pause = load.more(random.random_range(50..3_000));
        match random.random_range(0..5) {
            0 => {
                stack.kill_control_plane().await?;
                pause.await?;
                stack.start_control_plane().await?;
            }
            1 => {
                let postgres = stack.postgres.as_mut().expect("on postgres");
                postgres.kill().await?;
                pause.await?;
                postgres.resume().await?;
            }
            2 => {
                let control_plane = stack.control_plane.as_ref().expect("it runs");
                control_plane.signal(Signal::SIGSTOP)?;
                pause.await?;
                control_plane.signal(Signal::SIGCONT)?;
            }
            weather => {
                let relay = &relays[random.random_range(0..relays.len())];
                relay.set(if weather == 3 { Weather::Cut } else { Weather::Stalled });
                pause.await?;
                relay.set(Weather::Clear);
            }
        }
    }

    stop.store(true, Ordering::Relaxed);
    writer.await?;
    let tally = load.finish().await;
    assert!(tally.failures.is_empty() && tally.ok > 100, "{tally:?}");

    // At rest: the last acknowledged write or a later one is the head, and both data planes hold exactly that.
    let counter = stack.admin().get("/v1/routes/counter").await?;
    let stored: u64 = counter["spec"]["respond"]["body"].as_str().unwrap_or_default().parse()?;
    let last = acknowledged.load(Ordering::Relaxed);
    assert!(last > 0 && stored >= last, "{last} was acknowledged, {stored} is stored");
    let head = stack.admin().get("/v1/data-planes").await?["revision"].as_u64().expect("a number");
    stack.applied(head).await?;
    let planes = stack.admin().get("/v1/data-planes").await?;
    assert!(
        planes["items"].as_array().is_some_and(|all| all.iter().all(|it| it["inSync"] == true)),
        "{planes}"
    );
    Ok(())
}
