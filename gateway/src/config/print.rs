//! What `default-config` and `check-config` print, and the table of `docs/configuration.md`.

use std::fmt::Write as _;

use super::keys::{Key, Status, table};
use super::load::Loaded;

/// Markers in `docs/configuration.md` between which [`markdown`] stands.
pub const MARKERS: (&str, &str) = ("<!-- keys: begin (generated) -->", "<!-- keys: end -->");

/// A TOML file with every key that has an effect, its default, and a line on what it is for. Loading it changes nothing.
pub fn default_config() -> String {
    let mut text = String::from(
        "# Every setting of Tidegate with its default. What is left out keeps its default.\n\
         # Durations: 25s, 1m30s, 500ms. Sizes: bytes, or \"64KiB\", \"1MiB\".\n",
    );
    let mut group = "";
    for key in table().iter().filter(|key| key.status.is_implemented() && !key.path.contains("[]")) {
        if key.group() != group {
            if group == "channel" {
                text.push_str(NAMESPACES);
            }
            group = key.group();
            line(&mut text, format_args!("\n[{group}]"));
        }
        line(&mut text, format_args!("\n# {}", key.what));
        // JSON's numbers, texts, flags and lists of texts are TOML as well.
        line(&mut text, format_args!("{} = {}", key.name(), key.kind.show(&key.default)));
    }
    text
}

const NAMESPACES: &str = "\n# Namespaces of channels: tables with a name and the options of [channel.without_namespace], as\n\
    # [[channel.namespaces]] with name = \"chat\" and allow_subscribe_for_client = true below it.\n\
    namespaces = []\n";

/// What is set and where, what somebody should know, and every key with how it compares with the incumbent's.
pub fn check_config(loaded: &Loaded) -> String {
    let mut text = String::new();
    match &loaded.file {
        Some(file) => line(&mut text, format_args!("File: {}", file.display())),
        None => {
            line(&mut text, format_args!("No file: there is no --config, and no tidegate.toml, .yaml or .json here."))
        }
    }
    line(&mut text, format_args!("\nSet:"));
    for (path, _) in loaded.settings.iter() {
        line(&mut text, format_args!("  {}", loaded.settings.describe(path)));
    }
    if loaded.settings.iter().next().is_none() {
        line(&mut text, format_args!("  nothing; everything is at its default"));
    }
    if !loaded.notices().is_empty() {
        line(&mut text, format_args!("\nWorth knowing:"));
        for notice in loaded.notices() {
            line(&mut text, format_args!("  {notice}"));
        }
    }
    line(&mut text, format_args!("\nEvery key, its default, and how it compares with Centrifugo v6:"));
    for key in table().iter() {
        let what = if key.what.is_empty() { String::new() } else { format!(" {}", key.what) };
        line(&mut text, format_args!("  {} = {} [{}]{what}", key.path, key.kind.show(&key.default), comparison(key)));
    }
    line(&mut text, format_args!("\nThe configuration is in order."));
    text
}

/// The keys as tables in Markdown: first those with an effect, group by group, then the others.
pub fn markdown() -> String {
    let mut text = String::from(
        "Every key can also be set by a variable: `TIDEGATE_` and its path in capitals with `_` for `.`. \
         *Compared* is with Centrifugo v6.\n",
    );
    let mut group = None;
    for key in table().iter().filter(|key| key.status.is_implemented()) {
        if group != Some(key.group()) {
            group = Some(key.group());
            let heading = if key.group().is_empty() { "At the root".to_owned() } else { format!("`{}`", key.group()) };
            line(
                &mut text,
                format_args!("\n### {heading}\n\n| key | default | what it is for | compared |\n|---|---|---|---|"),
            );
        }
        let default = cell(&key.kind.show(&key.default));
        let compared = cell(&comparison(key));
        line(&mut text, format_args!("| `{}` | `{default}` | {} | {compared} |", key.name(), cell(key.what)));
    }
    text.push_str(
        "\n### Not yet, and never\n\nAt their defaults these are accepted. *Not yet*: any other value is an error ",
    );
    text.push_str("(a warning with `--skip-unsupported`); where the default is an empty table, any table is accepted, because it only counts \
                   with the key that turns its feature on. *Never*: any value is accepted, with a notice.\n\n");
    text.push_str("| group | keys | compared |\n|---|---|---|\n");
    let inert: Vec<&Key> = table().iter().filter(|key| !key.status.is_implemented()).collect();
    for row in inert.chunk_by(|one, next| one.group() == next.group() && one.status == next.status) {
        let Some(first) = row.first() else { continue };
        let group = if first.group().is_empty() { "at the root".to_owned() } else { format!("`{}`", first.group()) };
        let names: Vec<String> = row.iter().map(|key| format!("`{}`", key.name())).collect();
        line(&mut text, format_args!("| {group} | {} | {} |", names.join(", "), cell(&comparison(first))));
    }
    text
}

fn comparison(key: &Key) -> String {
    match key.status {
        Status::Same => "same".to_owned(),
        Status::Differs(how) => format!("differs: {how}"),
        Status::Ours => "ours".to_owned(),
        Status::NotYet(why) => format!("not yet: {why}"),
        Status::Meaningless(why) => format!("never: {why}"),
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{arguments}");
}
