//! SSH: the service, one session a connection (RFC 4251 to 4254).
//!
//! ```text
//! session.rs    the handler of what a peer asks for: logins and channels     login.rs     passwords and keys
//! program.rs    what runs on a channel, by the account's policy              channel.rs   what it works with
//! input.rs      what waits to be read, and windows                           wire.rs      the stream below
//! transport.rs  algorithms and bounds                                        host_key.rs  who the server is
//! refusal.rs    the only place with codes and texts for refusals             terminal.rs  lines that a person types
//! ```
//!
//! russh speaks the protocol and is named in this folder only. It runs each
//! connection as a task of its own; `Session` is its
//! handler. Invariant: nothing of a connection outlives [`SshService::serve`]:
//! the wire is cut and programs are dropped with its future.

mod channel;
mod host_key;
mod input;
mod login;
mod program;
mod refusal;
mod session;
mod terminal;
mod transport;
mod wire;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use russh::server::RunningSession;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::Instrument as _;
use wharf_net::{Connection, Drain, Peer, Refused, ServiceError, Stream, StreamService};

pub use channel::{Exit, Output, SessionChannel, Stdin, Terminal};
pub use host_key::{HostKey, HostKeyError, HostKeyKind};

use crate::activity::Activity;
use crate::door::{Door, Protocol};
use crate::process::ProcessRunner;
use crate::registry::LiveSession;
use crate::sftp::AttributePolicy;
use input::Backlog;
use refusal::{Farewell, line_to_refused_connection};
use session::{Link, Presence, Session};
use wire::Wire;

/// Bytes that are read from a connection together, if they are there: two packets of data.
const READ_BUFFER_BYTES: usize = 2 * transport::PACKET_BYTES as usize;

/// How long a peer may take to read that the connection ends.
const FAREWELL_PATIENCE: Duration = Duration::from_secs(2);

/// What an SSH service needs to know.
#[derive(Debug, Clone)]
pub struct SshConfig {
    /// The keys that the server shows itself by.
    pub host_keys: Vec<HostKey>,
    /// How long a peer may keep us waiting.
    pub timeouts: Timeouts,
    /// What SFTP does about changes of attributes that an account may not make.
    pub attributes: AttributePolicy,
}

/// How long a peer may keep us waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// From the connection to the login.
    pub login: Duration,
    /// Without data on any channel while no command runs and no request over SFTP; and for output that the peer does not take.
    pub idle: Duration,
    /// For the next byte of what is sent to it.
    pub stall: Duration,
}

/// What all sessions that started under one configuration share.
struct SshShared {
    transport: Arc<russh::server::Config>,
    timeouts: Timeouts,
    attributes: AttributePolicy,
    door: Arc<Door>,
    processes: Arc<dyn ProcessRunner>,
}

/// Serves SSH.
pub struct SshService {
    // Replaced as a whole by a reload; read once a connection, never held across an await.
    shared: RwLock<Arc<SshShared>>,
    processes: Arc<dyn ProcessRunner>,
}

impl SshService {
    /// A service that lets people in through `door`, and has `processes` run
    /// the commands of those who may have some.
    pub fn new(config: &SshConfig, door: Arc<Door>, processes: Arc<dyn ProcessRunner>) -> Self {
        let transport = transport::config(&config.host_keys, &config.timeouts);
        Self::with(SshShared::new(config, transport, door, processes))
    }

    /// A service that speaks without encryption, so that a test or a fuzzer
    /// can write any packet at all. Whoever can listen reads everything.
    pub fn insecure_for_tests(
        config: &SshConfig,
        door: Arc<Door>,
        processes: Arc<dyn ProcessRunner>,
    ) -> Self {
        let transport = transport::unencrypted(&config.host_keys, &config.timeouts);
        Self::with(SshShared::new(config, transport, door, processes))
    }

    /// A service that exchanges keys anew after `bytes` in one direction and after `time`, and
    /// so, in a test, at all.
    pub fn rekeying_for_tests(
        config: &SshConfig,
        door: Arc<Door>,
        processes: Arc<dyn ProcessRunner>,
        (bytes, time): (usize, Duration),
    ) -> Self {
        let transport = russh::server::Config {
            limits: russh::Limits::new(bytes, bytes, time),
            ..transport::config(&config.host_keys, &config.timeouts)
        };
        Self::with(SshShared::new(config, transport, door, processes))
    }

    fn with(shared: SshShared) -> Self {
        Self {
            processes: Arc::clone(&shared.processes),
            shared: RwLock::new(Arc::new(shared)),
        }
    }

    /// Uses another configuration and door for the sessions that start from now on.
    pub fn reload(&self, config: &SshConfig, door: Arc<Door>) {
        let transport = transport::config(&config.host_keys, &config.timeouts);
        let processes = Arc::clone(&self.processes);
        let shared = Arc::new(SshShared::new(config, transport, door, processes));
        *self.shared.write().unwrap_or_else(PoisonError::into_inner) = shared;
    }

    fn shared(&self) -> Arc<SshShared> {
        Arc::clone(&self.shared.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl SshShared {
    fn new(
        config: &SshConfig,
        transport: russh::server::Config,
        door: Arc<Door>,
        processes: Arc<dyn ProcessRunner>,
    ) -> Self {
        Self {
            transport: Arc::new(transport),
            timeouts: config.timeouts,
            attributes: config.attributes,
            door,
            processes,
        }
    }
}

impl StreamService for SshService {
    async fn serve(self: Arc<Self>, connection: Connection) -> Result<(), ServiceError> {
        let Connection {
            stream,
            peer,
            drain,
            slot,
            ..
        } = connection;
        // Guesses are counted by address, and Unix sockets have none.
        let Peer::Ip(peer) = peer else {
            return Err("SSH needs TCP, and this is a Unix socket".into());
        };
        let shared = self.shared();
        let live = shared.door.registry().enter(Protocol::Ssh, peer);
        let id = live.id();
        let span = tracing::info_span!("session", %id, %peer, protocol = "ssh", user = tracing::field::Empty);
        let presence = Presence { slot, drain };
        async {
            tracing::debug!("connected");
            serve_peer(shared, stream, live, presence).await;
            tracing::debug!("closed");
        }
        .instrument(span)
        .await;
        Ok(())
    }

    async fn refuse(&self, mut stream: Stream, reason: Refused) {
        let _ = stream.write_all(line_to_refused_connection(reason)).await;
    }
}

async fn serve_peer(shared: Arc<SshShared>, stream: Stream, live: LiveSession, presence: Presence) {
    let backlog = Backlog::default();
    let (wire, cutter) = Wire::new(stream, shared.timeouts.stall, backlog.gate());
    let drain = presence.drain.clone();
    let (farewells, mut farewell) = mpsc::channel(1);
    let link = Arc::new(Link::new(cutter.token(), live, farewells));
    let handler = Session::new(Arc::clone(&shared), Arc::clone(&link), presence, backlog);
    let programs = handler.programs();
    let watch = Watch {
        deadline: Instant::now() + shared.timeouts.login,
        idle: shared.timeouts.idle,
        link,
        drain,
    };
    // russh reads the length of each packet by itself: buffered, that is no system call.
    let wire = tokio::io::BufReader::with_capacity(READ_BUFFER_BYTES, wire);
    let opening = russh::server::run_stream(Arc::clone(&shared.transport), wire, handler);
    let opened = tokio::select! {
        opened = opening => opened,
        _ = watch.over() => return,
    };
    match opened {
        Err(error) => tracing::debug!(%error, "no SSH"),
        Ok(mut running) => {
            let said = tokio::select! {
                ended = &mut running => return log_end(ended),
                Some(said) = farewell.recv() => said,
                said = watch.over() => said,
            };
            tracing::info!(reason = ?said, "ending the session");
            say_farewell(&mut running, said).await;
        }
    }
    drop(cutter);
    programs.finish().await;
}

/// Tells the peer that the connection ends, and gives it a moment to hear it.
async fn say_farewell(running: &mut RunningSession<Session>, said: Farewell) {
    let handle = running.handle();
    let (code, text) = said.message();
    let told = async {
        let _ = handle
            .disconnect(code, text.to_owned(), String::new())
            .await;
        let _ = running.await;
    };
    let _ = tokio::time::timeout(FAREWELL_PATIENCE, told).await;
}

fn log_end(ended: Result<(), russh::Error>) {
    match ended {
        Ok(()) => {}
        Err(russh::Error::Join(error)) => tracing::error!(%error, "the session broke"),
        Err(error) => tracing::debug!(%error, "the connection broke"),
    }
}

/// What ends a connection whatever its peer does.
struct Watch {
    deadline: Instant,
    idle: Duration,
    link: Arc<Link>,
    drain: Drain,
}

impl Watch {
    async fn over(&self) -> Farewell {
        let activity: &Activity = &self.link.activity;
        let login = async {
            tokio::time::sleep_until(self.deadline).await;
            if self.link.has_login() {
                std::future::pending::<()>().await;
            }
        };
        let idle = async {
            self.link.logged_in().await;
            activity.idle(self.idle).await;
        };
        let stopping = async {
            self.drain.begun().await;
            activity.settled().await;
        };
        tokio::select! {
            () = login => Farewell::LoginTimeout,
            () = idle => Farewell::Idle,
            () = stopping => Farewell::Stopping,
            () = self.link.live.kicked() => Farewell::Kicked,
        }
    }
}
