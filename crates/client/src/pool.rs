//! Sessions for several things at once: as many as asked for, or as the server allows.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::backoff::{backoff_delay, random_u32};
use crate::error::ClientError;
use crate::remote::{Connector, Remote};

/// A pool of sessions with one server.
///
/// A server that takes no more connections makes the pool smaller for good, as
/// long as one session is left (rclone/rclone#2166, lavv17/lftp#335).
pub struct Pool {
    connector: Arc<dyn Connector>,
    /// One permit for each session that may be in use.
    slots: Semaphore,
    /// Sessions that exist, in use or idle, or that are being opened.
    alive: AtomicUsize,
    /// Sessions that nobody uses, and since when. A lock because leases end in
    /// any task; never held across an await.
    idle: Mutex<Vec<(Box<dyn Remote>, Instant)>>,
}

impl Pool {
    /// A pool of at most `most` sessions, of which none is opened yet.
    pub fn new(connector: Arc<dyn Connector>, most: usize) -> Self {
        Self {
            connector,
            slots: Semaphore::new(most.clamp(1, Semaphore::MAX_PERMITS)),
            alive: AtomicUsize::new(0),
            idle: Mutex::new(Vec::new()),
        }
    }

    /// A session to use: an idle one that still answers, or a new one. Waits
    /// while all are in use.
    ///
    /// # Errors
    /// Whatever connecting and logging in meet.
    pub async fn lease(&self) -> Result<Lease<'_>, ClientError> {
        loop {
            let permit = self
                .slots
                .acquire()
                .await
                .expect("the pool never closes its semaphore");
            if let Some(session) = self.idle_session().await {
                return Ok(self.lent(session, permit));
            }
            let place = Place::take(&self.alive);
            let error = match self.connector.connect().await {
                Ok(session) => {
                    place.keep();
                    return Ok(self.lent(session, permit));
                }
                Err(error) => error,
            };
            let others = place.leave();
            match error {
                ClientError::TooManyConnections(said) if others > 0 => {
                    tracing::debug!(%said, "the server allows no more sessions");
                    permit.forget();
                }
                error => return Err(error),
            }
        }
    }

    /// Does `operation` in a session, and again in another one, after a while,
    /// up to `retries` times as long as it fails for a passing reason. Only for
    /// what may be done twice.
    ///
    /// # Errors
    /// The last one of `operation` or of [`Self::lease`].
    pub async fn repeat<T>(
        &self,
        retries: u32,
        operation: impl for<'s> Fn(&'s mut dyn Remote) -> BoxFuture<'s, Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let mut retry = 0;
        loop {
            let result = match self.lease().await {
                Ok(mut lease) => operation(&mut *lease).await,
                Err(error) => Err(error),
            };
            match result {
                Err(error) if error.is_transient() && retry < retries => {
                    retry += 1;
                    tokio::time::sleep(backoff_delay(retry, random_u32())).await;
                }
                other => return other,
            }
        }
    }

    /// Ends all idle sessions politely.
    pub async fn close(&self) {
        let idle = std::mem::take(&mut *self.lock_idle());
        for (session, _) in idle {
            self.alive.fetch_sub(1, Ordering::Relaxed);
            session.close().await;
        }
    }

    /// The session that was used last, if it is still there: servers close idle ones.
    async fn idle_session(&self) -> Option<Box<dyn Remote>> {
        loop {
            let (mut session, since) = self.lock_idle().pop()?;
            let is_there =
                session.is_usable() && (since.elapsed() < FRESH || session.check().await.is_ok());
            if is_there {
                return Some(session);
            }
            self.alive.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn lent<'p>(&'p self, session: Box<dyn Remote>, permit: SemaphorePermit<'p>) -> Lease<'p> {
        Lease {
            pool: self,
            session: Some(session),
            _permit: permit,
        }
    }

    fn lock_idle(&self) -> std::sync::MutexGuard<'_, Vec<(Box<dyn Remote>, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("alive", &self.alive)
            .finish_non_exhaustive()
    }
}

/// The place of a session that is being opened; given up when it is dropped.
struct Place<'p>(&'p AtomicUsize);

impl<'p> Place<'p> {
    fn take(alive: &'p AtomicUsize) -> Self {
        alive.fetch_add(1, Ordering::Relaxed);
        Self(alive)
    }

    /// The session is open and counts from now on.
    fn keep(self) {
        std::mem::forget(self);
    }

    /// Gives the place up; how many others there are. Of several that give up
    /// at once the last one finds none.
    fn leave(self) -> usize {
        let before = self.0.fetch_sub(1, Ordering::Relaxed);
        std::mem::forget(self);
        before.saturating_sub(1)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A session on loan. Dropped, it goes back to the pool if it is usable.
pub struct Lease<'p> {
    pool: &'p Pool,
    /// Invariant: `Some` until the lease is dropped.
    session: Option<Box<dyn Remote>>,
    _permit: SemaphorePermit<'p>,
}

impl std::fmt::Debug for Lease<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lease")
    }
}

impl Deref for Lease<'_> {
    type Target = dyn Remote;

    fn deref(&self) -> &Self::Target {
        self.session.as_deref().expect(UNTIL_DROPPED)
    }
}

impl DerefMut for Lease<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.session.as_deref_mut().expect(UNTIL_DROPPED)
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else {
            return;
        };
        if session.is_usable() {
            self.pool.lock_idle().push((session, Instant::now()));
        } else {
            self.pool.alive.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

const UNTIL_DROPPED: &str = "a lease holds its session until it is dropped";

/// A session that was used so recently needs no asking whether it is still there.
const FRESH: Duration = Duration::from_secs(10);
