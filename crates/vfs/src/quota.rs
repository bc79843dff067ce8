//! The ledger: how much a home holds, exactly, at every moment.
//!
//! Everything on the disk is charged, staged objects included. An upload that
//! will replace a file has the file's size as credit, but never more than it
//! has staged itself, so that what is visible cannot pass the limit however
//! uploads interleave: `charged - credit <= limit` holds after every step.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use wharf_model::{QuotaKind, QuotaLimits, Refusal, Usage};

/// Where a home's usage is kept between runs of the server.
pub trait UsageJournal: Send + Sync + 'static {
    /// Notes durably that the home is about to change, so that its stored usage is not to be trusted.
    fn mark_dirty(&self) -> BoxFuture<'_, Result<(), Refusal>>;

    /// Stores `usage` and notes that it is what the disk holds.
    fn save(&self, usage: Usage) -> BoxFuture<'_, Result<(), Refusal>>;
}

/// Keeps nothing: for homes that are counted anew each time, or go with the process.
#[derive(Debug, Clone, Copy)]
pub struct NoJournal;

impl UsageJournal for NoJournal {
    fn mark_dirty(&self) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn save(&self, _usage: Usage) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// One home's account of what it holds; shared by all sessions on it.
pub struct Ledger {
    // Makes "compare, then charge" one step; never held across an await.
    state: Mutex<State>,
    /// Operations that may change the home right now.
    active: AtomicUsize,
    /// How many activities have begun so far: whether there was one meanwhile.
    begun: AtomicUsize,
    /// Whether something has written that was not charged, and nothing has counted since.
    doubtful: AtomicBool,
    /// Whether the journal says dirty: a look before the lock below is taken.
    dirty: AtomicBool,
    /// Orders `mark_dirty` and `save`; held across both by design.
    journal: tokio::sync::Mutex<Box<dyn UsageJournal>>,
}

#[derive(Default)]
struct State {
    charged: Usage,
    credit: Usage,
}

impl Ledger {
    /// A ledger that starts at `usage`. `dirty` says whether the journal
    /// already distrusts its own number.
    pub fn new(usage: Usage, dirty: bool, journal: Box<dyn UsageJournal>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                charged: usage,
                credit: Usage::ZERO,
            }),
            active: AtomicUsize::new(0),
            begun: AtomicUsize::new(0),
            doubtful: AtomicBool::new(false),
            dirty: AtomicBool::new(dirty),
            journal: tokio::sync::Mutex::new(journal),
        })
    }

    /// What the home holds now, staged objects included.
    pub fn usage(&self) -> Usage {
        self.lock().charged
    }

    /// Must be held by everything that changes the home. The journal is marked
    /// dirty before the first change since its last clean save, so that no
    /// crash leaves a number that is trusted and wrong.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub async fn begin(self: &Arc<Self>) -> Result<Activity, Refusal> {
        let activity = Activity::new(Arc::clone(self));
        if !self.dirty.load(Ordering::SeqCst) {
            let journal = self.journal.lock().await;
            if !self.dirty.load(Ordering::SeqCst) {
                journal.mark_dirty().await?;
                self.dirty.store(true, Ordering::SeqCst);
            }
        }
        Ok(activity)
    }

    /// Must be held by what changes the home without charging it, such as a process. The
    /// usage is doubtful from then on, and not saved until a count finds the home quiet.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub async fn begin_foreign(self: &Arc<Self>) -> Result<ForeignActivity, Refusal> {
        let activity = self.begin().await?;
        self.doubtful.store(true, Ordering::SeqCst);
        Ok(ForeignActivity {
            _activity: activity,
        })
    }

    /// Whether the usage must be counted, and nothing is changing the home.
    pub(crate) fn awaits_count(&self) -> bool {
        self.doubtful.load(Ordering::SeqCst) && self.active.load(Ordering::SeqCst) == 0
    }

    /// Takes over what `count` finds in the home, staged objects included; that usage. Where
    /// the home changes meanwhile it is as good a number as there is, and stays doubtful.
    ///
    /// # Errors
    /// Those of `count`; then nothing has changed.
    pub(crate) async fn recount(
        &self,
        count: impl Future<Output = Result<Usage, Refusal>>,
    ) -> Result<Usage, Refusal> {
        let begun = self.begun.load(Ordering::SeqCst);
        let is_quiet = self.active.load(Ordering::SeqCst) == 0;
        let counted = count.await?;
        let mut state = self.lock();
        state.charged = counted;
        // Whatever begins from here on charges on top of it.
        if is_quiet && self.begun.load(Ordering::SeqCst) == begun {
            self.doubtful.store(false, Ordering::SeqCst);
        }
        Ok(counted)
    }

    /// Saves the usage as clean if it is known and nothing is changing the home. Called from
    /// time to time.
    ///
    /// # Errors
    /// The journal cannot be written; the ledger stays dirty.
    pub async fn settle(&self) -> Result<(), Refusal> {
        if !self.dirty.load(Ordering::SeqCst)
            || self.active.load(Ordering::SeqCst) > 0
            || self.doubtful.load(Ordering::SeqCst)
        {
            return Ok(());
        }
        let journal = self.journal.lock().await;
        // From here on a new activity waits for the journal before it changes anything ...
        self.dirty.store(false, Ordering::SeqCst);
        // ... unless it looked just before; then it is counted by now.
        if self.active.load(Ordering::SeqCst) > 0 || self.doubtful.load(Ordering::SeqCst) {
            self.dirty.store(true, Ordering::SeqCst);
            return Ok(());
        }
        let saved = journal.save(self.usage()).await;
        if saved.is_err() {
            self.dirty.store(true, Ordering::SeqCst);
        }
        saved
    }

    /// Opens an account for one change: what it charges and what it will release.
    pub(crate) fn claim(self: &Arc<Self>, limits: QuotaLimits, activity: Activity) -> Claim {
        Claim {
            ledger: Arc::clone(self),
            limits,
            charged: Usage::ZERO,
            expected: Usage::ZERO,
            _activity: activity,
        }
    }

    /// Takes away what was removed.
    pub(crate) fn release(&self, removed: Usage) {
        let mut state = self.lock();
        state.charged = state.charged.saturating_sub(removed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts one operation that may change the home, until it is dropped.
pub struct Activity(Arc<Ledger>);

impl Activity {
    fn new(ledger: Arc<Ledger>) -> Self {
        ledger.active.fetch_add(1, Ordering::SeqCst);
        ledger.begun.fetch_add(1, Ordering::SeqCst);
        Self(ledger)
    }
}

impl Drop for Activity {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Counts one thing that changes the home behind the ledger's back, until it is dropped.
pub struct ForeignActivity {
    _activity: Activity,
}

/// One change's part of the ledger. Dropping it gives up its credit and keeps
/// its charge: what was written is on the disk until somebody says otherwise.
pub(crate) struct Claim {
    ledger: Arc<Ledger>,
    limits: QuotaLimits,
    /// What this change has put on the disk.
    charged: Usage,
    /// What it will release at the end. Invariant: the ledger's credit contains
    /// `min(expected, charged)` of it, field by field.
    expected: Usage,
    _activity: Activity,
}

impl Claim {
    /// Expects to release `usage` at the end.
    pub(crate) fn expect_release(&mut self, usage: Usage) {
        let mut state = self.ledger.lock();
        let before = smaller(self.expected, self.charged);
        let after = smaller(usage, self.charged);
        state.credit = state.credit.saturating_sub(before) + after;
        drop(state);
        self.expected = usage;
    }

    /// Whether `usage` more would fit now; charges nothing.
    ///
    /// # Errors
    /// [`Refusal::OverQuota`].
    pub(crate) fn would_fit(&self, usage: Usage) -> Result<(), Refusal> {
        let state = self.ledger.lock();
        self.check(&state, usage).map(|_| ())
    }

    /// Charges `usage`, before it is put on the disk.
    ///
    /// # Errors
    /// [`Refusal::OverQuota`]; then nothing is charged.
    pub(crate) fn reserve(&mut self, usage: Usage) -> Result<(), Refusal> {
        let mut state = self.ledger.lock();
        let next = self.check(&state, usage)?;
        *state = next;
        drop(state);
        self.charged += usage;
        Ok(())
    }

    fn check(&self, state: &State, more: Usage) -> Result<State, Refusal> {
        let before = smaller(self.expected, self.charged);
        let after = smaller(self.expected, self.charged + more);
        let next = State {
            charged: state.charged + more,
            credit: state.credit.saturating_sub(before) + after,
        };
        fits(&next, self.limits, more)?;
        Ok(next)
    }

    /// Gives back what was charged and is not on the disk after all.
    pub(crate) fn refund(&mut self, usage: Usage) {
        let before = smaller(self.expected, self.charged);
        self.charged = self.charged.saturating_sub(usage);
        let after = smaller(self.expected, self.charged);
        let mut state = self.ledger.lock();
        state.charged = state.charged.saturating_sub(usage);
        state.credit = state.credit.saturating_sub(before) + after;
    }

    /// Takes away what was there before the change, and is gone already.
    pub(crate) fn release(&self, removed: Usage) {
        self.ledger.release(removed);
    }

    /// Takes over what is charged already, such as a parked part.
    pub(crate) fn adopt(&mut self, usage: Usage) {
        let before = smaller(self.expected, self.charged);
        self.charged += usage;
        let after = smaller(self.expected, self.charged);
        let mut state = self.ledger.lock();
        state.credit = state.credit.saturating_sub(before) + after;
    }

    /// Whether the change may end by taking away `released`, which is what it takes away in
    /// truth; from here on it expects that. What was to be replaced may have become
    /// smaller meanwhile.
    ///
    /// # Errors
    /// [`Refusal::OverQuota`]; then nothing has changed.
    pub(crate) fn admit(&mut self, released: Usage) -> Result<(), Refusal> {
        let mut state = self.ledger.lock();
        let credit_of_others = state
            .credit
            .saturating_sub(smaller(self.expected, self.charged));
        let after = State {
            charged: state.charged.saturating_sub(released),
            credit: credit_of_others,
        };
        fits(&after, self.limits, self.charged.saturating_sub(released))?;
        state.credit = credit_of_others + smaller(released, self.charged);
        drop(state);
        self.expected = released;
        Ok(())
    }

    /// Ends the change: of its charge `held` is still on the disk, and `released` went.
    pub(crate) fn settle(&mut self, held: Usage, released: Usage) {
        let mut state = self.ledger.lock();
        state.credit = state
            .credit
            .saturating_sub(smaller(self.expected, self.charged));
        state.charged = (state.charged + held).saturating_sub(self.charged + released);
        drop(state);
        self.expected = Usage::ZERO;
        self.charged = Usage::ZERO;
    }

    /// What it has charged so far.
    pub(crate) fn charged(&self) -> Usage {
        self.charged
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let credit = smaller(self.expected, self.charged);
        let mut state = self.ledger.lock();
        state.credit = state.credit.saturating_sub(credit);
    }
}

/// Whether the limits hold. Only what grew is judged: an account that is over
/// a limit that was lowered can still delete and rename.
fn fits(state: &State, limits: QuotaLimits, growth: Usage) -> Result<(), Refusal> {
    let net = state.charged.saturating_sub(state.credit);
    if growth.bytes > 0 && limits.bytes.is_some_and(|limit| net.bytes > limit) {
        return Err(Refusal::OverQuota(QuotaKind::Bytes));
    }
    if growth.files > 0 && limits.files.is_some_and(|limit| net.files > limit) {
        return Err(Refusal::OverQuota(QuotaKind::Files));
    }
    Ok(())
}

fn smaller(a: Usage, b: Usage) -> Usage {
    Usage {
        bytes: a.bytes.min(b.bytes),
        files: a.files.min(b.files),
    }
}

/// What is used, what may be, and what the storage has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaReport {
    /// Used now.
    pub usage: Usage,
    /// The account's limits.
    pub limits: QuotaLimits,
    /// Bytes free on the storage, where it knows.
    pub storage_free: Option<u64>,
}

impl QuotaReport {
    /// Bytes that may still be written: the smaller of quota and storage.
    pub fn bytes_left(&self) -> u64 {
        let quota = self
            .limits
            .bytes
            .map(|limit| limit.saturating_sub(self.usage.bytes));
        let free = self.storage_free.unwrap_or(u64::MAX);
        quota.unwrap_or(u64::MAX).min(free)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Counts what is asked of it.
    #[derive(Default, Clone)]
    pub(crate) struct Memory(pub(crate) Arc<Mutex<Vec<String>>>);

    impl UsageJournal for Memory {
        fn mark_dirty(&self) -> BoxFuture<'_, Result<(), Refusal>> {
            self.0.lock().expect("lock").push("dirty".to_owned());
            Box::pin(async { Ok(()) })
        }

        fn save(&self, usage: Usage) -> BoxFuture<'_, Result<(), Refusal>> {
            self.0
                .lock()
                .expect("lock")
                .push(format!("{} {}", usage.bytes, usage.files));
            Box::pin(async { Ok(()) })
        }
    }

    fn usage(bytes: u64, files: u64) -> Usage {
        Usage { bytes, files }
    }

    const LIMIT: QuotaLimits = QuotaLimits {
        bytes: Some(100),
        files: Some(3),
    };

    fn ledger(start: Usage) -> (Arc<Ledger>, Memory) {
        let journal = Memory::default();
        (
            Ledger::new(start, false, Box::new(journal.clone())),
            journal,
        )
    }

    async fn claim(ledger: &Arc<Ledger>) -> Claim {
        let activity = ledger.begin().await.expect("a journal");
        ledger.claim(LIMIT, activity)
    }

    #[tokio::test]
    async fn an_overwrite_counts_only_the_difference() {
        let (ledger, _) = ledger(usage(90, 1));
        let mut upload = claim(&ledger).await;
        upload.expect_release(usage(90, 1));
        upload.reserve(usage(100, 1)).expect("fits with the credit");
        assert!(upload.reserve(usage(1, 0)).is_err());
        upload.admit(usage(90, 1)).expect("fits");
        upload.settle(usage(100, 1), usage(90, 1));
        assert_eq!(ledger.usage(), usage(100, 1));
    }

    #[tokio::test]
    async fn credit_of_an_upload_that_has_staged_nothing_buys_nobody_space() {
        let (ledger, _) = ledger(usage(100, 1));
        let mut overwrite = claim(&ledger).await;
        overwrite.expect_release(usage(100, 1));
        let mut other = claim(&ledger).await;
        assert!(other.reserve(usage(1, 1)).is_err());
        overwrite.reserve(usage(60, 1)).expect("has credit");
        assert!(other.reserve(usage(1, 1)).is_err());
    }

    #[tokio::test]
    async fn a_commit_that_replaces_less_than_expected_is_refused() {
        let (ledger, _) = ledger(usage(80, 1));
        let mut upload = claim(&ledger).await;
        upload.expect_release(usage(80, 1));
        upload.reserve(usage(50, 1)).expect("fits with the credit");
        // Somebody deletes the file and somebody else fills the space.
        ledger.release(usage(80, 1));
        let mut other = claim(&ledger).await;
        other
            .reserve(usage(100, 1))
            .expect("fits: what is staged is credited");
        other.admit(Usage::ZERO).expect("fits");
        other.settle(usage(100, 1), Usage::ZERO);
        drop(other);
        assert!(upload.admit(Usage::ZERO).is_err());
        upload.settle(Usage::ZERO, Usage::ZERO);
        assert_eq!(ledger.usage(), usage(100, 1));
    }

    #[tokio::test]
    async fn the_file_limit_counts_entries() {
        let (ledger, _) = ledger(usage(0, 2));
        let mut first = claim(&ledger).await;
        first.reserve(usage(0, 1)).expect("the third");
        let mut second = claim(&ledger).await;
        assert!(matches!(
            second.reserve(usage(0, 1)),
            Err(Refusal::OverQuota(QuotaKind::Files))
        ));
    }

    #[tokio::test]
    async fn the_journal_is_dirty_before_a_change_and_clean_only_when_nothing_changes() {
        let (ledger, journal) = ledger(usage(5, 1));
        let mut change = claim(&ledger).await;
        change.reserve(usage(1, 0)).expect("fits");
        ledger.settle().await.expect("nothing to do");
        assert_eq!(*journal.0.lock().expect("lock"), ["dirty"]);
        drop(change);
        ledger.settle().await.expect("saves");
        ledger.settle().await.expect("nothing to do");
        assert_eq!(*journal.0.lock().expect("lock"), ["dirty", "6 1"]);
        let _again = ledger.begin().await.expect("a journal");
        assert_eq!(*journal.0.lock().expect("lock"), ["dirty", "6 1", "dirty"]);
    }

    #[tokio::test]
    async fn what_was_not_charged_is_doubtful_until_a_count_finds_the_home_quiet() {
        let (ledger, journal) = ledger(usage(5, 1));
        let told = || journal.0.lock().expect("lock").clone();
        let process = ledger.begin_foreign().await.expect("a journal");
        assert_eq!(told(), ["dirty"]);
        // In between, for those who ask meanwhile.
        let counted = ledger.recount(async { Ok(usage(50, 2)) }).await;
        assert_eq!(counted.expect("counts"), usage(50, 2));
        assert_eq!(ledger.usage(), usage(50, 2));
        assert!(!ledger.awaits_count(), "the process writes still");
        drop(process);
        ledger.settle().await.expect("nothing to do");
        assert_eq!(told(), ["dirty"]);
        assert!(ledger.awaits_count());

        // Something else begins and ends while the home is counted: it may have been seen or not.
        let disturbed = async {
            drop(ledger.begin().await.expect("a journal"));
            Ok(usage(60, 2))
        };
        ledger.recount(disturbed).await.expect("counts");
        assert!(ledger.awaits_count());
        ledger
            .recount(async { Ok(usage(70, 3)) })
            .await
            .expect("counts");
        assert!(!ledger.awaits_count());
        ledger.settle().await.expect("saves");
        assert_eq!(told(), ["dirty", "70 3"]);
    }

    #[test]
    fn parallel_reservations_never_pass_the_limit() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        let (ledger, _) = ledger(Usage::ZERO);
        let claims: Vec<Claim> = (0..8).map(|_| runtime.block_on(claim(&ledger))).collect();
        std::thread::scope(|scope| {
            for mut claim in claims {
                let ledger = &ledger;
                scope.spawn(move || {
                    for _ in 0..1000 {
                        if claim.reserve(usage(7, 0)).is_ok() {
                            assert!(ledger.usage().bytes <= 100);
                            claim.refund(usage(7, 0));
                        }
                    }
                });
            }
        });
        assert_eq!(ledger.usage(), Usage::ZERO);
    }

    /// A journal whose saves wait until they are let go.
    #[derive(Default)]
    struct Slow {
        told: Arc<Mutex<Vec<&'static str>>>,
        saving: Arc<tokio::sync::Notify>,
        let_go: Arc<tokio::sync::Notify>,
    }

    impl UsageJournal for Slow {
        fn mark_dirty(&self) -> BoxFuture<'_, Result<(), Refusal>> {
            self.told.lock().expect("lock").push("dirty");
            Box::pin(async { Ok(()) })
        }

        fn save(&self, _usage: Usage) -> BoxFuture<'_, Result<(), Refusal>> {
            Box::pin(async {
                self.saving.notify_one();
                self.let_go.notified().await;
                self.told.lock().expect("lock").push("clean");
                Ok(())
            })
        }
    }

    #[tokio::test]
    async fn a_change_that_starts_during_a_save_marks_the_journal_dirty_after_it() {
        let journal = Slow::default();
        let (told, saving) = (Arc::clone(&journal.told), Arc::clone(&journal.saving));
        let let_go = Arc::clone(&journal.let_go);
        let ledger = Ledger::new(Usage::ZERO, true, Box::new(journal));
        let settling = tokio::spawn({
            let ledger = Arc::clone(&ledger);
            async move { ledger.settle().await }
        });
        saving.notified().await;
        let beginning = tokio::spawn({
            let ledger = Arc::clone(&ledger);
            async move { ledger.begin().await.map(drop) }
        });
        tokio::task::yield_now().await;
        assert!(!beginning.is_finished());
        let_go.notify_one();
        settling.await.expect("ends").expect("saves");
        beginning.await.expect("ends").expect("marks");
        assert_eq!(*told.lock().expect("lock"), ["clean", "dirty"]);
    }

    #[tokio::test]
    async fn a_save_that_is_given_up_leaves_the_next_change_to_mark_the_journal() {
        let journal = Slow::default();
        let (told, saving) = (Arc::clone(&journal.told), Arc::clone(&journal.saving));
        let ledger = Ledger::new(Usage::ZERO, true, Box::new(journal));
        let settling = tokio::spawn({
            let ledger = Arc::clone(&ledger);
            async move { ledger.settle().await }
        });
        saving.notified().await;
        settling.abort();
        assert!(settling.await.is_err());
        ledger.begin().await.map(drop).expect("marks");
        assert_eq!(*told.lock().expect("lock"), ["dirty"]);
    }

    /// One step of a few uploads that run at the same time.
    #[derive(Debug, Clone)]
    enum Step {
        Reserve(usize, u64),
        Commit(usize),
        Discard(usize),
        Remove(usize),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0_usize..4, 0_u64..60).prop_map(|(upload, bytes)| Step::Reserve(upload, bytes)),
            1 => (0_usize..4).prop_map(Step::Commit),
            1 => (0_usize..4).prop_map(Step::Discard),
            1 => (0_usize..4).prop_map(Step::Remove),
        ]
    }

    proptest! {
        /// Four files and an upload to each, in any order of events: what is visible
        /// never passes the limit, and the ledger says what is visible and staged.
        #[test]
        fn however_uploads_interleave_what_is_visible_stays_within_the_limit(
            sizes in proptest::array::uniform4(0_u64..25),
            steps in proptest::collection::vec(any_step(), 1..60),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let mut files = sizes;
            let (ledger, _) = ledger(usage(files.iter().sum(), 0));
            let mut uploads: [Option<(Claim, u64)>; 4] = Default::default();
            for step in steps {
                match step {
                    Step::Reserve(at, more) => {
                        let (upload, staged) = uploads[at].get_or_insert_with(|| {
                            let mut upload = runtime.block_on(claim(&ledger));
                            upload.expect_release(usage(files[at], 0));
                            (upload, 0)
                        });
                        if upload.reserve(usage(more, 0)).is_ok() {
                            *staged += more;
                        }
                    }
                    Step::Commit(at) => {
                        let Some((mut upload, staged)) = uploads[at].take() else { continue };
                        if upload.admit(usage(files[at], 0)).is_ok() {
                            upload.settle(usage(staged, 0), usage(files[at], 0));
                            files[at] = staged;
                        } else {
                            upload.settle(Usage::ZERO, Usage::ZERO);
                        }
                    }
                    Step::Discard(at) => {
                        if let Some((mut upload, _)) = uploads[at].take() {
                            upload.settle(Usage::ZERO, Usage::ZERO);
                        }
                    }
                    Step::Remove(at) => {
                        ledger.release(usage(files[at], 0));
                        files[at] = 0;
                    }
                }
                let visible: u64 = files.iter().sum();
                let staged: u64 = uploads.iter().flatten().map(|(_, staged)| staged).sum();
                prop_assert!(visible <= 100);
                prop_assert_eq!(ledger.usage(), usage(visible + staged, 0));
            }
        }
    }
}
