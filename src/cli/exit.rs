//! Exit codes, and the errors that end with them.

use std::process::ExitCode;

/// The table that the help shows.
pub(super) const HELP: &str = "\
Exit codes:
  0  everything was done
  1  something failed; the last line on standard error says what
  2  the command line or the configuration is wrong";

/// Why a command did not do what was asked: one line, and an exit code.
#[derive(Debug)]
pub(crate) enum CliError {
    /// Something failed.
    Failed(String),
    /// What was asked for is wrong.
    Usage(String),
}

impl CliError {
    pub(super) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Failed(_) => ExitCode::from(1),
            Self::Usage(_) => ExitCode::from(2),
        }
    }

    /// A failure with everything under it, on one line.
    pub(crate) fn failed(error: &dyn std::error::Error) -> Self {
        Self::Failed(crate::compose::with_source(error))
    }
}

impl std::fmt::Display for CliError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Failed(text) | Self::Usage(text) => f.write_str(text),
        }
    }
}

impl From<crate::compose::StartError> for CliError {
    fn from(error: crate::compose::StartError) -> Self {
        Self::Failed(error.to_string())
    }
}
