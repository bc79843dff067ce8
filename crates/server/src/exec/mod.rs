//! Remote commands without a process: a small shell on the virtual file system.
//!
//! ```text
//! SSH exec ──► run ──────┐                       ┌► text, list, facts, files, find, digest, scp
//! SSH shell ─► run_shell ┴► Interpreter ─► TABLE ┤
//!                            (proto::exec)       └► state (cd, pwd, export …)
//! ```
//!
//! Names, options, exit statuses and formats are those of GNU coreutils and findutils, and of OpenSSH's scp.
//! Permission, quota and jail are [`Vfs`]'s: nothing here decides about them.
//!
//! Invariants: every command streams, so that what a client asks for costs it time and
//! not the server memory; a future of this module can be dropped at any point, which is
//! what a client that goes away is (an upload is then kept as a cut one).

mod digest;
mod facts;
mod files;
mod find;
mod glob;
mod interpreter;
mod list;
mod moment;
mod quote;
mod refusal;
mod scp;
mod state;
mod streams;
mod table;
mod text;
mod walk;

use std::fmt;

use wharf_model::VirtualPath;
use wharf_vfs::Vfs;

pub use interpreter::Interpreter;
pub use streams::Streams;

/// How a command ended, as a shell numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitStatus(u8);

impl ExitStatus {
    /// The command did what it should.
    pub const SUCCESS: Self = Self(0);
    /// Something of it failed.
    pub const FAILURE: Self = Self(1);
    /// It was used wrongly; with `ls` also that an argument does not exist.
    pub const USAGE: Self = Self(2);
    /// There is no such command.
    pub const NOT_FOUND: Self = Self(127);
    /// Ctrl-C (128 and the number of SIGINT).
    pub const INTERRUPTED: Self = Self(130);
    /// Nobody reads the output any more (128 and the number of SIGPIPE).
    pub const BROKEN_PIPE: Self = Self(141);

    /// The status with this number.
    pub const fn new(code: u8) -> Self {
        Self(code)
    }

    /// Its number.
    pub const fn code(self) -> u8 {
        self.0
    }

    /// Whether it is 0.
    pub const fn is_success(self) -> bool {
        self.0 == 0
    }

    /// [`ExitStatus::SUCCESS`] or [`ExitStatus::FAILURE`].
    const fn of(success: bool) -> Self {
        if success {
            Self::SUCCESS
        } else {
            Self::FAILURE
        }
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Runs a command line in `directory` and returns how its last command ended. All output
/// has been handed to the streams then. Dropping the future stops the command where it is.
///
/// # Examples
/// ```
/// # use std::sync::Arc;
/// # use wharf_model::VirtualPath;
/// # use wharf_server::exec::{ExitStatus, Streams, run};
/// # async fn example(vfs: wharf_vfs::Vfs) {
/// let (ours, mut theirs) = tokio::io::duplex(4096);
/// let streams = Streams::new(tokio::io::empty(), ours, tokio::io::sink());
/// let status = run(b"echo hello", &vfs, &VirtualPath::root(), streams).await;
/// assert_eq!(status, ExitStatus::SUCCESS);
/// # }
/// ```
pub async fn run(
    command: &[u8],
    vfs: &Vfs,
    directory: &VirtualPath,
    mut streams: Streams,
) -> ExitStatus {
    let mut interpreter = Interpreter::new(vfs.clone(), directory.clone());
    match interpreter.run_line(command, &mut streams).await {
        Ok(status) => status,
        Err(error) => broken(&error),
    }
}

/// Runs the lines that the client sends until it ends or says `exit`. With a prompt
/// when the streams lead to a terminal; an interrupt stops the command that runs, and
/// no more. Dropping the future stops it.
pub async fn run_shell(vfs: &Vfs, directory: &VirtualPath, mut streams: Streams) -> ExitStatus {
    let mut interpreter = Interpreter::new(vfs.clone(), directory.clone());
    match interpreter.run_shell(&mut streams).await {
        Ok(status) => status,
        Err(error) => broken(&error),
    }
}

fn broken(error: &std::io::Error) -> ExitStatus {
    tracing::debug!(%error, "a remote command lost its streams");
    ExitStatus::BROKEN_PIPE
}
