//! A connection taken step by step, for who wants to know where it fails and what a server is like.
//!
//! The steps are those of every connection; only the greeting is read on a connection of its
//! own, since the library keeps it to itself.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use wharf_model::escape_for_display;

use super::connection::{Algorithms, Connection};
use super::login::Asked;
use super::{SshServer, begin_sftp};
use crate::dial::{addresses_within, connect_to};
use crate::error::{ClientError, Waiting};
use crate::ftp::MissingFeature;
use crate::remote::Remote;
use crate::sftp::SftpSession;

impl SshServer {
    /// The name under which it is looked up: that of the configuration, not of the URL.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The addresses of its name, in the order in which a session tries them.
    ///
    /// # Errors
    /// [`ClientError::UnknownHost`], [`ClientError::Timeout`].
    pub async fn addresses(&self) -> Result<Vec<SocketAddr>, ClientError> {
        addresses_within(&self.host, self.port, self.deadlines.connect).await
    }

    /// Connects to one of its addresses, and closes the connection.
    ///
    /// # Errors
    /// [`ClientError::Connect`], [`ClientError::Timeout`].
    pub async fn reach(&self, address: SocketAddr) -> Result<(), ClientError> {
        connect_to(address, self.deadlines.connect).await.map(drop)
    }

    /// The line by which the server says what it is, `SSH-2.0-…`, escaped (RFC 4253 §4.2).
    ///
    /// # Errors
    /// [`ClientError::Protocol`] with what it says instead, [`ClientError::Closed`],
    /// [`ClientError::Timeout`], and those of [`Self::reach`].
    pub async fn greeting(&self, address: SocketAddr) -> Result<String, ClientError> {
        let deadline = self.deadlines.connect;
        let socket = connect_to(address, deadline).await?;
        greeting(socket, deadline).await
    }

    /// Connects to one of its addresses, agrees on how to encrypt, and judges the server's key.
    ///
    /// # Errors
    /// [`ClientError::KeyExchange`], [`ClientError::UnknownHostKey`] and the like, and those of
    /// the connection.
    pub async fn probe(&self, address: SocketAddr) -> Result<SshProbe, ClientError> {
        let socket = connect_to(address, self.deadlines.connect).await?;
        let connection = Connection::meet(self, socket).await?;
        Ok(SshProbe { connection })
    }

    /// Brings a server whose key is not known before [`super::HostKeys::accept`] and remembers
    /// it if it is accepted; otherwise the error comes back.
    ///
    /// # Errors
    /// `error`, or [`ClientError::Local`] if the key cannot be remembered.
    pub async fn introduce(&self, error: ClientError) -> Result<(), ClientError> {
        match error {
            ClientError::UnknownHostKey { server, key } => {
                if !self.host_keys.accept(&server, &key).await {
                    return Err(ClientError::UnknownHostKey { server, key });
                }
                self.host_keys.remember(&self.known_as, &key)
            }
            error => Err(error),
        }
    }
}

/// Waits for `deadline`, and no longer than [`MORE_LINES`] once something else was said.
async fn greeting(socket: TcpStream, deadline: Duration) -> Result<String, ClientError> {
    let mut lines = BufReader::new(socket.take(MAX_GREETING_BYTES));
    let mut first: Option<String> = None;
    let mut patience = deadline;
    loop {
        let mut line = Vec::new();
        let read = timeout(patience, lines.read_until(b'\n', &mut line)).await;
        let text = line.trim_ascii_end();
        if text.starts_with(b"SSH-") {
            return Ok(escape_for_display(text));
        }
        match (read, first) {
            (Ok(Err(error)), _) => return Err(ClientError::Connection(error)),
            (Ok(Ok(1..)), said) => {
                let shown = text.get(..MAX_SHOWN_BYTES).unwrap_or(text);
                first = said.or_else(|| Some(escape_for_display(shown)));
                patience = patience.min(MORE_LINES);
            }
            (_, Some(said)) => {
                return Err(ClientError::Protocol(format!(
                    "it does not speak SSH: {said}"
                )));
            }
            (Ok(Ok(0)), None) => return Err(ClientError::Closed(None)),
            (Err(_), None) => {
                return Err(ClientError::Timeout {
                    waiting: Waiting::Reply,
                    after: deadline,
                });
            }
        }
    }
}

/// A connection that is not logged in.
#[derive(Debug)]
pub struct SshProbe {
    connection: Connection,
}

/// What a server says to somebody who shows nothing.
pub struct Methods(Asked);

impl std::fmt::Debug for Methods {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Methods").field(&self.names()).finish()
    }
}

impl Methods {
    /// The ways to log in that the server offers; none where it lets everybody in.
    pub fn names(&self) -> Vec<String> {
        let names = self.0.methods();
        names
            .iter()
            .map(|name| escape_for_display(name.as_bytes()))
            .collect()
    }
}

impl SshProbe {
    /// How the connection is encrypted.
    pub fn algorithms(&self) -> Option<&Algorithms> {
        self.connection.algorithms()
    }

    /// Asks how the server lets the user in.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn methods(&mut self, server: &SshServer) -> Result<Methods, ClientError> {
        self.connection
            .ask_methods(&server.login)
            .await
            .map(Methods)
    }

    /// Logs in. Returns what opened the account, for people.
    ///
    /// # Errors
    /// [`ClientError::Login`], and those of the connection.
    pub async fn log_in(
        &mut self,
        server: &SshServer,
        methods: Methods,
    ) -> Result<String, ClientError> {
        self.connection.log_in_by(&server.login, methods.0).await
    }

    /// Begins a session of SFTP.
    ///
    /// # Errors
    /// [`ClientError::Refused`] where there is none, [`ClientError::Protocol`], and those of the
    /// connection.
    pub async fn settle(self, server: &SshServer) -> Result<ProbedSftp, ClientError> {
        let session = begin_sftp(self.connection, server).await?;
        Ok(ProbedSftp { session })
    }
}

/// A session of SFTP, with what a client has no need to know.
#[derive(Debug)]
pub struct ProbedSftp {
    session: SftpSession,
}

impl ProbedSftp {
    /// The session itself.
    pub fn remote(&mut self) -> &mut dyn Remote {
        &mut self.session
    }

    /// The names of the server's extensions, escaped.
    pub fn extensions(&self) -> Vec<String> {
        let names = self.session.extension_names();
        names.iter().map(|name| escape_for_display(name)).collect()
    }

    /// What this client would use and the server does not offer.
    pub fn missing_features(&self) -> Vec<MissingFeature> {
        self.session.missing_features()
    }

    /// Whether digests come from check-file, and not from commands.
    pub fn checks_files(&self) -> bool {
        self.session.checks_files()
    }

    /// Ends it politely.
    pub async fn close(self) {
        Box::new(self.session).close().await;
    }
}

/// As much as a server may say before it says what it is.
const MAX_GREETING_BYTES: u64 = 64 * 1024;

/// How long a server is waited for that has said something else.
const MORE_LINES: Duration = Duration::from_secs(3);

/// As much as is shown of a line of a server that speaks something else.
const MAX_SHOWN_BYTES: usize = 200;
