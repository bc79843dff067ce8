//! What runs on a channel, by the account's policy, and how its end is told.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use russh::server::{Handle, Msg};
use russh::{ChannelWriteHalf, Sig};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;
use wharf_accounts::ExecPolicy;
use wharf_model::VirtualPath;
use wharf_proto::exec::{MAX_LINE_BYTES, Script};

use super::channel::{Exit, SessionChannel};
use super::input::{Backlog, Unread, pipe};
use super::login::Login;
use super::session::Channels;
use super::terminal::{self, CtrlC, NoMoreLines, Screen};
use crate::activity::Running;
use crate::exec::{self, ExitStatus, Streams};
use crate::process::{self, Client, Invocation, ProcessRunner, TerminalRequest};
use crate::registry::{Direction, LiveTransfer, Subject};
use crate::sftp::{AttributePolicy, SftpOptions};

/// How long a program whose peer is gone may take to leave things tidy.
const TIDYING: Duration = Duration::from_secs(5);

/// The status of a command that could not be run, as a shell has it.
const CANNOT_RUN: u32 = 126;

/// What a peer asks to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Program {
    /// The login shell.
    Shell,
    /// A command line.
    Command(Vec<u8>),
    /// File transfer by SFTP.
    Sftp(AttributePolicy),
}

impl Program {
    /// Whether it does its work and ends, and does not wait for a person or a client.
    pub(super) fn ends_by_itself(&self) -> bool {
        matches!(self, Self::Command(_))
    }

    /// Shows what goes into a command and comes out of it, while the return value lives. SFTP
    /// shows its files, and a shell waits for a person.
    fn list(&self, channel: &SessionChannel) -> Option<LiveTransfer> {
        let Self::Command(line) = self else {
            return None;
        };
        let (subject, moved) = (Subject::command(line), Arc::clone(channel.stdin.moved()));
        let listed = channel
            .transfers
            .begin(Direction::Command, subject, None, moved);
        Some(listed)
    }

    /// Whether it is `scp` and nothing else, which moves files as `sftp` does:
    /// no policy on commands is about that.
    fn is_file_transfer(&self) -> bool {
        let Self::Command(line) = self else {
            return false;
        };
        let Ok(script) = Script::parse(line) else {
            return false;
        };
        let [step] = script.steps.as_slice() else {
            return false;
        };
        let command = &step.command;
        let name = command
            .words
            .first()
            .and_then(|word| word.expand(&|_| Vec::new(), MAX_LINE_BYTES).ok().flatten());
        command.assignments.is_empty()
            && command.redirections.is_empty()
            && name.is_some_and(|name| name.into_bytes() == b"scp")
    }
}

/// All that runs on the channels of one connection. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Programs {
    tasks: TaskTracker,
    abandoned: CancellationToken,
}

/// Whose program it is, and what runs processes for them.
pub(super) struct User {
    pub(super) login: Arc<Login>,
    pub(super) processes: Arc<dyn ProcessRunner>,
}

/// Where the end of a program is told.
pub(super) struct Report {
    pub(super) write: Arc<ChannelWriteHalf<Msg>>,
    pub(super) handle: Handle,
    pub(super) channels: Channels,
}

impl Programs {
    /// Runs `program` on `channel` as a task, and reports how it ended.
    pub(super) fn start(
        &self,
        program: Program,
        user: User,
        channel: SessionChannel,
        report: Report,
        running: Running,
    ) {
        let abandoned = self.abandoned.clone();
        let closed = channel.closed.clone();
        let task = async move {
            let id = report.write.id();
            let channels = report.channels.clone();
            let ended = tokio::select! {
                exit = run(program, &user, channel) => Some(exit),
                () = overdue(&closed) => None,
                () = abandoned.cancelled() => None,
            };
            tracing::debug!(exit = ?ended, "ended");
            if let Some(exit) = ended {
                tokio::select! {
                    () = report.tell(exit) => {}
                    () = closed.cancelled() => {}
                }
            }
            channels.remove(id);
            drop(running);
        };
        self.tasks.spawn(task.in_current_span());
    }

    /// How many run.
    pub(super) fn running(&self) -> usize {
        self.tasks.len()
    }

    /// Waits for the programs of a connection that is over, and drops those that take too long.
    pub(super) async fn finish(self) {
        self.tasks.close();
        // The same if the wait itself is dropped.
        let abandoning = self.abandoned.drop_guard();
        let _ = tokio::time::timeout(TIDYING, self.tasks.wait()).await;
        drop(abandoning);
        self.tasks.wait().await;
    }
}

async fn overdue(closed: &CancellationToken) {
    closed.cancelled().await;
    tokio::time::sleep(TIDYING).await;
}

async fn run(program: Program, user: &User, channel: SessionChannel) -> Exit {
    let login = &*user.login;
    let exec = login.account.exec;
    match &program {
        Program::Shell => tracing::info!(%exec, "shell"),
        Program::Command(line) => {
            let command = wharf_model::cut_for_display(line);
            tracing::info!(command, %exec, "command");
        }
        Program::Sftp(_) => tracing::info!("sftp"),
    }
    let _listed = program.list(&channel);
    let moves_files = program.is_file_transfer();
    let line = match program {
        Program::Sftp(attributes) => return sftp(attributes, login, channel).await,
        Program::Command(line) => Some(line),
        Program::Shell => None,
    };
    match exec {
        ExecPolicy::Builtin => builtin(line, login, channel).await,
        ExecPolicy::None | ExecPolicy::Shell if moves_files => builtin(line, login, channel).await,
        ExecPolicy::None => refuse(channel, NO_COMMANDS).await,
        ExecPolicy::Shell => process(line, user, channel).await,
    }
}

const NO_COMMANDS: &str = "This account runs no commands; sftp and scp work.";

async fn refuse(mut channel: SessionChannel, text: &str) -> Exit {
    let end = if channel.terminal.is_some() {
        "\r\n"
    } else {
        "\n"
    };
    let line = format!("{text}{end}");
    let _ = channel.stderr.write_all(line.as_bytes()).await;
    Exit::Status(CANNOT_RUN)
}

/// Files, by SFTP. What is open when the peer goes away is cut.
async fn sftp(attributes: AttributePolicy, login: &Login, channel: SessionChannel) -> Exit {
    let SessionChannel {
        stdin,
        stdout,
        activity,
        transfers,
        closed,
        ..
    } = channel;
    let options = SftpOptions {
        account: Bytes::copy_from_slice(login.account.name.as_str().as_bytes()),
        attributes,
        activity,
        transfers,
        stop: closed,
    };
    let stream = tokio::io::join(stdin, stdout);
    match crate::sftp::serve(stream, login.vfs.clone(), options).await {
        Ok(()) => Exit::Status(0),
        Err(error) => {
            let reason = error.source().map(ToString::to_string);
            tracing::debug!(%error, reason, "SFTP broke off");
            Exit::Status(1)
        }
    }
}

/// What needs no process, on the virtual file system: a line, or as many as come.
async fn builtin(line: Option<Vec<u8>>, login: &Login, channel: SessionChannel) -> Exit {
    let SessionChannel {
        stdin,
        stdout,
        stderr,
        terminal,
        signals,
        closed,
        ..
    } = channel;
    let interrupts = Arc::new(Notify::new());
    let shell = line.is_none().then_some(&*interrupts);
    if terminal.is_none() {
        let unread = stdin.unread();
        let streams = Streams::new(stdin, stdout, stderr);
        let peer = gone(closed, streams.asks(), unread);
        return tokio::select! {
            exit = work(line, login, streams) => exit,
            signal = deadly(signals, shell) => killed_by(signal),
            () = peer => Exit::Status(ExitStatus::BROKEN_PIPE.code().into()),
        };
    }
    let (typed, lines) = pipe(&Backlog::default());
    let unread = lines.unread();
    let echo = stdout.another();
    // Screens go on where a write was dropped, as interrupts need it.
    let streams = Streams::new(lines, Screen::new(stdout), Screen::new(stderr))
        .with_terminal()
        .with_interrupts(Arc::clone(&interrupts));
    let peer = gone(closed, streams.asks(), unread);
    let typing = async {
        match terminal::edit(
            stdin,
            echo,
            typed,
            shell.map_or(CtrlC::Ends, CtrlC::Interrupts),
        )
        .await
        {
            Ok(NoMoreLines::Interrupt) => killed_by("INT"),
            // The end is what it reads next.
            Ok(NoMoreLines::End) | Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        exit = work(line, login, streams) => exit,
        exit = typing => exit,
        signal = deadly(signals, shell) => killed_by(signal),
        () = peer => Exit::Status(ExitStatus::BROKEN_PIPE.code().into()),
    }
}

/// Completes when the peer is gone, unless what runs hears that from its input, or may be about
/// to: then it still keeps what it has got.
async fn gone(closed: CancellationToken, asks: Arc<AtomicBool>, unread: Unread) {
    closed.cancelled().await;
    if asks.load(Ordering::Acquire) || unread.is_some() {
        std::future::pending::<()>().await;
    }
}

/// A real process: a line for a shell, or the shell itself.
async fn process(line: Option<Vec<u8>>, user: &User, channel: SessionChannel) -> Exit {
    let terminal = channel.terminal.as_ref().map(|terminal| TerminalRequest {
        kind: terminal.kind.clone(),
        size: *terminal.size.borrow(),
        modes: terminal.modes.clone(),
    });
    let invocation = Invocation {
        command: line,
        terminal,
        environment: channel.environment.clone(),
    };
    let Login { account, vfs, .. } = &*user.login;
    let started = user.processes.start(account, vfs.home(), invocation).await;
    let process = match started {
        Ok(process) => process,
        Err(error) => {
            let reason = error.source().map(ToString::to_string);
            tracing::warn!(%error, reason, "no process");
            return refuse(channel, &format!("wharf: {error}")).await;
        }
    };
    let SessionChannel {
        stdin,
        stdout,
        stderr,
        terminal,
        signals,
        closed,
        ..
    } = channel;
    let size = terminal.map(|terminal| terminal.size);
    // The process's own terminal makes its line ends; what is said about it comes beside it.
    let stderr: Box<dyn AsyncWrite + Send + Unpin> = match size {
        Some(_) => Box::new(Screen::new(stderr)),
        None => Box::new(stderr),
    };
    let ending = process.attend(Client {
        stdin,
        stdout,
        stderr,
        signals,
        size,
        closed,
    });
    match ending.await.exit {
        process::Exit::Status(status) => Exit::Status(status),
        process::Exit::Signal(name) => killed_by(name),
    }
}

/// Waits for a signal that ends a program; a shell is told of an interrupt instead.
async fn deadly(mut signals: mpsc::Receiver<String>, shell: Option<&Notify>) -> &'static str {
    while let Some(name) = signals.recv().await {
        let known = ["HUP", "KILL", "QUIT", "TERM", "INT"];
        let known = known.into_iter().find(|known| name == *known);
        match (known, shell) {
            (Some("INT"), Some(shell)) => shell.notify_one(),
            (Some(known), _) => return known,
            (None, _) => {}
        }
    }
    std::future::pending().await
}

fn killed_by(signal: &str) -> Exit {
    Exit::Signal {
        name: signal.to_owned(),
        core_dumped: false,
        message: String::new(),
    }
}

async fn work(line: Option<Vec<u8>>, login: &Login, streams: Streams) -> Exit {
    let home = VirtualPath::root();
    let status = match line {
        Some(line) => exec::run(&line, &login.vfs, &home, streams).await,
        None => exec::run_shell(&login.vfs, &home, streams).await,
    };
    Exit::Status(u32::from(status.code()))
}

impl Report {
    /// Tells how a program ended, behind all that it has written, and closes the channel.
    async fn tell(self, exit: Exit) {
        let id = self.write.id();
        let _ = self.write.eof().await;
        match exit {
            Exit::Status(status) => {
                let _ = self.write.exit_status(status).await;
            }
            Exit::Signal {
                name,
                core_dumped,
                message,
            } => {
                let signal = Sig::Custom(name);
                let told = self.handle.exit_signal_request(
                    id,
                    signal,
                    core_dumped,
                    message,
                    String::new(),
                );
                let _ = told.await;
            }
        }
        let _ = self.write.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_scp_alone_is_file_transfer() {
        let is_file_transfer = |line: &str| Program::Command(line.into()).is_file_transfer();
        for line in ["scp -t /in", "scp -r -p -f 'a; b'", "  scp -f x"] {
            assert!(is_file_transfer(line), "{line}");
        }
        for line in [
            "ls",
            "scp -t x; ls",
            "scp -t x && ls",
            "ls || scp -t x",
            "scp -f x >y",
            "A=scp ls",
            "$SCP -t x",
            "scpx",
            "",
            "'scp",
        ] {
            assert!(!is_file_transfer(line), "{line}");
        }
        assert!(!Program::Shell.is_file_transfer());
    }
}
