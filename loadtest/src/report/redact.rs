//! The command line and the settings of a run without their secrets, because reports are published.

use std::ffi::OsString;

use serde_json::Value;

/// Flags whose value is a secret.
const SECRET: &[&str] = &["--api-key", "--token", "--password"];
const HIDDEN: &str = "***";

/// The arguments as text: the program by its name alone, values of secret flags and passwords in URLs hidden.
pub(crate) fn command(arguments: impl IntoIterator<Item = OsString>) -> Vec<String> {
    let mut hide_next = false;
    let mut command = Vec::new();
    for (number, argument) in arguments.into_iter().enumerate() {
        let argument = argument.to_string_lossy().into_owned();
        let shown = match argument.split_once('=') {
            _ if number == 0 => argument.rsplit('/').next().unwrap_or_default().to_owned(),
            _ if hide_next => HIDDEN.to_owned(),
            Some((flag, _)) if SECRET.contains(&flag) => format!("{flag}={HIDDEN}"),
            _ => url(&argument),
        };
        hide_next = !hide_next && SECRET.contains(&argument.as_str());
        command.push(shown);
    }
    command
}

/// Settings with the same hidden, wherever they stand.
pub(crate) fn settings(mut settings: Value) -> Value {
    hide(&mut settings);
    settings
}

fn hide(value: &mut Value) {
    match value {
        Value::String(text) => *text = url(text),
        Value::Array(values) => values.iter_mut().for_each(hide),
        Value::Object(map) => {
            for (key, value) in map {
                let secret = SECRET.iter().any(|flag| flag.trim_start_matches('-').replace('-', "_") == *key);
                if secret && value.as_str().is_some_and(|text| !text.is_empty()) {
                    *value = HIDDEN.into();
                } else {
                    hide(value);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A text with the user part of the URL in it hidden: `redis://:secret@host` is `redis://***@host`. Up to the last `@`,
/// because a password may hold what should have been escaped.
fn url(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    rest.rfind('@').map_or_else(|| text.to_owned(), |at| format!("{scheme}://{HIDDEN}{}", &rest[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_the_programs_folder_are_not_shown() {
        let words = [
            "/home/me/tidegate-loadtest",
            "broadcast",
            "--api-key",
            "k1",
            "--api-key=k2",
            "--redis=redis://:k3@h:6379/0",
            "--redis",
            "rediss://user:k4@h",
            "--label",
            "a=b",
        ];
        let shown = command(words.map(OsString::from));
        assert_eq!(
            shown.join(" "),
            "tidegate-loadtest broadcast --api-key *** --api-key=*** --redis=redis://***@h:6379/0 --redis \
             rediss://***@h --label a=b"
        );
    }

    #[test]
    fn a_password_with_a_slash_is_hidden_and_a_text_without_a_login_stays() {
        assert_eq!(url("redis://:a/b@h"), "redis://***@h");
        for text in ["http://h:80/path?x=1", "plain@text"] {
            assert_eq!(url(text), text);
        }
    }

    #[test]
    fn settings_show_no_secret_at_any_depth() {
        let shown = settings(serde_json::json!({
            "messages": { "publish_url": "nats://u:k1@h", "api_key": "k2", "rate": 5 }, "server": ["ws://k3@h"], "token": "",
        }));
        let wanted = serde_json::json!({
            "messages": { "publish_url": "nats://***@h", "api_key": "***", "rate": 5 }, "server": ["ws://***@h"], "token": "",
        });
        assert_eq!(shown, wanted);
    }
}
