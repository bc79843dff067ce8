//! The last stage: confines itself, and becomes the command.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, PathBeneath,
    PathFd, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};
use rustix::fd::{AsFd as _, OwnedFd};
use rustix::net::{RecvFlags, SendFlags};
use rustix::process::Signal;
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::wire::{Order, Received};
use super::{namespaces, seccomp, system, tree, wire};

/// The oldest Landlock that keeps signals in (Linux 6.12).
const OLDEST: ABI = ABI::V6;
/// The newest whose restrictions are asked for.
const NEWEST: ABI = ABI::V9;

/// Becomes the command, or tells whoever has ordered it why not.
pub(super) fn run() -> io::Result<()> {
    let supervisor = super::parent_socket()?;
    let Some(received) = wire::receive(&supervisor, RecvFlags::empty())? else {
        return Ok(());
    };
    let error = match become_command(received) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    let text = error.to_string();
    wire::send(&supervisor, text.as_bytes(), &[], SendFlags::empty())?;
    Err(error)
}

/// Whether namespaces can be used, with the folder that comes along for a home.
pub(super) fn probe() -> io::Result<()> {
    let launcher = super::parent_socket()?;
    let received = wire::receive(&launcher, RecvFlags::empty())?;
    let Some((folder, path)) = received.and_then(Received::into_folder) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    namespaces::enter(&folder, &path, None, None)
}

/// Whether Landlock is new enough.
pub(super) fn check_landlock() -> Result<(), RulesetError> {
    rules().map(|_| ())
}

enum Never {}

fn become_command(received: Received) -> io::Result<Never> {
    let order = Order::decode(&received.bytes)?;
    let Ok([home, stdin, stdout, stderr]) = <[OwnedFd; 4]>::try_from(received.descriptors) else {
        return Err(io::Error::other("an order without its descriptors"));
    };
    rustix::process::setsid()?;
    // So that what it becomes ends with who watches it, whatever ends that.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    if parent != order.supervisor {
        return Err(io::Error::other("the supervisor is gone"));
    }
    let terminal = order.terminal.as_ref();
    if terminal.is_some() {
        rustix::process::ioctl_tiocsctty(&stdin)?;
    }
    let terminal = terminal.and_then(|terminal| terminal.path.as_deref().map(Path::new));
    let temporary = order.temporary.as_ref().map(|name| order.home.join(name));
    let others = if order.namespaces {
        namespaces::enter(&home, &order.home, temporary.as_deref(), terminal)?;
        0
    } else {
        tree::tasks_of_user()
    };
    rustix::process::umask(rustix::fs::Mode::WGRP | rustix::fs::Mode::WOTH);
    enter_home(&home, &order)?;
    let status = restrict(&home, order.writable, terminal).map_err(io::Error::other)?;
    if status == RulesetStatus::NotEnforced {
        return Err(io::Error::other("Landlock is not enforced"));
    }
    drop_capabilities()?;
    rustix::stdio::dup2_stdin(&stdin)?;
    rustix::stdio::dup2_stdout(&stdout)?;
    rustix::stdio::dup2_stderr(&stderr)?;
    order.limits.apply(others)?;
    seccomp::apply(order.namespaces)?;
    Err(shell(&order, temporary.as_deref()).exec())
}

/// Makes the home the current directory: by its name, so that the command knows where it
/// is, if that leads there.
fn enter_home(home: &OwnedFd, order: &Order) -> io::Result<()> {
    let same =
        |a: rustix::fs::Stat, b: rustix::fs::Stat| (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino);
    rustix::process::chdir(&order.home)?;
    let here = rustix::fs::statat(rustix::fs::CWD, ".", rustix::fs::AtFlags::empty())?;
    if !same(here, rustix::fs::fstat(home)?) {
        return Err(io::Error::other("the home has been moved"));
    }
    Ok(())
}

fn shell(order: &Order, temporary: Option<&Path>) -> Command {
    let mut shell = Command::new(system::SHELL);
    shell.env_clear();
    for (name, value) in &order.environment {
        shell.env(name, value);
    }
    if let Some(terminal) = &order.terminal {
        shell.env("TERM", &terminal.kind);
    }
    shell
        .env("HOME", &order.home)
        .env("USER", &order.account)
        .env("LOGNAME", &order.account)
        .env("SHELL", system::SHELL)
        .env("PATH", system::SEARCH_PATH)
        .env("TMPDIR", temporary.unwrap_or(&order.home));
    match &order.command {
        // Options end here: the command may begin like one.
        Some(command) => shell
            .arg0("sh")
            .args(["-c", "--"])
            .arg(OsStr::from_bytes(command)),
        None => shell.arg0("-sh"),
    };
    shell
}

/// What is denied unless it is allowed.
fn rules() -> Result<Ruleset, RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(OLDEST))?
        .handle_access(AccessNet::from_all(OLDEST))?
        .scope(Scope::from_all(OLDEST))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))
}

/// Leaves this process, for good, the home, the system and its terminal.
fn restrict(
    home: &OwnedFd,
    writable: bool,
    terminal: Option<&Path>,
) -> Result<RulesetStatus, RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::Execute;
    let device = AccessFs::ReadFile | AccessFs::WriteFile;
    let mut created = rules()?.create()?;
    created = created.add_rule(PathBeneath::new(home.as_fd(), rights_at_home(writable)))?;
    for folder in system::FOLDERS {
        created = created.add_rules(rule(folder, read))?;
    }
    for setting in system::SETTINGS {
        created = created.add_rules(rule(setting, AccessFs::ReadFile | AccessFs::ReadDir))?;
    }
    for path in system::DEVICES {
        created = created.add_rules(rule(path, device))?;
    }
    if let Some(terminal) = terminal {
        for path in [terminal, Path::new(system::OWN_TERMINAL)] {
            created = created.add_rules(rule(path, device | AccessFs::IoctlDev))?;
        }
    }
    Ok(created.restrict_self()?.ruleset)
}

/// A rule for what is at `path`, if something is. Files have no entries to be read.
fn rule(
    path: impl AsRef<Path>,
    access: BitFlags<AccessFs>,
) -> Option<Result<PathBeneath<PathFd>, RulesetError>> {
    let path: PathBuf = path.as_ref().to_path_buf();
    let access = if path.is_dir() {
        access
    } else {
        access & AccessFs::from_file(NEWEST)
    };
    let place = PathFd::new(path).ok()?;
    Some(Ok(PathBeneath::new(place, access)))
}

/// What the command may do in its home. Without room it may take away, and add nothing.
fn rights_at_home(writable: bool) -> BitFlags<AccessFs> {
    if writable {
        AccessFs::from_all(NEWEST)
            & !(AccessFs::MakeChar
                | AccessFs::MakeBlock
                | AccessFs::IoctlDev
                | AccessFs::ResolveUnix)
    } else {
        AccessFs::ReadFile
            | AccessFs::ReadDir
            | AccessFs::Execute
            | AccessFs::RemoveFile
            | AccessFs::RemoveDir
    }
}

/// Those that came with the namespaces, and any others.
fn drop_capabilities() -> io::Result<()> {
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::clear_ambient_capability_set()?;
    rustix::thread::set_capabilities(None, none)?;
    rustix::thread::set_no_new_privs(true)?;
    Ok(())
}
