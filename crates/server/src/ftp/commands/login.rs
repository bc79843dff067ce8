//! USER, PASS and REIN.

use wharf_model::Secret;
use wharf_proto::ftp::reply::{Reply, ReplyCode};

use crate::door::{Credential, Grant, LoginRefused};
use crate::ftp::refusal::reply_to_login;
use crate::ftp::session::{Login, Outcome, Phase, Session};

/// Wrong passwords after which a session is closed; vsftpd's and pyftpdlib's number.
const MAX_FAILED_LOGINS: u32 = 3;

impl Session {
    /// Any name is asked for its password: which names exist is nobody's business.
    /// Whose certificate opens the account needs no password (RFC 4217 §5.1, 232).
    pub(in crate::ftp) async fn user(&mut self, name: Vec<u8>) -> Outcome {
        if self.login().is_some() {
            return Reply::new(
                ReplyCode::BAD_SEQUENCE,
                "Already logged in; send REIN to change the user.",
            )
            .into();
        }
        if !self.shared.door.takes_passwords(&self.approach()).await {
            // Before the password is on the wire.
            return self.reply_to_login(&LoginRefused::NeedsEncryption).into();
        }
        let opens = self.encrypted.as_ref().and_then(|tls| tls.opens.as_ref());
        if opens.is_some_and(|account| account.as_bytes() == name) {
            let door = &self.shared.door;
            match door.login_by_certificate(self.approach(), &name).await {
                Ok(grant) => return self.enter(grant, ReplyCode::LOGGED_IN_BY_CERTIFICATE),
                Err(refused) => {
                    refused.log(&name);
                    if matches!(refused, LoginRefused::Banned) {
                        return self.refuse(&refused);
                    }
                }
            }
        }
        self.phase = Phase::ExpectPassword(name);
        Reply::new(ReplyCode::NEED_PASSWORD, "Password, please.").into()
    }

    pub(in crate::ftp) async fn pass(&mut self, password: Secret<Vec<u8>>) -> Outcome {
        if self.login().is_some() {
            return Reply::new(ReplyCode::BAD_SEQUENCE, "Already logged in.").into();
        }
        let Phase::ExpectPassword(name) = std::mem::replace(&mut self.phase, Phase::ExpectUser)
        else {
            return Reply::new(ReplyCode::BAD_SEQUENCE, "Send USER first.").into();
        };
        let credential = Credential {
            name: name.clone(),
            password,
        };
        match self.shared.door.login(self.approach(), credential).await {
            Ok(grant) => self.enter(grant, ReplyCode::LOGGED_IN),
            Err(refused) => {
                refused.log(&name);
                self.keep_back(&refused).await;
                self.refuse(&refused)
            }
        }
    }

    fn enter(&mut self, grant: Grant, code: ReplyCode) -> Outcome {
        let name = &grant.account.name;
        tracing::Span::current().record("user", tracing::field::display(name));
        let tls = self.encrypted.as_ref().filter(|tls| !tls.control_cleared);
        let tls = tls.map_or("none", |tls| &*tls.description);
        let by = match code {
            ReplyCode::LOGGED_IN_BY_CERTIFICATE => "certificate",
            _ => "password",
        };
        tracing::info!(tls, by, "logged in");
        self.presence.slot.settle();
        self.presence.live.set_account(Some(name));
        let text = format!("Welcome, {name}.");
        self.phase = Phase::LoggedIn(Box::new(Login::from(grant)));
        Reply::new(code, text).into()
    }

    /// Waits before a wrong password is answered: no lock and no thread that
    /// hashes waits with it, and a server that stops does not either.
    async fn keep_back(&self, refused: &LoginRefused) {
        if let LoginRefused::Credential { delay, .. } = refused {
            tokio::select! {
                () = self.presence.drain.begun() => {}
                () = tokio::time::sleep(*delay) => {}
            }
        }
    }

    /// Over a connection that could be encrypted, every refusal says that this may
    /// help: to say so of some would tell which password was right.
    fn reply_to_login(&self, refused: &LoginRefused) -> Reply {
        let could_be_encrypted = self.encrypted.is_none() && self.shared.config.tls.is_some();
        reply_to_login(refused, could_be_encrypted)
    }

    fn refuse(&mut self, refused: &LoginRefused) -> Outcome {
        let reply = self.reply_to_login(refused);
        self.failed_logins += 1;
        let closes = matches!(
            refused,
            LoginRefused::Banned | LoginRefused::TooManySessions { .. } | LoginRefused::Home(_)
        );
        if closes || self.failed_logins >= MAX_FAILED_LOGINS {
            return Outcome::Close(reply);
        }
        reply.into()
    }

    pub(in crate::ftp) fn rein(&mut self) -> Outcome {
        self.reset();
        Reply::new(ReplyCode::READY, "Ready for another user.").into()
    }
}
