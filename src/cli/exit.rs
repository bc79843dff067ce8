//! Exit codes, and the errors that end with them.

use std::process::ExitCode;

use wharf_client::{ClientError, ErrorKind, Summary};

use crate::admin::client::AdminError;

/// Every exit code and what it means; the help shows them.
const CODES: [(u8, &str); 13] = [
    (0, "everything was done"),
    (
        1,
        "something failed; the last line on standard error says what",
    ),
    (2, "the command line, the configuration or a URL is wrong"),
    (3, "no such file or directory on the server"),
    (4, "the login was refused"),
    (5, "the server refuses: no permission, or no such command"),
    (6, "the account's quota is used up"),
    (7, "the server's disk is full"),
    (
        8,
        "the server cannot be reached, broke the connection or was silent",
    ),
    (9, "the server's answers make no sense"),
    (10, "the copies differ"),
    (11, "a local file or folder cannot be read or written"),
    (
        12,
        "the connection cannot be encrypted, or the server is not trusted",
    ),
];

/// What a shell reports for a program that SIGINT ended.
const INTERRUPTED: u8 = 130;

/// What a shell reports for a program that SIGPIPE ended.
pub(super) const UNREAD: u8 = 141;

/// The codes beyond [`CODES`].
const SIGNALS: [(u8, &str); 2] = [
    (INTERRUPTED, "interrupted"),
    (
        UNREAD,
        "stopped early, since nobody reads the output any more",
    ),
];

/// The table of exit codes as help shows it.
pub(super) fn help() -> String {
    let mut text = "Exit codes:".to_owned();
    for (code, meaning) in CODES.into_iter().chain(SIGNALS) {
        text.push_str(&format!("\n{code:>5}  {meaning}"));
    }
    text
}

fn code_of(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Usage => 2,
        ErrorKind::NotFound => 3,
        ErrorKind::Authentication => 4,
        ErrorKind::Refused => 5,
        ErrorKind::Quota => 6,
        ErrorKind::ServerDiskFull => 7,
        ErrorKind::Network => 8,
        ErrorKind::Protocol => 9,
        ErrorKind::Verification => 10,
        ErrorKind::Local => 11,
        ErrorKind::Encryption => 12,
        ErrorKind::Interrupted => INTERRUPTED,
    }
}

/// Why a command did not do what was asked: one line, and an exit code.
#[derive(Debug)]
pub(crate) enum CliError {
    /// Something failed.
    Failed(String),
    /// What was asked for is wrong.
    Usage(String),
    /// The client's work failed.
    Client(ErrorKind, String),
    /// Some of the files failed, and each was reported when it did.
    Told(ErrorKind),
    /// A command on a server ended with this code; what there was to say was said.
    Ended(u8),
    /// Whoever read the output has gone, so that nothing is left to say.
    Unread,
}

impl CliError {
    /// Whether `main` has something to say of it.
    pub(super) fn is_silent(&self) -> bool {
        matches!(self, Self::Told(_) | Self::Ended(_) | Self::Unread)
    }

    pub(super) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Ended(code) => *code,
            Self::Unread => UNREAD,
            Self::Client(kind, _) | Self::Told(kind) => code_of(*kind),
        })
    }

    /// The family, for a command that goes on and ends with its code.
    pub(super) fn kind(&self) -> ErrorKind {
        match self {
            Self::Failed(_) => ErrorKind::Local,
            Self::Usage(_) => ErrorKind::Usage,
            Self::Client(kind, _) | Self::Told(kind) => *kind,
            Self::Ended(_) => ErrorKind::Refused,
            Self::Unread => ErrorKind::Interrupted,
        }
    }

    /// One word for machines.
    pub(super) fn kind_name(&self) -> &'static str {
        match self {
            Self::Failed(_) => "failed",
            Self::Usage(_) => ErrorKind::Usage.name(),
            Self::Client(kind, _) | Self::Told(kind) => kind.name(),
            Self::Ended(_) => "ended",
            Self::Unread => "unread",
        }
    }

    /// A failure with everything under it, on one line.
    pub(crate) fn failed(error: &dyn std::error::Error) -> Self {
        Self::Failed(crate::compose::with_source(error))
    }

    /// A failure of the client at `what`, a path or URL that is safe to show.
    pub(super) fn at(what: impl std::fmt::Display, error: &ClientError) -> Self {
        Self::Client(error.kind(), format!("{what}: {}", error.chain()))
    }

    /// Whether nothing more can succeed after it, in the same command.
    pub(super) fn ends_command(&self) -> bool {
        match self {
            Self::Client(kind, _) => matches!(
                kind,
                ErrorKind::Authentication
                    | ErrorKind::Network
                    | ErrorKind::Encryption
                    | ErrorKind::Interrupted
            ),
            _ => false,
        }
    }

    /// Nothing, or that something was reported.
    pub(super) fn from_summary(summary: &Summary) -> Result<(), Self> {
        match summary.first_failure {
            Some(kind) => Err(Self::Told(kind)),
            None if summary.is_complete() => Ok(()),
            None => Err(Self::Told(ErrorKind::Interrupted)),
        }
    }
}

impl From<AdminError> for CliError {
    fn from(error: AdminError) -> Self {
        let text = error.to_string();
        match error {
            AdminError::Refused(_) | AdminError::NoSession(_) => Self::Failed(text),
            AdminError::NotAllowed(_) => Self::Client(ErrorKind::Refused, text),
            AdminError::NotRunning(_) | AdminError::Gone { .. } | AdminError::Io { .. } => {
                Self::Client(ErrorKind::Network, text)
            }
            AdminError::Nonsense { .. } => Self::Client(ErrorKind::Protocol, text),
        }
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        Self::Client(error.kind(), error.chain())
    }
}

impl std::fmt::Display for CliError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Failed(text) | Self::Usage(text) | Self::Client(_, text) => f.write_str(text),
            Self::Told(_) => f.write_str("not everything was done"),
            Self::Ended(code) => write!(f, "the command ended with {code}"),
            Self::Unread => f.write_str("nobody reads the output any more"),
        }
    }
}

impl From<crate::privileges::PrivilegeError> for CliError {
    fn from(error: crate::privileges::PrivilegeError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<crate::sandbox::SandboxError> for CliError {
    fn from(error: crate::sandbox::SandboxError) -> Self {
        Self::Failed(crate::compose::with_source(&error))
    }
}

impl From<crate::compose::StartError> for CliError {
    fn from(error: crate::compose::StartError) -> Self {
        let text = error.to_string();
        if error.is_in_the_configuration() {
            Self::Usage(text)
        } else {
            Self::Failed(text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_error_has_a_code_that_the_help_explains() {
        use ErrorKind as Kind;
        let explained = help();
        for kind in [
            Kind::Usage,
            Kind::NotFound,
            Kind::Authentication,
            Kind::Refused,
            Kind::Quota,
            Kind::ServerDiskFull,
            Kind::Network,
            Kind::Protocol,
            Kind::Verification,
            Kind::Local,
            Kind::Encryption,
            Kind::Interrupted,
        ] {
            let line = format!("\n{:>5}  ", code_of(kind));
            assert!(explained.contains(&line), "{kind:?}");
        }
    }
}
