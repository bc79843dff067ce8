//! What the process may do beside its own work, and how it gives that up.
//!
//! Linux keeps privileges per thread. Everything here must come before there are
//! threads: those that are made later inherit what is left.

use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::{self, Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// A user that the process can become.
#[derive(Debug, Clone)]
pub(crate) struct User {
    name: String,
    uid: Uid,
    gid: Gid,
}

impl User {
    /// Looks a user up as the system does (passwd, LDAP …).
    pub(crate) fn find(name: &str) -> Result<Self, PrivilegeError> {
        let user = unistd::User::from_name(name)
            .map_err(|error| PrivilegeError::Lookup(name.to_owned(), error.into()))?
            .ok_or_else(|| PrivilegeError::NoSuchUser(name.to_owned()))?;
        if user.uid.is_root() || user.gid.as_raw() == 0 {
            return Err(PrivilegeError::IsRoot(user.name));
        }
        Ok(Self {
            name: user.name,
            uid: user.uid,
            gid: user.gid,
        })
    }

    /// The owner of `path`, unless that is root or the path is not there.
    #[expect(
        clippy::disallowed_methods,
        reason = "the data directory is the operator's, from the configuration"
    )]
    fn owner_of(path: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let metadata = std::fs::metadata(path).ok()?;
        let (uid, gid) = (Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid()));
        (!uid.is_root()).then(|| Self {
            name: uid.to_string(),
            uid,
            gid,
        })
    }

    /// The user's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether something with this number as its owner is the user's.
    pub(crate) fn owns(&self, uid: u32) -> bool {
        self.uid.as_raw() == uid
    }

    /// Makes a directory that only the user may enter, in one that is there. One that exists stays as it is.
    pub(crate) fn make_directory(&self, path: &Path) -> io::Result<()> {
        use rustix::fs::{Gid, Mode, OFlags, Uid};
        match rustix::fs::mkdir(path, Mode::RWXU) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        // What was put in its place meanwhile is not given away.
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::open(path, flags, Mode::empty())?;
        let (uid, gid) = (self.uid.as_raw(), self.gid.as_raw());
        rustix::fs::fchown(made, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        Ok(())
    }

    /// Becomes the user for good, without any further groups.
    fn assume(&self) -> Result<(), PrivilegeError> {
        let failed = |error: nix::Error| PrivilegeError::Assume(self.name.clone(), error.into());
        unistd::setgroups(&[]).map_err(failed)?;
        unistd::setresgid(self.gid, self.gid, self.gid).map_err(failed)?;
        unistd::setresuid(self.uid, self.uid, self.uid).map_err(failed)?;
        self.verify().map_err(failed)
    }

    /// That nothing is left of who the process was, and no way back.
    fn verify(&self) -> nix::Result<()> {
        let users = unistd::getresuid()?;
        let groups = unistd::getresgid()?;
        let changed = [users.real, users.effective, users.saved] == [self.uid; 3]
            && [groups.real, groups.effective, groups.saved] == [self.gid; 3]
            && unistd::getgroups()?.iter().all(|group| *group == self.gid);
        let root = Uid::from_raw(0);
        let roots = Gid::from_raw(0);
        let back = unistd::setresuid(root, root, root).is_ok()
            || unistd::seteuid(root).is_ok()
            || (self.gid != roots && unistd::setegid(roots).is_ok());
        if !changed || back {
            return Err(nix::Error::EPERM);
        }
        Ok(())
    }
}

/// As whom the process runs.
pub(crate) enum Standing {
    Root,
    /// Who was root.
    Became(User),
    /// Who never was root.
    Unprivileged,
}

impl Standing {
    pub(crate) fn log(&self) {
        match self {
            Self::Root => tracing::warn!(
                "runs as root, which it does not need once its ports are open; name a user for it with --user"
            ),
            Self::Became(user) => {
                tracing::info!(user = user.name(), uid = %user.uid, gid = %user.gid, "gave up root");
            }
            Self::Unprivileged => {}
        }
    }
}

/// Becomes `user` if there is one, and gives up whatever could raise privileges
/// again. For the log once the server has started: an error is to be the only line.
pub(crate) fn give_up(user: Option<User>) -> Result<Standing, PrivilegeError> {
    let me = unistd::geteuid();
    let standing = match user {
        Some(user) if me.is_root() => {
            user.assume()?;
            Standing::Became(user)
        }
        Some(user) if user.uid == me => Standing::Unprivileged,
        Some(user) => return Err(PrivilegeError::NotRoot(user.name)),
        None if me.is_root() => Standing::Root,
        None => Standing::Unprivileged,
    };
    if !unistd::geteuid().is_root() {
        // Such as the one for low ports, which are open by now.
        let none = CapabilitySets {
            effective: CapabilitySet::empty(),
            permitted: CapabilitySet::empty(),
            inheritable: CapabilitySet::empty(),
        };
        rustix::thread::clear_ambient_capability_set()
            .and_then(|()| rustix::thread::set_capabilities(None, none))
            .map_err(|error| PrivilegeError::Capabilities(error.into()))?;
    }
    rustix::thread::set_no_new_privs(true)
        .map_err(|error| PrivilegeError::NoNewPrivileges(error.into()))?;
    Ok(standing)
}

/// Lets a command that root runs act as the owner of what it works on, the
/// first of `paths` that is there. What it makes is then the owner's, as a server
/// needs it that has given up root; and nothing that the owner has put there
/// leads root elsewhere.
pub(crate) fn act_as_owner_of(paths: &[PathBuf]) -> Result<(), PrivilegeError> {
    if !unistd::geteuid().is_root() {
        return Ok(());
    }
    let existing = paths.iter().find(|path| path.exists());
    match existing.and_then(|path| User::owner_of(path)) {
        Some(owner) => owner.assume(),
        None => Ok(()),
    }
}

/// Why privileges were not given up. The process must not go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrivilegeError {
    #[error("--user {0}: no such user; make one with: useradd --system {0}")]
    NoSuchUser(String),
    #[error("--user {0}: the user cannot be looked up: {1}")]
    Lookup(String, io::Error),
    #[error("--user {0}: that is root, or root's group; choose a user without privileges")]
    IsRoot(String),
    #[error("--user {0}: only root can become another user")]
    NotRoot(String),
    #[error("cannot become {0} for good: {1}")]
    Assume(String, io::Error),
    #[error("cannot give up capabilities: {0}")]
    Capabilities(io::Error),
    #[error("cannot set no_new_privs: {0}")]
    NoNewPrivileges(io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_that_are_root_or_nobody_at_all_are_refused() {
        assert!(matches!(User::find("root"), Err(PrivilegeError::IsRoot(_))));
        for name in ["", "no such user", "a\0b"] {
            let error = User::find(name).expect_err("refused");
            assert!(matches!(error, PrivilegeError::NoSuchUser(_)), "{error}");
        }
    }
}
