//! Logs: one line an event on standard output, JSON with dotted fields or text for people.

use std::io;

use thiserror::Error;
use tracing::subscriber::SetGlobalDefaultError;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;

use crate::config::{Log, LogFormat};

/// Why logs could not be set up.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The level is no filter.
    #[error("log.level is no filter")]
    Level(#[from] ParseError),
    /// It was done before.
    #[error("logs are set up already")]
    Installed(#[from] SetGlobalDefaultError),
}

/// Sends the events of the whole process to standard output.
///
/// # Errors
///
/// The level must be a filter, and logs not be set up already.
pub fn install(log: &Log) -> Result<(), TelemetryError> {
    tracing::subscriber::set_global_default(subscriber(log, io::stdout)?)?;
    Ok(())
}

fn subscriber<W>(log: &Log, writer: W) -> Result<impl tracing::Subscriber + Send + Sync, TelemetryError>
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(&log.level)?;
    let lines = match log.format {
        LogFormat::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .with_writer(writer)
            .boxed(),
        LogFormat::Text => fmt::layer().with_ansi(false).with_writer(writer).boxed(),
    };
    Ok(tracing_subscriber::registry().with(filter).with(lines))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(format: LogFormat, level: &str) -> Vec<String> {
        let lines = Lines::default();
        let writer = lines.clone();
        let log = Log {
            format,
            level: level.to_owned(),
        };
        let subscriber = subscriber(&log, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(repository.name = "apps/a", scan.tags = 3, "scanned");
            tracing::debug!("detail");
        });
        let bytes = lines.0.lock().unwrap().clone();
        let text = String::from_utf8(bytes).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn writes_json_with_dotted_fields() {
        let lines = lines(LogFormat::Json, "info");
        assert_eq!(lines.len(), 1, "{lines:?}");
        let event: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(event["level"], "INFO");
        assert_eq!(event["message"], "scanned");
        assert_eq!(event["repository.name"], "apps/a");
        assert_eq!(event["scan.tags"], 3);
        assert!(event["timestamp"].is_string());
    }

    #[test]
    fn writes_text_for_people() {
        let lines = lines(LogFormat::Text, "flagstate_common=debug");
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].contains("scanned") && lines[0].contains("repository.name=\"apps/a\""));
        assert!(!lines[0].contains('\u{1b}'));
    }

    #[test]
    fn leaves_out_what_is_below_the_level() {
        assert!(lines(LogFormat::Json, "error").is_empty());
    }
}
