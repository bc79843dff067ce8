//! Whether anything happens on a connection on which several things go on at once.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Knows when data last went over a connection's channels, and what is at work. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Activity(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    ended: Notify,
}

#[derive(Debug)]
struct State {
    last: Instant,
    /// Commands and requests, which may be silent for long and are still carried out.
    at_work: usize,
}

/// Something that runs, until it is dropped.
#[derive(Debug)]
pub struct Running {
    activity: Activity,
    works: bool,
}

/// What is quiet for so long has ended, and its client has heard so: one that is
/// cut off earlier would lose the end of the output.
const QUIET: Duration = Duration::from_secs(1);

impl Default for Activity {
    fn default() -> Self {
        let state = State {
            last: Instant::now(),
            at_work: 0,
        };
        Self(Arc::new(Inner {
            state: Mutex::new(state),
            ended: Notify::new(),
        }))
    }
}

impl Activity {
    /// Something has happened.
    pub fn note(&self) {
        self.state().last = Instant::now();
    }

    /// A program or a request starts; `works` if it is carried out and ends without
    /// anybody's help.
    pub fn start(&self, works: bool) -> Running {
        let mut state = self.state();
        state.at_work += usize::from(works);
        state.last = Instant::now();
        drop(state);
        Running {
            activity: self.clone(),
            works,
        }
    }

    /// Completes once nothing has happened for `patience` and nothing is at work.
    /// Dropping the future is safe.
    pub async fn idle(&self, patience: Duration) {
        loop {
            let ended = self.0.ended.notified();
            let (at_work, last) = {
                let state = self.state();
                (state.at_work, state.last)
            };
            if at_work > 0 {
                ended.await;
            } else if last.elapsed() >= patience {
                return;
            } else {
                tokio::time::sleep_until(last + patience).await;
            }
        }
    }

    /// Completes once nothing would be missed: nothing is at work, and for a
    /// moment nothing has happened. Dropping the future is safe.
    pub async fn settled(&self) {
        self.idle(QUIET).await;
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.activity.state();
        state.at_work -= usize::from(self.works);
        state.last = Instant::now();
        let rests = state.at_work == 0;
        drop(state);
        if rests {
            self.activity.0.ended.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_silent_command_is_not_idle_and_a_silent_session_is() {
        let activity = Activity::default();
        let started = Instant::now();
        let command = activity.start(true);
        let long = tokio::time::timeout(10 * MINUTE, activity.idle(MINUTE)).await;
        assert!(long.is_err());
        drop(command);
        let session = activity.start(false);
        activity.idle(MINUTE).await;
        assert_eq!(started.elapsed(), 11 * MINUTE);
        drop(session);
        activity.note();
        activity.idle(MINUTE).await;
        assert_eq!(started.elapsed(), 12 * MINUTE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_waits_for_commands_and_for_transfers_that_move() {
        let activity = Activity::default();
        let started = Instant::now();
        let command = activity.start(true);
        let waiting = tokio::spawn({
            let activity = activity.clone();
            async move { activity.settled().await }
        });
        tokio::time::sleep(MINUTE).await;
        drop(command);
        waiting.await.expect("no panic");
        assert_eq!(started.elapsed(), MINUTE + QUIET);
        let _transfer = activity.start(false);
        activity.settled().await;
        assert_eq!(started.elapsed(), MINUTE + 2 * QUIET);
    }
}
