//! The throttle as a server shares it: one for all listeners and sessions, its
//! bans kept in step with a store.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;

use crate::store::{BanStore, StoreError};
use crate::throttle::{Throttle, ThrottleRules};

/// How often the store is asked what an operator has changed.
const SYNC_INTERVAL: Duration = Duration::from_secs(2);

/// Watches over logins. Cheap to clone; all clones are one guard.
#[derive(Debug, Clone)]
pub struct LoginGuard(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    // Sessions and accept loops on all threads ask it; held for a few look-ups
    // and never across an await.
    throttle: Mutex<Throttle>,
    banned: Notify,
}

impl LoginGuard {
    /// Nothing has happened yet.
    pub fn new(rules: ThrottleRules) -> Self {
        Self(Arc::new(Inner {
            throttle: Mutex::new(Throttle::new(rules)),
            banned: Notify::new(),
        }))
    }

    /// Uses other rules from now on.
    pub fn set_rules(&self, rules: ThrottleRules) {
        self.throttle().set_rules(rules);
    }

    /// Whether `address` is banned now.
    pub fn is_banned(&self, address: IpAddr) -> bool {
        self.throttle()
            .banned_until(address, SystemTime::now())
            .is_some()
    }

    /// A login has failed: the delay of the answer.
    pub fn failed(&self, address: IpAddr, name: &[u8]) -> Duration {
        let now = SystemTime::now();
        let mut throttle = self.throttle();
        let before = throttle.banned_until(address, now);
        let delay = throttle.failed(address, name, now);
        let after = throttle.banned_until(address, now);
        drop(throttle);
        if before.is_none()
            && let Some(until) = after
        {
            let seconds = until.duration_since(now).unwrap_or_default().as_secs();
            tracing::warn!(%address, seconds, "address banned for failed logins");
            self.0.banned.notify_one();
        }
        delay
    }

    /// A login has succeeded.
    pub fn succeeded(&self, address: IpAddr, name: &[u8]) {
        self.throttle().succeeded(address, name, SystemTime::now());
    }

    /// Stores new bans and takes over what the store holds. Dropping the future
    /// midway is safe: what may not be stored is stored again next time.
    ///
    /// # Errors
    /// [`StoreError`]; the bans that were not stored are tried again next time.
    pub async fn sync(&self, store: &dyn BanStore) -> Result<(), StoreError> {
        let now = SystemTime::now();
        let unsaved = self.throttle().unsaved();
        if !unsaved.is_empty() {
            store.save_bans(&unsaved, now).await?;
            self.throttle().saved(&unsaved);
        }
        let saved = store.bans().await?;
        self.throttle().replace_saved(saved, now);
        Ok(())
    }

    /// Syncs at every ban and every two seconds, until dropped.
    pub async fn keep_synced(self, store: Arc<dyn BanStore>) {
        loop {
            // A ban while nobody waited here has left its notification behind.
            let _ = tokio::time::timeout(SYNC_INTERVAL, self.0.banned.notified()).await;
            if let Err(error) = self.sync(&*store).await {
                tracing::error!(%error, "bans could not be brought in step with the database");
                tokio::time::sleep(SYNC_INTERVAL).await;
            }
        }
    }

    fn throttle(&self) -> MutexGuard<'_, Throttle> {
        self.0
            .throttle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PeerNetwork, SqliteStore};
    use wharf_model::NetworkSet;

    fn guard() -> LoginGuard {
        LoginGuard::new(ThrottleRules {
            max_failures: 2,
            window: Duration::from_secs(60),
            ban: Duration::from_secs(600),
            longest_ban: Duration::from_secs(6000),
            longest_delay: Duration::ZERO,
            exempt: NetworkSet::default(),
        })
    }

    #[tokio::test]
    async fn bans_survive_a_restart_and_are_lifted_through_the_store() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("wharf.db");
        let store = SqliteStore::open(&path).await.expect("opens");
        let peer: IpAddr = "192.0.2.1".parse().expect("an address");
        let first = guard();
        for _ in 0..2 {
            first.failed(peer, b"alice");
        }
        assert!(first.is_banned(peer));
        first.sync(&store).await.expect("stores");
        first.sync(&store).await.expect("stores");
        assert!(first.is_banned(peer));
        store.close().await;

        let store = SqliteStore::open(&path).await.expect("opens");
        let second = guard();
        assert!(!second.is_banned(peer));
        second.sync(&store).await.expect("reads");
        assert!(second.is_banned(peer));
        let operator = SqliteStore::open(&path).await.expect("opens");
        let network = PeerNetwork::of(peer);
        assert!(operator.remove_ban(network).await.expect("removes"));
        assert!(!operator.remove_ban(network).await.expect("removes"));
        second.sync(&store).await.expect("reads");
        assert!(!second.is_banned(peer));
    }

    #[tokio::test]
    async fn a_ban_that_could_not_be_stored_is_stored_later() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("wharf.db");
        let closed = SqliteStore::open(&path).await.expect("opens");
        closed.close().await;
        let guard = guard();
        let peer: IpAddr = "2001:db8::1".parse().expect("an address");
        for _ in 0..2 {
            guard.failed(peer, b"alice");
        }
        assert!(guard.sync(&closed).await.is_err());
        assert!(guard.is_banned(peer));
        let store = SqliteStore::open(&path).await.expect("opens");
        guard.sync(&store).await.expect("stores");
        let bans = store.bans().await.expect("reads");
        assert_eq!(bans.len(), 1);
        assert_eq!(bans[0].network.to_string(), "2001:db8::/64");
    }
}
