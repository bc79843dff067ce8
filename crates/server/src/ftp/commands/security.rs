//! AUTH, PBSZ, PROT and CCC (RFC 4217).

use wharf_accounts::TlsPolicy;
use wharf_proto::ftp::command::ProtectionLevel;
use wharf_proto::ftp::reply::{Reply, ReplyCode};

use crate::ftp::data::DataChannel;
use crate::ftp::session::{Outcome, Session};

impl Session {
    /// Who was logged in is so no more: the login came over a connection that
    /// anybody could write to (RFC 4217 §4, RFC 2228 §3).
    pub(in crate::ftp) fn auth(&mut self) -> Outcome {
        if self.shared.config.tls.is_none() {
            return Reply::new(ReplyCode::NOT_IMPLEMENTED, "TLS is not served here.").into();
        }
        if self.encrypted.is_some() {
            return Reply::new(ReplyCode::BAD_SEQUENCE, "TLS is there already.").into();
        }
        self.reset();
        Outcome::StartTls(Reply::new(
            ReplyCode::SECURITY_ACCEPTED,
            "Start the TLS handshake.",
        ))
    }

    pub(in crate::ftp) fn pbsz(&mut self) -> Outcome {
        let Some(encrypted) = &mut self.encrypted else {
            return auth_first();
        };
        encrypted.buffer_agreed = true;
        Reply::new(ReplyCode::OK, "PBSZ=0").into()
    }

    pub(in crate::ftp) fn prot(&mut self, level: ProtectionLevel) -> Outcome {
        let must_be_private = self.needs_private_data();
        let Some(encrypted) = &mut self.encrypted else {
            return auth_first();
        };
        if !encrypted.buffer_agreed {
            return Reply::new(ReplyCode::BAD_SEQUENCE, "Send PBSZ 0 first.").into();
        }
        let private = match level {
            ProtectionLevel::Private => true,
            ProtectionLevel::Clear if must_be_private => {
                let text = "Data connections must be encrypted; PROT P required.";
                return Reply::new(ReplyCode::DENIED_BY_POLICY, text).into();
            }
            ProtectionLevel::Clear => false,
            ProtectionLevel::Safe | ProtectionLevel::Confidential => {
                let text = "TLS has no such level; send PROT P or PROT C.";
                return Reply::new(ReplyCode::LEVEL_NOT_SUPPORTED, text).into();
            }
        };
        if encrypted.private != private {
            encrypted.private = private;
            // A port that was opened before expects the other kind of connection.
            self.channel = DataChannel::Unset;
        }
        let text = if private {
            "Data connections are encrypted."
        } else {
            "Data connections are not encrypted."
        };
        Reply::new(ReplyCode::OK, text).into()
    }

    /// What passes over the control connection afterwards could be changed on the way.
    pub(in crate::ftp) fn ccc(&self) -> Outcome {
        if self.encrypted.is_none() {
            let text = "The control connection is not encrypted.";
            return Reply::new(ReplyCode::CONTROL_NOT_PROTECTED, text).into();
        }
        let text = "The control connection stays encrypted.";
        Reply::new(ReplyCode::DENIED_BY_POLICY, text).into()
    }

    /// Whether data may go over connections without encryption. A session that
    /// is not encrypted itself has shown its password already.
    pub(in crate::ftp) fn needs_private_data(&self) -> bool {
        let listener = self.shared.config.tls.as_ref();
        let account = self.login().map(|login| login.account.tls);
        listener.is_some_and(|tls| tls.private_data) || account == Some(TlsPolicy::Required)
    }
}

fn auth_first() -> Outcome {
    Reply::new(ReplyCode::BAD_SEQUENCE, "Send AUTH TLS first.").into()
}
