//! Tests of `endpoints.rs`.

use gateway_engine::compile::{Change, compile};
use gateway_proto::kind::Resource;
use wire::discovery_source_spec::Source;
use wire::source_state::Value as State;

use super::*;

fn set(upstream: &str, addresses: &[&str]) -> wire::EndpointSet {
    let endpoint =
        |address: &&str| wire::Endpoint { address: (*address).into(), weight: 1, zone: "a".into() };
    let endpoints = addresses.iter().map(endpoint).collect();
    wire::EndpointSet {
        upstream: upstream.into(),
        endpoints,
        source: "default/files".into(),
        ..Default::default()
    }
}

fn chunk(sets: &[wire::EndpointSet]) -> wire::EndpointsChunk {
    wire::EndpointsChunk { sets: sets.to_vec(), last: true, ..Default::default() }
}

/// With discovered upstreams of these names.
fn engine(upstreams: &[&str]) -> Engine {
    let metadata = |name: &str| Some(wire::Metadata { name: name.into(), ..Default::default() });
    let file = Source::File(wire::FileSource { path: "a".into() });
    let spec = Some(wire::DiscoverySourceSpec { source: Some(file) });
    let source = wire::DiscoverySource { metadata: metadata("files"), spec, ..Default::default() };
    let discovery =
        wire::UpstreamDiscovery { source: "files".into(), service: "s".into(), ..Default::default() };
    let upstream = |name: &&str| {
        let spec = Some(wire::UpstreamSpec { discovery: Some(discovery.clone()), ..Default::default() });
        Resource::from(wire::Upstream { metadata: metadata(name), spec, ..Default::default() })
    };
    let all = upstreams.iter().map(upstream).chain([source.into()]);
    compile(&Engine::default(), all.map(Change::Upsert).collect()).expect("sound").engine
}

/// Where a worker would go.
fn serving(lane: &Lane, upstream: &str) -> Option<Vec<String>> {
    let targets = lane.discovered.place(&upstream.into()).get()?;
    Some(targets.0.iter().map(|target| target.host.to_string()).collect())
}

fn root(sets: &[wire::EndpointSet]) -> Vec<u8> {
    sets.iter().map(hash_of_set).collect::<RootHash>().to_bytes().to_vec()
}

#[test]
fn a_set_replaces_the_one_before_and_what_is_held_is_told() {
    let engine = engine(&["u", "v"]);
    let mut lane = Lane::default();
    let (one, two) = (set("default/u", &["127.0.0.1:1", "127.0.0.1:2"]), set("default/v", &["b.local:2"]));
    let held = lane.receive(chunk(&[one, two.clone()]), &engine).expect("sound").expect("the last piece");
    assert_eq!(serving(&lane, "default/u"), Some(vec!["127.0.0.1:1".into(), "127.0.0.1:2".into()]));
    let three = set("default/u", &["127.0.0.1:3"]);
    assert_ne!(held.root_hash, root(&[three.clone(), two.clone()]));
    let version = |upstream: &str| lane.discovered.place(&upstream.into()).version();
    let before = (version("default/u"), version("default/v"));
    let held =
        lane.receive(chunk(std::slice::from_ref(&three)), &engine).expect("sound").expect("the last piece");
    assert_eq!(held.root_hash, root(&[three, two]));
    assert_eq!(serving(&lane, "default/u"), Some(vec!["127.0.0.1:3".into()]));
    let version = |upstream: &str| lane.discovered.place(&upstream.into()).version();
    assert_eq!((version("default/u"), version("default/v")), (before.0 + 1, before.1), "no other is touched");
}

#[test]
fn a_set_that_is_taken_back_serves_until_the_configuration_drops_its_upstream() {
    let mut lane = Lane::default();
    lane.receive(chunk(&[set("default/u", &["127.0.0.1:1"])]), &engine(&["u"])).expect("sound");
    let gone = wire::EndpointsChunk { gone: vec!["default/u".into()], last: true, ..Default::default() };
    let held = lane.receive(gone, &engine(&["u"])).expect("sound").expect("the last piece");
    assert_eq!(held.root_hash, root(&[]));
    assert!(serving(&lane, "default/u").is_some(), "the change of the configuration may come later");
    lane.follow(&engine(&[]));
    assert_eq!(serving(&lane, "default/u"), None);
}

#[test]
fn what_an_upstream_had_before_serves_until_its_first_set_is_known() {
    let had: Arc<[Target]> = Targets::from(&set("default/u", &["127.0.0.1:7"])).0;
    let mut lane = Lane::default();
    lane.keep(&"default/u".into(), &had);
    lane.follow(&engine(&["u"]));
    assert_eq!(serving(&lane, "default/u"), Some(vec!["127.0.0.1:7".into()]));
    assert_eq!(lane.root(), root(&[]), "it is no set of the control plane's");
    lane.receive(chunk(&[set("default/u", &["127.0.0.1:1"])]), &engine(&["u"])).expect("sound");
    lane.keep(&"default/u".into(), &had);
    assert_eq!(serving(&lane, "default/u"), Some(vec!["127.0.0.1:1".into()]), "a set that is known counts");
}

#[test]
fn a_set_may_come_before_its_upstream() {
    let mut lane = Lane::default();
    lane.receive(chunk(&[set("default/u", &["127.0.0.1:1"])]), &engine(&[])).expect("sound");
    lane.follow(&engine(&[]));
    lane.follow(&engine(&["u"]));
    assert!(serving(&lane, "default/u").is_some());
}

#[test]
fn of_a_bucket_what_is_not_named_goes() {
    let engine = engine(&[]);
    let mut lane = Lane::default();
    let (kept, gone) = (set("default/u", &["127.0.0.1:1"]), set("default/v", &["127.0.0.1:2"]));
    lane.receive(chunk(&[kept.clone(), gone]), &engine).expect("sound");
    let bucket = u32::try_from(Subject::Set.bucket("default/v")).expect("small");
    let whole = wire::EndpointsChunk { buckets: vec![bucket], last: true, ..Default::default() };
    let held = lane.receive(whole, &engine).expect("sound").expect("the last piece");
    assert_eq!(held.root_hash, root(&[kept]));
}

#[test]
fn what_was_kept_on_disk_comes_back() {
    let mut lane = Lane::default();
    let said = wire::SourceSaid { source: "default/files".into(), state: State::Stale.into() };
    let sets = [set("default/u", &["127.0.0.1:1"])];
    lane.receive(wire::EndpointsChunk { sources: vec![said], ..chunk(&sets) }, &engine(&["u"]))
        .expect("sound");
    let after = Lane::default();
    after.restore((&lane.held()).into());
    assert_eq!((after.root(), serving(&after, "default/u")), (lane.root(), serving(&lane, "default/u")));
    let shown = serde_json::to_value(after.window().show()).expect("JSON");
    let expected = serde_json::json!([{
        "upstream": "default/u", "source": "default/files", "state": "stale", "sourceIndex": 0,
        "authoritativeEmpty": false, "endpoints": [{ "address": "127.0.0.1:1", "weight": 1, "zone": "a" }],
    }]);
    assert_eq!(shown, expected);
}

#[test]
fn a_data_plane_that_holds_nothing_waits_for_what_there_is() {
    let engine = engine(&["u"]);
    let mut lane = Lane::default();
    let sets = [set("default/u", &["127.0.0.1:1"])];
    lane.welcomed(&root(&[]));
    assert!(lane.is_complete(), "there is nothing to wait for");
    lane.welcomed(&root(&sets));
    assert!(!lane.is_complete());
    lane.receive(wire::EndpointsChunk { last: false, ..chunk(&sets) }, &engine).expect("sound");
    assert!(!lane.is_complete(), "more is to come");
    lane.receive(chunk(&[]), &engine).expect("sound");
    assert!(lane.is_complete());
    lane.welcomed(&root(&[]));
    assert!(lane.is_complete(), "it has something to serve");
}

#[test]
fn a_piece_that_makes_no_sense_is_refused_whole() {
    let engine = engine(&["u"]);
    let mut lane = Lane::default();
    let good = set("default/u", &["127.0.0.1:1"]);
    for bad in ["", &"n".repeat(MAX_NAME + 1)] {
        let mixed = chunk(&[good.clone(), set(bad, &[])]);
        assert_eq!(lane.receive(mixed, &engine).expect_err("refused"), Malformed::Name);
    }
    let large = set("default/u", &vec!["127.0.0.1:1"; MAX_ENDPOINTS + 1]);
    assert!(matches!(lane.receive(chunk(&[large]), &engine), Err(Malformed::TooLarge(..))));
    assert_eq!((lane.root(), serving(&lane, "default/u")), (root(&[]), None));
}
