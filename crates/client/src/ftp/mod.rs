//! FTP sessions: login, files, directories, digests (RFC 959, 2389, 2428, 3659).
//!
//! The session tolerates what servers do: listings come from MLSD, or from
//! LIST in any style; EPSV is tried before PASV, whose address is never
//! believed; reply codes count by their first digit where servers differ.

mod control;
mod data;
mod digest;
mod features;
mod listing;
mod open;
mod probe;
mod refusal;
mod secure;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::timeout;
use wharf_model::{ByteRange, Digest, DigestAlgorithm, Secret, VirtualPath};
use wharf_proto::ftp::reply::{Reply, ReplyCode};
use wharf_proto::time::encode_time;

use self::control::Control;
use self::data::PassiveCommand;
use self::features::Features;
use self::listing::ListStyle;
use self::open::Opening;
use self::refusal::{is_not_understood, refusal};
use self::secure::Securing;
use crate::dial::Deadlines;
use crate::error::{ClientError, Waiting};
use crate::remote::{
    Abilities, Answer, Connector, Remote, RemoteEntry, RemotePartial, RemoteRead, RemoteWrite,
    WriteStart,
};
use crate::trust::Encryption;

pub use self::data::PassiveOffer;
pub use self::features::MissingFeature;
pub use self::probe::{PassiveKind, Probe, ProbedSession, TlsFacts};
pub use self::secure::TrustedAs;

/// Who opens data connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DataMode {
    /// The client (EPSV, PASV).
    #[default]
    Passive,
    /// The server (EPRT, PORT).
    Active,
}

/// User name and password.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// User name.
    pub user: Vec<u8>,
    /// Password.
    pub password: Secret<Vec<u8>>,
}

impl Credentials {
    /// The login of public servers (RFC 1635 §2.1).
    pub fn anonymous() -> Self {
        Self {
            user: b"anonymous".to_vec(),
            password: Secret::new(b"anonymous@".to_vec()),
        }
    }

    /// Whether they are no secret (RFC 1635 §2.1; `ftp` is the older name).
    fn is_anonymous(&self) -> bool {
        [&b"anonymous"[..], b"ftp"].contains(&&*self.user)
    }
}

/// A server and how to log in to it.
#[derive(Debug, Clone)]
pub struct FtpServer {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// As whom.
    pub credentials: Credentials,
    /// How long to wait.
    pub deadlines: Deadlines,
    /// Who opens data connections.
    pub data_mode: DataMode,
    /// How connections are encrypted; `None` leaves them open for everyone to read.
    pub encryption: Option<Arc<Encryption>>,
}

impl Connector for FtpServer {
    fn connect(&self) -> Answer<'_, Box<dyn Remote>> {
        async move {
            let session = match FtpSession::connect(self.clone()).await {
                Err(stranger @ ClientError::UnknownServer { .. }) => {
                    self.introduce(stranger).await?;
                    FtpSession::connect(self.clone()).await?
                }
                result => result?,
            };
            let session: Box<dyn Remote> = Box::new(session);
            Ok(session)
        }
        .boxed()
    }
}

/// One control connection, logged in, and what was learnt about the server.
#[derive(Debug)]
struct FtpSession {
    control: Control,
    server: Arc<FtpServer>,
    features: Features,
    abilities: Abilities,
    home: VirtualPath,
    passive: PassiveCommand,
    list_style: ListStyle,
    /// The algorithm that HASH uses now.
    hash_chosen: Option<DigestAlgorithm>,
    /// OPTS HASH was sent.
    told_hash: bool,
    sets_times: bool,
    /// Encrypts data connections; `None` where the control connection is not encrypted.
    securing: Option<Securing>,
    /// Whether the last data connection that was encrypted resumed the session.
    data_resumed: Option<bool>,
}

impl FtpSession {
    async fn connect(server: FtpServer) -> Result<Self, ClientError> {
        let mut opening = Opening::dial(server).await?;
        opening.greet().await?;
        opening = opening.secure().await?;
        opening.log_in().await?;
        opening.settle().await
    }

    /// Chooses the digest of this session: a Wharf server then makes it while
    /// it receives a file, so that it need not read the file again.
    async fn choose_hash(&mut self) -> Result<(), ClientError> {
        let best = self.abilities.best_digest();
        if let Some(algorithm) = best.filter(|best| self.features.hash.contains(best)) {
            let told = self.tell_hash(algorithm).await;
            match told {
                // A server that lists an algorithm and refuses it: leave it to the first use.
                Err(ClientError::Unsupported(_)) => {}
                other => return other,
            }
        }
        Ok(())
    }

    async fn stat(&mut self, path: &VirtualPath) -> Result<RemoteEntry, ClientError> {
        if self.features.facts {
            return self.stat_by_facts(path).await;
        }
        self.stat_by_probing(path).await
    }

    /// Sets a time with MFMT or, in the way of vsftpd, with MDTM.
    async fn set_modified(
        &mut self,
        path: &VirtualPath,
        time: SystemTime,
    ) -> Result<bool, ClientError> {
        if !self.sets_times || !(self.features.mfmt || self.features.mdtm) {
            return Ok(false);
        }
        let mut argument = Vec::with_capacity(path.as_bytes().len() + 20);
        encode_time(whole_seconds(time), &mut argument);
        argument.push(b' ');
        argument.extend_from_slice(path.as_bytes());
        let verb = if self.features.mfmt { "MFMT" } else { "MDTM" };
        let reply = self.control.exchange(verb, &argument).await?;
        if is_not_understood(&reply) {
            self.sets_times = false;
        }
        Ok(reply.code().is_completion())
    }

    async fn rename(&mut self, from: &VirtualPath, to: &VirtualPath) -> Result<(), ClientError> {
        let reply = self.control.exchange("RNFR", from.as_bytes()).await?;
        if !reply.code().is_intermediate() {
            return Err(refusal(&reply));
        }
        self.control.complete("RNTO", to.as_bytes()).await?;
        Ok(())
    }

    async fn partial(&mut self, path: &VirtualPath) -> Result<Option<RemotePartial>, ClientError> {
        if !self.features.partials {
            return Ok(None);
        }
        let argument = [b"PARTIAL ", path.as_bytes()].concat();
        let reply = self
            .control
            .exchange_within("SITE", &argument, Waiting::Digest, LONGEST_DIGEST)
            .await?;
        Ok(parse_partial(&reply))
    }
}

impl Remote for FtpSession {
    fn home(&self) -> &VirtualPath {
        &self.home
    }

    fn abilities(&self) -> &Abilities {
        &self.abilities
    }

    fn is_usable(&self) -> bool {
        self.control.is_in_step() && !self.securing.as_ref().is_some_and(Securing::is_spent)
    }

    fn stat<'a>(&'a mut self, path: &'a VirtualPath) -> Answer<'a, RemoteEntry> {
        self.stat(path).boxed()
    }

    fn list<'a>(&'a mut self, path: &'a VirtualPath) -> Answer<'a, Vec<RemoteEntry>> {
        self.list(path).boxed()
    }

    fn open_read<'a>(
        &'a mut self,
        path: &'a VirtualPath,
        offset: u64,
    ) -> Answer<'a, Box<dyn RemoteRead + 'a>> {
        async move {
            let read: Box<dyn RemoteRead> = Box::new(self.retrieve(path, offset).await?);
            Ok(read)
        }
        .boxed()
    }

    fn open_write<'a>(
        &'a mut self,
        path: &'a VirtualPath,
        start: WriteStart,
    ) -> Answer<'a, Box<dyn RemoteWrite + 'a>> {
        async move {
            let write: Box<dyn RemoteWrite> = Box::new(self.store(path, start).await?);
            Ok(write)
        }
        .boxed()
    }

    fn remove<'a>(&'a mut self, path: &'a VirtualPath) -> Answer<'a, ()> {
        async move {
            self.control.complete("DELE", path.as_bytes()).await?;
            Ok(())
        }
        .boxed()
    }

    fn make_directory<'a>(&'a mut self, path: &'a VirtualPath) -> Answer<'a, ()> {
        async move {
            self.control.complete("MKD", path.as_bytes()).await?;
            Ok(())
        }
        .boxed()
    }

    fn remove_directory<'a>(&'a mut self, path: &'a VirtualPath) -> Answer<'a, ()> {
        async move {
            self.control.complete("RMD", path.as_bytes()).await?;
            Ok(())
        }
        .boxed()
    }

    fn rename<'a>(&'a mut self, from: &'a VirtualPath, to: &'a VirtualPath) -> Answer<'a, ()> {
        self.rename(from, to).boxed()
    }

    fn set_modified<'a>(&'a mut self, path: &'a VirtualPath, time: SystemTime) -> Answer<'a, bool> {
        self.set_modified(path, time).boxed()
    }

    fn digest<'a>(
        &'a mut self,
        path: &'a VirtualPath,
        algorithm: DigestAlgorithm,
        range: Option<ByteRange>,
    ) -> Answer<'a, Digest> {
        self.digest(path, algorithm, range).boxed()
    }

    fn partial<'a>(&'a mut self, path: &'a VirtualPath) -> Answer<'a, Option<RemotePartial>> {
        self.partial(path).boxed()
    }

    fn check(&mut self) -> Answer<'_, ()> {
        async move {
            self.control.exchange("NOOP", b"").await?;
            Ok(())
        }
        .boxed()
    }

    fn close(mut self: Box<Self>) -> BoxFuture<'static, ()> {
        async move {
            // Politeness: a server that does not answer is left without a word.
            let _ = timeout(GOODBYE, self.control.exchange("QUIT", b"")).await;
        }
        .boxed()
    }
}

/// `213 <size> <algorithm> <digest>`.
fn parse_partial(reply: &Reply) -> Option<RemotePartial> {
    if reply.code() != ReplyCode::FILE_STATUS {
        return None;
    }
    let text = std::str::from_utf8(reply.text()).ok()?;
    let mut words = text.split_ascii_whitespace();
    let size = words.next()?.parse().ok()?;
    let algorithm: DigestAlgorithm = words.next()?.parse().ok()?;
    let digest = Digest::parse_hex(algorithm, words.next()?)?;
    Some(RemotePartial { size, digest })
}

/// Servers keep seconds; what is finer would make every comparison differ.
fn whole_seconds(time: SystemTime) -> SystemTime {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs()),
        Err(_) => time,
    }
}

const GOODBYE: Duration = Duration::from_secs(2);

/// Long enough to read a terabyte at 300 MB/s.
const LONGEST_DIGEST: Duration = Duration::from_secs(60 * 60);

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tls_tests;
