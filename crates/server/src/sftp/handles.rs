//! What a session has open, by handle.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;
use wharf_model::{Refusal, VirtualPath};
use wharf_proto::sftp::Handle;
use wharf_vfs::Download;

use super::directory::DirectoryJob;
use super::file::FileJob;
use super::refusal::Problem;
use super::replies::Asked;

/// Most files and directories that one session has open.
pub const MAX_HANDLES: usize = 256;

/// What a request for something open is handed to: its own task, which carries requests out in
/// the order in which they come.
#[derive(Clone)]
pub(super) enum Open {
    File(OpenFile),
    Directory(UnboundedSender<(Asked, DirectoryJob)>),
}

/// An open file.
#[derive(Clone)]
pub(super) struct OpenFile {
    pub(super) path: VirtualPath,
    pub(super) jobs: UnboundedSender<(Asked, FileJob)>,
    /// There if it is open for reading only, so that a copy can read it too.
    pub(super) source: Option<Arc<Download>>,
}

impl Open {
    /// Ends it, behind everything that was asked before.
    pub(super) fn close(&self, asked: Asked) {
        match self {
            Self::File(file) => hand_over(&file.jobs, asked, FileJob::Close),
            Self::Directory(jobs) => hand_over(jobs, asked, DirectoryJob::Close),
        }
    }

    /// Has it tell its attributes.
    pub(super) fn tell_facts(&self, asked: Asked) {
        match self {
            Self::File(file) => hand_over(&file.jobs, asked, FileJob::Facts),
            Self::Directory(jobs) => hand_over(jobs, asked, DirectoryJob::Facts),
        }
    }
}

/// Gives a request to the task of something open. Where that has gone, the request answers itself.
pub(super) fn hand_over<J>(jobs: &UnboundedSender<(Asked, J)>, asked: Asked, job: J) {
    drop(jobs.send((asked, job)));
}

/// The open files and directories of a session.
#[derive(Clone, Default)]
pub(super) struct Handles {
    // Requests for names run beside the session and add what they opened; never held across
    // an await.
    open: Arc<Mutex<HashMap<u64, Open>>>,
}

impl Handles {
    /// Gives `open` a handle that nobody can guess.
    pub(super) fn add(&self, open: Open) -> Result<Handle, Problem> {
        let mut table = self.lock();
        if table.len() >= MAX_HANDLES {
            return Err(Problem::TooManyHandles);
        }
        loop {
            let number = getrandom::u64()
                .map_err(|error| Refusal::Io(io::Error::other(error)))
                .map_err(Problem::Refused)?;
            if let Entry::Vacant(free) = table.entry(number) {
                free.insert(open);
                return Ok(Handle(Bytes::copy_from_slice(&number.to_be_bytes())));
            }
        }
    }

    /// Whether another one could be opened now: asked before something is made for it.
    pub(super) fn check_room(&self) -> Result<(), Problem> {
        if self.lock().len() >= MAX_HANDLES {
            return Err(Problem::TooManyHandles);
        }
        Ok(())
    }

    pub(super) fn find(&self, handle: &Handle) -> Result<Open, Problem> {
        let number = number_of(handle)?;
        let table = self.lock();
        table.get(&number).cloned().ok_or(Problem::UnknownHandle)
    }

    pub(super) fn file(&self, handle: &Handle) -> Result<OpenFile, Problem> {
        match self.find(handle)? {
            Open::File(file) => Ok(file),
            Open::Directory(_) => Err(Problem::WrongHandle),
        }
    }

    pub(super) fn directory(
        &self,
        handle: &Handle,
    ) -> Result<UnboundedSender<(Asked, DirectoryJob)>, Problem> {
        match self.find(handle)? {
            Open::Directory(jobs) => Ok(jobs),
            Open::File(_) => Err(Problem::WrongHandle),
        }
    }

    /// What a copy reads from.
    pub(super) fn source(&self, handle: &Handle) -> Result<Arc<Download>, Problem> {
        self.file(handle)?.source.ok_or(Problem::BadCopy)
    }

    /// Takes a handle out: from now on it is unknown.
    pub(super) fn remove(&self, handle: &Handle) -> Result<Open, Problem> {
        let number = number_of(handle)?;
        self.lock().remove(&number).ok_or(Problem::UnknownHandle)
    }

    /// A file that the session is writing under this path.
    pub(super) fn written_at(&self, path: &VirtualPath) -> Option<OpenFile> {
        self.lock().values().find_map(|open| match open {
            Open::File(file) if file.source.is_none() && file.path == *path => Some(file.clone()),
            _ => None,
        })
    }

    /// Lets everything go.
    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn number_of(handle: &Handle) -> Result<u64, Problem> {
    let bytes = handle.0.first_chunk::<8>().filter(|_| handle.0.len() == 8);
    let bytes = bytes.ok_or(Problem::UnknownHandle)?;
    Ok(u64::from_be_bytes(*bytes))
}
