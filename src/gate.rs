//! Who may connect to a listener: the configured networks, and nobody who is banned.

use std::sync::{PoisonError, RwLock};

use wharf_accounts::LoginGuard;
use wharf_net::{AccessHook, AddressRules, Peer, Verdict};

/// The access hook of one kind of listener.
pub(crate) struct Gate {
    guard: LoginGuard,
    // Replaced as a whole by a reload; held for one comparison, never across an await.
    rules: RwLock<GateRules>,
}

/// What a gate compares with: both must admit.
pub(crate) struct GateRules {
    /// For every listener.
    pub(crate) server: AddressRules,
    /// For listeners of this kind.
    pub(crate) listener: AddressRules,
}

impl Gate {
    pub(crate) fn new(guard: LoginGuard, rules: GateRules) -> Self {
        Self {
            guard,
            rules: RwLock::new(rules),
        }
    }

    /// Uses other rules for the connections that come from now on.
    pub(crate) fn reload(&self, rules: GateRules) {
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
    }
}

impl AccessHook for Gate {
    fn judge(&self, peer: &Peer) -> Verdict {
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        for rules in [&rules.server, &rules.listener] {
            let verdict = rules.judge(peer);
            if verdict != Verdict::Admit {
                return verdict;
            }
        }
        drop(rules);
        if peer.ip().is_some_and(|ip| self.guard.is_banned(ip)) {
            return Verdict::RefuseForNow;
        }
        Verdict::Admit
    }
}
