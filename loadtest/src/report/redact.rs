//! The command line of a run without its secrets, because reports are published.

use std::ffi::OsString;

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

/// A text with the user part of the URL in it hidden: `redis://:secret@host` is `redis://***@host`.
pub(crate) fn url(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let authority = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..authority].rfind('@') {
        Some(at) => format!("{scheme}://{HIDDEN}{}", &rest[at..]),
        None => text.to_owned(),
    }
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
    fn an_at_sign_behind_the_host_is_no_password() {
        assert_eq!(url("http://h/a@b"), "http://h/a@b");
        assert_eq!(url("plain@text"), "plain@text");
    }
}
