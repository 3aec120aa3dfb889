//! What goes before the shared pieces of a transaction: its number and cursors, which belong to one stream. For a change
//! of one object they would be most of what is sent, so that a stream says once what both ends then know: the epoch in
//! its Welcome, the cursors in the first piece.

use gateway_proto::wire;
use uuid::Uuid;

use super::session::{Content, Transaction};

/// The headers of one transaction's pieces.
#[derive(Clone, Debug)]
pub struct Header(wire::Chunk);

impl Header {
    /// Before the first piece. `said`: the epoch that the Welcome of the stream named.
    pub fn of(transaction: &Transaction, said: Uuid) -> Self {
        let Transaction { number, base, target, content, allow_shrink } = transaction;
        let buckets = match content {
            Content::Buckets(_, of) => of.iter().filter_map(|bucket| u32::try_from(bucket).ok()).collect(),
            Content::Full(_) | Content::Shared(_) | Content::Own(_) => Vec::new(),
        };
        let mut named = wire::Cursor::from(*target);
        if target.epoch == said {
            named.epoch.clear();
        }
        Header(wire::Chunk {
            transaction: *number,
            base_sum: base.map(|base| base.root.low()),
            target: Some(named),
            buckets,
            allow_shrink: *allow_shrink,
            ..Default::default()
        })
    }

    /// For the next piece.
    pub fn next(&mut self, last: bool) -> wire::Chunk {
        let later = wire::Chunk { transaction: self.0.transaction, ..Default::default() };
        wire::Chunk { last, ..std::mem::replace(&mut self.0, later) }
    }
}

#[cfg(test)]
mod tests {
    use gateway_proto::digest::RootHash;
    use prost::Message as _;

    use super::*;
    use crate::publish::Cursor;
    use crate::publish::testing::EPOCH;

    fn transaction(base: bool) -> Transaction {
        let root = RootHash::from_slice(&[7; 16]).expect("16 bytes");
        let at = Cursor { epoch: EPOCH, revision: 9, root };
        let content = Content::Own(Vec::new());
        Transaction { number: 3, base: base.then_some(at), target: at, content, allow_shrink: false }
    }

    #[test]
    fn a_header_says_no_more_than_the_stream_does_not_know() {
        let mut header = Header::of(&transaction(true), EPOCH);
        let first = header.next(false);
        assert_eq!(first.base_sum, Some(0x0707_0707_0707_0707));
        assert!(first.target.as_ref().is_some_and(|it| it.epoch.is_empty() && it.revision == 9));
        assert!(first.encoded_len() <= 36, "{}", first.encoded_len());
        assert_eq!(header.next(true), wire::Chunk { transaction: 3, last: true, ..Default::default() });
    }

    #[test]
    fn another_history_than_the_welcomes_is_named_and_everything_starts_from_nothing() {
        let first = Header::of(&transaction(false), Uuid::from_u128(5)).next(true);
        assert_eq!((first.base_sum, first.target.map(|it| it.epoch)), (None, Some(EPOCH.to_string())));
    }
}
