//! Data connections: opened either way, read and written with a stall deadline, ended by a reply.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use wharf_model::VirtualPath;
use wharf_net::{HandshakeError, Stream};
use wharf_proto::ftp::address::{format_eprt, format_port, parse_epsv, parse_pasv};
use wharf_proto::ftp::reply::{Reply, ReplyCode};

use super::control::Control;
use super::refusal::refusal;
use super::secure::{Securing, has_resumed};
use super::{DataMode, FtpSession};
use crate::error::{ClientError, Waiting};
use crate::remote::{Answer, RemoteRead, RemoteWrite, WriteStart};

/// How passive data connections are asked for in this session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PassiveCommand {
    /// EPSV (RFC 2428 §3): the reply names a port only, so there is no address to get wrong.
    Extended,
    /// PASV, after EPSV has failed.
    Plain,
}

/// Where a server waits for a data connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassiveOffer {
    /// The address in its reply, which is not believed. EPSV has none.
    pub named: Option<SocketAddr>,
    /// Where the client connects.
    pub target: SocketAddr,
}

/// A data connection before the command that uses it.
enum Prepared {
    Connected(Stream),
    /// The server will connect to this.
    Listening(TcpListener),
}

impl FtpSession {
    /// Starts a download.
    pub(super) async fn retrieve(
        &mut self,
        path: &VirtualPath,
        offset: u64,
    ) -> Result<FtpRead<'_>, ClientError> {
        let data = self.start("RETR", path.as_bytes(), offset).await?;
        Ok(self.reading(data))
    }

    /// Starts an upload.
    pub(super) async fn store(
        &mut self,
        path: &VirtualPath,
        start: WriteStart,
    ) -> Result<FtpWrite<'_>, ClientError> {
        let data = match start {
            WriteStart::Replace => self.start("STOR", path.as_bytes(), 0).await?,
            WriteStart::At(offset) if self.features.restart => {
                self.start("STOR", path.as_bytes(), offset).await?
            }
            // The caller took the offset from what stands there, so its end is the offset.
            WriteStart::At(_) => self.start("APPE", path.as_bytes(), 0).await?,
        };
        // The end of the connection is the end of the file (RFC 959 §3.4.1): an
        // upload that is dropped half-way must not end like one that is done.
        data.set_reset_on_drop(true);
        Ok(FtpWrite {
            stall: self.server.deadlines.stall,
            control: &mut self.control,
            securing: self.securing.as_ref(),
            data,
        })
    }

    /// Starts any command whose answer comes over a data connection.
    pub(super) async fn receive(
        &mut self,
        verb: &str,
        argument: &[u8],
    ) -> Result<FtpRead<'_>, ClientError> {
        let data = self.start(verb, argument, 0).await?;
        Ok(self.reading(data))
    }

    fn reading(&mut self, data: Stream) -> FtpRead<'_> {
        FtpRead {
            stall: self.server.deadlines.stall,
            control: &mut self.control,
            securing: self.securing.as_ref(),
            data,
            is_over: false,
        }
    }

    /// Opens the data connection and gives the command, up to its 1xx reply.
    async fn start(
        &mut self,
        verb: &str,
        argument: &[u8],
        offset: u64,
    ) -> Result<Stream, ClientError> {
        let prepared = match self.server.data_mode {
            DataMode::Passive => Prepared::Connected(self.connect_passively().await?),
            DataMode::Active => Prepared::Listening(self.listen().await?),
        };
        if offset > 0 {
            self.restart_at(offset).await?;
        }
        let reply = self.control.exchange(verb, argument).await?;
        if !reply.code().is_preliminary() {
            return Err(refused_start(&reply));
        }
        let stream = match prepared {
            Prepared::Connected(stream) => stream,
            Prepared::Listening(listener) => self.accept(listener).await?,
        };
        let Some(securing) = &self.securing else {
            return Ok(stream);
        };
        match securing.data(stream).await {
            Ok(stream) => {
                self.data_resumed = Some(has_resumed(&stream));
                Ok(stream)
            }
            // With TLS 1.2 a server may refuse what does not resume by an alert.
            Err(ClientError::DataHandshake(error @ HandshakeError::Failed(_))) => {
                let error = explain(&mut self.control, io::Error::other(error)).await;
                Err(securing.explain_unresumed(error))
            }
            Err(error) => Err(error),
        }
    }

    async fn restart_at(&mut self, offset: u64) -> Result<(), ClientError> {
        let reply = self
            .control
            .exchange("REST", offset.to_string().as_bytes())
            .await?;
        match reply.code() {
            code if code.is_intermediate() => Ok(()),
            code if code.is_transient_refusal() => Err(refusal(&reply)),
            _ => Err(ClientError::Unsupported(
                "start a transfer in the middle of a file",
            )),
        }
    }

    async fn connect_passively(&mut self) -> Result<Stream, ClientError> {
        if self.passive == PassiveCommand::Extended {
            match self.connect_with_epsv().await {
                Ok(stream) => return Ok(stream),
                // What has ended the session would end PASV too.
                Err(error) if !self.control.is_in_step() => return Err(error),
                // PASV has no form for IPv6.
                Err(error) if self.control.peer.is_ipv6() => return Err(error),
                Err(_) => {}
            }
        }
        let stream = self.connect_with_pasv().await?;
        self.passive = PassiveCommand::Plain;
        Ok(stream)
    }

    async fn connect_with_epsv(&mut self) -> Result<Stream, ClientError> {
        let offer = self.ask_epsv().await?;
        self.dial_data(offer.target).await
    }

    async fn connect_with_pasv(&mut self) -> Result<Stream, ClientError> {
        let offer = self.ask_pasv().await?;
        self.dial_data(offer.target).await
    }

    pub(super) async fn ask_epsv(&mut self) -> Result<PassiveOffer, ClientError> {
        let reply = self.control.exchange("EPSV", b"").await?;
        if reply.code() != ReplyCode::EXTENDED_PASSIVE {
            return Err(unexpected(&reply));
        }
        let port = parse_epsv(reply.text())
            .ok_or_else(|| ClientError::Protocol("the 229 reply names no port".to_owned()))?;
        Ok(PassiveOffer {
            named: None,
            target: self.data_address(port),
        })
    }

    /// The address in a 227 reply is not believed: it is wrong behind address
    /// translation, and a hostile one would have this client connect to
    /// someone else. The data connection goes where the control connection
    /// went (the default of curl, `--ftp-skip-pasv-ip`).
    pub(super) async fn ask_pasv(&mut self) -> Result<PassiveOffer, ClientError> {
        let reply = self.control.exchange("PASV", b"").await?;
        if !reply.code().is_completion() {
            return Err(unexpected(&reply));
        }
        let address = parse_pasv(reply.text())
            .ok_or_else(|| ClientError::Protocol("the 227 reply names no port".to_owned()))?;
        Ok(PassiveOffer {
            named: Some(address),
            target: self.data_address(address.port()),
        })
    }

    fn data_address(&self, port: u16) -> SocketAddr {
        let mut address = self.control.peer;
        address.set_port(port);
        address
    }

    pub(super) async fn dial_data(&self, address: SocketAddr) -> Result<Stream, ClientError> {
        let deadline = self.server.deadlines.data_connect;
        let socket = timeout(deadline, TcpStream::connect(address))
            .await
            .map_err(|_| data_timeout(deadline))?
            .map_err(ClientError::DataConnect)?;
        Ok(data_stream(socket))
    }

    async fn listen(&mut self) -> Result<TcpListener, ClientError> {
        let mut address = self.control.local;
        address.set_port(0);
        let listener = TcpListener::bind(address)
            .await
            .map_err(ClientError::DataConnect)?;
        let here = listener.local_addr().map_err(ClientError::DataConnect)?;
        let here = SocketAddr::new(here.ip().to_canonical(), here.port());
        let reply = self
            .control
            .exchange("EPRT", format_eprt(here).as_bytes())
            .await?;
        if reply.code().is_completion() {
            return Ok(listener);
        }
        let IpAddr::V4(ip) = here.ip() else {
            return Err(unexpected(&reply));
        };
        let argument = format_port(ip, here.port());
        self.control.complete("PORT", argument.as_bytes()).await?;
        Ok(listener)
    }

    /// Waits for the server's connection; others are closed. A server that
    /// cannot connect says so on the control connection.
    async fn accept(&mut self, listener: TcpListener) -> Result<Stream, ClientError> {
        let deadline = self.server.deadlines.data_connect;
        let server = self.control.peer.ip();
        let socket = tokio::select! {
            biased;
            accepted = timeout(deadline, accept_from(&listener, server)) => accepted
                .map_err(|_| data_timeout(deadline))?
                .map_err(ClientError::DataConnect)?,
            reply = self.control.reply(Waiting::DataConnect, deadline) => {
                let reply = reply?;
                if !reply.code().is_completion() {
                    return Err(refusal(&reply));
                }
                // A short transfer is over before its connection was taken up here.
                self.control.put_back(reply);
                timeout(LAST_WORDS, accept_from(&listener, server))
                    .await
                    .map_err(|_| data_timeout(LAST_WORDS))?
                    .map_err(ClientError::DataConnect)?
            }
        };
        Ok(data_stream(socket))
    }
}

/// The first connection from `server`. Dropping the future loses none.
async fn accept_from(listener: &TcpListener, server: IpAddr) -> io::Result<TcpStream> {
    loop {
        let (socket, peer) = listener.accept().await?;
        if peer.ip().to_canonical() == server.to_canonical() {
            return Ok(socket);
        }
    }
}

/// A download, or a listing.
#[derive(Debug)]
pub(super) struct FtpRead<'s> {
    control: &'s mut Control,
    securing: Option<&'s Securing>,
    data: Stream,
    stall: Duration,
    /// The server has said that all is sent.
    is_over: bool,
}

impl FtpRead<'_> {
    pub(super) async fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, ClientError> {
        let read = timeout(self.stall, self.data.read(buffer))
            .await
            .map_err(|_| stalled(self.stall))?;
        match read {
            Ok(count) => Ok(count),
            Err(error) => {
                let error = self.explain(error).await;
                Err(explain_unresumed(self.securing, &self.data, error))
            }
        }
    }

    /// Why reading failed. An end that only TLS takes for a cut is told from others.
    async fn explain(&mut self, error: io::Error) -> ClientError {
        let is_bare = error.kind() == io::ErrorKind::UnexpectedEof && self.data.as_tls().is_some();
        let explained = explain(self.control, error).await;
        let is_content = self.control.is_in_step();
        if is_bare && is_content && matches!(explained, ClientError::Connection(_)) {
            self.is_over = true;
            return ClientError::BareEnd;
        }
        explained
    }

    pub(super) async fn hear_end(mut self) -> Result<(), ClientError> {
        if self.is_over {
            return Ok(());
        }
        // Servers may wait for close_notify (vsftpd, `strict_ssl_write_shutdown`);
        // one that is gone already needs none.
        let _ = timeout(GOODBYE, self.data.shutdown()).await;
        let verdict = hear_end(self.control, self.stall).await;
        verdict.map_err(|error| explain_unresumed(self.securing, &self.data, error))
    }
}

impl RemoteRead for FtpRead<'_> {
    fn read<'a>(&'a mut self, buffer: &'a mut [u8]) -> Answer<'a, usize> {
        self.read_some(buffer).boxed()
    }

    fn finish<'a>(self: Box<Self>) -> Answer<'a, ()>
    where
        Self: 'a,
    {
        self.hear_end().boxed()
    }
}

/// An upload.
#[derive(Debug)]
pub(super) struct FtpWrite<'s> {
    control: &'s mut Control,
    securing: Option<&'s Securing>,
    data: Stream,
    stall: Duration,
}

impl FtpWrite<'_> {
    async fn write_all(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        let written = self.write_listening(bytes).await;
        written.map_err(|error| explain_unresumed(self.securing, &self.data, error))
    }

    /// Writes while it listens for the server's verdict: over quota, it may
    /// say so at once and leave the data connection standing.
    async fn write_listening(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let written = tokio::select! {
                biased;
                reply = self.control.reply(Waiting::Data, self.stall) => {
                    return Err(match reply {
                        Ok(reply) => early_end(&reply),
                        Err(ClientError::Timeout { .. }) => stalled(self.stall),
                        Err(error) => error,
                    });
                }
                written = self.data.write(rest) => written,
            };
            match written {
                Ok(0) => return Err(ClientError::Connection(io::ErrorKind::WriteZero.into())),
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(error) => return Err(explain(self.control, error).await),
            }
        }
        Ok(())
    }

    async fn hear_end(mut self) -> Result<(), ClientError> {
        let verdict = self.end().await;
        verdict.map_err(|error| explain_unresumed(self.securing, &self.data, error))
    }

    async fn end(&mut self) -> Result<(), ClientError> {
        self.data.set_reset_on_drop(false);
        let ended = timeout(self.stall, async {
            self.data.flush().await?;
            self.data.shutdown().await
        });
        match ended.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(explain(self.control, error).await),
            Err(_) => return Err(stalled(self.stall)),
        }
        hear_end(self.control, self.stall).await?;
        if self.data.as_tls().is_some() {
            // Read to its end, which is there by now: the server sends tickets for the
            // next data connections. Closing over something unread would reset the
            // connection besides.
            let mut rest = tokio::io::sink();
            let _ = timeout(GOODBYE, tokio::io::copy(&mut self.data, &mut rest)).await;
        }
        Ok(())
    }
}

/// What `error` means on a data connection that may not have resumed its session.
fn explain_unresumed(
    securing: Option<&Securing>,
    data: &Stream,
    error: ClientError,
) -> ClientError {
    match securing {
        Some(securing) if !has_resumed(data) => securing.explain_unresumed(error),
        _ => error,
    }
}

impl RemoteWrite for FtpWrite<'_> {
    fn write<'a>(&'a mut self, bytes: &'a [u8]) -> Answer<'a, ()> {
        self.write_all(bytes).boxed()
    }

    fn finish<'a>(self: Box<Self>) -> Answer<'a, ()>
    where
        Self: 'a,
    {
        self.hear_end().boxed()
    }
}

/// Reads the reply that ends a transfer. Some servers say 250 instead of 226.
async fn hear_end(control: &mut Control, stall: Duration) -> Result<(), ClientError> {
    // The server may have to write gigabytes out, or hash them.
    let deadline = stall.saturating_mul(5);
    let reply = control.reply(Waiting::TransferEnd, deadline).await?;
    if reply.code().is_completion() {
        Ok(())
    } else {
        Err(refusal(&reply))
    }
}

/// Why a data connection broke: the server's own words, if it has any.
async fn explain(control: &mut Control, error: io::Error) -> ClientError {
    match control.reply(Waiting::TransferEnd, LAST_WORDS).await {
        Ok(reply) if !reply.code().is_completion() => refusal(&reply),
        Err(error @ (ClientError::Closed(Some(_)) | ClientError::TooManyConnections(_))) => error,
        _ => ClientError::Connection(error),
    }
}

/// A reply in the middle of an upload is the server's verdict on it.
fn early_end(reply: &Reply) -> ClientError {
    if reply.code().is_completion() {
        ClientError::Protocol("the server ended an upload before its end".to_owned())
    } else {
        refusal(reply)
    }
}

fn refused_start(reply: &Reply) -> ClientError {
    if reply.code().is_completion() {
        ClientError::Protocol("the server ended a transfer before it began".to_owned())
    } else {
        refusal(reply)
    }
}

fn unexpected(reply: &Reply) -> ClientError {
    if reply.code().is_completion() {
        ClientError::Protocol(format!("unexpected reply {}", super::control::said(reply)))
    } else {
        refusal(reply)
    }
}

fn data_stream(socket: TcpStream) -> Stream {
    let stream = Stream::from(socket);
    stream.set_nodelay();
    stream
}

fn data_timeout(after: Duration) -> ClientError {
    ClientError::Timeout {
        waiting: Waiting::DataConnect,
        after,
    }
}

fn stalled(after: Duration) -> ClientError {
    ClientError::Timeout {
        waiting: Waiting::Data,
        after,
    }
}

/// How long a data connection that is of no more use may take to end.
const GOODBYE: Duration = Duration::from_millis(500);

/// How long a server may take to say why it has cut a data connection.
const LAST_WORDS: Duration = Duration::from_secs(5);
