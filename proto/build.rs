//! Compiles every `proto/*.proto` in pure Rust: no `protoc` is needed.

use std::error::Error;
use std::fs;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let mut files = Vec::new();
    for entry in fs::read_dir("proto")? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    files.sort();
    let descriptors = protox::compile(files, ["proto"])?;
    // Bytes are taken over from the receive buffer, not copied.
    tonic_prost_build::configure()
        .bytes(".")
        .include_file("packages.rs")
        .compile_fds(descriptors)?;
    Ok(())
}
