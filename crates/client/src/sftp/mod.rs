//! SFTP sessions over any pair of streams: directories, files, digests
//! (draft-ietf-secsh-filexfer-02, OpenSSH's PROTOCOL §4).
//!
//! Nothing here knows SSH: `ssh/` brings the streams, and a way to make digests by commands.
//! Up to [`MOST_IN_FLIGHT_BYTES`] of a file are under way in either direction, which is what
//! a link of 100 ms needs to be filled. Names and lengths are a server's words: names are
//! parsed where paths are built of them, and a response counts only for the request that
//! waits for it (see `exchange.rs`).

mod digest;
mod exchange;
mod list;
mod read;
mod refusal;
mod write;

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use wharf_model::{ByteRange, Digest, DigestAlgorithm, VirtualPath};
use wharf_proto::sftp::{
    Attributes, Extension, Handle, Limits, OpenFlags, Request, Response, Times,
};

use self::exchange::Exchange;
use self::read::SftpRead;
use self::write::SftpWrite;
use crate::error::ClientError;
use crate::ftp::MissingFeature;
use crate::remote::{
    Abilities, Answer, Remote, RemoteEntry, RemotePartial, RemoteRead, RemoteWrite, WriteStart,
};

pub(crate) use self::digest::{Digester, LONGEST_DIGEST};
pub(crate) use self::exchange::Explain;

/// A session that has agreed on the version, and what was learnt about the server.
#[derive(Debug)]
pub(crate) struct SftpSession {
    exchange: Exchange,
    extensions: Vec<Extension>,
    /// The names of all that the server has, those included that this client does not know.
    extension_names: Vec<Bytes>,
    abilities: Abilities,
    home: VirtualPath,
    /// Digests come from check-file.
    checks_files: bool,
    digester: Option<Box<dyn Digester>>,
    /// The digester was asked what it makes.
    has_learnt: bool,
    piece_bytes: u32,
    /// A file is open, and whoever read or wrote it may have been dropped.
    is_streaming: bool,
}

impl SftpSession {
    /// Begins a session. `stall` is the longest silence of the server while something is due;
    /// `explain` is asked what the end of the connection means.
    ///
    /// # Errors
    /// [`ClientError::Protocol`] when the other end does not speak SFTP, and those of the connection.
    pub(crate) async fn begin(
        input: impl AsyncRead + Send + Unpin + 'static,
        output: impl AsyncWrite + Send + Unpin + 'static,
        stall: Duration,
        explain: Explain,
        digester: Option<Box<dyn Digester>>,
    ) -> Result<Self, ClientError> {
        let (exchange, advertised) = Exchange::begin(input, output, stall, explain).await?;
        let extensions: Vec<_> = advertised
            .iter()
            .filter_map(|(name, _)| Extension::from_name(name))
            .collect();
        let digests = digest::advertised(&advertised);
        let mut session = Self {
            exchange,
            extensions,
            extension_names: advertised.iter().map(|(name, _)| name.clone()).collect(),
            abilities: Abilities {
                digests_of_ranges: !digests.is_empty(),
                digests,
                tells_partials: false,
                restarts: true,
                exact_listings: true,
            },
            home: VirtualPath::root(),
            checks_files: false,
            digester,
            has_learnt: false,
            piece_bytes: SMALL_PIECE_BYTES,
            is_streaming: false,
        };
        session.checks_files = !session.abilities.digests.is_empty();
        session.settle().await?;
        Ok(session)
    }

    pub(crate) fn extension_names(&self) -> &[Bytes] {
        &self.extension_names
    }

    /// Whether digests come from check-file.
    pub(crate) fn checks_files(&self) -> bool {
        self.checks_files
    }

    /// What this client would use and the server does not offer, digests apart.
    pub(crate) fn missing_features(&self) -> Vec<MissingFeature> {
        let row = |extension: Extension, cost| MissingFeature {
            name: extension.name(),
            cost,
        };
        [
            (
                Extension::PosixRename,
                "a rename does not replace what stands there",
            ),
            (
                Extension::Limits,
                "files move in pieces of 32 KiB, which every server takes",
            ),
            (
                Extension::FstatVfs,
                "a full disk looks like any other failure",
            ),
        ]
        .into_iter()
        .filter(|(extension, _)| !self.extensions.contains(extension))
        .map(|(extension, cost)| row(extension, cost))
        .collect()
    }

    /// Asks where the login led to and what the server takes, at one go.
    async fn settle(&mut self) -> Result<(), ClientError> {
        let path = Bytes::from_static(b".");
        let asking_home = self.exchange.send(Request::RealPath { path }).await?;
        let asking_limits = if self.extensions.contains(&Extension::Limits) {
            Some(self.exchange.send(Request::Limits).await?)
        } else {
            None
        };
        let stall = self.exchange.stall();
        let waiting = crate::error::Waiting::Reply;
        let home = self.exchange.receive(asking_home, waiting, stall).await?;
        if let Response::Names(names) = home {
            // A server that does not say where it is has the login at the root.
            self.home = names
                .first()
                .and_then(|name| VirtualPath::parse(&name.name).ok())
                .unwrap_or_else(VirtualPath::root);
        }
        if let Some(id) = asking_limits
            && let Response::Extended(reply) = self.exchange.receive(id, waiting, stall).await?
            && let Ok(limits) = Limits::decode(reply)
        {
            self.piece_bytes = piece_bytes(limits);
        }
        Ok(())
    }

    async fn open(&mut self, request: Request) -> Result<Handle, ClientError> {
        match self.exchange.call(request).await? {
            Response::Handle(handle) => Ok(handle),
            response => Err(self.exchange.refused(response)),
        }
    }

    async fn open_file(
        &mut self,
        path: &VirtualPath,
        flags: OpenFlags,
    ) -> Result<Handle, ClientError> {
        self.open(Request::Open {
            path: wire_path(path),
            flags,
            attributes: Attributes::default(),
        })
        .await
    }

    async fn open_read(
        &mut self,
        path: &VirtualPath,
        offset: u64,
    ) -> Result<SftpRead<'_>, ClientError> {
        let handle = self.open_file(path, OpenFlags::READ).await?;
        let guard = StreamGuard::hold(&mut self.is_streaming);
        SftpRead::start(&mut self.exchange, guard, handle, offset, self.piece_bytes).await
    }

    async fn open_write(
        &mut self,
        path: &VirtualPath,
        start: WriteStart,
    ) -> Result<SftpWrite<'_>, ClientError> {
        let (flags, offset) = match start {
            WriteStart::Replace => (OpenFlags::CREATE | OpenFlags::TRUNCATE, 0),
            WriteStart::At(offset) => (OpenFlags::CREATE, offset),
        };
        let handle = self.open_file(path, OpenFlags::WRITE | flags).await?;
        Ok(SftpWrite::new(
            &mut self.exchange,
            StreamGuard::hold(&mut self.is_streaming),
            handle,
            offset,
            usize::try_from(self.piece_bytes).unwrap_or(usize::MAX),
            &self.extensions,
        ))
    }

    async fn make_directory(&mut self, path: &VirtualPath) -> Result<(), ClientError> {
        let made = self
            .exchange
            .complete(Request::MakeDirectory {
                path: wire_path(path),
                attributes: Attributes::default(),
            })
            .await;
        match made {
            // Version 3 has no words for it, so the place is looked at.
            Err(ClientError::Refused(said)) => match self.stat(path).await {
                Ok(_) => Err(ClientError::AlreadyExists(said)),
                Err(_) => Err(ClientError::Refused(said)),
            },
            made => made,
        }
    }

    /// Replaces what stands under the new name, where the server can: as FTP servers do.
    async fn rename(&mut self, from: &VirtualPath, to: &VirtualPath) -> Result<(), ClientError> {
        let (from, to) = (wire_path(from), wire_path(to));
        let request = if self.extensions.contains(&Extension::PosixRename) {
            Request::PosixRename { from, to }
        } else {
            Request::Rename { from, to }
        };
        self.exchange.complete(request).await
    }

    async fn set_modified(
        &mut self,
        path: &VirtualPath,
        time: SystemTime,
    ) -> Result<bool, ClientError> {
        let attributes = Attributes {
            times: Some(Times::both(time)),
            ..Attributes::default()
        };
        let request = Request::SetStat {
            path: wire_path(path),
            attributes,
        };
        match self.exchange.complete(request).await {
            Ok(()) => Ok(true),
            Err(error) if error.ends_session() => Err(error),
            Err(_) => Ok(false),
        }
    }
}

impl Remote for SftpSession {
    fn home(&self) -> &VirtualPath {
        &self.home
    }

    fn abilities(&self) -> &Abilities {
        &self.abilities
    }

    fn is_usable(&self) -> bool {
        self.exchange.is_usable() && !self.is_streaming
    }

    fn stat<'a>(&'a mut self, path: &'a VirtualPath) -> Answer<'a, RemoteEntry> {
        self.stat(path).boxed()
    }

    fn list<'a>(&'a mut self, path: &'a VirtualPath) -> Answer<'a, Vec<RemoteEntry>> {
        self.list(path).boxed()
    }

    fn open_read<'a>(
        &'a mut self,
        path: &'a VirtualPath,
        offset: u64,
    ) -> Answer<'a, Box<dyn RemoteRead + 'a>> {
        async move {
            let read: Box<dyn RemoteRead> = Box::new(self.open_read(path, offset).await?);
            Ok(read)
        }
        .boxed()
    }

    fn open_write<'a>(
        &'a mut self,
        path: &'a VirtualPath,
        start: WriteStart,
    ) -> Answer<'a, Box<dyn RemoteWrite + 'a>> {
        async move {
            let write: Box<dyn RemoteWrite> = Box::new(self.open_write(path, start).await?);
            Ok(write)
        }
        .boxed()
    }

    fn remove<'a>(&'a mut self, path: &'a VirtualPath) -> Answer<'a, ()> {
        let path = wire_path(path);
        self.exchange.complete(Request::Remove { path }).boxed()
    }

    fn make_directory<'a>(&'a mut self, path: &'a VirtualPath) -> Answer<'a, ()> {
        self.make_directory(path).boxed()
    }

    fn remove_directory<'a>(&'a mut self, path: &'a VirtualPath) -> Answer<'a, ()> {
        let path = wire_path(path);
        self.exchange
            .complete(Request::RemoveDirectory { path })
            .boxed()
    }

    fn rename<'a>(&'a mut self, from: &'a VirtualPath, to: &'a VirtualPath) -> Answer<'a, ()> {
        self.rename(from, to).boxed()
    }

    fn set_modified<'a>(&'a mut self, path: &'a VirtualPath, time: SystemTime) -> Answer<'a, bool> {
        self.set_modified(path, time).boxed()
    }

    fn learn_digests(&mut self) -> Answer<'_, ()> {
        self.learn_digests().boxed()
    }

    fn digest<'a>(
        &'a mut self,
        path: &'a VirtualPath,
        algorithm: DigestAlgorithm,
        range: Option<ByteRange>,
    ) -> Answer<'a, Digest> {
        self.digest(path, algorithm, range).boxed()
    }

    /// No server tells this over SFTP: what a cut upload left stands under its name.
    fn partial<'a>(&'a mut self, _path: &'a VirtualPath) -> Answer<'a, Option<RemotePartial>> {
        std::future::ready(Ok(None)).boxed()
    }

    fn check(&mut self) -> Answer<'_, ()> {
        async move {
            let path = Bytes::from_static(b".");
            self.exchange.call(Request::RealPath { path }).await?;
            Ok(())
        }
        .boxed()
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, ()> {
        self.exchange.close().boxed()
    }
}

/// Marks a session as unusable for as long as a file of it is open.
#[derive(Debug)]
struct StreamGuard<'s>(&'s mut bool);

impl<'s> StreamGuard<'s> {
    fn hold(is_streaming: &'s mut bool) -> Self {
        *is_streaming = true;
        Self(is_streaming)
    }

    fn release(self) {
        *self.0 = false;
    }
}

fn wire_path(path: &VirtualPath) -> Bytes {
    Bytes::copy_from_slice(path.as_bytes())
}

/// The size of a read or a write that the server takes whole.
fn piece_bytes(limits: Limits) -> u32 {
    let most = [limits.read_bytes, limits.write_bytes]
        .into_iter()
        .filter(|bytes| *bytes > 0)
        .min()
        .unwrap_or(u64::from(SMALL_PIECE_BYTES));
    u32::try_from(most)
        .unwrap_or(PIECE_BYTES)
        .clamp(MIN_PIECE_BYTES, PIECE_BYTES)
}

/// What every server takes (draft-ietf-secsh-filexfer-02 §3).
const SMALL_PIECE_BYTES: u32 = 32 * 1024;

/// A server that says less is asked for this all the same: it then gives what it likes.
const MIN_PIECE_BYTES: u32 = 1024;

/// Half of what the pump hands over at once, and of what OpenSSH takes.
const PIECE_BYTES: u32 = 128 * 1024;

/// Most content under way: 160 MB/s over 100 ms. OpenSSH's client lets a server send 2 MiB
/// ahead, so that it gets 20 MB/s.
const MOST_IN_FLIGHT_BYTES: u64 = 16 * 1024 * 1024;

/// What is asked for at first; each answer adds itself to it.
const FIRST_IN_FLIGHT_BYTES: u64 = 2 * 1024 * 1024;

#[cfg(test)]
mod tests;
