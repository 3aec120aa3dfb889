//! A stream at work inside hyper's own task for it: most responses are complete when they begin, and cost no second
//! task and no wake-up between two. What takes longer goes on in a task of its own, so that a client that does not
//! read stops neither timeouts nor the other direction.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::Response;
use tokio::runtime::Handle;
use tokio::task::spawn_local;

use super::pipe::Outgoing;
use crate::wheel::Timer;

/// Where a stream's response is laid for hyper.
#[derive(Default)]
pub(super) struct Answer {
    response: Cell<Option<Response<Outgoing>>>,
    unwanted: Cell<bool>,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("unwanted", &self.unwanted).finish_non_exhaustive()
    }
}

impl Answer {
    /// The response begins.
    pub(super) fn give(&self, response: Response<Outgoing>) {
        self.response.set(Some(response));
    }

    /// The client reset the stream before that.
    pub(super) fn is_unwanted(&self) -> bool {
        self.unwanted.get()
    }
}

type Work = Pin<Box<dyn Future<Output = ()>>>;

/// Becomes the response. Dropped before, it lets the work notice that nobody wants it.
pub(super) struct Serving {
    work: Option<Work>,
    answer: Rc<Answer>,
    timer: Rc<Timer>,
}

impl Serving {
    /// `work` gives the answer and uses the timer.
    pub(super) fn new(
        work: impl Future<Output = ()> + 'static,
        answer: Rc<Answer>,
        timer: Rc<Timer>,
    ) -> Self {
        Serving { work: Some(Box::pin(work)), answer, timer }
    }

    /// Lets the work go on in a task of its own.
    fn go_on(&mut self, mut work: Work) {
        let timer = Rc::clone(&self.timer);
        spawn_local(async move {
            poll_fn(|cx| {
                timer.wakes(cx.waker());
                work.as_mut().poll(cx)
            })
            .await;
        });
    }
}

impl Future for Serving {
    type Output = io::Result<Response<Outgoing>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.timer.wakes(cx.waker());
        // Not here while it is polled: if it panics, nobody goes on with it.
        let mut left = self.work.take();
        if let Some(work) = &mut left
            && work.as_mut().poll(cx).is_ready()
        {
            left = None;
        }
        match (left, self.answer.response.take()) {
            // Without a response the stream is reset.
            (None, response) => Poll::Ready(response.ok_or_else(|| io::ErrorKind::ConnectionAborted.into())),
            (Some(work), Some(response)) => {
                self.go_on(work);
                Poll::Ready(Ok(response))
            }
            (work, None) => {
                self.work = work;
                Poll::Pending
            }
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // Nothing is started while the runtime goes down.
        if let Some(work) = self.work.take()
            && Handle::try_current().is_ok()
        {
            self.answer.unwanted.set(true);
            self.go_on(work);
        }
    }
}
