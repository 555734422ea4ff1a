//! The layers of settings: each value with where it comes from; later layers win.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::keys::{Key, Status, table};
use super::rooms::Config;
use super::value::{Kind, is_same};

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Origin {
    /// Nobody set it.
    #[default]
    Default,
    /// `--dev` set it.
    Dev,
    /// A file.
    File {
        /// The file's name.
        name: Arc<str>,
        /// The line, where the format's reader tells it.
        line: Option<usize>,
    },
    /// An environment variable.
    Variable(Arc<str>),
    /// A flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Dev => f.write_str("--dev"),
            Self::File { name, line: Some(line) } => write!(f, "{name}:{line}"),
            Self::File { name, line: None } => f.write_str(name),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// Something that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub origin: Origin,
    /// The key, perhaps with its value: `http_server.port = "abc"`.
    pub subject: String,
    /// What is wrong and what would do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, subject, message } = self;
        if subject.is_empty() { write!(f, "{origin}: {message}") } else { write!(f, "{origin}: {subject}: {message}") }
    }
}

/// A value that somebody set. Not `Debug`: it may be a secret.
#[derive(Clone, PartialEq)]
pub struct Setting {
    /// The value, as its key's [`Kind`] reads it.
    pub value: Value,
    /// Where it comes from.
    pub origin: Origin,
}

/// What is set, by path, and what turned out wrong or worth a notice on the way.
#[derive(Default)]
pub struct Settings {
    set: BTreeMap<String, Setting>,
    /// The lists of tables, with where each entry comes from.
    lists: BTreeMap<String, Vec<Origin>>,
    failed: BTreeSet<String>,
    /// Whether keys of features that are not built are left out with a notice.
    skip_unsupported: bool,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// What somebody should know.
    pub notices: Vec<String>,
}

impl Settings {
    /// Empty settings. With `skip_unsupported`, a key of a feature that is not built gives a notice, not a problem.
    pub fn new(skip_unsupported: bool) -> Self {
        Self { skip_unsupported, ..Self::default() }
    }

    /// Takes in a layer: a tree of values, with `origin` telling for each path where it comes from.
    pub fn add(&mut self, tree: &Map<String, Value>, origin: &dyn Fn(&str) -> Origin) {
        self.add_members("", tree, origin);
    }

    /// Takes in one value of a path, which may be a table.
    pub fn add_at(&mut self, path: &str, value: &Value, origin: &dyn Fn(&str) -> Origin) {
        if value.is_null() {
            return; // a key without a value, as YAML allows, sets nothing
        }
        if let Some(key) = table().find(path) {
            self.set(key, path, value, origin(path));
            return;
        }
        match (table().group(path), value) {
            (Some(false), Value::Object(members)) => self.add_members(path, members, origin),
            (Some(true), Value::Array(entries)) => self.add_list(path, entries, origin),
            (Some(is_list), _) => {
                let message = if is_list { "expected a list of tables" } else { "expected a table of keys" };
                self.problem(origin(path), path.to_owned(), message.to_owned());
            }
            (None, _) => self.unknown(path, origin(path)),
        }
    }

    fn add_members(&mut self, group: &str, members: &Map<String, Value>, origin: &dyn Fn(&str) -> Origin) {
        for (name, value) in members {
            let path = if group.is_empty() { name.clone() } else { format!("{group}.{name}") };
            self.add_at(&path, value, origin);
        }
    }

    /// A list replaces that of the layer before as a whole.
    fn add_list(&mut self, path: &str, entries: &[Value], origin: &dyn Fn(&str) -> Origin) {
        let prefix = format!("{path}[");
        self.set.retain(|set, _| !set.starts_with(&prefix));
        let origins = (0..entries.len()).map(|position| origin(&format!("{path}[{position}]")));
        self.lists.insert(path.to_owned(), origins.collect());
        for (position, entry) in entries.iter().enumerate() {
            let path = format!("{path}[{position}]");
            match entry {
                Value::Object(members) => self.add_members(&path, members, origin),
                _ => {
                    self.failed.insert(path.clone());
                    self.problem(origin(&path), path, "expected a table of keys".to_owned());
                }
            }
        }
    }

    fn set(&mut self, key: &Key, path: &str, raw: &Value, origin: Origin) {
        match key.status {
            Status::Meaningless(why) => self.notices.push(format!("{origin}: {path} has no effect: {why}")),
            Status::NotYet(_) if is_same(&key.default, raw) => {}
            Status::NotYet(why) if self.skip_unsupported => {
                self.notices.push(format!("{origin}: {path} is left out: {why}"));
            }
            Status::NotYet(why) => {
                // Secrets and addresses stay unsaid.
                let subject = match raw {
                    Value::Bool(_) | Value::Number(_) => format!("{path} = {raw}"),
                    _ => path.to_owned(),
                };
                let advice = "remove the key, or start with --skip-unsupported to do without it";
                self.problem(origin, subject, format!("{why}; {advice}"));
            }
            Status::Same | Status::Differs(_) | Status::Ours => match key.kind.read(raw) {
                // An empty internal_port or internal_address is how the incumbent writes "not set".
                _ if raw.as_str() == Some("") && path.starts_with("http_server.internal_") => {}
                Ok(value) => {
                    self.failed.remove(path);
                    self.set.insert(path.to_owned(), Setting { value, origin });
                }
                Err(message) => {
                    let shown = match key.kind {
                        Kind::Secret => String::new(),
                        kind => format!(" = {}", kind.show(raw)),
                    };
                    self.failed.insert(path.to_owned());
                    self.problem(origin, format!("{path}{shown}"), message);
                }
            },
        }
    }

    fn unknown(&mut self, path: &str, origin: Origin) {
        let message = match table().nearest(path) {
            Some(near) => format!("there is no such key; did you mean {near}?"),
            None => "there is no such key; `tidegate check-config` lists them all".to_owned(),
        };
        self.problem(origin, path.to_owned(), message);
    }

    /// Notes a problem.
    pub fn problem(&mut self, origin: Origin, subject: String, message: String) {
        self.problems.push(Problem { origin, subject, message });
    }

    /// What is set for a path.
    pub fn get(&self, path: &str) -> Option<&Setting> {
        self.set.get(path)
    }

    /// Whether somebody (not `--dev`) set the path.
    pub fn is_explicit(&self, path: &str) -> bool {
        self.get(path).is_some_and(|setting| setting.origin != Origin::Dev)
    }

    /// Whether the path has a value that could not be read.
    pub fn has_failed(&self, path: &str) -> bool {
        self.failed.contains(path)
    }

    /// Everything that is set, by path.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Setting)> {
        self.set.iter().map(|(path, setting)| (path.as_str(), setting))
    }

    /// Where an entry of a list of tables comes from.
    pub fn entry_origin(&self, list: &str, position: usize) -> Origin {
        self.lists.get(list).and_then(|origins| origins.get(position)).cloned().unwrap_or_default()
    }

    /// Puts the problems into the order of the sources and, within a file, of its lines.
    pub fn sort_problems(&mut self) {
        self.problems.sort_by_key(|problem| match &problem.origin {
            Origin::Default => (0, 0),
            Origin::Dev => (1, 0),
            Origin::File { line, .. } => (2, line.unwrap_or(0)),
            Origin::Variable(_) => (3, 0),
            Origin::Flag(_) => (4, 0),
        });
    }

    /// A path with its value, for messages: `client.ping_interval = "25s"`.
    pub fn assignment(&self, path: &str) -> String {
        let key = table().find(path);
        let kind = key.map_or(Kind::Ignored, |key| key.kind);
        let value = self.get(path).map(|setting| &setting.value).or(key.map(|key| &key.default));
        value.map_or_else(|| path.to_owned(), |value| format!("{path} = {}", kind.show(value)))
    }

    /// The same with its origin: `client.ping_interval = "25s" (default)`.
    pub fn describe(&self, path: &str) -> String {
        let origin = self.get(path).map_or(&Origin::Default, |setting| &setting.origin);
        format!("{} ({origin})", self.assignment(path))
    }

    /// Builds the typed settings: the defaults with everything set over them.
    ///
    /// # Errors
    /// A value that passed its [`Kind`] and yet does not fit its field: a fault of the key table.
    pub fn to_config(&self) -> Result<Config, String> {
        let mut tree = super::keys::to_tree(&Config::default());
        for (list, origins) in &self.lists {
            let entries = vec![Value::Object(Map::from_iter([("name".to_owned(), "".into())])); origins.len()];
            put(&mut tree, list, Value::Array(entries));
        }
        for (path, setting) in &self.set {
            put(&mut tree, path, setting.value.clone());
        }
        serde_json::from_value(tree).map_err(|error| error.to_string())
    }
}

/// Puts a value at a path of a tree in which everything above it exists.
fn put(tree: &mut Value, path: &str, value: Value) {
    let mut at = Some(tree);
    for part in path.split('.') {
        let (name, position) = match part.strip_suffix(']').and_then(|part| part.split_once('[')) {
            Some((name, position)) => (name, position.parse::<usize>().ok()),
            None => (part, None),
        };
        let members = at.and_then(Value::as_object_mut);
        at = members.map(|members| members.entry(name).or_insert(Value::Null));
        if let Some(position) = position {
            at = at.and_then(|list| list.get_mut(position));
        }
    }
    if let Some(at) = at {
        *at = value;
    }
}
