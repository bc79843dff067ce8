//! The control connection: commands out, replies in, nothing for ever.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use wharf_model::PathError;
use wharf_net::{Stream, TlsStream};
use wharf_proto::ftp::command::{Iac, encode_command};
use wharf_proto::ftp::reply::{Reply, ReplyCode, ReplyDecoder};

use super::refusal::refusal;
use crate::error::{ClientError, Said, Waiting};

/// A control connection, in step: after each command its reply is read.
#[derive(Debug)]
pub(super) struct Control {
    stream: Stream,
    decoder: ReplyDecoder,
    buffer: BytesMut,
    /// Longest silence before a reply.
    reply_deadline: Duration,
    /// A reply is still due. Whoever is dropped while it is set leaves a
    /// connection on which the next reply would answer the wrong command.
    owed: bool,
    /// How the server wants a byte 0xFF.
    iac: Iac,
    /// A reply that was read before its turn.
    returned: Option<Reply>,
    /// Own and other end; the data connections use the same two hosts.
    pub(super) local: SocketAddr,
    pub(super) peer: SocketAddr,
}

impl Control {
    /// Takes a connection whose greeting has not been read.
    pub(super) fn new(
        stream: Stream,
        local: SocketAddr,
        peer: SocketAddr,
        reply_deadline: Duration,
    ) -> Self {
        Self {
            stream,
            decoder: ReplyDecoder::default(),
            buffer: BytesMut::new(),
            reply_deadline,
            owed: true,
            iac: Iac::default(),
            returned: None,
            local,
            peer,
        }
    }

    /// The connection over another stream that `secure` makes of this one's.
    /// What the server sent ahead came unprotected, and is dropped unread
    /// (as in CVE-2011-0411).
    pub(super) async fn secured(
        self,
        secure: impl AsyncFnOnce(Stream) -> Result<Stream, ClientError>,
    ) -> Result<Self, ClientError> {
        let mut secured = Self::new(
            secure(self.stream).await?,
            self.local,
            self.peer,
            self.reply_deadline,
        );
        secured.owed = false;
        Ok(secured)
    }

    /// The encryption, if there is one.
    pub(super) fn tls(&self) -> Option<&TlsStream> {
        self.stream.as_tls()
    }

    /// Whether every command has had its reply and the server has not hung up.
    pub(super) fn is_in_step(&self) -> bool {
        !self.owed
    }

    /// Sends a byte 0xFF in this way from now on.
    pub(super) fn set_iac(&mut self, iac: Iac) {
        self.iac = iac;
    }

    /// Sends a command and reads its reply, whatever it says but 421.
    pub(super) async fn exchange(
        &mut self,
        verb: &str,
        argument: &[u8],
    ) -> Result<Reply, ClientError> {
        self.send(verb, argument).await?;
        self.reply(Waiting::Reply, self.reply_deadline).await
    }

    /// As [`Self::exchange`], for a reply that takes longer than others.
    pub(super) async fn exchange_within(
        &mut self,
        verb: &str,
        argument: &[u8],
        waiting: Waiting,
        deadline: Duration,
    ) -> Result<Reply, ClientError> {
        self.send(verb, argument).await?;
        self.reply(waiting, self.reply_deadline.max(deadline)).await
    }

    /// As [`Self::exchange`], and whatever is not 2xx is an error.
    pub(super) async fn complete(
        &mut self,
        verb: &str,
        argument: &[u8],
    ) -> Result<Reply, ClientError> {
        let reply = self.exchange(verb, argument).await?;
        if reply.code().is_completion() {
            Ok(reply)
        } else {
            Err(refusal(&reply))
        }
    }

    /// Sends a command. Its reply is owed from now on.
    pub(super) async fn send(&mut self, verb: &str, argument: &[u8]) -> Result<(), ClientError> {
        if self.owed {
            return Err(ClientError::Closed(None));
        }
        let mut line = Vec::with_capacity(verb.len() + argument.len() + 3);
        encode_command(verb, argument, self.iac, &mut line).map_err(|_| ClientError::BadName {
            name: wharf_model::escape_for_display(argument),
            source: if argument.contains(&0) {
                PathError::Nul
            } else {
                PathError::LineEnd
            },
        })?;
        tracing::debug!(verb, "command");
        self.owed = true;
        timeout(self.reply_deadline, self.stream.write_all(&line))
            .await
            .map_err(|_| self.silent(Waiting::Reply, self.reply_deadline))?
            .map_err(ClientError::Connection)
    }

    /// Reads the next reply that is owed: the one that ends the command, or a
    /// preliminary one, after which another is owed.
    ///
    /// Dropping the future loses no byte; the reply stays owed.
    pub(super) async fn reply(
        &mut self,
        waiting: Waiting,
        deadline: Duration,
    ) -> Result<Reply, ClientError> {
        let reply = timeout(deadline, self.next_reply())
            .await
            .map_err(|_| self.silent(waiting, deadline))??;
        tracing::debug!(code = reply.code().as_u16(), "reply");
        if reply.code() == ReplyCode::SERVICE_UNAVAILABLE {
            // The server hangs up: the debt is never paid.
            self.owed = true;
            return Err(refusal(&reply));
        }
        self.owed = reply.code().is_preliminary();
        Ok(reply)
    }

    /// Takes back a reply whose turn has not come: the next [`Self::reply`] gives it again.
    pub(super) fn put_back(&mut self, reply: Reply) {
        self.owed = true;
        self.returned = Some(reply);
    }

    async fn next_reply(&mut self) -> Result<Reply, ClientError> {
        if let Some(reply) = self.returned.take() {
            return Ok(reply);
        }
        loop {
            match self.decoder.decode(&mut self.buffer) {
                Ok(Some(reply)) => return Ok(reply),
                Ok(None) => {}
                Err(error) => return Err(ClientError::Protocol(error.to_string())),
            }
            self.buffer.reserve(READ_BYTES);
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) => return Err(ClientError::Closed(None)),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ClientError::Connection(error)),
            }
        }
    }

    fn silent(&self, waiting: Waiting, after: Duration) -> ClientError {
        ClientError::Timeout { waiting, after }
    }
}

/// The words of a reply for a person.
pub(super) fn said(reply: &Reply) -> Said {
    Said::new(reply.code().as_u16(), reply.text())
}

/// Room for any usual reply at once.
const READ_BYTES: usize = 4 * 1024;
