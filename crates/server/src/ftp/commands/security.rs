//! AUTH, PBSZ, PROT and CCC (RFC 4217).

use wharf_accounts::TlsPolicy;
use wharf_proto::ftp::command::ProtectionLevel;
use wharf_proto::ftp::reply::{Reply, ReplyCode};

use crate::ftp::DataPrivacy;
use crate::ftp::data::DataChannel;
use crate::ftp::session::{Outcome, Session};

impl Session {
    /// Who was logged in is so no more: the login came over a connection that
    /// anybody could write to (RFC 4217 §4, RFC 2228 §3).
    pub(in crate::ftp) fn auth(&mut self) -> Outcome {
        if self.shared.config.tls.is_none() {
            return Reply::new(ReplyCode::NOT_IMPLEMENTED, "TLS is not served here.").into();
        }
        match &self.encrypted {
            None => {}
            Some(tls) if tls.control_cleared => return after_ccc(),
            Some(_) => {
                return Reply::new(ReplyCode::BAD_SEQUENCE, "TLS is there already.").into();
            }
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
        if encrypted.control_cleared {
            return after_ccc();
        }
        encrypted.buffer_agreed = true;
        Reply::new(ReplyCode::OK, "PBSZ=0").into()
    }

    pub(in crate::ftp) fn prot(&mut self, level: ProtectionLevel) -> Outcome {
        let must_be_private = self.needs_private_data();
        let data = self.shared.config.tls.as_ref().map(|tls| tls.data);
        let Some(encrypted) = &mut self.encrypted else {
            return auth_first();
        };
        if encrypted.control_cleared {
            return after_ccc();
        }
        if !encrypted.buffer_agreed {
            return Reply::new(ReplyCode::BAD_SEQUENCE, "Send PBSZ 0 first.").into();
        }
        let private = match level {
            ProtectionLevel::Private if data == Some(DataPrivacy::Off) && !must_be_private => {
                let text = "Data connections are not encrypted here.";
                return Reply::new(ReplyCode::DENIED_BY_POLICY, text).into();
            }
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

    /// Lets a client go on in the clear, for the sake of address translation that reads
    /// PASV and PORT (RFC 4217 §6), where the operator allows it. What passes over the
    /// control connection afterwards could be changed on the way; the password has passed by then.
    pub(in crate::ftp) fn ccc(&self) -> Outcome {
        if !self.control_is_encrypted() {
            let text = "The control connection is not encrypted.";
            return Reply::new(ReplyCode::CONTROL_NOT_PROTECTED, text).into();
        }
        let tls = self.shared.config.tls.as_ref();
        if !tls.is_some_and(|tls| tls.may_clear_control) {
            let text = "The control connection stays encrypted.";
            return Reply::new(ReplyCode::DENIED_BY_POLICY, text).into();
        }
        let Some(login) = self.login() else {
            let text = "Log in first; the password is for the encrypted connection.";
            return Reply::new(ReplyCode::NOT_LOGGED_IN, text).into();
        };
        if login.account.tls == TlsPolicy::Required {
            let text = "This account's control connection stays encrypted.";
            return Reply::new(ReplyCode::DENIED_BY_POLICY, text).into();
        }
        Outcome::EndTls(Reply::new(
            ReplyCode::OK,
            "The control connection goes on without encryption.",
        ))
    }

    /// Whether data connections must be encrypted: what the account says, else
    /// what the listener does. Before the login nobody knows which account it will be.
    pub(in crate::ftp) fn needs_private_data(&self) -> bool {
        let listener = self.shared.config.tls.as_ref().is_some_and(|tls| {
            let is_local = self.peer_address().to_canonical().is_loopback();
            let is_exempt = tls.plain_on_loopback && is_local && self.encrypted.is_none();
            tls.data == DataPrivacy::Required && !is_exempt
        });
        let login = self.login();
        login.map_or(listener, |login| login.account.needs_private_data(listener))
    }
}

fn auth_first() -> Outcome {
    Reply::new(ReplyCode::BAD_SEQUENCE, "Send AUTH TLS first.").into()
}

/// Who writes on a connection in the clear may be anybody: not for them to say what protects data.
fn after_ccc() -> Outcome {
    let text = "CCC has ended the encryption; connect anew for another.";
    Reply::new(ReplyCode::BAD_SEQUENCE, text).into()
}
