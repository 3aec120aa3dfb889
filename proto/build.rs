//! Generates the wire types from `gateway/v1/*.proto` without an installed protoc (protox parses them).

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=gateway");
    let files =
        ["meta", "listener", "upstream", "route", "policy", "certificate", "identity", "discovery", "sync"]
            .map(|name| format!("gateway/v1/{name}.proto"));

    let mut compiler = protox::Compiler::new(["."])?;
    // Comments become `gatewayctl explain` and the OpenAPI document's descriptions.
    compiler.include_source_info(true).include_imports(true).open_files(files)?;
    let descriptors = compiler.file_descriptor_set();
    // With all options: `debug_redact` marks what is secret, and the typed set does not know it.
    let encoded = compiler.encode_file_descriptor_set();

    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    std::fs::write(out.join("descriptors.bin"), &encoded)?;

    tonic_prost_build::configure()
        .btree_map(".") // sorted maps: the encoding is canonical
        .bytes(".gateway.v1.Upsert.body") // shared by all streams, never copied
        .skip_debug(SECRETIVE.map(|name| format!(".gateway.v1.{name}")))
        .compile_fds(descriptors)?;

    // The authored kinds only: the stream is never JSON.
    pbjson_build::Builder::new()
        .register_descriptors(&encoded)?
        .btree_map(["."])
        .exclude(SYNC.map(|name| format!(".gateway.v1.{name}")))
        .build(&[".gateway.v1"])?;
    Ok(())
}

/// Messages with secrets of their own: `secret.rs` prints them without.
const SECRETIVE: [&str; 5] = ["CertificateSpec", "TokenIssuerSpec", "SecretValue", "EnrollRequest", "ApiKey"];

const SYNC: [&str; 38] = [
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
    "SecretValue",
    "Ack",
    "AckOutcome",
    "Reject",
    "Status",
    "Heartbeat",
    "EndpointsChunk",
    "EndpointSet",
    "Endpoint",
    "SourceSaid",
    "SourceState",
    "CompareEndpoints",
    "EndpointsHeld",
    "Drain",
    "Compare",
    "Buckets",
    "EnrollRequest",
    "IssuedCertificate",
    "Renew",
    "Trust",
    "Trusts",
    "CredentialsHeld",
    "CompareCredentials",
    "CredentialsChunk",
    "SyncMode.Value",
    "AckOutcome.Value",
    "SourceState.Value",
];
