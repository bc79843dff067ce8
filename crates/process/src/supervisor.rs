//! Starts one command, watches it, and ends it with all that it has started.
//!
//! It is outside of what confines the command, which can neither signal nor trace it. It
//! adopts whatever a command leaves behind (PR_SET_CHILD_SUBREAPER): so the command has
//! ended when this process has no children any more, and nothing gets away by starting
//! a session of its own.

use std::io;
use std::time::Duration;

use cap_std::fs::Dir;
use rustix::fd::{AsFd as _, BorrowedFd, OwnedFd};
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior};

use super::limits::Limits;
use super::wire::{Channel, Instruction, Order, Outcome, Reason, Received, Report, Status};
use super::{Errors, Stage, signals, terminal, tree, wire};

/// How often it is looked at what the command uses.
const LOOK: Duration = Duration::from_millis(500);
/// How long a command may take to end when it is asked to, before it is killed.
const PATIENCE: Duration = Duration::from_secs(1);
/// How soon it is looked again whether what was killed is gone.
const KILLED: Duration = Duration::from_millis(20);

/// Runs what the socket orders, to its end.
pub(super) fn run() -> io::Result<()> {
    let server = super::parent_socket()?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let server = Channel::new(server)?;
        let Some(order) = server.receive().await? else {
            return Ok(());
        };
        match Running::start(order, &server).await {
            Ok(running) => running.supervise(&server).await,
            Err(error) => server.tell(&Report::Refused(error.to_string())).await?,
        }
        Ok(())
    })
}

/// A command that runs.
struct Running {
    ended: tokio::signal::unix::Signal,
    /// The process that became the command, and leads its session.
    leader: Pid,
    status: Option<Status>,
    limits: Limits,
    controller: Option<OwnedFd>,
    temporary: Option<Temporary>,
}

impl Running {
    /// Starts what is ordered, and tells the server.
    async fn start(received: Received, server: &Channel) -> io::Result<Self> {
        let mut order = Order::decode(&received.bytes)?;
        let mut descriptors = received.descriptors.into_iter();
        let home = descriptors.next().map(usable_folder).transpose()?;
        let home = home.ok_or_else(|| io::Error::other("an order without a home"))?;
        let mut streams: Vec<OwnedFd> = descriptors.collect();
        let mut controller = None;
        if let Some(wanted) = &mut order.terminal {
            let pair = terminal::make(wanted)?;
            wanted.path = Some(pair.path);
            controller = Some(pair.controller);
            streams = vec![pair.terminal.try_clone()?, pair.terminal.try_clone()?];
            streams.push(pair.terminal);
        }
        let temporary = order.writable.then(|| Temporary::make(&home)).transpose()?;
        order.temporary = temporary.as_ref().map(|made| made.name.clone());
        order.supervisor = rustix::process::getpid().as_raw_nonzero().get();

        let ended = signal(SignalKind::child())?;
        let (ours, theirs) = wire::pair()?;
        let leader = Stage::Confine.start(theirs, Errors::Dropped)?;
        let running = Self {
            ended,
            leader,
            status: None,
            limits: order.limits,
            controller,
            temporary,
        };
        let descriptors: Vec<BorrowedFd<'_>> = [home.as_fd()]
            .into_iter()
            .chain(streams.iter().map(OwnedFd::as_fd))
            .collect();
        let confined = Channel::new(ours)?;
        confined.send(&order.encode()?, &descriptors).await?;
        drop(streams);
        // The socket closes when it becomes the command.
        if let Some(error) = confined.receive().await? {
            let text = String::from_utf8_lossy(&error.bytes).into_owned();
            return Err(io::Error::other(text));
        }
        let controller = running.controller.as_ref().map(OwnedFd::as_fd);
        let started = serde_json::to_vec(&Report::Started)?;
        server
            .send(&started, &Vec::from_iter(controller))
            .await
            .map(|()| running)
    }

    /// Watches the command to its end, and tells the server what has become of it.
    async fn supervise(mut self, server: &Channel) {
        let reason = self.watch(server).await;
        self.end().await;
        drop(self.temporary);
        let outcome = Outcome {
            status: self.status.unwrap_or(Status::Exited(0)),
            reason,
        };
        // The server may be gone.
        let _ = server.tell(&Report::Ended(outcome)).await;
    }

    /// Until the command has ended, or must be: then why.
    async fn watch(&mut self, server: &Channel) -> Option<Reason> {
        let deadline = Instant::now() + self.limits.wall_clock;
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.reap() && self.status.is_none() {
            tokio::select! {
                message = server.receive() => match instruction(message) {
                    Instruction::Signal(name) => self.signal(&name),
                    Instruction::End(reason) => return Some(reason),
                },
                _ = self.ended.recv() => {}
                () = tokio::time::sleep_until(deadline) => return Some(Reason::WallClock),
                _ = looks.tick() => if let Some(reason) = self.overuse() {
                    return Some(reason);
                },
            }
        }
        None
    }

    /// Which limit all processes of the command have passed together.
    fn overuse(&self) -> Option<Reason> {
        let used = tree::usage(&tree::descendants());
        let limits = &self.limits;
        [
            (used.tasks > limits.processes, Reason::Processes),
            (used.resident_bytes > limits.memory_bytes, Reason::Memory),
            (
                used.processor_time > limits.processor_time,
                Reason::ProcessorTime,
            ),
        ]
        .into_iter()
        .find_map(|(passed, reason)| passed.then_some(reason))
    }

    /// Sends a signal to what is in the foreground of the terminal, or to the command's group.
    fn signal(&self, name: &str) {
        let Some(signal) = signals::by_name(name) else {
            return;
        };
        let foreground = self.controller.as_ref();
        let foreground = foreground.and_then(|tty| rustix::termios::tcgetpgrp(tty).ok());
        // It may have ended.
        let _ = rustix::process::kill_process_group(foreground.unwrap_or(self.leader), signal);
    }

    /// Takes note of those that have ended. Whether there are others.
    fn reap(&mut self) -> bool {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.leader => {
                    self.status = Some(status_of(status));
                }
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }

    /// Ends everything that is left: asks, waits a little, kills.
    async fn end(&mut self) {
        if !self.reap() {
            return;
        }
        let left = tree::descendants();
        // One that is stopped hears nothing else before it goes on.
        for asking in [Signal::HUP, Signal::TERM, Signal::CONT] {
            tree::signal(&left, asking);
        }
        let asked = Instant::now();
        while self.reap() {
            let wait = if asked.elapsed() < PATIENCE {
                PATIENCE.saturating_sub(asked.elapsed())
            } else {
                tree::kill(&tree::descendants());
                KILLED
            };
            let _ = tokio::time::timeout(wait, self.ended.recv()).await;
        }
    }
}

/// What the server wants; once it is gone, the end.
fn instruction(message: io::Result<Option<Received>>) -> Instruction {
    let parsed = message
        .ok()
        .flatten()
        .and_then(|message| message.parse().ok());
    parsed.unwrap_or(Instruction::End(Reason::Gone))
}

fn status_of(status: WaitStatus) -> Status {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Status::Exited(code),
        (None, Some(signal)) => Status::Signalled(signal),
        (None, None) => Status::Exited(0),
    }
}

/// A home as the server has opened it. One that is a mere place (`O_PATH`) is refused: a
/// server could name any, also where its fence lets it into none.
fn usable_folder(home: OwnedFd) -> io::Result<OwnedFd> {
    let is_place = rustix::fs::fcntl_getfl(&home)?.contains(OFlags::PATH);
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&home)?.st_mode);
    if is_place || kind != FileType::Directory {
        return Err(io::Error::other("an order with something else than a home"));
    }
    Ok(home)
}

/// A folder in the home for as long as the command runs.
struct Temporary {
    home: Dir,
    name: String,
}

impl Temporary {
    fn make(home: &OwnedFd) -> io::Result<Self> {
        use cap_std::fs::DirBuilderExt as _;
        let home = Dir::from_std_file(home.try_clone()?.into());
        let random = getrandom::u64().map_err(io::Error::other)?;
        let name = format!(".wharf-tmp-{random:016x}");
        let mut builder = cap_std::fs::DirBuilder::new();
        builder.mode(0o700);
        home.create_dir_with(&name, &builder)?;
        Ok(Self { home, name })
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(error) = self.home.remove_dir_all(&self.name) {
            eprintln!("wharf: temporary files of a command stay: {error}");
        }
    }
}
