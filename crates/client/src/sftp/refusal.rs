//! From a status to an error that says what to do about it.
//!
//! Version 3 has one code, `FAILURE`, for a full disk, a name that is taken and
//! a directory that is not empty, so the words decide where servers use any.

use wharf_proto::sftp::{Response, StatusCode};

use crate::error::{ClientError, Said};

/// The error that a status other than `OK` stands for.
pub(super) fn refusal(code: StatusCode, message: &[u8]) -> ClientError {
    let said = said(code, message);
    match code {
        // The error says as much itself.
        StatusCode::NoSuchFile => {
            ClientError::NotFound(Some(said).filter(|said| !said.mentions(&["no such file"])))
        }
        StatusCode::PermissionDenied => ClientError::Refused(said),
        StatusCode::OpUnsupported => ClientError::Unsupported("do this over SFTP"),
        StatusCode::NoConnection | StatusCode::ConnectionLost => ClientError::Closed(Some(said)),
        StatusCode::BadMessage => {
            ClientError::Protocol(format!("it takes a request for a broken one: {said}"))
        }
        StatusCode::Failure | StatusCode::Other(_) => failure(code, said),
        StatusCode::Ok | StatusCode::Eof => {
            ClientError::Protocol(format!("it says {said:?} where that makes no sense"))
        }
    }
}

fn failure(code: StatusCode, said: Said) -> ClientError {
    match code {
        StatusCode::Other(FILE_ALREADY_EXISTS) => ClientError::AlreadyExists(said),
        StatusCode::Other(NO_SPACE) => ClientError::ServerDiskFull(said),
        StatusCode::Other(QUOTA_EXCEEDED) => ClientError::OverQuota(said),
        StatusCode::Other(NO_SUCH_PATH) => ClientError::NotFound(Some(said)),
        _ if said.mentions(&["quota"]) => ClientError::OverQuota(said),
        _ if said.mentions(&["no space", "disk full", "storage is full"]) => {
            ClientError::ServerDiskFull(said)
        }
        _ if said.mentions(&["exists"]) => ClientError::AlreadyExists(said),
        _ => ClientError::Refused(said),
    }
}

/// What the server said, or the name of the code where it said nothing.
fn said(code: StatusCode, message: &[u8]) -> Said {
    if message.is_empty() {
        Said::words(format!("{code:?}").as_bytes())
    } else {
        Said::words(message)
    }
}

/// A response of another kind than the request has.
pub(super) fn unexpected(response: &Response) -> ClientError {
    let kind = match response {
        Response::Status { .. } => "a status",
        Response::Handle(_) => "a handle",
        Response::Data(_) => "content",
        Response::Names(_) => "names",
        Response::Attributes(_) => "attributes",
        Response::Extended(_) => "an extended reply",
    };
    ClientError::Protocol(format!("it answered with {kind} where that makes no sense"))
}

/// Codes of later versions that servers send to clients of version 3
/// (draft-ietf-secsh-filexfer-13 §9.1).
const NO_SUCH_PATH: u32 = 10;
const FILE_ALREADY_EXISTS: u32 = 11;
const NO_SPACE: u32 = 14;
const QUOTA_EXCEEDED: u32 = 15;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_status_becomes_the_error_that_a_person_can_act_on() {
        for (code, message, kind) in [
            (2, "No such file", ErrorKind::NotFound),
            (3, "Permission denied", ErrorKind::Refused),
            (4, "Failure", ErrorKind::Refused),
            (4, "Disk quota exceeded", ErrorKind::Quota),
            (4, "No space left on device", ErrorKind::ServerDiskFull),
            (
                4,
                "The server's storage is full.",
                ErrorKind::ServerDiskFull,
            ),
            (5, "Bad message", ErrorKind::Protocol),
            (7, "", ErrorKind::Network),
            (8, "Operation unsupported", ErrorKind::Refused),
            (14, "", ErrorKind::ServerDiskFull),
            (15, "", ErrorKind::Quota),
        ] {
            let error = refusal(StatusCode::from_u32(code), message.as_bytes());
            assert_eq!(error.kind(), kind, "{code} {message}: {error}");
        }
        let taken = refusal(StatusCode::Other(11), b"");
        assert!(matches!(taken, ClientError::AlreadyExists(_)));
    }

    #[test]
    fn what_a_server_says_cannot_reach_the_terminal_raw() {
        let error = refusal(StatusCode::Failure, b"no\x1b[2J");
        assert_eq!(error.to_string(), "the server refuses: no\\x1b[2J");
    }
}
