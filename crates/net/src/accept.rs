//! What the loops of a server for streams and one for datagrams have in
//! common: places, pauses after errors, the periodic action, and an end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use crate::concurrency::{Place, Places, caught, caught_call};
use crate::{Drain, Endpoint, Failure, Peer, ServiceError};

/// Where connections or datagrams come from.
pub(crate) trait Arrivals {
    /// What comes.
    type Item;

    /// The next one. Dropping the future loses none.
    fn next(&mut self) -> impl Future<Output = Self::Item> + Send;
}

/// Hands everything that comes to `welcome`, until the drain begins or `count`
/// of them were served to their ends.
pub(crate) async fn take_in<A: Arrivals>(
    arrivals: &mut A,
    count: Option<usize>,
    action: Option<&Action>,
    drain: &Drain,
    mut welcome: impl FnMut(A::Item, Option<Ticket>),
) {
    let (ticket, mut ends) = mpsc::unbounded_channel();
    let (mut open, mut served) = (0, 0);
    let mut action = action.map(DueAction::new);
    while count.is_none_or(|count| served < count) {
        tokio::select! {
            biased;
            () = drain.begun() => return,
            () = act(&mut action) => {}
            Some(was_served) = ends.recv() => {
                open -= 1;
                served += usize::from(was_served);
            }
            item = arrivals.next(), if count.is_none_or(|count| served + open < count) => {
                let ticket = count.map(|_| Ticket::new(&ticket));
                open += usize::from(ticket.is_some());
                welcome(item, ticket);
            }
        }
    }
}

/// One of those whose ends are waited for.
pub(crate) struct Ticket {
    end: mpsc::UnboundedSender<bool>,
    served: bool,
}

impl Ticket {
    fn new(end: &mpsc::UnboundedSender<bool>) -> Self {
        Self {
            end: end.clone(),
            served: false,
        }
    }

    /// It counts; dropped without this, it was refused.
    pub(crate) fn served(mut self) {
        self.served = true;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let _ = self.end.send(self.served);
    }
}

/// What is done from time to time.
#[derive(Clone)]
pub(crate) struct Action {
    pub(crate) period: Duration,
    pub(crate) act: Arc<dyn Fn() + Send + Sync>,
}

struct DueAction {
    interval: Interval,
    act: Arc<dyn Fn() + Send + Sync>,
}

impl DueAction {
    /// Shorter periods would leave no time for what comes.
    const SHORTEST: Duration = Duration::from_millis(1);
    /// Within what clocks can add, and longer than a server runs.
    const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

    fn new(action: &Action) -> Self {
        let period = action.period.clamp(Self::SHORTEST, Self::LONGEST);
        let mut interval = tokio::time::interval_at(Instant::now() + period, period);
        interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
        Self {
            interval,
            act: Arc::clone(&action.act),
        }
    }
}

async fn act(action: &mut Option<DueAction>) {
    match action {
        Some(action) => {
            action.interval.tick().await;
            if let Err(message) = caught_call(|| (action.act)()) {
                tracing::error!("the periodic action panicked: {message}");
            }
        }
        None => std::future::pending().await,
    }
}

/// When the next one may be asked for: once there is a place, and some time
/// after an error. It keeps what a dropped future had got so far.
pub(crate) struct Pacing {
    places: Places,
    place: Option<Place>,
    backoff: Backoff,
    /// It goes on then, after an error.
    resume: Option<Instant>,
}

impl Pacing {
    pub(crate) fn new(places: Places) -> Self {
        Self {
            places,
            place: None,
            backoff: Backoff::new(),
            resume: None,
        }
    }

    /// Waits until the next one may be asked for. Dropping the future is safe.
    pub(crate) async fn ready(&mut self) {
        if let Some(resume) = self.resume {
            tokio::time::sleep_until(resume).await;
            self.resume = None;
        }
        if self.place.is_none() {
            self.place = Some(self.places.take().await);
        }
    }

    /// One has come.
    pub(crate) fn succeeded(&mut self) {
        self.backoff = Backoff::new();
    }

    /// Its place.
    pub(crate) fn take_place(&mut self) -> Place {
        self.place.take().flatten()
    }

    /// None has come: what concerns one peer is passed over, the rest waited for.
    pub(crate) fn failed(&mut self, error: &io::Error, endpoint: &Endpoint) {
        if concerns_one_peer(error) {
            return;
        }
        let pause = self.backoff.next();
        tracing::warn!(%endpoint, %error, ?pause, "cannot accept for now");
        self.resume = Some(Instant::now() + pause);
    }
}

/// What is done for one peer, and who hears how it failed.
pub(crate) struct Work<H> {
    pub(crate) peer: Peer,
    /// What the service does. Boxed, for each future around it would hold it
    /// twice: as what it was given and as what it awaits.
    pub(crate) serving: Serving,
    /// Hears how it failed.
    pub(crate) failed: H,
    pub(crate) deadline: Option<Duration>,
    pub(crate) place: Place,
    pub(crate) ticket: Option<Ticket>,
}

/// What a service does for one peer.
pub(crate) type Serving = Pin<Box<dyn Future<Output = Result<(), ServiceError>> + Send>>;

impl<H> Work<H>
where
    H: Fn(&Peer, &Failure) + Send + Clone + 'static,
{
    /// Does it as a task of the drain's.
    pub(crate) fn launch(self, places: Places, drain: &Drain) {
        let Self {
            peer,
            serving,
            failed,
            deadline,
            place,
            ticket,
        } = self;
        drain.track_peer(peer.clone(), async move {
            let no_thread = (peer.clone(), failed.clone());
            // Boxed for the reason that `serving` is.
            let work = Box::pin(async move {
                if let Err(failure) = supervised(serving, deadline).await {
                    failed(&peer, &failure);
                }
            });
            if let Err(error) = places.run(work).await {
                let (peer, failed) = no_thread;
                failed(&peer, &Failure::NoThread(error));
            }
            drop(place);
            if let Some(ticket) = ticket {
                ticket.served();
            }
        });
    }
}

async fn supervised(serving: Serving, deadline: Option<Duration>) -> Result<(), Failure> {
    let serving = caught(serving);
    let end = match deadline {
        None => serving.await,
        Some(deadline) => tokio::time::timeout(deadline, serving)
            .await
            .map_err(|_| Failure::Deadline(deadline))?,
    };
    end.map_err(Failure::Panic)?.map_err(Failure::Error)
}

/// Errors of a connection that broke before it was accepted; see accept(2), "Error handling".
fn concerns_one_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::TimedOut
    )
}

struct Backoff(Duration);

impl Backoff {
    const FIRST: Duration = Duration::from_millis(10);
    const LONGEST: Duration = Duration::from_secs(1);

    fn new() -> Self {
        Self(Self::FIRST)
    }

    fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(Self::LONGEST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_a_second() {
        let mut backoff = Backoff::new();
        let pauses: Vec<u128> = (0..9).map(|_| backoff.next().as_millis()).collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
    }
}
