//! Tests of `last_good.rs`.

use gateway_engine::compile::compile;
use gateway_proto::kind::Resource;

use super::*;

fn open(dir: &Path, key: Option<&Path>, group: &str) -> Result<LastGood, KeyError> {
    LastGood::open(Arc::new(StateDir::open(dir).expect("a state directory")), key, group)
}

fn copy(revision: u64) -> Copy {
    let metadata = Some(wire::Metadata { name: format!("u{revision}"), ..Default::default() });
    let targets = vec![wire::Target { address: "127.0.0.1:1".into(), weight: None }];
    let spec = Some(wire::UpstreamSpec { targets, ..Default::default() });
    let upstream = Resource::from(wire::Upstream { metadata, spec, ..Default::default() }).canonical();
    let parked = vec![Change::Upsert(upstream.clone()), Change::Delete(upstream.key())];
    let engine = compile(&Engine::default(), vec![Change::Upsert(upstream)]).expect("sound").engine;
    Copy {
        cursor: Cursor { epoch: "e".into(), revision, ..Cursor::default() },
        engine,
        parked,
        endpoints: Held::default(),
    }
}

fn revision(kept: Result<Kept, String>) -> Result<u64, String> {
    kept.map(|kept| kept.held.target.expect("a cursor").revision)
}

fn read(last_good: &LastGood, file: &str) -> Result<Kept, String> {
    last_good.unseal(last_good.state_dir.read(file).expect("no fault").expect("there"))
}

#[test]
fn two_generations_are_kept_and_come_back_with_what_was_parked() {
    let dir = tempfile::tempdir().expect("a folder");
    let last_good = open(dir.path(), None, "default").expect("a key is made");
    for revision in [1, 2, 3] {
        last_good.save(&copy(revision)).expect("saved");
    }
    assert_eq!(revision(read(&last_good, FILES[0])), Ok(3));
    assert_eq!(revision(read(&last_good, FILES[1])), Ok(2));
    let (held, parked) = read(&last_good, FILES[0]).expect("sound").into_updates();
    assert_eq!((held.scope, held.changes.len(), &*held.epoch), (Scope::Full, 1, "e"));
    assert_eq!(parked.expect("something is parked").changes.len(), 2);
}

#[test]
fn nothing_of_it_can_be_read_on_the_disk() {
    let dir = tempfile::tempdir().expect("a folder");
    let last_good = open(dir.path(), None, "default").expect("opened");
    let text = last_good.seal(&copy(1));
    for secret in [&b"127.0.0.1:1"[..], b"Upstream"] {
        assert!(!text.windows(secret.len()).any(|window| window == secret));
    }
    assert_ne!(text, last_good.seal(&copy(1)), "never the same nonce");
}

#[test]
fn damage_a_foreign_key_and_a_foreign_group_are_told_apart_and_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let sealed = open(dir.path(), None, "default").expect("opened").seal(&copy(1));
    let unseal = |group: &str, sealed: Vec<u8>| {
        revision(open(dir.path(), None, group).expect("opened").unseal(sealed)).expect_err("refused")
    };
    for at in [8, 20, 45, 60, sealed.len() - 1] {
        let mut damaged = sealed.clone();
        damaged[at] ^= 1;
        assert!(unseal("default", damaged).contains("damaged"), "byte {at}");
    }
    assert!(unseal("default", sealed[..sealed.len() - 1].to_vec()).contains("damaged"));
    assert!(unseal("default", sealed[..30].to_vec()).contains("not a configuration copy"));
    assert!(
        unseal("default", b"something else that is quite a bit longer than a header is".to_vec())
            .contains("not a")
    );
    assert!(unseal("edge", sealed.clone()).contains("another group"));
    std::fs::write(dir.path().join(KEY_FILE), [7; 32]).expect("another key");
    assert!(unseal("default", sealed).contains("another key"));
}

#[test]
fn a_key_is_32_bytes_or_64_hex_digits() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("key");
    let mut copies = Vec::new();
    for text in [vec![0xab; 32], "ab".repeat(32).into_bytes(), format!("{}\n", "AB".repeat(32)).into_bytes()]
    {
        std::fs::write(&path, text).expect("written");
        let last_good = open(&dir.path().join("s"), Some(&path), "default").expect("a key");
        copies.push(last_good.seal(&copy(4)));
        assert_eq!(revision(last_good.unseal(copies[0].clone())), Ok(4), "the same key in another form");
    }
    assert!(!dir.path().join("s").join(KEY_FILE).exists(), "none is made when one is given");
    for text in ["", "short", &"zz".repeat(32)] {
        std::fs::write(&path, text).expect("written");
        let refused = open(&dir.path().join("s"), Some(&path), "default");
        assert!(matches!(refused, Err(KeyError::Malformed(_))), "{text:?}");
    }
    let missing = open(&dir.path().join("s"), Some(Path::new("/nowhere/key")), "default");
    assert!(matches!(missing, Err(KeyError::Unreadable { .. })));
}
