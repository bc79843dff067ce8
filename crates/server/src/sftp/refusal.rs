//! The only place where what went wrong becomes a status.

use std::borrow::Cow;

use bytes::Bytes;
use wharf_model::{PathError, QuotaKind, Refusal};
use wharf_proto::sftp::{DecodeError, MAX_READ_BYTES, Response, StatusCode};

use super::check::MIN_BLOCK_BYTES;
use super::handles::MAX_HANDLES;

/// Why a request was not carried out.
#[derive(Debug)]
pub(super) enum Problem {
    /// The file system below refused.
    Refused(Refusal),
    /// The packet cannot be understood.
    Undecodable(DecodeError),
    /// Nothing is open under the handle.
    UnknownHandle,
    /// The handle is a directory's where a file's is needed, or the other way round.
    WrongHandle,
    /// There is no more to read or list.
    End,
    /// The file was not opened for this.
    NotOpenFor(&'static str),
    /// A write failed before.
    Cut,
    /// Too much is open.
    TooManyHandles,
    /// Open flags that contradict each other.
    BadFlags,
    /// Owners do not change.
    OwnerFixed,
    /// Not a symbolic link.
    NotALink,
    /// Symbolic links are not made.
    NoLinks,
    /// Another account's home.
    NotYourHome,
    /// None of the algorithms is known.
    NoAlgorithm,
    /// Blocks too small to have digests.
    SmallBlocks,
    /// The answer would be longer than a packet.
    LongAnswer,
    /// Source and target of a copy are one file, or the source is being written.
    BadCopy,
    /// The session is ending.
    Ending,
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<PathError> for Problem {
    fn from(error: PathError) -> Self {
        Self::Refused(Refusal::InvalidName(error))
    }
}

/// What the client is told. It names what was wrong and what helps, and nothing of the host.
pub(super) fn response_to(problem: &Problem) -> Response {
    let (code, text) = match problem {
        Problem::Refused(refusal) => return response_to_refusal(refusal),
        Problem::Undecodable(DecodeError::UnknownType(_) | DecodeError::UnknownExtension) => (
            StatusCode::OpUnsupported,
            "The server does not know this request.".into(),
        ),
        Problem::Undecodable(error @ (DecodeError::Truncated | DecodeError::BrokenList)) => (
            StatusCode::BadMessage,
            format!("The request is broken: {error}.").into(),
        ),
        Problem::UnknownHandle => failure("Nothing is open under this handle."),
        Problem::WrongHandle => failure("The handle is for something else."),
        Problem::End => (StatusCode::Eof, "There is no more.".into()),
        Problem::NotOpenFor(what) => (
            StatusCode::PermissionDenied,
            format!("The file was not opened for {what}.").into(),
        ),
        Problem::Cut => failure(
            "An earlier write failed, so this file is not whole; what arrived can be resumed.",
        ),
        Problem::TooManyHandles => (
            StatusCode::Failure,
            format!("At most {MAX_HANDLES} files and directories can be open; close some.").into(),
        ),
        Problem::BadFlags => failure("A file is opened for reading, writing or both."),
        Problem::OwnerFixed => (
            StatusCode::PermissionDenied,
            "Owner and group cannot be changed here.".into(),
        ),
        Problem::NotALink => failure("Not a symbolic link."),
        Problem::NoLinks => (
            StatusCode::OpUnsupported,
            "Symbolic links are not made here: moving one could lead it out of your home.".into(),
        ),
        Problem::NotYourHome => (
            StatusCode::NoSuchFile,
            "Only your own home is known here.".into(),
        ),
        Problem::NoAlgorithm => failure("None of these digest algorithms is known."),
        Problem::SmallBlocks => (
            StatusCode::Failure,
            format!("A block has {MIN_BLOCK_BYTES} bytes or more.").into(),
        ),
        Problem::LongAnswer => (
            StatusCode::Failure,
            format!("The answer would have more than {MAX_READ_BYTES} bytes; ask for less.").into(),
        ),
        Problem::BadCopy => {
            failure("A copy goes from a file that is open for reading only to another one.")
        }
        Problem::Ending => (StatusCode::ConnectionLost, "The session is ending.".into()),
    };
    status(code, text)
}

fn response_to_refusal(refusal: &Refusal) -> Response {
    let (code, text) = match refusal {
        Refusal::NotFound => (StatusCode::NoSuchFile, "No such file or directory.".into()),
        Refusal::NotADirectory => (StatusCode::NoSuchFile, "Not a directory.".into()),
        Refusal::IsADirectory => failure("Is a directory."),
        Refusal::NotAFile => failure("Not a regular file."),
        Refusal::AlreadyExists => failure("Something with this name already exists."),
        Refusal::NotEmpty => failure("Directory not empty."),
        Refusal::NotPermitted => (
            StatusCode::PermissionDenied,
            "Permission denied: your account may not do this here.".into(),
        ),
        Refusal::SystemDenied => (
            StatusCode::PermissionDenied,
            "Permission denied by the server's system.".into(),
        ),
        Refusal::InvalidName(error) => (
            StatusCode::Failure,
            format!("Name not allowed: {error}.").into(),
        ),
        Refusal::LinkLoop => (StatusCode::NoSuchFile, "Too many symbolic links.".into()),
        Refusal::OverQuota(QuotaKind::Bytes) => {
            failure("Quota exceeded: not enough bytes left; see df.")
        }
        Refusal::OverQuota(QuotaKind::Files) => {
            failure("Quota exceeded: no more files allowed; see df -i.")
        }
        Refusal::StorageFull => failure("The server's storage is full."),
        Refusal::TooLarge => failure("The file would be larger than files can be here."),
        Refusal::Busy => failure("Another transfer is writing to this file; try again later."),
        Refusal::TooManyOpen => {
            failure("Too many files are open in this home or on the server; close some.")
        }
        Refusal::OffsetBeyondEnd { offset, size } => (
            StatusCode::Failure,
            format!("Offset {offset} is beyond the end at {size}.").into(),
        ),
        Refusal::Unsupported => (
            StatusCode::OpUnsupported,
            "The storage does not support this.".into(),
        ),
        Refusal::Io(_) => failure("The server could not do this; its log says why."),
    };
    status(code, text)
}

fn failure(text: &'static str) -> (StatusCode, Cow<'static, str>) {
    (StatusCode::Failure, text.into())
}

fn status(code: StatusCode, text: Cow<'static, str>) -> Response {
    let message = match text {
        Cow::Borrowed(text) => Bytes::from_static(text.as_bytes()),
        Cow::Owned(text) => Bytes::from(text),
    };
    Response::Status { code, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_the_codes_that_clients_switch_on() {
        let cases = [
            (Refusal::NotFound, StatusCode::NoSuchFile),
            (Refusal::NotADirectory, StatusCode::NoSuchFile),
            (Refusal::NotPermitted, StatusCode::PermissionDenied),
            (Refusal::AlreadyExists, StatusCode::Failure),
            (Refusal::OverQuota(QuotaKind::Bytes), StatusCode::Failure),
            (Refusal::Unsupported, StatusCode::OpUnsupported),
            (
                Refusal::Io(std::io::Error::other("/srv/secret/path")),
                StatusCode::Failure,
            ),
        ];
        for (refusal, expected) in cases {
            let text = refusal.to_string();
            let Response::Status { code, message } = response_to(&refusal.into()) else {
                panic!("a status");
            };
            assert_eq!(code, expected, "{text}");
            assert!(!message.windows(4).any(|part| part == b"/srv"));
        }
    }
}
