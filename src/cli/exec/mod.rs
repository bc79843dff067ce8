//! `wharf exec`.

mod escape;

use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Read as _};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use bytes::Bytes;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::sync::mpsc::{self, error::TrySendError};
use wharf_client::{
    ClientError, CommandEnd, CommandEvent, CommandInput, CommandOutput, CommandRequest, RemoteUrl,
    Scheme, Terminal, TerminalSize,
};

use self::escape::{Escapes, HELP};
use crate::cli::CliError;
use crate::cli::site::{AccessArgs, UrlArgument, runtime};

/// Options of `wharf exec`.
#[derive(clap::Args)]
#[command(after_help = "\
The words of the command are joined by spaces and read by the account's shell on the server, as \
ssh(1) does it. Standard input, output and error are the command's; the exit code is the command's \
too, 128 and the signal's number if one ended it, 141 where nobody reads its output any more, and \
255 where Wharf itself failed.

A command may say nothing for as long as it likes: the server is asked whether it is there, and \
given up when it has not answered for --timeout.

With a terminal, `~.` at the start of a line closes the connection, also to a server that hangs \
(exit code 255); `~?` shows what else there is.

Examples:
  wharf exec sftp://alice@files.example -- df -h
  wharf exec sftp://alice@files.example -- 'cat > notes.txt' < notes.txt
  wharf exec -t sftp://alice@files.example -- top
  wharf exec sftp://alice@files.example")]
pub(crate) struct Args {
    #[command(flatten)]
    access: AccessArgs,
    /// Give the command a terminal [default: only where no command is given]
    #[arg(long, short = 't')]
    terminal: bool,
    /// The server
    #[arg(value_name = "URL")]
    url: UrlArgument,
    /// The command; without one the shell itself
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(crate) fn run(args: Args) -> Result<(), CliError> {
    let result = run_command(&args);
    match result {
        Ok(0) => Ok(()),
        Ok(code) => Err(CliError::Ended(code)),
        Err(CliError::Unread) => Err(CliError::Unread),
        Err(error) => {
            if !matches!(error, CliError::Told(_)) {
                eprintln!("wharf: {error}");
            }
            Err(CliError::Ended(OWN_FAILURE))
        }
    }
}

fn run_command(args: &Args) -> Result<u8, CliError> {
    args.access.start_log();
    let url = args.url.parse()?;
    let request = request(args, &url)?;
    let server = args.access.ssh_server(&url)?;
    let runtime = runtime()?;
    let result = runtime.block_on(async {
        let (input, output) = server.run(&request).await?;
        // After the login, which may ask a person something.
        let has_terminal = request.terminal.is_some();
        let signals = (has_terminal && io::stdin().is_terminal()).then(DeadlySignals::hold);
        let raw = signals.as_ref().and_then(|_| RawMode::enter());
        let attendance = Attendance {
            has_terminal,
            signals,
        };
        let parting = attendance.attend(input, output).await;
        // Whatever is said now is said as before.
        drop(raw);
        parting
    });
    // A thread that still reads standard input keeps nobody waiting.
    runtime.shutdown_background();
    result
        .map(|parting| exit_code(&parting))
        .map_err(|error| match &error {
            ClientError::Local { source, .. } if source.kind() == io::ErrorKind::BrokenPipe => {
                CliError::Unread
            }
            _ => CliError::at(&url, &error),
        })
}

fn request(args: &Args, url: &RemoteUrl) -> Result<CommandRequest, CliError> {
    if url.scheme != Scheme::Sftp {
        return Err(CliError::Usage(format!(
            "{url}: commands run over SSH; write the URL with sftp://"
        )));
    }
    if !url.path.components().is_empty() {
        return Err(CliError::Usage(format!(
            "{url}: a command starts where the login leads to; leave the path out, and write `cd` before the command"
        )));
    }
    let words: Vec<&[u8]> = args.command.iter().map(|word| word.as_bytes()).collect();
    let line = (!words.is_empty()).then(|| words.join(&b' '));
    let wants_terminal = args.terminal || (line.is_none() && io::stdin().is_terminal());
    let terminal = wants_terminal.then(|| Terminal {
        kind: std::env::var("TERM").unwrap_or_else(|_| "dumb".to_owned()),
        size: terminal_size().unwrap_or(NO_TERMINAL),
    });
    Ok(CommandRequest { line, terminal })
}

/// How a command and this terminal part.
#[derive(Debug)]
enum Parting {
    /// The command is over.
    Ended(CommandEnd),
    /// The person has left it.
    Left,
    /// A signal came, by its number.
    Signal(u8),
}

/// What stands on this side of a command.
struct Attendance {
    /// The command has a terminal, which follows the size of this one.
    has_terminal: bool,
    /// Where this terminal is the command's, but for [`Escapes`].
    signals: Option<DeadlySignals>,
}

impl Attendance {
    /// Moves bytes both ways until the command is over, or the person leaves it.
    async fn attend(
        mut self,
        input: CommandInput,
        mut output: CommandOutput,
    ) -> Result<Parting, ClientError> {
        let leaving = Arc::new(Notify::new());
        let pieces = match self.signals {
            Some(_) => read_keys(Arc::clone(&leaving)),
            None => read_standard_input(),
        };
        let sending = async {
            let sizes = async {
                if self.has_terminal {
                    follow_size(&input).await;
                }
            };
            // Its input may be over while its terminal still changes.
            tokio::join!(send_input(&input, pieces), sizes);
            std::future::pending().await
        };
        let signalled = async {
            match &mut self.signals {
                Some(signals) => signals.first().await,
                // They do what they do without us.
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // A person who wants to leave is heard first, however much there is to show.
            biased;
            () = leaving.notified() => Ok(Parting::Left),
            number = signalled => Ok(Parting::Signal(number)),
            end = show_output(&mut output) => end.map(Parting::Ended),
            never = sending => never,
        }
    }
}

/// The signals that would end this process and leave its terminal raw, with their numbers.
struct DeadlySignals(Vec<(u8, Signal)>);

impl DeadlySignals {
    /// From now on they end nothing by themselves.
    fn hold() -> Self {
        let names = ["HUP", "INT", "QUIT", "TERM"];
        let numbers = names.into_iter().filter_map(number_of);
        let held = numbers.filter_map(|number| {
            let signals = signal(SignalKind::from_raw(number.into())).ok()?;
            Some((number, signals))
        });
        Self(held.collect())
    }

    /// The number of the first one that comes.
    async fn first(&mut self) -> u8 {
        if self.0.is_empty() {
            return std::future::pending().await;
        }
        let waits = self.0.iter_mut().map(|(number, signals)| {
            Box::pin(async move {
                if signals.recv().await.is_none() {
                    std::future::pending::<()>().await;
                }
                *number
            })
        });
        futures_util::future::select_all(waits).await.0
    }
}

/// Sends standard input, and its end. A command that reads no more is no failure.
async fn send_input(input: &CommandInput, mut pieces: mpsc::Receiver<Bytes>) {
    while let Some(piece) = pieces.recv().await {
        if input.write(piece).await.is_err() {
            return;
        }
    }
    let _ = input.end().await;
}

/// Has a thread read standard input, and `take` each piece until it breaks off. The thread ends
/// with its input or with the process: nothing else ends a read that waits.
fn read_input(mut take: impl FnMut(&[u8]) -> ControlFlow<()> + Send + 'static) {
    std::thread::spawn(move || {
        let mut source = io::stdin();
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let count = match source.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            if take(buffer.get(..count).unwrap_or_default()).is_break() {
                return;
            }
        }
    });
}

/// Standard input, piece by piece.
fn read_standard_input() -> mpsc::Receiver<Bytes> {
    let (sender, pieces) = mpsc::channel(PIECES);
    read_input(
        move |piece| match sender.blocking_send(Bytes::copy_from_slice(piece)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        },
    );
    pieces
}

/// What is typed for the command, piece by piece; `leaving` is told of `~.`, whether the command
/// takes anything or not. Where it has not taken thousands of keys, further ones are dropped, as a
/// terminal drops them that nobody reads (termios(3), `IMAXBEL`).
fn read_keys(leaving: Arc<Notify>) -> mpsc::Receiver<Bytes> {
    let (sender, pieces) = mpsc::channel(KEYS);
    let mut escapes = Escapes::new();
    read_input(move |piece| {
        let typed = escapes.take(piece);
        if typed.asks {
            eprint!("{HELP}");
        }
        if !typed.for_command.is_empty()
            && let Err(TrySendError::Closed(_)) = sender.try_send(typed.for_command.into())
        {
            return ControlFlow::Break(());
        }
        if typed.leaves {
            leaving.notify_one();
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    pieces
}

/// Tells the command of each new size of this terminal.
async fn follow_size(input: &CommandInput) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else {
        return;
    };
    while changes.recv().await.is_some() {
        if let Some(size) = terminal_size()
            && input.resize(size).await.is_err()
        {
            return;
        }
    }
}

async fn show_output(output: &mut CommandOutput) -> Result<CommandEnd, ClientError> {
    loop {
        match output.next().await? {
            CommandEvent::Output(bytes) => write(&mut io::stdout(), &bytes)?,
            CommandEvent::Errors(bytes) => write(&mut io::stderr(), &bytes)?,
            CommandEvent::Ended(end) => return Ok(end),
        }
        tokio::task::yield_now().await;
    }
}

/// Blocks while nobody reads, and so holds up the command: that is what a pipe does.
fn write(to: &mut impl io::Write, bytes: &[u8]) -> Result<(), ClientError> {
    tokio::task::block_in_place(|| to.write_all(bytes).and_then(|()| to.flush())).map_err(
        |source| ClientError::Local {
            path: "the command's output".to_owned(),
            source,
        },
    )
}

fn exit_code(parting: &Parting) -> u8 {
    let end = match parting {
        Parting::Ended(end) => end,
        Parting::Left => {
            eprintln!("wharf: left with ~.; the connection is closed");
            return OWN_FAILURE;
        }
        Parting::Signal(number) => return 128 + number,
    };
    match end {
        // As wait(2) has it, a status is eight bits.
        CommandEnd::Status(status) => u8::try_from(status & 0xff).unwrap_or(OWN_FAILURE),
        CommandEnd::Signal(name) => {
            eprintln!("wharf: the command was ended by SIG{name}");
            number_of(name).map_or(OWN_FAILURE, |number| 128 + number)
        }
        CommandEnd::Untold => OWN_FAILURE,
    }
}

fn number_of(signal: &str) -> Option<u8> {
    let known = SIGNALS.iter().find(|(known, _)| *known == signal);
    known.map(|(_, number)| *number)
}

fn terminal_size() -> Option<TerminalSize> {
    let size = tcgetwinsize(rustix::stdio::stdin()).ok()?;
    (size.ws_col > 0).then(|| TerminalSize {
        columns: u32::from(size.ws_col),
        rows: u32::from(size.ws_row),
    })
}

/// The terminal handed to the command: no echo, no line editing, no signals of its own. Ends
/// when it is dropped.
struct RawMode(Termios);

impl RawMode {
    /// `None` where standard input is no terminal.
    fn enter() -> Option<Self> {
        let before = tcgetattr(rustix::stdio::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.0);
    }
}

/// What a command gets that asks for a terminal where there is none.
const NO_TERMINAL: TerminalSize = TerminalSize {
    columns: 80,
    rows: 24,
};

/// As in ssh(1): an own failure is told from the command's.
const OWN_FAILURE: u8 = 255;

/// The signals that RFC 4254 §6.10 names, with their numbers on Linux.
const SIGNALS: [(&str, u8); 13] = [
    ("ABRT", 6),
    ("ALRM", 14),
    ("FPE", 8),
    ("HUP", 1),
    ("ILL", 4),
    ("INT", 2),
    ("KILL", 9),
    ("PIPE", 13),
    ("QUIT", 3),
    ("SEGV", 11),
    ("TERM", 15),
    ("USR1", 10),
    ("USR2", 12),
];

const BUFFER_BYTES: usize = 32 * 1024;

/// Pieces of standard input on their way.
const PIECES: usize = 4;

/// Pieces of what is typed on their way: single keys, or what was pasted.
const KEYS: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn options_of_ftp_and_of_transfers_are_neither_shown_nor_taken() {
        use clap::{CommandFactory as _, Parser as _};
        let help = Line::command().render_long_help().to_string();
        for option in ["--timeout", "--accept-new", "--identity", "--terminal"] {
            assert!(help.contains(option), "{option}: {help}");
        }
        for option in [
            "--active",
            "--tls=off",
            "--json",
            "--retries=1",
            "--tolerate-bare-end",
        ] {
            let name = option.split('=').next().expect("a name");
            assert!(!help.contains(name), "{name}: {help}");
            let taken = Line::try_parse_from(["exec", option, "sftp://h"]);
            let error = taken.err().expect("refused").to_string();
            let expected = format!("unexpected argument '{name}' found");
            assert!(error.contains(&expected), "{error}");
        }
    }

    #[test]
    fn the_exit_code_is_the_commands() {
        let code = |end| exit_code(&Parting::Ended(end));
        assert_eq!(code(CommandEnd::Status(0)), 0);
        assert_eq!(code(CommandEnd::Status(3)), 3);
        assert_eq!(code(CommandEnd::Signal("KILL".to_owned())), 137);
        assert_eq!(code(CommandEnd::Signal("ODD@example".to_owned())), 255);
        assert_eq!(code(CommandEnd::Untold), 255);
        assert_eq!(exit_code(&Parting::Left), 255);
        assert_eq!(exit_code(&Parting::Signal(15)), 143);
    }
}
