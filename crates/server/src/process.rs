//! Real processes for accounts that may run them: what a session asks for, and what
//! it gets to work with.
//!
//! Who runs and confines them is behind [`ProcessRunner`]; this module moves their
//! bytes. It knows no protocol.

use std::io;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use wharf_accounts::Account;
use wharf_model::Refusal;
use wharf_vfs::Home;

/// How much is moved at once: what a pipe holds (pipe(7)).
const PIECE_BYTES: usize = 64 * 1024;

/// Runs processes for accounts.
pub trait ProcessRunner: Send + Sync + 'static {
    /// Starts what `invocation` says in `home`, which is the account's. Dropping the
    /// future leaves nothing behind.
    ///
    /// # Errors
    /// [`ProcessError`]; then nothing runs.
    fn start<'a>(
        &'a self,
        account: &'a Account,
        home: &'a Arc<Home>,
        invocation: Invocation,
    ) -> BoxFuture<'a, Result<Process, ProcessError>>;
}

/// What to run.
#[derive(Debug, Clone, Default)]
pub struct Invocation {
    /// A command line for `/bin/sh -c`; a login shell, where there is none. Without NUL.
    pub command: Option<Vec<u8>>,
    /// The terminal to run it in, if it needs one.
    pub terminal: Option<TerminalRequest>,
    /// What the client asked to have set. Only TERM, LANG and LC_* are.
    pub environment: Vec<(String, String)>,
}

/// The terminal that a client has, to be imitated.
#[derive(Debug, Clone, Default)]
pub struct TerminalRequest {
    /// Its kind, for TERM.
    pub kind: String,
    /// Its size.
    pub size: TerminalSize,
    /// Its modes: opcodes and values of RFC 4254 §8. Those that are not known are passed over.
    pub modes: Vec<(u8, u32)>,
}

/// The size of a terminal; 0 where it is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TerminalSize {
    /// In characters.
    pub columns: u32,
    /// In characters.
    pub rows: u32,
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
}

/// Something that runs. It and all that it has started end when this is dropped.
pub struct Process {
    /// What it reads. Its end is the end of the input; in a terminal it means nothing.
    pub stdin: Box<dyn AsyncWrite + Send + Unpin>,
    /// What it writes; in a terminal its errors too.
    pub stdout: Box<dyn AsyncRead + Send + Unpin>,
    /// What it writes as errors; none in a terminal.
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// A line for the client's errors, before anything else.
    pub notice: Option<String>,
    /// Its terminal and its signals.
    pub control: Box<dyn ProcessControl>,
    /// How it has ended; ready once nothing of it is left.
    pub ending: BoxFuture<'static, Ending>,
}

/// What can be done to something that runs.
pub trait ProcessControl: Send + Sync {
    /// Tells the terminal its size, if there is one.
    fn resize(&self, size: TerminalSize);

    /// Sends a signal, by its name without SIG, to what is in the foreground. One that is not
    /// known (RFC 4254 §6.10) is passed over.
    fn signal(&self, name: &str);
}

/// How something that ran has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// What to report as its status.
    pub exit: Exit,
    /// A line for the client's errors, behind everything else.
    pub notice: Option<String>,
}

/// The status of something that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status; 0 for success.
    Status(u32),
    /// By a signal, which RFC 4254 §6.10 names so.
    Signal(&'static str),
}

/// The client's side of something that runs.
pub struct Client<I, O, E> {
    /// What it sends. An end is meant as one; a client that goes away is an error.
    pub stdin: I,
    /// What it gets. A write waits until the client takes it.
    pub stdout: O,
    /// What it gets as errors.
    pub stderr: E,
    /// Names of signals that it sends, without SIG.
    pub signals: mpsc::Receiver<String>,
    /// The size of its terminal, as it changes.
    pub size: Option<watch::Receiver<TerminalSize>>,
    /// The client is gone.
    pub closed: CancellationToken,
}

impl Process {
    /// Moves bytes, signals and sizes between the process and its client until it has
    /// ended, or the client is gone: then it is ended. No more than a few pieces are held,
    /// whatever is written. Dropping the future ends the process.
    pub async fn attend<I, O, E>(self, client: Client<I, O, E>) -> Ending
    where
        I: AsyncRead + Unpin,
        O: AsyncWrite + Unpin,
        E: AsyncWrite + Unpin,
    {
        let Self {
            stdin,
            stdout,
            stderr,
            notice,
            control,
            mut ending,
        } = self;
        let mut errors = client.stderr;
        let show = async {
            if let Some(notice) = notice {
                say(&mut errors, &notice).await?;
            }
            let complaints = async {
                match stderr {
                    Some(stderr) => carry(stderr, &mut errors).await,
                    None => Ok(()),
                }
            };
            // What the client does not take ends the process too.
            tokio::try_join!(carry(stdout, client.stdout), complaints)?;
            let ending = (&mut ending).await;
            if let Some(notice) = &ending.notice {
                say(&mut errors, notice).await?;
            }
            io::Result::Ok(ending)
        };
        let shown = tokio::select! {
            shown = show => shown.ok(),
            () = feed(client.stdin, stdin) => None,
            () = steer(&*control, client.signals, client.size) => None,
            () = client.closed.cancelled() => None,
        };
        drop(control);
        match shown {
            Some(ending) => ending,
            None => ending.await,
        }
    }
}

async fn say(errors: &mut (impl AsyncWrite + Unpin), line: &str) -> io::Result<()> {
    errors
        .write_all(format!("wharf: {line}\n").as_bytes())
        .await?;
    errors.flush().await
}

/// Moves what the process writes to the client. An error is the client's.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    // A terminal that nobody is in any more cannot be read: that is its end.
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        to.write_all(piece.get(..length).unwrap_or_default())
            .await?;
        to.flush().await?;
    }
    Ok(())
}

/// Moves what the client sends to the process, and its end. Returns if the client is gone.
async fn feed(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match from.read(&mut piece).await {
            Ok(0) => break,
            Ok(length) => {
                let bytes = piece.get(..length).unwrap_or_default();
                if to.write_all(bytes).await.is_err() {
                    // It takes no more, and goes on.
                    break;
                }
            }
            Err(_) => return,
        }
    }
    drop(to);
    std::future::pending::<()>().await;
}

/// Hands on signals and sizes. Never returns.
async fn steer(
    control: &dyn ProcessControl,
    mut signals: mpsc::Receiver<String>,
    size: Option<watch::Receiver<TerminalSize>>,
) {
    let signalled = async {
        while let Some(name) = signals.recv().await {
            control.signal(&name);
        }
    };
    let resized = async {
        let Some(mut size) = size else { return };
        while size.changed().await.is_ok() {
            let size = *size.borrow_and_update();
            control.resize(size);
        }
    };
    tokio::join!(signalled, resized);
    std::future::pending::<()>().await;
}

/// Why nothing was run. The texts are for the account's owner.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The operator has not allowed processes.
    #[error(
        "processes are off here; the operator can allow them in the configuration: [processes] enabled = true"
    )]
    Off,
    /// They could not be confined on this machine.
    #[error("processes cannot be confined here: {0}")]
    CannotConfine(String),
    /// The account may not run them.
    #[error("this account runs no processes")]
    NotAllowed,
    /// As many commands of the account run as may.
    #[error("too many commands of this account run already")]
    TooMany,
    /// The account has rules that a process would not know.
    #[error(
        "this account's permissions are limited, which processes do not heed; the operator can lift the limits or allow the built-in commands only"
    )]
    LimitedPermissions,
    /// The home holds what no process may reach, or every one can read it.
    #[error(
        "this account's home lies around the server's own files, or in a folder of the system; the operator can give it another home"
    )]
    Misplaced,
    /// The command line is longer than a shell takes.
    #[error(
        "the command is longer than {} bytes, or has a NUL in it",
        MAX_COMMAND_BYTES
    )]
    Command,
    /// The home could not be prepared.
    #[error("the home cannot be used")]
    Home(#[from] Refusal),
    /// The system has refused.
    #[error("the process could not be started")]
    System(#[from] io::Error),
}

/// The longest command line: below the longest argument of Linux (execve(2), 128 KiB).
pub const MAX_COMMAND_BYTES: usize = 100 * 1024;

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::io::{DuplexStream, duplex};
    use tokio::sync::oneshot;

    use super::*;

    /// The inner side of a process that the test plays.
    struct Inside {
        stdin: DuplexStream,
        stdout: DuplexStream,
        stderr: DuplexStream,
        end: oneshot::Sender<Ending>,
        told: Arc<Told>,
    }

    #[derive(Default)]
    struct Told {
        signals: Mutex<Vec<String>>,
        sizes: Mutex<Vec<TerminalSize>>,
        dropped: CancellationToken,
    }

    struct Control(Arc<Told>);

    impl ProcessControl for Control {
        fn resize(&self, size: TerminalSize) {
            self.0.sizes.lock().expect("lock").push(size);
        }

        fn signal(&self, name: &str) {
            self.0.signals.lock().expect("lock").push(name.to_owned());
        }
    }

    impl Drop for Control {
        fn drop(&mut self) {
            self.0.dropped.cancel();
        }
    }

    fn process(notice: Option<&str>) -> (Process, Inside) {
        let (stdin, stdin_inside) = duplex(16);
        let (stdout, stdout_inside) = duplex(16);
        let (stderr, stderr_inside) = duplex(16);
        let (end, ended) = oneshot::channel();
        let told = Arc::new(Told::default());
        let process = Process {
            stdin: Box::new(stdin),
            stdout: Box::new(stdout),
            stderr: Some(Box::new(stderr)),
            notice: notice.map(str::to_owned),
            control: Box::new(Control(Arc::clone(&told))),
            ending: Box::pin(async { ended.await.expect("ends") }),
        };
        let inside = Inside {
            stdin: stdin_inside,
            stdout: stdout_inside,
            stderr: stderr_inside,
            end,
            told,
        };
        (process, inside)
    }

    fn ended(notice: Option<&str>) -> Ending {
        Ending {
            exit: Exit::Status(3),
            notice: notice.map(str::to_owned),
        }
    }

    type Remote = (mpsc::Sender<String>, watch::Sender<TerminalSize>);

    fn client<I, O, E>(stdin: I, stdout: O, stderr: E) -> (Client<I, O, E>, Remote) {
        let (signal, signals) = mpsc::channel(1);
        let (resize, size) = watch::channel(TerminalSize::default());
        let client = Client {
            stdin,
            stdout,
            stderr,
            signals,
            size: Some(size),
            closed: CancellationToken::new(),
        };
        (client, (signal, resize))
    }

    #[tokio::test]
    async fn notices_stand_around_the_errors_and_outputs_pass_whole() {
        let (process, mut inside) = process(Some("before"));
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let (client, _remote) = client(&b"typed"[..], &mut stdout, &mut stderr);
        let playing = async {
            let mut typed = Vec::new();
            inside.stdin.read_to_end(&mut typed).await.expect("reads");
            assert_eq!(typed, b"typed");
            inside.stdout.write_all(&[b'x'; 100]).await.expect("read");
            inside.stderr.write_all(b"error\n").await.expect("read");
            drop((inside.stdout, inside.stderr));
            inside.end.send(ended(Some("behind"))).expect("waited for");
        };
        let (ending, ()) = tokio::join!(process.attend(client), playing);
        assert_eq!(ending, ended(Some("behind")));
        assert_eq!(stdout, [b'x'; 100]);
        assert_eq!(stderr, b"wharf: before\nerror\nwharf: behind\n");
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_holds_the_process_up() {
        let (process, mut inside) = process(None);
        let (stdout, _taken_by_nobody) = duplex(16);
        let (client, _remote) = client(&[][..], stdout, Vec::new());
        let closed = client.closed.clone();
        let attended = tokio::spawn(process.attend(client));
        let mut written = 0_usize;
        let flooding = async {
            while inside.stdout.write_all(&[0; 1024]).await.is_ok() {
                written += 1024;
                assert!(written <= 2 * PIECE_BYTES, "nothing holds it up");
            }
        };
        // The piece that is on its way, and what stands before and behind it.
        tokio::time::pause();
        let stuck = tokio::time::timeout(std::time::Duration::from_secs(60), flooding).await;
        assert!(stuck.is_err());
        closed.cancel();
        inside.told.dropped.cancelled().await;
        inside.end.send(ended(None)).expect("waited for");
        assert_eq!(attended.await.expect("no panic"), ended(None));
    }

    #[tokio::test]
    async fn signals_and_sizes_arrive_and_a_client_that_goes_away_ends_it() {
        let (process, inside) = process(None);
        let (stdin, typed) = duplex(16);
        let (client, (signal, resize)) = client(Gone(stdin), Vec::new(), Vec::new());
        let attended = tokio::spawn(process.attend(client));
        signal.send("INT".to_owned()).await.expect("attended");
        let size = TerminalSize {
            columns: 80,
            ..TerminalSize::default()
        };
        resize.send(size).expect("attended");
        while inside.told.signals.lock().expect("lock").is_empty()
            || inside.told.sizes.lock().expect("lock").is_empty()
        {
            tokio::task::yield_now().await;
        }
        assert_eq!(*inside.told.signals.lock().expect("lock"), ["INT"]);
        assert_eq!(*inside.told.sizes.lock().expect("lock"), [size]);
        assert!(!inside.told.dropped.is_cancelled());
        // Without the end that it would have meant.
        drop(typed);
        inside.told.dropped.cancelled().await;
        inside.end.send(ended(None)).expect("waited for");
        assert_eq!(attended.await.expect("no panic"), ended(None));
    }

    /// Input whose end is that of the connection.
    struct Gone(DuplexStream);

    impl AsyncRead for Gone {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
            buffer: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            let before = buffer.filled().len();
            let polled = std::pin::Pin::new(&mut self.0).poll_read(cx, buffer);
            if polled.is_ready() && buffer.filled().len() == before {
                return std::task::Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            polled
        }
    }
}
