//! The words and codes for what is refused; nowhere else are there any.

use russh::{ChannelOpenFailure, Disconnect};
use wharf_net::Refused;

use crate::door::LoginRefused;

/// Why the server ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Farewell {
    LoginTimeout,
    Idle,
    Stopping,
    Kicked,
    TooManyAttempts,
    Banned,
    TooManySessions,
    NotNow,
    PastWindows,
}

impl Farewell {
    /// What ends the connection at once, of what refuses a login.
    pub(super) fn of(refused: &LoginRefused) -> Option<Self> {
        match refused {
            LoginRefused::Banned => Some(Self::Banned),
            LoginRefused::TooManySessions { .. } => Some(Self::TooManySessions),
            LoginRefused::Home(_) => Some(Self::NotNow),
            LoginRefused::NeedsEncryption | LoginRefused::Credential { .. } => None,
        }
    }

    /// Whether only those hear it who have proved who they are. They may know that they have.
    pub(super) fn comes_behind_the_proof(self) -> bool {
        match self {
            Self::TooManySessions | Self::NotNow => true,
            Self::LoginTimeout
            | Self::Idle
            | Self::Stopping
            | Self::Kicked
            | Self::TooManyAttempts
            | Self::Banned
            | Self::PastWindows => false,
        }
    }

    /// The code and the text of SSH_MSG_DISCONNECT (RFC 4253 §11.1).
    pub(super) fn message(self) -> (Disconnect, &'static str) {
        match self {
            Self::LoginTimeout => (Disconnect::ByApplication, "You took too long to log in."),
            Self::Idle => (Disconnect::ByApplication, "Nothing happened for too long."),
            Self::Stopping => (Disconnect::ByApplication, "The server is stopping."),
            Self::Kicked => (
                Disconnect::ByApplication,
                "The session was ended by an operator.",
            ),
            Self::TooManyAttempts => (
                Disconnect::NoMoreAuthMethodsAvailable,
                "Too many failed logins.",
            ),
            Self::Banned => (
                Disconnect::HostNotAllowedToConnect,
                "Too many failed logins from your network; try again later.",
            ),
            Self::TooManySessions => (
                Disconnect::TooManyConnections,
                "This account has as many sessions as it may.",
            ),
            Self::NotNow => (
                Disconnect::ServiceNotAvailable,
                "The server has a problem; try again later.",
            ),
            Self::PastWindows => (
                Disconnect::ProtocolError,
                "You sent more than the windows of the channels allow.",
            ),
        }
    }
}

/// What a peer reads that is refused before it could say anything (RFC 4253 §4.2:
/// lines before the version, which clients show).
pub(super) fn line_to_refused_connection(reason: Refused) -> &'static [u8] {
    match reason {
        Refused::Access => b"Connections from your network are not served here.\r\n",
        Refused::AccessForNow => b"Too many failed logins from your network; try again later.\r\n",
        Refused::Limit(_) => b"Too many connections; try again later.\r\n",
    }
}

/// Why a channel is not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChannelRefusal {
    Forwarding,
    TooMany,
    WornOut,
    Stopping,
    TurnedAway(Farewell),
}

impl ChannelRefusal {
    pub(super) fn reason(self) -> ChannelOpenFailure {
        const PROHIBITED: u32 = 1;
        const SHORTAGE: u32 = 4;
        let (code, reason) = match self {
            Self::Forwarding => (PROHIBITED, "nothing is forwarded here"),
            Self::TooMany => (SHORTAGE, "this connection has as many channels as it may"),
            Self::WornOut => (
                SHORTAGE,
                "this connection has opened as many channels as it may; connect again",
            ),
            Self::Stopping => (PROHIBITED, "the server is stopping"),
            Self::TurnedAway(farewell) => (PROHIBITED, farewell.message().1),
        };
        ChannelOpenFailure::Other {
            code,
            reason: reason.to_owned(),
        }
    }
}
