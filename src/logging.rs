//! Log lines on standard error, for people or for machines.

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// Starts logging; `RUST_LOG` goes over the configured level.
pub(crate) fn start(log: &Log) {
    let filter = filter(&format!("{},sqlx=warn", log.level));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    match log.format {
        LogFormat::Text => builder
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

/// Starts logging for a client that was asked to be verbose.
pub(crate) fn start_client() {
    tracing_subscriber::fmt()
        .with_env_filter(filter("wharf_client=debug"))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false)
        .init();
}

/// What `RUST_LOG` says, or else `otherwise`. An empty one says nothing: it would log nothing.
fn filter(otherwise: &str) -> EnvFilter {
    match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(said) if !said.is_empty() => EnvFilter::try_new(said).ok(),
        _ => None,
    }
    .unwrap_or_else(|| EnvFilter::new(otherwise))
}
