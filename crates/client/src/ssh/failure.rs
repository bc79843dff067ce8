//! From what SSH meets to an error that says what to do about it.

use russh::Error;

use crate::error::ClientError;

impl From<Error> for ClientError {
    fn from(error: Error) -> Self {
        match error {
            Error::IO(source) => Self::Connection(source),
            Error::NoCommonAlgo { kind, ours, theirs } => Self::KeyExchange(format!(
                "the server has no {kind:?} algorithm that this client takes: it has {}, and this client {}",
                theirs.join(", "),
                ours.join(", ")
            )),
            Error::Disconnect
            | Error::HUP
            | Error::SendError
            | Error::RecvError
            | Error::ChannelOpenFailure(_) => Self::Closed(None),
            Error::Kex
            | Error::KexInit
            | Error::UnknownAlgo
            | Error::PacketAuth
            | Error::DecryptionError
            | Error::WrongServerSig
            | Error::StrictKeyExchangeViolation { .. }
            | Error::Signature(_) => Self::KeyExchange(error.to_string()),
            Error::Version => Self::Protocol("it does not speak SSH 2".to_owned()),
            other => Self::Protocol(other.to_string()),
        }
    }
}
