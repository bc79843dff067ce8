//! Real processes for accounts that may run them, confined.
//!
//! ```text
//! server ──► launcher ──► supervisor ──► confine ═exec═► /bin/sh
//! (fenced)   (one)        (one a command, unconfined)    (confined)
//!    └──────────── control ────┘
//! ```
//!
//! All are one executable, whose hidden subcommand is a [`Stage`]. The launcher starts
//! before the server closes its own fence, so that the fence needs no hole for what
//! processes may reach. The server and the supervisor of a command share a socket: orders
//! and signals go one way, the terminal and the end the other, and its closing ends the
//! command, whoever closes it.
//!
//! Invariant: nothing that a command has started outlives it, and no command its session.

mod confine;
mod launcher;
mod limits;
mod namespaces;
mod runner;
mod seccomp;
mod signals;
mod supervisor;
mod system;
mod terminal;
mod tree;
mod wire;

use std::io;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::str::FromStr;

use rustix::fd::OwnedFd;
use rustix::process::{DumpableBehavior, Pid, set_dumpable_behavior};

pub use limits::Limits;
pub use runner::{Places, Processes};

/// The hidden subcommand that runs a [`Stage`], whose name is its argument.
pub const SUBCOMMAND: &str = "process-stage";

/// What starts commands for [`Processes::prepare`]: `executable`, as whom it runs now.
/// Whoever calls it may have it run as another user.
pub fn launcher(executable: &Path) -> Command {
    Stage::Launch.command(executable)
}

/// What the executable is when it is started to run commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Starts supervisors for the server.
    Launch,
    /// Starts, watches and ends one command.
    Supervise,
    /// Confines itself and becomes the command.
    Confine,
    /// Tells whether namespaces can be used, by its exit code.
    Probe,
}

impl Stage {
    /// Its name on the command line of the hidden subcommand.
    fn name(self) -> &'static str {
        match self {
            Self::Launch => "launch",
            Self::Supervise => "supervise",
            Self::Confine => "confine",
            Self::Probe => "probe",
        }
    }

    /// Runs it, to its end. Its standard input is a socket to who has started it.
    pub fn run(self) -> ExitCode {
        let prepared = close_inherited()
            .and_then(|()| signals::hold())
            .and_then(|()| self.hide());
        let ended = prepared.and_then(|()| match self {
            Self::Launch => launcher::run(),
            Self::Supervise => supervisor::run(),
            Self::Confine => confine::run(),
            Self::Probe => confine::probe(),
        });
        match ended {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("wharf: process {}: {error}", self.name());
                ExitCode::FAILURE
            }
        }
    }

    /// Hides what it is about from others of the same user (proc(5)). The last stage hides by
    /// being confined, and must write files of its own that hiding would close to it.
    fn hide(self) -> io::Result<()> {
        match self {
            Self::Launch | Self::Supervise => {
                Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
            }
            Self::Confine | Self::Probe => Ok(()),
        }
    }

    /// Starts it with `socket` as its standard input, and nothing else of ours but the
    /// place where errors go.
    fn start(self, socket: OwnedFd, errors: Errors) -> io::Result<Pid> {
        // Not by its name, under which there may be another version by now.
        let mut command = self.command(Path::new("/proc/self/exe"));
        if errors == Errors::Dropped {
            command.stderr(Stdio::null());
        }
        let child = command.stdin(Stdio::from(socket)).spawn()?;
        Ok(pid_of(&child))
    }

    fn command(self, executable: &Path) -> Command {
        use std::os::unix::process::CommandExt as _;
        let mut command = Command::new(executable);
        command
            .arg0("wharf")
            .args([SUBCOMMAND, self.name()])
            .env_clear()
            .current_dir("/")
            .stdout(Stdio::null());
        command
    }
}

impl FromStr for Stage {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let stages = [Self::Launch, Self::Supervise, Self::Confine, Self::Probe];
        let named = stages.into_iter().find(|stage| stage.name() == name);
        named.ok_or("wharf itself uses this")
    }
}

/// What becomes of the errors of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Errors {
    /// They go where those of the server go.
    Shown,
    /// They are expected, or told in another way.
    Dropped,
}

fn pid_of(child: &std::process::Child) -> Pid {
    i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .expect("the system numbers processes from 1 to 2^22 (proc(5))")
}

/// The socket to who has started this process.
fn parent_socket() -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?)
}

/// Closes what whoever started the server has left open. Ours are closed on execution.
#[expect(
    clippy::disallowed_methods,
    reason = "the kernel's list of this process's own descriptors"
)]
fn close_inherited() -> io::Result<()> {
    let mut open = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let number = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        open.extend(number.filter(|number: &i32| *number > 2));
    }
    for number in open {
        // That of the listing itself is closed by now.
        let _ = nix::unistd::close(number);
    }
    Ok(())
}
