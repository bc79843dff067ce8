//! A file system of its own, where the kernel gives one to those without privileges
//! (user_namespaces(7)): what is not in it has no name, so that nothing can be done to
//! it that Landlock leaves alone, such as changing its mode or looking at its facts.
//!
//! There is no network either, nothing shared in memory, and processes are counted
//! apart from those of the server.

use std::io;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};

use super::system;

/// What there is to be in the new root.
struct Part {
    /// Where, absolute.
    path: PathBuf,
    /// What is there.
    content: Content,
}

enum Content {
    /// A part of the old root.
    Tree {
        tree: OwnedFd,
        is_folder: bool,
    },
    Link(PathBuf),
}

/// Moves this process, which must have one thread, into namespaces of its own, whose root
/// has `home`, the system, and `terminal`. `/tmp` leads to `temporary`. The capabilities
/// that come with it are still there.
pub(super) fn enter(
    home: impl AsFd,
    path: &Path,
    temporary: Option<&Path>,
    terminal: Option<&Path>,
) -> io::Result<()> {
    let (user, group) = (rustix::process::getuid(), rustix::process::getgid());
    let flags = CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS;
    unshare(flags)?;
    write("/proc/self/setgroups", "deny")?;
    let (user, group) = (user.as_raw(), group.as_raw());
    write("/proc/self/uid_map", &format!("{user} {user} 1"))?;
    write("/proc/self/gid_map", &format!("{group} {group} 1"))?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private)?;

    let mut parts = Vec::new();
    let folders = system::FOLDERS.iter().chain(&system::SETTINGS);
    let devices = system::DEVICES.iter().chain([&system::OWN_TERMINAL]);
    for part in folders.chain(devices).map(Path::new).chain(terminal) {
        parts.extend(part_at(part)?);
    }
    let fresh = open_tree(path)?;
    let (opened, known) = (rustix::fs::fstat(&fresh)?, rustix::fs::fstat(home)?);
    if (opened.st_dev, opened.st_ino) != (known.st_dev, known.st_ino) {
        return Err(io::Error::other("the home has been moved"));
    }
    parts.push(Part {
        path: path.to_path_buf(),
        content: Content::Tree {
            tree: fresh,
            is_folder: true,
        },
    });
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        parts.push(Part {
            path: Path::new("/dev").join(name),
            content: Content::Link(target.into()),
        });
    }
    // A home in it has made it a folder.
    if let Some(temporary) = temporary.filter(|_| !path.starts_with("/tmp")) {
        parts.push(Part {
            path: "/tmp".into(),
            content: Content::Link(temporary.to_path_buf()),
        });
    }

    // Any folder serves to put it up; this one is there.
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("tmpfs", path, "tmpfs", flags, c"mode=0755,size=1m")?;
    rustix::process::chdir(path)?;
    for part in parts {
        place(&part)?;
    }
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    Ok(())
}

/// What is at `path` in the old root, if anything. Links between folders of the system stay
/// links; those to files are followed.
fn part_at(path: &Path) -> io::Result<Option<Part>> {
    let kind = match rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(facts) => FileType::from_raw_mode(facts.st_mode),
        Err(Errno::NOENT | Errno::ACCESS | Errno::NOTDIR) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let is_folder_of_system = path.components().count() == 2;
    let content = if kind == FileType::Symlink && is_folder_of_system {
        let target = rustix::fs::readlink(path, Vec::new())?;
        let target = std::os::unix::ffi::OsStringExt::from_vec(target.into_bytes());
        Content::Link(std::ffi::OsString::into(target))
    } else {
        let tree = match open_tree(path) {
            Ok(tree) => tree,
            // A link that leads nowhere.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mode = rustix::fs::fstat(&tree)?.st_mode;
        Content::Tree {
            tree,
            is_folder: FileType::from_raw_mode(mode) == FileType::Directory,
        }
    };
    Ok(Some(Part {
        path: path.to_path_buf(),
        content,
    }))
}

fn open_tree(path: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    Ok(rustix::mount::open_tree(CWD, path, flags)?)
}

/// Puts a part into the current directory, which becomes the root.
fn place(part: &Part) -> io::Result<()> {
    let relative = part.path.strip_prefix("/").map_err(io::Error::other)?;
    let parent = relative.parent().unwrap_or(Path::new(""));
    let mut way = PathBuf::new();
    for component in parent.components() {
        way.push(component);
        make_folder(&way)?;
    }
    match &part.content {
        Content::Link(target) => rustix::fs::symlink(target, relative)?,
        Content::Tree { tree, is_folder } => {
            if *is_folder {
                make_folder(relative)?;
            } else {
                let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
                drop(rustix::fs::open(relative, flags, Mode::RUSR)?);
            }
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            rustix::mount::move_mount(tree, "", CWD, relative, flags)?;
        }
    }
    Ok(())
}

fn make_folder(path: &Path) -> io::Result<()> {
    let mode = Mode::RWXU | Mode::RGRP | Mode::XGRP | Mode::ROTH | Mode::XOTH;
    match rustix::fs::mkdir(path, mode) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[expect(clippy::disallowed_methods, reason = "the kernel's own files")]
fn write(path: &str, text: &str) -> io::Result<()> {
    std::fs::write(path, text)
}
