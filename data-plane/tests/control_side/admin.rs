//! What the admin port says, and when.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpListener;

use super::support::{
    follow, get, listener, listener_at, request, respond, standalone, standalone_with, until, within,
};

async fn status(address: SocketAddr, path: &str) -> u16 {
    get(address, path).await.expect("an answer").0
}

fn body(response: &str) -> &str {
    response.split_once("\r\n\r\n").expect("a head").1
}

#[tokio::test]
async fn a_standalone_data_plane_is_ready_once_it_runs_and_shows_what_it_serves() {
    let plane = standalone(&(listener("public") + &respond("/hello", "hi"))).await;
    let admin = plane.running.admin();
    assert_eq!((status(admin, "/livez").await, status(admin, "/readyz").await), (200, 200));
    assert_eq!(status(admin, "/nothing").await, 404);
    let post = "POST /livez HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    assert_eq!(request(admin, post).await.expect("an answer").0, 405);

    let (code, response) = get(admin, "/config").await.expect("an answer");
    let config: Value = serde_json::from_str(body(&response)).expect("JSON");
    let bound = plane.listener("default/public").await;
    assert_eq!((code, &config["ready"], &config["revision"]), (200, &Value::from(true), &Value::from(1)));
    assert_eq!(config["listeners"]["default/public"], bound.to_string());
    assert_eq!((&config["node"], &config["group"]), (&plane.running.node().into(), &"default".into()));
    let names: Vec<_> =
        config["resources"].as_array().expect("a list").iter().map(|it| &it["metadata"]["name"]).collect();
    assert_eq!(names, ["public", "hello"]);
}

#[tokio::test]
async fn metrics_count_requests_by_route_and_keep_the_bounds_of_their_labels() {
    let plane = standalone(&(listener("public") + &respond("/hello", "hi"))).await;
    let public = plane.listener("default/public").await;
    for path in ["/hello", "/hello", "/nowhere"] {
        get(public, path).await.expect("an answer");
    }
    let expected = [
        r#"gateway_requests_total{route="default/hello",method="GET",code="200",reason=""} 2"#,
        r#"gateway_requests_total{route="",method="GET",code="404",reason="no_route"} 1"#,
        r#"gateway_request_duration_seconds_count{route="default/hello"} 2"#,
        "gateway_requests_in_flight 0",
        r#"gateway_connections{listener="default/public"} 0"#,
        "gateway_config_revision 1",
        "gateway_config_rejected_total 0",
    ];
    // A request is counted when its response is out: a moment after the client has it.
    let mut text = String::new();
    until("all series", async || {
        text = get(plane.running.admin(), "/metrics").await.expect("an answer").1;
        expected.iter().all(|line| text.lines().any(|it| it == *line))
    })
    .await;
    assert!(!text.contains("gateway_phase_duration"), "nobody asked for it: {text}");
    let bytes = |direction: &str| {
        let series = format!("gateway_bytes_total{{direction=\"{direction}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&series)?.parse::<f64>().ok()).expect("bytes")
    };
    assert!(bytes("received") > 0.0 && bytes("sent") > 0.0, "{text}");
}

#[tokio::test]
async fn off_loopback_the_configuration_is_not_shown() {
    let plane = standalone_with(&listener("public"), |config| {
        config.insecure = true;
        config.admin_listen = "0.0.0.0:0".parse().expect("an address");
    })
    .await
    .expect("it starts");
    let admin = SocketAddr::from(([127, 0, 0, 1], plane.running.admin().port()));
    for (path, expected) in
        [("/config", 403), ("/snapshot", 403), ("/livez", 200), ("/readyz", 200), ("/metrics", 200)]
    {
        assert_eq!(status(admin, path).await, expected, "{path}");
    }
}

#[tokio::test]
async fn without_a_configuration_it_lives_but_is_not_ready() {
    let dir = tempfile::tempdir().expect("a folder");
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("bound");
    let running = gateway_data_plane::run(follow(&[nobody], &dir)).await.expect("it starts");
    assert_eq!(status(running.admin(), "/livez").await, 200);
    let (code, text) = get(running.admin(), "/readyz").await.expect("an answer");
    assert!(code == 503 && text.contains("no configuration yet"), "{text}");
    let metrics = get(running.admin(), "/metrics").await.expect("an answer").1;
    assert!(metrics.contains("gateway_control_plane_connected 0"), "{metrics}");
}

#[tokio::test]
async fn a_taken_port_makes_it_not_ready_until_the_port_is_free() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port();
    let both = listener_at("taken", "127.0.0.1", port) + &listener("free") + &respond("/hello", "hi");
    let plane = standalone(&both).await;
    let (code, text) = get(plane.running.admin(), "/readyz").await.expect("an answer");
    assert!(
        code == 503 && text.contains("Listener default/taken") && text.contains(&port.to_string()),
        "{text}"
    );
    let free = plane.listener("default/free").await;
    assert_eq!(status(free, "/hello").await, 200, "the other one serves");
    drop(taken);
    assert_eq!(plane.listener("default/taken").await.port(), port);
    until("ready", async || status(plane.running.admin(), "/readyz").await == 200).await;
    assert_eq!(status(SocketAddr::from(([127, 0, 0, 1], port)), "/hello").await, 200);
}

#[tokio::test]
async fn while_it_drains_it_is_not_ready_and_serves_on_for_the_drain_delay() {
    let manifests = listener("public") + &respond("/hello", "hi");
    let plane = standalone_with(&manifests, |config| config.drain_delay = Duration::from_secs(3))
        .await
        .expect("it starts");
    let (admin, public) = (plane.running.admin(), plane.listener("default/public").await);
    let shutdown = tokio::spawn(plane.running.shutdown());
    until("not ready", async || {
        get(admin, "/readyz").await.is_ok_and(|(code, text)| code == 503 && text.contains("draining"))
    })
    .await;
    let keep_alive = "GET /hello HTTP/1.1\r\nhost: a\r\n\r\n";
    let (code, text) =
        within("an answer and the end of the connection", request(public, keep_alive)).await.expect("served");
    assert!(code == 200 && text.to_ascii_lowercase().contains("connection: close"), "{text}");
    within("the end", shutdown).await.expect("no panic");
    assert!(get(public, "/hello").await.is_err(), "the sockets are closed");
}
