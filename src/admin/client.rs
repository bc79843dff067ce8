//! The other end: asks a running server.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Answer, Request, Session, Status, Way, socket};

/// How long a server may take to answer. It answers from memory.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longest line of an answer: a session with many transfers, each with a path of 4 KiB.
const MAX_ANSWER_BYTES: u64 = 64 * 1024 * 1024;

/// A connection to a running server.
pub(crate) struct Administrator {
    socket: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Administrator {
    /// Connects to the server that serves `data_dir`.
    ///
    /// # Errors
    /// [`AdminError::NotRunning`], `NotAllowed`, `Gone` or `Io`.
    pub(crate) fn connect(data_dir: &Path) -> Result<Self, AdminError> {
        let socket = socket(data_dir);
        let connected = Way::to(data_dir).and_then(|way| UnixStream::connect(way.path()));
        let stream = match connected {
            Ok(stream) => stream,
            Err(source) => return Err(AdminError::of_connecting(source, data_dir, socket)),
        };
        let prepared = stream
            .set_read_timeout(Some(PATIENCE))
            .and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
        match prepared {
            Ok(()) => Ok(Self {
                socket,
                stream: BufReader::new(stream),
            }),
            Err(source) => Err(AdminError::Io { socket, source }),
        }
    }

    /// How the server does.
    ///
    /// # Errors
    /// `Refused` if too many ask; `Gone`, `Io` or `Nonsense`.
    pub(crate) fn status(&mut self) -> Result<Status, AdminError> {
        match self.ask(Request::Status)? {
            Answer::Status(status) => Ok(*status),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Who is there, in the order in which they came.
    ///
    /// # Errors
    /// `Refused` if too many ask; `Gone`, `Io` or `Nonsense`.
    pub(crate) fn sessions(&mut self) -> Result<Vec<Session>, AdminError> {
        let mut sessions = Vec::new();
        let mut answer = self.ask(Request::Sessions)?;
        loop {
            match answer {
                Answer::Session(session) => sessions.push(*session),
                Answer::End(_) => return Ok(sessions),
                other => return Err(self.unexpected(&other)),
            }
            answer = self.read()?;
        }
    }

    /// Ends a session.
    ///
    /// # Errors
    /// `NoSession` if there is none with this number; otherwise as with [`Administrator::status`].
    pub(crate) fn kick(&mut self, session: u64) -> Result<(), AdminError> {
        match self.ask(Request::Kick { session })? {
            Answer::Kicked(_) => Ok(()),
            Answer::Absent(session) => Err(AdminError::NoSession(session)),
            other => Err(self.unexpected(&other)),
        }
    }

    fn ask(&mut self, request: Request) -> Result<Answer, AdminError> {
        let mut line = serde_json::to_vec(&request).map_err(|error| self.failed(error.into()))?;
        line.push(b'\n');
        match self.stream.get_mut().write_all(&line) {
            Ok(()) => self.read(),
            // One that takes no request may have said why.
            Err(error) if is_end(&error) => self.read(),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn read(&mut self) -> Result<Answer, AdminError> {
        let mut line = Vec::new();
        let mut bounded = io::Read::take(&mut self.stream, MAX_ANSWER_BYTES);
        let read = bounded.read_until(b'\n', &mut line);
        match read.map_err(|error| self.failed(error))? {
            0 => Err(self.failed(io::ErrorKind::UnexpectedEof.into())),
            _ => serde_json::from_slice(&line).map_err(|error| self.nonsense(error.to_string())),
        }
    }

    fn unexpected(&self, answer: &Answer) -> AdminError {
        match answer {
            Answer::Error(text) => AdminError::Refused(text.clone()),
            other => self.nonsense(format!("{other:?}")),
        }
    }

    fn nonsense(&self, what: String) -> AdminError {
        AdminError::Nonsense {
            socket: self.socket.clone(),
            what,
        }
    }

    fn failed(&self, source: io::Error) -> AdminError {
        let socket = self.socket.clone();
        if is_end(&source) {
            AdminError::Gone { socket }
        } else {
            AdminError::Io { socket, source }
        }
    }
}

/// Whether it says that the other end has gone.
fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof
    )
}

/// Why a server could not be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdminError {
    /// Nobody listens.
    #[error(
        "no server is running on {path}; name its directory with --data-dir, or start one with: wharf serve --data-dir {path}",
        path = .0.display()
    )]
    NotRunning(PathBuf),
    /// It belongs to somebody else.
    #[error(
        "not allowed to ask the server on {}; ask as the user that it runs as, or as root",
        .0.display()
    )]
    NotAllowed(PathBuf),
    /// The server says that it cannot be done.
    #[error("{0}")]
    Refused(String),
    /// No session has this number.
    #[error("there is no session {0}")]
    NoSession(u64),
    /// It stopped before it had answered.
    #[error("the server on {} has stopped or closed the connection", socket.display())]
    Gone {
        /// Where it was asked.
        socket: PathBuf,
    },
    /// The connection failed.
    #[error("the server on {} did not answer: {source}", socket.display())]
    Io {
        /// Where it was asked.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is another program, or another version.
    #[error("the answer from {} makes no sense: {what}; is it a wharf of another version?", socket.display())]
    Nonsense {
        /// Where it was asked.
        socket: PathBuf,
        /// What it said.
        what: String,
    },
}

impl AdminError {
    fn of_connecting(source: io::Error, data_dir: &Path, socket: PathBuf) -> Self {
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                Self::NotRunning(data_dir.to_path_buf())
            }
            io::ErrorKind::PermissionDenied => Self::NotAllowed(data_dir.to_path_buf()),
            _ => Self::Io { socket, source },
        }
    }
}
