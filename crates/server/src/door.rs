//! The one login, for every protocol.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use wharf_accounts::{
    Account, Authenticator, KeyFingerprint, KeyOptions, LoginGuard, LoginRefusal, Origin,
    PlainLogin,
};
use wharf_model::Secret;
use wharf_vfs::{Home, Vfs};

use crate::registry::{LoginSlot, Registry};

/// Opens the homes of accounts; each home once in a process, so that all
/// sessions on it share one ledger.
pub trait HomeOpener: Send + Sync + 'static {
    /// The home of `account`.
    fn open<'a>(
        &'a self,
        account: &'a Account,
    ) -> BoxFuture<'a, Result<Arc<Home>, HomeUnavailable>>;
}

/// A home cannot be opened. For the log; the peer learns that the server has a problem.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the home of account {account:?}")]
pub struct HomeUnavailable {
    /// Whose home.
    pub account: String,
    /// What went wrong.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// A protocol that people log in with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// FTP (RFC 959).
    Ftp,
    /// SSH (RFC 4251).
    Ssh,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ftp => "ftp",
            Self::Ssh => "ssh",
        })
    }
}

/// From where and how a login comes.
#[derive(Debug, Clone, Copy)]
pub struct Approach {
    /// The other end.
    pub peer: SocketAddr,
    /// With which protocol.
    pub protocol: Protocol,
    /// Whether the connection is encrypted.
    pub secure: bool,
}

/// Who somebody claims to be, and the proof.
pub struct Credential {
    /// The account's name, as sent.
    pub name: Vec<u8>,
    /// The password, as sent.
    pub password: Secret<Vec<u8>>,
}

/// A login that succeeded; it counts until it is dropped.
#[derive(Debug)]
pub struct Grant {
    /// Who.
    pub account: Account,
    /// What they can reach.
    pub vfs: Vfs,
    /// Their place in the limit on sessions.
    pub slot: LoginSlot,
}

/// Lets people in.
pub struct Door {
    authenticator: Authenticator,
    guard: LoginGuard,
    homes: Arc<dyn HomeOpener>,
    registry: Registry,
    rules: DoorRules,
}

/// What holds for every login.
#[derive(Debug, Clone, Copy)]
pub struct DoorRules {
    /// From where passwords may come over connections without encryption, for
    /// accounts that have no policy of their own.
    pub plain: PlainLogin,
    /// Most sessions of one account, unless the account says less.
    pub sessions_per_account: usize,
}

impl Door {
    /// A door with its parts.
    pub fn new(
        authenticator: Authenticator,
        guard: LoginGuard,
        homes: Arc<dyn HomeOpener>,
        registry: Registry,
        rules: DoorRules,
    ) -> Self {
        Self {
            authenticator,
            guard,
            homes,
            registry,
            rules,
        }
    }

    /// The sessions behind this door.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Whether a password should be taken at all from there. Where the rule
    /// says no and some account's own policy says yes, it is taken of everybody:
    /// asking for some only would tell their names.
    pub async fn takes_passwords(&self, approach: &Approach) -> bool {
        if approach.secure || self.rules.plain.allows(approach.peer.ip()) {
            return true;
        }
        let some = self.authenticator.some_account_may_be_plain().await;
        some.unwrap_or_else(|error| {
            tracing::error!(%error, "whether an account may log in without encryption is not known");
            false
        })
    }

    /// Lets somebody in, or not. An unknown name takes as long as a wrong
    /// password and gets the same answer. Dropping the future is safe.
    ///
    /// # Errors
    /// [`LoginRefused`].
    pub async fn login(
        &self,
        approach: Approach,
        credential: Credential,
    ) -> Result<Grant, LoginRefused> {
        if !self.takes_passwords(&approach).await {
            return Err(LoginRefused::NeedsEncryption);
        }
        let account = self.verify(&approach, &credential).await?;
        self.admit(account, &approach).await
    }

    /// Lets somebody in whose certificate, verified by TLS, opens the account `name`.
    /// Dropping the future is safe.
    ///
    /// # Errors
    /// [`LoginRefused`].
    pub async fn login_by_certificate(
        &self,
        approach: Approach,
        name: &[u8],
    ) -> Result<Grant, LoginRefused> {
        let found = self.authenticator.find(name, approach.peer.ip());
        let account = self.unless_banned(&approach, found).await?;
        self.admit(account, &approach).await
    }

    /// Lets somebody in who has proved that a key of this fingerprint is
    /// theirs, if it opens the account `name`; with what holds for the key.
    /// Dropping the future is safe.
    ///
    /// # Errors
    /// [`LoginRefused`].
    pub async fn login_by_key(
        &self,
        approach: Approach,
        name: &[u8],
        key: KeyFingerprint,
    ) -> Result<(Grant, KeyOptions), LoginRefused> {
        let (account, options) = self.find_by_key(&approach, name, key).await?;
        Ok((self.admit(account, &approach).await?, options))
    }

    /// Whether [`Door::login_by_key`] would find an account, for somebody who
    /// asks before they prove that the key is theirs.
    ///
    /// # Errors
    /// [`LoginRefused`].
    pub async fn takes_key(
        &self,
        approach: Approach,
        name: &[u8],
        key: KeyFingerprint,
    ) -> Result<(), LoginRefused> {
        self.find_by_key(&approach, name, key).await.map(|_| ())
    }

    async fn find_by_key(
        &self,
        approach: &Approach,
        name: &[u8],
        key: KeyFingerprint,
    ) -> Result<(Account, KeyOptions), LoginRefused> {
        let found = self
            .authenticator
            .find_by_key(name, key, approach.peer.ip());
        self.unless_banned(approach, found).await
    }

    /// What was found out about somebody who has a proof other than a
    /// password. No guess, whatever comes of it: such a proof cannot be guessed.
    async fn unless_banned<T>(
        &self,
        approach: &Approach,
        found: impl Future<Output = Result<T, LoginRefusal>>,
    ) -> Result<T, LoginRefused> {
        if self.guard.is_banned(approach.peer.ip()) {
            return Err(LoginRefused::Banned);
        }
        found.await.map_err(|reason| LoginRefused::Credential {
            reason,
            delay: Duration::ZERO,
        })
    }

    /// What every login passes once it is known who it is.
    async fn admit(&self, account: Account, approach: &Approach) -> Result<Grant, LoginRefused> {
        self.guard
            .succeeded(approach.peer.ip(), account.name.as_str().as_bytes());
        let limit = account
            .max_sessions
            .map_or(usize::MAX, |limit| {
                usize::try_from(limit).unwrap_or(usize::MAX)
            })
            .min(self.rules.sessions_per_account);
        let slot = self
            .registry
            .log_in(account.id, limit)
            .ok_or(LoginRefused::TooManySessions { limit })?;
        let home = self.homes.open(&account).await?;
        let vfs = Vfs::new(home, account.permissions.clone(), account.quota);
        Ok(Grant { account, vfs, slot })
    }

    async fn verify(
        &self,
        approach: &Approach,
        credential: &Credential,
    ) -> Result<Account, LoginRefused> {
        let Credential { name, password } = credential;
        let address = approach.peer.ip();
        let origin = Origin {
            address,
            plain: (!approach.secure).then_some(self.rules.plain),
        };
        if self.guard.is_banned(address) {
            return Err(LoginRefused::Banned);
        }
        let verified = self.authenticator.verify(name, password, origin).await;
        // Guesses that were under way when the ban came learn nothing from it.
        if self.guard.is_banned(address) {
            return Err(LoginRefused::Banned);
        }
        verified.map_err(|reason| {
            let delay = if reason.is_failed_login() {
                self.guard.failed(address, name)
            } else {
                Duration::ZERO
            };
            LoginRefused::Credential { reason, delay }
        })
    }
}

/// Why a login was refused.
#[derive(Debug, thiserror::Error)]
pub enum LoginRefused {
    /// The connection must be encrypted first.
    #[error("a password was not taken over a connection without encryption")]
    NeedsEncryption,
    /// The credential does not open an account.
    #[error("the credential was refused")]
    Credential {
        /// Which part, for the log only.
        #[source]
        reason: LoginRefusal,
        /// How long the answer is to be kept back. It is not waited for here,
        /// since the session must hear meanwhile that the server stops.
        delay: Duration,
    },
    /// Too many logins from the peer's network have failed.
    #[error("the address is banned for failed logins")]
    Banned,
    /// The account has as many sessions as it may.
    #[error("the account has {limit} sessions already")]
    TooManySessions {
        /// How many it may have.
        limit: usize,
    },
    /// The server cannot reach what it needs.
    #[error("the home is unavailable")]
    Home(#[from] HomeUnavailable),
}

impl LoginRefused {
    /// Whether a key was offered that opens nothing.
    pub(crate) fn is_unknown_key(&self) -> bool {
        matches!(
            self,
            Self::Credential {
                reason: LoginRefusal::UnknownKey,
                ..
            }
        )
    }

    /// Writes into the log who was refused and why, of which the peer learns less.
    pub(crate) fn log(&self, name: &[u8]) {
        let user = wharf_model::cut_for_display(name);
        let first = std::error::Error::source(self);
        let reasons = std::iter::successors(first, |reason| reason.source());
        let reason: Vec<String> = reasons.map(ToString::to_string).collect();
        let reason = (!reason.is_empty()).then(|| reason.join(": "));
        let reason = reason.as_deref();
        tracing::warn!(user, error = %self, reason, "login refused");
    }
}
