//! Scenario files.

use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use super::{Kind, Layer};
use crate::error::{Context, Error, Result};

/// The longest scenario file that is read: 1 MiB.
const MAX_FILE: u64 = 1 << 20;

macro_rules! built_in {
    ($($name:literal),* $(,)?) => {
        /// The built-in scenarios, by name.
        pub(crate) const BUILT_IN: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../scenarios/", $name, ".toml")))),*];
    };
}

built_in!("idle", "hold", "broadcast", "burst", "unicast", "mixed", "storm", "churn", "slow", "hot", "compare-floor");

/// A scenario: what it does and which settings it comes with.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    /// Its name: that of a built-in one, or the file's without its ending.
    pub(crate) name: String,
    /// What it does.
    pub(crate) kind: Kind,
    /// A sentence about it.
    pub(crate) about: String,
    /// Its settings.
    pub(crate) layer: Layer,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    kind: Spanned<Kind>,
    #[serde(default)]
    about: String,
    #[serde(default)]
    server: super::ServerLayer,
    #[serde(default)]
    sessions: super::SessionsLayer,
    #[serde(default)]
    messages: super::MessagesLayer,
    #[serde(default)]
    bounds: super::BoundsLayer,
}

/// The text of a built-in scenario.
pub(crate) fn built_in(name: &str) -> Option<&'static str> {
    BUILT_IN.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// The text of a scenario, and the name by which errors call it: a built-in one, or else a file.
///
/// # Errors
/// A name that is neither.
pub(crate) fn text(name: &str) -> Result<(String, String)> {
    if let Some(text) = built_in(name) {
        return Ok((name.to_owned(), text.to_owned()));
    }
    let path = Path::new(name);
    let looks_like_a_path = path.components().count() > 1 || path.extension().is_some();
    if !looks_like_a_path && !path.exists() {
        let known: Vec<_> = BUILT_IN.iter().map(|(known, _)| *known).collect();
        return Err(Error::Usage(format!(
            "there is no scenario {name}: name one of {}, or the path of a TOML file",
            known.join(", ")
        )));
    }
    let read = || format!("cannot read the scenario {name}");
    let length = std::fs::metadata(path).context(read)?.len();
    if length > MAX_FILE {
        return Err(Error::Usage(format!("{name} is no scenario: it has {length} bytes, {MAX_FILE} at most")));
    }
    Ok((name.to_owned(), std::fs::read_to_string(path).context(read)?))
}

impl Scenario {
    /// Finds and reads a scenario.
    ///
    /// # Errors
    /// A name that is none, or a file that is wrong, with its line and key.
    pub(crate) fn load(name: &str) -> Result<Self> {
        let (name, text) = text(name)?;
        Self::parse(&name, &text)
    }

    /// Reads a scenario from its text; `file` is what errors call it.
    ///
    /// # Errors
    /// Text that is no scenario, with the line and the key.
    pub(crate) fn parse(file: &str, text: &str) -> Result<Self> {
        let document: Document = toml::from_str(text).map_err(|error| Error::Usage(explain(file, text, &error)))?;
        let name = Path::new(file).file_stem().map_or(file.into(), |stem| stem.to_string_lossy());
        Ok(Self {
            name: name.into_owned(),
            kind: document.kind.into_inner(),
            about: document.about,
            layer: Layer {
                server: document.server,
                sessions: document.sessions,
                messages: document.messages,
                bounds: document.bounds,
            },
        })
    }
}

/// File, line, key and what is wrong.
fn explain(file: &str, text: &str, error: &toml::de::Error) -> String {
    let message = error.message().trim_end();
    let Some(span) = error.span() else { return format!("{file}: {message}") };
    let before = text.get(..span.start).unwrap_or(text);
    let number = before.matches('\n').count() + 1;
    let line = text.lines().nth(number - 1).unwrap_or_default().trim();
    if line.is_empty() || span.start == 0 && span.end >= text.len() {
        return format!("{file}: {message}");
    }
    let section = before.lines().rev().find_map(|line| line.trim().strip_prefix('[')?.strip_suffix(']'));
    let key = line.split_once('=').map_or(line, |(key, _)| key.trim());
    let key = match section {
        Some(section) if line.contains('=') => format!("{section}.{key}"),
        _ => key.to_owned(),
    };
    format!("{file}, line {number}, {key}: {message}\n  {number} | {line}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Scenario::parse("my/test.toml", text).unwrap_err().to_string()
    }

    #[test]
    fn every_built_in_scenario_is_sound_and_says_what_it_does() {
        for (name, text) in BUILT_IN {
            let scenario = Scenario::parse(name, text).unwrap();
            assert!(!scenario.about.is_empty() && scenario.name == *name, "{name}");
            let mut scenario = scenario;
            // compare-floor wants the process of its server.
            scenario.layer.server.server_pid = Some(vec![1]);
            super::super::Settings::resolve(&scenario, Layer::default()).unwrap();
        }
    }

    #[test]
    fn a_key_that_is_none_is_named_with_file_line_and_what_there_is() {
        let text = error("kind = \"idle\"\n\n[messages]\nratee = 5\n");
        assert!(text.starts_with("my/test.toml, line 4, messages.ratee: unknown field `ratee`"), "{text}");
        assert!(text.contains("`rate`") && text.ends_with("4 | ratee = 5"), "{text}");
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_named_with_file_line_and_key() {
        let text = error("kind = \"broadcast\"\n[sessions]\nsessions = \"many\"\n");
        assert!(text.starts_with("my/test.toml, line 3, sessions.sessions: invalid type: string \"many\""), "{text}");
    }

    #[test]
    fn a_scenario_without_a_kind_or_of_an_unknown_one_is_refused() {
        let text = error("about = \"x\"\n");
        assert!(text.contains("missing field `kind`"), "{text}");
        let text = error("kind = \"brodcast\"\n");
        assert!(text.starts_with("my/test.toml, line 1, kind: unknown variant `brodcast`"), "{text}");
        assert!(text.contains("`broadcast`"), "{text}");
    }

    #[test]
    fn a_section_that_is_none_and_text_that_is_no_toml_are_named() {
        let text = error("kind = \"idle\"\n[message]\nrate = 5\n");
        assert!(text.contains("line 2") && text.contains("unknown field `message`"), "{text}");
        let text = error("kind = \"idle\"\n[messages\n");
        assert!(text.contains("line 2"), "{text}");
    }

    #[test]
    fn a_name_that_is_no_scenario_gets_the_list() {
        let text = Scenario::load("brodcast").unwrap_err().to_string();
        assert!(text.contains("broadcast, ") && text.contains("path of a TOML file"), "{text}");
    }
}
