//! Compiles the protos with `protox` (pure Rust), so that nobody needs `protoc`.

use std::{error::Error, path::PathBuf};

const PROTOS: &[&str] = &[
    "copass/agent/v1/agent.proto",
    "copass/concierge/v1/concierge.proto",
    "copass/identity/v1/identity.proto",
    "copass/run/v1/run.proto",
    "copass/sandbox/v1/sandbox.proto",
    "copass/source/v1/source.proto",
    "copass/trigger/v1/trigger.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let descriptors = protox::compile(PROTOS.iter().map(|proto| root.join(proto)), [&root])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(
        out.join("copass_descriptor.bin"),
        prost::Message::encode_to_vec(&descriptors),
    )?;
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        .build_transport(false)
        .compile_fds(descriptors)?;
    Ok(())
}
