//! What keeps accounts between runs.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use futures_util::future::BoxFuture;
use wharf_model::{AccountName, Usage};

use crate::account::{Account, AccountChange, NewAccount};
use crate::key::{AuthorizedKey, KeyFingerprint, MAX_KEYS};
use crate::password::PasswordHash;
use crate::throttle::{Ban, PeerNetwork};

/// What a store operation returns.
pub type StoreResult<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// An account with its password's hash, as only the authenticator needs it.
#[derive(Debug, Clone)]
pub struct StoredAccount {
    /// The account.
    pub account: Account,
    /// Its password's hash.
    pub password: PasswordHash,
}

/// How much a home held when it was last counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredUsage {
    /// The numbers.
    pub usage: Usage,
    /// Something may have changed since, so they are not to be trusted.
    pub dirty: bool,
}

/// Keeps accounts, and the usage of their homes.
pub trait AccountStore: Send + Sync + 'static {
    /// Adds an account. Its home is dirty, unless another account has it already.
    fn insert<'a>(&'a self, new: NewAccount, password: PasswordHash) -> StoreResult<'a, Account>;

    /// The account called `name`.
    fn find<'a>(&'a self, name: &'a AccountName) -> StoreResult<'a, Option<StoredAccount>>;

    /// Whether an account's own TLS policy lets it log in without encryption.
    fn some_may_be_plain(&self) -> StoreResult<'_, bool>;

    /// Every account, by name.
    fn list(&self) -> StoreResult<'_, Vec<Account>>;

    /// Changes fields of an account and returns it as it is then.
    fn update<'a>(
        &'a self,
        name: &'a AccountName,
        change: AccountChange,
    ) -> StoreResult<'a, Account>;

    /// Gives an account another password.
    fn set_password<'a>(
        &'a self,
        name: &'a AccountName,
        password: PasswordHash,
    ) -> StoreResult<'a, ()>;

    /// Forgets an account and returns what it was; its files are not touched.
    fn remove<'a>(&'a self, name: &'a AccountName) -> StoreResult<'a, Account>;

    /// Adds a public key that opens the account; one that it has already is
    /// replaced, with its options and its comment.
    fn add_key<'a>(&'a self, name: &'a AccountName, key: AuthorizedKey) -> StoreResult<'a, ()>;

    /// The public keys that open the account, by fingerprint.
    fn keys<'a>(&'a self, name: &'a AccountName) -> StoreResult<'a, Vec<AuthorizedKey>>;

    /// The key with this fingerprint, if it opens the account; `None` too where
    /// there is no such account, after the same single question to the store.
    fn find_key<'a>(
        &'a self,
        name: &'a AccountName,
        fingerprint: KeyFingerprint,
    ) -> StoreResult<'a, Option<AuthorizedKey>>;

    /// Forgets a key of the account; whether it had it.
    fn remove_key<'a>(
        &'a self,
        name: &'a AccountName,
        fingerprint: KeyFingerprint,
    ) -> StoreResult<'a, bool>;

    /// What a home held when it was last counted; `None` for one that no account has.
    fn usage<'a>(&'a self, home: &'a Path) -> StoreResult<'a, Option<StoredUsage>>;

    /// Notes, durably, that a home is about to change.
    fn mark_dirty<'a>(&'a self, home: &'a Path) -> StoreResult<'a, ()>;

    /// Stores what a home holds and that this is to be trusted.
    fn save_usage<'a>(&'a self, home: &'a Path, usage: Usage) -> StoreResult<'a, ()>;

    /// The homes whose usage is not to be trusted.
    fn dirty_homes(&self) -> StoreResult<'_, Vec<PathBuf>>;
}

/// Keeps bans.
pub trait BanStore: Send + Sync + 'static {
    /// Stores bans, each in the place of an earlier one of the same network,
    /// and forgets those that do not matter any more at `now`.
    fn save_bans<'a>(&'a self, bans: &'a [Ban], now: SystemTime) -> StoreResult<'a, ()>;

    /// Every ban, those that are over and not forgotten included; by network.
    fn bans(&self) -> StoreResult<'_, Vec<Ban>>;

    /// Forgets a ban; whether there was one.
    fn remove_ban(&self, network: PeerNetwork) -> StoreResult<'_, bool>;
}

/// Why a store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// An account of that name exists.
    #[error("an account named {0} exists already")]
    NameTaken(AccountName),
    /// No account of that name exists.
    #[error("no account is named {0}")]
    NotFound(AccountName),
    /// An account has as many public keys as it may.
    #[error("account {0} has {MAX_KEYS} keys already; remove one first")]
    TooManyKeys(AccountName),
    /// A home that is no UTF-8.
    #[error("the path of the home is not valid UTF-8")]
    HomeNotUtf8,
    /// Something in the store is not of the form that it is written in.
    #[error("the account database holds an invalid {what} for account {account}")]
    Corrupt {
        /// Which field.
        what: &'static str,
        /// Whose.
        account: String,
    },
    /// The database failed.
    #[error("the account database failed")]
    Database(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(Box::new(error))
    }
}
