//! The home of the one account of a session without a login, in memory.

use std::sync::Arc;

use wharf_model::{PermissionRules, QuotaLimits, Usage};
use wharf_vfs::storage::Storage as _;
use wharf_vfs::storage::memory::MemoryStorage;
use wharf_vfs::{Home, Ledger, NoJournal, Vfs};

use crate::session::QUOTA;

/// An empty home that may be changed everywhere, up to [`QUOTA`].
pub(crate) struct MemoryHome {
    pub(crate) vfs: Vfs,
    storage: MemoryStorage,
    ledger: Arc<Ledger>,
}

impl MemoryHome {
    pub(crate) fn new() -> Self {
        let storage = MemoryStorage::new();
        let ledger = Ledger::new(Usage::ZERO, true, Box::new(NoJournal));
        let home = Home::new(Arc::new(storage.clone()), Arc::clone(&ledger));
        let limits = QuotaLimits {
            bytes: Some(QUOTA.bytes),
            files: Some(QUOTA.files),
        };
        Self {
            vfs: Vfs::new(home, PermissionRules::default(), limits),
            storage,
            ledger,
        }
    }

    /// What holds when nothing is under way: the ledger says what the storage holds, and that is
    /// within the quota.
    pub(crate) async fn check(&self) {
        let held = self.storage.measure().await.expect("in memory");
        assert_eq!(self.ledger.usage(), held, "the ledger is wrong");
        let within = held.bytes <= QUOTA.bytes && held.files <= QUOTA.files;
        assert!(within, "{held:?} is over the quota");
    }
}

/// Runs what an input asks for to its end.
pub(crate) fn run(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(work);
}
