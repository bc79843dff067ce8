//! Who is there: the live sessions and what they are doing, and the limit on
//! sessions of one account.
//!
//! A session holds a [`LiveSession`], its login a [`LoginSlot`], each of its
//! transfers a [`LiveTransfer`]; dropping one takes it off the registry.
//! Administration looks through [`Registry::sessions`].

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::time::Instant;
use wharf_model::{AccountId, AccountName, SessionId, VirtualPath};

use crate::door::Protocol;
use crate::transfer::Progress;

/// The sessions of a server. Cheap to clone; all clones are one registry.
#[derive(Debug, Clone, Default)]
pub struct Registry(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    last_session: AtomicU64,
    last_transfer: AtomicU64,
    // The lock makes "compare, then add" one step; never held across an await.
    // Invariant: no value is 0.
    logins: Mutex<HashMap<AccountId, usize>>,
    // Sessions come and go on every thread; never held across an await, and
    // no other lock is taken under it.
    live: Mutex<BTreeMap<SessionId, Arc<Record>>>,
}

/// What is known about a live session.
#[derive(Debug)]
struct Record {
    protocol: Protocol,
    peer: SocketAddr,
    started: Instant,
    kick: Kick,
    // The session writes it and administration reads it; never held across an await.
    state: Mutex<State>,
}

/// What asks a session to end: a flag, and who waits for it. The waiter is polled whenever its task is
/// woken, by each command, so it takes no lock.
#[derive(Debug, Default)]
struct Kick {
    given: AtomicBool,
    waiter: AtomicWaker,
}

impl Kick {
    fn give(&self) {
        self.given.store(true, Ordering::Release);
        self.waiter.wake();
    }

    fn is_given(&self) -> bool {
        self.given.load(Ordering::Acquire)
    }

    async fn felt(&self) {
        poll_fn(|context| {
            // Before the flag is read, so that a kick between the two wakes this.
            self.waiter.register(context.waker());
            match self.is_given() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }
}

#[derive(Debug)]
struct State {
    account: Option<AccountName>,
    encrypted: bool,
    last_active: Instant,
    transfers: BTreeMap<u64, Transfer>,
}

#[derive(Debug, Clone)]
struct Transfer {
    direction: Direction,
    subject: Subject,
    total: Option<u64>,
    started: Instant,
    progress: Arc<Progress>,
}

impl Registry {
    /// Nobody is there.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in a session that has just been connected. Numbers start at 1.
    pub fn enter(&self, protocol: Protocol, peer: SocketAddr) -> LiveSession {
        let id = SessionId(self.0.last_session.fetch_add(1, Ordering::Relaxed) + 1);
        let now = Instant::now();
        let record = Arc::new(Record {
            protocol,
            peer,
            started: now,
            kick: Kick::default(),
            state: Mutex::new(State {
                account: None,
                encrypted: false,
                last_active: now,
                transfers: BTreeMap::new(),
            }),
        });
        locked(&self.0.live).insert(id, Arc::clone(&record));
        LiveSession {
            registry: self.clone(),
            id,
            record,
        }
    }

    /// How many sessions there have been.
    pub fn sessions_so_far(&self) -> u64 {
        self.0.last_session.load(Ordering::Relaxed)
    }

    /// The live sessions, in the order in which they came.
    pub fn sessions(&self) -> Vec<SessionView> {
        let live: Vec<_> = locked(&self.0.live)
            .iter()
            .map(|(id, record)| (*id, Arc::clone(record)))
            .collect();
        live.iter().map(|(id, record)| record.view(*id)).collect()
    }

    /// Asks a session to end. It stops its transfers as a broken connection
    /// would, so that they can be resumed. `false` if there is no such session.
    pub fn kick(&self, id: SessionId) -> bool {
        let record = locked(&self.0.live).get(&id).map(Arc::clone);
        record.is_some_and(|record| {
            record.kick.give();
            true
        })
    }

    /// Counts a login of `account`, unless `limit` sessions of it are there
    /// already. The place is free again when the slot is dropped.
    pub fn log_in(&self, account: AccountId, limit: usize) -> Option<LoginSlot> {
        let mut logins = locked(&self.0.logins);
        let count = logins.get(&account).copied().unwrap_or(0);
        if count >= limit {
            return None;
        }
        logins.insert(account, count + 1);
        drop(logins);
        Some(LoginSlot {
            registry: self.clone(),
            account,
        })
    }
}

impl Record {
    fn view(&self, id: SessionId) -> SessionView {
        let now = Instant::now();
        let state = locked(&self.state);
        SessionView {
            id,
            protocol: self.protocol,
            peer: self.peer,
            account: state.account.clone(),
            encrypted: state.encrypted,
            connected: now.saturating_duration_since(self.started),
            idle: now.saturating_duration_since(state.last_active),
            transfers: state
                .transfers
                .iter()
                .map(|(id, transfer)| transfer.view(*id, now))
                .collect(),
        }
    }
}

impl Transfer {
    fn view(&self, id: u64, now: Instant) -> TransferView {
        TransferView {
            id,
            direction: self.direction,
            subject: self.subject.clone(),
            bytes: self.progress.bytes(),
            total: self.total,
            running: now.saturating_duration_since(self.started),
        }
    }
}

/// A session's hold on its place in the registry.
#[derive(Debug)]
pub struct LiveSession {
    registry: Registry,
    id: SessionId,
    record: Arc<Record>,
}

impl LiveSession {
    /// Its number.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// The other end.
    pub fn peer(&self) -> SocketAddr {
        self.record.peer
    }

    /// Notes who has logged in; `None` for nobody any more.
    pub fn set_account(&self, account: Option<&AccountName>) {
        locked(&self.record.state).account = account.cloned();
    }

    /// Notes whether the connection is encrypted.
    pub fn set_encrypted(&self, encrypted: bool) {
        locked(&self.record.state).encrypted = encrypted;
    }

    /// Notes that the client has asked for something.
    pub fn note_activity(&self, now: Instant) {
        locked(&self.record.state).last_active = now;
    }

    /// Waits until the session is asked to end. Of several tasks that wait, only the one that did so
    /// last is woken. Dropping the future is safe.
    pub async fn kicked(&self) {
        self.record.kick.felt().await;
    }

    /// Whether the session was asked to end.
    pub fn is_kicked(&self) -> bool {
        self.record.kick.is_given()
    }

    /// Where its transfers are taken in.
    pub fn transfers(&self) -> Transfers {
        Transfers {
            registry: self.registry.clone(),
            record: Arc::clone(&self.record),
        }
    }

    /// As [`Transfers::begin`].
    pub fn transfer(
        &self,
        direction: Direction,
        path: VirtualPath,
        total: Option<u64>,
        progress: Arc<Progress>,
    ) -> LiveTransfer {
        let subject = Subject::Path(path);
        self.transfers().begin(direction, subject, total, progress)
    }
}

impl Drop for LiveSession {
    fn drop(&mut self) {
        locked(&self.registry.0.live).remove(&self.id);
    }
}

/// Where the transfers of a session are taken in. Cheap to clone; once the session has ended,
/// nobody sees what it takes in.
#[derive(Debug, Clone)]
pub struct Transfers {
    registry: Registry,
    record: Arc<Record>,
}

impl Transfers {
    /// Those of a session that nobody sees.
    pub fn unseen() -> Self {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Registry::new().enter(Protocol::Ssh, nowhere).transfers()
    }

    /// Takes in a transfer. `total` is how many bytes it will move, where that
    /// is known; `progress` is where its pump counts.
    pub fn begin(
        &self,
        direction: Direction,
        subject: Subject,
        total: Option<u64>,
        progress: Arc<Progress>,
    ) -> LiveTransfer {
        let id = self
            .registry
            .0
            .last_transfer
            .fetch_add(1, Ordering::Relaxed)
            + 1;
        let transfer = Transfer {
            direction,
            subject,
            total,
            started: Instant::now(),
            progress,
        };
        locked(&self.record.state).transfers.insert(id, transfer);
        LiveTransfer {
            record: Arc::clone(&self.record),
            id,
        }
    }
}

/// A transfer's hold on its place in the registry.
#[derive(Debug)]
pub struct LiveTransfer {
    record: Arc<Record>,
    id: u64,
}

impl Drop for LiveTransfer {
    fn drop(&mut self) {
        let mut state = locked(&self.record.state);
        state.transfers.remove(&self.id);
        state.last_active = Instant::now();
    }
}

/// Which way bytes move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client into a file.
    Upload,
    /// From a file to the client.
    Download,
    /// The entries of a directory, to the client.
    Listing,
    /// Input and output of a command that runs.
    Command,
}

/// What a transfer moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A file or directory.
    Path(VirtualPath),
    /// What goes into a command line and comes out of it: the line, escaped, and cut where it
    /// is long.
    Command(String),
}

impl Subject {
    /// A command line, as [`wharf_model::cut_for_display`] shows it.
    pub fn command(line: &[u8]) -> Self {
        Self::Command(wharf_model::cut_for_display(line))
    }
}

/// A live session, as of one moment.
#[derive(Debug, Clone)]
pub struct SessionView {
    /// Its number.
    pub id: SessionId,
    /// What it speaks.
    pub protocol: Protocol,
    /// The other end.
    pub peer: SocketAddr,
    /// Who is logged in.
    pub account: Option<AccountName>,
    /// Whether the control connection is encrypted.
    pub encrypted: bool,
    /// Since when it is there.
    pub connected: Duration,
    /// Since when nothing was asked for.
    pub idle: Duration,
    /// What moves, in the order in which it began.
    pub transfers: Vec<TransferView>,
}

/// A running transfer, as of one moment.
#[derive(Debug, Clone)]
pub struct TransferView {
    /// Its number, unique within the process.
    pub id: u64,
    /// Which way.
    pub direction: Direction,
    /// The file, directory or command.
    pub subject: Subject,
    /// Bytes moved so far.
    pub bytes: u64,
    /// Bytes to move in all, where that is known.
    pub total: Option<u64>,
    /// Since when it runs.
    pub running: Duration,
}

/// One counted login.
#[derive(Debug)]
pub struct LoginSlot {
    registry: Registry,
    account: AccountId,
}

impl Drop for LoginSlot {
    fn drop(&mut self) {
        if let Entry::Occupied(mut entry) = locked(&self.registry.0.logins).entry(self.account) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

/// What these locks guard is whole between any two statements, also after a panic.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], 40_000))
    }

    #[test]
    fn logins_of_one_account_stop_at_the_limit_and_others_do_not_count() {
        let registry = Registry::new();
        let first = registry.log_in(AccountId(1), 2).expect("free");
        let _second = registry.log_in(AccountId(1), 2).expect("free");
        assert!(registry.log_in(AccountId(1), 2).is_none());
        assert!(registry.log_in(AccountId(2), 2).is_some());
        drop(first);
        assert!(registry.log_in(AccountId(1), 2).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_shows_who_it_is_and_what_it_moves_and_is_forgotten_at_its_end() {
        let registry = Registry::new();
        let session = registry.enter(Protocol::Ftp, peer());
        session.set_account(Some(&"alice".parse().expect("a name")));
        session.set_encrypted(true);
        let progress = Arc::new(Progress::default());
        let path = VirtualPath::parse(b"/video.mp4").expect("a path");
        let transfer = session.transfer(
            Direction::Upload,
            path.clone(),
            Some(500),
            Arc::clone(&progress),
        );
        progress.add(120);
        tokio::time::advance(Duration::from_secs(3)).await;

        let [view] = &registry.sessions()[..] else {
            panic!("one session")
        };
        assert_eq!((view.id, view.peer), (SessionId(1), peer()));
        assert_eq!(
            view.account.as_ref().map(AccountName::as_str),
            Some("alice")
        );
        assert!(view.encrypted);
        assert_eq!(view.idle, Duration::from_secs(3));
        let [moving] = &view.transfers[..] else {
            panic!("one transfer")
        };
        assert_eq!((moving.bytes, moving.total), (120, Some(500)));
        assert_eq!(moving.subject, Subject::Path(path));
        assert_eq!(moving.running, view.connected);

        drop(transfer);
        let idle = registry.sessions();
        assert!(idle[0].transfers.is_empty());
        // The end of a transfer is activity: the client has waited for it.
        assert_eq!(idle[0].idle, Duration::ZERO);
        drop(session);
        assert!(registry.sessions().is_empty());
        assert_eq!(registry.sessions_so_far(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_kick_reaches_its_session_and_no_other() {
        let registry = Registry::new();
        let first = registry.enter(Protocol::Ftp, peer());
        let second = registry.enter(Protocol::Ftp, peer());
        let (elsewhere, id) = (registry.clone(), second.id());
        // It begins once this waits.
        let kick = tokio::spawn(async move { elsewhere.kick(id) });
        let began = Instant::now();
        let kicked = tokio::time::timeout(Duration::from_secs(60), second.kicked());
        kicked.await.expect("kicked");
        // Nothing but the kick has woken it.
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert!(kick.await.expect("no panic"));
        second.kicked().await;
        assert!(futures_util::FutureExt::now_or_never(first.kicked()).is_none());
        assert!(!registry.kick(SessionId(3)));
    }
}
