//! The file of a Unix socket: who may take its name, and who removes it.
//!
//! Invariant: a name is taken from a socket only while the lock on its
//! directory is held and connecting to it was refused, which the kernel does
//! if no process has the socket open. Servers of this crate listen before they
//! let go of the lock, so one that is about to start is never taken for dead.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::BindProblem;

/// How long another program may hold the lock on a directory. It needs
/// milliseconds to replace a socket.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// The directory in which a socket gets its name.
pub(crate) struct Directory {
    path: PathBuf,
    file: File,
}

/// Opens the directory of a socket's path.
pub(crate) fn directory_of(path: &Path) -> Result<Directory, BindProblem> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::openat(CWD, parent, flags, Mode::empty()) {
        Ok(file) => Ok(Directory {
            path: parent.to_path_buf(),
            file: file.into(),
        }),
        Err(Errno::NOENT | Errno::NOTDIR) => {
            Err(BindProblem::NoSuchDirectory(parent.to_path_buf()))
        }
        Err(error) => Err(io::Error::from(error).into()),
    }
}

/// A lock on a directory, given back when it is dropped.
pub(crate) struct Lock<'a>(&'a File);

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        let _ = rustix::fs::flock(self.0, FlockOperation::Unlock);
    }
}

impl Directory {
    /// Keeps other servers of this crate from replacing sockets here. Asked for
    /// again and again and not waited for: whoever may read a directory can
    /// hold its lock for ever.
    pub(crate) fn lock(&self) -> Result<Lock<'_>, BindProblem> {
        const PAUSE: Duration = Duration::from_millis(5);
        let started = Instant::now();
        loop {
            match rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Lock(&self.file)),
                Err(Errno::WOULDBLOCK) if started.elapsed() < PATIENCE => std::thread::sleep(PAUSE),
                Err(Errno::WOULDBLOCK) => return Err(BindProblem::Locked(self.path.clone())),
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
    }

    /// Makes sure that the name is free: removes a socket that nobody has open.
    pub(crate) fn clear(&self, path: &Path, socket_type: Type) -> Result<(), BindProblem> {
        let name = name_of(path)?;
        let found = match self.stat(name) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(io::Error::from(error).into()),
        };
        if FileType::from_raw_mode(found.st_mode) != FileType::Socket {
            return Err(BindProblem::NotASocket);
        }
        let address = SockAddr::unix(path).map_err(|_| BindProblem::NameTooLong {
            bytes: path.as_os_str().len(),
        })?;
        if is_alive(&address, socket_type)? {
            return Err(BindProblem::InUse);
        }
        tracing::debug!(path = %path.display(), "a socket that nobody has open is replaced");
        remove_if_same(&self.file, name, &found)?;
        Ok(())
    }

    /// Holds the name of the socket that was just made at `path`.
    pub(crate) fn claim(&self, path: &Path) -> Result<Claim, BindProblem> {
        let name = name_of(path)?.to_os_string();
        let made = self.stat(&name).map_err(io::Error::from)?;
        Ok(Claim {
            directory: self.file.try_clone()?,
            name,
            made,
        })
    }

    fn stat(&self, name: &OsStr) -> Result<Stat, Errno> {
        rustix::fs::statat(&self.file, name, AtFlags::SYMLINK_NOFOLLOW)
    }
}

/// Whether a process has the socket open: the kernel refuses a connection to
/// one that nobody has, whatever its type.
fn is_alive(address: &SockAddr, socket_type: Type) -> Result<bool, BindProblem> {
    let probe = Socket::new(Domain::UNIX, socket_type, None)?;
    // A listener whose queue is full would hold the probe up.
    probe.set_nonblocking(true)?;
    match probe.connect(address) {
        Ok(()) => Ok(true),
        Err(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Ok(false),
            io::ErrorKind::PermissionDenied => Err(BindProblem::NoPermission),
            // It is there: its queue is full, or it is of another type (EPROTOTYPE).
            _ => Ok(true),
        },
    }
}

fn name_of(path: &Path) -> Result<&OsStr, BindProblem> {
    path.file_name().ok_or(BindProblem::NotASocket)
}

fn is_same(one: &Stat, other: &Stat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

fn remove_if_same(directory: &File, name: &OsStr, expected: &Stat) -> io::Result<()> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) if is_same(&found, expected) => {
            rustix::fs::unlinkat(directory, name, AtFlags::empty())?;
            Ok(())
        }
        Ok(_) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The name of a socket that this process made; removed when this is dropped,
/// if it is still the same one.
#[derive(Debug)]
pub(crate) struct Claim {
    directory: File,
    name: OsString,
    made: Stat,
}

impl Claim {
    /// Sets who may connect, before anybody can.
    pub(crate) fn give_to(
        &self,
        mode: Option<Mode>,
        owner: Option<u32>,
        group: Option<u32>,
    ) -> Result<(), BindProblem> {
        let (owner, group) = (owner.map(Uid::from_raw), group.map(Gid::from_raw));
        if owner.is_some() || group.is_some() {
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::chownat(&self.directory, &self.name, owner, group, flags).map_err(
                |error| match error {
                    Errno::PERM => BindProblem::NotGiven,
                    error => io::Error::from(error).into(),
                },
            )?;
        }
        if let Some(mode) = mode {
            rustix::fs::chmodat(&self.directory, &self.name, mode, AtFlags::empty())
                .map_err(io::Error::from)?;
        }
        Ok(())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // A server that has given up privileges since may not; the next start replaces the file.
        if let Err(error) = remove_if_same(&self.directory, &self.name, &self.made) {
            tracing::debug!(name = %self.name.display(), %error, "a Unix socket cannot be removed");
        }
    }
}
