//! Short work for the disk that runs where it is asked for, instead of on a thread that may block.
//!
//! To wake such a thread and to be woken by it takes longer than to make a file whose directory
//! is in memory. But a disk can keep anybody waiting, so that a [`Turn`] is had only while there is
//! another worker of the runtime that is not kept up in the same way, and not soon after a
//! disk has been slow twice within a second: once may have been the machine's doing.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

/// Longer than this nothing takes that finds all in memory.
const SLOW: Duration = Duration::from_millis(2);

/// How long nothing is tried again after that: so many times what it took, so that workers
/// lose no more than a hundredth of their time.
const RECOVERIES: u32 = 100;

/// And no less; also how far apart two times are that belong together.
const LEAST_RECOVERY: Duration = Duration::from_secs(1);

/// Turns of the whole process now: its workers serve all storages.
static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// The turns on one disk.
#[derive(Debug)]
pub(super) struct Turns {
    taken: &'static AtomicUsize,
    slow_after: Duration,
    // Written only where the disk was slow; held for a look.
    slow: Mutex<Slow>,
}

/// When a disk was slow.
#[derive(Debug, Default)]
struct Slow {
    last: Option<Instant>,
    /// Until then it is left to threads.
    until: Option<Instant>,
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
        let slow = self.slow.lock().unwrap_or_else(PoisonError::into_inner);
        slow.until.is_some_and(|until| now < until)
    }

    fn took(&self, began: Instant, now: Instant) {
        let took = now.saturating_duration_since(began);
        if took > self.slow_after {
            let mut slow = self.slow.lock().unwrap_or_else(PoisonError::into_inner);
            let before = slow.last.replace(now);
            if before.is_some_and(|before| now.saturating_duration_since(before) < LEAST_RECOVERY) {
                slow.until = Some(now + took.saturating_mul(RECOVERIES).max(LEAST_RECOVERY));
            }
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
    fn a_disk_that_is_slow_twice_has_no_turns_for_a_hundred_times_what_it_took() {
        let (turns, began) = (Turns::default(), Instant::now());
        let (moment, second) = (Duration::from_micros(1), Duration::from_secs(1));
        let after = |seconds: u32| began + second * seconds;
        let slow_at = |then: Instant| turns.took(then - SLOW - moment, then);
        turns.took(after(1), after(1) + SLOW);
        turns.took(after(1), after(1) + SLOW);
        assert!(!turns.was_slow(after(1) + SLOW), "quick enough");
        slow_at(after(2));
        slow_at(after(3));
        assert!(!turns.was_slow(after(3)), "too far apart");
        slow_at(after(4) - moment);
        assert!(turns.was_slow(after(5) - moment * 2));
        assert!(!turns.was_slow(after(5)));
        turns.took(after(4), after(4) + second / 5);
        assert!(turns.was_slow(after(24)));
        assert!(!turns.was_slow(after(25)));
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
