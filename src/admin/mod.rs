//! Administration of a running server: `wharf status` and `wharf sessions` ask
//! it over a Unix socket in its data directory.
//!
//! One request a line, one answer a line or more, each a JSON object:
//!
//! ```text
//! {"request":"status"}             {"status":{…}}
//! {"request":"sessions"}           {"session":{…}} … {"end":2}
//! {"request":"kick","session":7}   {"kicked":7}  or  {"absent":7}
//! anything else                    {"error":"…"}
//! ```
//!
//! [`Status`] and [`Session`] are written by the server, read by the client,
//! and printed with `--json`: they are defined once.

pub(crate) mod client;
pub(crate) mod service;

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use serde::{Deserialize, Serialize};

/// The socket's name in the data directory.
const SOCKET: &str = "admin.sock";

/// Longest request, with room to spare for the longest there is.
const MAX_REQUEST_BYTES: u64 = 256;

/// Where a server with this data directory answers.
pub(crate) fn socket(data_dir: &Path) -> PathBuf {
    data_dir.join(SOCKET)
}

/// Longest path that is a socket's address: `sun_path` of unix(7), without the NUL at its end.
const MOST_ADDRESS_BYTES: usize = 107;

/// A path by which the socket can be bound and connected to, however long that
/// of the data directory is.
pub(crate) struct Way {
    path: PathBuf,
    /// What the path goes through, if it is not the socket's own.
    directory: Option<OwnedFd>,
}

impl Way {
    /// To the socket of a server with this data directory.
    ///
    /// # Errors
    /// The path is too long for an address, and the directory cannot be opened.
    pub(crate) fn to(data_dir: &Path) -> io::Result<Self> {
        let path = socket(data_dir);
        if path.as_os_str().len() <= MOST_ADDRESS_BYTES {
            return Ok(Self {
                path,
                directory: None,
            });
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(CWD, data_dir, flags, Mode::empty())?;
        Ok(Self {
            path: socket(Path::new(&format!(
                "/proc/self/fd/{}",
                directory.as_raw_fd()
            ))),
            directory: Some(directory),
        })
    }

    /// Valid as long as this is there.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it needs /proc.
    pub(crate) fn is_detour(&self) -> bool {
        self.directory.is_some()
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Request {
    /// How the server does.
    Status,
    /// Who is there.
    Sessions,
    /// Ends one session.
    Kick {
        /// Its number.
        session: u64,
    },
}

/// One line of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Answer {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Sessions`], one for each.
    Session(Box<Session>),
    /// After the last session: how many there were.
    End(usize),
    /// To [`Request::Kick`].
    Kicked(u64),
    /// To [`Request::Kick`] too: there is no session with this number.
    Absent(u64),
    /// It cannot be done; for a person.
    Error(String),
}

/// How a server does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// Of the program.
    pub(crate) version: String,
    /// The server's process.
    pub(crate) pid: u32,
    /// Since when it accepts: RFC 3339, in UTC.
    pub(crate) started: String,
    /// The same in seconds.
    pub(crate) uptime_seconds: u64,
    /// `serving`, or `draining` once it has been asked to stop.
    pub(crate) state: State,
    /// Where it listens.
    pub(crate) listeners: Vec<ListenerStatus>,
    /// Connections now, with those that have not logged in.
    pub(crate) connections: usize,
    /// Most connections.
    pub(crate) connections_limit: usize,
    /// Sessions that are logged in.
    pub(crate) logged_in: usize,
    /// Different accounts among them.
    pub(crate) accounts: usize,
    /// Sessions since the start.
    pub(crate) sessions_so_far: u64,
    /// Running uploads.
    pub(crate) uploads: usize,
    /// Running downloads.
    pub(crate) downloads: usize,
}

/// Whether new sessions are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// Yes.
    Serving,
    /// No; the last ones are waited for.
    Draining,
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ListenerStatus {
    /// `ftp`, `ftps` or `ssh`.
    pub(crate) protocol: String,
    /// Its address, with the real port.
    pub(crate) address: String,
}

/// A live session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Session {
    /// Its number, as in the log.
    pub(crate) session: u64,
    /// What it speaks.
    pub(crate) protocol: String,
    /// Whether the control connection is encrypted.
    pub(crate) encrypted: bool,
    /// Who is logged in.
    pub(crate) account: Option<String>,
    /// The other end.
    pub(crate) peer: String,
    /// Since when it is there, in milliseconds.
    pub(crate) connected_ms: u64,
    /// Since when nothing was asked for, in milliseconds.
    pub(crate) idle_ms: u64,
    /// What moves.
    pub(crate) transfers: Vec<Transfer>,
}

/// A running transfer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Transfer {
    /// Its number, unique within the server's run.
    pub(crate) transfer: u64,
    /// `upload`, `download`, `listing` or `command`.
    pub(crate) direction: String,
    /// The file or directory, in the account's view; bytes that are no text are escaped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<String>,
    /// The command line where it is a command, escaped, and cut where it is long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) command: Option<String>,
    /// Moved so far; of a command, what it has read and written.
    pub(crate) bytes: u64,
    /// To be moved in all, where that is known.
    pub(crate) bytes_total: Option<u64>,
    /// Since when it runs, in milliseconds.
    pub(crate) running_ms: u64,
    /// How fast: since it began as the server says it, and in the last half
    /// second as `wharf sessions` prints it.
    pub(crate) bytes_per_second: u64,
}
