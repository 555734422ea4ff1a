//! What a run goes by: defaults, overridden by a scenario file, overridden by flags.
//!
//! - [`sections`]: every setting, declared once, with its default
//! - [`kind`]: the kinds of scenario, and which settings mean something to each
//! - [`file`]: scenario files, the built-in ones and a user's
//! - [`check`]: what no run can be made with
//!
//! A setting's key in a file is its flag's name with `_` for `-`, in the section that `--help` shows it under.

mod check;
pub(crate) mod file;
pub(crate) mod kind;
pub(crate) mod sections;

use serde::{Deserialize, Serialize};

pub(crate) use self::file::Scenario;
pub(crate) use self::kind::Kind;
pub(crate) use self::sections::{Bounds, Messages, Secret, Server, Sessions};
use self::sections::{BoundsLayer, MessagesLayer, ServerLayer, SessionsLayer};
use crate::error::Result;

/// Settings that were given in one place; what was not, comes from the place below.
#[derive(Debug, Clone, Default, clap::Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Layer {
    /// Which server.
    #[command(flatten, next_help_heading = "Server")]
    pub(crate) server: ServerLayer,
    /// Who listens.
    #[command(flatten, next_help_heading = "Sessions")]
    pub(crate) sessions: SessionsLayer,
    /// What is published.
    #[command(flatten, next_help_heading = "Messages")]
    pub(crate) messages: MessagesLayer,
    /// What has to be held.
    #[command(flatten, next_help_heading = "Bounds")]
    pub(crate) bounds: BoundsLayer,
}

/// All settings of a run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Settings {
    /// Which server.
    pub(crate) server: Server,
    /// Who listens.
    pub(crate) sessions: Sessions,
    /// What is published.
    pub(crate) messages: Messages,
    /// What has to be held.
    pub(crate) bounds: Bounds,
}

impl Settings {
    /// Defaults, under a scenario's file, under flags.
    ///
    /// # Errors
    /// A setting that means nothing to the scenario's kind, or a value that no run can be made with.
    pub(crate) fn resolve(scenario: &Scenario, flags: Layer) -> Result<Self> {
        let kind = scenario.kind;
        check::meaning(kind, &flags, &scenario.layer, &scenario.name)?;
        let file = scenario.layer.clone();
        let settings = Self {
            server: Server::over(flags.server, file.server),
            sessions: Sessions::over(flags.sessions, file.sessions),
            messages: Messages::over(flags.messages, file.messages),
            bounds: Bounds::over(flags.bounds, file.bounds),
        };
        check::values(kind, &settings)?;
        Ok(settings)
    }
}

impl Layer {
    /// The keys that this layer gives.
    pub(crate) fn given(&self) -> Vec<&'static str> {
        [self.server.given(), self.sessions.given(), self.messages.given(), self.bounds.given()].concat()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use clap::Parser;

    use super::*;

    /// Flags by themselves.
    #[derive(Debug, Parser)]
    struct Flags {
        #[command(flatten)]
        layer: Layer,
    }

    /// What a run of these flags would go by.
    pub(crate) fn resolve(file: &str, flags: &[&str]) -> Result<Settings> {
        let scenario = Scenario::parse("test.toml", file)?;
        let flags = Flags::try_parse_from(std::iter::once(&"test").chain(flags)).unwrap();
        Settings::resolve(&scenario, flags.layer)
    }

    #[test]
    fn a_flag_goes_over_the_file_and_the_file_over_the_default() {
        let file = "kind = \"broadcast\"\n[messages]\nrate = 7\npayload = 200\n";
        let settings = resolve(file, &["--payload", "300", "--max-p99-us", "5"]).unwrap();
        assert_eq!((settings.messages.payload, settings.messages.rate), (300, 7.0));
        assert_eq!((settings.sessions.threads, settings.bounds.max_p99_us), (1, Some(5.0)));
    }

    #[test]
    fn a_switch_can_be_set_and_taken_back() {
        let file = "kind = \"storm\"\n[sessions]\nown_channels = true\n";
        assert!(resolve(file, &[]).unwrap().sessions.own_channels);
        assert!(!resolve(file, &["--own-channels=false"]).unwrap().sessions.own_channels);
        assert!(resolve("kind = \"storm\"", &["--own-channels"]).unwrap().sessions.own_channels);
    }

    #[test]
    fn passwords_and_keys_do_not_show_in_a_report() {
        let flags = ["--redis", "redis://:hunter2@127.0.0.1:6379", "--publish", "api", "--api-key", "sesame"];
        let settings = resolve("kind = \"broadcast\"", &flags).unwrap();
        let text = serde_json::to_string(&settings).unwrap() + &format!("{settings:?}");
        assert!(!text.contains("hunter2") && !text.contains("sesame"), "{text}");
        assert_eq!(settings.messages.redis.reveal(), "redis://:hunter2@127.0.0.1:6379");
    }
}
