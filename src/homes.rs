//! Homes in use: each opened once, recounted if it must be, saved when it is quiet.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cap_std::fs::Dir;
use futures_util::future::BoxFuture;
use rustix::fs::{Mode, OFlags};
use tokio::sync::OnceCell;
use wharf_accounts::{Account, AccountStore, StoreError};
use wharf_model::{Refusal, Usage};
use wharf_server::door::{HomeOpener, HomeUnavailable};
use wharf_vfs::storage::Storage;
use wharf_vfs::storage::local::{LocalOptions, LocalStorage};
use wharf_vfs::{Home, Ledger, OpenLimit, UsageJournal};

/// How often quiet homes have their usage saved.
const SETTLE_INTERVAL: Duration = Duration::from_millis(500);

/// How many descriptors what is open in homes may take.
#[derive(Debug)]
pub(crate) struct OpenLimits {
    /// In all of them.
    pub(crate) together: Arc<OpenLimit>,
    /// In one of them.
    pub(crate) per_home: usize,
}

/// The homes of one process.
pub(crate) struct Homes {
    store: Arc<dyn AccountStore>,
    options: LocalOptions,
    limits: OpenLimits,
    // One cell a home, so that a slow recount keeps up only those who wait for it.
    open: Mutex<HashMap<PathBuf, Arc<OnceCell<Arc<Home>>>>>,
}

impl Homes {
    pub(crate) fn new(
        store: Arc<dyn AccountStore>,
        options: LocalOptions,
        limits: OpenLimits,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            options,
            limits,
            open: Mutex::default(),
        })
    }

    /// Saves the usage of homes that nothing is changing, until dropped.
    pub(crate) async fn keep_settled(self: Arc<Self>) {
        loop {
            tokio::time::sleep(SETTLE_INTERVAL).await;
            self.settle().await;
        }
    }

    /// Saves the usage of homes that nothing is changing.
    pub(crate) async fn settle(&self) {
        let homes: Vec<Arc<Home>> = {
            let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.values()
                .filter_map(|cell| cell.get().cloned())
                .collect()
        };
        for home in homes {
            if let Err(error) = home.recount_if_quiet().await {
                tracing::error!(%error, "a home could not be recounted");
            }
            if let Err(error) = home.ledger().settle().await {
                tracing::error!(%error, "the usage of a home could not be saved");
            }
        }
    }

    /// Recounts what a crash has left unsure, before its owners come.
    pub(crate) async fn recover(self: Arc<Self>) {
        let homes = match self.store.dirty_homes().await {
            Ok(homes) => homes,
            Err(error) => {
                tracing::error!(%error, "the homes to recount could not be listed");
                return;
            }
        };
        for path in homes {
            if let Err(error) = self.at(&path).await {
                tracing::error!(home = %path.display(), %error, "a home could not be recounted");
            }
        }
    }

    async fn at(&self, path: &Path) -> Result<Arc<Home>, OpenError> {
        let cell = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(open.entry(path.to_path_buf()).or_default())
        };
        cell.get_or_try_init(|| self.open_fresh(path))
            .await
            .cloned()
    }

    async fn open_fresh(&self, path: &Path) -> Result<Arc<Home>, OpenError> {
        let owned = path.to_path_buf();
        let root = tokio::task::spawn_blocking(move || open_directory(&owned))
            .await
            .map_err(|error| OpenError::Directory(std::io::Error::other(error)))?
            .map_err(OpenError::Directory)?;
        let storage = LocalStorage::new(root, self.options);
        let stored = self.store.usage(path).await?;
        let (usage, dirty) = match stored {
            Some(stored) if !stored.dirty => (stored.usage, false),
            _ => {
                let usage = storage.recover().await?;
                tracing::info!(home = %path.display(), bytes = usage.bytes, files = usage.files, "home recounted");
                (usage, true)
            }
        };
        let journal = Journal {
            store: Arc::clone(&self.store),
            home: path.to_path_buf(),
        };
        let ledger = Ledger::new(usage, dirty, Box::new(journal));
        let open = self.limits.together.part(self.limits.per_home);
        Ok(Home::limited(Arc::new(storage), ledger, open))
    }
}

/// Opens a home to read it. As a mere place (`O_PATH`, cap-std's way) the kernel
/// would give it out where a sandbox forbids everything in it but looking at attributes.
fn open_directory(path: &Path) -> std::io::Result<Dir> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(path, flags, Mode::empty())?;
    Ok(Dir::from_std_file(directory.into()))
}

/// Counts a home on the disk without changing anything, for the command line.
pub(crate) async fn measure(path: &Path) -> Result<Usage, OpenError> {
    let root = open_directory(path).map_err(OpenError::Directory)?;
    Ok(LocalStorage::new(root, LocalOptions::default())
        .measure()
        .await?)
}

impl HomeOpener for Homes {
    fn open<'a>(
        &'a self,
        account: &'a Account,
    ) -> BoxFuture<'a, Result<Arc<Home>, HomeUnavailable>> {
        Box::pin(async move {
            self.at(&account.home)
                .await
                .map_err(|error| HomeUnavailable {
                    account: account.name.to_string(),
                    source: Box::new(error),
                })
        })
    }
}

/// Why a home could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("the home directory cannot be opened: {0}")]
    Directory(std::io::Error),
    #[error("the home directory cannot be counted: {0}")]
    Count(#[from] Refusal),
    #[error("the stored usage cannot be read: {0}")]
    Store(#[from] StoreError),
}

/// Keeps a home's usage in the account store.
struct Journal {
    store: Arc<dyn AccountStore>,
    home: PathBuf,
}

impl UsageJournal for Journal {
    fn mark_dirty(&self) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async move { self.store.mark_dirty(&self.home).await.map_err(as_refusal) })
    }

    fn save(&self, usage: Usage) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async move {
            self.store
                .save_usage(&self.home, usage)
                .await
                .map_err(as_refusal)
        })
    }
}

fn as_refusal(error: StoreError) -> Refusal {
    Refusal::Io(std::io::Error::other(error))
}
