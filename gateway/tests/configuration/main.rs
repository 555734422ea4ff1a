//! The configuration.
//!
//! `layers`: what is read, and what wins; `errors`: what each mistake and oddity says; `table`: the table of
//! keys, what is printed from it, and the documentation; here: what these share.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test's helper fails by panicking")]

mod errors;
mod layers;
mod table;

use std::path::PathBuf;

use tidegate::config::{Loaded, Sources, load};

/// A directory of this test's own, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("tidegate-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn with(self, name: &str, text: &str) -> Self {
        std::fs::write(self.0.join(name), text).unwrap();
        self
    }

    fn sources(&self) -> Sources {
        Sources { directory: self.0.clone(), ..Sources::default() }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// What is wrong with a file of this name and text; paths are cut down to the file's name.
fn problems_of(name: &str, text: &str) -> Vec<String> {
    let directory = Directory::new().with(name, text);
    let prefix = format!("{}/", directory.0.display());
    let sources = Sources { file: Some(directory.0.join(name)), ..Sources::default() };
    let problems = load(&sources).expect_err("a problem").problems;
    problems.iter().map(|problem| problem.to_string().replace(&prefix, "")).collect()
}

fn loaded(name: &str, text: &str) -> Loaded {
    let directory = Directory::new().with(name, text);
    load(&directory.sources()).unwrap_or_else(|problems| panic!("{problems}"))
}
