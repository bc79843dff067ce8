//! Ending a server in order: tell everyone, wait, then cut.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A server's end. Cheap to clone; all clones are the same drain.
///
/// Three states, in this order only: serving; draining (no new connections,
/// sessions finish what they do); cut (every task that [`Drain::track`] started ends).
#[derive(Debug, Clone, Default)]
pub struct Drain {
    begun: CancellationToken,
    cut: CancellationToken,
    tasks: TaskTracker,
}

impl Drain {
    /// Serving.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts draining: accept loops stop, [`Drain::begun`] completes.
    pub fn begin(&self) {
        self.begun.cancel();
        self.tasks.close();
    }

    /// Ends every tracked task at its next await.
    pub fn cut(&self) {
        self.begin();
        self.cut.cancel();
    }

    /// Completes once draining has begun. Dropping the future is safe.
    pub async fn begun(&self) {
        self.begun.cancelled().await;
    }

    /// Whether draining has begun.
    pub fn has_begun(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// Runs `future` as a task that the drain waits for and can cut.
    pub fn track<F>(&self, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let cut = self.cut.clone();
        self.tasks.spawn(async move {
            cut.run_until_cancelled(future).await;
        });
    }

    /// Runs `future` as a task that the drain waits for even after the cut. It
    /// must end by itself soon once those it works for are gone: it is there to
    /// leave things tidy.
    pub fn shelter<F>(&self, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(future);
    }

    /// Tracked tasks now running.
    pub fn running(&self) -> usize {
        self.tasks.len()
    }

    /// Begins, waits at most `patience` for the tracked tasks, then cuts what is left.
    pub async fn finish(&self, patience: Duration) -> DrainReport {
        self.begin();
        let waiting = self.tasks.len();
        let in_time = tokio::time::timeout(patience, self.tasks.wait())
            .await
            .is_ok();
        let cut = if in_time { 0 } else { self.tasks.len() };
        self.cut();
        self.tasks.wait().await;
        DrainReport { waiting, cut }
    }
}

/// What a drain did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainReport {
    /// Tasks that ran when it began.
    pub waiting: usize,
    /// How many of them had to be cut at the deadline.
    pub cut: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn draining_waits_for_those_who_finish_and_cuts_the_others() {
        let drain = Drain::new();
        let seen = drain.clone();
        drain.track(async move {
            seen.begun().await;
            tokio::time::sleep(Duration::from_secs(5)).await;
        });
        drain.track(std::future::pending());
        let started = tokio::time::Instant::now();
        let report = drain.finish(Duration::from_secs(30)).await;
        assert_eq!(report, DrainReport { waiting: 2, cut: 1 });
        assert_eq!(started.elapsed(), Duration::from_secs(30));
        assert_eq!(drain.running(), 0);
    }
}
