//! Accounts in an SQLite database.
//!
//! The server and the command line use one file at the same time: write-ahead
//! logging lets readers go on while one writes, and a writer waits for another
//! for a while before it gives up. Every transaction is on the disk before it
//! is reported, since a home's dirty mark must not be lost with the power.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{Connection as _, Row as _, SqliteConnection, SqlitePool};
use tokio::sync::Mutex;
use wharf_model::{
    AccountId, AccountName, PermissionRules, Permissions, QuotaLimits, Usage, VirtualPath,
};

use crate::account::{Account, AccountChange, NewAccount, unix_seconds};
use crate::key::{AuthorizedKey, KeyFingerprint, MAX_KEYS};
use crate::password::PasswordHash;
use crate::store::{AccountStore, BanStore, StoreError, StoreResult, StoredAccount, StoredUsage};
use crate::throttle::{Ban, MAX_BANS, PeerNetwork};

/// How long a writer waits for another.
const BUSY_PATIENCE: Duration = Duration::from_secs(10);

/// How long a connection is kept for look-ups, as long as the pool keeps one that is idle: should
/// somebody put another file in the place of this, logins find it as all else does.
const KEPT_FOR: Duration = Duration::from_secs(10 * 60);

/// Connections at one time; SQLite has one writer anyway.
const MAX_CONNECTIONS: u32 = 4;

/// A row for each permission rule of an account; one without, where it has none.
const SELECT: &str = "SELECT id, name, password_hash, home, quota_bytes, quota_files, accounts.permissions, tls, exec, \
                      disabled, expires, max_sessions, created, allow_from, data_tls, deny_from, \
                      permission_rules.path AS rule_path, permission_rules.permissions AS rule_permissions \
                      FROM accounts LEFT JOIN permission_rules ON account_id = id";

/// Accounts in one database file. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    pool: SqlitePool,
    /// What logins look accounts up with. The pool has each connection of its own answer before and
    /// after each use, on that connection's thread, which takes longer than the question.
    lookups: Arc<Mutex<Option<Kept>>>,
}

/// A connection, and since when it is open.
#[derive(Debug)]
struct Kept {
    connection: SqliteConnection,
    opened: Instant,
}

impl SqliteStore {
    /// Opens the database at `path`, made if it is missing, and brings its tables up to date.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_PATIENCE)
            // A confined server has no folder for temporary files.
            .pragma("temp_store", "MEMORY");
        let pool = SqlitePoolOptions::new()
            .max_connections(MAX_CONNECTIONS)
            .connect_with(options)
            .await?;
        sqlx::migrate!()
            .run(&pool)
            .await
            .map_err(|error| StoreError::Database(Box::new(error)))?;
        Ok(Self {
            pool,
            lookups: Arc::default(),
        })
    }

    /// Waits for what is under way and closes the file.
    pub async fn close(&self) {
        // Locked to the end, so that nobody opens another meanwhile.
        let mut lookups = self.lookups.lock().await;
        if let Some(kept) = lookups.take() {
            // What it is asked does not change anything that could be lost.
            let _ = kept.connection.close().await;
        }
        self.pool.close().await;
    }

    async fn require(&self, name: &AccountName) -> Result<StoredAccount, StoreError> {
        self.find(name)
            .await?
            .ok_or_else(|| StoreError::NotFound(name.clone()))
    }
}

/// The account of the first of `rows`, and how many of them are its own.
fn read(rows: &[SqliteRow]) -> Result<Option<(StoredAccount, usize)>, StoreError> {
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let name: String = row.try_get("name")?;
    let corrupt = |what| StoreError::Corrupt {
        what,
        account: name.clone(),
    };
    let id: i64 = row.try_get("id")?;
    let text = |column: &str| row.try_get::<String, _>(column);
    let everywhere = text("permissions")?
        .parse()
        .map_err(|_| corrupt("permission"))?;
    let (rules, own) = rules(rows, id, &name)?;
    let account = Account {
        id: AccountId(id),
        name: AccountName::from_str(&name).map_err(|_| corrupt("name"))?,
        home: PathBuf::from(text("home")?),
        quota: QuotaLimits {
            bytes: unsigned(row.try_get("quota_bytes")?),
            files: unsigned(row.try_get("quota_files")?),
        },
        permissions: PermissionRules::new(everywhere, rules),
        tls: text("tls")?.parse().map_err(|_| corrupt("TLS policy"))?,
        data_tls: text("data_tls")?
            .parse()
            .map_err(|_| corrupt("TLS policy"))?,
        exec: text("exec")?.parse().map_err(|_| corrupt("exec policy"))?,
        disabled: row.try_get("disabled")?,
        expires: row.try_get::<Option<i64>, _>("expires")?.map(moment),
        max_sessions: row
            .try_get::<Option<i64>, _>("max_sessions")?
            .and_then(|limit| u32::try_from(limit).ok()),
        created: moment(row.try_get("created")?),
        // What cannot be read must not read as "everywhere".
        allow_from: text("allow_from")?
            .parse()
            .map_err(|_| corrupt("list of networks"))?,
        deny_from: text("deny_from")?
            .parse()
            .map_err(|_| corrupt("list of networks"))?,
    };
    let password = text("password_hash")?
        .parse()
        .map_err(|_| corrupt("password hash"))?;
    Ok(Some((StoredAccount { account, password }, own)))
}

/// The permission rules of the account `id`, in the first of `rows`.
fn rules(
    rows: &[SqliteRow],
    id: i64,
    name: &str,
) -> Result<(Vec<(VirtualPath, Permissions)>, usize), StoreError> {
    let corrupt = || StoreError::Corrupt {
        what: "permission rule",
        account: name.to_owned(),
    };
    let (mut rules, mut own) = (Vec::new(), 0);
    for row in rows {
        if row.try_get::<i64, _>("id")? != id {
            break;
        }
        own += 1;
        let Some(path) = row.try_get::<Option<Vec<u8>>, _>("rule_path")? else {
            continue;
        };
        let path = VirtualPath::parse(&path).map_err(|_| corrupt())?;
        let permissions = row.try_get::<String, _>("rule_permissions")?;
        rules.push((path, permissions.parse().map_err(|_| corrupt())?));
    }
    Ok((rules, own))
}

impl AccountStore for SqliteStore {
    fn insert<'a>(&'a self, new: NewAccount, password: PasswordHash) -> StoreResult<'a, Account> {
        Box::pin(async move {
            let name = new.name.clone();
            let mut account = Account::new(AccountId(0), new);
            let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
            let home = home_text(&account.home)?;
            sqlx::query("INSERT INTO homes (path) VALUES (?) ON CONFLICT DO NOTHING")
                .bind(home)
                .execute(&mut *transaction)
                .await?;
            let inserted = sqlx::query(
                "INSERT INTO accounts (name, password_hash, home, quota_bytes, quota_files, permissions, tls, exec, \
                 disabled, expires, max_sessions, created, allow_from, data_tls, deny_from) \
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(account.name.as_str())
            .bind(password.as_str())
            .bind(home)
            .bind(account.quota.bytes.map(signed))
            .bind(account.quota.files.map(signed))
            .bind(account.permissions.everywhere().to_string())
            .bind(account.tls.to_string())
            .bind(account.exec.to_string())
            .bind(account.disabled)
            .bind(account.expires.map(|time| signed(unix_seconds(time))))
            .bind(account.max_sessions)
            .bind(signed(unix_seconds(account.created)))
            .bind(account.allow_from.to_string())
            .bind(account.data_tls.to_string())
            .bind(account.deny_from.to_string())
            .execute(&mut *transaction)
            .await
            .map_err(|error| match &error {
                sqlx::Error::Database(database) if database.is_unique_violation() => StoreError::NameTaken(name),
                _ => error.into(),
            })?;
            account.id = AccountId(inserted.last_insert_rowid());
            write_rules(&mut transaction, &account).await?;
            transaction.commit().await?;
            Ok(account)
        })
    }

    fn find<'a>(&'a self, name: &'a AccountName) -> StoreResult<'a, Option<StoredAccount>> {
        Box::pin(async move {
            let mut lookups = self.lookups.lock().await;
            // Taken, so that it is closed if this fails or is dropped.
            let mut kept = match lookups.take() {
                Some(kept) if kept.opened.elapsed() < KEPT_FOR => kept,
                _ if self.pool.is_closed() => return Err(sqlx::Error::PoolClosed.into()),
                _ => Kept {
                    connection: SqliteConnection::connect_with(&self.pool.connect_options())
                        .await?,
                    opened: Instant::now(),
                },
            };
            let rows = sqlx::query(sqlx::AssertSqlSafe(format!("{SELECT} WHERE name = ?")))
                .bind(name.as_str())
                .fetch_all(&mut kept.connection)
                .await?;
            *lookups = Some(kept);
            drop(lookups);
            Ok(read(&rows)?.map(|(account, _)| account))
        })
    }

    fn some_may_be_plain(&self) -> StoreResult<'_, bool> {
        Box::pin(async move {
            let found = sqlx::query_scalar(
                "SELECT EXISTS (SELECT 1 FROM accounts WHERE tls IN ('optional', 'off') AND NOT disabled)",
            )
            .fetch_one(&self.pool)
            .await?;
            Ok(found)
        })
    }

    fn list(&self) -> StoreResult<'_, Vec<Account>> {
        Box::pin(async move {
            let rows = sqlx::query(sqlx::AssertSqlSafe(format!("{SELECT} ORDER BY name")))
                .fetch_all(&self.pool)
                .await?;
            let (mut accounts, mut rest) = (Vec::new(), rows.as_slice());
            while let Some((stored, own)) = read(rest)? {
                accounts.push(stored.account);
                rest = rest.get(own..).unwrap_or_default();
            }
            Ok(accounts)
        })
    }

    fn update<'a>(
        &'a self,
        name: &'a AccountName,
        change: AccountChange,
    ) -> StoreResult<'a, Account> {
        Box::pin(async move {
            let mut account = self.require(name).await?.account;
            account.apply(change);
            let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
            let home = home_text(&account.home)?;
            sqlx::query("INSERT INTO homes (path) VALUES (?) ON CONFLICT DO NOTHING")
                .bind(home)
                .execute(&mut *transaction)
                .await?;
            sqlx::query(
                "UPDATE accounts SET home = ?, quota_bytes = ?, quota_files = ?, permissions = ?, tls = ?, exec = ?, \
                 disabled = ?, expires = ?, max_sessions = ?, allow_from = ?, data_tls = ?, deny_from = ? WHERE id = ?",
            )
            .bind(home)
            .bind(account.quota.bytes.map(signed))
            .bind(account.quota.files.map(signed))
            .bind(account.permissions.everywhere().to_string())
            .bind(account.tls.to_string())
            .bind(account.exec.to_string())
            .bind(account.disabled)
            .bind(account.expires.map(|time| signed(unix_seconds(time))))
            .bind(account.max_sessions)
            .bind(account.allow_from.to_string())
            .bind(account.data_tls.to_string())
            .bind(account.deny_from.to_string())
            .bind(account.id.0)
            .execute(&mut *transaction)
            .await?;
            write_rules(&mut transaction, &account).await?;
            forget_unused_homes(&mut transaction).await?;
            transaction.commit().await?;
            Ok(account)
        })
    }

    fn set_password<'a>(
        &'a self,
        name: &'a AccountName,
        password: PasswordHash,
    ) -> StoreResult<'a, ()> {
        Box::pin(async move {
            let changed = sqlx::query("UPDATE accounts SET password_hash = ? WHERE name = ?")
                .bind(password.as_str())
                .bind(name.as_str())
                .execute(&self.pool)
                .await?;
            match changed.rows_affected() {
                0 => Err(StoreError::NotFound(name.clone())),
                _ => Ok(()),
            }
        })
    }

    fn remove<'a>(&'a self, name: &'a AccountName) -> StoreResult<'a, Account> {
        Box::pin(async move {
            let account = self.require(name).await?.account;
            let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
            sqlx::query("DELETE FROM accounts WHERE id = ?")
                .bind(account.id.0)
                .execute(&mut *transaction)
                .await?;
            forget_unused_homes(&mut transaction).await?;
            transaction.commit().await?;
            Ok(account)
        })
    }

    fn add_key<'a>(&'a self, name: &'a AccountName, key: AuthorizedKey) -> StoreResult<'a, ()> {
        Box::pin(async move {
            let account = self.require(name).await?.account;
            let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
            sqlx::query(
                "INSERT OR REPLACE INTO account_keys (account_id, fingerprint, line) VALUES (?, ?, ?)",
            )
            .bind(account.id.0)
            .bind(key.fingerprint().to_string())
            .bind(key.to_string())
            .execute(&mut *transaction)
            .await?;
            let keys: i64 =
                sqlx::query_scalar("SELECT COUNT(*) FROM account_keys WHERE account_id = ?")
                    .bind(account.id.0)
                    .fetch_one(&mut *transaction)
                    .await?;
            if unsigned(Some(keys)).is_none_or(|keys| keys > MAX_KEYS as u64) {
                return Err(StoreError::TooManyKeys(name.clone()));
            }
            transaction.commit().await?;
            Ok(())
        })
    }

    fn keys<'a>(&'a self, name: &'a AccountName) -> StoreResult<'a, Vec<AuthorizedKey>> {
        Box::pin(async move {
            let account = self.require(name).await?.account;
            let lines: Vec<String> = sqlx::query_scalar(
                "SELECT line FROM account_keys WHERE account_id = ? ORDER BY fingerprint",
            )
            .bind(account.id.0)
            .fetch_all(&self.pool)
            .await?;
            lines.iter().map(|line| parse_key(line, name)).collect()
        })
    }

    fn find_key<'a>(
        &'a self,
        name: &'a AccountName,
        fingerprint: KeyFingerprint,
    ) -> StoreResult<'a, Option<AuthorizedKey>> {
        Box::pin(async move {
            let line: Option<String> = sqlx::query_scalar(
                "SELECT line FROM account_keys JOIN accounts ON id = account_id \
                 WHERE name = ? AND fingerprint = ?",
            )
            .bind(name.as_str())
            .bind(fingerprint.to_string())
            .fetch_optional(&self.pool)
            .await?;
            line.map(|line| parse_key(&line, name)).transpose()
        })
    }

    fn remove_key<'a>(
        &'a self,
        name: &'a AccountName,
        fingerprint: KeyFingerprint,
    ) -> StoreResult<'a, bool> {
        Box::pin(async move {
            let account = self.require(name).await?.account;
            let removed =
                sqlx::query("DELETE FROM account_keys WHERE account_id = ? AND fingerprint = ?")
                    .bind(account.id.0)
                    .bind(fingerprint.to_string())
                    .execute(&self.pool)
                    .await?;
            Ok(removed.rows_affected() > 0)
        })
    }

    fn usage<'a>(&'a self, home: &'a Path) -> StoreResult<'a, Option<StoredUsage>> {
        Box::pin(async move {
            let row = sqlx::query("SELECT bytes, files, dirty FROM homes WHERE path = ?")
                .bind(home_text(home)?)
                .fetch_optional(&self.pool)
                .await?;
            let Some(row) = row else { return Ok(None) };
            let usage = Usage {
                bytes: unsigned(row.try_get("bytes")?).unwrap_or(0),
                files: unsigned(row.try_get("files")?).unwrap_or(0),
            };
            let dirty = row.try_get("dirty")?;
            Ok(Some(StoredUsage { usage, dirty }))
        })
    }

    fn mark_dirty<'a>(&'a self, home: &'a Path) -> StoreResult<'a, ()> {
        Box::pin(async move {
            sqlx::query("UPDATE homes SET dirty = 1 WHERE path = ?")
                .bind(home_text(home)?)
                .execute(&self.pool)
                .await?;
            Ok(())
        })
    }

    fn save_usage<'a>(&'a self, home: &'a Path, usage: Usage) -> StoreResult<'a, ()> {
        Box::pin(async move {
            sqlx::query("UPDATE homes SET bytes = ?, files = ?, dirty = 0 WHERE path = ?")
                .bind(signed(usage.bytes))
                .bind(signed(usage.files))
                .bind(home_text(home)?)
                .execute(&self.pool)
                .await?;
            Ok(())
        })
    }

    fn dirty_homes(&self) -> StoreResult<'_, Vec<PathBuf>> {
        Box::pin(async move {
            let rows = sqlx::query("SELECT path FROM homes WHERE dirty = 1")
                .fetch_all(&self.pool)
                .await?;
            rows.iter()
                .map(|row| Ok(PathBuf::from(row.try_get::<String, _>("path")?)))
                .collect()
        })
    }
}

impl BanStore for SqliteStore {
    fn save_bans<'a>(&'a self, bans: &'a [Ban], now: SystemTime) -> StoreResult<'a, ()> {
        Box::pin(async move {
            let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
            sqlx::query("DELETE FROM bans WHERE forget <= ?")
                .bind(signed(unix_seconds(now)))
                .execute(&mut *transaction)
                .await?;
            for ban in bans {
                sqlx::query("INSERT OR REPLACE INTO bans (network, times, ends, forget) VALUES (?, ?, ?, ?)")
                    .bind(ban.network.to_string())
                    .bind(ban.times)
                    .bind(signed(unix_seconds(ban.until)))
                    .bind(signed(unix_seconds(ban.forgotten_at())))
                    .execute(&mut *transaction)
                    .await?;
            }
            // Beyond the bound those that end first go first, as in memory.
            sqlx::query(
                "DELETE FROM bans WHERE network IN \
                 (SELECT network FROM bans ORDER BY ends DESC LIMIT -1 OFFSET ?)",
            )
            .bind(i64::try_from(MAX_BANS).unwrap_or(i64::MAX))
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await?;
            Ok(())
        })
    }

    fn bans(&self) -> StoreResult<'_, Vec<Ban>> {
        Box::pin(async move {
            let rows = sqlx::query("SELECT network, times, ends FROM bans ORDER BY network")
                .fetch_all(&self.pool)
                .await?;
            let mut bans = Vec::with_capacity(rows.len());
            for row in &rows {
                let network: String = row.try_get("network")?;
                // A row that nobody can read bans nobody, and keeps no other from being read.
                if let Ok(network) = network.parse() {
                    bans.push(Ban {
                        network,
                        times: row.try_get("times")?,
                        until: moment(row.try_get("ends")?),
                    });
                }
            }
            Ok(bans)
        })
    }

    fn remove_ban(&self, network: PeerNetwork) -> StoreResult<'_, bool> {
        Box::pin(async move {
            let removed = sqlx::query("DELETE FROM bans WHERE network = ?")
                .bind(network.to_string())
                .execute(&self.pool)
                .await?;
            Ok(removed.rows_affected() > 0)
        })
    }
}

type Transaction<'a> = sqlx::Transaction<'a, sqlx::Sqlite>;

async fn write_rules(
    transaction: &mut Transaction<'_>,
    account: &Account,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM permission_rules WHERE account_id = ?")
        .bind(account.id.0)
        .execute(&mut **transaction)
        .await?;
    for (path, permissions) in account.permissions.exceptions() {
        sqlx::query("INSERT OR REPLACE INTO permission_rules (account_id, path, permissions) VALUES (?, ?, ?)")
            .bind(account.id.0)
            .bind(path.as_bytes())
            .bind(permissions.to_string())
            .execute(&mut **transaction)
            .await?;
    }
    Ok(())
}

async fn forget_unused_homes(transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM homes WHERE path NOT IN (SELECT home FROM accounts)")
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// What cannot be read must not read as a key without restrictions.
fn parse_key(line: &str, name: &AccountName) -> Result<AuthorizedKey, StoreError> {
    line.parse().map_err(|_| StoreError::Corrupt {
        what: "public key",
        account: name.to_string(),
    })
}

fn home_text(home: &Path) -> Result<&str, StoreError> {
    home.to_str().ok_or(StoreError::HomeNotUtf8)
}

/// SQLite has signed numbers only; a limit beyond them is none that a disk could pass.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(value: Option<i64>) -> Option<u64> {
    value.and_then(|value| u64::try_from(value).ok())
}

fn moment(seconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ExecPolicy, PasswordPolicy, TlsPolicy};

    async fn store() -> (tempfile::TempDir, SqliteStore) {
        let directory = tempfile::tempdir().expect("a directory");
        let store = SqliteStore::open(&directory.path().join("wharf.db"))
            .await
            .expect("opens");
        (directory, store)
    }

    fn new_account(name: &str, home: &str) -> NewAccount {
        let name = name.parse().expect("a name");
        NewAccount::new(
            name,
            PathBuf::from(home),
            SystemTime::UNIX_EPOCH + Duration::from_secs(1),
        )
    }

    fn hash() -> PasswordHash {
        PasswordHash::unmatchable(&PasswordPolicy::insecure_for_tests()).expect("random")
    }

    #[tokio::test]
    async fn a_store_that_was_closed_looks_nothing_up() {
        let (_directory, store) = store().await;
        let name = "alice".parse().expect("a name");
        let closing = async {
            for _ in 0..2 {
                assert!(store.find(&name).await.expect("asked").is_none());
            }
            let ((), late) = tokio::join!(store.close(), store.find(&name));
            late
        };
        let late = tokio::time::timeout(Duration::from_secs(60), closing).await;
        assert!(late.expect("closes").is_err());
    }

    #[tokio::test]
    async fn an_account_reads_back_as_it_was_written() {
        let (_directory, store) = store().await;
        let mut new = new_account("alice", "/srv/alice");
        let path = VirtualPath::parse(b"/in \xff").expect("a path");
        new.permissions = PermissionRules::new(Permissions::READ, vec![(path, Permissions::all())]);
        new.quota = QuotaLimits {
            bytes: Some(10),
            files: None,
        };
        new.tls = TlsPolicy::Optional;
        new.data_tls = TlsPolicy::Required;
        new.exec = ExecPolicy::Builtin;
        new.expires = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(77));
        new.max_sessions = Some(3);
        new.allow_from = "192.0.2.0/24,2001:db8::/32".parse().expect("networks");
        new.deny_from = "192.0.2.7".parse().expect("a network");
        let password = hash();
        let written = store.insert(new, password.clone()).await.expect("inserts");
        let read = store
            .find(&written.name)
            .await
            .expect("reads")
            .expect("is there");
        assert_eq!(read.account, written);
        assert_eq!(read.password, password);
        assert!(store.some_may_be_plain().await.expect("reads"));
        let change = AccountChange {
            data_tls: Some(TlsPolicy::Off),
            quota_bytes: Some(None),
            disabled: Some(true),
            allow_from: Some("10.0.0.0/8".parse().expect("a network")),
            deny_from: Some("10.0.0.0/28".parse().expect("a network")),
            ..AccountChange::default()
        };
        let changed = store.update(&written.name, change).await.expect("updates");
        assert_eq!((changed.quota.bytes, changed.disabled), (None, true));
        assert_eq!(changed.allow_from.to_string(), "10.0.0.0/8");
        assert_eq!(changed.data_tls, TlsPolicy::Off);
        assert_eq!(changed.deny_from.to_string(), "10.0.0.0/28");
        // It is disabled now.
        assert!(!store.some_may_be_plain().await.expect("reads"));
        assert_eq!(store.list().await.expect("lists"), [changed]);
    }

    #[tokio::test]
    async fn a_name_is_taken_once_and_unknown_names_are_not_found() {
        let (_directory, store) = store().await;
        let bob = store
            .insert(new_account("bob", "/srv/bob"), hash())
            .await
            .expect("inserts");
        let again = store.insert(new_account("bob", "/srv/b2"), hash()).await;
        assert!(matches!(again, Err(StoreError::NameTaken(_))));
        store.remove(&bob.name).await.expect("removes");
        assert!(matches!(
            store.remove(&bob.name).await,
            Err(StoreError::NotFound(_))
        ));
        assert!(
            store
                .usage(Path::new("/srv/bob"))
                .await
                .expect("reads")
                .is_none()
        );
    }

    fn key(number: u8) -> AuthorizedKey {
        let key = ssh_key::public::Ed25519PublicKey([number; 32]);
        let key = ssh_key::PublicKey::from(key);
        let line = key.to_openssh().expect("encodes");
        format!("restrict {line} key {number}")
            .parse()
            .expect("a key")
    }

    #[tokio::test]
    async fn keys_belong_to_an_account_and_go_with_it() {
        let (_directory, store) = store().await;
        let mut names = Vec::new();
        for name in ["alice", "bob"] {
            let new = new_account(name, &format!("/srv/{name}"));
            names.push(store.insert(new, hash()).await.expect("inserts").name);
        }
        let [alice, bob] = names.as_slice() else {
            panic!("two names");
        };
        store.add_key(alice, key(1)).await.expect("adds");
        store.add_key(alice, key(2)).await.expect("adds");
        let plain = key(1).to_string().replace("restrict ", "");
        let plain: AuthorizedKey = plain.parse().expect("a key");
        store.add_key(alice, plain.clone()).await.expect("replaces");
        let found = async |name, number| {
            let fingerprint = key(number).fingerprint();
            store.find_key(name, fingerprint).await.expect("reads")
        };
        assert_eq!(found(alice, 1).await, Some(plain.clone()));
        assert_eq!(found(alice, 2).await, Some(key(2)));
        assert_eq!(found(bob, 1).await, None);
        let mut keys = store.keys(alice).await.expect("reads");
        keys.sort_by_key(|key| key.comment().to_owned());
        assert_eq!(keys, [plain, key(2)]);
        let gone = key(2).fingerprint();
        assert!(store.remove_key(alice, gone).await.expect("removes"));
        assert!(!store.remove_key(alice, gone).await.expect("removes"));
        store.remove(alice).await.expect("removes");
        assert_eq!(found(alice, 1).await, None);
        for refused in [
            store.add_key(alice, key(1)).await.err(),
            store.keys(alice).await.err(),
        ] {
            assert!(matches!(refused, Some(StoreError::NotFound(_))));
        }
    }

    #[tokio::test]
    async fn keys_of_an_account_are_bounded() {
        let (_directory, store) = store().await;
        let new = new_account("alice", "/srv/alice");
        let name = store.insert(new, hash()).await.expect("inserts").name;
        for number in 0..=u8::MAX {
            store.add_key(&name, key(number)).await.expect("adds");
        }
        assert_eq!(store.keys(&name).await.expect("reads").len(), MAX_KEYS);
        // One that is there is replaced; another is too many.
        store.add_key(&name, key(0)).await.expect("replaces");
        let mut bytes = [0; 32];
        bytes[0] = 1;
        let other = ssh_key::PublicKey::from(ssh_key::public::Ed25519PublicKey(bytes));
        let other = other.to_openssh().expect("encodes").parse().expect("a key");
        let refused = store.add_key(&name, other).await;
        assert!(matches!(refused, Err(StoreError::TooManyKeys(_))));
        assert_eq!(store.keys(&name).await.expect("reads").len(), MAX_KEYS);
    }

    #[tokio::test]
    async fn bans_in_the_store_are_bounded_and_forgotten_in_time() {
        let (_directory, store) = store().await;
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let ban = |number: usize| {
            let [_, a, b, c] = u32::try_from(number).expect("small").to_be_bytes();
            Ban {
                network: PeerNetwork::of(std::net::IpAddr::from([10, a, b, c])),
                times: 1,
                until: start + Duration::from_secs(u64::try_from(number).expect("small")),
            }
        };
        let bans: Vec<Ban> = (0..=MAX_BANS).map(ban).collect();
        store.save_bans(&bans, start).await.expect("saves");
        let kept = store.bans().await.expect("reads");
        assert_eq!(kept.len(), MAX_BANS);
        assert!(!kept.contains(&ban(0)));
        let again = Ban {
            times: 2,
            ..ban(MAX_BANS)
        };
        let last = ban(MAX_BANS - 1).forgotten_at();
        store.save_bans(&[again], last).await.expect("saves");
        assert_eq!(store.bans().await.expect("reads"), [again]);
    }

    #[tokio::test]
    async fn a_new_home_is_dirty_until_it_was_counted() {
        let (_directory, store) = store().await;
        let home = Path::new("/srv/carol");
        store
            .insert(new_account("carol", "/srv/carol"), hash())
            .await
            .expect("inserts");
        assert_eq!(store.dirty_homes().await.expect("reads"), [home]);
        let usage = Usage { bytes: 5, files: 2 };
        store.save_usage(home, usage).await.expect("saves");
        let stored = store.usage(home).await.expect("reads");
        assert_eq!(
            stored,
            Some(StoredUsage {
                usage,
                dirty: false
            })
        );
        store.mark_dirty(home).await.expect("marks");
        assert_eq!(
            store
                .usage(home)
                .await
                .expect("reads")
                .map(|stored| stored.dirty),
            Some(true)
        );
        // A second account on the same home changes nothing of that.
        store.save_usage(home, usage).await.expect("saves");
        store
            .insert(new_account("dave", "/srv/carol"), hash())
            .await
            .expect("inserts");
        assert_eq!(
            store.usage(home).await.expect("reads"),
            Some(StoredUsage {
                usage,
                dirty: false
            })
        );
    }
}
