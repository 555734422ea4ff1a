//! From the sources to a [`Config`], or to the list of everything that is wrong.

use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::check;
use super::rooms::Config;
use super::settings::{Origin, Problem, Settings};
use super::source::{FileLayer, add_variables, find_file};

/// Where settings come from; later ones win: `--dev`, file, variables, flags. Not `Debug`: it holds secrets.
#[derive(Clone, Default)]
pub struct Sources {
    /// The file that `--config` names.
    pub file: Option<PathBuf>,
    /// Where the usual files are looked for when none is named.
    pub directory: PathBuf,
    /// The environment's variables.
    pub variables: Vec<(String, String)>,
    /// What flags set.
    pub flags: Vec<Flag>,
    /// Whether `--dev` is given.
    pub dev: bool,
    /// Whether keys of features that are not built are left out with a notice.
    pub skip_unsupported: bool,
}

/// A key that a flag sets.
#[derive(Clone)]
pub struct Flag {
    /// The flag, as `--listen`.
    pub flag: &'static str,
    /// The key's path.
    pub path: &'static str,
    /// The value, as a file would have it.
    pub value: Value,
}

/// Settings that are in order.
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// What was set, and where.
    pub settings: Settings,
    /// The file that was read, if one was.
    pub file: Option<PathBuf>,
    /// Whether `--dev` made up `http_api.key`, so that it should be shown to the person who started the node.
    pub made_up_key: bool,
}

impl fmt::Debug for Loaded {
    /// Leaves out what is set: secrets are among it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Loaded");
        shown.field("file", &self.file).field("notices", &self.notices()).finish_non_exhaustive()
    }
}

impl Loaded {
    /// What somebody should know, for the log.
    pub fn notices(&self) -> &[String] {
        &self.settings.notices
    }
}

/// Everything that is wrong, in the order of the sources.
#[derive(Debug)]
pub struct Problems {
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// What somebody should know besides.
    pub notices: Vec<String>,
}

impl std::error::Error for Problems {}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.problems.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

/// Loads the settings.
///
/// # Errors
/// All problems of all sources, and what does not fit together.
pub fn load(sources: &Sources) -> Result<Loaded, Problems> {
    let mut settings = Settings::new(sources.skip_unsupported);
    if sources.dev {
        settings.add(&dev_tree(), &|_| Origin::Dev);
    }
    let file = find_file(sources.file.as_deref(), &sources.directory);
    if let Some(path) = &file {
        add_file(&mut settings, path);
    }
    add_variables(&mut settings, &sources.variables);
    for Flag { flag, path, value } in &sources.flags {
        settings.add_at(path, value, &|_| Origin::Flag(flag));
    }
    let made_up_key = sources.dev && !settings.is_explicit("http_api.key");
    if made_up_key {
        settings.add_at("http_api.key", &Uuid::new_v4().simple().to_string().into(), &|_| Origin::Dev);
    }
    match settings.to_config() {
        Ok(mut config) => {
            check::derive(&mut config, &settings);
            check::check(&config, &mut settings);
            if settings.problems.is_empty() {
                return Ok(Loaded { config, settings, file, made_up_key });
            }
        }
        Err(message) => settings.problem(Origin::Default, String::new(), message),
    }
    settings.sort_problems();
    Err(Problems { problems: settings.problems, notices: settings.notices })
}

fn add_file(settings: &mut Settings, path: &Path) {
    match FileLayer::read(path) {
        Ok(layer) => settings.add(&layer.tree, &|path| layer.origin(path)),
        Err(problem) => settings.problems.push(problem),
    }
}

/// What `--dev` sets, under everything else: loopback only, nobody asked for a token, quick to stop.
fn dev_tree() -> Map<String, Value> {
    let tree = json!({
        "http_server": { "address": "127.0.0.1", "internal_address": "127.0.0.1" },
        "tcp_server": { "address": "127.0.0.1" },
        "client": { "allow_anonymous_connect_without_token": true, "allowed_origins": ["*"] },
        "channel": {
            "without_namespace": {
                "allow_subscribe_for_client": true,
                "allow_subscribe_for_anonymous": true,
                "allow_publish_for_client": true,
                "allow_publish_for_anonymous": true,
            },
        },
        "shutdown": { "drain": "1s" },
        "demo": { "enabled": true },
    });
    match tree {
        Value::Object(tree) => tree,
        _ => Map::new(),
    }
}
