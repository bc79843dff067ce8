//! Who is who: a name and a password against the store.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use wharf_model::{AccountName, Secret};

use crate::account::{Account, PlainLogin};
use crate::key::{KeyFingerprint, KeyOptions};
use crate::password::{PasswordError, PasswordHash, PasswordPool, random};
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
    hashed: AtomicU64,
}

/// Stands for a name, its stored hash and a password, under the process's key.
type Mac = [u8; 32];

/// From where somebody comes, and how.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    /// The other end's address.
    pub address: IpAddr,
    /// What the listener says of logins over connections that are not encrypted,
    /// where this one is not.
    pub plain: Option<PlainLogin>,
}

/// Over an encrypted connection.
impl From<IpAddr> for Origin {
    fn from(address: IpAddr) -> Self {
        Self {
            address,
            plain: None,
        }
    }
}

/// A check that is under way or has succeeded. Whoever comes with the same
/// password meanwhile waits on the lock instead of hashing as well.
struct Recent {
    gate: Arc<tokio::sync::Mutex<bool>>,
    since: Instant,
}

impl Authenticator {
    /// Verifies against `store`, in `pool`, whose policy is what a check of an unknown name costs.
    ///
    /// # Errors
    /// [`PasswordError::Failed`] when the system has no randomness.
    pub fn new(store: Arc<dyn AccountStore>, pool: PasswordPool) -> Result<Self, PasswordError> {
        let decoy = PasswordHash::unmatchable(pool.policy())?;
        Ok(Self(Arc::new(Inner {
            store,
            pool,
            decoy,
            key: random()?,
            recent: Mutex::default(),
            hashed: AtomicU64::new(0),
        })))
    }

    /// The account that `name` and `password` open for a peer that comes from `origin`.
    /// Dropping the future is safe.
    ///
    /// # Errors
    /// [`LoginRefusal`]. Each takes as long as a wrong password: where the
    /// password does not matter, it is compared with one that matches nothing.
    pub async fn verify(
        &self,
        name: &[u8],
        password: &Secret<Vec<u8>>,
        origin: impl Into<Origin>,
    ) -> Result<Account, LoginRefusal> {
        let origin = origin.into();
        let stored = match self.look_up(name).await? {
            Some(stored) => may_be_used(&stored.account, origin).map(|()| stored),
            None => Err(LoginRefusal::UnknownAccount),
        };
        let hash = stored
            .as_ref()
            .map_or(&self.0.decoy, |stored| &stored.password);
        let right = self.matches(name, hash, password).await?;
        let stored = stored?;
        right
            .then_some(stored.account)
            .ok_or(LoginRefusal::WrongPassword)
    }

    /// The account `name`, for somebody at `address` who has proved by other
    /// means than a password that it is theirs. Dropping the future is safe.
    ///
    /// # Errors
    /// [`LoginRefusal`].
    pub async fn find(&self, name: &[u8], address: IpAddr) -> Result<Account, LoginRefusal> {
        let stored = self.look_up(name).await?;
        let account = stored.ok_or(LoginRefusal::UnknownAccount)?.account;
        may_be_used(&account, address.into()).map(|()| account)
    }

    /// The account `name` for somebody at `address` who has a key of this
    /// fingerprint, and what holds for them. That the key is theirs is proved elsewhere.
    /// Dropping the future is safe.
    ///
    /// # Errors
    /// [`LoginRefusal`]. One question to the store tells a key that opens the
    /// account from all else: names that do not exist are not told from those
    /// that do by somebody without a key.
    pub async fn find_by_key(
        &self,
        name: &[u8],
        fingerprint: KeyFingerprint,
        address: IpAddr,
    ) -> Result<(Account, KeyOptions), LoginRefusal> {
        let key = match parse_name(name) {
            Some(name) => self.0.store.find_key(&name, fingerprint).await?,
            None => None,
        };
        let options = key.ok_or(LoginRefusal::UnknownKey)?.options().clone();
        let account = self.find(name, address).await?;
        if !options.allows(address) {
            return Err(LoginRefusal::NotFromHere);
        }
        Ok((account, options))
    }

    /// Whether there is an account whose own policy lets it log in without
    /// encryption. Dropping the future is safe.
    ///
    /// # Errors
    /// The store could not be asked.
    pub async fn some_account_may_be_plain(&self) -> Result<bool, StoreError> {
        self.0.store.some_may_be_plain().await
    }

    /// How many passwords have been hashed so far, to compare them.
    pub fn hashed(&self) -> u64 {
        self.0.hashed.load(Ordering::Relaxed)
    }

    async fn look_up(&self, name: &[u8]) -> Result<Option<StoredAccount>, StoreError> {
        match parse_name(name) {
            Some(name) => self.0.store.find(&name).await,
            None => Ok(None),
        }
    }

    /// The stored hash is part of what is remembered, so that a changed
    /// password is forgotten at once.
    async fn matches(
        &self,
        name: &[u8],
        hash: &PasswordHash,
        password: &Secret<Vec<u8>>,
    ) -> Result<bool, PasswordError> {
        let mac = self.mac(name, hash, password);
        let gate = self.gate(mac);
        let mut right = gate.lock().await;
        if !*right {
            self.0.hashed.fetch_add(1, Ordering::Relaxed);
            *right = self.0.pool.verify(password.clone(), hash).await?;
        }
        if !*right {
            self.recent().remove(&mac);
        }
        Ok(*right)
    }

    fn mac(&self, name: &[u8], hash: &PasswordHash, password: &Secret<Vec<u8>>) -> Mac {
        let mut mac = blake3::Hasher::new_keyed(&self.0.key);
        for part in [name, hash.as_str().as_bytes(), password.expose()] {
            // The length first, so that no two lists of parts read the same.
            mac.update(&u64::try_from(part.len()).unwrap_or(0).to_le_bytes());
            mac.update(part);
        }
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

fn parse_name(name: &[u8]) -> Option<AccountName> {
    std::str::from_utf8(name).ok()?.parse().ok()
}

/// Whether `account` may be used now, from `origin`, whatever its password.
fn may_be_used(account: &Account, origin: Origin) -> Result<(), LoginRefusal> {
    if account.disabled {
        return Err(LoginRefusal::Disabled);
    }
    if account.is_expired(SystemTime::now()) {
        return Err(LoginRefusal::Expired);
    }
    if !account.allows(origin.address) {
        return Err(LoginRefusal::NotFromHere);
    }
    let is_too_plain = |listener| !account.tls.plain_login(listener).allows(origin.address);
    if origin.plain.is_some_and(is_too_plain) {
        return Err(LoginRefusal::NeedsEncryption);
    }
    Ok(())
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
    /// The key opens no account of that name, or there is none.
    #[error("no such key for that name")]
    UnknownKey,
    /// The operator has disabled the account.
    #[error("the account is disabled")]
    Disabled,
    /// The account's time is over.
    #[error("the account has expired")]
    Expired,
    /// The account may not be used from the peer's address.
    #[error("the account or the key may not be used from this address")]
    NotFromHere,
    /// The account may not be used over a connection without encryption.
    #[error("the account needs an encrypted connection")]
    NeedsEncryption,
    /// The password could not be checked.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The store could not be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl LoginRefusal {
    /// Whether the peer is to blame, rather than this server. Right passwords
    /// of accounts that cannot be used count too, or their number would tell.
    pub fn is_failed_login(&self) -> bool {
        match self {
            Self::UnknownAccount
            | Self::WrongPassword
            | Self::Disabled
            | Self::Expired
            | Self::NotFromHere
            | Self::NeedsEncryption => true,
            // Who has several keys offers them all; a key cannot be guessed.
            Self::UnknownKey | Self::Password(_) | Self::Store(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        AccountChange, AuthorizedKey, NewAccount, NewPassword, PasswordPolicy, SqliteStore,
    };

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

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
        let pool = PasswordPool::new(PasswordPolicy::insecure_for_tests());
        let authenticator = Authenticator::new(shared, pool).expect("random");
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
                .verify(b"alice", &password("right"), HERE)
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
                    .verify(user.as_bytes(), &password(text), HERE)
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
        let refused = authenticator
            .verify(b"alice", &password("right"), HERE)
            .await;
        assert!(matches!(refused, Err(LoginRefusal::Disabled)));
        let expire = AccountChange {
            disabled: Some(false),
            expires: Some(Some(SystemTime::UNIX_EPOCH)),
            ..AccountChange::default()
        };
        store.update(&name, expire).await.expect("updates");
        let refused = authenticator
            .verify(b"alice", &password("right"), HERE)
            .await;
        assert!(matches!(refused, Err(LoginRefusal::Expired)));
    }

    #[tokio::test]
    async fn a_changed_password_is_forgotten_at_once() {
        let (_directory, store, authenticator, name) = setting().await;
        assert!(
            authenticator
                .verify(b"alice", &password("right"), HERE)
                .await
                .is_ok()
        );
        store
            .set_password(&name, hash("other").await)
            .await
            .expect("updates");
        assert!(
            authenticator
                .verify(b"alice", &password("right"), HERE)
                .await
                .is_err()
        );
        assert!(
            authenticator
                .verify(b"alice", &password("other"), HERE)
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
                    .verify(b"alice", &password("right"), HERE)
                    .await
                    .is_ok()
            );
            assert!(
                authenticator
                    .verify(b"alice", &password("wrong"), HERE)
                    .await
                    .is_err()
            );
        }
        assert_eq!(authenticator.recent().len(), 1);
    }

    #[tokio::test]
    async fn three_hundred_logins_at_once_cost_one_hash_and_a_changed_password_is_checked_anew() {
        let (directory, store, authenticator, name) = setting().await;
        let all_at_once = async |count: usize| {
            let logins: Vec<_> = (0..count)
                .map(|_| {
                    let authenticator = authenticator.clone();
                    tokio::spawn(async move {
                        let right = password("right");
                        authenticator.verify(b"alice", &right, HERE).await.is_ok()
                    })
                })
                .collect();
            let mut opened = 0;
            for login in logins {
                opened += usize::from(login.await.expect("no panic"));
            }
            opened
        };
        assert_eq!(all_at_once(300).await, 300);
        assert_eq!(authenticator.hashed(), 1);

        // Another process changes the password.
        let other = SqliteStore::open(&directory.path().join("wharf.db"))
            .await
            .expect("opens");
        other
            .set_password(&name, hash("new").await)
            .await
            .expect("updates");
        assert_eq!(all_at_once(1).await, 0);
        assert_eq!(authenticator.hashed(), 2);
        let new = password("new");
        assert!(authenticator.verify(b"alice", &new, HERE).await.is_ok());
        assert!(authenticator.verify(b"alice", &new, HERE).await.is_ok());
        assert_eq!(authenticator.hashed(), 3);
        // And back: what was remembered of the first hash does not open this one.
        store
            .set_password(&name, hash("right").await)
            .await
            .expect("updates");
        assert_eq!(all_at_once(300).await, 300);
        assert_eq!(authenticator.hashed(), 4);
    }

    #[tokio::test]
    async fn every_refusal_costs_one_hash_whether_the_password_was_right_or_not() {
        let (_directory, store, authenticator, name) = setting().await;
        let cost = async |user: &str, text: &str| {
            let before = authenticator.hashed();
            let result = authenticator
                .verify(user.as_bytes(), &password(text), HERE)
                .await;
            assert!(result.is_err(), "{user} {text}");
            authenticator.hashed() - before
        };
        // Twice, since what is remembered would be cheaper the second time.
        for user in ["alice", "alice", "nobody", "nobody", "no/name", "no/name"] {
            assert_eq!(cost(user, "wrong").await, 1, "{user}");
        }
        for change in [
            AccountChange {
                disabled: Some(true),
                ..AccountChange::default()
            },
            AccountChange {
                disabled: Some(false),
                expires: Some(Some(SystemTime::UNIX_EPOCH)),
                ..AccountChange::default()
            },
            AccountChange {
                expires: Some(None),
                allow_from: Some("192.0.2.128/25".parse().expect("a network")),
                ..AccountChange::default()
            },
        ] {
            store.update(&name, change).await.expect("updates");
            assert_eq!(cost("alice", "right").await, 1);
            assert_eq!(cost("alice", "right").await, 1);
        }
    }

    #[tokio::test]
    async fn an_account_opens_from_its_networks_only() {
        let (_directory, store, authenticator, name) = setting().await;
        let networks = AccountChange {
            allow_from: Some("192.0.2.0/24,2001:db8::/32".parse().expect("networks")),
            ..AccountChange::default()
        };
        store.update(&name, networks).await.expect("updates");
        for (text, opens) in [
            ("192.0.2.9", true),
            ("::ffff:192.0.2.9", true),
            ("2001:db8::9", true),
            ("198.51.100.1", false),
            ("127.0.0.1", false),
        ] {
            let address: IpAddr = text.parse().expect("an address");
            let right = password("right");
            match authenticator.verify(b"alice", &right, address).await {
                Ok(_) => assert!(opens, "{text}"),
                Err(refusal) => {
                    assert!(!opens, "{text}");
                    assert!(matches!(refusal, LoginRefusal::NotFromHere), "{refusal}");
                }
            }
        }
    }

    #[tokio::test]
    async fn a_key_opens_its_account_where_the_account_and_the_key_may_be_used() {
        let (_directory, store, authenticator, name) = setting().await;
        let line = |number: u8| {
            let key = ssh_key::public::Ed25519PublicKey([number; 32]);
            ssh_key::PublicKey::from(key).to_openssh().expect("encodes")
        };
        let key = |line: &str| line.parse::<AuthorizedKey>().expect("a key");
        let (anywhere, elsewhere) = (line(1), format!("from=\"198.51.100.0/24\" {}", line(2)));
        for line in [&anywhere, &elsewhere] {
            store.add_key(&name, key(line)).await.expect("adds");
        }
        let refusal = async |user: &str, line: &str| {
            let fingerprint = key(line).fingerprint();
            let found = authenticator.find_by_key(user.as_bytes(), fingerprint, HERE);
            found.await.err().map(|refusal| refusal.to_string())
        };
        assert_eq!(refusal("alice", &anywhere).await, None);
        let unknown = Some("no such key for that name".to_owned());
        assert_eq!(refusal("alice", &line(3)).await, unknown);
        assert_eq!(refusal("bob", &anywhere).await, unknown);
        assert_eq!(refusal("no/name", &anywhere).await, unknown);
        let not_from_here = LoginRefusal::NotFromHere.to_string();
        assert_eq!(refusal("alice", &elsewhere).await, Some(not_from_here));
        let disable = AccountChange {
            disabled: Some(true),
            ..AccountChange::default()
        };
        store.update(&name, disable).await.expect("updates");
        let disabled = LoginRefusal::Disabled.to_string();
        assert_eq!(refusal("alice", &anywhere).await, Some(disabled));
    }
}
