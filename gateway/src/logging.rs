//! Logs: text on a terminal, JSON otherwise; to standard output or a file.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _};
use std::sync::Arc;

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};

use crate::config::{Log, LogLevel};

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The file can't be appended to.
    #[error("log.file = {path:?}: can't append to the file: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Somebody started logging before.
    #[error("logging has been started already: {0}")]
    Started(#[from] tracing::subscriber::SetGlobalDefaultError),
}

/// Starts logging for the whole process. Lines go out as they come, unbuffered, so that none is missing after a crash.
///
/// # Errors
/// The file can't be opened for appending, or logging runs already.
pub fn start(log: &Log) -> Result<(), LoggingError> {
    let (writer, is_text) = if log.file.is_empty() {
        (BoxMakeWriter::new(io::stdout), io::stdout().is_terminal())
    } else {
        (BoxMakeWriter::new(Arc::new(open(&log.file)?)), false)
    };
    tracing::subscriber::set_global_default(subscriber(log.level, writer, is_text))?;
    Ok(())
}

fn open(path: &str) -> Result<File, LoggingError> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.map_err(|source| LoggingError::File { path: path.to_owned(), source })
}

fn subscriber(level: LogLevel, writer: BoxMakeWriter, is_text: bool) -> Box<dyn Subscriber + Send + Sync> {
    let format = tracing_subscriber::fmt::layer().with_writer(writer);
    let registry = tracing_subscriber::registry();
    if is_text {
        Box::new(registry.with(format.with_filter(filter(level))))
    } else {
        // One object a line, the fields of the event beside its message.
        Box::new(registry.with(format.json().flatten_event(true).with_filter(filter(level))))
    }
}

/// Ours at the level that is set; libraries' own details only when everything is asked for.
fn filter(level: LogLevel) -> Targets {
    let ours = match level {
        LogLevel::Trace => LevelFilter::TRACE,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::None => LevelFilter::OFF,
    };
    let libraries = if level == LogLevel::Trace { ours } else { ours.min(LevelFilter::INFO) };
    Targets::new().with_default(libraries).with_target("tidegate", ours)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Logs through `level` and gives back what was written.
    fn written(level: LogLevel, is_text: bool, log: impl FnOnce()) -> String {
        #[derive(Clone, Default)]
        struct Buffer(Arc<Mutex<Vec<u8>>>);
        impl io::Write for Buffer {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let subscriber = subscriber(level, BoxMakeWriter::new(move || writer.clone()), is_text);
        tracing::subscriber::with_default(subscriber, log);
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_machine_gets_one_json_object_a_line() {
        let text = written(LogLevel::Info, false, || tracing::warn!(channel = "news", "slow"));
        let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!(
            (&line["level"], &line["message"], &line["channel"]),
            (&"WARN".into(), &"slow".into(), &"news".into())
        );
        assert_eq!(line["target"], "tidegate::logging::tests");
    }

    #[test]
    fn a_person_gets_text() {
        let text = written(LogLevel::Info, true, || tracing::info!("started"));
        assert!(text.contains("started") && !text.starts_with('{'), "{text}");
    }

    #[test]
    fn what_is_less_important_than_the_level_is_not_written() {
        let log = || {
            tracing::info!("info");
            tracing::error!("error");
            tracing::debug!(target: "redis_protocol", "detail of a library");
        };
        assert!(!written(LogLevel::Error, false, log).contains("\"info\""));
        assert!(written(LogLevel::Error, false, log).contains("\"error\""));
        assert_eq!(written(LogLevel::None, false, log), "");
        assert!(!written(LogLevel::Debug, false, log).contains("detail"));
        assert!(written(LogLevel::Trace, false, log).contains("detail"));
    }

    #[test]
    fn a_file_that_cant_be_written_is_named() {
        let error = open("/proc/no/such/file.log").unwrap_err().to_string();
        assert!(error.starts_with("log.file = \"/proc/no/such/file.log\": can't append to the file: "), "{error}");
    }
}
