//! Short work for the disk that runs where it is asked for, instead of on a thread that may block.
//!
//! To wake such a thread and to be woken by it takes longer than to make a file whose directory
//! is in memory. But a disk can keep anybody waiting, so that a [`Turn`] is had only while there is
//! another worker of the runtime that is not kept up in the same way, and not soon after a
//! disk has been slow.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

/// Longer than this nothing takes that finds all in memory.
const SLOW: Duration = Duration::from_millis(2);

/// How long nothing is tried again after that.
const RECOVERY: Duration = Duration::from_secs(1);

/// Turns of the whole process now: its workers serve all storages.
static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// The turns on one disk.
#[derive(Debug)]
pub(super) struct Turns {
    taken: &'static AtomicUsize,
    slow_after: Duration,
    // Written only where a disk was slow; held for a look.
    slow: Mutex<Option<Instant>>,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            taken: &TAKEN,
            slow_after: SLOW,
            slow: Mutex::default(),
        }
    }
}

/// The right to run on this worker. To be dropped when the work is done.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    began: Instant,
}

impl Turns {
    /// Turns that no other test takes, on a disk that is never slow.
    #[cfg(test)]
    pub(super) fn alone(taken: &'static AtomicUsize) -> Self {
        Self {
            taken,
            slow_after: Duration::MAX,
            slow: Mutex::default(),
        }
    }

    /// A turn now, if that is no burden for others.
    pub(super) fn take(&self) -> Option<Turn<'_>> {
        let now = Instant::now();
        if self.was_slow(now) {
            return None;
        }
        // One worker is left for everything else.
        let most = Handle::try_current().ok()?.metrics().num_workers() - 1;
        let free = |taken| (taken < most).then_some(taken + 1);
        self.taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, free)
            .ok()?;
        Some(Turn {
            turns: self,
            began: now,
        })
    }

    fn was_slow(&self, now: Instant) -> bool {
        let slow = *self.slow.lock().unwrap_or_else(PoisonError::into_inner);
        slow.is_some_and(|since| now.saturating_duration_since(since) < RECOVERY)
    }

    fn took(&self, began: Instant, now: Instant) {
        if now.saturating_duration_since(began) > self.slow_after {
            *self.slow.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.taken.fetch_sub(1, Ordering::Relaxed);
        self.turns.took(self.began, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_disk_has_no_turns_for_a_second() {
        let turns = Turns::default();
        let began = Instant::now();
        turns.took(began, began + SLOW);
        assert!(!turns.was_slow(began + SLOW));
        let slow = began + SLOW + Duration::from_micros(1);
        turns.took(began, slow);
        assert!(turns.was_slow(slow));
        assert!(turns.was_slow(slow + RECOVERY - Duration::from_micros(1)));
        assert!(!turns.was_slow(slow + RECOVERY));
    }

    #[test]
    fn the_only_worker_of_a_runtime_is_never_kept_up() {
        let only = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        only.block_on(async { assert!(Turns::default().take().is_none()) });
        assert!(Turns::default().take().is_none(), "no runtime");
    }
}
