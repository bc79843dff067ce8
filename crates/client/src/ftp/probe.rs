//! A session taken step by step, for who wants to know where it fails and what a server is like.
//!
//! The steps are those of every session; nothing here speaks the protocol by itself.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;

use super::data::PassiveOffer;
use super::features::MissingFeature;
use super::open::Opening;
use super::secure::{TrustedAs, introduce};
use super::{Credentials, DataMode, FtpServer, FtpSession};
use crate::dial::{addresses_within, connect_to};
use crate::error::{ClientError, Said};
use crate::remote::Remote;

impl FtpServer {
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

    /// Connects to one of its addresses, and encrypts the connection if that comes first.
    ///
    /// # Errors
    /// [`ClientError::Connect`], [`ClientError::Timeout`], and those of encryption.
    pub async fn probe(&self, address: SocketAddr) -> Result<Probe, ClientError> {
        let socket = connect_to(address, self.deadlines.connect).await?;
        let opening = Opening::over(self.clone(), socket).await?;
        Ok(Probe { opening })
    }

    /// Brings a server that nothing vouches for before [`crate::Trust::accept`]
    /// and remembers it if it is accepted; otherwise the error comes back. The
    /// connection that brought it up is gone.
    ///
    /// # Errors
    /// `error`, or [`ClientError::Local`] if the server cannot be remembered.
    pub async fn introduce(&self, error: ClientError) -> Result<(), ClientError> {
        match (error, &self.encryption) {
            (ClientError::UnknownServer { server, stranger }, Some(encryption)) => {
                introduce(encryption, server, stranger).await
            }
            (error, _) => Err(error),
        }
    }
}

/// A connection that is not logged in. The steps are to be taken in their order.
#[derive(Debug)]
pub struct Probe {
    opening: Opening,
}

impl Probe {
    /// Waits for the greeting.
    ///
    /// # Errors
    /// [`ClientError::Timeout`] and whatever the server refuses with.
    pub async fn greeting(&mut self) -> Result<Said, ClientError> {
        let reply = self.opening.greet().await?;
        Ok(super::control::said(&reply))
    }

    /// Encrypts the connection as [`FtpServer::encryption`] says, unless it is already.
    ///
    /// # Errors
    /// Those of encryption.
    pub async fn secure(self) -> Result<Self, ClientError> {
        let opening = self.opening.secure().await?;
        Ok(Self { opening })
    }

    /// How the connection is encrypted; `None` if it is not.
    pub fn tls(&self) -> Option<TlsFacts> {
        let tls = self.opening.control.tls()?;
        Some(TlsFacts {
            version: tls.description(),
            certificates: tls.peer_certificates().to_vec(),
            trusted: self.opening.securing.as_ref()?.trusted_as()?,
        })
    }

    /// What the server said when it was asked for encryption and refused.
    pub fn refused_encryption(&self) -> Option<&Said> {
        self.opening.refused_encryption.as_ref()
    }

    /// Changes who logs in.
    pub fn set_credentials(&mut self, credentials: Credentials) {
        Arc::make_mut(&mut self.opening.server).credentials = credentials;
    }

    /// Logs in.
    ///
    /// # Errors
    /// [`ClientError::Login`].
    pub async fn log_in(&mut self) -> Result<(), ClientError> {
        self.opening.log_in().await
    }

    /// Agrees on the options of a session.
    ///
    /// # Errors
    /// Whatever the server refuses with.
    pub async fn settle(self) -> Result<ProbedSession, ClientError> {
        let session = self.opening.settle().await?;
        Ok(ProbedSession { session })
    }
}

/// How a connection is encrypted.
#[derive(Debug, Clone)]
pub struct TlsFacts {
    /// Version and cipher.
    pub version: String,
    /// The server's own certificate, then what it sent with it.
    pub certificates: Vec<CertificateDer<'static>>,
    /// Why it is trusted.
    pub trusted: TrustedAs,
}

/// A command for passive data connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PassiveKind {
    /// EPSV.
    Extended,
    /// PASV.
    Plain,
}

/// A session, with what a client has no need to know.
#[derive(Debug)]
pub struct ProbedSession {
    session: FtpSession,
}

impl ProbedSession {
    /// The session itself.
    pub fn remote(&mut self) -> &mut dyn Remote {
        &mut self.session
    }

    /// Ends it politely.
    pub async fn close(self) {
        Box::new(self.session).close().await;
    }

    /// The server's end of the control connection.
    pub fn peer(&self) -> SocketAddr {
        self.session.control.peer
    }

    /// What this client would use and the server does not offer.
    pub fn missing_features(&self) -> Vec<MissingFeature> {
        self.session.features.missing()
    }

    /// Asks where the server waits for a data connection. The session goes on
    /// with another one whenever it needs one.
    ///
    /// # Errors
    /// Whatever the server refuses with, [`ClientError::Protocol`].
    pub async fn passive(&mut self, kind: PassiveKind) -> Result<PassiveOffer, ClientError> {
        match kind {
            PassiveKind::Extended => self.session.ask_epsv().await,
            PassiveKind::Plain => self.session.ask_pasv().await,
        }
    }

    /// Connects to where the server waits, and closes the connection.
    ///
    /// # Errors
    /// [`ClientError::DataConnect`], [`ClientError::Timeout`].
    pub async fn reach(&self, offer: PassiveOffer) -> Result<(), ClientError> {
        self.session.dial_data(offer.target).await.map(drop)
    }

    /// Whether the last encrypted data connection resumed the session; `None` if there was none.
    pub fn data_resumed(&self) -> Option<bool> {
        self.session.data_resumed
    }

    /// Who opens data connections from now on.
    pub fn set_data_mode(&mut self, mode: DataMode) {
        Arc::make_mut(&mut self.session.server).data_mode = mode;
    }
}
