//! Moving a body from where it comes from to where it goes, without frames of its own: the sink writes straight from
//! the source's buffer. Backpressure is end to end, because nothing is read while something is unwritten.
//!
//! [`Source`] and [`Sink`] have two implementations each: a connection that speaks HTTP/1.1 ([`super::wire::Wire`]) and
//! a stream of an HTTP/2 connection ([`super::http2::body`]). Trailers travel as the text of an HTTP/1.1 trailer section.

use std::io;
use std::task::{Context, Poll, ready};

use gateway_engine::identity::speaks_of_identity;
use gateway_http1::Field;
use gateway_http1::body::{BodyError, parse_trailers};

/// One step of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// There is data: see [`Source::data`].
    Data,
    /// The body is over: see [`Source::trailers`].
    End,
}

/// Where a body comes from.
pub(crate) trait Source {
    /// Gets the next data or the end. Only called when [`Source::data`] is empty; after the end it says so again.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<Step, SourceError>>;

    /// Data that is there and not yet consumed.
    fn data(&self) -> &[u8];

    /// The first `count` bytes of the data are done with.
    fn consume(&mut self, count: usize);

    /// After the end: field lines and an empty line, or nothing.
    fn trailers(&self) -> &[u8];
}

/// Where a body goes.
pub(crate) trait Sink {
    /// Takes some of the data, not none; may keep it until [`Sink::poll_flush`]. While it is pending the same data
    /// must be offered again.
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>>;

    /// Takes the end, with the source's trailers.
    fn end(&mut self, trailers: &[u8]) -> io::Result<()>;

    /// Hands over to the system what was kept.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// Why a source gives no more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What came is no body; a connection that ended early is [`BodyError::Truncated`].
    #[error(transparent)]
    Body(#[from] BodyError),
}

/// Why a body did not get through.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The source failed.
    Source(SourceError),
    /// The sink failed.
    Sink,
    /// There is more than the limit allows.
    TooLarge,
}

/// Who has to move next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// The source, for more.
    #[default]
    Source,
    /// The sink, to take what there is.
    Sink,
}

/// One body on its way.
#[derive(Debug)]
pub(crate) struct Relay {
    moved: u64,
    limit: u64,
    guards_identity: bool,
    state: State,
    waiting: Waiting,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Flowing,
    Ended,
    Done,
}

impl Relay {
    /// A body of at most `limit` bytes.
    pub(crate) fn new(limit: u64) -> Self {
        Relay { moved: 0, limit, guards_identity: false, state: State::Flowing, waiting: Waiting::Source }
    }

    /// Drops trailers that only the gateway may say, if it `guards` them: fields of identity.
    pub(crate) fn guarding_identity(self, guards: bool) -> Self {
        Relay { guards_identity: guards, ..self }
    }

    /// The end of a body that has no data and was announced as none: only what the sink keeps has to go out.
    pub(crate) fn of_nothing() -> Self {
        Relay { state: State::Ended, waiting: Waiting::Sink, ..Relay::new(0) }
    }

    /// The sink will send again what it kept: see that it does.
    pub(crate) fn restart(&mut self) {
        if self.state == State::Done {
            self.state = State::Ended;
        }
    }

    /// The whole body, its end included, was taken by the sink's system.
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Who is waited for when polling was pending.
    pub(crate) fn waiting(&self) -> Waiting {
        self.waiting
    }

    /// Moves as much as can be moved. What was sent before (a head that the sink keeps) goes out with the first data
    /// or when there is nothing more to add.
    pub(crate) fn poll<A: Source, B: Sink>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut A,
        sink: &mut B,
    ) -> Poll<Result<(), Broken>> {
        while self.state == State::Flowing {
            self.waiting = Waiting::Sink;
            while !source.data().is_empty() {
                let count = ready!(sink.poll_send(cx, source.data())).map_err(|_| Broken::Sink)?;
                source.consume(count);
                self.moved += count as u64;
            }
            self.waiting = Waiting::Source;
            match source.poll_step(cx).map_err(Broken::Source)? {
                Poll::Ready(Step::Data) if self.moved + source.data().len() as u64 > self.limit => {
                    return Poll::Ready(Err(Broken::TooLarge));
                }
                Poll::Ready(Step::Data) => {}
                Poll::Ready(Step::End) => {
                    let trailers = source.trailers();
                    let ended = match self.guards_identity && !trailers.is_empty() {
                        true => without_identity(trailers).and_then(|trailers| sink.end(&trailers)),
                        false => sink.end(trailers),
                    };
                    ended.map_err(|_| Broken::Sink)?;
                    self.state = State::Ended;
                }
                Poll::Pending => {
                    if sink.poll_flush(cx).map_err(|_| Broken::Sink)?.is_pending() {
                        self.waiting = Waiting::Sink;
                    }
                    return Poll::Pending;
                }
            }
        }
        self.waiting = Waiting::Sink;
        ready!(sink.poll_flush(cx)).map_err(|_| Broken::Sink)?;
        self.state = State::Done;
        Poll::Ready(Ok(()))
    }
}

/// Trailers without those that speak of identity.
fn without_identity(trailers: &[u8]) -> io::Result<Vec<u8>> {
    let mut fields: Vec<Field> = Vec::new();
    parse_trailers(trailers, &mut fields).map_err(io::Error::other)?;
    let mut kept = Vec::with_capacity(trailers.len());
    for field in fields {
        let (name, value) = (field.name.of(trailers), field.value.of(trailers));
        if !speaks_of_identity(name) {
            [name, b": ", value, b"\r\n"].into_iter().for_each(|piece| kept.extend_from_slice(piece));
        }
    }
    if !kept.is_empty() {
        kept.extend_from_slice(b"\r\n");
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::task::Waker;

    use super::*;

    /// Gives what it is told to: data, or pending when there is none.
    #[derive(Default)]
    struct Script {
        steps: VecDeque<Option<&'static [u8]>>,
        current: &'static [u8],
        trailers: &'static [u8],
    }

    impl Source for Script {
        fn poll_step(&mut self, _cx: &mut Context<'_>) -> Poll<Result<Step, SourceError>> {
            match self.steps.pop_front() {
                Some(Some(data)) => {
                    self.current = data;
                    Poll::Ready(Ok(Step::Data))
                }
                Some(None) => Poll::Pending,
                None => Poll::Ready(Ok(Step::End)),
            }
        }
        fn data(&self) -> &[u8] {
            self.current
        }
        fn consume(&mut self, count: usize) {
            self.current = &self.current[count..];
        }
        fn trailers(&self) -> &[u8] {
            self.trailers
        }
    }

    /// Takes `room` bytes, then blocks until it is given more.
    #[derive(Default)]
    struct Bounded {
        taken: Vec<u8>,
        room: usize,
        flushed: usize,
        ended: bool,
        trailers: Vec<u8>,
    }

    impl Sink for Bounded {
        fn poll_send(&mut self, _cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
            let count = data.len().min(self.room);
            if count == 0 {
                return Poll::Pending;
            }
            self.room -= count;
            self.taken.extend_from_slice(&data[..count]);
            Poll::Ready(Ok(count))
        }
        fn end(&mut self, trailers: &[u8]) -> io::Result<()> {
            self.ended = true;
            self.trailers = trailers.to_vec();
            Ok(())
        }
        fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushed += 1;
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn a_source_that_waits_gets_what_it_gave_flushed() {
        let mut source = Script { steps: [Some(&b"ab"[..]), None, Some(b"c")].into(), ..Script::default() };
        let mut sink = Bounded { room: 100, ..Bounded::default() };
        let mut relay = Relay::new(u64::MAX);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(relay.poll(&mut cx, &mut source, &mut sink).is_pending());
        assert_eq!((&sink.taken[..], sink.flushed, relay.waiting()), (&b"ab"[..], 1, Waiting::Source));
        assert!(matches!(relay.poll(&mut cx, &mut source, &mut sink), Poll::Ready(Ok(()))));
        assert_eq!((&sink.taken[..], sink.ended, relay.is_done()), (&b"abc"[..], true, true));
    }

    #[test]
    fn trailers_that_speak_of_identity_are_dropped_where_it_is_guarded() {
        const SENT: &[u8] = b"X-Sum: 5\r\nX-Consumer-ID: default/root\r\nx_credential_identifier: a\r\n\r\n";
        for (guards, trailers, passed) in [
            (true, SENT, &b"X-Sum: 5\r\n\r\n"[..]),
            (true, b"X-Consumer-ID: default/root\r\n\r\n", b""),
            (true, b"", b""),
            (false, SENT, SENT),
        ] {
            let mut source = Script { trailers, ..Script::default() };
            let mut sink = Bounded::default();
            let mut cx = Context::from_waker(Waker::noop());
            let mut relay = Relay::new(u64::MAX).guarding_identity(guards);
            assert!(matches!(relay.poll(&mut cx, &mut source, &mut sink), Poll::Ready(Ok(()))));
            assert_eq!(sink.trailers, passed);
        }
    }

    #[test]
    fn nothing_is_read_while_the_sink_is_full() {
        let mut source = Script { steps: [Some(&b"abc"[..]), Some(b"d")].into(), ..Script::default() };
        let mut sink = Bounded { room: 2, ..Bounded::default() };
        let mut relay = Relay::new(u64::MAX);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(relay.poll(&mut cx, &mut source, &mut sink).is_pending());
        assert_eq!((source.data(), source.steps.len(), relay.waiting()), (&b"c"[..], 1, Waiting::Sink));
    }

    #[test]
    fn a_body_over_the_limit_stops_before_the_piece_that_exceeds_it() {
        let mut source = Script { steps: [Some(&b"abc"[..]), Some(b"de")].into(), ..Script::default() };
        let mut sink = Bounded { room: 100, ..Bounded::default() };
        let mut cx = Context::from_waker(Waker::noop());
        let outcome = Relay::new(4).poll(&mut cx, &mut source, &mut sink);
        assert!(matches!(outcome, Poll::Ready(Err(Broken::TooLarge))));
        assert_eq!((&sink.taken[..], sink.ended), (&b"abc"[..], false));
    }
}
