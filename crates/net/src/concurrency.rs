//! How connections are served beside each other.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

/// How connections are served beside each other. A process a connection is a
/// service of its own, [`Program`](crate::Program), under any of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Concurrency {
    /// One after the other: the next one waits in the kernel's queue.
    Serial,
    /// A task each, on the runtime, which watches all their sockets at once.
    /// A service must not block.
    #[default]
    Tasks,
    /// A thread each, which drives the service to its end; a service may block,
    /// and harms no other connection.
    Threads {
        /// Threads at one time; while all are in use, the next connections wait
        /// in the kernel's queue. 0 counts as 1.
        most: usize,
    },
}

/// Places for connections; taken before one is accepted.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    free: Option<Arc<Semaphore>>,
    on_threads: bool,
}

/// One taken place, given back when it is dropped.
pub(crate) type Place = Option<OwnedSemaphorePermit>;

impl From<Concurrency> for Places {
    fn from(concurrency: Concurrency) -> Self {
        Self::new(concurrency, None)
    }
}

impl Places {
    /// With so many tasks at most.
    pub(crate) fn bounded(concurrency: Concurrency, most_tasks: usize) -> Self {
        Self::new(concurrency, Some(most_tasks))
    }

    fn new(concurrency: Concurrency, most_tasks: Option<usize>) -> Self {
        let (most, on_threads) = match concurrency {
            Concurrency::Tasks => (most_tasks, false),
            Concurrency::Serial => (Some(1), false),
            Concurrency::Threads { most } => (Some(most), true),
        };
        let semaphore =
            |most: usize| Arc::new(Semaphore::new(most.clamp(1, Semaphore::MAX_PERMITS)));
        Self {
            free: most.map(semaphore),
            on_threads,
        }
    }

    /// Waits for a free place. Dropping the future takes none.
    pub(crate) async fn take(&self) -> Place {
        match &self.free {
            Some(free) => Arc::clone(free).acquire_owned().await.ok(),
            None => None,
        }
    }

    /// Runs `work` where this model wants it. Dropping the future drops the
    /// work; on a thread of its own, at the work's next await.
    pub(crate) async fn run<F>(&self, work: F) -> io::Result<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if self.on_threads {
            return on_thread(work).await;
        }
        work.await;
        Ok(())
    }
}

async fn on_thread<F>(work: F) -> io::Result<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let runtime = Handle::current();
    let dropped = CancellationToken::new();
    let drop_guard = dropped.clone().drop_guard();
    let (ended, end) = oneshot::channel::<()>();
    std::thread::Builder::new()
        .name("wharf-net".to_owned())
        .spawn(move || {
            runtime.block_on(dropped.run_until_cancelled_owned(work));
            drop(ended);
        })?;
    // Nothing is sent: the sender's end is the thread's.
    let _ = end.await;
    drop(drop_guard);
    Ok(())
}

/// Runs `work`, and catches its panic as the panic's message. What it has
/// touched is dropped with it, or shared behind locks that say so.
pub(crate) async fn caught<F: Future>(work: F) -> Result<F::Output, String> {
    let mut work = pin!(work);
    std::future::poll_fn(move |context| {
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context)));
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(panic) => Poll::Ready(Err(message_of(&*panic))),
        }
    })
    .await
}

/// Calls `what`, and catches its panic as the panic's message. What it has
/// touched is the caller's, who shares it only behind locks that say so.
pub(crate) fn caught_call<T>(what: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(what)).map_err(|panic| message_of(&*panic))
}

fn message_of(panic: &(dyn std::any::Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "no message".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    fn places(most: usize) -> Places {
        Concurrency::Threads { most }.into()
    }

    #[tokio::test]
    async fn services_that_block_run_beside_each_other_on_threads() {
        let places = places(3);
        // Each waits for the other two: on one thread none would end.
        let barrier = Arc::new(Barrier::new(3));
        let work = |barrier: &Arc<Barrier>| {
            let barrier = Arc::clone(barrier);
            async move {
                barrier.wait();
            }
        };
        let (one, two, three) = tokio::join!(
            places.run(work(&barrier)),
            places.run(work(&barrier)),
            places.run(work(&barrier)),
        );
        for end in [one, two, three] {
            end.expect("a thread");
        }
    }

    #[tokio::test]
    async fn there_are_as_many_places_as_were_asked_for_and_one_at_least() {
        for (concurrency, most) in [
            (Concurrency::Serial, 1),
            (Concurrency::Threads { most: 0 }, 1),
            (Concurrency::Threads { most: 3 }, 3),
        ] {
            let places = Places::from(concurrency);
            let mut taken = Vec::new();
            for _ in 0..most {
                taken.push(places.take().await);
            }
            let mut next = pin!(places.take());
            assert!(poll_once(next.as_mut()).is_pending());
            taken.pop();
            assert!(poll_once(next.as_mut()).is_ready());
        }
    }

    fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
    }

    #[tokio::test]
    async fn work_on_a_thread_is_dropped_with_the_future_that_waits_for_it() {
        struct Told(Option<oneshot::Sender<()>>);
        impl Drop for Told {
            fn drop(&mut self) {
                let _ = self.0.take().expect("once").send(());
            }
        }
        let (dropped, told) = oneshot::channel();
        let (started, running) = oneshot::channel();
        let waiting = tokio::spawn(async move {
            let told = Told(Some(dropped));
            places(1)
                .run(async move {
                    let _told = told;
                    let _ = started.send(());
                    std::future::pending::<()>().await;
                })
                .await
        });
        running.await.expect("it starts");
        waiting.abort();
        told.await.expect("it is dropped");
    }
}
