//! Who is who: a name and a password against the store.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use wharf_model::{AccountId, AccountName, Secret};

use crate::account::Account;
use crate::password::{PasswordError, PasswordHash, PasswordPolicy, PasswordPool, random};
use crate::store::{AccountStore, StoreError, StoredAccount};

/// How long a password that was right is remembered, so that a device that
/// polls does not cost a hash each time.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);

/// Most passwords remembered at one time.
const MAX_REMEMBERED: usize = 10_000;

/// Verifies logins. Cheap to clone.
#[derive(Clone)]
pub struct Authenticator(Arc<Inner>);

struct Inner {
    store: Arc<dyn AccountStore>,
    pool: PasswordPool,
    /// What the password of an unknown name is checked against.
    decoy: PasswordHash,
    /// Known to this process only, so that a memory dump of another is of no use.
    key: [u8; 32],
    recent: Mutex<HashMap<Mac, Recent>>,
}

/// Stands for an account, its stored hash and a password, under the process's key.
type Mac = [u8; 32];

/// A check that is under way or has succeeded. Whoever comes with the same
/// password meanwhile waits on the lock instead of hashing as well.
struct Recent {
    gate: Arc<tokio::sync::Mutex<bool>>,
    since: Instant,
}

impl Authenticator {
    /// Verifies against `store`; `policy` is what a check of an unknown name costs.
    ///
    /// # Errors
    /// [`PasswordError::Failed`] when the system has no randomness.
    pub fn new(
        store: Arc<dyn AccountStore>,
        policy: PasswordPolicy,
    ) -> Result<Self, PasswordError> {
        let pool = PasswordPool::new(policy);
        let decoy = PasswordHash::unmatchable(pool.policy())?;
        Ok(Self(Arc::new(Inner {
            store,
            pool,
            decoy,
            key: random()?,
            recent: Mutex::default(),
        })))
    }

    /// The account that `name` and `password` open. Dropping the future is safe.
    ///
    /// # Errors
    /// [`LoginRefusal`]. An unknown name takes as long as a wrong password.
    pub async fn verify(
        &self,
        name: &[u8],
        password: &Secret<Vec<u8>>,
    ) -> Result<Account, LoginRefusal> {
        let Some(stored) = self.look_up(name).await? else {
            self.0.pool.verify(password.clone(), &self.0.decoy).await?;
            return Err(LoginRefusal::UnknownAccount);
        };
        if !self.matches(&stored, password).await? {
            return Err(LoginRefusal::WrongPassword);
        }
        admissible(stored.account)
    }

    /// The account `name`, for somebody who has proved by other means than a
    /// password that it is theirs. Dropping the future is safe.
    ///
    /// # Errors
    /// [`LoginRefusal`].
    pub async fn find(&self, name: &[u8]) -> Result<Account, LoginRefusal> {
        let stored = self.look_up(name).await?;
        admissible(stored.ok_or(LoginRefusal::UnknownAccount)?.account)
    }

    async fn look_up(&self, name: &[u8]) -> Result<Option<StoredAccount>, StoreError> {
        let name = std::str::from_utf8(name)
            .ok()
            .and_then(|name| name.parse::<AccountName>().ok());
        match name {
            Some(name) => self.0.store.find(&name).await,
            None => Ok(None),
        }
    }

    /// The stored hash is part of what is remembered, so that a changed
    /// password is forgotten at once.
    async fn matches(
        &self,
        stored: &StoredAccount,
        password: &Secret<Vec<u8>>,
    ) -> Result<bool, PasswordError> {
        let mac = self.mac(stored.account.id, &stored.password, password);
        let gate = self.gate(mac);
        let mut right = gate.lock().await;
        if !*right {
            *right = self
                .0
                .pool
                .verify(password.clone(), &stored.password)
                .await?;
        }
        if !*right {
            self.recent().remove(&mac);
        }
        Ok(*right)
    }

    fn mac(&self, account: AccountId, hash: &PasswordHash, password: &Secret<Vec<u8>>) -> Mac {
        let mut mac = blake3::Hasher::new_keyed(&self.0.key);
        mac.update(&account.0.to_le_bytes());
        mac.update(
            &u64::try_from(hash.as_str().len())
                .unwrap_or(0)
                .to_le_bytes(),
        );
        mac.update(hash.as_str().as_bytes());
        mac.update(password.expose());
        *mac.finalize().as_bytes()
    }

    fn gate(&self, mac: Mac) -> Arc<tokio::sync::Mutex<bool>> {
        let now = Instant::now();
        let mut recent = self.recent();
        if recent.len() >= MAX_REMEMBERED {
            recent.retain(|_, check| now.duration_since(check.since) < REMEMBERED_FOR);
        }
        if recent.len() >= MAX_REMEMBERED {
            // Under a flood of guesses nothing more is remembered.
            return Arc::default();
        }
        let check = recent.entry(mac).or_insert_with(|| Recent {
            gate: Arc::default(),
            since: now,
        });
        if now.duration_since(check.since) >= REMEMBERED_FOR {
            *check = Recent {
                gate: Arc::default(),
                since: now,
            };
        }
        Arc::clone(&check.gate)
    }

    fn recent(&self) -> std::sync::MutexGuard<'_, HashMap<Mac, Recent>> {
        self.0.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The account, unless it may not be used now.
fn admissible(account: Account) -> Result<Account, LoginRefusal> {
    if account.disabled {
        return Err(LoginRefusal::Disabled);
    }
    if account.is_expired(SystemTime::now()) {
        return Err(LoginRefusal::Expired);
    }
    Ok(account)
}

/// Why a login was refused. For the log only: every variant reads the same to the peer.
#[derive(Debug, thiserror::Error)]
pub enum LoginRefusal {
    /// No account has that name.
    #[error("no such account")]
    UnknownAccount,
    /// The password is another.
    #[error("wrong password")]
    WrongPassword,
    /// The operator has disabled the account.
    #[error("the account is disabled")]
    Disabled,
    /// The account's time is over.
    #[error("the account has expired")]
    Expired,
    /// The password could not be checked.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The store could not be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AccountChange, NewAccount, NewPassword, SqliteStore};

    fn password(text: &str) -> Secret<Vec<u8>> {
        Secret::new(text.as_bytes().to_vec())
    }

    async fn setting() -> (
        tempfile::TempDir,
        Arc<SqliteStore>,
        Authenticator,
        AccountName,
    ) {
        let directory = tempfile::tempdir().expect("a directory");
        let store = SqliteStore::open(&directory.path().join("wharf.db"))
            .await
            .expect("opens");
        let store = Arc::new(store);
        let name: AccountName = "alice".parse().expect("a name");
        let new = NewAccount::new(name.clone(), "/srv/alice".into(), SystemTime::UNIX_EPOCH);
        store
            .insert(new, hash("right").await)
            .await
            .expect("inserts");
        let shared: Arc<dyn AccountStore> = store.clone();
        let authenticator =
            Authenticator::new(shared, PasswordPolicy::insecure_for_tests()).expect("random");
        (directory, store, authenticator, name)
    }

    async fn hash(text: &str) -> PasswordHash {
        let pool = PasswordPool::new(PasswordPolicy::insecure_for_tests());
        let new = NewPassword::parse(password(text)).expect("acceptable");
        pool.hash(new).await.expect("hashes")
    }

    #[tokio::test]
    async fn only_the_right_password_of_an_open_account_gets_in() {
        let (_directory, store, authenticator, name) = setting().await;
        assert!(
            authenticator
                .verify(b"alice", &password("right"))
                .await
                .is_ok()
        );
        for (user, text) in [
            ("alice", "wrong"),
            ("alice", ""),
            ("bob", "right"),
            ("al/ice", "right"),
            ("", ""),
        ] {
            assert!(
                authenticator
                    .verify(user.as_bytes(), &password(text))
                    .await
                    .is_err(),
                "{user} {text}"
            );
        }
        let disable = AccountChange {
            disabled: Some(true),
            ..AccountChange::default()
        };
        store.update(&name, disable).await.expect("updates");
        let refused = authenticator.verify(b"alice", &password("right")).await;
        assert!(matches!(refused, Err(LoginRefusal::Disabled)));
        let expire = AccountChange {
            disabled: Some(false),
            expires: Some(Some(SystemTime::UNIX_EPOCH)),
            ..AccountChange::default()
        };
        store.update(&name, expire).await.expect("updates");
        let refused = authenticator.verify(b"alice", &password("right")).await;
        assert!(matches!(refused, Err(LoginRefusal::Expired)));
    }

    #[tokio::test]
    async fn a_changed_password_is_forgotten_at_once() {
        let (_directory, store, authenticator, name) = setting().await;
        assert!(
            authenticator
                .verify(b"alice", &password("right"))
                .await
                .is_ok()
        );
        store
            .set_password(&name, hash("other").await)
            .await
            .expect("updates");
        assert!(
            authenticator
                .verify(b"alice", &password("right"))
                .await
                .is_err()
        );
        assert!(
            authenticator
                .verify(b"alice", &password("other"))
                .await
                .is_ok()
        );
    }

    #[tokio::test]
    async fn a_right_password_is_remembered_and_a_wrong_one_is_not() {
        let (_directory, _store, authenticator, _name) = setting().await;
        for _ in 0..3 {
            assert!(
                authenticator
                    .verify(b"alice", &password("right"))
                    .await
                    .is_ok()
            );
            assert!(
                authenticator
                    .verify(b"alice", &password("wrong"))
                    .await
                    .is_err()
            );
        }
        assert_eq!(authenticator.recent().len(), 1);
    }
}
