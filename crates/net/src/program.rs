//! A process a connection: a program whose standard input and output is the
//! connection, as inetd and systemd (`Accept=yes`) do it. For datagrams, a
//! process each, with the datagram as its input and the answer as its output.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;

use crate::{Connection, Datagram, DatagramService, Drain, Peer, ServiceError, StreamService};

/// A program that serves each connection, or answers each datagram, in a
/// process of its own. How many there are at once is the server's business
/// ([`Concurrency::Threads`](crate::Concurrency::Threads) is not needed for it).
///
/// The environment is the server's, with `REMOTE_ADDR` and `REMOTE_PORT` where
/// the peer has them. A process that is cut is killed with its process group,
/// and the drain waits until it is reaped; one that ends takes along what it
/// left behind in its group.
#[derive(Debug)]
pub struct Program {
    program: OsString,
    arguments: Vec<OsString>,
    errors: ProgramErrors,
    most_answer_bytes: usize,
    running: Arc<AtomicUsize>,
}

/// Where a program's standard error goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProgramErrors {
    /// Where the server's goes.
    #[default]
    Inherited,
    /// To the log, with the peer.
    Logged,
}

/// What fits into one UDP datagram over IPv4.
const MOST_ANSWER_BYTES: usize = 65_507;
/// How long the output of a program that has ended is waited for: somebody
/// outside of its group may hold it open for ever.
const REST_OF_OUTPUT: Duration = Duration::from_secs(1);
/// What a service manager tells its own child, and no other.
const FOR_THIS_PROCESS: [&str; 4] = [
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "NOTIFY_SOCKET",
];

impl Program {
    /// A program, looked for in `PATH` if it is a bare name.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            errors: ProgramErrors::default(),
            most_answer_bytes: MOST_ANSWER_BYTES,
            running: Arc::default(),
        }
    }

    /// More arguments. No shell sees them.
    #[must_use]
    pub fn with_arguments<A: Into<OsString>>(
        mut self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Chooses where standard error goes.
    #[must_use]
    pub fn with_errors(mut self, errors: ProgramErrors) -> Self {
        self.errors = errors;
        self
    }

    /// Sends no answer to a datagram that has more bytes, and kills the process that writes it.
    #[must_use]
    pub fn with_most_answer_bytes(mut self, bytes: usize) -> Self {
        self.most_answer_bytes = bytes;
        self
    }

    /// Processes that have not been reaped.
    pub fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    fn command(&self, peer: &Peer) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).process_group(0);
        for name in FOR_THIS_PROCESS {
            command.env_remove(name);
        }
        command.env_remove("REMOTE_ADDR").env_remove("REMOTE_PORT");
        if let Some(address) = peer.socket_address() {
            command.env("REMOTE_ADDR", address.ip().to_string());
            command.env("REMOTE_PORT", address.port().to_string());
        }
        if self.errors == ProgramErrors::Logged {
            command.stderr(Stdio::piped());
        }
        command
    }

    fn start(&self, mut command: Command, peer: &Peer, drain: &Drain) -> io::Result<Running> {
        let mut child = command.spawn().map_err(|error| {
            let text = format!("cannot start {}: {error}", self.program.display());
            io::Error::new(error.kind(), text)
        })?;
        if let Some(errors) = child.stderr.take() {
            tokio::spawn(log_lines(errors, peer.clone()));
        }
        self.running.fetch_add(1, Ordering::Relaxed);
        let mut running = Running {
            child: Some(child),
            exit: None,
            drain: drain.clone(),
            running: Arc::clone(&self.running),
        };
        running.watch()?;
        Ok(running)
    }
}

impl StreamService for Program {
    async fn serve(self: Arc<Self>, connection: Connection) -> Result<(), ServiceError> {
        let Connection {
            stream,
            peer,
            drain,
            slot,
            ..
        } = connection;
        // Counted until its end.
        let _slot = slot;
        let input = OwnedFd::from(stream.into_blocking()?);
        let output = input.try_clone()?;
        let mut command = self.command(&peer);
        command.stdin(input).stdout(output);
        // The command, and with it this process's handles to the socket, is
        // gone once the program has started: its end is the peer's end.
        let mut running = self.start(command, &peer, &drain)?;
        ended_well(running.end().await?)
    }
}

impl DatagramService for Program {
    async fn answer(self: Arc<Self>, datagram: Datagram) -> Result<(), ServiceError> {
        let mut command = self.command(&datagram.peer);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut running = self.start(command, &datagram.peer, &datagram.drain)?;
        let answer = running.exchange(&datagram.content, self.most_answer_bytes);
        let Some(answer) = answer.await? else {
            let most = self.most_answer_bytes;
            return Err(format!("the answer has more than {most} bytes").into());
        };
        ended_well(running.end().await?)?;
        if !answer.is_empty() {
            datagram.reply(&answer).await?;
        }
        Ok(())
    }
}

fn ended_well(status: ExitStatus) -> Result<(), ServiceError> {
    if status.success() {
        Ok(())
    } else {
        Err(format!("the program ended with {status}").into())
    }
}

/// A process that was started. Dropped before its end, it is killed with its
/// group, and reaped by a task that the drain waits for.
struct Running {
    child: Option<Child>,
    /// Readable once the process has ended, before it is reaped.
    exit: Option<AsyncFd<OwnedFd>>,
    drain: Drain,
    running: Arc<AtomicUsize>,
}

impl Running {
    fn watch(&mut self) -> io::Result<()> {
        let process = self.group().ok_or(io::ErrorKind::NotFound)?;
        let exit = rustix::process::pidfd_open(process, PidfdFlags::empty())?;
        #[expect(
            deprecated,
            reason = "the new way is unsafe for types that may close their descriptor, and this owns it"
        )]
        let exit = AsyncFd::with_interest(exit, Interest::READABLE)?;
        self.exit = Some(exit);
        Ok(())
    }

    /// The number of the process and of its group; not reaped, so it is still its own.
    fn group(&self) -> Option<Pid> {
        let id = self.child.as_ref()?.id()?;
        Pid::from_raw(i32::try_from(id).ok()?)
    }

    fn kill_group(&self) {
        if let Some(group) = self.group() {
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
    }

    /// Waits until the process has ended, and kills what it left in its group,
    /// which may hold the connection open. It is not reaped yet.
    async fn ended(&self) -> io::Result<()> {
        if let Some(exit) = &self.exit {
            let _ready = exit.readable().await?;
        }
        self.kill_group();
        Ok(())
    }

    async fn end(&mut self) -> io::Result<ExitStatus> {
        self.ended().await?;
        let Some(child) = &mut self.child else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let status = child.wait().await?;
        self.child = None;
        self.running.fetch_sub(1, Ordering::Relaxed);
        Ok(status)
    }

    /// Writes its input and reads its output, to its end or the process's;
    /// `None` where that is too long.
    async fn exchange(&mut self, input: &[u8], most: usize) -> io::Result<Option<Vec<u8>>> {
        let child = self.child.as_mut();
        let pipes = child.and_then(|child| Some((child.stdin.take()?, child.stdout.take()?)));
        let Some((mut to, from)) = pipes else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let write = async move {
            // A program may answer without reading its question.
            let _ = to.write_all(input).await;
            drop(to);
        };
        let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
        let mut output = Vec::new();
        read_until_ended(from.take(limit), write, &mut output, self.ended()).await?;
        Ok((output.len() <= most).then_some(output))
    }
}

/// Reads all that comes while `write` is done; once the process has `ended`,
/// what is still on its way.
async fn read_until_ended(
    mut from: impl AsyncRead + Unpin,
    write: impl Future<Output = ()>,
    output: &mut Vec<u8>,
    ended: impl Future<Output = io::Result<()>>,
) -> io::Result<()> {
    const PIECE_BYTES: usize = 4096;
    let read = async {
        loop {
            output.reserve(PIECE_BYTES);
            if from.read_buf(output).await? == 0 {
                return Ok(());
            }
        }
    };
    let mut exchange = pin!(async { tokio::join!(write, read).1 });
    tokio::select! {
        end = &mut exchange => return end,
        end = ended => end?,
    }
    // What has come by then is the answer.
    tokio::time::timeout(REST_OF_OUTPUT, exchange)
        .await
        .unwrap_or(Ok(()))
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill_group();
        let Some(mut child) = self.child.take() else {
            return;
        };
        let running = Arc::clone(&self.running);
        let reap = async move {
            let _ = child.wait().await;
            running.fetch_sub(1, Ordering::Relaxed);
        };
        // Without a runtime the process is ending, and the system reaps.
        if Handle::try_current().is_ok() {
            self.drain.shelter(reap);
        }
    }
}

/// Writes what a program complains of to the log, in pieces of bounded length.
async fn log_lines(mut errors: impl AsyncRead + Unpin, peer: Peer) {
    let mut piece = [0; 1024];
    while let Ok(length @ 1..) = errors.read(&mut piece).await {
        let text = String::from_utf8_lossy(piece.get(..length).unwrap_or_default());
        tracing::warn!(%peer, text = ?text.trim_end(), "a program writes to standard error");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DatagramServer, DatagramSocket, EndpointOptions, Listener, Server, Stream};

    fn shell(script: &str) -> Program {
        Program::new("/bin/sh").with_arguments(["-c", script])
    }

    fn start(program: &Arc<Program>, endpoint: &str) -> (crate::Endpoint, Drain) {
        let endpoint = endpoint.parse().expect("an endpoint");
        let listener = Listener::bind(endpoint, EndpointOptions::default()).expect("free");
        let target = listener.endpoint().clone();
        let server = Server::new(Arc::clone(program));
        let drain = server.drain();
        tokio::spawn(server.serve(listener));
        (target, drain)
    }

    #[tokio::test]
    async fn a_program_has_the_connection_as_its_input_and_output() {
        for endpoint in ["tcp:127.0.0.1:0", "unix:@wharf-net-program"] {
            let program = Arc::new(shell("echo \"${REMOTE_ADDR-none}\"; exec cat"));
            let (target, drain) = start(&program, endpoint);
            let mut stream = Stream::connect(&target).await.expect("connects");
            stream.write_all(b"hello").await.expect("writes");
            stream.shutdown().await.expect("ends");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("reads");
            let address = target.socket_address().map(|_| "127.0.0.1");
            assert_eq!(answer, format!("{}\nhello", address.unwrap_or("none")));
            let report = drain.finish(Duration::from_secs(60)).await;
            assert_eq!((report.cut, program.running()), (0, 0));
        }
    }

    #[tokio::test]
    async fn a_program_is_killed_with_its_children_at_the_cut_and_reaped() {
        let program = Arc::new(shell("sleep 1000 & echo $$ $!; wait"));
        let (target, drain) = start(&program, "tcp:127.0.0.1:0");
        let mut stream = Stream::connect(&target).await.expect("connects");
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            line.push(stream.read_u8().await.expect("two numbers"));
        }
        assert_eq!(program.running(), 1);
        let report = drain.finish(Duration::ZERO).await;
        assert_eq!((report.peers.len(), program.running()), (1, 0));
        // The end of the stream: nobody has the socket open any more.
        assert_eq!(stream.read(&mut [0]).await.ok(), Some(0));
        let text = String::from_utf8(line).expect("digits");
        let shell = text.split_whitespace().next().expect("a number");
        let shell = shell.parse().ok().and_then(Pid::from_raw).expect("a pid");
        // ESRCH: no such process, not even one that waits to be reaped.
        let gone = rustix::process::test_kill_process(shell);
        assert_eq!(gone, Err(rustix::io::Errno::SRCH));
    }

    #[tokio::test]
    async fn what_a_program_leaves_behind_holds_no_connection_open() {
        let program = Arc::new(shell("sleep 1000 & echo gone"));
        let (target, drain) = start(&program, "tcp:127.0.0.1:0");
        let mut stream = Stream::connect(&target).await.expect("connects");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("reads");
        assert_eq!(answer, "gone\n");
        let report = drain.finish(Duration::from_secs(60)).await;
        assert_eq!((report.cut, program.running()), (0, 0));
    }

    #[tokio::test]
    async fn what_a_program_leaves_behind_keeps_no_datagram_from_its_answer() {
        // The second one is in a group of its own, out of reach.
        for script in ["sleep 1000 & echo gone", "setsid sleep 5 & echo gone"] {
            let endpoint = "udp:127.0.0.1:0".parse().expect("an endpoint");
            let socket = DatagramSocket::bind(endpoint, EndpointOptions::default()).expect("free");
            let target = socket.endpoint().socket_address().expect("of UDP");
            let server = DatagramServer::new(Arc::new(shell(script)));
            let drain = server.drain();
            tokio::spawn(server.serve(socket));
            let client = tokio::net::UdpSocket::bind("127.0.0.1:0")
                .await
                .expect("free");
            client.send_to(b"?", target).await.expect("sends");
            let mut buffer = [0; 64];
            let answer = client.recv(&mut buffer);
            let answer = tokio::time::timeout(Duration::from_secs(4), answer).await;
            let length = answer.expect("before sleep ends").expect("receives");
            assert_eq!(&buffer[..length], b"gone\n");
            drain.finish(Duration::from_secs(60)).await;
        }
    }

    #[tokio::test]
    async fn a_program_answers_a_datagram_within_its_bound() {
        let endpoint = "udp:127.0.0.1:0".parse().expect("an endpoint");
        let socket = DatagramSocket::bind(endpoint, EndpointOptions::default()).expect("free");
        let target = socket.endpoint().socket_address().expect("of UDP");
        let program = shell("exec tr a-z A-Z").with_most_answer_bytes(5);
        let server = DatagramServer::new(Arc::new(program));
        let drain = server.drain();
        tokio::spawn(server.serve(socket));
        let client = tokio::net::UdpSocket::bind("127.0.0.1:0")
            .await
            .expect("free");
        for question in ["too long", "hello"] {
            client
                .send_to(question.as_bytes(), target)
                .await
                .expect("sends");
        }
        let mut buffer = [0; 64];
        let length = client.recv(&mut buffer).await.expect("receives");
        assert_eq!(&buffer[..length], b"HELLO");
        let report = drain.finish(Duration::from_secs(60)).await;
        assert_eq!(report.cut, 0);
    }

    #[tokio::test]
    async fn a_program_that_cannot_start_is_an_error_that_names_it() {
        let program = Program::new("/nowhere/at all");
        let peer = Peer::Unix(crate::UnixPeer::default());
        let command = program.command(&peer);
        let error = program.start(command, &peer, &Drain::new()).err();
        let text = error.expect("not there").to_string();
        assert!(text.starts_with("cannot start /nowhere/at all: "), "{text}");
        assert_eq!(program.running(), 0);
    }
}
