//! The local side: a folder that is opened once, and what lies beneath it.
//!
//! Names from a server reach the disk only as components of a [`VirtualPath`]
//! below a directory descriptor, so no name can lead out of the folder: not
//! `..`, not an absolute path, not a symbolic link. A download is written to a
//! partial file beside its target and renamed over it when it is proven.

use std::fs::{File, TryLockError};
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use cap_std::ambient_authority;
use cap_std::fs::{Dir, Metadata, OpenOptions};
use wharf_model::{
    DigestAlgorithm, EntryKind, FileName, Hasher, PathError, VirtualPath, escape_for_display,
};

use crate::error::ClientError;
use crate::plan::Origin;

/// A local folder and everything beneath it. Clones share one descriptor.
#[derive(Debug, Clone)]
pub struct LocalTree {
    root: Arc<Dir>,
    /// The folder as the person wrote it, for messages only.
    shown: Arc<Path>,
}

/// What stands under a local name. Links are reported, not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalEntry {
    /// The name's bytes.
    pub name: Vec<u8>,
    /// File, directory, link or something else.
    pub kind: EntryKind,
    /// Bytes of content; 0 for what is not a file.
    pub size: u64,
    /// Last modification, where the file system knows it.
    pub modified: Option<SystemTime>,
}

impl LocalTree {
    /// Opens a folder that exists.
    ///
    /// # Errors
    /// [`ClientError::Local`].
    pub fn open(folder: &Path) -> Result<Self, ClientError> {
        let root = Dir::open_ambient_dir(folder, ambient_authority())
            .map_err(|source| local_error(folder, source))?;
        Ok(Self {
            root: Arc::new(root),
            shown: Arc::from(folder),
        })
    }

    /// Opens a folder, making it and its parents if they are missing.
    ///
    /// # Errors
    /// [`ClientError::Local`].
    pub fn open_or_create(folder: &Path) -> Result<Self, ClientError> {
        Dir::create_ambient_dir_all(folder, ambient_authority())
            .map_err(|source| local_error(folder, source))?;
        Self::open(folder)
    }

    /// What stands at `path`; `None` if nothing does. A link at the end of the path is not followed.
    ///
    /// # Errors
    /// [`ClientError::Local`], [`ClientError::BadName`].
    pub fn stat(&self, path: &VirtualPath) -> Result<Option<LocalEntry>, ClientError> {
        match self.root.symlink_metadata(os_path(path)?) {
            Ok(metadata) => {
                let name = path.file_name().unwrap_or_default().to_vec();
                Ok(Some(LocalEntry::new(name, &metadata)))
            }
            Err(error) if is_absent(&error) => Ok(None),
            Err(source) => Err(self.error(path, source)),
        }
    }

    /// The entries of a folder, in no order, without `.` and `..`.
    ///
    /// # Errors
    /// [`ClientError::Local`], [`ClientError::BadName`].
    pub fn list(&self, path: &VirtualPath) -> Result<Vec<LocalEntry>, ClientError> {
        let entries = self
            .root
            .read_dir(os_path(path)?)
            .map_err(|source| self.error(path, source))?;
        let mut list = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|source| self.error(path, source))?;
            let name = bytes_of_name(&entry.file_name());
            match entry.metadata() {
                Ok(metadata) => list.push(LocalEntry::new(name, &metadata)),
                // Removed since the folder was read.
                Err(error) if is_absent(&error) => {}
                Err(source) => return Err(self.error(path, source)),
            }
        }
        Ok(list)
    }

    /// Makes a folder and those above it; one that exists is fine.
    ///
    /// # Errors
    /// [`ClientError::Local`], [`ClientError::BadName`].
    pub fn create_directory(&self, path: &VirtualPath) -> Result<(), ClientError> {
        self.root
            .create_dir_all(os_path(path)?)
            .map_err(|source| self.error(path, source))
    }

    /// Removes a file or a link.
    ///
    /// # Errors
    /// [`ClientError::Local`], [`ClientError::BadName`].
    pub fn remove_file(&self, path: &VirtualPath) -> Result<(), ClientError> {
        self.root
            .remove_file(os_path(path)?)
            .map_err(|source| self.error(path, source))
    }

    /// Removes an empty folder.
    ///
    /// # Errors
    /// [`ClientError::Local`], [`ClientError::BadName`].
    pub fn remove_directory(&self, path: &VirtualPath) -> Result<(), ClientError> {
        self.root
            .remove_dir(os_path(path)?)
            .map_err(|source| self.error(path, source))
    }

    /// Opens a file for reading. A link is followed as far as it stays beneath the folder.
    ///
    /// # Errors
    /// [`ClientError::IsADirectory`], [`ClientError::Local`], [`ClientError::BadName`].
    pub fn open_source(&self, path: &VirtualPath) -> Result<LocalSource, ClientError> {
        let name = os_path(path)?;
        // Looked at before it is opened: opening a pipe would wait for its writer.
        let metadata = self
            .root
            .metadata(&name)
            .map_err(|source| self.error(path, source))?;
        if metadata.is_dir() {
            return Err(ClientError::IsADirectory);
        }
        if !metadata.is_file() {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
            return Err(self.error(path, source));
        }
        let file = self
            .root
            .open(&name)
            .map_err(|source| self.error(path, source))?
            .into_std();
        let metadata = file.metadata().map_err(|source| self.error(path, source))?;
        Ok(LocalSource {
            size: metadata.len(),
            modified: metadata.modified().ok(),
            file,
        })
    }

    /// Opens the partial file of a download to `target`, made if missing, and
    /// locks it against other processes.
    ///
    /// # Errors
    /// [`ClientError::IsADirectory`] when a directory stands under the final
    /// name; [`ClientError::BadName`], also for a name that could be that of
    /// another download's partial; [`ClientError::Local`].
    pub fn open_partial(&self, target: &VirtualPath) -> Result<PartialFile, ClientError> {
        let (Some(folder), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(ClientError::IsADirectory);
        };
        if is_partial_name(name) {
            return Err(bad_name(name, PathError::Reserved));
        }
        let name = FileName::parse(name).map_err(|source| bad_name(name, source))?;
        let dir = self
            .root
            .open_dir(os_path(&folder)?)
            .map_err(|source| self.error(&folder, source))?;
        let failed = |source| self.error(target, source);
        if self
            .stat(target)?
            .is_some_and(|entry| entry.kind == EntryKind::Directory)
        {
            return Err(ClientError::IsADirectory);
        }
        let part_name = os_name(&partial_name(&name))?;
        refuse_what_is_no_file(&dir, &part_name).map_err(failed)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true);
        let file = dir
            .open_with(&part_name, &options)
            .map_err(failed)?
            .into_std();
        lock(&file).map_err(failed)?;
        // The download that held the lock may have put this file in place meanwhile.
        if !is_called(&file, &dir, &part_name).map_err(failed)? {
            return Err(failed(in_use()));
        }
        let metadata = file.metadata().map_err(failed)?;
        Ok(PartialFile {
            size: metadata.len(),
            origin: origin(&metadata),
            file,
            dir,
            part_name,
            final_name: os_name(name.as_bytes())?,
            shown: self.show(target),
        })
    }

    /// The path as a person knows it, escaped for a terminal.
    pub fn show(&self, path: &VirtualPath) -> String {
        let folder = escape_for_display(self.shown.as_os_str().as_encoded_bytes());
        match (path.is_root(), folder.ends_with('/')) {
            (true, _) => folder,
            (false, true) => format!("{folder}{}", escape_for_display(path.as_relative_bytes())),
            (false, false) => format!("{folder}{path}"),
        }
    }

    fn error(&self, path: &VirtualPath, source: io::Error) -> ClientError {
        ClientError::Local {
            path: self.show(path),
            source,
        }
    }
}

impl LocalEntry {
    fn new(name: Vec<u8>, metadata: &Metadata) -> Self {
        let kind = if metadata.is_file() {
            EntryKind::File
        } else if metadata.is_dir() {
            EntryKind::Directory
        } else if metadata.is_symlink() {
            EntryKind::Symlink
        } else {
            EntryKind::Other
        };
        Self {
            name,
            kind,
            size: if kind == EntryKind::File {
                metadata.len()
            } else {
                0
            },
            modified: metadata.modified().ok().map(|time| time.into_std()),
        }
    }
}

/// A local file that is being uploaded.
#[derive(Debug)]
pub struct LocalSource {
    /// Opened for reading, at its begin.
    pub file: File,
    /// Length when it was opened, in bytes.
    pub size: u64,
    /// Last modification when it was opened.
    pub modified: Option<SystemTime>,
}

impl LocalSource {
    /// Whether the file was written to since it was opened, as far as size and time tell.
    ///
    /// # Errors
    /// What the system says.
    pub fn has_changed(&self) -> io::Result<bool> {
        let now = self.file.metadata()?;
        Ok((now.len(), now.modified().ok()) != (self.size, self.modified))
    }
}

/// The file that a download is written to until it is proven. Locked while it is open.
#[derive(Debug)]
pub struct PartialFile {
    file: File,
    dir: Dir,
    part_name: PathBuf,
    final_name: PathBuf,
    shown: String,
    size: u64,
    origin: Origin,
}

/// What [`PartialFile::commit`] does beside the rename.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CommitOptions {
    /// Time of last modification to give the file.
    pub modified: Option<SystemTime>,
    /// Whether the content and the new name must have reached the disk before it returns.
    pub durable: bool,
}

impl PartialFile {
    /// Bytes that an earlier transfer left.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What an earlier transfer's mark, or its last write, says about where the bytes come from.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// A second handle on the same file, at the same position.
    ///
    /// # Errors
    /// [`ClientError::Local`].
    pub fn handle(&self) -> Result<File, ClientError> {
        self.file.try_clone().map_err(|source| self.error(source))
    }

    /// Goes to the first byte, to read what is there.
    ///
    /// # Errors
    /// [`ClientError::Local`].
    pub fn rewind(&mut self) -> Result<(), ClientError> {
        self.file.rewind().map_err(|source| self.error(source))
    }

    /// The file's length as it is now, in bytes.
    ///
    /// # Errors
    /// [`ClientError::Local`].
    pub fn written(&self) -> Result<u64, ClientError> {
        let facts = self.file.metadata().map_err(|source| self.error(source))?;
        Ok(facts.len())
    }

    /// Cuts the file to `offset` bytes and goes there, to write what follows.
    ///
    /// # Errors
    /// [`ClientError::Local`].
    pub fn cut_to(&mut self, offset: u64) -> Result<(), ClientError> {
        self.file
            .set_len(offset)
            .and_then(|()| self.file.seek(SeekFrom::Start(offset)))
            .map_err(|source| self.error(source))?;
        self.size = offset;
        Ok(())
    }

    /// Puts the file in place under its final name, replacing what stood there.
    ///
    /// # Errors
    /// [`ClientError::Local`]; the partial then stays where it is.
    pub fn commit(self, options: CommitOptions) -> Result<(), ClientError> {
        if let Some(time) = options.modified {
            self.file
                .set_modified(time)
                .map_err(|source| self.error(source))?;
        }
        if options.durable {
            self.file.sync_all().map_err(|source| self.error(source))?;
        }
        if !is_called(&self.file, &self.dir, &self.part_name)
            .map_err(|source| self.error(source))?
        {
            let source = io::Error::other("the partial download was moved away or replaced");
            return Err(self.error(source));
        }
        self.dir
            .rename(&self.part_name, &self.dir, &self.final_name)
            .map_err(|source| self.error(source))?;
        if options.durable {
            sync_directory(&self.dir).map_err(|source| self.error(source))?;
        }
        Ok(())
    }

    /// Removes the partial file.
    ///
    /// # Errors
    /// [`ClientError::Local`].
    pub fn discard(self) -> Result<(), ClientError> {
        self.remove().map_err(|source| self.error(source))
    }

    /// Leaves the partial for a later transfer, marked with the source's time:
    /// so the later one can tell whether the source is still the same.
    pub fn keep(self, source_modified: Option<SystemTime>) {
        let empty = self.file.metadata().is_ok_and(|facts| facts.len() == 0);
        if empty {
            // Nothing to resume; failing leaves an empty file that the next transfer takes over.
            let _ = self.remove();
        } else if let Some(time) = source_modified {
            // Failing leaves the time of the last write, which serves nearly as well.
            let _ = self.file.set_modified(time);
        }
    }

    /// Removes the name, unless it is another file's by now.
    fn remove(&self) -> io::Result<()> {
        if is_called(&self.file, &self.dir, &self.part_name)? {
            self.dir.remove_file(&self.part_name)?;
        }
        Ok(())
    }

    fn error(&self, source: io::Error) -> ClientError {
        ClientError::Local {
            path: self.shown.clone(),
            source,
        }
    }
}

/// The name of the partial file of a download to `name`: `.name.wharf-part`,
/// or a digest in its middle where that would be too long for a file system.
fn partial_name(name: &FileName) -> Vec<u8> {
    let mut part = Vec::with_capacity(FileName::MAX_BYTES);
    part.push(b'.');
    if name.as_bytes().len() + 1 + PARTIAL_SUFFIX.len() <= FileName::MAX_BYTES {
        part.extend_from_slice(name.as_bytes());
    } else {
        let mut hasher = Hasher::new(DigestAlgorithm::Blake3);
        hasher.update(name.as_bytes());
        part.extend_from_slice(hasher.finish().to_string().as_bytes());
    }
    part.extend_from_slice(PARTIAL_SUFFIX);
    part
}

/// A transfer that ends marks its partial with the source's time, which the
/// last change of the inode then differs from. One that is killed does not.
fn origin(metadata: &std::fs::Metadata) -> Origin {
    match metadata.modified() {
        Ok(time) if is_marked(metadata) => Origin::Marked(time),
        Ok(time) => Origin::Written(time),
        Err(_) => Origin::Unknown,
    }
}

#[cfg(unix)]
fn is_marked(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    // A write sets both times to the same moment, some network file systems to nearly the same.
    metadata.ctime().abs_diff(metadata.mtime()) > 1
}

#[cfg(not(unix))]
fn is_marked(_: &std::fs::Metadata) -> bool {
    false
}

/// Whether a name has the form of a partial's, on file systems that do not
/// tell capitals from small letters too. A file of such a name is not
/// transferred: it might be taken for the begin of another.
pub(crate) fn is_partial_name(name: &[u8]) -> bool {
    let suffix = name
        .len()
        .checked_sub(PARTIAL_SUFFIX.len())
        .and_then(|at| name.get(at..));
    name.starts_with(b".") && suffix.is_some_and(|end| end.eq_ignore_ascii_case(PARTIAL_SUFFIX))
}

const PARTIAL_SUFFIX: &[u8] = b".wharf-part";

fn refuse_what_is_no_file(dir: &Dir, name: &Path) -> io::Result<()> {
    match dir.symlink_metadata(name) {
        Ok(metadata) if !metadata.is_file() => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "something that is no file stands where the partial download would be written",
        )),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn lock(file: &File) -> io::Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(in_use()),
        // Some network file systems have no locks; the download still works.
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn in_use() -> io::Error {
    io::Error::new(
        io::ErrorKind::ResourceBusy,
        "another download writes to the same file",
    )
}

/// Whether `name` in `dir` is this very file.
#[cfg(unix)]
fn is_called(file: &File, dir: &Dir, name: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;

    use cap_std::fs::MetadataExt as _;
    let named = match dir.symlink_metadata(name) {
        Err(error) if is_absent(&error) => return Ok(false),
        named => named?,
    };
    let open = file.metadata()?;
    Ok((named.dev(), named.ino()) == (open.dev(), open.ino()))
}

/// The lock alone keeps others away where files have no number to tell.
#[cfg(not(unix))]
fn is_called(_: &File, _: &Dir, _: &Path) -> io::Result<bool> {
    Ok(true)
}

/// Makes a rename in `dir` durable, where the system has a way to.
fn sync_directory(dir: &Dir) -> io::Result<()> {
    if cfg!(unix) {
        // The descriptor of `dir` may be good for lookups only (O_PATH).
        dir.open(".")?.sync_all()?;
    }
    Ok(())
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn local_error(path: &Path, source: io::Error) -> ClientError {
    ClientError::Local {
        path: escape_for_display(path.as_os_str().as_encoded_bytes()),
        source,
    }
}

fn bad_name(name: &[u8], source: PathError) -> ClientError {
    ClientError::BadName {
        name: escape_for_display(name),
        source,
    }
}

/// The path below the folder's descriptor, in the system's own form.
fn os_path(path: &VirtualPath) -> Result<PathBuf, ClientError> {
    os_name(path.as_relative_bytes())
}

#[cfg(unix)]
#[expect(
    clippy::unnecessary_wraps,
    reason = "on other systems not all bytes are a name"
)]
fn os_name(bytes: &[u8]) -> Result<PathBuf, ClientError> {
    use std::os::unix::ffi::OsStrExt;
    Ok(PathBuf::from(std::ffi::OsStr::from_bytes(bytes)))
}

/// Where names are text and `\` and `:` have a meaning, names that are no text
/// or hold one of these are refused.
#[cfg(not(unix))]
fn os_name(bytes: &[u8]) -> Result<PathBuf, ClientError> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(['\\', ':']) => Ok(PathBuf::from(text)),
        _ => Err(bad_name(bytes, PathError::NotAName)),
    }
}

#[cfg(unix)]
fn bytes_of_name(name: &std::ffi::OsStr) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    name.as_bytes().to_vec()
}

#[cfg(not(unix))]
fn bytes_of_name(name: &std::ffi::OsStr) -> Vec<u8> {
    name.to_string_lossy().into_owned().into_bytes()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn path(text: &str) -> VirtualPath {
        VirtualPath::parse(text.as_bytes()).expect("a path")
    }

    fn folder() -> (tempfile::TempDir, LocalTree, Dir) {
        let temp = tempfile::tempdir().expect("a folder");
        let tree = LocalTree::open(temp.path()).expect("opens");
        let dir = Dir::open_ambient_dir(temp.path(), ambient_authority()).expect("opens");
        (temp, tree, dir)
    }

    #[test]
    fn a_download_appears_under_its_name_only_when_committed() {
        let (_temp, tree, dir) = folder();
        let partial = tree.open_partial(&path("/a")).expect("opens");
        partial
            .handle()
            .and_then(|mut file| file.write_all(b"new").map_err(|e| partial.error(e)))
            .expect("writes");
        assert!(!dir.exists("a"));
        let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        let options = CommitOptions {
            modified: Some(time),
            durable: true,
        };
        partial.commit(options).expect("commits");
        assert_eq!(dir.read("a").expect("reads"), b"new");
        assert!(!dir.exists(".a.wharf-part"));
        let entry = tree.stat(&path("/a")).expect("stats").expect("exists");
        assert_eq!((entry.size, entry.modified), (3, Some(time)));
    }

    #[test]
    fn a_partial_is_found_again_and_continued() {
        let (_temp, tree, dir) = folder();
        let partial = tree.open_partial(&path("/a")).expect("opens");
        partial
            .handle()
            .expect("a handle")
            .write_all(b"12345")
            .expect("writes");
        partial.keep(None);
        let mut again = tree.open_partial(&path("/a")).expect("opens again");
        assert_eq!(again.size(), 5);
        again.cut_to(3).expect("cuts");
        again
            .handle()
            .expect("a handle")
            .write_all(b"xyz")
            .expect("writes");
        again.commit(CommitOptions::default()).expect("commits");
        assert_eq!(dir.read("a").expect("reads"), b"123xyz");
    }

    #[cfg(unix)]
    #[test]
    fn a_mark_is_told_from_a_last_write() {
        let (_temp, tree, _dir) = folder();
        let write = || {
            let partial = tree.open_partial(&path("/a")).expect("opens");
            partial
                .handle()
                .expect("a handle")
                .write_all(b"1")
                .expect("writes");
            partial
        };
        drop(write());
        let killed = tree.open_partial(&path("/a")).expect("opens").origin();
        assert!(matches!(killed, Origin::Written(_)), "{killed:?}");
        let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        write().keep(Some(time));
        let kept = tree.open_partial(&path("/a")).expect("opens").origin();
        assert_eq!(kept, Origin::Marked(time));
    }

    #[test]
    fn two_downloads_to_one_name_do_not_run_together() {
        let (_temp, tree, _dir) = folder();
        let _first = tree.open_partial(&path("/a")).expect("opens");
        let second = tree.open_partial(&path("/a"));
        assert!(matches!(second, Err(ClientError::Local { .. })));
    }

    #[test]
    fn an_empty_partial_is_not_kept() {
        let (_temp, tree, dir) = folder();
        tree.open_partial(&path("/a")).expect("opens").keep(None);
        assert!(!dir.exists(".a.wharf-part"));
    }

    #[cfg(unix)]
    #[test]
    fn links_never_lead_a_download_out_of_the_folder() {
        let (_temp, tree, dir) = folder();
        let outside = tempfile::tempdir().expect("a folder");
        dir.symlink_contents(outside.path(), "out").expect("a link");
        dir.symlink_contents(outside.path().join("x"), ".b.wharf-part")
            .expect("a link");
        assert!(tree.open_partial(&path("/out/a")).is_err());
        assert!(tree.create_directory(&path("/out/d")).is_err());
        assert!(tree.open_partial(&path("/b")).is_err());
        let beyond = Dir::open_ambient_dir(outside.path(), ambient_authority()).expect("opens");
        assert_eq!(beyond.entries().expect("lists").count(), 0);
    }

    #[test]
    fn entries_are_listed_with_their_kinds_and_sizes() {
        let (_temp, tree, dir) = folder();
        dir.write("file", b"abc").expect("writes");
        dir.create_dir("sub").expect("makes");
        let mut names: Vec<_> = tree
            .list(&VirtualPath::root())
            .expect("lists")
            .into_iter()
            .map(|entry| (entry.name, entry.kind, entry.size))
            .collect();
        names.sort_by(|one, other| one.0.cmp(&other.0));
        assert_eq!(
            names,
            [
                (b"file".to_vec(), EntryKind::File, 3),
                (b"sub".to_vec(), EntryKind::Directory, 0)
            ]
        );
    }

    #[test]
    fn a_name_of_a_partials_form_is_no_target() {
        let (_temp, tree, _dir) = folder();
        for name in ["/.a.wharf-part", "/.a.WHARF-part", "/d/../.wharf-part"] {
            let refused = tree.open_partial(&path(name));
            assert!(
                matches!(refused, Err(ClientError::BadName { .. })),
                "{name}"
            );
        }
    }

    #[cfg(unix)]
    #[test]
    fn only_the_file_that_was_written_is_put_in_place() {
        let (_temp, tree, dir) = folder();
        let partial = tree.open_partial(&path("/a")).expect("opens");
        dir.rename(".a.wharf-part", &dir, "moved").expect("renames");
        dir.write(".a.wharf-part", b"other").expect("writes");
        assert!(partial.commit(CommitOptions::default()).is_err());
        assert!(!dir.exists("a"));
        let partial = tree.open_partial(&path("/b")).expect("opens");
        dir.rename(".b.wharf-part", &dir, "b").expect("renames");
        dir.write(".b.wharf-part", b"other").expect("writes");
        partial.discard().expect("leaves the other alone");
        assert_eq!(dir.read(".b.wharf-part").expect("is there"), b"other");
    }

    #[test]
    fn a_directory_is_never_replaced_by_a_download() {
        let (_temp, tree, dir) = folder();
        dir.create_dir("d").expect("makes");
        let refused = tree.open_partial(&path("/d"));
        assert!(matches!(refused, Err(ClientError::IsADirectory)));
        let refused = tree.open_source(&path("/d"));
        assert!(matches!(refused, Err(ClientError::IsADirectory)));
    }

    #[test]
    fn long_names_get_a_partial_name_that_fits() {
        let name = FileName::parse(&[b'x'; 255]).expect("a name");
        let part = partial_name(&name);
        assert!(part.len() <= 255 && is_partial_name(&part));
        assert_eq!(
            partial_name(&FileName::parse(b"a b").expect("a name")),
            b".a b.wharf-part"
        );
    }

    #[test]
    fn sources_are_read_with_their_size() {
        let (_temp, tree, dir) = folder();
        dir.write("file", b"abc").expect("writes");
        let mut source = tree.open_source(&path("/file")).expect("opens");
        let mut text = String::new();
        source.file.read_to_string(&mut text).expect("reads");
        assert_eq!((source.size, text.as_str()), (3, "abc"));
        assert!(!source.has_changed().expect("looks"));
        dir.write("file", b"abcd").expect("writes");
        assert!(source.has_changed().expect("looks"));
    }
}
