//! Exchange: the storage of one request and its response. A worker keeps a few and lends one to each request, so that
//! a warm worker allocates nothing per request and an idle connection holds none of it.

use gateway_engine::context::Notes;
use gateway_engine::head::HeadParts;
use gateway_http1::request::RequestHead;
use gateway_http1::response::ResponseHead;
use http::Request;

use super::identity::Introduction;
use crate::telemetry::metrics::Stopwatch;

/// Storage above this many bytes is freed instead of kept: one huge head must not stay for ever.
const KEEP: usize = 128 * 1024;

/// What one request needs besides its connections.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    /// The request's head as policies see it.
    pub(crate) request: HeadParts,
    /// The response's.
    pub(crate) response: HeadParts,
    /// The request's head as the HTTP/1.1 codec found it.
    pub(crate) parsed_request: RequestHead,
    /// The response's.
    pub(crate) parsed_response: ResponseHead,
    /// What the request pass keeps for the response pass.
    pub(crate) notes: Notes,
    /// Request id.
    pub(crate) id: String,
    /// Authority asked for, as it was received.
    pub(crate) authority: Vec<u8>,
    /// Host asked for, in the one form: always that of `authority`.
    pub(crate) host: String,
    /// What the target was told of the client that asked last.
    pub(crate) introduction: Introduction,
    /// Path asked for, in the one form.
    pub(crate) path: String,
    /// Method as received; only when requests are logged.
    pub(crate) method: String,
    /// For whatever is rendered in between.
    pub(crate) scratch: Vec<u8>,
    /// Body of a response made here.
    pub(crate) body: Vec<u8>,
    /// Lent to the client's connection.
    pub(crate) to_client: Vec<u8>,
    /// Lent to the target's connection.
    pub(crate) to_target: Vec<u8>,
    /// The head of the request to a target that speaks HTTP/2.
    pub(crate) to_session: Option<Request<()>>,
    /// Times its phases.
    pub(crate) stopwatch: Stopwatch,
}

impl Exchange {
    /// Forgets the request; keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.request.clear();
        self.response.clear();
        self.parsed_request.reset();
        self.parsed_response.reset();
        self.notes.clear();
        self.body.clear();
        self.id.clear();
        self.to_session = None;
    }

    /// It did not grow beyond what is kept.
    pub(crate) fn is_worth_keeping(&self) -> bool {
        let texts = self.id.capacity() + self.host.capacity() + self.path.capacity() + self.method.capacity();
        let buffers = [&self.authority, &self.scratch, &self.body, &self.to_client, &self.to_target];
        let buffers: usize = buffers.iter().map(|buffer| buffer.capacity()).sum();
        let heads = self.request.capacity() + self.response.capacity() + self.introduction.capacity();
        heads + texts + buffers <= KEEP
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_huge_request_made_grow_is_not_kept() {
        let mut exchange = Exchange::default();
        exchange.to_client.reserve(64 * 1024);
        assert!(exchange.is_worth_keeping());
        exchange.body.reserve(128 * 1024);
        assert!(!exchange.is_worth_keeping());
    }
}
