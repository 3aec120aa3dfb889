//! Responses that are made here: refusals as problem documents, redirects, fixed responses, preflight answers. They
//! pass the response side of the policies like any other.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use gateway_engine::head::{Head, HeadParts};
use gateway_engine::reject::{PROBLEM_JSON, Reason};

use super::client::{After, Client};
use crate::relay::Step;
use crate::wheel::Timer;

/// Makes the exchange's response a refusal; fields that are in `parts` already stay.
pub(crate) fn refuse(reason: Reason, id: &str, parts: &mut HeadParts, body: &mut Vec<u8>) {
    let mut head = Head::new(b"", parts);
    head.set_status(reason.status());
    head.set("content-type", PROBLEM_JSON);
    body.clear();
    reason.write_problem("", id, body);
}

/// Reads what is left of a request's body as far as it has arrived. If that was all, the connection can be kept.
pub(crate) async fn drain<C: Client>(client: &mut C) -> After {
    poll_fn(|cx| {
        loop {
            client.consume(client.data().len());
            match client.poll_step(cx) {
                Poll::Ready(Ok(Step::Data)) => {}
                Poll::Ready(Ok(Step::End)) => return Poll::Ready(After::Keep),
                Poll::Ready(Err(_)) | Poll::Pending => return Poll::Ready(After::Close),
            }
        }
    })
    .await
}

/// Sends the body of a response that was opened, and its end.
///
/// # Errors
/// When the client does not take it.
pub(crate) async fn send<C: Client>(client: &mut C, body: &[u8], timer: &Timer) -> io::Result<()> {
    let mut left = body;
    poll_fn(|cx| {
        if timer.expired() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        poll_send(cx, client, &mut left)
    })
    .await?;
    client.end(b"")?;
    poll_fn(|cx| match client.poll_flush(cx) {
        Poll::Pending if timer.expired() => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
        flushed => flushed,
    })
    .await
}

fn poll_send<C: Client>(cx: &mut Context<'_>, client: &mut C, left: &mut &[u8]) -> Poll<io::Result<()>> {
    while !left.is_empty() {
        let count = ready!(client.poll_send(cx, left))?;
        *left = &left[count..];
    }
    Poll::Ready(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_the_fields_that_are_there_and_names_the_reason() {
        let mut parts = HeadParts::new();
        Head::new(b"", &mut parts).add("allow", b"GET, HEAD");
        let mut body = b"left over".to_vec();
        refuse(Reason::MethodNotAllowed, "id-1", &mut parts, &mut body);
        let head = Head::new(b"", &mut parts);
        assert_eq!((head.status(), head.get("allow")), (405, Some(&b"GET, HEAD"[..])));
        assert_eq!(head.get("content-type"), Some(&b"application/problem+json"[..]));
        let problem: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!((&problem["type"], &problem["requestId"]), (&"method_not_allowed".into(), &"id-1".into()));
    }
}
