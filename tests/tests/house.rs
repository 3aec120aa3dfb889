//! The arrows between modules that crate borders do not hold (architecture.md, "Allowed arrows").

use std::path::{Path, PathBuf};

/// In these files, these texts must not occur.
const WALLS: &[(&str, &[&str], &str)] = &[
    (
        "data-plane/engine/src",
        &["hyper::", "tonic::", "sqlx::", "tokio::", "SystemTime::now", "Instant::now"],
        "the engine is pure",
    ),
    (
        "data-plane/http1/src",
        &["gateway_", "hyper::", "tokio::", "std::net::Tcp", "std::net::Udp", "std::io"],
        "the codec is sans-IO and knows nobody",
    ),
    (
        "data-plane/src/proxy",
        &["crate::sync", "crate::apply", "crate::admin"],
        "a request knows nothing of where configuration comes from",
    ),
    (
        "data-plane/src/proxy.rs",
        &["crate::sync", "crate::apply", "crate::admin"],
        "a request knows nothing of where configuration comes from",
    ),
    (
        "data-plane/src/snapshot.rs",
        &["crate::server", "crate::sync", "crate::apply"],
        "a snapshot is below the server",
    ),
    (
        "data-plane/src/upstream",
        &["crate::server", "crate::proxy", "crate::sync", "crate::apply"],
        "upstreams are below the proxy",
    ),
    (
        "data-plane/src/server",
        &["crate::sync", "crate::apply", "crate::admin"],
        "a server reads the snapshot and nothing else of the control side",
    ),
    (
        "control-plane/src/api",
        &["crate::sync", "sqlx::"],
        "status is read through nodes, rows through the store",
    ),
    (
        "control-plane/src/admission",
        &["crate::sync", "crate::publish", "crate::api", "sqlx::"],
        "admission is below the API",
    ),
    ("control-plane/src/publish", &["crate::sync", "crate::api", "sqlx::"], "publishing is below the stream"),
    (
        "control-plane/src/sync",
        &["crate::api", "crate::admission", "sqlx::"],
        "the stream serves what is published",
    ),
    ("control-plane/src/nodes.rs", &["crate::api", "sqlx::"], "the registry is below the API"),
    (
        "control-plane/src/store",
        &["crate::api", "crate::admission", "crate::sync", "crate::publish", "crate::nodes"],
        "the store knows nobody",
    ),
    ("gatewayctl/src", &["gateway_control_plane", "gateway_data_plane"], "only dev.rs starts planes"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").to_owned()
}

fn sources(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| sources(&entry.path()))
        .filter(|path| path.extension().is_some_and(|it| it == "rs"))
        .collect()
}

#[test]
fn no_module_reaches_through_a_wall() {
    let mut broken = Vec::new();
    for (place, forbidden, why) in WALLS {
        for file in sources(&root().join(place)) {
            if *place == "gatewayctl/src" && file.ends_with("dev.rs") {
                continue;
            }
            let text = std::fs::read_to_string(&file).expect("a source file");
            // Tests at the end of a file may reach anywhere; comments may name anything.
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for (number, line) in
                code.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"))
            {
                for text in forbidden.iter().filter(|text| line.contains(**text)) {
                    broken.push(format!("{}:{}: {text}: {why}", file.display(), number + 1));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_wall_stands_somewhere() {
    // A wall around a place that has moved would hold nothing.
    let missing: Vec<_> =
        WALLS.iter().map(|(place, ..)| root().join(place)).filter(|path| sources(path).is_empty()).collect();
    assert!(missing.is_empty(), "no sources at {missing:?}");
}

#[test]
fn no_room_without_an_owner() {
    let nameless = ["util.rs", "utils.rs", "common.rs", "helpers.rs", "misc.rs", "types.rs", "mod.rs"];
    let found: Vec<_> = ["proto", "data-plane", "control-plane", "gatewayctl", "tests"]
        .iter()
        .flat_map(|part| sources(&root().join(part)))
        .filter(|path| !path.components().any(|part| part.as_os_str() == "target"))
        .filter(|path| path.file_name().is_some_and(|name| nameless.iter().any(|it| name == *it)))
        .collect();
    assert!(found.is_empty(), "{found:?}");
}
