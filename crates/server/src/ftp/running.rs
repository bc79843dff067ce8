//! A transfer at work: a future that the session polls beside what its client says.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wharf_model::{Digest, Refusal, VirtualPath};
use wharf_net::{Drain, Stream};
use wharf_proto::ftp::facts::{FactSet, FactSubject, encode_facts};
use wharf_proto::ftp::list::encode_list_line;
use wharf_proto::ftp::verb::Verb;
use wharf_vfs::{Download, EntryPermissions, Listing, Upload};

use crate::ftp::data::{ConnectError, DataChannel, linger};
use crate::registry::{Direction, LiveSession};
use crate::transfer::{Progress, PumpControl, TransferError, Translation, receive, send};

/// A transfer that is ready to run.
pub(crate) struct Job {
    pub(crate) verb: Verb,
    pub(crate) path: VirtualPath,
    pub(crate) channel: DataChannel,
    pub(crate) timeouts: DataTimeouts,
    pub(crate) work: Work,
}

/// How long data may keep us waiting.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DataTimeouts {
    pub(crate) connect: Duration,
    pub(crate) stall: Duration,
}

/// What moves.
pub(crate) enum Work {
    Retrieve {
        download: Download,
        start: u64,
        end: u64,
        translation: Translation,
    },
    Store {
        upload: Box<Upload>,
        translation: Translation,
    },
    List {
        listing: Listing,
        form: ListForm,
    },
}

/// How the entries of a directory are written.
#[derive(Debug, Clone)]
pub(crate) enum ListForm {
    /// LIST.
    Long { now: SystemTime },
    /// NLST.
    Names,
    /// MLSD.
    Facts {
        facts: FactSet,
        allowed: EntryPermissions,
    },
}

/// How a transfer ended.
pub(crate) struct Finished {
    pub(crate) verb: Verb,
    pub(crate) path: VirtualPath,
    pub(crate) bytes: u64,
    pub(crate) elapsed: Duration,
    pub(crate) result: Result<Completed, Failure>,
    pub(crate) rest: Option<Box<Rest>>,
}

/// What a transfer that succeeded leaves to be closed, for which no client needs to wait.
pub(crate) struct Rest {
    stream: Stream,
    _source: Option<Download>,
}

/// What a transfer that succeeded has to say.
#[derive(Debug, Default)]
pub(crate) struct Completed {
    /// Of an upload, when the session asked for one.
    pub(crate) digest: Option<Digest>,
}

/// Why a transfer failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    NoConnection(ConnectError),
    #[error(transparent)]
    Broken(#[from] TransferError),
}

/// The session's transfer. Dropping it stops the transfer, which then keeps what arrived as a
/// task of its own, as with a cut connection.
pub(crate) struct Running {
    progress: Arc<Progress>,
    total: Option<u64>,
    cancel: CancellationToken,
    landing: Arc<Landing>,
    /// `None` once it has ended.
    transfer: Option<Transfer>,
    drain: Drain,
}

/// What a session hears of its transfer.
pub(crate) enum Step {
    /// All of an upload has come; it waits for [`Running::land`].
    Arrived,
    /// It has ended.
    Finished(Finished),
}

/// Where an upload that has arrived waits for its session.
#[derive(Default)]
struct Landing {
    arrived: AtomicBool,
    allowed: AtomicBool,
}

impl Landing {
    /// Waits for the permission, which whoever polls this gives.
    async fn permission(&self) {
        self.arrived.store(true, Ordering::Relaxed);
        poll_fn(|_| match self.asks() {
            true => Poll::Pending,
            false => Poll::Ready(()),
        })
        .await;
    }

    fn asks(&self) -> bool {
        self.arrived.load(Ordering::Relaxed) && !self.allowed.load(Ordering::Relaxed)
    }

    fn allow(&self) {
        self.allowed.store(true, Ordering::Relaxed);
    }
}

type Transfer = Pin<Box<dyn Future<Output = Finished> + Send>>;

impl Running {
    /// Takes the job on; nothing moves yet.
    pub(crate) fn new(job: Job, drain: &Drain, live: &LiveSession) -> Self {
        let cancel = CancellationToken::new();
        let progress = Arc::new(Progress::default());
        let control = PumpControl {
            progress: Arc::clone(&progress),
            stall: job.timeouts.stall,
            cancel: cancel.clone(),
        };
        let (direction, total) = match &job.work {
            Work::Retrieve { start, end, .. } => {
                (Direction::Download, Some(end.saturating_sub(*start)))
            }
            Work::Store { .. } => (Direction::Upload, None),
            Work::List { .. } => (Direction::Listing, None),
        };
        let listed = live.transfer(direction, job.path.clone(), total, Arc::clone(&progress));
        let landing = Arc::new(Landing::default());
        let asking = Arc::clone(&landing);
        let transfer = async move {
            let ended = run(job, control, &asking).await;
            drop(listed);
            ended
        };
        Self {
            progress,
            total,
            cancel,
            landing,
            transfer: Some(Box::pin(transfer)),
            drain: drain.clone(),
        }
    }

    /// Bytes moved, and out of how many where that is known.
    pub(crate) fn position(&self) -> (u64, Option<u64>) {
        (self.progress.bytes(), self.total)
    }

    /// Stops the transfer between two pieces of content.
    pub(crate) fn cancel(&self) {
        self.cancel.cancel();
        self.landing.allow();
    }

    /// Lets an upload that has arrived take its place.
    pub(crate) fn land(&self) {
        self.landing.allow();
    }

    /// Moves what can be moved without waiting. Small files are there and gone by that.
    pub(crate) async fn at_once(&mut self) -> Option<Finished> {
        match futures_util::poll!(std::pin::pin!(self.step())) {
            Poll::Ready(Step::Finished(finished)) => Some(finished),
            Poll::Ready(Step::Arrived) | Poll::Pending => None,
        }
    }

    /// Moves everything there is, whoever asks, to the end.
    pub(crate) async fn end(&mut self) {
        self.cancel();
        while let Step::Arrived = self.step().await {}
    }

    /// Moves everything, to the next step. Dropping the future loses nothing; after the end it
    /// never completes again.
    pub(crate) async fn step(&mut self) -> Step {
        let Some(transfer) = &mut self.transfer else {
            return std::future::pending().await;
        };
        let landing = &self.landing;
        let finished = poll_fn(|context| match transfer.as_mut().poll(context) {
            Poll::Ready(finished) => Poll::Ready(Some(finished)),
            Poll::Pending if landing.asks() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        let Some(mut finished) = finished.await else {
            return Step::Arrived;
        };
        self.transfer = None;
        if let Some(rest) = finished.rest.take_if(|rest| rest.stream.as_tls().is_some()) {
            self.drain.shelter(linger(rest.stream));
        }
        Step::Finished(finished)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.cancel();
        // Without a runtime the process is ending; the next start recovers.
        if let Some(transfer) = self.transfer.take()
            && Handle::try_current().is_ok()
        {
            self.drain.shelter(async move {
                transfer.await;
            });
        }
    }
}

/// Runs the job.
async fn run(job: Job, control: PumpControl, landing: &Landing) -> Finished {
    let started = Instant::now();
    let Job {
        verb,
        path,
        channel,
        timeouts,
        work,
    } = job;
    let connected = tokio::select! {
        biased;
        () = control.cancel.cancelled() => Err(Failure::Broken(TransferError::Cancelled)),
        connected = channel.connect(timeouts.connect) => connected.map_err(Failure::NoConnection),
    };
    let mut rest = None;
    let result = match connected {
        Ok(mut stream) => {
            let result = carry_out(work, &mut stream, &control, landing).await;
            // One that failed is cut, so that the peer does not take it for whole.
            result.map(|(completed, source)| {
                rest = Some(Box::new(Rest {
                    stream,
                    _source: source,
                }));
                completed
            })
        }
        Err(failure) => {
            if let Work::Store { upload, .. } = work {
                // Nothing arrived, so there is nothing to keep.
                upload.discard().await;
            }
            Err(failure)
        }
    };
    Finished {
        verb,
        path,
        bytes: control.progress.bytes(),
        elapsed: started.elapsed(),
        result,
        rest,
    }
}

/// Moves it all; what was read is returned to be closed.
async fn carry_out(
    work: Work,
    stream: &mut Stream,
    control: &PumpControl,
    landing: &Landing,
) -> Result<(Completed, Option<Download>), Failure> {
    match work {
        Work::Retrieve {
            download,
            start,
            end,
            translation,
        } => {
            send(&download, start, end, stream, translation, control).await?;
            Ok((Completed::default(), Some(download)))
        }
        Work::Store {
            upload,
            translation,
        } => {
            let completed = store(*upload, stream, translation, control, landing).await?;
            Ok((completed, None))
        }
        Work::List { listing, form } => {
            list(listing, form, stream, control).await?;
            Ok((Completed::default(), None))
        }
    }
}

/// Takes in all of an upload, and returns its last piece once its session lets it take its place.
async fn arrive(
    upload: &mut Upload,
    stream: &mut Stream,
    translation: Translation,
    control: &PumpControl,
    landing: &Landing,
) -> Result<Bytes, TransferError> {
    let last = receive(upload, stream, translation, control).await?;
    landing.permission().await;
    if control.cancel.is_cancelled() {
        // So that it can be resumed.
        upload.write(last).await?;
        return Err(TransferError::Cancelled);
    }
    Ok(last)
}

async fn store(
    mut upload: Upload,
    stream: &mut Stream,
    translation: Translation,
    control: &PumpControl,
    landing: &Landing,
) -> Result<Completed, Failure> {
    match arrive(&mut upload, stream, translation, control, landing).await {
        Ok(last) => {
            if stream.as_tls().is_some() {
                // Clients wait for our close_notify; everything has arrived, so its failing is nothing.
                let _ = control.close(stream).await;
            }
            let committed = upload.commit_with(last).await;
            let committed = committed.map_err(TransferError::Refused)?;
            Ok(Completed {
                digest: committed.digest,
            })
        }
        Err(error) => {
            if let TransferError::Refused(Refusal::OverQuota(_)) = error {
                // Keeping the part would leave the account full with something useless.
                upload.discard().await;
            } else if let Err(refusal) = upload.cut().await {
                tracing::warn!(%refusal, "the part of a cut upload could not be kept");
            }
            if let TransferError::Refused(_) = error {
                control.discard(stream).await;
            }
            Err(error.into())
        }
    }
}

/// Writes a directory batch by batch, so that a million entries cost no more memory than two: one is
/// on its way while the next is read.
async fn list(
    mut listing: Listing,
    form: ListForm,
    stream: &mut Stream,
    control: &PumpControl,
) -> Result<(), TransferError> {
    let mut lines = Vec::new();
    let mut read = listing.next_batch().await?;
    while let Some(batch) = read {
        lines.clear();
        for entry in &batch {
            form.encode(entry, &mut lines);
        }
        let writing = control.write_all(stream, &lines);
        let (written, next) = tokio::join!(writing, listing.next_batch());
        written?;
        control.progress_by(lines.len());
        read = next?;
    }
    control.close(stream).await
}

impl ListForm {
    /// Appends one line with its line end.
    pub(crate) fn encode(&self, entry: &wharf_model::Entry, out: &mut Vec<u8>) {
        match self {
            Self::Long { now } => encode_list_line(entry, *now, out),
            Self::Names => out.extend(entry.name.iter().map(|byte| match byte {
                b'\r' | b'\n' | 0 => b'?',
                other => *other,
            })),
            Self::Facts { facts, allowed } => {
                let allowed = allowed.of(&entry.name);
                encode_facts(entry, FactSubject::Entry, *facts, allowed, &entry.name, out);
            }
        }
        out.extend_from_slice(b"\r\n");
    }
}
