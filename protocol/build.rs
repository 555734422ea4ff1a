//! Compiles the client protocol with a pure-Rust compiler, so that no system `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/client.proto");
    let files = protox::compile(["proto/client.proto"], ["proto"])?;
    prost_build::Config::new()
        // `bytes` fields share the buffer they were decoded from.
        .bytes(["."])
        // Maps keep the order of their keys, so that encodings are reproducible.
        .btree_map(["."])
        .compile_fds(files)?;
    Ok(())
}
