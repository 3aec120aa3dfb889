//! The lane against a store: who is sent what, and how two that came apart come together again.

use gateway_engine::identity::Keys;
use gateway_proto::admin::Role;
use gateway_proto::credential::{Grant, KeyDigest, read};
use gateway_proto::kind::{Key, Kind, Resource};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::auth::new_token;
use crate::store::{Commit, CredentialContent, CredentialWrite, Precondition, Store, Write, open};

struct Side {
    store: Arc<dyn Store>,
    credentials: Arc<Credentials>,
    stop: CancellationToken,
    _directory: tempfile::TempDir,
}

impl Side {
    async fn new() -> Side {
        let directory = tempfile::tempdir().expect("a folder");
        let (_, token) = new_token("admin", Role::Admin, Vec::new(), None);
        let url = format!("sqlite://{}/gateway.db", directory.path().display());
        let store = open(&url, &token).await.expect("opens").store;
        let metadata = Some(wire::Metadata { name: "alice".into(), ..Default::default() });
        let alice = Resource::from(wire::Consumer { metadata, ..Default::default() });
        let commit = Commit {
            base: store.head().await.expect("answers"),
            author: String::new(),
            message: String::new(),
            writes: vec![Write::put(alice, Precondition::Any)],
            credentials: Vec::new(),
            audit: None,
            origin: crate::store::Origin::Request,
        };
        store.commit(commit).await.expect("written");
        let credentials = Credentials::load(Arc::clone(&store)).await.expect("answers");
        let stop = CancellationToken::new();
        tokio::spawn(Arc::clone(&credentials).follow(stop.clone()));
        Side { store, credentials, stop, _directory: directory }
    }

    /// Keys by number; an empty list of grants: it is gone.
    async fn write(&self, numbers: std::ops::Range<u32>, is_good: bool) {
        let write = |n: u32| {
            let digest = digest(n);
            let grants = vec![Grant { digest, consumer: "default/alice".into(), expires: 0 }];
            let content = CredentialContent { body: bytes::Bytes::new(), consumer: "alice".into(), grants };
            let key = Key::new(Kind::Credential, "default", format!("k{n}"));
            CredentialWrite {
                key,
                expected: Precondition::Any,
                content: is_good.then_some(content),
                revives: true,
            }
        };
        let made = self.store.commit_credentials(numbers.map(write).collect(), None).await.expect("written");
        let mut head = self.credentials.watch();
        head.wait_for(|head| head.revision == made.version).await.expect("it follows");
    }

    fn lane(&self, said: Option<&wire::Cursor>) -> Lane {
        Lane::new(Arc::clone(&self.credentials), said)
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn digest(n: u32) -> KeyDigest {
    KeyDigest::of(&n.to_le_bytes())
}

/// A data plane as far as the lane is concerned.
#[derive(Default)]
struct Plane {
    keys: Keys,
    at: wire::Cursor,
}

impl Plane {
    fn cursor(&self) -> wire::Cursor {
        wire::Cursor { root_hash: self.keys.root().to_bytes().to_vec(), ..self.at.clone() }
    }

    fn held(&self, sums: Vec<u8>) -> wire::CredentialsHeld {
        wire::CredentialsHeld { cursor: Some(self.cursor()), sums }
    }

    /// Takes in what there is until the lane rests; digests that were sent, and whether sums were asked for.
    fn talk(&mut self, lane: &mut Lane) -> (usize, bool) {
        let (mut sent, mut compared) = (0, false);
        loop {
            if lane.wake() {
                compared = true;
                lane.hear(&self.held(self.keys.sums().to_bytes())).expect("asked for");
            }
            match lane.next() {
                Some(Say::Credentials(chunk)) => sent += self.take(lane, chunk),
                Some(Say::CompareCredentials(_)) => {
                    compared = true;
                    lane.hear(&self.held(self.keys.sums().to_bytes())).expect("asked for");
                }
                _ => return (sent, compared),
            }
        }
    }

    /// Takes a piece in, and answers if it was the last; how many digests it had.
    fn take(&mut self, lane: &mut Lane, chunk: wire::CredentialsChunk) -> usize {
        let (grants, revoked) = read(&chunk).expect("sound");
        let sent = grants.len() + revoked.len();
        for shard in &chunk.shards {
            let shard = *shard as usize;
            self.keys
                .replace(shard, grants.iter().filter(|it| it.digest.shard() == shard).cloned().collect());
        }
        self.keys.change(grants, &revoked);
        if chunk.last {
            self.at = chunk.target.expect("set");
            lane.hear(&self.held(Vec::new())).expect("a transaction is answered");
        }
        sent
    }

    /// Takes in one piece.
    fn piece(&mut self, lane: &mut Lane) -> wire::CredentialsChunk {
        let Some(Say::Credentials(chunk)) = lane.next() else { panic!("something is left") };
        self.take(lane, chunk.clone());
        chunk
    }
}

#[tokio::test]
async fn a_data_plane_gets_everything_then_what_changes_and_nothing_twice() {
    let side = Side::new().await;
    side.write(0..3_000, true).await;
    assert_eq!(Plane::default().talk(&mut side.lane(None)), (0, false), "it needs none");
    let mut plane = Plane::default();
    let mut lane = side.lane(Some(&plane.cursor()));
    assert_eq!(plane.talk(&mut lane), (3_000, false));
    assert_eq!(plane.talk(&mut lane), (0, false));
    side.write(7..9, false).await;
    side.write(3_000..3_001, true).await;
    assert_eq!(plane.talk(&mut lane), (3, false), "both changes at once");
    assert!(plane.keys.grant(&digest(7)).is_none() && plane.keys.grant(&digest(3_000)).is_some());
    assert_eq!(plane.talk(&mut side.lane(Some(&plane.cursor()))), (0, false), "a reconnect costs nothing");
    side.write(1..2, false).await;
    assert_eq!(plane.talk(&mut side.lane(Some(&plane.cursor()))), (1, false), "or what changed");
    assert_eq!(plane.keys.root(), side.credentials.head().root);
}

#[tokio::test]
async fn those_that_came_apart_are_compared_and_only_what_differs_is_sent() {
    let side = Side::new().await;
    side.write(0..3_000, true).await;
    let mut plane = Plane::default();
    let mut lane = side.lane(Some(&plane.cursor()));
    plane.talk(&mut lane);
    // It lost a key, and has one that nobody made.
    plane.keys.change(
        vec![Grant { digest: digest(9_999), consumer: "default/x".into(), expires: 0 }],
        &[digest(5)],
    );
    assert!(lane.heartbeat(Some(&plane.cursor())), "a divergence");
    let (sent, compared) = plane.talk(&mut lane);
    assert!(compared && (1..30).contains(&sent), "{sent}");
    assert_eq!(plane.keys.root(), side.credentials.head().root);
    assert!(!lane.heartbeat(Some(&plane.cursor())));
    // Another history: the same way.
    plane.at.epoch = "00000000-0000-4000-8000-000000000000".into();
    assert_eq!(plane.talk(&mut side.lane(Some(&plane.cursor()))), (0, true));
    // One that knows more than this replica keeps it.
    plane.at = wire::Cursor { revision: 99, ..side.credentials.head().into() };
    plane.keys.change(Vec::new(), &[digest(1)]);
    assert_eq!(plane.talk(&mut side.lane(Some(&plane.cursor()))), (0, false));
}

#[tokio::test]
async fn who_ceases_to_need_keys_is_sent_none_and_sums_out_of_place_end_the_stream() {
    let side = Side::new().await;
    side.write(0..10, true).await;
    let mut plane = Plane::default();
    let mut lane = side.lane(None);
    lane.hear(&plane.held(Vec::new())).expect("it begins to need them");
    assert_eq!(plane.talk(&mut lane), (10, false));
    lane.hear(&wire::CredentialsHeld::default()).expect("it ceases");
    side.write(10..11, true).await;
    assert_eq!((plane.talk(&mut lane), lane.head()), ((0, false), None));
    assert!(lane.hear(&plane.held(plane.keys.sums().to_bytes())).is_err(), "nobody asked");
    let mut lane = side.lane(Some(&wire::Cursor { revision: 1, ..plane.cursor() }));
    lane.wake();
    assert!(lane.hear(&plane.held(vec![0; 15])).is_err());
}

#[tokio::test]
async fn a_revocation_overtakes_a_transfer_of_everything() {
    let side = Side::new().await;
    side.write(0..20_000, true).await;
    let mut plane = Plane::default();
    let mut lane = side.lane(Some(&plane.cursor()));
    assert!(!lane.wake() && lane.is_large());
    let first = plane.piece(&mut lane);
    assert!(!first.last && plane.keys.len() > 100, "there is more to come");
    let held = plane.keys.shard(0)[0].digest;
    let gone = (0..20_000).find(|n| digest(*n) == held).expect("one of them");
    side.write(gone..gone + 1, false).await;
    assert!(lane.has_output() && !lane.is_large(), "it waits for no configuration either");
    let next = plane.piece(&mut lane);
    assert_eq!((read(&next).expect("sound").1, next.last), (vec![held], false));
    assert!(lane.is_large(), "and then it goes on");
    let left = std::iter::repeat_with(|| plane.piece(&mut lane)).find(|piece| piece.last);
    assert!(left.is_some_and(|last| !last.shards.is_empty()));

    // The transfer led to the head that it began with; what happened since is told as ever.
    assert_eq!(plane.talk(&mut lane), (1, false));
    assert_eq!(plane.cursor(), side.credentials.head().into());
}

#[tokio::test]
async fn a_change_overtakes_a_comparison_and_an_answer_that_is_owed() {
    let side = Side::new().await;
    side.write(0..3_000, true).await;
    let mut plane = Plane::default();
    plane.talk(&mut side.lane(Some(&plane.cursor())));
    plane.at.epoch = "00000000-0000-4000-8000-000000000000".into();
    let mut lane = side.lane(Some(&plane.cursor()));
    assert!(lane.wake() && !lane.has_output(), "its sums are owed");
    side.write(1..2, false).await;
    plane.piece(&mut lane);
    assert!(plane.keys.grant(&digest(1)).is_none() && !lane.has_output());
    lane.hear(&plane.held(plane.keys.sums().to_bytes())).expect("asked for");
    let Some(Say::Credentials(last)) = lane.next() else { panic!("an empty transaction") };
    assert!(last.last);
    side.write(2..3, false).await;
    plane.piece(&mut lane);
    assert!(plane.keys.grant(&digest(2)).is_none());
    plane.take(&mut lane, last);
    plane.talk(&mut lane);
    assert_eq!(plane.cursor(), side.credentials.head().into());
}

#[tokio::test]
async fn what_changed_is_sent_page_by_page_and_compared_when_it_is_forgotten_meanwhile() {
    let side = Side::new().await;
    side.write(0..10, true).await;
    let mut plane = Plane::default();
    plane.talk(&mut side.lane(Some(&plane.cursor())));
    side.write(10..6_000, true).await;
    let mut lane = side.lane(Some(&plane.cursor()));
    assert!(!lane.wake());
    for pages in 1.. {
        if plane.piece(&mut lane).last {
            assert!(pages > 2, "{pages}");
            break;
        }
    }
    assert_eq!(plane.cursor(), side.credentials.head().into());

    side.write(0..6_000, false).await;
    let mut lane = side.lane(Some(&plane.cursor()));
    assert!(!lane.wake() && !plane.piece(&mut lane).last);
    side.credentials.forget();
    let (_, compared) = plane.talk(&mut lane);
    assert!(compared);
    assert_eq!(plane.cursor(), side.credentials.head().into());
}
