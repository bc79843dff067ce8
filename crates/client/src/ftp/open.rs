//! From a server's name to a session: connection, greeting, encryption, login, options.
//!
//! Each step can be taken alone, so that a probe can tell what it met.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::time::timeout;
use wharf_model::VirtualPath;
use wharf_net::Stream;
use wharf_proto::ftp::reply::{Reply, ReplyCode, parse_quoted_path};

use super::control::Control;
use super::data::PassiveCommand;
use super::features::Features;
use super::listing::ListStyle;
use super::refusal::refusal;
use super::secure::{Securing, protect_data};
use super::{Credentials, FtpServer, FtpSession};
use crate::dial::{dial, keep_alive};
use crate::error::{ClientError, Said, Waiting};

/// A control connection that is not logged in yet.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) server: Arc<FtpServer>,
    pub(super) control: Control,
    pub(super) securing: Option<Securing>,
    /// The control connection is encrypted.
    pub(super) is_encrypted: bool,
    /// Why it is not, in the server's words.
    pub(super) refused_encryption: Option<Said>,
}

impl Opening {
    /// Connects to the first address that answers. `ftps://` is encrypted from here on.
    pub(super) async fn dial(server: FtpServer) -> Result<Self, ClientError> {
        let socket = dial(&server.host, server.port, server.deadlines.connect).await?;
        Self::over(server, socket).await
    }

    /// As [`Self::dial`], over a connection that exists.
    pub(super) async fn over(server: FtpServer, socket: TcpStream) -> Result<Self, ClientError> {
        let deadlines = server.deadlines;
        let local = socket.local_addr().map_err(ClientError::Connection)?;
        let peer = socket.peer_addr().map_err(ClientError::Connection)?;
        keep_alive(&socket);
        let stream = Stream::from(socket);
        stream.set_nodelay();
        let securing = securing(&server, peer)?;
        let (stream, is_encrypted) = match &securing {
            Some(securing) if securing.is_implicit() => (securing.at_once(stream).await?, true),
            _ => (stream, false),
        };
        Ok(Self {
            control: Control::new(stream, local, peer, deadlines.reply),
            server: Arc::new(server),
            securing,
            is_encrypted,
            refused_encryption: None,
        })
    }

    /// Takes the greeting. 120 promises another one (RFC 959 §5.4); however many
    /// come, all of them together have until the deadline.
    pub(super) async fn greet(&mut self) -> Result<Reply, ClientError> {
        let deadline = self.server.deadlines.reply;
        let greeting = async {
            loop {
                let reply = self.control.reply(Waiting::Reply, deadline).await?;
                match reply.code() {
                    code if code.is_preliminary() => {}
                    code if code.is_completion() => return Ok(reply),
                    _ => return Err(refusal(&reply)),
                }
            }
        };
        timeout(deadline, greeting).await.unwrap_or_else(|_| {
            Err(ClientError::Timeout {
                waiting: Waiting::Reply,
                after: deadline,
            })
        })
    }

    /// Encrypts the connection, as far as it should be and is not.
    pub(super) async fn secure(mut self) -> Result<Self, ClientError> {
        if let (Some(securing), false) = (&self.securing, self.is_encrypted) {
            (self.control, self.refused_encryption) = securing.by_command(self.control).await?;
            self.is_encrypted = self.refused_encryption.is_none();
        }
        Ok(self)
    }

    /// How the server reads a byte 0xFF is asked before it is sent one; FEAT needs no
    /// login in the servers that there are. One that wants it gets the byte as it is.
    pub(super) async fn log_in(&mut self) -> Result<(), ClientError> {
        let credentials = &self.server.credentials;
        if let (Some(securing), false) = (&self.securing, self.is_encrypted)
            && !credentials.is_anonymous()
        {
            securing.warn_of_plain_password();
        }
        let password = credentials.password.expose();
        if credentials.user.contains(&0xff) || password.contains(&0xff) {
            let features = ask_for_features(&mut self.control).await?;
            self.control.set_iac(features.iac());
        }
        log_in(&mut self.control, credentials).await
    }

    /// Agrees with the server on all that a session needs.
    pub(super) async fn settle(mut self) -> Result<FtpSession, ClientError> {
        if self.is_encrypted {
            protect_data(&mut self.control).await?;
        }
        let features = ask_for_features(&mut self.control).await?;
        self.control.set_iac(features.iac());
        settle_options(&mut self.control, &features).await?;
        let home = working_directory(&mut self.control).await?;
        let mut session = FtpSession {
            control: self.control,
            abilities: features.abilities(),
            hash_chosen: features.hash_chosen,
            told_hash: false,
            sets_times: true,
            home,
            passive: PassiveCommand::Extended,
            list_style: ListStyle::for_server(&features),
            features,
            server: self.server,
            securing: self.securing.filter(|_| self.is_encrypted),
            data_resumed: None,
        };
        session.choose_hash().await?;
        Ok(session)
    }
}

fn securing(server: &FtpServer, peer: SocketAddr) -> Result<Option<Securing>, ClientError> {
    let Some(encryption) = &server.encryption else {
        return Ok(None);
    };
    let deadline = server.deadlines.connect;
    Securing::new(encryption, &server.host, peer, deadline).map(Some)
}

async fn log_in(control: &mut Control, credentials: &Credentials) -> Result<(), ClientError> {
    let reply = control.exchange("USER", &credentials.user).await?;
    if reply.code().is_completion() {
        return Ok(());
    }
    if !reply.code().is_intermediate() {
        return Err(login_refusal(&reply));
    }
    let reply = control
        .exchange("PASS", credentials.password.expose())
        .await
        .map_err(without_password)?;
    match reply.code() {
        code if code.is_completion() => Ok(()),
        code if code.is_intermediate() => Err(ClientError::Unsupported("log in without ACCT")),
        _ => Err(login_refusal(&reply)),
    }
}

/// Before login every refusal is about the login.
fn login_refusal(reply: &Reply) -> ClientError {
    match refusal(reply) {
        ClientError::Refused(said) | ClientError::NotFound(Some(said)) => ClientError::Login(said),
        other => other,
    }
}

/// A password that FTP cannot carry must not be shown in the error that says so.
fn without_password(error: ClientError) -> ClientError {
    match error {
        ClientError::BadName { source, .. } => ClientError::BadName {
            name: "password".to_owned(),
            source,
        },
        other => other,
    }
}

async fn ask_for_features(control: &mut Control) -> Result<Features, ClientError> {
    let reply = control.exchange("FEAT", b"").await?;
    if !reply.code().is_completion() {
        // A server without FEAT may still have the commands of its time.
        return Ok(Features {
            size: true,
            mdtm: true,
            restart: true,
            ..Features::default()
        });
    }
    Ok(Features::parse(reply.lines().iter().map(Vec::as_slice)))
}

/// Names in UTF-8, files as they are, listings with the facts that matter.
async fn settle_options(control: &mut Control, features: &Features) -> Result<(), ClientError> {
    if features.utf8 {
        // Any answer will do: UTF-8 is on in most servers that list it.
        control.exchange("OPTS", b"UTF8 ON").await?;
    }
    if !features.fact_wishes.is_empty() {
        let wishes = format!("MLST {}", features.fact_wishes);
        control.exchange("OPTS", wishes.as_bytes()).await?;
    }
    control.complete("TYPE", b"I").await?;
    Ok(())
}

async fn working_directory(control: &mut Control) -> Result<VirtualPath, ClientError> {
    let reply = control.exchange("PWD", b"").await?;
    let path = (reply.code() == ReplyCode::PATH_CREATED)
        .then(|| parse_quoted_path(reply.text()))
        .flatten();
    // A server that does not say where it is has the login at the root.
    Ok(path
        .and_then(|path| VirtualPath::parse(&path).ok())
        .unwrap_or_else(VirtualPath::root))
}
