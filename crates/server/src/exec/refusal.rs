//! The only place where a refusal becomes what a command says about it: the words of
//! the C library, which scripts and clients look for.

use wharf_model::{PathError, QuotaKind, Refusal};

/// What is written behind `NAME: `.
pub(super) fn text(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::NotFound => "No such file or directory",
        Refusal::NotADirectory => "Not a directory",
        Refusal::IsADirectory => "Is a directory",
        Refusal::NotAFile => "Not a regular file",
        Refusal::AlreadyExists => "File exists",
        Refusal::NotEmpty => "Directory not empty",
        Refusal::NotPermitted | Refusal::SystemDenied => "Permission denied",
        Refusal::InvalidName(error) => path_text(*error),
        Refusal::LinkLoop => "Too many levels of symbolic links",
        Refusal::OverQuota(QuotaKind::Bytes) => "Disk quota exceeded",
        Refusal::OverQuota(QuotaKind::Files) => "Disk quota exceeded (number of files)",
        Refusal::StorageFull => "No space left on device",
        Refusal::TooLarge => "File too large",
        Refusal::Busy => "Another transfer is writing to the file",
        Refusal::TooManyOpen => "Too many open files",
        Refusal::OffsetBeyondEnd { .. } => "Invalid argument",
        Refusal::Unsupported => "Operation not supported",
        Refusal::Io(_) => "Input/output error",
    }
}

/// What is said of bytes that are no path.
pub(super) fn path_text(error: PathError) -> &'static str {
    match error {
        PathError::Nul | PathError::NotAName => "Invalid argument",
        PathError::LineEnd => "Invalid argument (a name cannot hold a line end)",
        PathError::NameTooLong | PathError::PathTooLong => "File name too long",
        PathError::Reserved => "Invalid argument (the server keeps such names for itself)",
    }
}
