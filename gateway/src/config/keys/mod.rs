//! The one table of all keys: our own and the incumbent's.
//!
//! `own` lists the keys that have an effect, `later` those that have none yet or none at all. From the table come
//! the errors about unknown keys, the reading of values and of variables, `default-config`, `check-config` and
//! the table in `docs/configuration.md`. Defaults of the keys with an effect are those of the settings' types
//! ([`Config::default`]); a test holds that types and table list the same keys.

mod later;
mod own;

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::Value;

use super::rooms::{ChannelOptions, Config, Namespace};
use super::value::Kind;

/// How a key compares with the incumbent's (Centrifugo v6) key of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The same meaning, shape and default.
    Same,
    /// The same meaning, but for what the text says.
    Differs(&'static str),
    /// The incumbent has no such key.
    Ours,
    /// No effect yet, for the reason in the text: any other value than the default is an error.
    NotYet(&'static str),
    /// Never an effect, for the reason in the text: any value is accepted, with a notice.
    Meaningless(&'static str),
}

impl Status {
    /// Whether the key has an effect.
    pub fn is_implemented(self) -> bool {
        matches!(self, Self::Same | Self::Differs(_) | Self::Ours)
    }
}

/// One key.
#[derive(Debug, Clone)]
pub struct Key {
    /// Its path. The entries of a list of tables have `[]`: `channel.namespaces[].name`.
    pub path: String,
    /// What values it takes.
    pub kind: Kind,
    /// How it compares with the incumbent's.
    pub status: Status,
    /// What it is for, in one line.
    pub what: &'static str,
    /// Its default.
    pub default: Value,
}

impl Key {
    /// The group: everything before the last part of the path; empty for a key at the root.
    pub fn group(&self) -> &str {
        self.path.rsplit_once('.').map_or("", |(group, _)| group)
    }

    /// The last part of the path.
    pub fn name(&self) -> &str {
        self.path.rsplit_once('.').map_or(&self.path, |(_, name)| name)
    }
}

/// A key of [`own`]: name, kind, status, explanation.
type Row = (&'static str, Kind, Status, &'static str);

/// A key of [`later`]: name, the incumbent's default as JSON, explanation.
type LaterRow = (&'static str, &'static str, &'static str);

/// All keys, with what is needed to find them.
#[derive(Debug)]
pub struct KeyTable {
    keys: Vec<Key>,
    by_path: HashMap<String, usize>,
    /// Paths of tables, and of lists of tables (without the `[]`), each with whether it is a list.
    groups: HashMap<String, bool>,
}

static TABLE: LazyLock<KeyTable> = LazyLock::new(KeyTable::build);

/// The table.
pub fn table() -> &'static KeyTable {
    &TABLE
}

impl KeyTable {
    fn build() -> Self {
        let mut table = Self { keys: Vec::new(), by_path: HashMap::new(), groups: HashMap::new() };
        let defaults = to_tree(&Config::default());
        let namespace = to_tree(&Namespace { name: String::new(), options: ChannelOptions::default() });
        for (group, rows) in own::GROUPS {
            let tree = match group.strip_suffix("[]") {
                Some(_) => &namespace,
                None => group.split('.').filter(|part| !part.is_empty()).fold(&defaults, |tree, part| &tree[part]),
            };
            for (name, kind, status, what) in *rows {
                table.add(join(group, name), *kind, *status, what, tree[*name].clone());
            }
        }
        for (group, reason, rows) in later::NOT_YET {
            for (name, default, what) in *rows {
                let default = serde_json::from_str(default).unwrap_or_default();
                table.add(join(group, name), Kind::Ignored, Status::NotYet(reason), what, default);
            }
        }
        for (path, default, reason) in later::MEANINGLESS {
            let default = serde_json::from_str(default).unwrap_or_default();
            table.add((*path).to_owned(), Kind::Ignored, Status::Meaningless(reason), "", default);
        }
        table
    }

    fn add(&mut self, path: String, kind: Kind, status: Status, what: &'static str, default: Value) {
        let mut at = path.as_str();
        while let Some((group, _)) = at.rsplit_once('.') {
            let (name, is_list) = group.strip_suffix("[]").map_or((group, false), |name| (name, true));
            self.groups.insert(name.to_owned(), is_list);
            at = group;
        }
        self.by_path.insert(path.clone(), self.keys.len());
        self.keys.push(Key { path, kind, status, what, default });
    }

    /// Every key, in the order of the table.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter()
    }

    /// The key of a path, which may hold positions in lists: `channel.namespaces[3].name`.
    pub fn find(&self, path: &str) -> Option<&Key> {
        self.by_path.get(&without_positions(path)).map(|at| &self.keys[*at])
    }

    /// Whether a path names a table (`Some(false)`) or a list of tables (`Some(true)`).
    pub fn group(&self, path: &str) -> Option<bool> {
        self.groups.get(&without_positions(path)).copied()
    }

    /// The key or table that an environment variable's name means: the path in capitals with `_` for `.`, behind `TIDEGATE_`.
    pub fn of_variable(&self, variable: &str) -> Option<&str> {
        let keys = self.keys.iter().map(|key| key.path.as_str());
        let mut paths = keys.chain(self.groups.keys().map(String::as_str)).filter(|path| !path.contains("[]"));
        paths.find(|path| variable_of(path) == variable)
    }

    /// The known path nearest to an unknown one, if one is near: the same name in another group, or few letters changed.
    pub fn nearest(&self, unknown: &str) -> Option<&str> {
        let unknown = without_positions(unknown);
        let name_of = |path: &str| path.rsplit_once('.').map_or(path.to_owned(), |(_, name)| name.to_owned());
        let groups = self.groups.keys().map(String::as_str);
        let paths = self.keys.iter().map(|key| key.path.as_str()).chain(groups);
        let scored = paths.map(|path| {
            let moved = name_of(path) == name_of(&unknown);
            // The incumbent's older versions had flat names, such as token_hmac_secret_key.
            let flat = strsim::osa_distance(&path.replace('.', "_"), &unknown.replace('.', "_"));
            let flat_suffix = path.replace('.', "_").ends_with(&format!("_{}", unknown.replace('.', "_")));
            let score = if moved || flat_suffix { 1 } else { strsim::osa_distance(path, &unknown).min(flat + 1) };
            // Among equals a key that has an effect wins, then the shorter, then the first of the alphabet.
            let inert = self.find(path).is_none_or(|key| !key.status.is_implemented());
            (score, inert, path.len(), path)
        });
        let (score, .., path) = scored.min()?;
        (score <= 2.max(unknown.len() / 4)).then_some(path)
    }
}

/// The environment variable of a path.
pub fn variable_of(path: &str) -> String {
    format!("TIDEGATE_{}", path.replace('.', "_").to_ascii_uppercase())
}

fn join(group: &str, name: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{group}.{name}") }
}

/// Drops the numbers in brackets: `a[12].b` becomes `a[].b`.
fn without_positions(path: &str) -> String {
    let mut plain = String::with_capacity(path.len());
    let mut inside = false;
    for c in path.chars() {
        inside = if inside { c != ']' } else { c == '[' };
        if !inside || c == '[' {
            plain.push(c);
        }
    }
    plain
}

/// Settings as a tree of values. The types are plain, so this does not fail; a test reads the whole tree.
pub(super) fn to_tree<T: serde::Serialize>(settings: &T) -> Value {
    serde_json::to_value(settings).unwrap_or_default()
}
