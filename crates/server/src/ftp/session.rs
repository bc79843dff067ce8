//! A session's state, and which command does what to it.

use std::future::{pending, poll_fn};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use wharf_accounts::Account;
use wharf_model::{ByteRange, DigestAlgorithm, Refusal, VirtualPath};
use wharf_net::{Cleared, ConnectionSlot, Drain, Stream, TicketOwner};
use wharf_proto::ftp::command::{Command, SiteCommand, TransferType};
use wharf_proto::ftp::facts::FactSet;
use wharf_proto::ftp::reply::{Reply, ReplyCode};
use wharf_proto::ftp::verb::{Phase as VerbPhase, Verb};
use wharf_vfs::Vfs;

use crate::door::{Approach, Grant, Protocol};
use crate::ftp::data::{DataChannel, DataTls, Ends};
use crate::ftp::refusal::reply_to;
use crate::ftp::running::{DataTimeouts, Finished, Job, Running, Work};
use crate::ftp::{DataPrivacy, FtpShared, FtpTls, TlsStart};
use crate::registry::{LiveSession, LoginSlot};
use crate::transfer::Translation;

/// How long a client has to begin ending TLS after CCC before the server does. Only
/// clients that expect that wait for it.
const CLEARING_GRACE: Duration = Duration::from_millis(500);

/// What a command leads to.
pub(crate) enum Outcome {
    /// A reply.
    Reply(Reply),
    /// A reply, then the end of the session.
    Close(Reply),
    /// A reply, then the TLS handshake.
    StartTls(Reply),
    /// A reply, then the end of TLS on the control connection.
    EndTls(Reply),
    /// A preliminary reply, then a transfer that ends with another.
    Transfer(Reply, Box<Job>),
}

impl From<Reply> for Outcome {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply)
    }
}

/// One client's session.
pub(crate) struct Session {
    pub(super) shared: Arc<FtpShared>,
    pub(super) ends: Ends,
    pub(super) presence: Arc<Presence>,
    /// TLS on the control connection, if it is there or was.
    pub(super) encrypted: Option<Encrypted>,
    started: Instant,
    pub(super) phase: Phase,
    pub(super) failed_logins: u32,
    pub(super) transfer_type: TransferType,
    pub(super) channel: DataChannel,
    /// EPSV ALL was sent: the other ways to a data connection are closed (RFC 2428 §4).
    pub(super) only_epsv: bool,
    /// REST: where the next transfer starts.
    pub(super) restart: u64,
    /// RANG: what the next RETR or HASH covers.
    pub(super) range: Option<ByteRange>,
    /// ALLO: how much the next upload will bring.
    pub(super) announced: Option<u64>,
    pub(super) rename_from: Option<VirtualPath>,
    pub(super) facts: FactSet,
    pub(super) hash_algorithm: DigestAlgorithm,
    /// The algorithm was chosen with OPTS HASH, so uploads are hashed while they are written.
    pub(super) hash_uploads: bool,
}

/// The connection's standing in the server, through every login on it.
pub(crate) struct Presence {
    /// Settled at the first login.
    pub(crate) slot: ConnectionSlot,
    /// Cuts waiting short.
    pub(crate) drain: Drain,
    /// Its place in the registry.
    pub(crate) live: LiveSession,
    /// The drain has begun, as the task that serves the session has heard. It begins to wait for that
    /// once ([`Presence::listen`]); to begin with each command costs more than most commands.
    pub(crate) drain_begun: AtomicBool,
}

impl Presence {
    /// Hears for the session what it is called to, in the task that serves it. Completes when it was kicked
    /// and had `patience` to end by itself: it computes a digest, or waits for a client that does not read.
    pub(crate) async fn listen(&self, patience: Duration) {
        let drain = async {
            self.drain.begun().await;
            self.drain_begun.store(true, Ordering::Relaxed);
            // The session looks at it later in the same poll, and stays while its transfer goes on.
            pending::<()>().await;
        };
        tokio::select! {
            () = self.live.kicked() => {}
            () = drain => {}
        }
        tokio::time::sleep(patience).await;
    }

    /// Completes once the server drains. Wakes nobody: [`Presence::listen`] does, in the same task.
    pub(crate) async fn draining(&self) {
        once(|| self.drain_begun.load(Ordering::Relaxed)).await;
    }

    /// Completes once the session is to end. Wakes nobody, as above.
    pub(crate) async fn kicked(&self) {
        once(|| self.live.is_kicked()).await;
    }
}

async fn once(is_so: impl Fn() -> bool) {
    poll_fn(|_| match is_so() {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
}

/// The TLS of a session.
#[derive(Debug, Clone)]
pub(crate) struct Encrypted {
    /// Whose tickets data connections should show.
    owner: TicketOwner,
    /// Version and cipher, for the log.
    pub(super) description: String,
    /// The account that the client's certificate opens.
    pub(super) opens: Option<String>,
    /// PBSZ was sent.
    pub(super) buffer_agreed: bool,
    /// PROT P: data connections are encrypted.
    pub(super) private: bool,
    /// CCC: the control connection is so no more. What protects data stays as it was agreed before.
    pub(super) control_cleared: bool,
}

impl Encrypted {
    fn new(owner: TicketOwner, description: String, opens: Option<String>, tls: &FtpTls) -> Self {
        let from_the_start = tls.start == TlsStart::Connection;
        Self {
            owner,
            description,
            opens,
            buffer_agreed: from_the_start,
            private: from_the_start && tls.data != DataPrivacy::Off,
            control_cleared: false,
        }
    }
}

/// What the session waits for.
pub(crate) enum Phase {
    /// USER.
    ExpectUser,
    /// PASS, for this name.
    ExpectPassword(Vec<u8>),
    /// Anything.
    LoggedIn(Box<Login>),
}

/// A session that is logged in.
pub(crate) struct Login {
    pub(super) account: Account,
    pub(super) vfs: Vfs,
    pub(super) current: VirtualPath,
    _slot: LoginSlot,
}

impl From<Grant> for Login {
    fn from(grant: Grant) -> Self {
        Self {
            account: grant.account,
            vfs: grant.vfs,
            current: VirtualPath::root(),
            _slot: grant.slot,
        }
    }
}

impl Session {
    pub(crate) fn new(shared: Arc<FtpShared>, ends: Ends, presence: Arc<Presence>) -> Self {
        Self {
            shared,
            ends,
            presence,
            encrypted: None,
            started: Instant::now(),
            phase: Phase::ExpectUser,
            failed_logins: 0,
            transfer_type: TransferType::Ascii,
            channel: DataChannel::Unset,
            only_epsv: false,
            restart: 0,
            range: None,
            announced: None,
            rename_from: None,
            facts: FactSet::default(),
            hash_algorithm: DigestAlgorithm::Sha256,
            hash_uploads: false,
        }
    }

    /// Back to the state after the connection or its handshake (RFC 959 §4.1.1, REIN). Who was
    /// logged in gets the time for a login anew; who was not, does not.
    pub(super) fn reset(&mut self) {
        let fresh = Self::new(
            Arc::clone(&self.shared),
            self.ends,
            Arc::clone(&self.presence),
        );
        let started = if self.login().is_some() {
            fresh.started
        } else {
            self.started
        };
        self.presence.live.set_account(None);
        *self = Self {
            failed_logins: self.failed_logins,
            encrypted: self.encrypted_anew(),
            started,
            ..fresh
        };
    }

    /// The TLS that stays, with the protection of data as it was at first; behind
    /// CCC it cannot be agreed anew, and so stays too.
    fn encrypted_anew(&self) -> Option<Encrypted> {
        let tls = self.shared.config.tls.as_ref()?;
        let encrypted = self.encrypted.as_ref()?;
        if encrypted.control_cleared {
            return Some(encrypted.clone());
        }
        let opens = encrypted.opens.clone();
        let description = encrypted.description.clone();
        Some(Encrypted::new(encrypted.owner, description, opens, tls))
    }

    /// Whether TLS comes before everything else.
    pub(crate) fn starts_encrypted(&self) -> bool {
        let tls = self.shared.config.tls.as_ref();
        tls.is_some_and(|tls| tls.start == TlsStart::Connection)
    }

    /// Makes the handshake, within the time for the login. Dropping the future closes the connection.
    ///
    /// # Errors
    /// It failed or took too long; the connection is of no more use.
    pub(crate) async fn encrypt(&mut self, stream: Stream) -> io::Result<Stream> {
        let shared = Arc::clone(&self.shared);
        let tls = shared.config.tls.as_ref();
        let tls = tls.ok_or(io::ErrorKind::Unsupported)?;
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let owner = TicketOwner::new(random);
        let deadline = self.started + shared.config.timeouts.login;
        let handshake = tls.server.accept(stream, owner);
        let stream = self.unless_stopped(deadline, handshake).await?;
        let (mut description, mut opens) = (String::new(), None);
        if let Some(stream) = stream.as_tls() {
            description = stream.description();
            tracing::debug!(tls = description, "encrypted");
            let certificate = stream.peer_certificates().first();
            opens = certificate.and_then(|certificate| tls.accounts.account_of(certificate));
        }
        self.encrypted = Some(Encrypted::new(owner, description, opens, tls));
        self.presence.live.set_encrypted(true);
        Ok(stream)
    }

    /// Ends TLS below the session, with patience for the client's part of it. What the
    /// client's certificate opened opens no more: anybody could ask for it now.
    ///
    /// # Errors
    /// The client did not end it; the connection is of no more use.
    pub(crate) async fn clear(
        &mut self,
        stream: Stream,
        patience: Duration,
    ) -> io::Result<Cleared> {
        let Stream::Tls(tls) = stream else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let ending = Box::pin(tls.end(CLEARING_GRACE));
        let cleared = self
            .unless_stopped(Instant::now() + patience, ending)
            .await?;
        if let Some(encrypted) = &mut self.encrypted {
            encrypted.control_cleared = true;
            encrypted.opens = None;
        }
        self.presence.live.set_encrypted(false);
        tracing::info!("the control connection is encrypted no more (CCC)");
        Ok(cleared)
    }

    /// What begins or ends TLS below the session, until `deadline`. A stop does not wait for it:
    /// no transfer runs meanwhile.
    async fn unless_stopped<T>(
        &self,
        deadline: Instant,
        change: impl Future<Output = io::Result<T>>,
    ) -> io::Result<T> {
        tokio::select! {
            biased;
            () = self.presence.draining() => Err(io::Error::other("the server stops")),
            changed = tokio::time::timeout_at(deadline, change) => {
                changed.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }

    pub(super) fn control_is_encrypted(&self) -> bool {
        let encrypted = self.encrypted.as_ref();
        encrypted.is_some_and(|tls| !tls.control_cleared)
    }

    /// How the next data connection is encrypted, if it is.
    pub(super) fn data_tls(&self) -> Option<DataTls> {
        let tls = self.shared.config.tls.as_ref()?;
        let encrypted = self.encrypted.as_ref().filter(|tls| tls.private)?;
        Some(DataTls {
            server: Arc::clone(&tls.server),
            owner: encrypted.owner,
            binding: tls.binding,
            end: tls.upload_end,
        })
    }

    pub(crate) fn greeting(&self) -> Reply {
        Reply::new(ReplyCode::READY, self.shared.config.greeting.as_str())
    }

    /// When a client that has not logged in is given up.
    pub(crate) fn login_deadline(&self) -> Option<Instant> {
        let open = !matches!(self.phase, Phase::LoggedIn(_));
        open.then(|| self.started + self.shared.config.timeouts.login)
    }

    pub(crate) fn idle_timeout(&self) -> Duration {
        self.shared.config.timeouts.idle
    }

    /// Its place in the registry.
    pub(crate) fn live(&self) -> &LiveSession {
        &self.presence.live
    }

    /// Its connection's standing in the server.
    pub(crate) fn presence(&self) -> &Presence {
        &self.presence
    }

    pub(super) fn approach(&self) -> Approach {
        Approach {
            peer: self.ends.peer,
            protocol: Protocol::Ftp,
            secure: self.control_is_encrypted(),
        }
    }

    pub(super) fn peer_address(&self) -> IpAddr {
        self.ends.peer.ip()
    }

    /// Carries out one command. The order is checked here, once, by the verb table.
    pub(crate) async fn execute(&mut self, command: Command) -> Outcome {
        let verb = command.verb();
        tracing::debug!(verb = verb.info().name(), "command");
        if verb.info().phase == VerbPhase::LoggedIn && self.login().is_none() {
            return Reply::new(
                ReplyCode::NOT_LOGGED_IN,
                "Log in first, with USER and PASS.",
            )
            .into();
        }
        // RNTO must follow RNFR at once (RFC 959 §4.1.3).
        let rename_from = self.rename_from.take();
        match self.dispatch(command, rename_from).await {
            Ok(outcome) => outcome,
            Err(refusal) => {
                if let Refusal::Io(source) = &refusal {
                    tracing::error!(verb = verb.info().name(), error = %source, "input/output error");
                }
                reply_to(&refusal).into()
            }
        }
    }

    /// What is awaited is boxed, so that no session has room for it but while it is carried out.
    #[rustfmt::skip]
    async fn dispatch(&mut self, command: Command, rename_from: Option<VirtualPath>) -> Result<Outcome, Refusal> {
        Ok(match command {
            Command::User(name) => Box::pin(self.user(name)).await,
            Command::Pass(password) => Box::pin(self.pass(password)).await,
            Command::Auth => self.auth(),
            Command::Pbsz => self.pbsz(),
            Command::Prot(level) => self.prot(level),
            Command::Ccc => self.ccc(),
            Command::Acct => Reply::new(ReplyCode::SUPERFLUOUS, "No account is needed beside the user.").into(),
            Command::Rein => self.rein(),
            Command::Quit => Outcome::Close(Reply::new(ReplyCode::GOODBYE, "Goodbye.")),
            Command::Noop => Reply::new(ReplyCode::OK, "Nothing done.").into(),
            Command::Syst => Reply::new(ReplyCode::SYSTEM_TYPE, "UNIX Type: L8").into(),
            Command::Clnt(client) => self.clnt(&client),
            Command::Feat => self.feat(),
            Command::Help(topic) => self.help(&topic),
            Command::Opts(option) => self.opts(option),
            Command::Type(transfer_type) => self.set_type(transfer_type),
            Command::Mode => Reply::new(ReplyCode::OK, "Mode is stream.").into(),
            Command::Stru => Reply::new(ReplyCode::OK, "Structure is file.").into(),
            Command::Allo(bytes) => self.allo(bytes),
            Command::Rest(offset) => self.rest(offset),
            Command::Rang(range) => self.rang(range),
            Command::Abor => Reply::new(ReplyCode::TRANSFER_COMPLETE, "No transfer is running.").into(),
            Command::Pasv => self.pasv(),
            Command::Epsv(family) => self.epsv(family),
            Command::Port(target) | Command::Eprt(target) => self.port(target),
            Command::Pwd => self.pwd()?,
            Command::Cwd(path) => Box::pin(self.cwd(&path)).await?,
            Command::Cdup => Box::pin(self.cwd(b"..")).await?,
            Command::Mkd(path) => Box::pin(self.mkd(&path)).await?,
            Command::Rmd(path) => Box::pin(self.rmd(&path)).await?,
            Command::Dele(path) => Box::pin(self.dele(&path)).await?,
            Command::Rnfr(path) => Box::pin(self.rnfr(&path)).await?,
            Command::Rnto(path) => Box::pin(self.rnto(rename_from, &path)).await?,
            Command::Retr(path) => Box::pin(self.retr(&path)).await?,
            Command::Stor(path) => Box::pin(self.stor(Verb::Stor, &path)).await?,
            Command::Appe(path) => Box::pin(self.stor(Verb::Appe, &path)).await?,
            Command::Stou(path) => Box::pin(self.stor(Verb::Stou, &path)).await?,
            Command::List(path) => Box::pin(self.list(Verb::List, &path)).await?,
            Command::Nlst(path) => Box::pin(self.list(Verb::Nlst, &path)).await?,
            Command::Mlsd(path) => Box::pin(self.list(Verb::Mlsd, &path)).await?,
            Command::Mlst(path) => Box::pin(self.mlst(&path)).await?,
            Command::Stat(None) => self.transfer_status(None).into(),
            Command::Stat(Some(path)) => Box::pin(self.stat_path(&path)).await?,
            Command::Size(path) => Box::pin(self.size(&path)).await?,
            Command::Mdtm { as_path, set } => Box::pin(self.mdtm(&as_path, set)).await?,
            Command::Mfmt(time, path) => Box::pin(self.mfmt(time, &path)).await?,
            Command::Mff(change, path) => Box::pin(self.mff(change, &path)).await?,
            Command::Hash(path) => Box::pin(self.hash(&path)).await?,
            Command::Digest { algorithm, path, range, .. } => Box::pin(self.digest(algorithm, &path, range)).await?,
            Command::Avbl(path) => Box::pin(self.avbl(&path)).await?,
            Command::Site(SiteCommand::Help) => self.site_help(),
            Command::Site(SiteCommand::Chmod(mode, path)) => Box::pin(self.chmod(mode, &path)).await?,
            Command::Site(SiteCommand::Utime(time, path)) => Box::pin(self.utime(time, &path)).await?,
            Command::Site(SiteCommand::Copy(from, to)) => Box::pin(self.copy(&from, &to)).await?,
            Command::Site(SiteCommand::Partial(path)) => Box::pin(self.partial(&path)).await?,
            Command::Site(SiteCommand::Quota) => Box::pin(self.quota()).await?,
        })
    }

    /// The login, if there is one.
    pub(super) fn login(&self) -> Option<&Login> {
        match &self.phase {
            Phase::LoggedIn(login) => Some(login),
            Phase::ExpectUser | Phase::ExpectPassword(_) => None,
        }
    }

    /// The login, where the verb table has made sure of it.
    pub(super) fn files(&self) -> Result<&Login, Refusal> {
        self.login().ok_or(Refusal::NotPermitted)
    }

    /// The path that `argument` means from the current directory.
    pub(super) fn resolve(&self, argument: &[u8]) -> Result<VirtualPath, Refusal> {
        Ok(self.files()?.current.resolve(argument)?)
    }

    pub(super) fn translation(&self) -> Translation {
        match self.transfer_type {
            TransferType::Ascii => Translation::LineEnds,
            TransferType::Image => Translation::None,
        }
    }

    /// Makes the transfer that the data channel was opened for, and forgets what held for one transfer.
    pub(super) fn start(
        &mut self,
        verb: Verb,
        path: VirtualPath,
        text: impl Into<Vec<u8>>,
        work: Work,
    ) -> Outcome {
        self.forget_transfer_options();
        let timeouts = &self.shared.config.timeouts;
        let job = Job {
            verb,
            path,
            channel: std::mem::take(&mut self.channel),
            timeouts: DataTimeouts {
                connect: timeouts.data_connect,
                stall: timeouts.stall,
            },
            work,
        };
        Outcome::Transfer(Reply::new(ReplyCode::OPENING_DATA, text), Box::new(job))
    }

    /// When the port for data, if one is open, has to be watched.
    pub(crate) fn port_unwatched_until(&self) -> Option<Instant> {
        self.channel.unwatched_until()
    }

    /// Has somebody watch it.
    pub(crate) fn watch_port(&mut self) {
        self.channel.watch();
    }

    pub(super) fn forget_transfer_options(&mut self) {
        self.restart = 0;
        self.range = None;
        self.announced = None;
    }

    /// Whether a transfer has somewhere to go, and may go there.
    pub(super) fn needs_channel(&self) -> Option<Outcome> {
        let clear = self.encrypted.as_ref().is_none_or(|tls| !tls.private);
        if clear && self.needs_private_data() {
            let text = match self.encrypted {
                Some(_) => "Data connections must be encrypted; PROT P required.",
                None => "Data connections must be encrypted; AUTH TLS and PROT P required.",
            };
            return Some(Reply::new(ReplyCode::PROTECTION_REFUSED, text).into());
        }
        matches!(self.channel, DataChannel::Unset).then(|| {
            Reply::new(
                ReplyCode::CANNOT_OPEN_DATA,
                "Send PASV, EPSV, PORT or EPRT first.",
            )
            .into()
        })
    }

    /// The state of the session or of its transfer (STAT without a path).
    pub(crate) fn transfer_status(&self, running: Option<&Running>) -> Reply {
        let Some((moved, total)) = running.map(Running::position) else {
            return self.session_status();
        };
        // lftp reads the progress out of exactly these words.
        let text = match total {
            Some(total) => format!("Status: {moved} of {total} bytes transferred"),
            None => format!("Status: {moved} bytes transferred"),
        };
        Reply::new(ReplyCode::FILE_STATUS, text)
    }

    fn session_status(&self) -> Reply {
        let kind = match self.transfer_type {
            TransferType::Ascii => "ASCII",
            TransferType::Image => "binary",
        };
        let mut lines = vec![format!(" Connected from {}", self.ends.peer.ip()).into_bytes()];
        lines.push(match self.login() {
            Some(login) => format!(" Logged in as {}", login.account.name).into_bytes(),
            None => b" Not logged in".to_vec(),
        });
        lines.push(match &self.encrypted {
            None => b" Not encrypted".to_vec(),
            Some(tls) if tls.control_cleared && tls.private => {
                b" Encrypted no more, but the data".to_vec()
            }
            Some(tls) if tls.control_cleared => b" Encrypted no more".to_vec(),
            Some(tls) if tls.private => b" Encrypted, with the data".to_vec(),
            Some(_) => b" Encrypted, without the data".to_vec(),
        });
        lines.push(format!(" TYPE: {kind}, STRUcture: File, MODE: Stream").into_bytes());
        if self.restart > 0 {
            lines.push(format!(" The next transfer starts at byte {}", self.restart).into_bytes());
        }
        lines.push(format!(" Connected for {} s", self.started.elapsed().as_secs()).into_bytes());
        Reply::multiline(
            ReplyCode::SYSTEM_STATUS,
            "Session status:",
            lines,
            "End of status",
        )
    }

    pub(super) fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    /// The reply to a transfer that has ended, and its line in the log.
    pub(crate) fn transfer_finished(&mut self, finished: Finished) -> Reply {
        crate::ftp::commands::finished(finished)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::pin::pin;
    use std::sync::atomic::AtomicUsize;
    use std::task::{Context, Wake, Waker};

    use wharf_net::{ConnectionLimits, ConnectionSlots, Peer};

    use super::*;
    use crate::registry::Registry;

    /// Counts how often a task is woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_session_that_stays_through_a_drain_does_not_wake_itself() {
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 50_000));
        let slots = ConnectionSlots::new(ConnectionLimits {
            total: 1,
            per_address: 1,
            newcomers_per_network: 1,
        });
        let presence = Presence {
            slot: slots.take(&Peer::from(peer)).expect("free"),
            drain: Drain::new(),
            live: Registry::new().enter(Protocol::Ftp, peer),
            drain_begun: AtomicBool::new(false),
        };
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        let mut listening = pin!(presence.listen(Duration::MAX));
        assert!(listening.as_mut().poll(&mut context).is_pending());
        presence.drain.begin();
        assert_eq!(woken.0.swap(0, Ordering::Relaxed), 1);
        for _ in 0..10 {
            assert!(listening.as_mut().poll(&mut context).is_pending());
        }
        assert!(presence.drain_begun.load(Ordering::Relaxed));
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
    }
}
