//! What a peer asks for: a login, channels, and what runs on them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Response};
use russh::server::{Session as Peer, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelWriteHalf, Pty, Sig};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};
use wharf_model::AccountName;
use wharf_net::{ConnectionSlot, Drain};

use super::SshShared;
use super::channel::{Output, SessionChannel, Sink, Terminal};
use super::input::{Backlog, Feed, Stdin, pipe};
use super::login::{Attempts, Login, reject};
use super::program::{Program, Programs, Report, User};
use super::refusal::{ChannelRefusal, Farewell};
use crate::activity::Activity;
use crate::process::TerminalSize;
use crate::registry::LiveSession;

/// Most channels open at once; OpenSSH's MaxSessions.
const MAX_CHANNELS: usize = 10;

/// Most channels in the life of a connection: russh keeps a little of each, 4 KiB, that it closed first.
const MAX_CHANNELS_EVER: usize = 10_000;

/// Most variables that a channel is given, and the most bytes of a value.
const MAX_VARIABLES: usize = 32;
const MAX_VALUE_BYTES: usize = 256;

/// Signals that wait for what runs; more are dropped, as a busy process has them merged.
const MAX_SIGNALS: usize = 8;

/// What an accepted connection leaves with its session.
pub(super) struct Presence {
    pub(super) slot: ConnectionSlot,
    pub(super) drain: Drain,
}

/// What a session's handler, its programs and whoever watches it share.
pub(super) struct Link {
    /// Cancelled when the connection is over.
    pub(super) closed: CancellationToken,
    pub(super) activity: Activity,
    pub(super) live: LiveSession,
    farewells: mpsc::Sender<Farewell>,
    login: watch::Sender<bool>,
}

impl Link {
    pub(super) fn new(
        closed: CancellationToken,
        live: LiveSession,
        farewells: mpsc::Sender<Farewell>,
    ) -> Self {
        Self {
            closed,
            activity: Activity::default(),
            live,
            farewells,
            login: watch::Sender::new(false),
        }
    }

    /// Has the connection ended, soon; the first reason is what the peer is told.
    pub(super) fn end(&self, farewell: Farewell) {
        let _ = self.farewells.try_send(farewell);
    }

    pub(super) fn log_in(&self, account: &AccountName) {
        self.activity.note();
        self.live.set_account(Some(account));
        self.live.set_encrypted(true);
        self.login.send_replace(true);
    }

    pub(super) fn has_login(&self) -> bool {
        *self.login.borrow()
    }

    /// Completes once somebody has logged in.
    pub(super) async fn logged_in(&self) {
        // The sender is ours: it is not gone.
        let _ = self.login.subscribe().wait_for(|login| *login).await;
    }
}

/// One connection's handler.
pub(super) struct Session {
    pub(super) shared: Arc<SshShared>,
    pub(super) link: Arc<Link>,
    pub(super) presence: Presence,
    pub(super) attempts: Attempts,
    pub(super) login: Option<Arc<Login>>,
    /// Why nobody is logged in who has proved who they are.
    pub(super) turned_away: Option<Farewell>,
    channels: Channels,
    channels_ever: usize,
    backlog: Backlog,
    programs: Programs,
    // russh's task has no span of its own.
    span: Span,
}

/// The channels that are open. A program that ends removes its own.
#[derive(Clone, Default)]
pub(super) struct Channels(Arc<Mutex<HashMap<ChannelId, OpenChannel>>>);

impl Channels {
    fn lock(&self) -> MutexGuard<'_, HashMap<ChannelId, OpenChannel>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets a channel and tells what runs on it.
    pub(super) fn remove(&self, id: ChannelId) {
        if let Some(channel) = self.lock().remove(&id) {
            channel.closed.cancel();
        }
    }

    /// The same for all of them.
    fn clear(&self) {
        for (_, channel) in self.lock().drain() {
            channel.closed.cancel();
        }
    }
}

/// What is known of a channel while it is open.
struct OpenChannel {
    feed: Feed,
    size: watch::Sender<TerminalSize>,
    signals: mpsc::Sender<String>,
    closed: CancellationToken,
    /// Until something runs on it.
    setup: Option<Setup>,
}

/// What a channel gets before something runs on it.
struct Setup {
    write: ChannelWriteHalf<Msg>,
    stdin: Stdin,
    signals: mpsc::Receiver<String>,
    environment: Vec<(String, String)>,
    terminal: Option<Terminal>,
}

impl Session {
    pub(super) fn new(
        shared: Arc<SshShared>,
        link: Arc<Link>,
        presence: Presence,
        backlog: Backlog,
    ) -> Self {
        Self {
            shared,
            link,
            presence,
            attempts: Attempts::default(),
            login: None,
            turned_away: None,
            channels: Channels::default(),
            channels_ever: 0,
            backlog,
            programs: Programs::default(),
            span: Span::current(),
        }
    }

    /// What runs on its channels, also when the session is gone.
    pub(super) fn programs(&self) -> Programs {
        self.programs.clone()
    }

    fn refuse_channel(&self) -> Option<ChannelRefusal> {
        if let Some(farewell) = self.turned_away {
            return Some(ChannelRefusal::TurnedAway(farewell));
        }
        if self.presence.drain.has_begun() {
            return Some(ChannelRefusal::Stopping);
        }
        if self.channels_ever >= MAX_CHANNELS_EVER {
            return Some(ChannelRefusal::WornOut);
        }
        // Programs whose channel was closed count until they have ended.
        let idle = self
            .channels
            .lock()
            .values()
            .filter(|open| open.setup.is_some())
            .count();
        (idle + self.programs.running() >= MAX_CHANNELS).then_some(ChannelRefusal::TooMany)
    }

    fn open(&mut self, channel: Channel<Msg>) {
        let (feed, stdin) = pipe(&self.backlog);
        let (signals, signals_out) = mpsc::channel(MAX_SIGNALS);
        let id = channel.id();
        // What comes in is taken by `data`, which counts it.
        let (_, write) = channel.split();
        let setup = Setup {
            write,
            stdin,
            signals: signals_out,
            environment: Vec::new(),
            terminal: None,
        };
        let open = OpenChannel {
            feed,
            size: watch::Sender::default(),
            signals,
            closed: self.link.closed.child_token(),
            setup: Some(setup),
        };
        self.channels_ever += 1;
        self.channels.lock().insert(id, open);
    }

    /// Starts a program on a channel; whether it could be.
    fn start(&self, id: ChannelId, program: Program, peer: &Peer) -> bool {
        let Some(login) = &self.login else {
            return false;
        };
        let (setup, closed) = {
            let mut channels = self.channels.lock();
            let Some(channel) = channels.get_mut(&id) else {
                return false;
            };
            // One channel, one program (RFC 4254 §6.5).
            let Some(setup) = channel.setup.take() else {
                return false;
            };
            (setup, channel.closed.clone())
        };
        let write = Arc::new(setup.write);
        let output = |extended| {
            Output::new(Sink {
                write: Arc::clone(&write),
                extended,
                closed: closed.clone(),
                patience: self.shared.timeouts.idle,
                activity: self.link.activity.clone(),
                moved: Arc::clone(setup.stdin.moved()),
            })
        };
        let channel = SessionChannel {
            stdout: output(None),
            stderr: output(Some(STDERR)),
            activity: self.link.activity.clone(),
            transfers: self.link.live.transfers(),
            stdin: setup.stdin,
            environment: setup.environment,
            terminal: setup.terminal,
            signals: setup.signals,
            closed,
        };
        let running = self.link.activity.start(program.ends_by_itself());
        let report = Report {
            write,
            handle: peer.handle(),
            channels: self.channels.clone(),
        };
        let user = User {
            login: Arc::clone(login),
            processes: Arc::clone(&self.shared.processes),
        };
        self.programs.start(program, user, channel, report, running);
        true
    }

    /// Changes what a channel gets, and the size of its terminal, if nothing runs on it yet;
    /// whether it was done.
    fn set_up(
        &self,
        id: ChannelId,
        change: impl FnOnce(&mut Setup, &watch::Sender<TerminalSize>) -> bool,
    ) -> bool {
        let mut channels = self.channels.lock();
        channels.get_mut(&id).is_some_and(|channel| {
            let setup = channel.setup.as_mut();
            setup.is_some_and(|setup| change(setup, &channel.size))
        })
    }
}

/// The one code of extended data that there is (RFC 4254 §5.2).
const STDERR: u32 = 1;

fn answer(id: ChannelId, done: bool, peer: &mut Peer) -> Result<(), russh::Error> {
    if done {
        peer.channel_success(id)
    } else {
        peer.channel_failure(id)
    }
}

impl Drop for Session {
    /// Nothing more will come: what still reads must not wait for it.
    fn drop(&mut self) {
        self.channels.clear();
    }
}

impl Handler for Session {
    type Error = russh::Error;

    async fn auth_none(&mut self, _name: &str) -> Result<Auth, Self::Error> {
        let span = self.span.clone();
        span.in_scope(|| self.is_worn_out());
        Ok(reject())
    }

    async fn auth_password(&mut self, name: &str, password: &str) -> Result<Auth, Self::Error> {
        let span = self.span.clone();
        let tried = self.try_password(name, password.as_bytes());
        Ok(tried.instrument(span).await)
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        name: &str,
        _submethods: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, Self::Error> {
        let span = self.span.clone();
        Ok(self.try_interactive(name, response).instrument(span).await)
    }

    async fn auth_publickey_offered(
        &mut self,
        name: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        if is_sha1(offer.algorithm) {
            return Ok(reject());
        }
        let span = self.span.clone();
        Ok(self
            .try_offer(name, offer.public_key)
            .instrument(span)
            .await)
    }

    async fn auth_publickey(
        &mut self,
        name: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        if is_sha1(key.algorithm) {
            return Ok(reject());
        }
        let span = self.span.clone();
        Ok(self.try_key(name, key.public_key).instrument(span).await)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _peer: &mut Peer,
    ) -> Result<(), Self::Error> {
        match self.refuse_channel() {
            Some(refusal) => reply.reject(refusal.reason()).await,
            None => {
                self.open(channel);
                reply.accept().await;
            }
        }
        Ok(())
    }

    async fn channel_open_x11(
        &mut self,
        _channel: Channel<Msg>,
        _originator: &str,
        _port: u32,
        reply: ChannelOpenHandle,
        _peer: &mut Peer,
    ) -> Result<(), Self::Error> {
        reply.reject(ChannelRefusal::Forwarding.reason()).await;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        _channel: Channel<Msg>,
        host: &str,
        port: u32,
        _originator: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _peer: &mut Peer,
    ) -> Result<(), Self::Error> {
        let host = wharf_model::cut_for_display(host.as_bytes());
        self.span
            .in_scope(|| tracing::info!(host, port, "forwarding refused"));
        reply.reject(ChannelRefusal::Forwarding.reason()).await;
        Ok(())
    }

    async fn channel_open_forwarded_tcpip(
        &mut self,
        _channel: Channel<Msg>,
        _host: &str,
        _port: u32,
        _originator: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _peer: &mut Peer,
    ) -> Result<(), Self::Error> {
        reply.reject(ChannelRefusal::Forwarding.reason()).await;
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        _channel: Channel<Msg>,
        _path: &str,
        reply: ChannelOpenHandle,
        _peer: &mut Peer,
    ) -> Result<(), Self::Error> {
        reply.reject(ChannelRefusal::Forwarding.reason()).await;
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _peer: &mut Peer) -> Result<(), Self::Error> {
        self.channels.remove(id);
        Ok(())
    }

    async fn channel_eof(&mut self, id: ChannelId, _peer: &mut Peer) -> Result<(), Self::Error> {
        if let Some(channel) = self.channels.lock().get(&id) {
            channel.feed.end();
        }
        Ok(())
    }

    async fn data(
        &mut self,
        id: ChannelId,
        data: &[u8],
        _peer: &mut Peer,
    ) -> Result<(), Self::Error> {
        self.link.activity.note();
        self.link.live.note_activity(Instant::now());
        // Never waits: what comes in must not hold up what goes out.
        if self.backlog.is_flooded() {
            self.link.end(Farewell::PastWindows);
        } else if let Some(channel) = self.channels.lock().get(&id) {
            channel.feed.push(data);
        }
        Ok(())
    }

    fn adjust_window(&mut self, _id: ChannelId, _current: u32) -> u32 {
        let channels = self.channels.lock().len();
        self.backlog.window(channels)
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        kind: &str,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        modes: &[(Pty, u32)],
        peer: &mut Peer,
    ) -> Result<(), Self::Error> {
        let restricted = self.login.as_ref().is_none_or(|login| login.key.restricted);
        let size = TerminalSize {
            columns,
            rows,
            width,
            height,
        };
        let modes = || modes.iter().map(|(mode, value)| (*mode as u8, *value));
        let done = !restricted
            && is_value(kind)
            && self.set_up(id, |setup, sizes| {
                sizes.send_replace(size);
                setup.terminal = Some(Terminal {
                    kind: kind.to_owned(),
                    size: sizes.subscribe(),
                    modes: modes().collect(),
                });
                true
            });
        answer(id, done, peer)
    }

    async fn window_change_request(
        &mut self,
        id: ChannelId,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        _peer: &mut Peer,
    ) -> Result<(), Self::Error> {
        let size = TerminalSize {
            columns,
            rows,
            width,
            height,
        };
        if let Some(channel) = self.channels.lock().get(&id) {
            channel.size.send_replace(size);
        }
        Ok(())
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        name: &str,
        value: &str,
        peer: &mut Peer,
    ) -> Result<(), Self::Error> {
        let done = is_variable(name)
            && is_value(value)
            && self.set_up(id, |setup, _| {
                setup.environment.retain(|(known, _)| known != name);
                if setup.environment.len() >= MAX_VARIABLES {
                    return false;
                }
                setup.environment.push((name.to_owned(), value.to_owned()));
                true
            });
        answer(id, done, peer)
    }

    async fn x11_request(
        &mut self,
        id: ChannelId,
        _single: bool,
        _protocol: &str,
        _cookie: &str,
        _screen: u32,
        peer: &mut Peer,
    ) -> Result<(), Self::Error> {
        peer.channel_failure(id)
    }

    async fn signal(
        &mut self,
        id: ChannelId,
        signal: Sig,
        _peer: &mut Peer,
    ) -> Result<(), Self::Error> {
        if let Some(channel) = self.channels.lock().get(&id) {
            let _ = channel.signals.try_send(name_of(signal));
        }
        Ok(())
    }

    async fn shell_request(&mut self, id: ChannelId, peer: &mut Peer) -> Result<(), Self::Error> {
        let span = self.span.clone();
        let started = span.in_scope(|| self.start(id, Program::Shell, peer));
        answer(id, started, peer)
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        command: &[u8],
        peer: &mut Peer,
    ) -> Result<(), Self::Error> {
        let span = self.span.clone();
        let program = Program::Command(command.to_vec());
        let started = span.in_scope(|| self.start(id, program, peer));
        answer(id, started, peer)
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        name: &str,
        peer: &mut Peer,
    ) -> Result<(), Self::Error> {
        let span = self.span.clone();
        let program = Program::Sftp(self.shared.attributes);
        let started = name == "sftp" && span.in_scope(|| self.start(id, program, peer));
        answer(id, started, peer)
    }
}

/// Whether a signature with this algorithm would be one over SHA-1.
fn is_sha1(algorithm: &russh::keys::Algorithm) -> bool {
    matches!(
        algorithm,
        russh::keys::Algorithm::Rsa { hash: None } | russh::keys::Algorithm::Dsa
    )
}

/// What says how a person reads; nothing that changes what a program does.
fn is_variable(name: &str) -> bool {
    let locale = name.strip_prefix("LC_").is_some_and(|rest| {
        !rest.is_empty()
            && rest
                .bytes()
                .all(|byte| byte.is_ascii_uppercase() || byte == b'_')
    });
    locale || name == "LANG" || name == "TERM"
}

fn is_value(value: &str) -> bool {
    value.len() <= MAX_VALUE_BYTES && value.bytes().all(|byte| byte.is_ascii_graphic())
}

fn name_of(signal: Sig) -> String {
    match signal {
        Sig::ABRT => "ABRT",
        Sig::ALRM => "ALRM",
        Sig::FPE => "FPE",
        Sig::HUP => "HUP",
        Sig::ILL => "ILL",
        Sig::INT => "INT",
        Sig::KILL => "KILL",
        Sig::PIPE => "PIPE",
        Sig::QUIT => "QUIT",
        Sig::SEGV => "SEGV",
        Sig::TERM => "TERM",
        Sig::USR1 => "USR1",
        Sig::Custom(name) => return name,
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_how_a_person_reads_may_be_set() {
        for name in ["LANG", "TERM", "LC_ALL", "LC_TIME"] {
            assert!(is_variable(name), "{name}");
        }
        for name in [
            "PATH",
            "LD_PRELOAD",
            "LC_",
            "LC_all",
            "LC_A=B",
            "LANGUAGE",
            "lang",
            "",
        ] {
            assert!(!is_variable(name), "{name}");
        }
        assert!(is_value("de_DE.UTF-8"));
        assert!(is_value(&"x".repeat(MAX_VALUE_BYTES)));
        assert!(!is_value(&"x".repeat(MAX_VALUE_BYTES + 1)));
        assert!(!is_value("a\nb"));
    }
}
