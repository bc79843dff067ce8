//! An open file: one task, which carries out requests in the order in which they come.
//!
//! Requests that wait and continue each other are carried out as one: reads become one
//! read, whose content is shared out, and writes one write.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;
use wharf_model::{Entry, Refusal, VirtualPath};
use wharf_proto::sftp::{Attributes, MAX_READ_BYTES, Response};
use wharf_vfs::{Download, Upload, Vfs};

use super::check::{Check, Checks, Source};
use super::names::{AttributePolicy, Changes, set_by_path};
use super::refusal::Problem;
use super::replies::{Asked, Nature};
use crate::registry::{Direction, LiveTransfer, Subject, Transfers};
use crate::transfer::Progress;

/// Most bytes that are read or copied in one step.
const STEP_BYTES: usize = 1024 * 1024;

/// Most bytes that are written in one step, unless one request has more: what a processor keeps
/// near from decrypting it.
const WRITE_STEP_BYTES: usize = 128 * 1024;

/// What can be asked of an open file.
pub(super) enum FileJob {
    Read { offset: u64, length: usize },
    Write { offset: u64, data: Bytes },
    Facts,
    Set(Changes),
    Synchronize,
    Check(Check),
    Copy(Copy),
    Close,
}

impl FileJob {
    /// What it is to those that come behind it.
    pub(super) fn nature(&self) -> Nature {
        match self {
            Self::Read { .. } | Self::Facts => Nature::Looks,
            Self::Check(_) => Nature::Lasts,
            Self::Write { .. } | Self::Set(_) | Self::Synchronize | Self::Copy(_) | Self::Close => {
                Nature::Changes
            }
        }
    }
}

/// Content that comes from another open file.
pub(super) struct Copy {
    pub(super) source: Arc<Download>,
    pub(super) from: u64,
    /// Bytes; 0 for everything.
    pub(super) length: u64,
    pub(super) to: u64,
}

/// What an open file is.
pub(super) enum Content {
    /// Open for reading only.
    Read(Arc<Download>),
    /// Open for writing.
    Write {
        upload: Box<Upload>,
        /// Writes go to the end, whatever their offset.
        appends: bool,
        readable: bool,
    },
}

/// The task of an open file.
pub(super) struct FileTask {
    pub(super) vfs: Vfs,
    pub(super) path: VirtualPath,
    pub(super) content: Content,
    pub(super) attributes: AttributePolicy,
    pub(super) moved: Moved,
    pub(super) checks: Arc<Checks>,
    pub(super) ending: CancellationToken,
    pub(super) jobs: UnboundedReceiver<(Asked, FileJob)>,
}

/// What was moved: for the log, and for whoever looks meanwhile.
pub(super) struct Moved {
    since: Instant,
    read: u64,
    written: u64,
    progress: Arc<Progress>,
    transfers: Transfers,
    /// From the first byte on: a file that is open for its facts moves nothing.
    listed: Option<LiveTransfer>,
}

impl FileTask {
    /// Carries out requests until the file is closed or the session lets it go; then what was
    /// written is cut, as when a connection breaks.
    pub(super) async fn run(mut self) {
        let mut waiting = VecDeque::new();
        let mut failed = false;
        loop {
            let next = match waiting.pop_front() {
                Some(next) => Some(next),
                None => self.jobs.recv().await,
            };
            let Some((asked, job)) = next else { break };
            match job {
                FileJob::Read { offset, length } => {
                    let run = self.gather_reads((asked, offset, length), &mut waiting);
                    self.list();
                    let read = self.read(run).await;
                    self.moved.read(read);
                }
                FileJob::Write { offset, data } => {
                    let run = self.gather_writes((asked, offset, data), &mut waiting);
                    self.list();
                    match self.write(run).await {
                        Ok(written) => self.moved.wrote(written),
                        Err(()) => failed = true,
                    }
                }
                FileJob::Facts => {
                    let entry = self.entry().await;
                    let facts = entry.map(|entry| Response::Attributes(Attributes::of(&entry)));
                    asked.answer(facts.map_err(Problem::from));
                }
                FileJob::Set(changes) => {
                    let set = self.set(changes).await;
                    asked.done(set);
                }
                FileJob::Synchronize => {
                    let synchronized = match &self.content {
                        Content::Read(_) => Err(Problem::NotOpenFor("writing")),
                        Content::Write { upload, .. } => {
                            upload.synchronize().await.map_err(Problem::from)
                        }
                    };
                    asked.done(synchronized);
                }
                FileJob::Check(check) => {
                    let checked = self.check(&check).await;
                    asked.answer(checked);
                }
                FileJob::Copy(copy) => {
                    let copied = self.copy(&copy).await;
                    failed |= copied.is_err();
                    self.moved.written += copied.as_ref().copied().unwrap_or(0);
                    asked.done(copied.map(drop));
                }
                FileJob::Close => {
                    let closed = close(self.content, failed).await;
                    self.moved.log(&self.path, closed.is_ok());
                    asked.done(closed);
                    return;
                }
            }
        }
        if let Content::Write { upload, .. } = self.content {
            self.moved.log(&self.path, false);
            if let Err(refusal) = upload.cut().await {
                tracing::warn!(%refusal, path = %self.path, "an upload could not be kept");
            }
        }
    }

    /// Takes what waits and goes on reading where `first` ends.
    fn gather_reads(
        &mut self,
        first: (Asked, u64, usize),
        waiting: &mut VecDeque<(Asked, FileJob)>,
    ) -> Vec<(Asked, u64, usize)> {
        let mut end = end_of(first.1, first.2);
        let mut bytes = first.2;
        let mut run = vec![first];
        while bytes < STEP_BYTES {
            let Some((asked, job)) = self.next_waiting(waiting) else {
                break;
            };
            match job {
                FileJob::Read { offset, length } if offset == end => {
                    end = end_of(offset, length);
                    bytes += length;
                    run.push((asked, offset, length));
                }
                job => {
                    waiting.push_front((asked, job));
                    break;
                }
            }
        }
        run
    }

    /// Takes what waits and goes on writing where `first` ends.
    fn gather_writes(
        &mut self,
        first: (Asked, u64, Bytes),
        waiting: &mut VecDeque<(Asked, FileJob)>,
    ) -> Vec<(Asked, u64, Bytes)> {
        let appends = matches!(&self.content, Content::Write { appends: true, .. });
        let mut end = end_of(first.1, first.2.len());
        let mut bytes = first.2.len();
        let mut run = vec![first];
        while bytes < WRITE_STEP_BYTES {
            let Some((asked, job)) = self.next_waiting(waiting) else {
                break;
            };
            match job {
                FileJob::Write { offset, data }
                    if (appends || offset == end) && bytes + data.len() <= WRITE_STEP_BYTES =>
                {
                    end = end_of(offset, data.len());
                    bytes += data.len();
                    run.push((asked, offset, data));
                }
                job => {
                    waiting.push_front((asked, job));
                    break;
                }
            }
        }
        run
    }

    fn next_waiting(
        &mut self,
        waiting: &mut VecDeque<(Asked, FileJob)>,
    ) -> Option<(Asked, FileJob)> {
        waiting.pop_front().or_else(|| self.jobs.try_recv().ok())
    }

    /// Answers reads that follow each other; returns how many bytes they got.
    async fn read(&mut self, run: Vec<(Asked, u64, usize)>) -> u64 {
        let offset = run.first().map_or(0, |(_, offset, _)| *offset);
        let length = run.iter().map(|(_, _, length)| length).sum();
        let Ok(mut content) = self.read_at(offset, length).await else {
            // Each gets an answer of its own.
            return self.read_one_by_one(run).await;
        };
        let got = u64::try_from(content.len()).unwrap_or(0);
        for (asked, _, length) in run {
            let part = content.split_to(length.min(content.len()));
            asked.answer(data(part, length));
        }
        got
    }

    async fn read_one_by_one(&mut self, run: Vec<(Asked, u64, usize)>) -> u64 {
        let mut got = 0;
        for (asked, offset, length) in run {
            let read = self.read_at(offset, length).await;
            got += read.as_ref().map_or(0, |read| as_u64(read.len()));
            asked.answer(read.and_then(|part| data(part, length)));
        }
        got
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, Problem> {
        match &self.content {
            Content::Read(download) => Ok(download.read_at(offset, length).await?),
            Content::Write {
                upload,
                readable: true,
                ..
            } => Ok(upload.read_at(offset, length).await?),
            Content::Write { .. } => Err(Problem::NotOpenFor("reading")),
        }
    }

    /// Answers writes that follow each other; returns how many bytes were written.
    async fn write(&mut self, run: Vec<(Asked, u64, Bytes)>) -> Result<u64, ()> {
        let Content::Write {
            upload, appends, ..
        } = &mut self.content
        else {
            for (asked, ..) in run {
                asked.done(Err(Problem::NotOpenFor("writing")));
            }
            return Err(());
        };
        let bytes = run.iter().map(|(_, _, data)| as_u64(data.len())).sum();
        let start = run.first().map_or(0, |(_, offset, _)| *offset);
        if run.len() > 1 {
            let pieces = run.iter().map(|(_, _, data)| data.clone()).collect();
            if write(upload, *appends, start, pieces).await.is_ok() {
                for (asked, ..) in run {
                    asked.done(Ok(()));
                }
                return Ok(bytes);
            }
            // What fits is written, so that a cut upload has it.
        }
        let mut all = Ok(bytes);
        for (asked, offset, data) in run {
            let written = write(upload, *appends, offset, vec![data]).await;
            if written.is_err() {
                all = Err(());
            }
            asked.done(written.map_err(Problem::from));
        }
        all
    }

    async fn entry(&self) -> Result<Entry, Refusal> {
        match &self.content {
            Content::Read(download) => download.current_entry().await,
            Content::Write { upload, .. } => upload.entry().await,
        }
    }

    async fn set(&mut self, changes: Changes) -> Result<(), Problem> {
        let Content::Write { upload, .. } = &mut self.content else {
            return set_by_path(&self.vfs, &self.path, &changes, self.attributes).await;
        };
        if let Some(length) = changes.length {
            upload.set_length(length).await?;
        }
        if let Some(owner) = changes.owner {
            owner.check(&upload.entry().await?, self.attributes)?;
        }
        if let Some(mode) = changes.mode {
            self.attributes.judge(upload.set_mode(mode).await)?;
        }
        if let Some(modified) = changes.modified {
            self.attributes.judge(upload.set_modified(modified).await)?;
        }
        Ok(())
    }

    async fn check(&self, check: &Check) -> Result<Response, Problem> {
        let source = match &self.content {
            Content::Read(download) => Source::Download(download),
            Content::Write {
                upload,
                readable: true,
                ..
            } => Source::Upload(upload),
            Content::Write { .. } => return Err(Problem::NotOpenFor("reading")),
        };
        check.run(source, &self.checks).await
    }

    async fn copy(&mut self, copy: &Copy) -> Result<u64, Problem> {
        let Content::Write {
            upload, appends, ..
        } = &mut self.content
        else {
            return Err(Problem::NotOpenFor("writing"));
        };
        let same = upload.entry().await?.unique;
        if same.is_some() && same == copy.source.entry().unique {
            return Err(Problem::BadCopy);
        }
        let end = match copy.length {
            0 => u64::MAX,
            length => copy.from.saturating_add(length),
        };
        let (mut from, mut to) = (copy.from, copy.to);
        while from < end {
            if self.ending.is_cancelled() {
                return Err(Problem::Ending);
            }
            let wanted = usize::try_from(end - from).unwrap_or(usize::MAX);
            let part = copy.source.read_at(from, wanted.min(STEP_BYTES)).await?;
            if part.is_empty() {
                break;
            }
            let length = as_u64(part.len());
            write(upload, *appends, to, vec![part]).await?;
            (from, to) = (from.saturating_add(length), to.saturating_add(length));
        }
        Ok(from - copy.from)
    }

    /// Shows that the file moves.
    fn list(&mut self) {
        let (direction, total) = match &self.content {
            Content::Read(download) => (Direction::Download, Some(download.entry().size)),
            Content::Write { .. } => (Direction::Upload, None),
        };
        self.moved.list(direction, &self.path, total);
    }
}

/// Ends the use of a file; what was written whole is put in its place.
async fn close(content: Content, failed: bool) -> Result<(), Problem> {
    match content {
        Content::Read(_) => Ok(()),
        Content::Write { upload, .. } if failed => {
            let cut = upload.cut().await;
            cut.map_err(Problem::from).and(Err(Problem::Cut))
        }
        Content::Write { upload, .. } => upload.commit().await.map(drop).map_err(Problem::from),
    }
}

async fn write(
    upload: &mut Upload,
    appends: bool,
    offset: u64,
    pieces: Vec<Bytes>,
) -> Result<(), Refusal> {
    if appends {
        upload.append(pieces).await
    } else {
        upload.write_at(offset, pieces).await
    }
}

/// The answer to a read of `length` bytes that got `part`.
fn data(part: Bytes, length: usize) -> Result<Response, Problem> {
    if part.is_empty() && length > 0 {
        return Err(Problem::End);
    }
    Ok(Response::Data(part))
}

fn end_of(offset: u64, length: usize) -> u64 {
    offset.saturating_add(as_u64(length))
}

fn as_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// How much is read for one request, whatever it asks for.
pub(super) fn read_length(asked_for: u32) -> usize {
    usize::try_from(asked_for).map_or(MAX_READ_BYTES, |length| length.min(MAX_READ_BYTES))
}

impl Moved {
    pub(super) fn new(transfers: Transfers) -> Self {
        Self {
            since: Instant::now(),
            read: 0,
            written: 0,
            progress: Arc::default(),
            transfers,
            listed: None,
        }
    }

    fn list(&mut self, direction: Direction, path: &VirtualPath, total: Option<u64>) {
        self.listed.get_or_insert_with(|| {
            let subject = Subject::Path(path.clone());
            let progress = Arc::clone(&self.progress);
            self.transfers.begin(direction, subject, total, progress)
        });
    }

    fn read(&mut self, bytes: u64) {
        self.read += bytes;
        self.progress.add(bytes);
    }

    fn wrote(&mut self, bytes: u64) {
        self.written += bytes;
        self.progress.add(bytes);
    }

    fn log(&self, path: &VirtualPath, whole: bool) {
        let duration_ms = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (read, written) = (self.read, self.written);
        if whole {
            tracing::info!(%path, read, written, duration_ms, "file closed");
        } else {
            tracing::warn!(%path, read, written, duration_ms, "file cut");
        }
    }
}
