//! Many files at once, and what became of them.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use tokio::time::Instant;

use crate::error::{ClientError, ErrorKind};
use crate::progress::{Done, Event, Outcome};
use crate::transfer::{Download, Listed, Transfers, Upload};

/// One file to move.
#[derive(Debug, Clone)]
pub enum Work {
    /// From the server.
    Download(Download),
    /// To the server.
    Upload(Upload),
}

impl Work {
    /// The size that is known before it starts; 0 if none is.
    fn listed_bytes(&self) -> u64 {
        match self {
            Self::Download(download) => download.listed.as_ref().and_then(|entry| entry.size),
            Self::Upload(upload) => upload
                .tree
                .stat(&upload.local)
                .ok()
                .flatten()
                .map(|entry| entry.size),
        }
        .unwrap_or(0)
    }
}

/// What became of a number of files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Files that were moved, wholly or in part.
    pub transferred: u64,
    /// Files that were left as they were.
    pub skipped: u64,
    /// Files and directories that something went wrong with.
    pub failed: u64,
    /// Files that were not tried because an earlier failure made it pointless.
    pub not_tried: u64,
    /// Files whose digests were compared.
    pub verified: u64,
    /// Entries that were removed.
    pub removed: u64,
    /// Directories that were made.
    pub directories_made: u64,
    /// Bytes that were moved over the network.
    pub moved_bytes: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// The family of the first failure.
    pub first_failure: Option<ErrorKind>,
}

impl Summary {
    /// Takes in a failure.
    pub fn add_failure(&mut self, error: &ClientError) {
        self.failed += 1;
        self.first_failure.get_or_insert(error.kind());
    }

    /// Takes in a finished file.
    pub fn add_outcome(&mut self, outcome: &Outcome) {
        match outcome.done {
            Done::Skipped(_) => self.skipped += 1,
            Done::Whole | Done::Resumed { .. } => self.transferred += 1,
        }
        if matches!(outcome.verified, crate::progress::Verified::Digest(_)) {
            self.verified += 1;
        }
        self.moved_bytes += outcome.moved_bytes;
    }

    /// Adds what another summary counts.
    pub fn add(&mut self, other: &Self) {
        self.transferred += other.transferred;
        self.skipped += other.skipped;
        self.failed += other.failed;
        self.not_tried += other.not_tried;
        self.verified += other.verified;
        self.removed += other.removed;
        self.directories_made += other.directories_made;
        self.moved_bytes += other.moved_bytes;
        self.elapsed += other.elapsed;
        self.first_failure = self.first_failure.or(other.first_failure);
    }

    /// Whether everything was done.
    pub fn is_complete(&self) -> bool {
        self.failed == 0 && self.not_tried == 0
    }
}

/// Moves the files of `work`, `parallel` at a time. Each file's failure is told
/// to the observer and counted; those that would meet every other file as well
/// (no room, no login, no server, interrupted) end the batch.
pub async fn run_batch(transfers: &Transfers, work: Vec<Work>, parallel: usize) -> Summary {
    let started = Instant::now();
    transfers.observer().observe(Event::Planned {
        files: work.len() as u64,
        bytes: work.iter().map(Work::listed_bytes).sum(),
    });
    // A lock because files end in any order; never held across an await.
    let summary = Mutex::new(Summary::default());
    let pointless = AtomicBool::new(false);
    stream::iter(work)
        .for_each_concurrent(parallel.max(1), |work| {
            run_one(transfers, work, &summary, &pointless)
        })
        .await;
    let mut summary = summary.into_inner().unwrap_or_else(PoisonError::into_inner);
    summary.elapsed = started.elapsed();
    summary
}

async fn run_one(
    transfers: &Transfers,
    work: Work,
    summary: &Mutex<Summary>,
    pointless: &AtomicBool,
) {
    let lock = || summary.lock().unwrap_or_else(PoisonError::into_inner);
    if pointless.load(Ordering::Relaxed) {
        lock().not_tried += 1;
        return;
    }
    let result = match &work {
        Work::Download(download) => transfers.download(download).await,
        Work::Upload(upload) => transfers.upload(upload).await,
    };
    match result {
        Ok(outcome) => lock().add_outcome(&outcome),
        Err(error) => {
            pointless.fetch_or(meets_every_file(&error), Ordering::Relaxed);
            lock().add_failure(&error);
        }
    }
}

fn meets_every_file(error: &ClientError) -> bool {
    match error {
        ClientError::Local { source, .. } => matches!(
            source.kind(),
            std::io::ErrorKind::StorageFull
                | std::io::ErrorKind::QuotaExceeded
                | std::io::ErrorKind::ReadOnlyFilesystem
        ),
        ClientError::OverQuota(_)
        | ClientError::ServerDiskFull(_)
        | ClientError::Login(_)
        | ClientError::Connect { .. }
        | ClientError::UnknownHost { .. }
        | ClientError::Interrupted => true,
        _ => false,
    }
}

impl Listed {
    /// From a listing of the directory: what it shows, or that it does not show it.
    pub fn from_listing(entry: Option<crate::remote::RemoteEntry>) -> Self {
        entry.map_or(Self::Absent, Self::Entry)
    }
}
