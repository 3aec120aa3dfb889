//! Tests of `jwks.rs`: what a fetch takes and what it does not. The life of a set is in `tests/tests/tokens.rs`.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// What a fetch makes of this answer.
async fn fetched(answer: Vec<u8>) -> Result<String, String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let server = async {
        let (mut stream, _) = listener.accept().await.expect("a client");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("a head"));
        }
        // The client may have had enough before it has all.
        let _cut_short = stream.write_all(&answer).await;
        String::from_utf8(head).expect("text")
    };
    let client = OnceLock::new();
    let uri = format!("http://{address}/keys?x=1");
    let (head, fetched) = tokio::join!(server, fetch(&client, &uri));
    assert!(head.starts_with("GET /keys?x=1 HTTP/1.1\r\n"), "{head}");
    fetched
}

fn response(head: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut answer = format!("HTTP/1.1 {head}\r\nContent-Length: {length}\r\n\r\n").into_bytes();
    answer.extend_from_slice(body);
    answer
}

#[tokio::test]
async fn a_set_is_taken_whole_and_nothing_else_is() {
    assert_eq!(fetched(response("200 OK", b"{}")).await, Ok("{}".to_owned()));
    for (answer, why) in [
        (response("404 Not Found", b"{}"), "the answer has status 404"),
        (response("302 Found\r\nLocation: http://127.0.0.1:1/", b""), "the answer has status 302"),
        (response("200 OK", b"\xff"), "the answer is not UTF-8"),
        (response("200 OK", &vec![b' '; MAX_JWKS_BYTES + 1]), "length limit exceeded"),
        (b"nonsense\r\n\r\n".to_vec(), "invalid HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}".to_vec(), "end of file"),
    ] {
        let error = fetched(answer).await.expect_err(why);
        assert!(error.contains(why), "{why}: {error}");
    }
}

#[tokio::test]
async fn an_address_that_cannot_prove_who_it_is_is_not_believed() {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("randomness");
    let key = rustls::pki_types::PrivateKeyDer::try_from(pair.signing_key.serialize_der()).expect("a key");
    let config = rustls::ServerConfig::builder_with_provider(Arc::clone(certificate::provider()))
        .with_safe_default_protocol_versions()
        .expect("they fit")
        .with_no_client_auth()
        .with_single_cert(vec![pair.cert.der().clone()], key)
        .expect("they match");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let server = async {
        let (stream, _) = listener.accept().await.expect("a client");
        tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(stream).await.map(|_| ())
    };
    let client = OnceLock::new();
    let uri = format!("https://localhost:{port}/");
    let (shaken, fetched) = tokio::join!(server, fetch(&client, &uri));
    let error = fetched.expect_err("nobody vouches for it");
    assert!(error.contains("UnknownIssuer") && shaken.is_err(), "{error} {shaken:?}");
}

#[tokio::test]
async fn nobody_there_is_said_with_its_cause() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let error = fetch(&OnceLock::new(), &format!("http://{address}/")).await.expect_err("nobody is there");
    assert!(error.contains("refused"), "{error}");
}
