//! The body of an HTTP/2 response on its way from the stream's task to hyper: one piece at a time, so that a client
//! that does not read holds up its target and nothing else. Both ends live on one thread.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body, Frame, SizeHint};

/// Largest piece.
const PIECE: usize = 64 * 1024;

#[derive(Debug, Default)]
struct Pipe {
    data: Option<Bytes>,
    trailers: Option<HeaderMap>,
    state: State,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Flowing,
    /// The writer has said everything.
    Ended,
    /// The writer went away before the end: the stream is to be reset.
    Broken,
    /// Nobody reads any more.
    Unread,
}

/// Makes the two ends.
pub(super) fn pipe() -> (Writer, Outgoing) {
    let pipe = Rc::new(RefCell::new(Pipe::default()));
    (Writer(Rc::clone(&pipe)), Outgoing(pipe))
}

/// The end that is written to. Dropped before its end, it breaks the body off.
#[derive(Debug)]
pub(super) struct Writer(Rc<RefCell<Pipe>>);

impl Writer {
    /// Takes some of the data when what was taken before has been read.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let mut pipe = self.0.borrow_mut();
        if pipe.state == State::Unread {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if pipe.data.is_some() {
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = data.len().min(PIECE);
        pipe.data = Some(Bytes::copy_from_slice(&data[..count]));
        pipe.wake_reader();
        Poll::Ready(Ok(count))
    }

    /// Everything is said.
    pub(super) fn end(&self, trailers: Option<HeaderMap>) {
        let mut pipe = self.0.borrow_mut();
        if pipe.state == State::Flowing {
            pipe.trailers = trailers;
            pipe.state = State::Ended;
            pipe.wake_reader();
        }
    }

    /// Ready once nobody reads any more.
    pub(super) fn poll_unread(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut pipe = self.0.borrow_mut();
        if pipe.state == State::Unread {
            return Poll::Ready(());
        }
        pipe.writer = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut pipe = self.0.borrow_mut();
        if pipe.state == State::Flowing {
            pipe.state = State::Broken;
            pipe.wake_reader();
        }
    }
}

impl Pipe {
    fn wake_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

/// The end that hyper reads.
#[derive(Debug)]
pub(super) struct Outgoing(Rc<RefCell<Pipe>>);

impl Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let mut pipe = self.0.borrow_mut();
        if let Some(data) = pipe.data.take() {
            if let Some(writer) = pipe.writer.take() {
                writer.wake();
            }
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        match pipe.state {
            State::Flowing => {
                pipe.reader = Some(cx.waker().clone());
                Poll::Pending
            }
            State::Ended => Poll::Ready(pipe.trailers.take().map(|trailers| Ok(Frame::trailers(trailers)))),
            State::Broken | State::Unread => Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        let pipe = self.0.borrow();
        pipe.state == State::Ended && pipe.data.is_none() && pipe.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let pipe = self.0.borrow();
        match (&pipe.data, pipe.state) {
            (data, State::Ended) => SizeHint::with_exact(data.as_ref().map_or(0, |data| data.len() as u64)),
            _ => SizeHint::default(),
        }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        let mut pipe = self.0.borrow_mut();
        pipe.state = State::Unread;
        if let Some(writer) = pipe.writer.take() {
            writer.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &mut Outgoing) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn one_piece_at_a_time_then_the_end() {
        let (writer, mut body) = pipe();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(read(&mut body).is_pending());
        assert!(matches!(writer.poll_send(&mut cx, b"ab"), Poll::Ready(Ok(2))));
        assert!(writer.poll_send(&mut cx, b"cd").is_pending(), "not before the first is read");
        let Poll::Ready(Some(Ok(frame))) = read(&mut body) else { panic!("data is there") };
        assert_eq!(frame.into_data().expect("data"), "ab");
        writer.end(None);
        assert!(body.is_end_stream());
        assert!(matches!(read(&mut body), Poll::Ready(None)));
    }

    #[test]
    fn a_writer_that_goes_away_early_breaks_the_body_off() {
        let (writer, mut body) = pipe();
        drop(writer);
        assert!(matches!(read(&mut body), Poll::Ready(Some(Err(_)))));
    }

    #[test]
    fn a_body_that_is_not_read_any_more_stops_the_writer() {
        let (writer, body) = pipe();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(writer.poll_unread(&mut cx).is_pending());
        drop(body);
        assert!(writer.poll_unread(&mut cx).is_ready());
        assert!(matches!(writer.poll_send(&mut cx, b"x"), Poll::Ready(Err(_))));
    }
}
