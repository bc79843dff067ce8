//! The one account of a script, with its files in memory and nothing that outlasts it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use futures_util::future::{BoxFuture, ready};
use wharf_accounts::{
    Account, AccountChange, AccountStore, Authenticator, AuthorizedKey, ExecPolicy, KeyFingerprint,
    NewAccount, NewPassword, PasswordHash, PasswordPolicy, PasswordPool, StoreError, StoreResult,
    StoredAccount, StoredUsage, TlsPolicy,
};
use wharf_model::{
    AccountId, AccountName, NetworkSet, PermissionRules, Permissions, QuotaLimits, Secret, Usage,
    VirtualPath,
};
use wharf_server::door::{HomeOpener, HomeUnavailable};
use wharf_vfs::Home;

/// The quota of the account: little enough to be met.
pub(crate) const QUOTA: Usage = Usage {
    bytes: 64 * 1024,
    files: 12,
};

/// A directory in which nothing may be made.
pub(super) const READ_ONLY: &[u8] = b"/r";

/// Every account has this home, as there is one.
pub(super) struct OneHome(pub(super) Arc<Home>);

impl HomeOpener for OneHome {
    fn open<'a>(
        &'a self,
        _account: &'a Account,
    ) -> BoxFuture<'a, Result<Arc<Home>, HomeUnavailable>> {
        Box::pin(ready(Ok(Arc::clone(&self.0))))
    }
}

/// Shared by all scripts, so that each login costs no hash.
pub(super) static AUTHENTICATOR: LazyLock<Authenticator> = LazyLock::new(|| {
    let pool = || PasswordPool::new(PasswordPolicy::insecure_for_tests());
    let password = NewPassword::parse(Secret::new(b"p".to_vec())).expect("acceptable");
    // Not on the runtime of a script, which cannot wait for another.
    let hash = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime
            .expect("a runtime")
            .block_on(pool().hash(password))
            .expect("hashes")
    });
    let store = OneAccount(hash.join().expect("no panic"));
    Authenticator::new(Arc::new(store), pool()).expect("randomness")
});

/// The account `a`, and nothing that could change it.
struct OneAccount(PasswordHash);

impl AccountStore for OneAccount {
    fn find<'a>(&'a self, name: &'a AccountName) -> StoreResult<'a, Option<StoredAccount>> {
        let everything = Permissions::all();
        let read_only = VirtualPath::parse(READ_ONLY).expect("a path");
        let stored = StoredAccount {
            account: Account {
                id: AccountId(1),
                name: name.clone(),
                home: PathBuf::from("/nowhere"),
                quota: QuotaLimits {
                    bytes: Some(QUOTA.bytes),
                    files: Some(QUOTA.files),
                },
                permissions: PermissionRules::new(
                    everything,
                    vec![(read_only, Permissions::READ | Permissions::LIST)],
                ),
                tls: TlsPolicy::Inherit,
                data_tls: TlsPolicy::Inherit,
                exec: ExecPolicy::None,
                disabled: false,
                expires: None,
                max_sessions: None,
                allow_from: NetworkSet::default(),
                deny_from: NetworkSet::default(),
                created: SystemTime::UNIX_EPOCH,
            },
            password: self.0.clone(),
        };
        Box::pin(ready(Ok((name.as_str() == "a").then_some(stored))))
    }

    fn insert<'a>(&'a self, new: NewAccount, _password: PasswordHash) -> StoreResult<'a, Account> {
        refused(&new.name)
    }

    fn some_may_be_plain(&self) -> StoreResult<'_, bool> {
        Box::pin(ready(Ok(false)))
    }

    fn list(&self) -> StoreResult<'_, Vec<Account>> {
        Box::pin(ready(Ok(Vec::new())))
    }

    fn update<'a>(
        &'a self,
        name: &'a AccountName,
        _change: AccountChange,
    ) -> StoreResult<'a, Account> {
        refused(name)
    }

    fn set_password<'a>(
        &'a self,
        name: &'a AccountName,
        _password: PasswordHash,
    ) -> StoreResult<'a, ()> {
        refused(name)
    }

    fn remove<'a>(&'a self, name: &'a AccountName) -> StoreResult<'a, Account> {
        refused(name)
    }

    fn add_key<'a>(&'a self, name: &'a AccountName, _key: AuthorizedKey) -> StoreResult<'a, ()> {
        refused(name)
    }

    fn keys<'a>(&'a self, _name: &'a AccountName) -> StoreResult<'a, Vec<AuthorizedKey>> {
        Box::pin(ready(Ok(Vec::new())))
    }

    fn find_key<'a>(
        &'a self,
        _name: &'a AccountName,
        _fingerprint: KeyFingerprint,
    ) -> StoreResult<'a, Option<AuthorizedKey>> {
        Box::pin(ready(Ok(None)))
    }

    fn remove_key<'a>(
        &'a self,
        _name: &'a AccountName,
        _fingerprint: KeyFingerprint,
    ) -> StoreResult<'a, bool> {
        Box::pin(ready(Ok(false)))
    }

    fn usage<'a>(&'a self, _home: &'a Path) -> StoreResult<'a, Option<StoredUsage>> {
        Box::pin(ready(Ok(None)))
    }

    fn mark_dirty<'a>(&'a self, _home: &'a Path) -> StoreResult<'a, ()> {
        Box::pin(ready(Ok(())))
    }

    fn save_usage<'a>(&'a self, _home: &'a Path, _usage: Usage) -> StoreResult<'a, ()> {
        Box::pin(ready(Ok(())))
    }

    fn dirty_homes(&self) -> StoreResult<'_, Vec<PathBuf>> {
        Box::pin(ready(Ok(Vec::new())))
    }
}

fn refused<T: Send + 'static>(name: &AccountName) -> StoreResult<'static, T> {
    Box::pin(ready(Err(StoreError::NotFound(name.clone()))))
}
