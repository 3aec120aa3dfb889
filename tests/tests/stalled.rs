//! Data planes that have stopped reading: what they cost the control plane is bounded, however much there is to send.

use std::process::Stdio;
use std::sync::Mutex;

use anyhow::Context as _;
use gateway_tests::process::program;
use gateway_tests::stack::Stack;
use gateway_tests::{full_profile, wait};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Routes with a body of this size are the snapshot: 10 MB in all.
const ROUTES: usize = 320;
const BODY: usize = 32 << 10;
/// Most that one of them may cost, in bytes: a hundred 40 MB.
const MOST: u64 = 400_000;

/// Nothing more was sent at so many looks, 20 ms apart: nothing more will be.
const SAME_LOOKS: usize = 25;

/// Light data planes in a process of their own (`tests/load/src/fleet.rs`).
struct Fleet {
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Fleet {
    fn start(arguments: &[String]) -> anyhow::Result<Self> {
        let mut command = Command::new(program("gateway-load")?);
        command.arg("fleet").args(arguments).kill_on_drop(true);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take().context("it is piped")?;
        let output = BufReader::new(child.stdout.take().context("it is piped")?).lines();
        Ok(Fleet { _child: child, input, output })
    }

    async fn ask(&mut self, words: &str) -> anyhow::Result<Value> {
        self.input.write_all(format!("{words}\n").as_bytes()).await?;
        let line = wait::within(words, self.output.next_line()).await??;
        Ok(serde_json::from_str(&line.context("the fleet ended")?)?)
    }
}

/// Resident memory of a process and the most that it was, in bytes.
fn memory(process: u32) -> anyhow::Result<(u64, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).context("a line of status")?;
        anyhow::Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    };
    Ok((of("VmRSS:")?, of("VmHWM:")?))
}

/// Bytes that the control plane has handed to streams.
async fn sent(stack: &Stack) -> anyhow::Result<f64> {
    let request = http::Request::get(format!("{}/metrics", stack.server()))
        .header(http::header::AUTHORIZATION, format!("Bearer {}", stack.token()));
    let answer = gateway_tests::client::Http::default().send(request.body(Default::default())?).await?;
    let text = String::from_utf8_lossy(answer.body()).into_owned();
    let value = text.lines().find_map(|line| line.strip_prefix("gateway_stream_bytes_total "));
    Ok(value.context("the metric")?.parse()?)
}

#[tokio::test]
async fn data_planes_that_stop_reading_cost_little_however_much_there_is_to_send() -> anyhow::Result<()> {
    let stalled: u64 = if full_profile() { 100 } else { 30 };
    let stack = Stack::new().planes(0).start().await?;
    let body = "x".repeat(BODY);
    let mut revision = 0;
    for from in (0..ROUTES).step_by(80) {
        let route = |n: usize| {
            json!({"apiVersion": "gateway/v1", "kind": "Route", "metadata": {"name": format!("r{n}")},
                   "spec": {"matches": [{"path": {"exact": format!("/r{n}")}}], "respond": {"body": body}}})
        };
        let mut objects: Vec<Value> = (from..ROUTES.min(from + 80)).map(route).collect();
        objects.push(json!({"apiVersion": "gateway/v1", "kind": "Listener", "metadata": {"name": "public"},
            "spec": {"address": "127.0.0.1", "port": 0}}));
        revision = stack.admin().apply(&objects).await?;
    }
    let target = format!("--target={}", stack.stream_address());
    // One that reads: it gets everything, and what sending that needs is there when the others come.
    let mut sound = Fleet::start(&[target.clone(), "--clients=1".to_owned(), "--prefix=sound".to_owned()])?;
    // The head that it is welcomed with may be the one before: what was just written is published a little later.
    let whole = sound.ask(&format!("hold {revision}")).await?["objectBytes"].as_u64().context("bytes")?;
    assert!(whole > 10_000_000, "{whole} bytes");

    let process = stack.control_plane.as_ref().and_then(|it| it.id()).context("it runs")?;
    std::fs::write(format!("/proc/{process}/clear_refs"), "5")?;
    let (before, _) = memory(process)?;
    let clients = format!("--clients={stalled}");
    let fleet = Fleet::start(&[target, clients, "--prefix=stalled".to_owned(), "--stall".to_owned()])?;
    let fleet = tokio::sync::Mutex::new(fleet);
    // Bytes that were sent, and at how many looks it was the same.
    let seen = Mutex::new((0.0, 0));
    wait::until("the stalled ones to be sent no more", || async {
        let open =
            fleet.lock().await.ask("status").await.map_err(|error| format!("{error:#}"))?["open"].as_u64();
        let now = sent(&stack).await.map_err(|error| format!("{error:#}"))?;
        let mut seen = seen.lock().expect("no holder panics");
        let same = if seen.0 == now { seen.1 + 1 } else { 0 };
        *seen = (now, same);
        if open == Some(stalled) && same >= SAME_LOOKS {
            Ok(())
        } else {
            Err(format!("{open:?} open, {now} sent"))
        }
    })
    .await?;
    let (_, peak) = memory(process)?;
    let cost = peak.saturating_sub(before);
    println!("{stalled} stalled data planes: {cost} bytes");
    assert!(cost < stalled * MOST, "{cost} bytes for {stalled} data planes that do not read");

    // Nobody else waits for them.
    let route = json!({"apiVersion": "gateway/v1", "kind": "Route", "metadata": {"name": "new"},
        "spec": {"matches": [{"path": {"exact": "/new"}}], "respond": {}}});
    let revision = stack.admin().apply(&[route]).await?;
    sound.ask(&format!("hold {revision}")).await?;
    Ok(())
}
