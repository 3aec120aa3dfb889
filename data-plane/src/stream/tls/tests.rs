//! What a session keeps while nothing happens, and how it takes what does not fit.

use std::future::poll_fn;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// Both ends of a connection after its handshake.
async fn connected(buffers: &Rc<Pool>) -> (Session, TlsStream<TcpStream>) {
    let key = KeyPair::generate().expect("a key");
    let cert = CertificateParams::new(vec!["a.example".to_owned()]).and_then(|it| it.self_signed(&key));
    let cert = cert.expect("signed").der().clone();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![cert.clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .expect("they fit");
    let mut roots = RootCertStore::empty();
    roots.add(cert).expect("a certificate");
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let theirs = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connected");
    let (ours, _) = listener.accept().await.expect("accepted");
    let mut session = Session::new(Arc::new(server), Socket::new(ours), buffers).expect("a configuration");
    let name = ServerName::try_from("a.example").expect("a name");
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let (shaken, client) =
        tokio::join!(poll_fn(|cx| session.poll_handshake(cx)), connector.connect(name, theirs));
    shaken.expect("a handshake");
    (session, client.expect("a handshake"))
}

async fn read(session: &mut Session, room: usize) -> io::Result<Vec<u8>> {
    let mut out = vec![0; room];
    let count = poll_fn(|cx| session.poll_read(cx, &mut ReadBuf::new(&mut out))).await?;
    out.truncate(count);
    Ok(out)
}

#[tokio::test]
async fn a_session_that_waits_holds_no_buffer() {
    let buffers = Pool::new();
    let (mut session, mut client) = connected(&buffers).await;
    client.write_all(b"ping").await.expect("sent");
    assert_eq!(read(&mut session, 100).await.expect("whole"), b"ping");
    let slices = [IoSlice::new(b"po"), IoSlice::new(b"ng")];
    assert_eq!(poll_fn(|cx| session.poll_write(cx, &slices)).await.expect("taken"), 4);
    let mut pong = [0; 4];
    client.read_exact(&mut pong).await.expect("whole");
    assert_eq!(&pong, b"pong");
    let mut out = [0; 100];
    assert!(poll_fn(|cx| Poll::Ready(session.poll_read(cx, &mut ReadBuf::new(&mut out)))).await.is_pending());
    assert_eq!(
        (session.incoming.capacity(), session.outgoing.capacity(), session.plain.capacity()),
        (0, 0, 0)
    );
    // With what rustls keeps on the heap an idle connection has 6 KB; the rule is 15.
    assert!(size_of::<Session>() <= 1_536, "{}", size_of::<Session>());
}

#[tokio::test]
async fn what_does_not_fit_is_read_next() {
    let (mut session, mut client) = connected(&Pool::new()).await;
    let sent: Vec<u8> = (0..40_000_u32).map(|at| (at % 251) as u8).collect();
    client.write_all(&sent).await.expect("sent");
    client.flush().await.expect("sent");
    let mut got = Vec::new();
    while got.len() < sent.len() {
        let piece = read(&mut session, 1_000).await.expect("whole");
        assert!(!piece.is_empty());
        got.extend_from_slice(&piece);
    }
    assert!(got == sent);
}

#[tokio::test]
async fn an_end_is_an_end_only_if_it_is_said() {
    let (mut session, mut client) = connected(&Pool::new()).await;
    client.shutdown().await.expect("sent");
    assert!(read(&mut session, 10).await.expect("said").is_empty());
    let (mut session, client) = connected(&Pool::new()).await;
    drop(client.into_inner());
    let error = read(&mut session, 10).await.expect_err("cut off");
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn a_broken_record_ends_the_session_with_an_alert() {
    let (mut session, client) = connected(&Pool::new()).await;
    let (mut socket, mut tls) = client.into_inner();
    socket
        .write_all(&[23, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20])
        .await
        .expect("sent");
    for _ in 0..2 {
        assert!(read(&mut session, 10).await.is_err());
    }
    let slices = [IoSlice::new(b"x")];
    assert!(poll_fn(|cx| session.poll_write(cx, &slices)).await.is_err());
    drop(session);
    let mut told = Vec::new();
    socket.read_to_end(&mut told).await.expect("closed");
    tls.read_tls(&mut &told[..]).expect("records");
    let error = tls.process_new_packets().expect_err("an alert");
    assert!(error.to_string().contains("BadRecordMac"), "{error}");
}

/// Reads as a connection does that holds no buffer while it waits.
async fn wait_and_read(session: &mut Session) -> io::Result<Vec<u8>> {
    let mut out = vec![0; 100];
    let count = poll_fn(|cx| {
        ready!(session.poll_readable(cx))?;
        session.poll_read(cx, &mut ReadBuf::new(&mut out))
    })
    .await?;
    out.truncate(count);
    Ok(out)
}

/// A session whose client does not read: the system takes no more of what is sent, and more than `waiting` bytes of
/// it wait.
async fn congested(waiting: usize) -> (Session, TlsStream<TcpStream>) {
    let (mut session, client) = connected(&Pool::new()).await;
    let block = vec![7; RECORD];
    let slices = [IoSlice::new(&block)];
    while poll_fn(|cx| Poll::Ready(session.poll_write(cx, &slices))).await.is_ready() {}
    while session.outgoing.filled().len() <= waiting {
        session.encrypt(&block).expect("a record");
    }
    (session, client)
}

#[tokio::test]
async fn a_client_that_does_not_read_yet_is_heard_all_the_same() {
    let (mut session, mut client) = congested(2 * RECORD).await;
    client.write_all(b"ping").await.expect("sent");
    client.flush().await.expect("sent");
    let heard = tokio::time::timeout(PATIENCE, wait_and_read(&mut session)).await.expect("in time");
    assert_eq!(heard.expect("whole"), b"ping");
}

#[tokio::test]
async fn beyond_a_bound_nothing_is_read_until_something_is_sent_and_then_nothing_is_lost() {
    let (mut session, mut client) = congested(DEAF).await;
    client.write_all(b"ping").await.expect("sent");
    client.flush().await.expect("sent");
    poll_fn(|cx| session.socket.poll_readable(cx)).await.expect("there is something");
    let mut out = [0; 100];
    assert!(poll_fn(|cx| Poll::Ready(session.poll_read(cx, &mut ReadBuf::new(&mut out)))).await.is_pending());
    assert!(session.incoming.is_empty(), "what came is still in the system");
    let reading = async {
        let mut block = vec![0; RECORD];
        while client.read(&mut block).await.expect("intact") > 0 {}
    };
    tokio::select! {
        () = reading => panic!("the session is open"),
        heard = tokio::time::timeout(PATIENCE, wait_and_read(&mut session)) => {
            assert_eq!(heard.expect("in time").expect("whole"), b"ping");
        }
    }
}
