//! Servers that speak SSH: connections, host keys, logins, commands; SFTP over them (RFC 4251 to 4254).
//!
//! The only place of the client that names the SSH library. A connection goes
//! this way: what is known of the server is looked up, the exchange asks for the kinds of
//! keys that are known, the server's key is judged before anything is sent that names the
//! user, and only then the login begins. A server of which nothing is known is asked about
//! once the connection that showed its key is gone; it is never used.

mod command;
mod config;
mod connection;
mod digest;
mod failure;
mod host_key;
mod identity;
mod known_hosts;
mod login;
mod pattern;
mod probe;
mod transport;

use std::sync::Arc;

use futures_util::FutureExt as _;

pub use self::command::{
    CommandEnd, CommandEvent, CommandInput, CommandOutput, CommandRequest, Terminal, TerminalSize,
};
pub use self::config::{ConfigError, HostConfig, Tokens};
pub use self::connection::Algorithms;
pub use self::host_key::{HostKey, HostKeys, KnownAs, KnownKey};
pub use self::identity::{Identity, IdentityError};
pub use self::known_hosts::{find_host_keys, find_pinned_keys, pinned_line};
pub use self::login::{Prompter, SshLogin};
pub use self::probe::{Methods, ProbedSftp, SshProbe};

use self::connection::Connection;
use self::digest::{CommandDigester, Learnt};
use crate::dial::Deadlines;
use crate::error::ClientError;
use crate::remote::{Answer, Connector, Remote};
use crate::sftp::SftpSession;
use crate::trust::server_name;

/// A server that speaks SSH, and how to log in to it.
#[derive(Debug)]
pub struct SshServer {
    host: String,
    port: u16,
    known_as: KnownAs,
    login: SshLogin,
    host_keys: Arc<dyn HostKeys>,
    deadlines: Deadlines,
    /// Which digests its commands make, once somebody has tried.
    learnt: Learnt,
}

impl SshServer {
    /// The server at `host` and `port`, whose keys are looked up by `known_as`.
    pub fn new(
        host: String,
        port: u16,
        known_as: KnownAs,
        login: SshLogin,
        host_keys: Arc<dyn HostKeys>,
        deadlines: Deadlines,
    ) -> Self {
        Self {
            host,
            port,
            known_as,
            login,
            host_keys,
            deadlines,
            learnt: Learnt::default(),
        }
    }

    fn name(&self) -> String {
        server_name(&self.host, self.port)
    }

    /// A connection, after whoever can has said that a new server is trusted.
    async fn connect_known(&self) -> Result<Connection, ClientError> {
        match Connection::open(self).await {
            Err(error @ ClientError::UnknownHostKey { .. }) => {
                self.introduce(error).await?;
                Connection::open(self).await
            }
            result => result,
        }
    }
}

/// Begins a session of SFTP on a connection that is logged in.
async fn begin_sftp(
    connection: Connection,
    server: &SshServer,
) -> Result<SftpSession, ClientError> {
    let deadline = server.deadlines.reply;
    let mut channel = connection.channel(deadline).await?;
    channel.request_subsystem(true, "sftp").await?;
    command::granted(&mut channel, deadline, "it offers no SFTP")
        .await
        .map_err(|error| connection.explain(error))?;
    let (input, output) = tokio::io::split(channel.into_stream());
    let learnt = Arc::clone(&server.learnt);
    let end = connection.end();
    let explain = Box::new(move |error| end.explain(error));
    let digester = CommandDigester::new(connection, learnt, deadline);
    let stall = server.deadlines.stall;
    SftpSession::begin(input, output, stall, explain, Some(Box::new(digester))).await
}

impl Connector for SshServer {
    fn connect(&self) -> Answer<'_, Box<dyn Remote>> {
        async move {
            let connection = self.connect_known().await?;
            let session: Box<dyn Remote> = Box::new(begin_sftp(connection, self).await?);
            Ok(session)
        }
        .boxed()
    }
}

#[cfg(test)]
mod login_tests;
