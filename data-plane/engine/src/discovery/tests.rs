//! Tests of `discovery.rs`.

use gateway_proto::kind::{Key, Resource};

use super::*;
use crate::compile::{Change, compile};
use crate::engine::Engine;

fn metadata(name: &str) -> Option<wire::Metadata> {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    Some(wire::Metadata { name: name.into(), namespace: namespace.into(), ..Default::default() })
}

fn source(name: &str, path: &str) -> Resource {
    let file = Source::File(wire::FileSource { path: path.into() });
    let spec = Some(wire::DiscoverySourceSpec { source: Some(file) });
    wire::DiscoverySource { metadata: metadata(name), spec, ..Default::default() }.into()
}

fn discovery(source: &str, service: &str, tags: &[&str]) -> wire::UpstreamDiscovery {
    let tags = tags.iter().map(ToString::to_string).collect();
    wire::UpstreamDiscovery { source: source.into(), service: service.into(), tags }
}

fn upstream(discovery: wire::UpstreamDiscovery) -> Resource {
    let spec = wire::UpstreamSpec { discovery: Some(discovery), ..Default::default() };
    wire::Upstream { metadata: metadata("u"), spec: Some(spec), ..Default::default() }.into()
}

fn faults(changes: Vec<Resource>) -> Vec<String> {
    let changes = changes.into_iter().map(Change::Upsert).collect();
    let violations = compile(&Engine::default(), changes).err().unwrap_or_default();
    violations.into_iter().map(|it| format!("{} {} {}", it.object, it.field, it.code.as_str())).collect()
}

#[test]
fn an_upstream_learns_its_targets_from_a_source_of_any_namespace() {
    let changes = vec![
        source("shared/files", "a/services.yaml"),
        upstream(discovery("shared/files", "users", &["v1"])),
    ];
    let changes = changes.into_iter().map(Change::Upsert).collect();
    let engine = compile(&Engine::default(), changes).expect("sound").engine;
    let upstream = engine.upstreams().next().expect("there");
    let discovery = upstream.discovery.as_ref().expect("said");
    assert_eq!((&*discovery.source, &*discovery.service), ("shared/files", "users"));
    assert_eq!(&*discovery.tags, ["v1".into()]);
    assert!(upstream.targets.is_empty());
    let key = Key::new(Kind::DiscoverySource, "shared", "files");
    let refused = compile(&engine, vec![Change::Delete(key)]).expect_err("in use");
    assert!(refused[0].message.contains("in use by Upstream default/u"), "{refused:?}");
}

#[test]
fn targets_and_discovery_exclude_each_other() {
    let target = wire::Target { address: "a:1".into(), weight: None };
    let spec = wire::UpstreamSpec {
        targets: vec![target],
        discovery: Some(discovery("files", "users", &[])),
        ..Default::default()
    };
    let both = wire::Upstream { metadata: metadata("u"), spec: Some(spec), ..Default::default() };
    assert_eq!(
        faults(vec![source("files", "a"), both.into()]),
        ["Upstream default/u spec.discovery conflict"]
    );
}

#[test]
fn every_bad_value_is_named_with_its_place() {
    let at = |field: &str, code: &str| vec![format!("Upstream default/u spec.discovery.{field} {code}")];
    let of = |it: wire::UpstreamDiscovery| faults(vec![source("files", "a"), upstream(it)]);
    assert_eq!(of(discovery("", "users", &[])), at("source", "required"));
    assert_eq!(of(discovery("other", "users", &[])), at("source", "dangling_reference"));
    assert_eq!(of(discovery("a b", "users", &[])), at("source", "invalid"));
    assert_eq!(of(discovery("files", "", &[])), at("service", "required"));
    assert_eq!(of(discovery("files", &"s".repeat(4096), &[])), at("service", "invalid"));
    assert_eq!(of(discovery("files", "a\nb", &[])), at("service", "invalid"));
    assert_eq!(of(discovery("files", "users", &["a", "a"])), at("tags[1]", "duplicate"));
    assert_eq!(of(discovery("files", "users", &[""])), at("tags[0]", "invalid"));
    let many = discovery("files", "users", &["t"; MAX_TAGS + 1]);
    assert_eq!(of(many)[0], "Upstream default/u spec.discovery.tags out_of_range");
}

#[test]
fn a_source_says_what_it_is_and_its_file_stays_in_its_folder() {
    let nothing = wire::DiscoverySource { metadata: metadata("s"), ..Default::default() };
    assert_eq!(faults(vec![nothing.into()]), ["DiscoverySource default/s spec required"]);
    assert_eq!(faults(vec![source("s", "")]), ["DiscoverySource default/s spec.file.path required"]);
    for good in ["a.yaml", "a/b/c.json", "..data/a", "a/.b"] {
        assert_eq!(faults(vec![source("s", good)]), [""; 0], "{good}");
    }
    let long = "a".repeat(MAX_PATH + 1);
    for bad in ["/etc/passwd", "../a", "a/../../b", "./a", "a\0b", &*long] {
        let found = faults(vec![source("s", bad)]);
        assert_eq!(found, ["DiscoverySource default/s spec.file.path invalid"], "{bad}");
    }
}
