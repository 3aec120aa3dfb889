//! The journal of the keys on a real disk: restarts, cut and damaged tails, missing records, and the file's end.

use aes_gcm::KeyInit as _;
use gateway_proto::credential::KeyDigest;
use tokio::time::timeout;

use super::super::take_in;
use super::*;

/// What a file begins with.
const HEADER: usize = MAGIC.len() + size_of::<FileId>();

fn journal(dir: &std::path::Path, group: &str) -> Journal {
    let state_dir = Arc::new(StateDir::open(dir).expect("ours"));
    let cipher = Aes256Gcm::new_from_slice(&[7; 32]).expect("32 bytes");
    Journal::new(state_dir, cipher, group.to_owned())
}

fn digest(n: u64) -> KeyDigest {
    KeyDigest::of(&n.to_le_bytes())
}

fn cursor(revision: u64) -> wire::Cursor {
    wire::Cursor { epoch: "e".into(), revision, root_hash: Vec::new() }
}

/// A transaction of one piece that leads to a revision.
fn piece(revision: u64, grants: impl IntoIterator<Item = u64>, revoked: &[u64]) -> wire::CredentialsChunk {
    let mut piece = PieceBuilder::default();
    grants.into_iter().for_each(|n| piece.grant(&digest(n), "default/alice", 0));
    revoked.iter().for_each(|n| piece.revoke(&digest(*n)));
    piece.finish(cursor(revision), true)
}

/// Writes transactions as a lane does, one after the other.
async fn keep(dir: &std::path::Path, pieces: Vec<wire::CredentialsChunk>) -> Arc<Keys> {
    keep_until(dir, pieces, |_| {}).await
}

/// The same, and what is said of the journal in the end.
async fn keep_until(
    dir: &std::path::Path,
    pieces: Vec<wire::CredentialsChunk>,
    end: impl FnOnce(&Writer),
) -> Arc<Keys> {
    let keys = Arc::new(Keys::default());
    let (writer, task) = Writer::start(journal(dir, "g"), Arc::clone(&keys));
    for chunk in pieces {
        take_in(&keys, &chunk).expect("sound");
        keys.set_complete(true);
        let target = chunk.target.clone().expect("set");
        writer.append(chunk, &target);
        tried(&writer).await;
    }
    end(&writer);
    drop(writer);
    task.ended().await;
    keys
}

/// Waits until the writer has tried to write all that it was given.
async fn tried(writer: &Writer) {
    timeout(Duration::from_secs(20), async {
        while *lock(&writer.waiting) > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it tries");
}

fn restored(dir: &std::path::Path, group: &str) -> (Keys, Option<wire::Cursor>) {
    let keys = Keys::default();
    let target = journal(dir, group).replay(|chunk| take_in(&keys, chunk));
    (keys, target)
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart_and_a_revocation_is_not_forgotten() {
    let dir = tempfile::tempdir().expect("a folder");
    let kept = keep(dir.path(), vec![piece(1, 0..500, &[]), piece(2, [], &[7]), piece(3, [900], &[])]).await;
    let (keys, target) = restored(dir.path(), "g");
    assert_eq!((keys.root(), keys.len()), (kept.root(), 500));
    assert_eq!(keys.grant(&digest(7)), None);
    assert_eq!(target.expect("complete").revision, 3);
}

#[tokio::test]
async fn who_asks_for_keys_no_more_keeps_none_on_disk() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join(FILE);
    keep_until(dir.path(), vec![piece(1, 0..10, &[])], |_| assert!(path.exists())).await;
    keep_until(dir.path(), vec![piece(2, [11], &[])], Writer::forget).await;
    assert!(!path.exists());
}

#[tokio::test]
async fn a_tail_that_is_cut_off_or_damaged_is_passed_over_and_another_group_gets_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    keep(dir.path(), vec![piece(1, 0..10, &[]), piece(2, [10], &[]), piece(3, [11], &[])]).await;
    let path = dir.path().join(FILE);
    let whole = std::fs::read(&path).expect("written");
    assert!(restored(dir.path(), "h").1.is_none());
    let cut = &whole[..whole.len() - 1];
    let mut flipped = whole.clone();
    *flipped.last_mut().expect("some") ^= 1;
    for damaged in [cut, &flipped] {
        std::fs::write(&path, damaged).expect("written");
        let (keys, target) = restored(dir.path(), "g");
        assert_eq!((keys.len(), target.map(|it| it.revision)), (11, Some(2)));
    }
    for nothing in [&b""[..], b"GWKEYS01", MAGIC, &[&MAGIC[..], &[255; 25]].concat()] {
        std::fs::write(&path, nothing).expect("written");
        assert!(restored(dir.path(), "g").1.is_none());
    }
}

#[tokio::test]
async fn records_cannot_be_left_out_or_moved() {
    let dir = tempfile::tempdir().expect("a folder");
    keep(dir.path(), vec![piece(1, 0..10, &[]), piece(2, [], &[3]), piece(3, [11], &[])]).await;
    let path = dir.path().join(FILE);
    let bytes = std::fs::read(&path).expect("written");
    let mut records = Vec::new();
    let (header, mut rest) = bytes.split_at(HEADER);
    while let Some((len, _)) = rest.split_first_chunk::<4>() {
        let (record, after) = rest.split_at(4 + u32::from_le_bytes(*len) as usize);
        records.push(record);
        rest = after;
    }
    assert_eq!(records.len(), 3);
    let without = [header, records[0], records[2]].concat();
    std::fs::write(&path, without).expect("written");
    let (keys, target) = restored(dir.path(), "g");
    assert_eq!((keys.len(), target.map(|it| it.revision)), (10, Some(1)), "nothing behind the gap is taken");
}

#[tokio::test]
async fn a_file_that_has_outgrown_what_is_held_is_written_anew() {
    let dir = tempfile::tempdir().expect("a folder");
    let many = |revision: u64| piece(revision, 0..20_000, &[]);
    let kept = keep(dir.path(), (1..=12).map(many).collect()).await;
    let len = std::fs::metadata(dir.path().join(FILE)).expect("written").len();
    assert!(len < 2 * SMALL, "{len}");
    let (keys, target) = restored(dir.path(), "g");
    assert_eq!((keys.root(), target.map(|it| it.revision)), (kept.root(), Some(12)));
}

#[tokio::test]
async fn a_record_of_an_older_file_is_none_of_the_newer() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join(FILE);
    keep(dir.path(), vec![piece(1, 0..10, &[]), piece(2, [11], &[])]).await;
    let old = std::fs::read(&path).expect("written");
    keep(dir.path(), vec![piece(1, 0..10, &[]), piece(2, [], &[3])]).await;
    let new = std::fs::read(&path).expect("written");
    let first =
        HEADER + 4 + u32::from_le_bytes(new[HEADER..HEADER + 4].try_into().expect("4 bytes")) as usize;
    // The records of both begin at the same place: what was revoked would be good again.
    std::fs::write(&path, [&new[..first], &old[first..]].concat()).expect("written");
    let (keys, target) = restored(dir.path(), "g");
    assert_eq!((keys.len(), target.map(|it| it.revision)), (10, Some(1)));
    assert!(keys.grant(&digest(11)).is_none());
}

#[tokio::test]
async fn what_could_not_be_written_is_tried_again_by_itself() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join(FILE);
    // Nothing can be put in its place while something is in it.
    std::fs::create_dir_all(path.join("in the way")).expect("made");
    let keys = Arc::new(Keys::default());
    let journal = journal(dir.path(), "g");
    let (writer, task) = Writer::start(journal.clone(), Arc::clone(&keys));
    let restored = || {
        let keys = Keys::default();
        let target = journal.replay(|chunk| take_in(&keys, chunk));
        target.map(|_| keys.len())
    };
    let chunk = piece(1, 0..10, &[]);
    take_in(&keys, &chunk).expect("sound");
    keys.set_complete(true);
    let target = chunk.target.clone().expect("set");
    writer.append(chunk, &target);
    tried(&writer).await;
    std::fs::remove_dir_all(&path).expect("out of the way");
    timeout(Duration::from_secs(20), async {
        while restored().is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it is written");
    assert_eq!(restored(), Some(10));
    drop(writer);
    task.ended().await;
}
