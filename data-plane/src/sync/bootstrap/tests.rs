//! Tests of `bootstrap.rs`: what is read and what is not. That it serves is in `tests/control_side/bootstrap.rs`.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

async fn read_head(stream: &mut (impl AsyncRead + Unpin)) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a head"));
    }
}

/// Reads a request's head, and writes the answer as far as the client takes it.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &[u8]) {
    read_head(&mut stream).await;
    // The client may have had enough before it has all.
    let _cut_short = stream.write_all(answer).await;
    let _gone = stream.shutdown().await;
}

/// What a fetch makes of an answer in clear text.
async fn fetched(text: &[u8]) -> Result<Vec<u8>, String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url: Uri = format!("http://{}/s?x=1", listener.local_addr().expect("bound")).parse().expect("a URL");
    let server = async { answer(listener.accept().await.expect("a client").0, text).await };
    tokio::join!(server, fetch(&url, None)).1
}

#[tokio::test]
async fn an_answer_is_taken_whole_and_nothing_else_is() {
    let whole = fetched(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc").await;
    assert_eq!(whole.as_deref(), Ok(&b"abc"[..]));
    let too_long = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", MAX_BYTES + 1);
    for (answer, why) in [
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "the answer has status 403"),
        ("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n", "the answer has status 302"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "end of file"),
        ("nonsense\r\n\r\n", "invalid HTTP"),
        (&too_long, "over 256 MiB"),
    ] {
        let error = fetched(answer.as_bytes()).await.expect_err(why);
        assert!(error.contains(why), "{why}: {error}");
    }
}

#[tokio::test]
async fn a_server_proves_who_it_is_by_the_given_certificates_or_the_systems() {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("randomness");
    let key = rustls::pki_types::PrivateKeyDer::try_from(pair.signing_key.serialize_der()).expect("a key");
    let config = rustls::ServerConfig::builder_with_provider(Arc::clone(certificate::provider()))
        .with_safe_default_protocol_versions()
        .expect("they fit")
        .with_no_client_auth()
        .with_single_cert(vec![pair.cert.der().clone()], key)
        .expect("a sound pair");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let url: Uri = format!("https://localhost:{port}/s").parse().expect("a URL");
    let server = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a client");
            if let Ok(stream) = acceptor.accept(stream).await {
                answer(stream, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc").await;
            }
        }
    });
    let dir = tempfile::tempdir().expect("a folder");
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, pair.cert.pem()).expect("written");
    assert_eq!(fetch(&url, Some(&ca)).await.as_deref(), Ok(&b"abc"[..]));
    let stranger = fetch(&url, None).await.expect_err("the system does not know it");
    assert!(stranger.contains("certificate"), "{stranger}");
    let missing = fetch(&url, Some(Path::new("/nowhere/ca.pem"))).await.expect_err("no such file");
    assert!(missing.contains("/nowhere/ca.pem"), "{missing}");
    server.abort();
}

#[test]
fn of_a_file_no_more_is_read_than_may_be_there() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("snapshot");
    std::fs::write(&path, "abc").expect("written");
    assert_eq!(read_file(&path).as_deref(), Ok(&b"abc"[..]));
    assert!(read_file(Path::new("/nowhere/snapshot")).expect_err("no such file").contains("No such file"));
    let endless = read_file(Path::new("/dev/zero")).expect_err("it never ends");
    assert!(endless.contains("over 256 MiB"), "{endless}");
}

#[tokio::test]
async fn an_answer_that_does_not_come_or_does_not_end_is_given_up_in_time() {
    assert_eq!(PATIENCE, Duration::from_secs(30));
    for begun in ["", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url: Uri = format!("http://{}/s", listener.local_addr().expect("bound")).parse().expect("a URL");
        let (has_begun, hangs) = tokio::sync::oneshot::channel();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a client");
            read_head(&mut stream).await;
            stream.write_all(begun.as_bytes()).await.expect("sent");
            has_begun.send(()).expect("waited for");
            // Until the client has had enough.
            let _reset = stream.read_to_end(&mut Vec::new()).await;
        });
        let mut fetching = Box::pin(fetch(&url, None));
        tokio::select! {
            answer = &mut fetching => panic!("{answer:?}"),
            hangs = hangs => hangs.expect("the server lives"),
        }
        let error = in_time(Duration::from_millis(50), fetching).await.expect_err("it hangs");
        assert_eq!(error, "not there within 50ms");
        server.await.expect("the connection is closed");
    }
}
