//! Names beneath a directory descriptor: the jail.
//!
//! Every look-up goes through a `cap_std` directory, on Linux `openat2` with
//! `RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS`. No path string reaches the
//! operating system by another way.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use cap_std::fs::{Dir, Metadata, MetadataExt as _, OpenOptions, OpenOptionsExt as _};
use rustix::fs::OFlags;
use rustix::io::Errno;
use wharf_model::{Entry, EntryKind, Refusal, Usage, VirtualPath};

use crate::storage::{is_reserved, new_name};

/// A file that is being uploaded.
pub(super) const STAGED: &str = ".wharf-staged.";
/// What a cut overwrite left.
pub(super) const PARKED: &str = ".wharf-parked.";

/// Readable by everybody on the server's machine who may enter the home, which is 0700.
pub(super) const FILE_MODE: u32 = 0o644;

/// To free so much takes longer than to open it.
const LARGE_BYTES: u64 = 1024 * 1024;

/// An extended attribute that marks a cut upload.
pub(super) const INCOMPLETE: &str = "user.wharf.incomplete";

/// `path` relative to the home, unless a component is the storage's own.
pub(super) fn relative(path: &VirtualPath) -> Result<&Path, Refusal> {
    if path.components().any(is_reserved) {
        return Err(Refusal::NotFound);
    }
    Ok(Path::new(OsStr::from_bytes(path.as_relative_bytes())))
}

/// The directory that holds `path`, opened, and the last component.
pub(super) fn parent(root: &Dir, path: &VirtualPath) -> Result<(Dir, PathBuf), Refusal> {
    relative(path)?;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        // The root has no name that could be made, removed or replaced.
        return Err(Refusal::NotPermitted);
    };
    let directory = match parent.is_root() {
        true => root.try_clone(),
        false => root.open_dir(relative(&parent)?),
    };
    let name = PathBuf::from(OsStr::from_bytes(name));
    Ok((directory.map_err(refusal)?, name))
}

/// As [`parent`], for a name that is about to be made.
pub(super) fn parent_for_new(root: &Dir, path: &VirtualPath) -> Result<(Dir, PathBuf), Refusal> {
    new_name(path)?;
    parent(root, path)
}

/// The entry of `metadata` under `name`.
pub(super) fn entry(metadata: &Metadata, name: &[u8]) -> Entry {
    let kind = kind_of(metadata);
    Entry {
        name: name.to_vec(),
        kind,
        size: if kind == EntryKind::File {
            metadata.len()
        } else {
            0
        },
        modified: metadata
            .modified()
            .map_or(SystemTime::UNIX_EPOCH, |time| time.into_std()),
        mode: metadata.mode() & 0o7777,
        owner: metadata.uid(),
        group: metadata.gid(),
        links: metadata.nlink(),
        unique: Some((metadata.dev(), metadata.ino())),
        incomplete: false,
    }
}

pub(super) fn kind_of(metadata: &Metadata) -> EntryKind {
    let kind = metadata.file_type();
    if kind.is_file() {
        EntryKind::File
    } else if kind.is_dir() {
        EntryKind::Directory
    } else if kind.is_symlink() {
        EntryKind::Symlink
    } else {
        EntryKind::Other
    }
}

/// What stands under `name` in `directory`, not following a link.
pub(super) fn look(directory: &Dir, name: &Path) -> Result<Option<Metadata>, Refusal> {
    match directory.symlink_metadata(name) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(refusal(error)),
    }
}

/// Keeps what stands under `name`, so that its last name can be taken away at once: the system frees
/// a large file when this is dropped. None where that is quick anyway.
pub(super) fn outlive(directory: &Dir, name: &Path, metadata: &Metadata) -> Option<File> {
    if !metadata.is_file() || metadata.len() < LARGE_BYTES || metadata.nlink() > 1 {
        return None;
    }
    // Where it cannot be read, others wait.
    let opened = open_regular(directory, name, OpenOptions::new().read(true));
    opened.ok().map(|(file, _)| file)
}

/// Device and inode: the same under every name of a file.
pub(super) fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// What one directory entry counts for.
pub(super) fn usage_of(metadata: &Metadata) -> Usage {
    Usage {
        bytes: if metadata.is_file() {
            metadata.len()
        } else {
            0
        },
        files: 1,
    }
}

/// Opens a regular file beneath `directory`. Neither a pipe nor a device is
/// ever waited for or touched.
pub(super) fn open_regular(
    directory: &Dir,
    name: &Path,
    options: &mut OpenOptions,
) -> Result<(File, Metadata), Refusal> {
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    options.custom_flags(nonblocking);
    let file = directory.open_with(name, options).map_err(|error| {
        // Opening a socket, or a pipe without a reader for writing.
        if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) {
            Refusal::NotAFile
        } else {
            refusal(error)
        }
    })?;
    let metadata = file.metadata().map_err(refusal)?;
    match kind_of(&metadata) {
        EntryKind::File => Ok((file.into_std(), metadata)),
        EntryKind::Directory => Err(Refusal::IsADirectory),
        EntryKind::Symlink | EntryKind::Other => Err(Refusal::NotAFile),
    }
}

/// Opens a regular file beneath `directory` if the system can do it without waiting for a disk or
/// another machine. None says nothing about the file: [`open_regular`] will tell.
#[cfg(target_os = "linux")]
pub(super) fn open_at_once(directory: &Dir, name: &Path) -> Option<(File, Metadata)> {
    use rustix::fs::{Mode, ResolveFlags, openat2};
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    // What is mounted below may be of another kind.
    let resolve = BENEATH | ResolveFlags::CACHED | ResolveFlags::NO_XDEV;
    let file = File::from(openat2(directory, name, flags, Mode::empty(), resolve).ok()?);
    let metadata = Metadata::from_file(&file).ok()?;
    (kind_of(&metadata) == EntryKind::File).then_some((file, metadata))
}

#[cfg(not(target_os = "linux"))]
pub(super) fn open_at_once(_directory: &Dir, _name: &Path) -> Option<(File, Metadata)> {
    None
}

/// How every look-up stays beneath its directory.
#[cfg(target_os = "linux")]
const BENEATH: rustix::fs::ResolveFlags =
    rustix::fs::ResolveFlags::BENEATH.union(rustix::fs::ResolveFlags::NO_MAGICLINKS);

/// Whether a file on the file system of `directory` whose name and inode are in memory is opened
/// without waiting: so it is on those that have a disk of this machine or none at all.
#[cfg(target_os = "linux")]
pub(super) fn never_waits(directory: &Dir) -> bool {
    /// From linux/magic.h: ext2 to ext4, XFS, Btrfs, F2FS, tmpfs.
    const LOCAL: [i128; 5] = [0xEF53, 0x5846_5342, 0x9123_683E, 0xF2F5_2010, 0x0102_1994];
    rustix::fs::fstatfs(directory).is_ok_and(|found| LOCAL.contains(&i128::from(found.f_type)))
}

#[cfg(not(target_os = "linux"))]
pub(super) fn never_waits(_directory: &Dir) -> bool {
    false
}

/// Whether `path` certainly leads to itself: no component that is there is a link. What is
/// missing cannot be one.
#[cfg(target_os = "linux")]
pub(super) fn meets_no_link(root: &Dir, path: &Path) -> bool {
    use rustix::fs::{Mode, ResolveFlags, openat2};
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = BENEATH | ResolveFlags::NO_SYMLINKS;
    // The system goes from component to component, and stops at the first that is missing.
    matches!(
        openat2(root, path, flags, Mode::empty(), resolve),
        Ok(_) | Err(Errno::NOENT)
    )
}

#[cfg(not(target_os = "linux"))]
pub(super) fn meets_no_link(_root: &Dir, _path: &Path) -> bool {
    false
}

/// As [`parent`], if the directory is in memory, on the file system of `root`, with no link on the
/// way. None says nothing about it.
#[cfg(target_os = "linux")]
pub(super) fn near_parent(root: &Arc<Dir>, path: &VirtualPath) -> Option<(Arc<Dir>, PathBuf)> {
    use rustix::fs::{Mode, ResolveFlags, openat2};
    let (above, name) = (path.parent()?, path.file_name()?);
    let name = PathBuf::from(OsStr::from_bytes(name));
    if above.is_root() {
        return Some((Arc::clone(root), name));
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve =
        BENEATH | ResolveFlags::CACHED | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    let opened = openat2(
        &**root,
        relative(path).ok()?.parent()?,
        flags,
        Mode::empty(),
        resolve,
    );
    let above = Dir::from_std_file(File::from(opened.ok()?));
    Some((Arc::new(above), name))
}

#[cfg(not(target_os = "linux"))]
pub(super) fn near_parent(_root: &Arc<Dir>, _path: &VirtualPath) -> Option<(Arc<Dir>, PathBuf)> {
    None
}

/// Opens a directory for a change of the directory itself. A `Dir` will not do:
/// it may be a descriptor for look-ups only (`O_PATH`).
pub(super) fn open_directory(directory: &Dir, name: &Path) -> Result<File, Refusal> {
    let flags = i32::try_from(OFlags::DIRECTORY.bits()).unwrap_or(0);
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(flags);
    let opened = directory.open_with(name, &options).map_err(refusal)?;
    Ok(opened.into_std())
}

/// The one place where an error of the system becomes a refusal.
pub(super) fn refusal(error: io::Error) -> Refusal {
    let Some(errno) = Errno::from_io_error(&error) else {
        // cap-std says "outside of the sandbox" without an error number; for
        // the client there is nothing there.
        return match error.kind() {
            io::ErrorKind::PermissionDenied => Refusal::NotFound,
            _ => Refusal::Io(error),
        };
    };
    match errno {
        Errno::NOENT | Errno::XDEV => Refusal::NotFound,
        Errno::NOTDIR => Refusal::NotADirectory,
        Errno::ISDIR => Refusal::IsADirectory,
        Errno::EXIST => Refusal::AlreadyExists,
        Errno::NOTEMPTY => Refusal::NotEmpty,
        Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::TXTBSY => Refusal::SystemDenied,
        Errno::LOOP | Errno::MLINK => Refusal::LinkLoop,
        Errno::NAMETOOLONG => Refusal::InvalidName(wharf_model::PathError::NameTooLong),
        Errno::NOSPC | Errno::DQUOT => Refusal::StorageFull,
        Errno::FBIG => Refusal::TooLarge,
        // A directory moved into itself; a name that the file system cannot hold.
        Errno::INVAL | Errno::ILSEQ => Refusal::InvalidName(wharf_model::PathError::NotAName),
        Errno::BUSY => Refusal::Busy,
        Errno::OPNOTSUPP | Errno::NOSYS => Refusal::Unsupported,
        _ => Refusal::Io(error),
    }
}

/// An extended attribute's value, if there is one of at most 256 bytes.
pub(super) fn attribute(file: &File, name: &str) -> Option<Vec<u8>> {
    let mut value = [0_u8; 256];
    let length = rustix::fs::fgetxattr(file, name, &mut value[..]).ok()?;
    value.get(..length).map(<[u8]>::to_vec)
}

/// Sets an extended attribute. A file system without them only loses the mark.
pub(super) fn set_attribute(file: &File, name: &str, value: &[u8]) {
    if let Err(error) = rustix::fs::fsetxattr(file, name, value, rustix::fs::XattrFlags::empty()) {
        tracing::debug!(%error, name, "extended attribute not set");
    }
}

/// Removes an extended attribute, if it is there.
pub(super) fn remove_attribute(file: &File, name: &str) {
    let _ = rustix::fs::fremovexattr(file, name);
}
