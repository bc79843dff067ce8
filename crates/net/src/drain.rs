//! Ending a server in order: tell everyone, wait, then cut.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Peer;

/// A server's end. Cheap to clone; all clones are the same drain.
///
/// Three states, in this order only: serving; draining (no new connections,
/// sessions finish what they do); cut (every task that [`Drain::track`] started ends).
#[derive(Debug, Clone, Default)]
pub struct Drain {
    begun: CancellationToken,
    tasks: TaskTracker,
    tracked: Tracked,
}

/// What the cut ends. Each task is aborted by its handle: a flag that all of
/// them watch is a lock that all of them take whenever they are woken.
/// The lock is held for one change, never across an await.
#[derive(Debug, Clone, Default)]
struct Tracked(Arc<Mutex<Present>>);

#[derive(Debug, Default)]
struct Present {
    is_cut: bool,
    /// The number of the next one.
    next: u64,
    tasks: HashMap<u64, Task>,
    /// How many served a peer when the drain began.
    waiting: Option<usize>,
    /// Whom those served that were cut.
    cut: Vec<Peer>,
}

#[derive(Debug)]
struct Task {
    /// Whom it serves.
    peer: Option<Peer>,
    /// Known once it has started.
    abort: Option<AbortHandle>,
}

/// One of the tasks, which is gone when this is dropped.
struct Attendance {
    tracked: Tracked,
    number: u64,
}

impl Tracked {
    fn lock(&self) -> MutexGuard<'_, Present> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(&self, peer: Option<Peer>) -> Attendance {
        let mut present = self.lock();
        let number = present.next;
        present.next += 1;
        present.tasks.insert(number, Task { peer, abort: None });
        Attendance {
            tracked: self.clone(),
            number,
        }
    }

    /// A task that has ended meanwhile is not there, and one that comes after the cut is cut.
    fn started(&self, number: u64, abort: AbortHandle) {
        let mut present = self.lock();
        if let Some(task) = present.tasks.get_mut(&number) {
            task.abort = Some(abort);
        }
        if present.is_cut {
            Self::abort(present);
        }
    }

    /// Notes once how many serve a peer.
    fn begin(&self) {
        let mut present = self.lock();
        if present.waiting.is_none() {
            let serving = present.tasks.values().filter(|task| task.peer.is_some());
            present.waiting = Some(serving.count());
        }
    }

    fn cut(&self) {
        let mut present = self.lock();
        present.is_cut = true;
        Self::abort(present);
    }

    /// Ends all that have started, and notes whom they served. One that has not
    /// started is ended by [`Tracked::started`].
    fn abort(mut present: MutexGuard<'_, Present>) {
        let Present { tasks, cut, .. } = &mut *present;
        let mut handles = Vec::new();
        for task in tasks.values_mut() {
            if let Some(handle) = task.abort.take() {
                handles.push(handle);
                cut.extend(task.peer.take());
            }
        }
        // Aborting may drop a task here, which takes its name from the list.
        drop(present);
        for handle in handles {
            handle.abort();
        }
    }

    fn report(&self) -> DrainReport {
        let present = self.lock();
        DrainReport {
            waiting: present.waiting.unwrap_or_default(),
            cut: present.cut.len(),
            peers: present.cut.clone(),
        }
    }
}

impl Drop for Attendance {
    fn drop(&mut self) {
        self.tracked.lock().tasks.remove(&self.number);
    }
}

impl Drain {
    /// Serving.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts draining: accept loops stop, [`Drain::begun`] completes.
    pub fn begin(&self) {
        self.tracked.begin();
        self.begun.cancel();
        self.tasks.close();
    }

    /// Ends every tracked task at its next await.
    pub fn cut(&self) {
        self.begin();
        self.tracked.cut();
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
        self.start(None, future);
    }

    /// The same for what serves a peer, who is named in the report if it is cut.
    pub fn track_peer<F>(&self, peer: Peer, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.start(Some(peer), future);
    }

    fn start<F>(&self, peer: Option<Peer>, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let attendance = self.tracked.admit(peer);
        let number = attendance.number;
        let task = self.tasks.spawn(async move {
            let _attendance = attendance;
            future.await;
        });
        self.tracked.started(number, task.abort_handle());
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
        let _ = tokio::time::timeout(patience, self.tasks.wait()).await;
        self.cut();
        self.tasks.wait().await;
        self.tracked.report()
    }
}

/// What a drain did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainReport {
    /// Peers that were served when it began.
    pub waiting: usize,
    /// How many had to be cut, at the deadline or by [`Drain::cut`].
    pub cut: usize,
    /// Who they are, in no order.
    pub peers: Vec<Peer>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> Peer {
        let address: std::net::SocketAddr = text.parse().expect("an address");
        address.into()
    }

    #[tokio::test(start_paused = true)]
    async fn draining_waits_for_those_who_finish_and_cuts_the_others() {
        let drain = Drain::new();
        let seen = drain.clone();
        drain.track(async move {
            seen.begun().await;
            tokio::time::sleep(Duration::from_secs(5)).await;
        });
        let [patient, impatient] = ["192.0.2.1:1", "192.0.2.2:2"].map(peer);
        let seen = drain.clone();
        drain.track_peer(patient, async move { seen.begun().await });
        drain.track_peer(impatient.clone(), std::future::pending());
        let started = tokio::time::Instant::now();
        let report = drain.finish(Duration::from_secs(30)).await;
        let expected = DrainReport {
            waiting: 2,
            cut: 1,
            peers: vec![impatient],
        };
        assert_eq!(report, expected);
        assert_eq!(started.elapsed(), Duration::from_secs(30));
        assert_eq!(drain.running(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_before_the_deadline_is_reported_with_the_peers_and_no_loops() {
        let drain = Drain::new();
        let cut = peer("192.0.2.1:1");
        drain.track(std::future::pending());
        drain.track_peer(cut.clone(), std::future::pending());
        let cutting = drain.clone();
        let cutter = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            cutting.cut();
        });
        let started = tokio::time::Instant::now();
        let report = drain.finish(Duration::from_secs(30)).await;
        cutter.await.expect("it cuts");
        let expected = DrainReport {
            waiting: 1,
            cut: 1,
            peers: vec![cut],
        };
        assert_eq!(report, expected);
        assert_eq!(started.elapsed(), Duration::from_secs(1));
    }

    #[tokio::test]
    async fn what_is_tracked_after_the_cut_is_cut_too() {
        let drain = Drain::new();
        drain.cut();
        drain.track(std::future::pending());
        assert_eq!(drain.finish(Duration::MAX).await.cut, 0);
        assert_eq!(drain.running(), 0);
    }
}
