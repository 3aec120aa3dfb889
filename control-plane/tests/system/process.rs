//! The process itself: its folder, its token, TLS, what it describes of itself.

use std::sync::Arc;

use gateway_control_plane::config::{Config, Log, LogFormat, LogLevel, TlsFiles};
use gateway_control_plane::{RunError, run};
use http::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_stream::StreamExt as _;

use crate::client::{Plane, settings};

#[tokio::test]
async fn a_second_process_on_the_same_folder_is_refused() {
    let plane = Plane::start().await;
    let second = run(settings(&plane.dir)).await.expect_err("locked");
    assert!(matches!(second, RunError::StateDir(_)), "{second}");
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let plane = Plane::start().await;
    let dir = tempfile::tempdir().expect("a folder");
    let config = Config { admin_listen: plane.running.admin, ..settings(&dir) };
    let error = run(config).await.expect_err("taken").to_string();
    assert!(error.contains(&plane.running.admin.to_string()) && error.contains("admin API"), "{error}");
}

#[test]
fn every_setting_has_a_name_in_the_file() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("settings.yaml");
    let text = "adminListen: 127.0.0.1:1\nstreamListen: 10.0.0.1:2\ndatabaseUrl: sqlite:///x.db\nstateDir: /s\n\
                adminTokenFile: /t\nmasterKeyFile: /m\ntlsCert: /c\ntlsKey: /k\ntlsClientCa: /ca\nnodeCertificateTtl: 1h\nlogLevel: warn\nlogFormat: json\ninsecure: true\n";
    std::fs::write(&path, text).expect("written");
    let file = format!("--config={}", path.display());
    let (config, log) = Config::load(["gateway-control-plane", &file]).expect("valid");
    assert_eq!((config.admin_listen.port(), config.stream_listen.port()), (1, 2));
    assert_eq!((config.database_url.as_deref(), config.insecure), (Some("sqlite:///x.db"), true));
    assert_eq!((config.state_dir, config.admin_token_file), ("/s".into(), Some("/t".into())));
    assert_eq!(config.master_key_file, Some("/m".into()));
    assert_eq!(config.tls, Some(TlsFiles { cert: "/c".into(), key: "/k".into() }));
    assert_eq!((config.tls_client_ca, config.node_certificate_ttl.as_secs()), (Some("/ca".into()), 3_600));
    assert_eq!(log, Log { level: LogLevel::Warn, format: LogFormat::Json });
    for (text, words) in
        [("databaseUrl: [1]\n", "line 1"), ("insecure: perhaps\n", "line 1"), ("logLevel: loud\n", "loud")]
    {
        std::fs::write(&path, text).expect("written");
        let error = Config::load(["gateway-control-plane", &file]).expect_err(text).to_string();
        assert!(error.contains(words) && error.contains("settings.yaml"), "{error}");
    }
}

#[tokio::test]
async fn an_open_port_off_loopback_is_refused_by_run_too() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = Config { admin_listen: ([0, 0, 0, 0], 0).into(), ..settings(&dir) };
    assert!(matches!(run(config.clone()).await, Err(RunError::Config(_))));
    let running = run(Config { insecure: true, ..config }).await.expect("said aloud");
    running.shutdown().await;
}

#[tokio::test]
async fn the_admin_token_file_is_the_way_back_in() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("token");
    let secret = "0123456789abcdef0123456789abcdef";
    std::fs::write(&file, format!("{secret}\n")).expect("written");
    let state = tempfile::tempdir().expect("a folder");
    let running =
        run(Config { admin_token_file: Some(file.clone()), ..settings(&state) }).await.expect("starts");
    let api = crate::client::Api::new(running.admin, secret);
    assert_eq!(api.get("/v1/tokens").await.status, StatusCode::OK);
    running.shutdown().await;
    std::fs::write(&file, "short").expect("written");
    assert!(matches!(
        run(Config { admin_token_file: Some(file), ..settings(&state) }).await,
        Err(RunError::AdminToken(_))
    ));
}

#[tokio::test]
async fn a_first_token_that_a_crash_left_on_the_way_to_its_file_is_found_again() {
    let dir = Plane::start().await.stop().await;
    let (file, pending) = (dir.path().join("admin-token"), dir.path().join("admin-token.pending"));
    assert!(!pending.exists());
    std::fs::rename(&file, &pending).expect("as after a crash");
    let plane = Plane::start_in(dir).await;
    assert!(plane.running.admin_token_path.is_some() && !pending.exists());
    assert_eq!(plane.admin.get("/v1/tokens").await.status, StatusCode::OK);

    // One that never came into the store is no token.
    let dir = plane.stop().await;
    let stranger = "0123456789abcdef0123456789abcdef";
    std::fs::write(&pending, stranger).expect("written");
    let plane = Plane::start_in(dir).await;
    assert!(plane.running.admin_token_path.is_none() && !pending.exists());
    plane.admin.with(stranger).get("/v1/tokens").await.problem(401, "unauthorized");
}

#[tokio::test]
async fn with_a_certificate_the_admin_api_speaks_tls_only() {
    let dir = tempfile::tempdir().expect("a folder");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).expect("written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    let state = tempfile::tempdir().expect("a folder");
    let running =
        run(Config { tls: Some(TlsFiles { cert, key }), ..settings(&state) }).await.expect("starts");

    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let socket = TcpStream::connect(running.admin).await.expect("connects");
    let name = "localhost".try_into().expect("a name");
    let mut tls =
        tokio_rustls::TlsConnector::from(Arc::new(client)).connect(name, socket).await.expect("a handshake");
    tls.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .await
        .expect("sent");
    let mut answer = String::new();
    tls.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    let mut plain = TcpStream::connect(running.admin).await.expect("connects");
    plain.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("sent");
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/1.1 200"));

    // So does the stream.
    let trust = tonic::transport::Certificate::from_pem(made.cert.pem());
    let tls = tonic::transport::ClientTlsConfig::new().ca_certificate(trust).domain_name("localhost");
    let endpoint =
        tonic::transport::Endpoint::from_shared(format!("https://{}", running.stream)).expect("an address");
    let channel = endpoint.tls_config(tls).expect("settings").connect().await.expect("a handshake");
    let mut client = gateway_proto::wire::sync_client::SyncClient::new(channel);
    let hello = crate::data_plane::hello("one", "default", &crate::data_plane::Held::default());
    let hello = gateway_proto::wire::DataPlaneMessage {
        message: Some(gateway_proto::wire::data_plane_message::Message::Hello(hello)),
    };
    // Not over after Hello: a data plane that leaves need not be answered.
    let messages = tokio_stream::once(hello).chain(tokio_stream::pending());
    let mut inbound = client.stream(messages).await.expect("taken").into_inner();
    assert!(inbound.message().await.expect("an answer").is_some());
    drop((inbound, client));
    running.shutdown().await;
}

#[tokio::test]
async fn it_describes_and_measures_itself() {
    let plane = Plane::start().await;
    let document = plane.admin.get("/openapi.json").await.expect(StatusCode::OK);
    assert_eq!(document["openapi"], "3.1.0");
    assert!(document["paths"]["/v1/apply"]["post"].is_object());
    plane.admin.apply(&[crate::client::upstream("a")]).await;
    let metrics = plane.admin.get("/metrics").await;
    assert!(metrics.headers["content-type"].to_str().expect("text").starts_with("text/plain"));
    for line in [
        "gateway_store_revision 1",
        "gateway_store_objects{kind=\"Upstream\"} 1",
        "gateway_stream_streams 0",
        "gateway_store_commit_seconds_count 1",
    ] {
        assert!(metrics.text.lines().any(|found| found == line), "{line} is missing in\n{}", metrics.text);
    }
}
