//! Generates the wire types from `gateway/v1/*.proto` without an installed protoc (protox parses them).

use std::path::PathBuf;

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=gateway");
    let files = ["meta", "listener", "upstream", "route", "policy", "sync"]
        .map(|name| format!("gateway/v1/{name}.proto"));

    let mut compiler = protox::Compiler::new(["."])?;
    // Comments become `gatewayctl explain` and the OpenAPI document's descriptions.
    compiler.include_source_info(true).include_imports(true).open_files(files)?;
    let descriptors = compiler.file_descriptor_set();
    let encoded = descriptors.encode_to_vec();

    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    std::fs::write(out.join("descriptors.bin"), &encoded)?;

    tonic_prost_build::configure()
        .btree_map(".") // sorted maps: the encoding is canonical
        .bytes(".gateway.v1.Upsert.body") // shared by all streams, never copied
        .compile_fds(descriptors)?;

    // The authored kinds only: the stream is never JSON.
    pbjson_build::Builder::new()
        .register_descriptors(&encoded)?
        .btree_map(["."])
        .exclude(SYNC.map(|name| format!(".gateway.v1.{name}")))
        .build(&[".gateway.v1"])?;
    Ok(())
}

const SYNC: [&str; 23] = [
    "Cursor",
    "ObjectRef",
    "DataPlaneMessage",
    "ControlPlaneMessage",
    "Hello",
    "Parked",
    "BoundListener",
    "Welcome",
    "SyncMode",
    "Chunk",
    "Upsert",
    "Ack",
    "AckOutcome",
    "Reject",
    "Status",
    "Heartbeat",
    "Endpoints",
    "Endpoint",
    "EndpointState",
    "Drain",
    "SyncMode.Value",
    "AckOutcome.Value",
    "EndpointState.Value",
];
