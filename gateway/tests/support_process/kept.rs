//! Channels whose histories a node without Redis keeps on disk.

use super::Directory;
use super::node::{Node, Setup};

/// Settings with the embedded broker's log in `log`, `more` lines of its own, and a namespace `kept` with histories.
pub fn settings(log: &Directory, more: &str) -> String {
    let path = log.0.to_str().unwrap();
    format!(
        "[embedded]\npath = {path:?}\n{more}\n[[channel.namespaces]]\nname = \"kept\"\nhistory_size = 1000000\n\
         history_ttl = \"1h\"\nforce_recovery = true\nallow_subscribe_for_client = true\n\
         allow_subscribe_for_anonymous = true\n[client]\nrecovery_max_publication_limit = 100000\n"
    )
}

/// A node with these settings.
pub fn start(log: &Directory, more: &str) -> Node {
    Setup::new().settings(&settings(log, more)).start()
}

/// The history of a channel: its epoch, and offsets with numbers.
pub fn history(node: &Node, channel: &str) -> (String, Vec<(u64, u64)>) {
    let answer = node.api("history", &format!(r#"{{"channel":"{channel}","limit":-1}}"#));
    let result = &answer["result"];
    let publications = result["publications"].as_array().into_iter().flatten();
    let publications = publications.map(|each| (each["offset"].as_u64().unwrap(), each["data"].as_u64().unwrap()));
    (result["epoch"].as_str().unwrap_or_default().to_owned(), publications.collect())
}
