//! Passwords and keys (RFC 4252, RFC 4256).

use std::borrow::Cow;
use std::sync::Arc;

use russh::keys::PublicKey;
use russh::server::{Auth, Response};
use wharf_accounts::{Account, KeyFingerprint, KeyOptions};
use wharf_model::Secret;
use wharf_vfs::Vfs;

use super::refusal::Farewell;
use super::session::Session;
use super::transport::methods;
use crate::door::{Approach, Credential, Grant, LoginRefused, Protocol};
use crate::registry::LoginSlot;

/// Wrong passwords after which a session is closed, as with FTP.
const MAX_FAILED_LOGINS: u32 = 3;

/// Requests for a login of one connection, of all kinds together: a full agent offers many keys.
const MAX_ATTEMPTS: u32 = 30;

/// Who is logged in.
pub(super) struct Login {
    pub(super) account: Account,
    pub(super) vfs: Vfs,
    pub(super) key: KeyOptions,
    _slot: LoginSlot,
}

/// How many logins have failed.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    all: u32,
    failed: u32,
}

impl Session {
    pub(super) async fn try_password(&mut self, name: &str, password: &[u8]) -> Auth {
        if self.is_worn_out() {
            return reject();
        }
        let credential = Credential {
            name: name.as_bytes().to_vec(),
            password: Secret::new(password.to_vec()),
        };
        match self.shared.door.login(self.approach(), credential).await {
            Ok(grant) => self.enter(grant, KeyOptions::default(), "password"),
            Err(refused) => {
                refused.log(name.as_bytes());
                self.keep_back(&refused).await;
                self.attempts.failed += 1;
                self.refuse(&refused)
            }
        }
    }

    /// One prompt, as RFC 4256 §3.4 has it for a password.
    pub(super) async fn try_interactive(
        &mut self,
        name: &str,
        response: Option<Response<'_>>,
    ) -> Auth {
        let answer = response.map(|mut answers| answers.next().unwrap_or_default());
        match answer {
            Some(password) => self.try_password(name, &password).await,
            None if self.is_worn_out() => reject(),
            None => Auth::Partial {
                name: Cow::Borrowed(""),
                instructions: Cow::Borrowed(""),
                prompts: Cow::Owned(vec![(Cow::Owned(format!("Password for {name}: ")), false)]),
            },
        }
    }

    /// Whether to go on with a key of which the peer has not shown yet that it is theirs.
    pub(super) async fn try_offer(&mut self, name: &str, key: &PublicKey) -> Auth {
        if self.is_worn_out() {
            return reject();
        }
        let Some(fingerprint) = fingerprint(key) else {
            return reject();
        };
        let door = &self.shared.door;
        let taken = door.takes_key(self.approach(), name.as_bytes(), fingerprint);
        match taken.await {
            Ok(()) => Auth::Accept,
            Err(refused) => {
                if refused.is_unknown_key() {
                    // Most people have several keys, and offer them all.
                    let user = wharf_model::cut_for_display(name.as_bytes());
                    tracing::debug!(user, key = %fingerprint, "key not taken");
                } else {
                    refused.log(name.as_bytes());
                }
                self.refuse(&refused)
            }
        }
    }

    pub(super) async fn try_key(&mut self, name: &str, key: &PublicKey) -> Auth {
        let Some(fingerprint) = fingerprint(key) else {
            return reject();
        };
        let door = &self.shared.door;
        let entered = door.login_by_key(self.approach(), name.as_bytes(), fingerprint);
        match entered.await {
            Ok((grant, options)) => {
                tracing::debug!(key = %fingerprint, "key");
                self.enter(grant, options, "key")
            }
            Err(refused) => {
                refused.log(name.as_bytes());
                self.refuse(&refused)
            }
        }
    }

    fn enter(&mut self, grant: Grant, key: KeyOptions, by: &'static str) -> Auth {
        let Grant { account, vfs, slot } = grant;
        tracing::Span::current().record("user", tracing::field::display(&account.name));
        tracing::info!(by, "logged in");
        self.presence.slot.settle();
        self.link.log_in(&account.name);
        self.login = Some(Arc::new(Login {
            account,
            vfs,
            key,
            _slot: slot,
        }));
        Auth::Accept
    }

    fn refuse(&mut self, refused: &LoginRefused) -> Auth {
        let farewell = Farewell::of(refused).or_else(|| {
            (self.attempts.failed >= MAX_FAILED_LOGINS).then_some(Farewell::TooManyAttempts)
        });
        let Some(farewell) = farewell else {
            return reject();
        };
        self.link.end(farewell);
        if !farewell.comes_behind_the_proof() {
            return reject();
        }
        // A client that is refused says so and goes, before it hears why. One that
        // has proved who it is may hear that; there is nothing that it can do here.
        self.turned_away = Some(farewell);
        Auth::Accept
    }

    /// Waits before a wrong password is answered, as with FTP; not longer than the server or the peer stays.
    async fn keep_back(&self, refused: &LoginRefused) {
        if let LoginRefused::Credential { delay, .. } = refused {
            tokio::select! {
                () = self.presence.drain.begun() => {}
                () = self.link.closed.cancelled() => {}
                () = tokio::time::sleep(*delay) => {}
            }
        }
    }

    /// Counts an attempt; whether there were too many.
    pub(super) fn is_worn_out(&mut self) -> bool {
        self.attempts.all += 1;
        let worn_out =
            self.attempts.all > MAX_ATTEMPTS || self.attempts.failed >= MAX_FAILED_LOGINS;
        if worn_out {
            self.link.end(Farewell::TooManyAttempts);
        }
        worn_out
    }

    fn approach(&self) -> Approach {
        Approach {
            peer: self.link.live.peer(),
            protocol: Protocol::Ssh,
            secure: true,
        }
    }
}

/// Whatever failed, everything may be tried again: what is left out would tell something.
pub(super) fn reject() -> Auth {
    Auth::Reject {
        proceed_with_methods: Some(methods()),
        partial_success: false,
    }
}

fn fingerprint(key: &PublicKey) -> Option<KeyFingerprint> {
    KeyFingerprint::of_wire(&key.to_bytes().ok()?)
}
