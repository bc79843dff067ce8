//! The only place where a refusal becomes a reply.

use wharf_model::{QuotaKind, Refusal};
use wharf_net::{LimitReached, Refused};
use wharf_proto::ftp::command::CommandError;
use wharf_proto::ftp::reply::{Reply, ReplyCode};

use crate::door::LoginRefused;

/// What the client is told. It names what was wrong and what helps, and
/// nothing of the host; the log has the rest.
pub(crate) fn reply_to(refusal: &Refusal) -> Reply {
    let (code, text) = match refusal {
        Refusal::NotFound => (ReplyCode::UNAVAILABLE, "No such file or directory."),
        Refusal::NotADirectory => (ReplyCode::UNAVAILABLE, "Not a directory."),
        Refusal::IsADirectory => (ReplyCode::UNAVAILABLE, "Is a directory."),
        Refusal::NotAFile => (ReplyCode::UNAVAILABLE, "Not a regular file."),
        Refusal::AlreadyExists => (
            ReplyCode::UNAVAILABLE,
            "Something with this name already exists.",
        ),
        Refusal::NotEmpty => (ReplyCode::UNAVAILABLE, "Directory not empty."),
        Refusal::NotPermitted => (
            ReplyCode::UNAVAILABLE,
            "Permission denied: your account may not do this here.",
        ),
        Refusal::SystemDenied => (
            ReplyCode::UNAVAILABLE,
            "Permission denied by the server's system.",
        ),
        Refusal::InvalidName(error) => {
            return Reply::new(
                ReplyCode::NAME_NOT_ALLOWED,
                format!("Name not allowed: {error}."),
            );
        }
        Refusal::LinkLoop => (ReplyCode::UNAVAILABLE, "Too many symbolic links."),
        Refusal::OverQuota(QuotaKind::Bytes) => (
            ReplyCode::OVER_QUOTA,
            "Quota exceeded: not enough bytes left; see SITE QUOTA.",
        ),
        Refusal::OverQuota(QuotaKind::Files) => (
            ReplyCode::OVER_QUOTA,
            "Quota exceeded: no more files allowed; see SITE QUOTA.",
        ),
        Refusal::StorageFull => (
            ReplyCode::STORAGE_FULL,
            "The server's storage is full; try again later.",
        ),
        Refusal::TooLarge => (
            ReplyCode::UNAVAILABLE,
            "The file would be larger than files can be here.",
        ),
        Refusal::Busy => (
            ReplyCode::FILE_BUSY,
            "Another transfer is writing to this file; try again later.",
        ),
        Refusal::TooManyOpen => (
            ReplyCode::FILE_BUSY,
            "Too many files are open in this home or on the server; try again later.",
        ),
        Refusal::OffsetBeyondEnd { offset, size } => {
            let text = format!("Cannot start at byte {offset}: the file has {size}.");
            return Reply::new(ReplyCode::INVALID_RESTART, text);
        }
        Refusal::Unsupported => (
            ReplyCode::PARAMETER_NOT_IMPLEMENTED,
            "The storage cannot do this.",
        ),
        Refusal::Io(_) => (
            ReplyCode::LOCAL_ERROR,
            "The server could not read or write; try again later.",
        ),
    };
    Reply::new(code, text)
}

/// What the client is told of a line that is no command.
pub(crate) fn reply_to_bad_command(error: &CommandError) -> Reply {
    let code = match error {
        CommandError::UnknownVerb | CommandError::Http => ReplyCode::UNKNOWN_COMMAND,
        CommandError::MissingArgument(_)
        | CommandError::UnexpectedArgument(_)
        | CommandError::InvalidArgument(_) => ReplyCode::INVALID_ARGUMENT,
        CommandError::ParameterNotImplemented(_) => ReplyCode::PARAMETER_NOT_IMPLEMENTED,
        CommandError::Family => ReplyCode::FAMILY_NOT_SUPPORTED,
    };
    let mut text = error.to_string();
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    Reply::new(code, format!("{text}."))
}

/// What a peer is told that is not served at all.
pub(crate) fn reply_to_refused_connection(reason: Refused) -> Reply {
    let text = match reason {
        Refused::Limit(LimitReached::Total) => "Too many connections; try again later.",
        Refused::Limit(LimitReached::PerAddress) => {
            "Too many connections from your address; try again later."
        }
        Refused::Limit(LimitReached::Newcomers) => {
            "Too many connections from your address that have not logged in; try again later."
        }
        Refused::Limit(LimitReached::Rate) => "Connections come too often; try again later.",
        Refused::Access => "Connections from your address are not served.",
        Refused::AccessForNow => BANNED,
    };
    Reply::new(ReplyCode::SERVICE_UNAVAILABLE, text)
}

/// What the client is told of a refused login. A wrong password, an unknown
/// name, a disabled and an expired account read the same, and so does one that needs encryption.
pub(crate) fn reply_to_login(refused: &LoginRefused, could_be_encrypted: bool) -> Reply {
    match refused {
        LoginRefused::NeedsEncryption => Reply::new(
            ReplyCode::NOT_LOGGED_IN,
            "This server takes no password over a connection without encryption; send AUTH TLS first.",
        ),
        LoginRefused::Banned => Reply::new(ReplyCode::SERVICE_UNAVAILABLE, BANNED),
        LoginRefused::Credential { .. } if could_be_encrypted => Reply::new(
            ReplyCode::NOT_LOGGED_IN,
            "Login incorrect; if the account needs TLS, send AUTH TLS first.",
        ),
        LoginRefused::Credential { .. } => Reply::new(ReplyCode::NOT_LOGGED_IN, "Login incorrect."),
        LoginRefused::TooManySessions { limit } => Reply::new(
            ReplyCode::SERVICE_UNAVAILABLE,
            format!("Too many sessions of this account (at most {limit}); try again later."),
        ),
        LoginRefused::Home(_) => Reply::new(
            ReplyCode::SERVICE_UNAVAILABLE,
            "The server cannot open your home; tell its operator.",
        ),
    }
}

/// What a peer reads whose address is banned, at the door and inside.
const BANNED: &str = "Too many failed logins from your address; try again later.";

#[cfg(test)]
mod tests {
    use super::*;
    use wharf_model::PathError;

    #[test]
    fn what_exists_is_told_in_the_words_that_clients_look_for() {
        let reply = reply_to(&Refusal::AlreadyExists);
        assert!(String::from_utf8_lossy(reply.text()).contains("already exists"));
    }

    #[test]
    fn refusals_have_the_codes_that_clients_switch_on() {
        let cases = [
            (Refusal::NotFound, 550),
            (Refusal::OverQuota(QuotaKind::Bytes), 552),
            (Refusal::StorageFull, 452),
            (Refusal::TooLarge, 550),
            (Refusal::Busy, 450),
            (Refusal::TooManyOpen, 450),
            (Refusal::InvalidName(PathError::LineEnd), 553),
            (Refusal::OffsetBeyondEnd { offset: 2, size: 1 }, 554),
            (Refusal::Io(std::io::Error::other("/srv/secret/path")), 451),
        ];
        for (refusal, code) in cases {
            let reply = reply_to(&refusal);
            assert_eq!(reply.code().as_u16(), code, "{refusal}");
            assert!(!String::from_utf8_lossy(reply.text()).contains("/srv"));
        }
    }
}
