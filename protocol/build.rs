//! Compiles the client protocol with a pure-Rust compiler, so that no system `protoc` is needed, and gives every
//! field the serde attributes of its JSON form (`codec/json.rs` explains the rules).

/// Members that JSON clients receive even when they are zero or empty.
const ALWAYS_PRESENT: &[&str] = &[
    "ClientInfo.client",
    "ClientInfo.user",
    "Error.message",
    "HistoryResult.epoch",
    "HistoryResult.offset",
    "HistoryResult.publications",
    "PresenceResult.presence",
    "PresenceStatsResult.num_clients",
    "PresenceStatsResult.num_users",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/client.proto");
    let files = protox::compile(["proto/client.proto"], ["proto"])?;
    let mut config = prost_build::Config::new();
    config
        // `bytes` fields share the buffer they were decoded from.
        .bytes(["."])
        // Maps keep the order of their keys, so that encodings are reproducible.
        .btree_map(["."])
        .message_attribute(".", "#[derive(serde::Serialize, serde::Deserialize)]");

    for file in &files.file {
        for message in &file.message_type {
            for field in &message.field {
                let name = format!("{}.{}", message.name(), field.name());
                let repeated = field.label().as_str_name() == "LABEL_REPEATED";
                let form = match field.r#type().as_str_name() {
                    // The one payload that JSON carries inside a string: a list of commands.
                    _ if name == "EmulationRequest.data" => "with = \"crate::codec::json::text\"",
                    "TYPE_BYTES" => "with = \"crate::codec::json::raw\"",
                    "TYPE_MESSAGE" if !repeated => "deserialize_with = \"crate::codec::json::object\"",
                    _ => "deserialize_with = \"crate::codec::json::nullable\"",
                };
                let skip = if ALWAYS_PRESENT.contains(&name.as_str()) {
                    ""
                } else {
                    ", skip_serializing_if = \"crate::codec::json::is_default\""
                };
                config.field_attribute(
                    format!(".{}.{name}", file.package()),
                    format!("#[serde(default, rename = \"{}\", {form}{skip})]", field.name()),
                );
            }
        }
    }
    config.compile_fds(files)?;
    Ok(())
}
