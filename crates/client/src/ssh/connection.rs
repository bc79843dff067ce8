//! A connection whose other end is known: dialled, its key judged, logged in.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use russh::Names;
use russh::client::{self, DisconnectReason, Handle, Msg};
use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PublicKeyOrCertificate};
use russh::{Channel, Preferred, cipher};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::SshServer;
use super::host_key::{HostKey, KnownKey, judge};
use super::login::{Asked, SshLogin, ask, log_in};
use super::transport::{Patience, transport};
use crate::dial::{dial, keep_alive};
use crate::error::{ClientError, Said, Waiting};

/// A connection whose key was judged. Ends when it is dropped.
pub(super) struct Connection {
    handle: Handle<Watcher>,
    end: End,
    algorithms: Agreed,
}

/// How a connection is encrypted: names of RFC 4253, and those that came later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Algorithms {
    /// The exchange of keys.
    pub exchange: String,
    /// The cipher.
    pub cipher: String,
    /// What the server sends is authenticated by this; nothing where the cipher does it.
    pub mac: Option<String>,
    /// The key that the server has shown.
    pub host_key: HostKey,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection")
    }
}

impl Connection {
    /// Connects, judges the server's key, and logs in.
    pub(super) async fn open(server: &SshServer) -> Result<Self, ClientError> {
        let socket = dial(&server.host, server.port, server.deadlines.connect).await?;
        let mut connection = Self::meet(server, socket).await?;
        connection.log_in(&server.login).await?;
        Ok(connection)
    }

    /// Agrees on how to encrypt, and judges the server's key.
    pub(super) async fn meet(server: &SshServer, socket: TcpStream) -> Result<Self, ClientError> {
        let deadline = server.deadlines.connect;
        let known = server.host_keys.known(&server.known_as)?;
        keep_alive(&socket);
        // Without it every small packet may wait for an acknowledgement; no failure where it cannot be had.
        let _ = socket.set_nodelay(true);
        let last_words = LastWords::default();
        let algorithms = Agreed::default();
        let patience = Patience::new(server.deadlines.stall);
        let config = Arc::new(config(&known, &patience));
        let watcher = Watcher {
            server: server.name(),
            known,
            shown: None,
            algorithms: Arc::clone(&algorithms),
            last_words: last_words.clone(),
        };
        let connecting =
            client::connect_stream(config, transport(socket, Arc::clone(&patience)), watcher);
        let handle = timeout(deadline, connecting)
            .await
            .map_err(|_| silent(Waiting::Handshake, deadline))?
            .map_err(|error| last_words.explain(error))?;
        Ok(Self {
            handle,
            end: End {
                last_words,
                patience,
            },
            algorithms,
        })
    }

    /// How the connection is encrypted.
    pub(super) fn algorithms(&self) -> Option<&Algorithms> {
        self.algorithms.get()
    }

    /// Asks how the server lets the user in.
    pub(super) async fn ask_methods(&mut self, login: &SshLogin) -> Result<Asked, ClientError> {
        let asked = timeout(LOGIN, ask(&mut self.handle, login)).await;
        self.of_login(asked)
    }

    /// Logs in. Returns what opened the account, for people.
    pub(super) async fn log_in(&mut self, login: &SshLogin) -> Result<String, ClientError> {
        let asked = self.ask_methods(login).await?;
        self.log_in_by(login, asked).await
    }

    /// As [`Self::log_in`], with what the server has said to the question.
    pub(super) async fn log_in_by(
        &mut self,
        login: &SshLogin,
        asked: Asked,
    ) -> Result<String, ClientError> {
        let done = timeout(LOGIN, log_in(&mut self.handle, login, asked)).await;
        let opened = self.of_login(done)?;
        self.end.patience.begin();
        Ok(opened)
    }

    fn of_login<T>(
        &self,
        result: Result<Result<T, ClientError>, tokio::time::error::Elapsed>,
    ) -> Result<T, ClientError> {
        result
            .map_err(|_| silent(Waiting::Login, LOGIN))?
            .map_err(|error| refused_login(self.end.last_words.explain(error)))
    }

    /// A channel for one command or one subsystem.
    pub(super) async fn channel(&self, deadline: Duration) -> Result<Channel<Msg>, ClientError> {
        timeout(deadline, self.handle.channel_open_session())
            .await
            .map_err(|_| silent(Waiting::Reply, deadline))?
            .map_err(|error| match error {
                russh::Error::ChannelOpenFailure(reason) => ClientError::TooManyConnections(
                    Said::words(format!("it opens no channel: {reason:?}").as_bytes()),
                ),
                error => self.explain(error.into()),
            })
    }

    /// As [`End::explain`].
    pub(super) fn explain(&self, error: ClientError) -> ClientError {
        self.end.explain(error)
    }

    /// What is known of its end, once it has come.
    pub(super) fn end(&self) -> End {
        self.end.clone()
    }
}

/// Why a connection ended, as far as it is known.
#[derive(Clone)]
pub(super) struct End {
    last_words: LastWords,
    patience: Arc<Patience>,
}

impl End {
    /// An end with the server's last words, if it had any, or with its silence.
    pub(super) fn explain(&self, error: ClientError) -> ClientError {
        match (error, self.patience.explain()) {
            (ClientError::Closed(_), Some(silence)) => silence,
            (error, _) => self.last_words.explain(error),
        }
    }
}

/// An end in the middle of the login is a refusal where the server says so: trying
/// again would only be one more failure that it counts.
fn refused_login(error: ClientError) -> ClientError {
    match error {
        ClientError::Closed(Some(said)) if said.mentions(&["authentication"]) => {
            ClientError::Login(said)
        }
        error => error,
    }
}

/// Written once by the task of the connection.
type Agreed = Arc<OnceLock<Algorithms>>;

/// What the server said when it ended the connection.
#[derive(Debug, Clone, Default)]
struct LastWords(Arc<Mutex<Option<Said>>>);

impl LastWords {
    fn explain(&self, error: ClientError) -> ClientError {
        match error {
            ClientError::Closed(None) => ClientError::Closed(self.lock().take()),
            error => error,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Said>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Judges the server's key, and keeps its last words. Whatever channel a server
/// wants to open towards this end is refused, by dropping the question.
pub(super) struct Watcher {
    server: String,
    known: Vec<KnownKey>,
    /// The server's key, once it was judged.
    shown: Option<HostKey>,
    algorithms: Agreed,
    last_words: LastWords,
}

impl client::Handler for Watcher {
    type Error = ClientError;

    async fn check_server_key(
        &mut self,
        shown: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = shown else {
            return Err(ClientError::KeyExchange(
                "the server shows a certificate, which was not asked for".to_owned(),
            ));
        };
        let key = HostKey::of(key).ok_or_else(|| {
            ClientError::KeyExchange("the server's key cannot be written down".to_owned())
        })?;
        judge(&self.server, &self.known, &key)?;
        self.shown = Some(key);
        Ok(true)
    }

    async fn kex_done(
        &mut self,
        _: Option<&[u8]>,
        names: &Names,
        _: &mut client::Session,
    ) -> Result<(), Self::Error> {
        if let Some(host_key) = self.shown.clone() {
            let mac = names.server_mac.as_ref();
            // Told of the first exchange only: later ones are the same.
            let _ = self.algorithms.set(Algorithms {
                exchange: names.kex.as_ref().to_owned(),
                cipher: names.cipher.as_ref().to_owned(),
                mac: (!has_own_mac(names.cipher)).then(|| mac.to_owned()),
                host_key,
            });
        }
        Ok(())
    }

    async fn disconnected(
        &mut self,
        reason: DisconnectReason<Self::Error>,
    ) -> Result<(), Self::Error> {
        match reason {
            DisconnectReason::ReceivedDisconnect(info) => {
                *self.last_words.lock() = Some(Said::words(info.message.as_bytes()));
                Ok(())
            }
            DisconnectReason::Error(error) => Err(error),
        }
    }

    async fn server_channel_open_session(
        &mut self,
        _: Channel<Msg>,
        _: client::ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_x11(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: client::ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        _: Channel<Msg>,
        _: client::ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        _: client::ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: client::ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        _: client::ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: client::ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }
}

fn config(known: &[KnownKey], patience: &Patience) -> client::Config {
    client::Config {
        client_id: russh::SshId::Standard(Cow::Borrowed(concat!(
            "SSH-2.0-Wharf_",
            env!("CARGO_PKG_VERSION")
        ))),
        window_size: WINDOW_BYTES,
        maximum_packet_size: PACKET_BYTES,
        preferred: Preferred {
            key: Cow::Owned(host_key_algorithms(known)),
            cipher: Cow::Borrowed(&CIPHERS),
            compression: Cow::Borrowed(&[russh::compression::NONE]),
            ..Preferred::DEFAULT
        },
        nodelay: true,
        // The questions only: `Patience` judges the silence behind them.
        keepalive_interval: Some(patience.interval()),
        keepalive_max: 0,
        ..client::Config::default()
    }
}

/// The kinds of keys that are asked for, those that are known of the server first, so
/// that it shows one of these. Signatures with SHA-1 are not taken.
fn host_key_algorithms(known: &[KnownKey]) -> Vec<Algorithm> {
    let mut algorithms = vec![
        Algorithm::Ed25519,
        Algorithm::Ecdsa {
            curve: EcdsaCurve::NistP256,
        },
        Algorithm::Ecdsa {
            curve: EcdsaCurve::NistP384,
        },
        Algorithm::Ecdsa {
            curve: EcdsaCurve::NistP521,
        },
        Algorithm::Rsa {
            hash: Some(HashAlg::Sha512),
        },
        Algorithm::Rsa {
            hash: Some(HashAlg::Sha256),
        },
    ];
    // Stable, so that the order within both groups stays.
    algorithms.sort_by_key(|algorithm| {
        let name = match algorithm {
            Algorithm::Rsa { .. } => "ssh-rsa",
            other => other.as_str(),
        };
        !known
            .iter()
            .any(|key| !key.is_revoked && key.algorithm == name)
    });
    algorithms
}

fn silent(waiting: Waiting, after: Duration) -> ClientError {
    ClientError::Timeout { waiting, after }
}

/// Whether what it encrypts is authenticated by it (RFC 5647 §5.1, OpenSSH's PROTOCOL.chacha20poly1305).
fn has_own_mac(cipher: cipher::Name) -> bool {
    [cipher::AES_256_GCM, cipher::CHACHA20_POLY1305].contains(&cipher)
}

/// AES-GCM first: processors have instructions for it.
const CIPHERS: [cipher::Name; 5] = [
    cipher::AES_256_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_256_CTR,
    cipher::AES_192_CTR,
    cipher::AES_128_CTR,
];

/// What a server may send ahead. Opened anew when half of it is used up, so that what is under
/// way of a file (`MOST_IN_FLIGHT_BYTES`) always fits.
const WINDOW_BYTES: u32 = 48 * 1024 * 1024;

/// The most that the SSH library takes at once.
const PACKET_BYTES: u32 = 65_535;

/// OpenSSH's servers end a login after as long (`LoginGraceTime`); a person may be asked meanwhile.
const LOGIN: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_keys_that_are_known_are_asked_for_first() {
        let known = |algorithm: &str, is_revoked| KnownKey {
            algorithm: algorithm.to_owned(),
            base64: String::new(),
            is_revoked,
            place: String::new(),
        };
        let names = |known: &[KnownKey]| -> Vec<String> {
            host_key_algorithms(known)
                .iter()
                .map(|algorithm| algorithm.as_str().to_owned())
                .collect()
        };
        assert_eq!(names(&[])[0], "ssh-ed25519");
        assert_eq!(
            names(&[known("ssh-rsa", false), known("ecdsa-sha2-nistp384", true)])[..3],
            ["rsa-sha2-512", "rsa-sha2-256", "ssh-ed25519"]
        );
    }
}
