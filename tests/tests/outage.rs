//! Data planes without their control plane: they serve on, restart from the last good snapshot, and come back alone.

use gateway_tests::chaos::{Relay, Weather};
use gateway_tests::client::Http;
use gateway_tests::stack::Stack;
use gateway_tests::wait;
use serde_json::{Value, json};

fn objects(body: &str) -> [Value; 2] {
    [
        json!({"apiVersion": "gateway/v1", "kind": "Listener", "metadata": {"name": "public"},
               "spec": {"address": "127.0.0.1", "port": 0}}),
        json!({"apiVersion": "gateway/v1", "kind": "Route", "metadata": {"name": "r"}, "spec": {"respond": {"body": body}}}),
    ]
}

async fn answers(address: std::net::SocketAddr, body: &str) -> anyhow::Result<()> {
    let http = Http::default();
    wait::until(&format!("{address} to answer {body:?}"), || async {
        match http.get(address, "any", "/").await {
            Ok(answer) if answer.body() == body.as_bytes() => Ok(()),
            Ok(answer) => Err(format!("{:?}", answer.body())),
            Err(error) => Err(format!("{error:#}")),
        }
    })
    .await
}

/// Address that a data plane logged for a listener since the last `skip` lines.
async fn bound(stack: &mut Stack, index: usize) -> anyhow::Result<std::net::SocketAddr> {
    stack.data_planes[index]
        .line("a bound listener", |line| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["fields"]["listener"] == "default/public")
                .then(|| line["fields"]["address"].as_str()?.parse().ok())?
        })
        .await
}

#[tokio::test]
async fn a_data_plane_restarts_from_disk_while_the_control_plane_is_dead() -> anyhow::Result<()> {
    let mut stack = Stack::new().start().await?;
    let revision = stack.admin().apply(&objects("one")).await?;
    stack.applied(revision).await?;
    stack.kill_control_plane().await?;
    answers(bound(&mut stack, 0).await?, "one").await?;

    assert!(stack.data_planes[0].terminate().await?.success());
    stack.restart_data_plane(0, stack.stream_address())?;
    answers(bound(&mut stack, 0).await?, "one").await?;

    // The control plane comes back: nobody needs to do anything.
    stack.start_control_plane().await?;
    let revision = stack.admin().apply(&objects("two")).await?;
    stack.applied(revision).await?;
    answers(stack.listener(0, "default/public").await?, "two").await
}

#[tokio::test]
async fn a_cut_or_stalled_stream_is_found_and_mended() -> anyhow::Result<()> {
    let mut stack = Stack::new().planes(0).start().await?;
    let relay = Relay::start(stack.stream_address()).await?;
    stack.start_data_plane(relay.address())?;
    let revision = stack.admin().apply(&objects("one")).await?;
    stack.applied(revision).await?;
    let address = stack.listener(0, "default/public").await?;
    for (round, weather) in [Weather::Cut, Weather::Stalled].into_iter().enumerate() {
        relay.set(weather);
        let revision = stack.admin().apply(&objects(&format!("round {round}"))).await?;
        // Serves on with what it has.
        assert_eq!(Http::default().get(address, "any", "/").await?.status(), 200);
        relay.set(Weather::Clear);
        stack.applied(revision).await?;
        answers(address, &format!("round {round}")).await?;
    }
    Ok(())
}
