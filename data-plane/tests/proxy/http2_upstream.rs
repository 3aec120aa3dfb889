//! Targets that speak HTTP/2: what gets across, from clients of either version.

use std::future::poll_fn;

use bytes::Bytes;
use h2::server::Builder;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use tokio::task::JoinSet;

use crate::http2::{ask, connect, get, response};
use crate::http2_target::Proxy;
use crate::support::{GET, within};

#[tokio::test]
async fn a_request_of_http1_becomes_a_stream_and_its_answer_a_response() {
    let proxy = Proxy::start().await;
    let mut client = proxy.gateway.connect().await;
    client
        .send(
            "POST /a//b?q HTTP/1.1\r\nHost: a.example:81\r\nConnection: keep-alive, x-hop\r\nX-Hop: 1\r\n\
             Keep-Alive: 5\r\nCookie: a=1\r\nX-Own: yes\r\nContent-Length: 5\r\n\r\nhello",
        )
        .await;
    let (_session, mut asked) = proxy.target.request().await;
    assert_eq!(
        (asked.request.method(), asked.request.uri().to_string().as_str()),
        (&Method::POST, "http://a.example:81/a/b?q")
    );
    for (name, value) in [
        ("host", None),
        ("connection", None),
        ("keep-alive", None),
        ("x-hop", None),
        ("te", None),
        ("cookie", Some("a=1")),
        ("x-own", Some("yes")),
        ("content-length", Some("5")),
        ("x-forwarded-for", Some("127.0.0.1")),
        ("x-forwarded-host", Some("a.example:81")),
    ] {
        assert_eq!(asked.field(name), value, "{name}");
    }
    let id = asked.field("x-request-id").expect("made").to_owned();
    assert_eq!(asked.read().await, (b"hello".to_vec(), None));
    let mut body = asked.begin(&[("x-a", "1"), ("content-length", "6"), ("x-request-id", "its own")]);
    body.send_data(Bytes::from_static(b"answer"), true).expect("sent");
    let reply = client.reply().await;
    assert_eq!((reply.status(), reply.body.as_str(), reply.field("x-a")), ("200", "answer", Some("1")));
    assert_eq!(reply.field("x-request-id"), Some(id.as_str()));
    proxy
        .gateway
        .counts(
            "gateway_upstream_requests_total{upstream=\"default/target\",target=\"TARGET\",code=\"200\"} 1"
                .replace("TARGET", &proxy.target.address.to_string())
                .as_str(),
        )
        .await;
}

#[tokio::test]
async fn responses_without_a_body_have_none() {
    let proxy = Proxy::start().await;
    let mut client = proxy.gateway.connect().await;
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (mut session, mut asked) = proxy.target.request().await;
    let head = Response::builder().header("content-length", "7").body(()).expect("a head");
    asked.respond.send_response(head, true).expect("sent");
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("content-length: 7\r\n"), "{head}");
    client.send(GET).await;
    let mut asked = session.request().await;
    asked.respond.send_response(Response::new(()), true).expect("sent");
    let reply = client.reply().await;
    assert_eq!((reply.status(), reply.field("content-length")), ("200", Some("0")));
    client.send(GET).await;
    let mut asked = session.request().await;
    let mut none = Response::new(());
    *none.status_mut() = StatusCode::NO_CONTENT;
    asked.respond.send_response(none, true).expect("sent");
    let reply = client.reply().await;
    assert_eq!((reply.status(), reply.field("content-length")), ("204", None));
}

#[tokio::test]
async fn bodies_and_trailers_pass_both_ways_between_streams() {
    let proxy = Proxy::start().await;
    let frames = [
        Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from_static(b"hello"))),
        Ok(Frame::trailers(HeaderMap::from_iter([(
            "x-sum".parse().unwrap(),
            HeaderValue::from_static("5"),
        )]))),
    ];
    let mut request = get("/").map(|_| StreamBody::new(tokio_stream::iter(frames)).boxed());
    *request.method_mut() = Method::POST;
    request.headers_mut().append("te", HeaderValue::from_static("trailers"));
    request.headers_mut().append("cookie", HeaderValue::from_static("a=1"));
    request.headers_mut().append("cookie", HeaderValue::from_static("b=2"));
    let answer = ask(&mut connect(&proxy.gateway).await, request);
    let (_session, mut asked) = proxy.target.request().await;
    assert_eq!((asked.field("te"), asked.field("cookie")), (Some("trailers"), Some("a=1; b=2")));
    let (body, trailers) = asked.read().await;
    assert_eq!((&body[..], &trailers.expect("trailers")["x-sum"]), (&b"hello"[..], &"5".parse().unwrap()));
    let mut body = asked.begin(&[("content-type", "application/grpc")]);
    body.send_data(Bytes::from_static(b"yes"), false).expect("sent");
    body.send_trailers(HeaderMap::from_iter([(
        "grpc-status".parse().unwrap(),
        HeaderValue::from_static("0"),
    )]))
    .expect("sent");
    let body = response(answer).await.into_body().collect().await.expect("whole");
    assert_eq!(body.trailers().expect("trailers")["grpc-status"], "0");
    assert_eq!(body.to_bytes(), "yes");
}

#[tokio::test]
async fn where_consumers_are_known_no_trailer_of_a_stream_says_who_asks() {
    let proxy = Proxy::with("{}", "---\nkind: Consumer\nmetadata: { name: alice }\n").await;
    let trailers = [("x-sum", "0"), ("x-consumer-id", "default/alice")]
        .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
    let frames = [Ok::<_, std::convert::Infallible>(Frame::trailers(HeaderMap::from_iter(trailers)))];
    let mut request = get("/").map(|_| StreamBody::new(tokio_stream::iter(frames)).boxed());
    *request.method_mut() = Method::POST;
    let _answer = ask(&mut connect(&proxy.gateway).await, request);
    let (_session, mut asked) = proxy.target.request().await;
    let (_, trailers) = asked.read().await;
    let names: Vec<_> = trailers.expect("trailers").keys().map(ToString::to_string).collect();
    assert_eq!(names, ["x-sum"]);
}

#[tokio::test]
async fn large_bodies_pass_both_ways_between_streams() {
    let proxy = Proxy::start().await;
    let large = Bytes::from(vec![b'x'; 2 << 20]);
    let mut request = get("/").map(|_| Full::new(large.clone()).boxed());
    *request.method_mut() = Method::PUT;
    let answer = ask(&mut connect(&proxy.gateway).await, request);
    let (_session, mut asked) = proxy.target.request().await;
    assert!(asked.read().await.0 == large);
    let mut body = asked.begin(&[]);
    let send = async {
        let mut rest = large.clone();
        while !rest.is_empty() {
            body.reserve_capacity(rest.len());
            let room = poll_fn(|cx| body.poll_capacity(cx)).await.expect("wanted").expect("open");
            let piece = rest.split_to(room.min(rest.len()));
            body.send_data(piece, rest.is_empty()).expect("sent");
        }
    };
    let read = async { within("the body", response(answer).await.into_body().collect()).await };
    let ((), got) = tokio::join!(send, read);
    assert!(got.expect("whole").to_bytes() == large);
}

#[tokio::test]
async fn interim_responses_reach_the_client_as_they_come() {
    let proxy = Proxy::start().await;
    let mut client = proxy.gateway.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n").await;
    let (_session, mut asked) = proxy.target.request().await;
    assert_eq!(asked.field("expect"), Some("100-continue"));
    for (status, link) in [(103, "</style.css>"), (100, "")] {
        let mut interim = Response::new(());
        *interim.status_mut() = status.try_into().expect("a status");
        if !link.is_empty() {
            interim.headers_mut().insert("link", HeaderValue::from_static("</style.css>"));
        }
        asked.respond.send_informational(interim).expect("sent");
    }
    let hints = client.head().await;
    assert!(hints.starts_with("HTTP/1.1 103 ") && hints.contains("link: </style.css>\r\n"), "{hints}");
    assert!(client.head().await.starts_with("HTTP/1.1 100 "));
    client.send("ok").await;
    assert_eq!(asked.read().await.0, b"ok");
    asked.answer();
    assert!(client.head().await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn many_requests_share_a_connection() {
    let proxy = Proxy::start().await;
    let mut sender = connect(&proxy.gateway).await;
    let mut answers = JoinSet::new();
    for index in 0..50 {
        let asked = ask(&mut sender, get(&format!("/{index}")));
        answers.spawn(async move {
            (index, response(asked).await.into_body().collect().await.expect("whole").to_bytes())
        });
    }
    let mut session = proxy.target.session().await;
    let mut asked = Vec::new();
    for _ in 0..50 {
        asked.push(session.request().await);
    }
    for mut asked in asked.into_iter().rev() {
        let path = asked.request.uri().path().to_owned();
        asked.begin(&[]).send_data(path.into(), true).expect("sent");
    }
    while let Some(answer) = within("answers", answers.join_next()).await {
        let (index, body) = answer.expect("ran");
        assert_eq!(body, format!("/{index}"));
    }
}

#[tokio::test]
async fn another_connection_is_made_when_the_streams_run_out() {
    let proxy = Proxy::start().await;
    let mut sender = connect(&proxy.gateway).await;
    let first = ask(&mut sender, get("/1"));
    let mut one = proxy.target.session_of(Builder::new().max_concurrent_streams(1)).await;
    let mut held = one.request().await;
    let second = ask(&mut sender, get("/2"));
    let (_two, mut asked) = proxy.target.request().await;
    assert_eq!(asked.request.uri().path(), "/2");
    asked.answer();
    held.answer();
    assert_eq!(
        (response(first).await.status(), response(second).await.status()),
        (StatusCode::OK, StatusCode::OK)
    );
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_its_stream_and_no_other() {
    let proxy = Proxy::start().await;
    let mut client = proxy.gateway.connect().await;
    client.send(GET).await;
    let (mut session, mut asked) = proxy.target.request().await;
    let mut body = asked.begin(&[]);
    // As much as gets through: what the sockets and one window take.
    let mut sent = 0;
    let mut other = proxy.gateway.connect().await;
    loop {
        body.reserve_capacity(64 * 1024);
        tokio::select! {
            room = poll_fn(|cx| body.poll_capacity(cx)) => {
                let room = room.expect("wanted").expect("open");
                sent += room;
                assert!(sent < 32 << 20, "it takes everything");
                body.send_data(vec![b'x'; room].into(), false).expect("sent");
            }
            // Another on the same connection is served all the while.
            () = async {
                other.send(GET).await;
                session.request().await.answer();
                assert!(other.until("0\r\n\r\n").await.ends_with("ok\r\n0\r\n\r\n"));
            } => if body.capacity() == 0 { break },
        }
    }
    drop(client);
}

#[tokio::test]
async fn a_target_that_does_not_read_holds_up_its_client() {
    let proxy = Proxy::start().await;
    let mut client = proxy.gateway.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n").await;
    let (_session, asked) = proxy.target.request().await;
    let mut sent = 0;
    let piece = vec![b'x'; 64 * 1024];
    loop {
        match client.stream.try_write(&piece) {
            Ok(count) => sent += count,
            Err(_) => {
                proxy.gateway.turn().await;
                if tokio::time::timeout(std::time::Duration::from_millis(200), client.stream.writable())
                    .await
                    .is_err()
                {
                    break;
                }
            }
        }
        assert!(sent < 64 << 20, "it takes everything");
    }
    drop(asked);
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_stream() {
    let proxy = Proxy::start().await;
    let answer = ask(&mut connect(&proxy.gateway).await, get("/"));
    let (_session, mut asked) = proxy.target.request().await;
    answer.abort();
    let reason = within("reset", poll_fn(|cx| asked.respond.poll_reset(cx))).await.expect("reset");
    assert_eq!(reason, h2::Reason::CANCEL);
}

#[tokio::test]
async fn an_upgrade_to_such_a_target_is_refused() {
    let proxy = Proxy::start().await;
    let reply = proxy
        .gateway
        .ask("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        .await;
    assert_eq!((reply.status(), reply.problem().as_str()), ("501", "not_implemented"));
}

#[tokio::test]
async fn leaving_finishes_what_is_under_way_on_a_session() {
    let proxy = Proxy::start().await;
    let mut client = proxy.gateway.connect().await;
    client.send(GET).await;
    let (_session, mut asked) = proxy.target.request().await;
    let leaving = tokio::spawn(proxy.gateway.running.shutdown());
    crate::support::Gateway::port_is_closed(proxy.gateway.address).await;
    asked.begin(&[("content-length", "2")]).send_data(Bytes::from_static(b"ok"), true).expect("sent");
    assert_eq!(client.reply().await.body, "ok");
    within("the end", leaving).await.expect("clean");
}
