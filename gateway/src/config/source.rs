//! Reading files and environment variables.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{table, variable_of};
use super::settings::{Origin, Problem, Settings};
use super::value::Kind;

/// Names that are looked for in the working directory when no file is named, in this order.
pub const USUAL_FILES: [&str; 4] = ["tidegate.toml", "tidegate.yaml", "tidegate.yml", "tidegate.json"];

/// Longest file, in bytes. 10,000 namespaces fit several times.
const LONGEST_FILE: u64 = 16 << 20;

/// A file's values, and the lines of its keys where the format's reader tells them.
#[derive(Debug, Default)]
pub struct FileLayer {
    /// The values.
    pub tree: Map<String, Value>,
    name: Arc<str>,
    lines: HashMap<String, usize>,
}

impl FileLayer {
    /// Reads a file; its extension says the format.
    ///
    /// # Errors
    /// What keeps it from being read, with the file and, where known, the line.
    pub fn read(path: &Path) -> Result<Self, Problem> {
        let name: Arc<str> = path.display().to_string().into();
        let text = read_text(path).map_err(|message| fault(&name, None, message))?;
        Self::parse(&name, &text)
    }

    /// Reads a text; the name's extension says the format.
    ///
    /// # Errors
    /// As [`FileLayer::read`].
    pub fn parse(name: &Arc<str>, text: &str) -> Result<Self, Problem> {
        let extension = Path::new(name.as_ref()).extension().and_then(|extension| extension.to_str()).unwrap_or("");
        let mut lines = HashMap::new();
        let tree = match extension.to_ascii_lowercase().as_str() {
            "toml" => toml_tree(name, text, &mut lines)?,
            "yaml" | "yml" => serde_saphyr::from_str::<Value>(text).map_err(|error| {
                let line = error.location().and_then(|location| usize::try_from(location.line()).ok());
                fault(name, line, format!("this is no valid YAML: {}", error.without_snippet()))
            })?,
            "json" => serde_json::from_str::<Value>(text)
                .map_err(|error| fault(name, Some(error.line()), format!("this is no valid JSON: {error}")))?,
            _ => return Err(fault(name, None, "the extension must be .toml, .yaml, .yml or .json".to_owned())),
        };
        match tree {
            Value::Object(tree) => Ok(Self { tree, name: name.clone(), lines }),
            Value::Null => Ok(Self { tree: Map::new(), name: name.clone(), lines }),
            _ => Err(fault(name, None, "expected a table of keys".to_owned())),
        }
    }

    /// Where a path stands.
    pub fn origin(&self, path: &str) -> Origin {
        Origin::File { name: self.name.clone(), line: self.lines.get(path).copied() }
    }
}

/// The file that counts: the one that is named, else the usual one in `directory`, if there is one.
pub fn find_file(named: Option<&Path>, directory: &Path) -> Option<PathBuf> {
    named.map(Path::to_owned).or_else(|| {
        let mut usual = USUAL_FILES.iter().map(|name| directory.join(name));
        usual.find(|path| path.is_file())
    })
}

fn read_text(path: &Path) -> Result<String, String> {
    let file = std::fs::File::open(path).map_err(|error| format!("can't open the file: {error}"))?;
    let mut text = String::new();
    file.take(LONGEST_FILE + 1).read_to_string(&mut text).map_err(|error| format!("can't read the file: {error}"))?;
    if text.len() as u64 > LONGEST_FILE { Err("the file is longer than 16 MiB".to_owned()) } else { Ok(text) }
}

fn fault(name: &Arc<str>, line: Option<usize>, message: String) -> Problem {
    Problem { origin: Origin::File { name: name.clone(), line }, subject: String::new(), message }
}

fn toml_tree(name: &Arc<str>, text: &str, lines: &mut HashMap<String, usize>) -> Result<Value, Problem> {
    let line_starts: Vec<usize> = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
    let line_of = |at: usize| line_starts.partition_point(|start| *start <= at);
    let told = |error: toml::de::Error| {
        let line = error.span().map(|span| line_of(span.start));
        fault(name, line, format!("this is no valid TOML: {}", error.message()))
    };
    let spanned = DeTable::parse(text).map_err(told)?;
    note_lines("", spanned.get_ref(), &line_of, lines);
    toml::from_str(text).map_err(told)
}

fn note_lines(
    group: &str,
    members: &DeTable<'_>,
    line_of: &dyn Fn(usize) -> usize,
    lines: &mut HashMap<String, usize>,
) {
    for (name, value) in members {
        let path = if group.is_empty() { name.get_ref().to_string() } else { format!("{group}.{}", name.get_ref()) };
        lines.insert(path.clone(), line_of(name.span().start));
        note_value(&path, value, line_of, lines);
    }
}

fn note_value(
    path: &str,
    value: &Spanned<DeValue<'_>>,
    line_of: &dyn Fn(usize) -> usize,
    lines: &mut HashMap<String, usize>,
) {
    match value.get_ref() {
        DeValue::Table(members) => note_lines(path, members, line_of, lines),
        DeValue::Array(entries) => {
            for (position, entry) in entries.iter().enumerate() {
                let path = format!("{path}[{position}]");
                lines.insert(path.clone(), line_of(entry.span().start));
                note_value(&path, entry, line_of, lines);
            }
        }
        _ => {}
    }
}

/// Takes in the variables that begin with `TIDEGATE_`. An empty one counts as not set.
pub fn add_variables(settings: &mut Settings, variables: &[(String, String)]) {
    let ours = variables.iter().filter(|(name, value)| name.starts_with("TIDEGATE_") && !value.is_empty());
    for (name, value) in ours {
        if is_of_kubernetes(name, value) {
            continue;
        }
        let variable = Origin::Variable(name.as_str().into());
        let Some(path) = table().of_variable(name) else {
            let path = name.trim_start_matches("TIDEGATE_").to_ascii_lowercase();
            let message = match table().nearest(&path).filter(|near| !near.contains("[]")) {
                Some(near) => format!("no key has this variable; did you mean {} for {near}?", variable_of(near)),
                None => "no key has this variable; `tidegate check-config` lists all keys".to_owned(),
            };
            settings.problem(variable, String::new(), message);
            continue;
        };
        let is_table = table().group(path).is_some();
        let is_list = table().find(path).is_some_and(|key| {
            matches!(key.kind, Kind::Texts | Kind::RedisAddresses | Kind::RedisNodes | Kind::Ignored)
                && value.trim_start().starts_with(['[', '{'])
        });
        let value = if is_table || is_list {
            match serde_json::from_str(value) {
                Ok(value) => value,
                Err(error) => {
                    let message = format!("expected JSON, as {{\"key\": true}} or [\"a\", \"b\"]: {error}");
                    settings.problem(variable, path.to_owned(), message);
                    continue;
                }
            }
        } else {
            Value::String(value.clone())
        };
        settings.add_at(path, &value, &|_| variable.clone());
    }
}

/// Whether a variable is one of those that Kubernetes (as Docker's links did) sets in every container for a
/// service whose name begins with `tidegate`: `..._SERVICE_HOST`, `..._SERVICE_PORT`, `..._PORT` with an
/// address, `..._PORT_8000_TCP_ADDR`.
fn is_of_kubernetes(name: &str, value: &str) -> bool {
    let of_port = |rest: &str| {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        digits > 0 && ["_TCP", "_UDP", "_SCTP"].iter().any(|protocol| rest[digits..].starts_with(protocol))
    };
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || (name.ends_with("_PORT") && value.contains("://"))
        || name.match_indices("_PORT_").any(|(at, found)| of_port(&name[at + found.len()..]))
}
