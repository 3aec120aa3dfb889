//! What goes before the shared pieces of a transaction: its number and cursors, which belong to one stream. For a change
//! of one object they were most of what was sent, so that a data plane that says `brief` is told once what it can know
//! from then on: the epoch in its Welcome, the cursors in the first piece.

use gateway_proto::wire;
use uuid::Uuid;

use super::session::{Content, Transaction};

/// The headers of one transaction's pieces.
#[derive(Clone, Debug)]
pub struct Header {
    chunk: wire::Chunk,
    brief: bool,
}

impl Header {
    /// Before the first piece. `said`: the epoch that the Welcome of a stream named that takes the brief form.
    pub fn of(transaction: &Transaction, said: Option<Uuid>) -> Self {
        let Transaction { number, base, target, content, allow_shrink } = transaction;
        let buckets = match content {
            Content::Buckets(_, of) => of.iter().filter_map(|bucket| u32::try_from(bucket).ok()).collect(),
            Content::Full(_) | Content::Shared(_) | Content::Own(_) => Vec::new(),
        };
        let is_known = |epoch: Uuid| said == Some(epoch);
        let mut chunk = wire::Chunk {
            transaction: *number,
            target: Some((*target).into()),
            buckets,
            allow_shrink: *allow_shrink,
            ..Default::default()
        };
        match base {
            Some(base) if is_known(base.epoch) => chunk.base_sum = Some(base.root.low()),
            Some(base) => chunk.base = Some((*base).into()),
            None => {}
        }
        if let Some(target) = chunk.target.as_mut().filter(|_| is_known(target.epoch)) {
            target.epoch.clear();
        }
        Header { chunk, brief: said.is_some() }
    }

    /// For the next piece.
    pub fn next(&mut self, last: bool) -> wire::Chunk {
        let header = wire::Chunk { last, ..self.chunk.clone() };
        if self.brief {
            self.chunk = wire::Chunk { transaction: self.chunk.transaction, ..Default::default() };
        }
        self.chunk.buckets.clear();
        header
    }
}

#[cfg(test)]
mod tests {
    use gateway_proto::digest::RootHash;
    use prost::Message as _;

    use super::*;
    use crate::publish::Cursor;
    use crate::publish::testing::EPOCH;

    fn transaction(base: Option<Uuid>) -> Transaction {
        let root = RootHash::from_slice(&[7; 16]).expect("16 bytes");
        let at = |epoch| Cursor { epoch, revision: 9, root };
        let content = Content::Own(Vec::new());
        Transaction { number: 3, base: base.map(at), target: at(EPOCH), content, allow_shrink: false }
    }

    #[test]
    fn a_brief_header_says_no_more_than_the_stream_does_not_know() {
        let mut header = Header::of(&transaction(Some(EPOCH)), Some(EPOCH));
        let first = header.next(false);
        assert_eq!((first.base_sum, &first.base), (Some(0x0707_0707_0707_0707), &None));
        assert!(first.target.as_ref().is_some_and(|it| it.epoch.is_empty() && it.revision == 9));
        assert!(first.encoded_len() <= 36, "{}", first.encoded_len());
        assert_eq!(header.next(true), wire::Chunk { transaction: 3, last: true, ..Default::default() });
    }

    #[test]
    fn another_history_is_named_in_full() {
        let mut header = Header::of(&transaction(Some(Uuid::from_u128(5))), Some(Uuid::from_u128(5)));
        let first = header.next(true);
        assert_eq!(first.target.map(|it| it.epoch), Some(EPOCH.to_string()));
        let mut header = Header::of(&transaction(Some(Uuid::from_u128(5))), Some(EPOCH));
        let first = header.next(true);
        assert_eq!(first.base.map(|it| it.epoch), Some(Uuid::from_u128(5).to_string()));
        assert_eq!((first.base_sum, first.target.map(|it| it.epoch)), (None, Some(String::new())));
    }

    #[test]
    fn a_stream_that_does_not_take_it_gets_every_piece_in_full() {
        let mut header = Header::of(&transaction(Some(EPOCH)), None);
        let pieces = [header.next(false), header.next(true)];
        let full = |it: &wire::Chunk| {
            [&it.base, &it.target]
                .into_iter()
                .all(|it| it.as_ref().is_some_and(|it| it.epoch == EPOCH.to_string()))
        };
        assert!(pieces.iter().all(full), "{pieces:?}");
    }
}
