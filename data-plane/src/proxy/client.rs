//! [`Client`]: the side of an exchange that faces the client, in whatever protocol it speaks. Two implementations:
//! an HTTP/1.1 connection and a stream of an HTTP/2 connection.

use std::net::IpAddr;
use std::task::{Context, Poll};

use gateway_engine::context::Scheme;
use gateway_engine::head::{Head, Text};
use gateway_http1::{Framing, Method};
use tokio::time::Instant;

use crate::relay::{Sink, Source};

/// What is asked, apart from the head that policies see.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// The method.
    pub(crate) method: Method,
    /// Where the request's body ends.
    pub(crate) framing: Framing,
    /// The client can take trailers.
    pub(crate) trailers: bool,
    /// The protocol that the client wants to go on with.
    pub(crate) upgrade: Option<Text>,
    /// The other end of the connection.
    pub(crate) peer: IpAddr,
    /// What it spoke.
    pub(crate) scheme: Scheme,
    /// It is one of the listener's trusted proxies.
    pub(crate) trusted: bool,
    /// When the first byte of the request was there.
    pub(crate) started: Instant,
}

impl Asked {
    /// Of a request that begins now, before its head is there.
    pub(crate) fn nothing(peer: IpAddr, scheme: Scheme) -> Self {
        Asked {
            method: Method::Other,
            framing: Framing::None,
            trailers: false,
            upgrade: None,
            peer,
            scheme,
            trusted: false,
            started: Instant::now(),
        }
    }
}

/// What becomes of the connection after the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// It can take the next request, if the client wants that too.
    Keep,
    /// It ends.
    Close,
}

/// A response that is about to begin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening<'a> {
    /// Length of the body (also where none follows, as to HEAD), if known.
    pub(crate) length: Option<u64>,
    /// Afterwards.
    pub(crate) after: After,
    /// The protocol that is upgraded to (a response 101).
    pub(crate) upgrade: Option<&'a [u8]>,
}

/// What became of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// It will send no more, but may still read.
    HalfClosed,
    /// The connection is broken.
    Dead,
}

/// A response head cannot be sent: a policy made something of it that no head may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unsendable;

/// Where a request comes from and its response goes to.
pub(crate) trait Client: Source + Sink {
    /// The bytes that the request head's wire texts point into.
    fn head_bytes(&self) -> &[u8];

    /// The request head is not looked at any more.
    fn release_head(&mut self);

    /// Passes an interim response (1xx) on, if the protocol has a place for it.
    fn interim(&mut self, head: &Head<'_>) -> Result<(), Unsendable>;

    /// Begins the response; its body follows through [`Sink`].
    fn open(&mut self, head: &Head<'_>, opening: Opening<'_>) -> Result<(), Unsendable>;

    /// Takes back the response that was opened, with what was sent through [`Sink`] since, if none of it has left.
    fn retract(&mut self) -> bool;

    /// After a response 101: what follows is passed as it is, both ways.
    fn become_tunnel(&mut self);

    /// Tells the client that nothing more comes through the tunnel.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Notices that the client has withdrawn the request, where that costs nothing to see.
    fn poll_withdrawn(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    /// Notices that the client went away while nothing is expected from it.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Gone>;

    /// The response cannot be completed: the client must not take what it got for the whole.
    fn abort(&mut self);

    /// Grows whenever a byte moves.
    fn progress(&self) -> u64;

    /// Bytes received and sent since the last call.
    fn take_counts(&mut self) -> (u64, u64);
}
