//! Tunnels: after a 101 both connections carry another protocol (WebSocket, mostly), and bytes are passed both ways as
//! they come, those that were read too early first. Either side may end its direction on its own; the tunnel is cut
//! when neither says anything for the route's idle timeout.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use gateway_http1::Framing;

use super::client::Client;
use super::forward::Forwarding;
use super::target::Target;
use crate::relay::{Broken, Relay};

/// Runs a tunnel to its end. The client's 101 is gathered and goes out first.
pub(crate) async fn tunnel<C: Client>(forwarding: &mut Forwarding<'_, C>) {
    // A stream of HTTP/2 has no 101.
    let Target::Http1(target) = &mut forwarding.target else { return };
    target.expect_body(Framing::UntilClose);
    target.announce_body(Framing::UntilClose);
    forwarding.client.become_tunnel();
    forwarding.upload = Relay::new(u64::MAX);
    forwarding.download = Relay::new(u64::MAX);
    forwarding.timer.set(forwarding.timeouts.idle);
    let mut ends = Ends::default();
    poll_fn(|cx| poll_tunnel(cx, forwarding, &mut ends)).await;
}

/// Which directions have been ended towards their receiver.
#[derive(Debug, Default)]
struct Ends {
    to_target: bool,
    to_client: bool,
}

fn poll_tunnel<C: Client>(cx: &mut Context<'_>, f: &mut Forwarding<'_, C>, ends: &mut Ends) -> Poll<()> {
    let Target::Http1(target) = &mut f.target else { return Poll::Ready(()) };
    if f.timer.expired() {
        return Poll::Ready(());
    }
    let before = f.client.progress() + target.progress();
    let mut broken = false;
    if !ends.to_target {
        let sent = f.upload.poll(cx, f.client, &mut **target);
        broken |= passed_on(sent, &mut ends.to_target, |cx| target.poll_shutdown(cx).map(drop), cx);
    }
    if !ends.to_client {
        let sent = f.download.poll(cx, &mut **target, f.client);
        broken |= passed_on(sent, &mut ends.to_client, |cx| f.client.poll_end(cx), cx);
    }
    if f.client.progress() + target.progress() != before {
        f.timer.set(f.timeouts.idle);
    }
    if broken || (ends.to_target && ends.to_client) { Poll::Ready(()) } else { Poll::Pending }
}

/// Handles the outcome of one direction: its end is passed on. Whether the tunnel is broken.
fn passed_on(
    outcome: Poll<Result<(), Broken>>,
    ended: &mut bool,
    mut end: impl FnMut(&mut Context<'_>) -> Poll<()>,
    cx: &mut Context<'_>,
) -> bool {
    let pass = || -> Poll<bool> {
        if ready!(outcome).is_err() {
            return Poll::Ready(true);
        }
        ready!(end(cx));
        *ended = true;
        Poll::Ready(false)
    };
    matches!(pass(), Poll::Ready(true))
}
