//! A home directory in use: its storage and its ledger.

use std::fmt;
use std::sync::Arc;

use wharf_model::{Refusal, Usage};

use crate::open::OpenLimit;
use crate::quota::Ledger;
use crate::storage::Storage;

/// One home directory, once in a process: all sessions on it share one ledger,
/// whichever account they belong to.
pub struct Home {
    storage: Arc<dyn Storage>,
    ledger: Arc<Ledger>,
    open: Arc<OpenLimit>,
}

impl Home {
    /// A home of its parts, where any number of files may be open.
    pub fn new(storage: Arc<dyn Storage>, ledger: Arc<Ledger>) -> Arc<Self> {
        Self::limited(storage, ledger, OpenLimit::new(usize::MAX))
    }

    /// A home of its parts, where what is open counts for `open`.
    pub fn limited(
        storage: Arc<dyn Storage>,
        ledger: Arc<Ledger>,
        open: Arc<OpenLimit>,
    ) -> Arc<Self> {
        Arc::new(Self {
            storage,
            ledger,
            open,
        })
    }

    /// Where the files are.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// How much they are.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// How many files and directories may be open.
    pub(crate) fn open(&self) -> &Arc<OpenLimit> {
        &self.open
    }

    /// Counts what is there, and has the ledger say so; that usage. Needed where something
    /// has changed the home without charging it.
    ///
    /// # Errors
    /// The storage cannot be counted.
    pub async fn recount(&self) -> Result<Usage, Refusal> {
        self.ledger.recount(self.storage.measure()).await
    }

    /// Counts what is there if that must be done, and nothing is changing the home.
    ///
    /// # Errors
    /// The storage cannot be counted.
    pub async fn recount_if_quiet(&self) -> Result<(), Refusal> {
        if self.ledger.awaits_count() {
            self.recount().await?;
        }
        Ok(())
    }
}

impl fmt::Debug for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Home")
    }
}
