//! From a server's "no" to an error that says what to do about it.
//!
//! Codes alone do not suffice: 550 is the answer to a missing file, to a
//! missing permission and to a full disk alike, so the words decide where
//! servers are known to use them. Words are only ever used to refine.

use wharf_proto::ftp::reply::{Reply, ReplyCode};

use super::control::said;
use crate::error::ClientError;

/// The error that a 3xx, 4xx or 5xx reply stands for.
pub(super) fn refusal(reply: &Reply) -> ClientError {
    let said = said(reply);
    match reply.code() {
        ReplyCode::SERVICE_UNAVAILABLE if said.mentions(TOO_MANY) => {
            ClientError::TooManyConnections(said)
        }
        ReplyCode::SERVICE_UNAVAILABLE => ClientError::Closed(Some(said)),
        ReplyCode::NOT_LOGGED_IN if said.mentions(TOO_MANY) => {
            ClientError::TooManyConnections(said)
        }
        ReplyCode::NOT_LOGGED_IN => ClientError::Login(said),
        ReplyCode::STORAGE_FULL => ClientError::ServerDiskFull(said),
        ReplyCode::OVER_QUOTA => ClientError::OverQuota(said),
        ReplyCode::FILE_BUSY | ReplyCode::UNAVAILABLE if said.mentions(NOT_FOUND) => {
            ClientError::NotFound(Some(said))
        }
        code if code.is_transient_refusal() => ClientError::TryLater(said),
        code if code.as_u16() == DIRECTORY_EXISTS => ClientError::AlreadyExists(said),
        code if code.as_u16() >= 500 => match () {
            () if said.mentions(&["quota"]) => ClientError::OverQuota(said),
            () if said.mentions(&["no space", "disk full"]) => ClientError::ServerDiskFull(said),
            () if said.mentions(EXISTS) => ClientError::AlreadyExists(said),
            () => ClientError::Refused(said),
        },
        _ => ClientError::Protocol(format!("unexpected reply {said}")),
    }
}

/// Whether the server does not know the command or this form of it (500, 501, 502, 504).
pub(super) fn is_not_understood(reply: &Reply) -> bool {
    matches!(
        reply.code(),
        ReplyCode::UNKNOWN_COMMAND
            | ReplyCode::INVALID_ARGUMENT
            | ReplyCode::NOT_IMPLEMENTED
            | ReplyCode::PARAMETER_NOT_IMPLEMENTED
    )
}

/// 521, of the expired RFC 1639 and its heirs: a directory to be made exists.
const DIRECTORY_EXISTS: u16 = 521;

const EXISTS: &[&str] = &["already exists", "exists already", "file exists"];

const TOO_MANY: &[&str] = &["too many", "maximum", "limit", "max clients"];

const NOT_FOUND: &[&str] = &[
    "no such",
    "not found",
    "doesn't exist",
    "does not exist",
    "not exist",
    "cannot find",
    "can't find",
    // Pure-FTPd's answer to SIZE and MDTM of a missing file.
    "can't check for file existence",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn kind(code: u16, text: &str) -> ErrorKind {
        let code = ReplyCode::new(code).expect("a code");
        refusal(&Reply::new(code, text)).kind()
    }

    #[test]
    fn what_stands_already_is_told_from_what_is_forbidden() {
        for (code, text) in [
            (521, "\"/x\" directory exists"),
            (550, "Something with this name already exists."),
            (550, "Something with this name exists already."),
            (550, "Can't create directory: File exists"),
        ] {
            let code = ReplyCode::new(code).expect("a code");
            let error = refusal(&Reply::new(code, text));
            assert!(matches!(error, ClientError::AlreadyExists(_)), "{text}");
        }
    }

    #[test]
    fn servers_words_refine_what_their_codes_leave_open() {
        for (code, text, expected) in [
            (550, "No such file or directory.", ErrorKind::NotFound),
            (
                550,
                "x: The system cannot find the file specified.",
                ErrorKind::NotFound,
            ),
            (450, "x: File not found", ErrorKind::NotFound),
            (550, "Permission denied.", ErrorKind::Refused),
            (550, "x: Disk quota exceeded", ErrorKind::Quota),
            (552, "Over quota.", ErrorKind::Quota),
            (452, "Full.", ErrorKind::ServerDiskFull),
            (553, "No space left on device", ErrorKind::ServerDiskFull),
            (521, "\"/x\" directory exists", ErrorKind::Refused),
            (530, "Login incorrect.", ErrorKind::Authentication),
            (
                530,
                "Sorry, the maximum number of clients (5) is reached",
                ErrorKind::Network,
            ),
            (421, "Too many connections", ErrorKind::Network),
            (421, "Idle timeout", ErrorKind::Network),
            (451, "Local error", ErrorKind::Network),
            (331, "Password?", ErrorKind::Protocol),
        ] {
            assert_eq!(kind(code, text), expected, "{code} {text}");
        }
    }
}
