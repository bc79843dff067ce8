//! A command or a shell on the server: its streams, its end, and the terminal that it may have.

use bytes::Bytes;
use russh::client::Msg;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};
use tokio::time::timeout;
use wharf_model::escape_for_display;

use super::SshServer;
use super::connection::Connection;
use crate::error::{ClientError, Said, Waiting};

/// What is to run on the server.
#[derive(Debug, Clone)]
pub struct CommandRequest {
    /// A line for the account's shell there; `None` starts the shell itself.
    pub line: Option<Vec<u8>>,
    /// The terminal that it gets, if any.
    pub terminal: Option<Terminal>,
}

/// A terminal as the server has to know it (RFC 4254 §6.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terminal {
    /// What kind it is, as in `TERM`.
    pub kind: String,
    /// How large.
    pub size: TerminalSize,
}

/// In characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Characters in a row.
    pub columns: u32,
    /// Rows.
    pub rows: u32,
}

/// What comes from a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandEvent {
    /// Some of its standard output.
    Output(Bytes),
    /// Some of its standard error.
    Errors(Bytes),
    /// It is over.
    Ended(CommandEnd),
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandEnd {
    /// With this status.
    Status(u32),
    /// By this signal, without its `SIG`, escaped.
    Signal(String),
    /// The server does not say.
    Untold,
}

/// A command that runs: what comes from it. Dropped, it ends the connection, and so the command.
#[derive(Debug)]
pub struct CommandOutput {
    connection: Connection,
    channel: ChannelReadHalf,
    end: Option<CommandEnd>,
}

/// A command that runs: what goes to it.
#[derive(Debug)]
pub struct CommandInput {
    channel: ChannelWriteHalf<Msg>,
}

impl SshServer {
    /// Connects, and starts a command.
    ///
    /// # Errors
    /// Those of connecting and logging in; [`ClientError::Refused`] when the server runs no commands.
    pub async fn run(
        &self,
        request: &CommandRequest,
    ) -> Result<(CommandInput, CommandOutput), ClientError> {
        let connection = self.connect_known().await?;
        let deadline = self.deadlines.reply;
        let mut channel = connection.channel(deadline).await?;
        if let Some(terminal) = &request.terminal {
            let TerminalSize { columns, rows } = terminal.size;
            channel
                .request_pty(true, &terminal.kind, columns, rows, 0, 0, &[])
                .await?;
            granted(&mut channel, deadline, "it gives no terminal").await?;
        }
        match &request.line {
            Some(line) => channel.exec(true, line.clone()).await?,
            None => channel.request_shell(true).await?,
        }
        granted(
            &mut channel,
            deadline,
            "it runs no commands for this account",
        )
        .await?;
        let (read, write) = channel.split();
        let output = CommandOutput {
            connection,
            channel: read,
            end: None,
        };
        Ok((CommandInput { channel: write }, output))
    }
}

/// Waits for the answer to a request of a channel. Nothing else can come before it.
pub(super) async fn granted(
    channel: &mut Channel<Msg>,
    deadline: std::time::Duration,
    otherwise: &str,
) -> Result<(), ClientError> {
    let answer = async {
        loop {
            match channel.wait().await {
                Some(ChannelMsg::Success) => return Ok(()),
                Some(ChannelMsg::Failure) => {
                    return Err(ClientError::Refused(Said::words(otherwise.as_bytes())));
                }
                Some(ChannelMsg::Close) | None => return Err(ClientError::Closed(None)),
                Some(_) => {}
            }
        }
    };
    timeout(deadline, answer).await.unwrap_or_else(|_| {
        Err(ClientError::Timeout {
            waiting: Waiting::Reply,
            after: deadline,
        })
    })
}

impl CommandOutput {
    /// What comes next, however long it takes. Nothing comes behind [`CommandEvent::Ended`].
    ///
    /// Dropping the future is safe.
    ///
    /// # Errors
    /// [`ClientError::Closed`] when the connection goes before the command is over.
    pub async fn next(&mut self) -> Result<CommandEvent, ClientError> {
        loop {
            match self.channel.wait().await {
                Some(ChannelMsg::Data { data }) => return Ok(CommandEvent::Output(data)),
                Some(ChannelMsg::ExtendedData { data, ext }) if ext == STDERR => {
                    return Ok(CommandEvent::Errors(data));
                }
                Some(ChannelMsg::ExitStatus { exit_status }) => {
                    self.end.get_or_insert(CommandEnd::Status(exit_status));
                }
                Some(ChannelMsg::ExitSignal { signal_name, .. }) => {
                    let name = match signal_name {
                        Sig::Custom(name) => escape_for_display(name.as_bytes()),
                        known => format!("{known:?}"),
                    };
                    self.end.get_or_insert(CommandEnd::Signal(name));
                }
                Some(ChannelMsg::Close) => {
                    let end = self.end.take().unwrap_or(CommandEnd::Untold);
                    return Ok(CommandEvent::Ended(end));
                }
                Some(_) => {}
                None => {
                    return match self.end.take() {
                        Some(end) => Ok(CommandEvent::Ended(end)),
                        None => Err(self.connection.explain(ClientError::Closed(None))),
                    };
                }
            }
        }
    }
}

impl CommandInput {
    /// Sends some of its standard input; waits while the command does not read.
    ///
    /// # Errors
    /// [`ClientError::Closed`] when nobody reads any more.
    pub async fn write(&self, bytes: Bytes) -> Result<(), ClientError> {
        Ok(self.channel.data_bytes(bytes).await?)
    }

    /// Ends its standard input.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn end(&self) -> Result<(), ClientError> {
        Ok(self.channel.eof().await?)
    }

    /// Tells it that its terminal has another size now.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn resize(&self, size: TerminalSize) -> Result<(), ClientError> {
        let TerminalSize { columns, rows } = size;
        Ok(self.channel.window_change(columns, rows, 0, 0).await?)
    }
}

/// `SSH_EXTENDED_DATA_STDERR` (RFC 4254 §5.2).
pub(super) const STDERR: u32 = 1;
