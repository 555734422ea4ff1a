//! Why a run could not be made. What a run found (losses, missed bounds) is no error but a result.

/// The text says what happened and what would help.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The arguments ask for what cannot be.
    #[error("{0}")]
    Usage(String),
    /// The server, Redis or a part of this tool did not do what the run needs.
    #[error("{0}")]
    Run(String),
}

/// A result of this crate.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Says what was tried when the system refused.
pub(crate) trait Context<T> {
    /// Wraps the system's error.
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::Io { what: what(), source: error.into() })
    }
}
