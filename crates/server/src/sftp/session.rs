//! One session: reads requests, and hands each to who carries it out.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadHalf};
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;
use wharf_model::VirtualPath;
use wharf_proto::sftp::{
    Attributes, CheckSubject, ClientPacket, Extension, FrameError, Handle, Limits,
    MAX_PACKET_BYTES, MAX_READ_BYTES, MAX_WRITE_BYTES, OpenFlags, Request, Response, ServerPacket,
    StatusCode, Undecodable, VERSION, take_packet,
};
use wharf_vfs::{Disposition, Download, Existing, Vfs, WriteOptions};

use super::check::{Check, Checks, Source};
use super::directory::{self, DirectoryJob};
use super::file::{Content, Copy, FileJob, FileTask, Moved, read_length};
use super::handles::{Handles, MAX_HANDLES, Open, OpenFile, hand_over};
use super::names::{self, AttributePolicy};
use super::refusal::Problem;
use super::replies::{Nature, Replies, Ticket};
use crate::activity::Activity;
use crate::registry::Transfers;

/// Bytes that are read from the stream at least, if they are there.
const READ_BYTES: usize = 64 * 1024;

/// Packets up to here are taken out of the buffer that they came in, so that one that waits
/// does not hold a buffer many times its size.
const COPIED_BYTES: usize = 16 * 1024;

/// What a request without content may cost while it is carried out: a path and facts each way.
const SMALL_BYTES: usize = 16 * 1024;

/// What the smallest request costs: its answer, and its place in the queues.
const OVERHEAD_BYTES: usize = 512;

/// What holds for a session.
#[derive(Debug, Clone)]
pub struct SftpOptions {
    /// The account's name, which clients show as the owner of files.
    pub account: Bytes,
    /// What happens to changes of attributes that the account may not make.
    pub attributes: AttributePolicy,
    /// Where it is told that a request is carried out.
    pub activity: Activity,
    /// Where files are listed that are read or written.
    pub transfers: Transfers,
    /// Ends the session as a broken connection would: what is being written is cut.
    pub stop: CancellationToken,
}

/// Why a session ended other than by the end of its stream.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The stream broke.
    #[error("the connection broke")]
    Connection(#[from] io::Error),
    /// What came is not cut into packets.
    #[error("the client sent no packets")]
    Frame(#[from] FrameError),
    /// The first packet was no `INIT`, or a later one was.
    #[error("the client did not begin as it must")]
    Beginning,
    /// A packet that nobody could be answered.
    #[error("the client sent a packet without a request")]
    Undecodable(#[source] Undecodable),
    /// [`SftpOptions::stop`].
    #[error("the session was stopped")]
    Stopped,
}

/// Serves SFTP to one client until the stream ends. What was not closed by then is cut, also
/// when the future is dropped.
///
/// # Errors
/// [`SessionError`]; everything is tidied up then, too.
pub async fn serve<S>(stream: S, vfs: Vfs, options: SftpOptions) -> Result<(), SessionError>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (reader, writer) = tokio::io::split(stream);
    let (replies, outbox) = Replies::new(options.activity);
    let ending = options.stop.child_token();
    let _ends_with_the_session = ending.clone().drop_guard();
    let mut writing = JoinSet::new();
    writing.spawn(outbox.write_to(writer).in_current_span());
    let tasks = TaskTracker::new();
    let mut session = Session {
        work: Work {
            vfs,
            account: options.account,
            attributes: options.attributes,
            transfers: options.transfers,
            ending: ending.clone(),
            handles: Handles::default(),
            checks: Arc::new(Checks::new(ending.clone())),
            tasks: tasks.clone(),
        },
        replies,
        tasks,
    };
    let ended = tokio::select! {
        biased;
        () = options.stop.cancelled() => Err(SessionError::Stopped),
        written = writing.join_next() => Err(broken(written)),
        ended = session.run(reader) => ended,
    };
    if ended.is_err() {
        ending.cancel();
    }
    session.finish().await;
    tokio::select! {
        biased;
        () = ending.cancelled() => {}
        _ = writing.join_next() => {}
    }
    ended
}

fn broken(written: Option<Result<io::Result<()>, tokio::task::JoinError>>) -> SessionError {
    let error = match written {
        Some(Ok(Err(error))) => error,
        Some(Ok(Ok(()))) | None => io::ErrorKind::BrokenPipe.into(),
        Some(Err(gone)) => io::Error::other(gone),
    };
    SessionError::Connection(error)
}

struct Session {
    work: Work,
    replies: Replies,
    tasks: TaskTracker,
}

/// What carrying out requests takes; cheap to clone.
#[derive(Clone)]
struct Work {
    vfs: Vfs,
    account: Bytes,
    attributes: AttributePolicy,
    transfers: Transfers,
    ending: CancellationToken,
    handles: Handles,
    checks: Arc<Checks>,
    tasks: TaskTracker,
}

impl Session {
    async fn run<S: AsyncRead>(&mut self, reader: ReadHalf<S>) -> Result<(), SessionError> {
        let mut packets = Packets {
            reader,
            buffer: BytesMut::with_capacity(READ_BYTES),
        };
        let Some(first) = packets.next().await? else {
            return Ok(());
        };
        match ClientPacket::decode(first) {
            Ok(ClientPacket::Init { .. }) => self.replies.send(ServerPacket::Version {
                version: VERSION,
                extensions: Extension::advertised(),
            }),
            _ => return Err(SessionError::Beginning),
        }
        while let Some(packet) = packets.next().await? {
            let bytes = packet.len();
            match ClientPacket::decode(packet) {
                Ok(ClientPacket::Request(id, request)) => {
                    let bytes = cost(&request, bytes);
                    self.take(Ticket { id, bytes }, request).await;
                }
                Ok(ClientPacket::Init { .. }) => return Err(SessionError::Beginning),
                Err(undecodable) => {
                    let id = undecodable.id;
                    let id = id.ok_or(SessionError::Undecodable(undecodable))?;
                    let bytes = SMALL_BYTES;
                    let asked = self.replies.ask(Ticket { id, bytes }, Nature::Looks).await;
                    asked.answer(Err(Problem::Undecodable(undecodable.reason)));
                }
            }
        }
        Ok(())
    }

    /// Lets everything go and waits until it is tidied up.
    async fn finish(self) {
        self.work.handles.clear();
        drop(self.replies);
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Hands a request to who carries it out. Waits for its turn, and for its part of the budget.
    async fn take(&mut self, ticket: Ticket, request: Request) {
        match request {
            Request::Read {
                handle,
                offset,
                length,
            } => {
                let length = read_length(length);
                self.for_file(ticket, &handle, FileJob::Read { offset, length })
                    .await;
            }
            Request::Write {
                handle,
                offset,
                data,
            } => {
                self.for_file(ticket, &handle, FileJob::Write { offset, data })
                    .await;
            }
            Request::Close { handle } => {
                let asked = self.replies.ask(ticket, Nature::Changes).await;
                match self.work.handles.remove(&handle) {
                    Ok(open) => open.close(asked),
                    Err(problem) => asked.answer(Err(problem)),
                }
            }
            Request::Fstat { handle } => {
                let asked = self.replies.ask(ticket, Nature::Looks).await;
                match self.work.handles.find(&handle) {
                    Ok(open) => open.tell_facts(asked),
                    Err(problem) => asked.answer(Err(problem)),
                }
            }
            Request::FsetStat { handle, attributes } => {
                self.for_file(ticket, &handle, FileJob::Set(attributes.into()))
                    .await;
            }
            Request::Fsync { handle } => {
                self.for_file(ticket, &handle, FileJob::Synchronize).await;
            }
            Request::ReadDirectory { handle } => {
                let asked = self.replies.ask(ticket, Nature::Looks).await;
                match self.work.handles.directory(&handle) {
                    Ok(jobs) => hand_over(&jobs, asked, DirectoryJob::Read),
                    Err(problem) => asked.answer(Err(problem)),
                }
            }
            Request::CopyData {
                from,
                from_offset,
                length,
                to,
                to_offset,
            } => match self.work.handles.source(&from) {
                Ok(source) => {
                    let copy = Copy {
                        source,
                        from: from_offset,
                        length,
                        to: to_offset,
                    };
                    self.for_file(ticket, &to, FileJob::Copy(copy)).await;
                }
                Err(problem) => self.at_once(ticket, Err(problem)).await,
            },
            Request::CheckFile {
                subject,
                algorithms,
                offset,
                length,
                block_bytes,
            } => {
                let echoed = matches!(subject, CheckSubject::EchoedHandle(_));
                let check = Check::new(&algorithms, (offset, length), block_bytes, echoed);
                match (check, subject) {
                    (Err(problem), _) => self.at_once(ticket, Err(problem)).await,
                    (
                        Ok(check),
                        CheckSubject::Handle(handle) | CheckSubject::EchoedHandle(handle),
                    ) => self.for_file(ticket, &handle, FileJob::Check(check)).await,
                    (Ok(check), CheckSubject::Path(path)) => self.check(ticket, check, path).await,
                }
            }
            Request::Stat { path } => match self.written_at(&path) {
                Some(file) => self.of_written(ticket, &file, FileJob::Facts).await,
                None => self.beside(ticket, |work| work.stat(path)).await,
            },
            Request::Lstat { path } => match self.written_at(&path) {
                Some(file) => self.of_written(ticket, &file, FileJob::Facts).await,
                None => self.beside(ticket, |work| work.link_stat(path)).await,
            },
            Request::SetStat { path, attributes } => match self.written_at(&path) {
                Some(file) => {
                    self.of_written(ticket, &file, FileJob::Set(attributes.into()))
                        .await;
                }
                None => self.alone(ticket, Change::Set(path, attributes)).await,
            },
            Request::Open {
                path,
                flags,
                attributes,
            } if !flags.contains(OpenFlags::WRITE) => {
                drop(attributes);
                self.beside(ticket, move |work| work.open_to_read(path, flags))
                    .await;
            }
            Request::Open {
                path,
                flags,
                attributes,
            } => {
                self.alone(ticket, Change::Open(path, flags, attributes))
                    .await;
            }
            Request::OpenDirectory { path } => {
                self.beside(ticket, |work| work.open_directory(path)).await;
            }
            Request::ReadLink { path } => {
                self.beside(ticket, |work| async move {
                    names::read_link(&work.vfs, &VirtualPath::parse(&path)?).await
                })
                .await;
            }
            Request::RealPath { path } => {
                let absolute = VirtualPath::parse(&path).map_err(Problem::from);
                self.at_once(ticket, absolute.map(|path| names::path_response(&path)))
                    .await;
            }
            Request::ExpandPath { path } => {
                let absolute = names::expand(&path);
                self.at_once(ticket, absolute.map(|path| names::path_response(&path)))
                    .await;
            }
            Request::HomeDirectory { account } => {
                let is_own = account.is_empty() || account == self.work.account;
                let home = is_own.then(VirtualPath::root).ok_or(Problem::NotYourHome);
                self.at_once(ticket, home.map(|path| names::path_response(&path)))
                    .await;
            }
            Request::Limits => self.at_once(ticket, Ok(LIMITS.to_response())).await,
            Request::StatVfs { .. } => {
                self.beside(ticket, |work| async move { names::space(&work.vfs).await })
                    .await;
            }
            Request::FstatVfs { handle } => {
                let open = self.work.handles.find(&handle).map(drop);
                self.beside(ticket, |work| async move {
                    open?;
                    names::space(&work.vfs).await
                })
                .await;
            }
            Request::UsersGroupsById { users, groups } => {
                self.beside(ticket, |work| async move {
                    names::owner_names(&work.vfs, &work.account, &users, &groups).await
                })
                .await;
            }
            Request::Symlink { .. } => self.at_once(ticket, Err(Problem::NoLinks)).await,
            Request::LsetStat { path, attributes } => {
                self.alone(ticket, Change::SetLink(path, attributes)).await;
            }
            Request::Remove { path } => self.alone(ticket, Change::Remove(path)).await,
            Request::MakeDirectory { path, attributes } => {
                self.alone(ticket, Change::MakeDirectory(path, attributes))
                    .await;
            }
            Request::RemoveDirectory { path } => {
                self.alone(ticket, Change::RemoveDirectory(path)).await;
            }
            Request::Rename { from, to } => self.alone(ticket, Change::Rename(from, to)).await,
            Request::PosixRename { from, to } => {
                self.alone(ticket, Change::Replace(from, to)).await;
            }
            Request::HardLink { existing, link } => {
                self.alone(ticket, Change::Link(existing, link)).await;
            }
        }
    }

    /// Hands a request to the task of an open file.
    async fn for_file(&mut self, ticket: Ticket, handle: &Handle, job: FileJob) {
        let asked = self.replies.ask(ticket, job.nature()).await;
        match self.work.handles.file(handle) {
            Ok(file) => hand_over(&file.jobs, asked, job),
            Err(problem) => asked.answer(Err(problem)),
        }
    }

    /// As [`Session::for_file`], for a path that the session is writing to: it sees there what
    /// it writes, though others do not yet.
    async fn of_written(&mut self, ticket: Ticket, file: &OpenFile, job: FileJob) {
        let asked = self.replies.ask(ticket, job.nature()).await;
        hand_over(&file.jobs, asked, job);
    }

    fn written_at(&self, path: &[u8]) -> Option<OpenFile> {
        let path = VirtualPath::parse(path).ok()?;
        self.work.handles.written_at(&path)
    }

    async fn at_once(&mut self, ticket: Ticket, result: Result<Response, Problem>) {
        self.replies.ask(ticket, Nature::Looks).await.answer(result);
    }

    /// Carries out what only looks, beside whatever else only looks.
    async fn beside<F>(&mut self, ticket: Ticket, look: impl FnOnce(Work) -> F)
    where
        F: Future<Output = Result<Response, Problem>> + Send + 'static,
    {
        self.replies.changes.idle().await;
        let asked = self.replies.ask(ticket, Nature::Looks).await;
        let looking = look(self.work.clone());
        self.tasks.spawn(
            async move {
                let seen = looking.await;
                asked.answer(seen);
            }
            .in_current_span(),
        );
    }

    /// Looks through the content of a file; nothing waits for that once the file is open.
    async fn check(&mut self, ticket: Ticket, check: Check, path: Bytes) {
        self.replies.changes.idle().await;
        let mut asked = self.replies.ask(ticket, Nature::Looks).await;
        let work = self.work.clone();
        self.tasks.spawn(
            async move {
                let opened = work.open(&path).await;
                asked.lasts();
                let checked = match opened {
                    Ok(file) => check.run(Source::Download(&file), &work.checks).await,
                    Err(problem) => Err(problem),
                };
                asked.answer(checked);
            }
            .in_current_span(),
        );
    }

    /// Carries out what changes names, when everything before it has been answered.
    async fn alone(&mut self, ticket: Ticket, change: Change) {
        self.replies.all.idle().await;
        let asked = self.replies.ask(ticket, Nature::Changes).await;
        let changed = self.work.change(change).await;
        asked.answer(changed);
    }
}

/// What changes names, or what stands under them.
enum Change {
    Open(Bytes, OpenFlags, Attributes),
    Set(Bytes, Attributes),
    SetLink(Bytes, Attributes),
    Remove(Bytes),
    MakeDirectory(Bytes, Attributes),
    RemoveDirectory(Bytes),
    Rename(Bytes, Bytes),
    Replace(Bytes, Bytes),
    Link(Bytes, Bytes),
}

impl Work {
    async fn change(&self, change: Change) -> Result<Response, Problem> {
        let vfs = &self.vfs;
        match change {
            Change::Open(path, flags, attributes) => {
                return self.open_to_write(&path, flags, &attributes).await;
            }
            Change::Set(path, attributes) => {
                let path = VirtualPath::parse(&path)?;
                names::set_by_path(vfs, &path, &attributes.into(), self.attributes).await?;
            }
            Change::SetLink(path, attributes) => {
                let path = VirtualPath::parse(&path)?;
                names::set_of_link(vfs, &path, &attributes.into(), self.attributes).await?;
            }
            Change::Remove(path) => {
                let path = VirtualPath::parse(&path)?;
                vfs.remove_file(&path).await?;
                tracing::info!(%path, "removed");
            }
            Change::MakeDirectory(path, attributes) => {
                names::make_directory(vfs, &VirtualPath::parse(&path)?, &attributes).await?;
            }
            Change::RemoveDirectory(path) => {
                let path = VirtualPath::parse(&path)?;
                vfs.remove_directory(&path).await?;
                tracing::info!(%path, "directory removed");
            }
            Change::Rename(from, to) => {
                let (from, path) = (VirtualPath::parse(&from)?, VirtualPath::parse(&to)?);
                vfs.rename_new(&from, &path).await?;
                tracing::info!(%from, %path, "renamed");
            }
            Change::Replace(from, to) => {
                let (from, path) = (VirtualPath::parse(&from)?, VirtualPath::parse(&to)?);
                vfs.rename(&from, &path).await?;
                tracing::info!(%from, %path, "renamed");
            }
            Change::Link(existing, link) => {
                let (existing, path) = (VirtualPath::parse(&existing)?, VirtualPath::parse(&link)?);
                vfs.link(&existing, &path).await?;
                tracing::info!(%existing, %path, "linked");
            }
        }
        Ok(Response::status(StatusCode::Ok, "Done."))
    }

    async fn open(&self, path: &[u8]) -> Result<Download, Problem> {
        Ok(self.vfs.open(&VirtualPath::parse(path)?).await?)
    }

    async fn stat(self, path: Bytes) -> Result<Response, Problem> {
        let entry = self.vfs.metadata(&VirtualPath::parse(&path)?).await?;
        Ok(Response::Attributes(Attributes::of(&entry)))
    }

    async fn link_stat(self, path: Bytes) -> Result<Response, Problem> {
        let entry = self.vfs.link_metadata(&VirtualPath::parse(&path)?).await?;
        Ok(Response::Attributes(Attributes::of(&entry)))
    }

    async fn open_to_read(self, path: Bytes, flags: OpenFlags) -> Result<Response, Problem> {
        if !flags.contains(OpenFlags::READ) {
            return Err(Problem::BadFlags);
        }
        self.handles.check_room()?;
        let path = VirtualPath::parse(&path)?;
        let download = Arc::new(self.vfs.open(&path).await?);
        let source = Some(Arc::clone(&download));
        self.open_file(path, Content::Read(download), source)
    }

    async fn open_to_write(
        &self,
        path: &[u8],
        flags: OpenFlags,
        attributes: &Attributes,
    ) -> Result<Response, Problem> {
        self.handles.check_room()?;
        let path = VirtualPath::parse(path)?;
        let readable = flags.contains(OpenFlags::READ);
        let options = WriteOptions {
            disposition: disposition(flags),
            existing: existing(flags),
            mode: names::new_mode(attributes),
            readable,
        };
        let upload = self.vfs.open_to_write(&path, options).await?;
        let content = Content::Write {
            upload: Box::new(upload),
            appends: flags.contains(OpenFlags::APPEND),
            readable,
        };
        self.open_file(path, content, None)
    }

    fn open_file(
        &self,
        path: VirtualPath,
        content: Content,
        source: Option<Arc<Download>>,
    ) -> Result<Response, Problem> {
        let (jobs, queue) = unbounded_channel();
        let handle = self.handles.add(Open::File(OpenFile {
            path: path.clone(),
            jobs,
            source,
        }))?;
        let task = FileTask {
            vfs: self.vfs.clone(),
            path,
            content,
            attributes: self.attributes,
            moved: Moved::new(self.transfers.clone()),
            checks: Arc::clone(&self.checks),
            ending: self.ending.clone(),
            jobs: queue,
        };
        self.tasks.spawn(task.run().in_current_span());
        Ok(Response::Handle(handle))
    }

    async fn open_directory(self, path: Bytes) -> Result<Response, Problem> {
        self.handles.check_room()?;
        let path = VirtualPath::parse(&path)?;
        let listing = self.vfs.list_links(&path).await?.in_small_pieces();
        let (jobs, queue) = unbounded_channel();
        let handle = self.handles.add(Open::Directory(jobs))?;
        let reading = directory::run(self.vfs, path, listing, queue);
        self.tasks.spawn(reading.in_current_span());
        Ok(Response::Handle(handle))
    }
}

/// What opening does to what stands there.
fn disposition(flags: OpenFlags) -> Disposition {
    if flags.contains(OpenFlags::TRUNCATE) {
        Disposition::Replace
    } else if flags.contains(OpenFlags::APPEND) {
        Disposition::Append
    } else {
        Disposition::Amend
    }
}

/// What has to stand there.
fn existing(flags: OpenFlags) -> Existing {
    if !flags.contains(OpenFlags::CREATE) {
        Existing::Required
    } else if flags.contains(OpenFlags::EXCLUSIVE) {
        Existing::Refused
    } else {
        Existing::Any
    }
}

/// What the server takes.
const LIMITS: Limits = Limits {
    packet_bytes: MAX_PACKET_BYTES as u64,
    read_bytes: MAX_READ_BYTES as u64,
    write_bytes: MAX_WRITE_BYTES as u64,
    open_handles: MAX_HANDLES as u64,
};

/// Bytes that a request and its answer hold at most.
fn cost(request: &Request, packet_bytes: usize) -> usize {
    match request {
        Request::Read { length, .. } => packet_bytes + read_length(*length) + OVERHEAD_BYTES,
        Request::Write { .. } => packet_bytes + OVERHEAD_BYTES,
        // Names that are not written yet take about as much again.
        Request::ReadDirectory { .. } => packet_bytes + 2 * directory::ANSWER_BYTES,
        Request::CheckFile { .. } | Request::UsersGroupsById { .. } => {
            packet_bytes + MAX_READ_BYTES
        }
        _ => packet_bytes + SMALL_BYTES,
    }
}

/// Packets from a stream.
struct Packets<S> {
    reader: ReadHalf<S>,
    buffer: BytesMut,
}

impl<S: AsyncRead> Packets<S> {
    /// The next packet; `None` at the end. Dropped midway, nothing is lost.
    async fn next(&mut self) -> Result<Option<Bytes>, SessionError> {
        loop {
            if let Some(packet) = take_packet(&mut self.buffer)? {
                return Ok(Some(if packet.len() <= COPIED_BYTES {
                    Bytes::copy_from_slice(&packet)
                } else {
                    packet
                }));
            }
            if self.buffer.capacity() == self.buffer.len() {
                self.buffer.reserve(READ_BYTES);
            }
            if self.reader.read_buf(&mut self.buffer).await? == 0 {
                if self.buffer.is_empty() {
                    return Ok(None);
                }
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }
}
