//! The client against a server that answers what a test says.

use std::convert::Infallible;
use std::net::SocketAddr;

use gateway_proto::admin::DataPlaneList;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::*;

/// Answers every request with a status and body; what was asked for is put into the header `asked`.
async fn answers(status: u16, body: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(move |request: Request<Incoming>| async move {
                let token = request
                    .headers()
                    .get(AUTHORIZATION)
                    .map_or("none", |value| value.to_str().unwrap_or("?"));
                let body = body.replace("{token}", token).replace("{uri}", &request.uri().to_string());
                Ok::<_, Infallible>(
                    Response::builder().status(status).body(Full::<Bytes>::from(body)).expect("a response"),
                )
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    address
}

fn client(server: String, token: Option<&str>) -> Client {
    Client::new(&Endpoint { server, token: token.map(str::to_owned), ca_file: None }).expect("a client")
}

#[tokio::test]
async fn a_call_carries_token_path_and_encoded_query() {
    let address = answers(200, r#"["{token}", "{uri}"]"#).await;
    let client = client(format!("http://{address}/"), Some("secret"));
    let (token, uri): (String, String) =
        client.get("/v1/routes", &[("labels", "a=b c&d"), ("namespace", "*")]).await.expect("an answer");
    assert_eq!(
        (token.as_str(), uri.as_str()),
        ("Bearer secret", "/v1/routes?labels=a=b%20c%26d&namespace=%2A")
    );
}

#[tokio::test]
async fn a_refusal_says_why_and_has_its_exit_code() {
    for (slug, exit) in [
        ("validation_failed", Exit::Invalid),
        ("too_large", Exit::Invalid),
        ("conflict", Exit::Conflict),
        ("in_use", Exit::Conflict),
        ("precondition_failed", Exit::Conflict),
        ("unauthorized", Exit::Runtime),
        ("not_found", Exit::Runtime),
        ("internal", Exit::Runtime),
    ] {
        assert_eq!(super::exit(slug), exit, "{slug}");
    }
    let body = r#"{"type":"conflict","title":"Conflict","status":409,"detail":"the head is 7, not 6"}"#;
    let address = answers(409, body).await;
    let error = client(format!("http://{address}"), None)
        .get::<DataPlaneList>("/v1/data-planes", &[])
        .await
        .expect_err("refused");
    let failure = Failure::from(error);
    assert_eq!((failure.exit, failure.message.as_str()), (Exit::Conflict, "the head is 7, not 6"));
    assert_eq!(failure.help, None, "what a name that is taken and a stale base have in common is not known");
}

#[tokio::test]
async fn one_fault_is_told_once_and_several_are_counted() {
    let fault = r#"{"field":"spec.port","code":"invalid","message":"must be a port"}"#;
    for (errors, detail, message) in [
        (fault.to_owned(), "spec.port: must be a port", ""),
        (fault.to_owned(), "must be a port", ""),
        (fault.to_owned(), "the batch is not valid", "the batch is not valid"),
        (format!("{fault},{fault}"), "2 faults, listed in errors", "2 faults, nothing is changed"),
        (String::new(), "", "invalid"),
    ] {
        let body = format!(
            r#"{{"type":"validation_failed","title":"Invalid","status":422,"detail":"{detail}","errors":[{errors}]}}"#
        );
        let problem: Problem = serde_json::from_str(&body).expect("a problem");
        let failure = CallError::Refused(Box::new(problem)).about(&[]);
        assert_eq!(failure.message, message, "{body}");
        assert_eq!(
            failure.to_string().matches("must be a port").count(),
            failure.findings.len(),
            "{failure}"
        );
    }
}

#[tokio::test]
async fn what_is_no_gateway_is_told_apart() {
    let address = answers(404, "<html>").await;
    let server = client(format!("http://{address}"), None);
    let failure =
        Failure::from(server.get::<DataPlaneList>("/v1/data-planes", &[]).await.expect_err("no gateway"));
    assert!(failure.message.contains("is it a gateway's admin API?"), "{}", failure.message);
    let address = answers(200, "[]").await;
    let server = client(format!("http://{address}"), None);
    let failure =
        Failure::from(server.get::<DataPlaneList>("/v1/data-planes", &[]).await.expect_err("no list"));
    assert!(failure.message.contains("makes no sense"), "{}", failure.message);
}

#[tokio::test]
async fn no_server_is_an_error_that_names_it() {
    let unused = TcpListener::bind("127.0.0.1:0").await.expect("a free port").local_addr().expect("bound");
    let server = client(format!("http://{unused}"), None);
    let failure =
        Failure::from(server.get::<DataPlaneList>("/v1/data-planes", &[]).await.expect_err("nobody there"));
    assert_eq!(failure.exit, Exit::Runtime);
    assert!(
        failure.message.contains(&unused.to_string()) && failure.message.contains("refused"),
        "{}",
        failure.message
    );
}

#[tokio::test]
async fn events_are_told_by_name_and_heartbeats_are_not() {
    let address = answers(
        200,
        ": hello\n\nevent: revision\r\ndata: {}\r\n\r\n: beat\n\nevent: dataPlane\ndata: {}\n\n",
    )
    .await;
    let mut events = client(format!("http://{address}"), None).watch().await.expect("a stream");
    let mut names = Vec::new();
    while let Some(name) = events.next().await.expect("it goes on") {
        names.push(name);
    }
    assert_eq!(names, ["revision", "dataPlane"]);
}

#[test]
fn bad_settings_are_usage_errors() {
    let at = |server: &str, token: &str| {
        Client::new(&Endpoint { server: server.into(), token: Some(token.into()), ca_file: None })
    };
    for server in ["", "127.0.0.1:9000", "ftp://x", "http://", "/v1", "http://x/?a=b"] {
        assert_eq!(at(server, "t").expect_err(server).exit, Exit::Usage);
    }
    for server in ["http://me:hush@x", "https://hush@x:1/"] {
        let failure = at(server, "t").expect_err(server);
        assert_eq!(failure.exit, Exit::Usage);
        assert!(!failure.to_string().contains("hush"), "{failure}");
        assert!(failure.to_string().contains("--token"), "{failure}");
    }
    assert_eq!(at("http://x", "a\nb").expect_err("a line break").exit, Exit::Usage);
}

fn help(error: CallError) -> String {
    Failure::from(error).help.unwrap_or_default()
}

#[test]
fn what_tls_says_decides_what_to_do() {
    use rustls::{CertificateError, Error, OtherError};
    #[derive(Debug)]
    struct CaUsedAsEndEntity;
    impl fmt::Display for CaUsedAsEndEntity {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("of an authority")
        }
    }
    impl std::error::Error for CaUsedAsEndEntity {}
    let authority = CertificateError::Other(OtherError(std::sync::Arc::new(CaUsedAsEndEntity)));
    for (error, text) in [
        (Error::InvalidCertificate(CertificateError::UnknownIssuer), "--ca-file"),
        (Error::InvalidCertificate(CertificateError::NotValidForName), "other names"),
        (Error::InvalidCertificate(authority), "CA:TRUE"),
        (Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType), "http:// instead"),
        (Error::DecryptError, "look at its certificate"),
    ] {
        let wrapped = std::io::Error::other(std::io::Error::other(error));
        assert!(remedy(&wrapped).contains(text), "{wrapped}");
    }
    assert_eq!(remedy(&std::io::Error::other("gone")), IS_IT_THERE);
}

#[tokio::test]
async fn a_private_authority_is_trusted_when_named_and_only_then() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let folder = tempfile::tempdir().expect("temporary folder");
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, signed.cert.pem()).expect("written");
    let key = rustls::pki_types::PrivateKeyDer::try_from(signed.signing_key.serialize_der()).expect("a key");
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![signed.cert.der().clone()], key).expect("a server");
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let service =
                service_fn(|_| async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("[]"))) });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    let server = format!("https://localhost:{port}");
    let endpoint = Endpoint { server: server.clone(), token: None, ca_file: Some(ca_file) };
    let trusted: Vec<String> =
        Client::new(&endpoint).expect("a client").get("/", &[]).await.expect("it is trusted");
    assert!(trusted.is_empty());
    let stranger = client(server, None).get::<Vec<String>>("/", &[]).await;
    assert!(help(stranger.expect_err("the system does not know it")).contains("--ca-file"));
    let plain = client(format!("http://localhost:{port}"), None).get::<Vec<String>>("/", &[]).await;
    assert!(help(plain.expect_err("it speaks TLS")).contains("https:// instead"));
    let no_tls = answers(200, "[]").await;
    let at_plain = Endpoint { server: format!("https://localhost:{}", no_tls.port()), ..endpoint.clone() };
    let no_tls = Client::new(&at_plain).expect("a client").get::<Vec<String>>("/", &[]).await;
    assert!(help(no_tls.expect_err("it speaks plain HTTP")).contains("http:// instead"));
    let missing = Endpoint { ca_file: Some(folder.path().join("none.pem")), ..endpoint };
    assert!(Client::new(&missing).expect_err("no file").message.contains("none.pem"));
}
