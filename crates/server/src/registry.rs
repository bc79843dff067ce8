//! Who is logged in: session numbers, and the limit on sessions of one account.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wharf_model::{AccountId, SessionId};

/// Counts sessions. Cheap to clone; all clones are one registry.
#[derive(Debug, Clone, Default)]
pub struct Registry(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    last_session: AtomicU64,
    // The lock makes "compare, then add" one step; never held across an await.
    // Invariant: no value is 0.
    logins: Mutex<HashMap<AccountId, usize>>,
}

impl Registry {
    /// Nobody is logged in.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next session's number, from 1.
    pub fn next_session(&self) -> SessionId {
        SessionId(self.0.last_session.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Counts a login of `account`, unless `limit` sessions of it are there
    /// already. The place is free again when the slot is dropped.
    pub fn log_in(&self, account: AccountId, limit: usize) -> Option<LoginSlot> {
        let mut logins = self.logins();
        let count = logins.get(&account).copied().unwrap_or(0);
        if count >= limit {
            return None;
        }
        logins.insert(account, count + 1);
        drop(logins);
        Some(LoginSlot {
            registry: self.clone(),
            account,
        })
    }

    fn logins(&self) -> MutexGuard<'_, HashMap<AccountId, usize>> {
        self.0.logins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One counted login.
#[derive(Debug)]
pub struct LoginSlot {
    registry: Registry,
    account: AccountId,
}

impl Drop for LoginSlot {
    fn drop(&mut self) {
        if let Entry::Occupied(mut entry) = self.registry.logins().entry(self.account) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_of_one_account_stop_at_the_limit_and_others_do_not_count() {
        let registry = Registry::new();
        let first = registry.log_in(AccountId(1), 2).expect("free");
        let _second = registry.log_in(AccountId(1), 2).expect("free");
        assert!(registry.log_in(AccountId(1), 2).is_none());
        assert!(registry.log_in(AccountId(2), 2).is_some());
        drop(first);
        assert!(registry.log_in(AccountId(1), 2).is_some());
    }
}
