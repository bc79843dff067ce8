//! The server's side: orders commands, and keeps their homes counted.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use rustix::fd::{AsFd as _, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::net::{RecvFlags, SendFlags};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use wharf_accounts::{Account, ExecPolicy};
use wharf_model::{AccountId, PermissionRules, QuotaLimits, Usage};
use wharf_server::process::{
    Ending, Exit, Invocation, MAX_COMMAND_BYTES, Process, ProcessControl, ProcessError,
    ProcessRunner, TerminalRequest, TerminalSize,
};
use wharf_vfs::{ForeignActivity, Home};

use super::limits::Limits;
use super::wire::{
    Channel, Instruction, Order, Outcome, Ready, Reason, Report, Status, TerminalOrder,
};
use super::{signals, system, terminal, wire};

/// Which part of the time counting the home of a command that runs may take.
const COUNT_SHARE: u32 = 20;

/// How long the end of a command waits for the last count of its home, which goes on.
const COUNT_PATIENCE: Duration = Duration::from_secs(10);

/// Most variables that a client sets, and the longest value.
const MAX_VARIABLES: usize = 32;
const MAX_VALUE_BYTES: usize = 1024;

/// Most requests to a command that have not been handed on; more are passed over.
const MAX_REQUESTS: usize = 16;

/// Processes of accounts, if there may be any.
pub struct Processes {
    means: Means,
    // Replaced as a whole by a reload; never held across an await.
    limits: RwLock<Limits>,
    running: Running,
}

enum Means {
    Off,
    /// Why not.
    Impossible(String),
    Launcher(Launcher),
}

struct Launcher {
    socket: Arc<OwnedFd>,
    namespaces: bool,
    places: Places,
}

/// What commands must not reach.
#[derive(Debug, Clone)]
pub struct Places {
    /// The data directory.
    pub data: PathBuf,
    /// Other files and folders that hold secrets.
    pub secrets: Vec<PathBuf>,
}

impl Places {
    fn all(&self) -> impl Iterator<Item = &Path> {
        let secrets = self.secrets.iter().map(PathBuf::as_path);
        std::iter::once(self.data.as_path()).chain(secrets)
    }
}

impl Processes {
    /// None, because the operator has not asked for them.
    pub fn off(limits: Limits) -> Self {
        Self {
            means: Means::Off,
            limits: RwLock::new(limits),
            running: Running::default(),
        }
    }

    /// Starts `launcher`, which will start them. That must be before the server's own
    /// sandbox is there, and after it has given up its privileges.
    pub fn prepare(launcher: Command, limits: Limits, places: Places) -> Self {
        let means = Launcher::start(launcher, places);
        Self {
            means: means.map_or_else(Means::Impossible, Means::Launcher),
            limits: RwLock::new(limits),
            running: Running::default(),
        }
    }

    /// Says what came of it.
    pub fn log(&self) {
        match &self.means {
            Means::Off => tracing::info!("processes: off; accounts run none"),
            Means::Impossible(reason) => tracing::warn!(reason, "processes: none"),
            Means::Launcher(Launcher {
                namespaces: true, ..
            }) => tracing::info!("processes: confined by namespaces, Landlock and seccomp"),
            Means::Launcher(_) => tracing::warn!(
                "processes: confined by Landlock and seccomp; without user namespaces commands cannot change modes, owners and times by name, and count with the server's own processes"
            ),
        }
    }

    /// Uses other limits for commands that start from now on.
    pub fn reload(&self, limits: Limits) {
        *self.limits.write().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    fn launcher(&self) -> Result<&Launcher, ProcessError> {
        match &self.means {
            Means::Off => Err(ProcessError::Off),
            Means::Impossible(reason) => Err(ProcessError::CannotConfine(reason.clone())),
            Means::Launcher(launcher) => Ok(launcher),
        }
    }

    async fn begin(
        &self,
        account: &Account,
        home: &Arc<Home>,
        invocation: Invocation,
    ) -> Result<Process, ProcessError> {
        if account.exec != ExecPolicy::Shell {
            return Err(ProcessError::NotAllowed);
        }
        let launcher = self.launcher()?;
        if account.permissions != PermissionRules::default() {
            return Err(ProcessError::LimitedPermissions);
        }
        let command = invocation.command.as_deref().unwrap_or_default();
        if command.len() > MAX_COMMAND_BYTES || command.contains(&0) {
            return Err(ProcessError::Command);
        }
        let mut limits = *self.limits.read().unwrap_or_else(PoisonError::into_inner);
        let place = self.running.place(account.id, limits.commands);
        let place = place.ok_or(ProcessError::TooMany)?;
        let folder = launcher.open_home(&account.home).await?;
        // From here on the stored usage is not trusted, whatever happens.
        let activity = home.ledger().begin_foreign().await?;
        let usage = home.ledger().usage();
        let full = is_full(usage, account.quota);
        // Not what is left of it: the end of a file that is there may lie beyond.
        limits.file_bytes = account.quota.bytes;
        let name = account.name.to_string();
        let mut order = Order::new(name, account.home.clone(), invocation.command, limits);
        order.writable = full.is_none();
        order.environment = environment(invocation.environment);
        order.terminal = invocation.terminal.map(terminal_order);
        order.namespaces = launcher.namespaces;
        let (control, streams) = launcher.run(&order, &folder).await?;

        let (requests, taken) = mpsc::channel(MAX_REQUESTS);
        let (tell, told) = oneshot::channel();
        let warden = Warden {
            control,
            home: Arc::clone(home),
            quota: account.quota,
            count_interval: limits.count_interval,
            activity,
        };
        tokio::spawn(async move {
            let ending = warden.watch(taken).await;
            drop(place);
            let _ = tell.send(ending);
        });
        Ok(Process {
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
            notice: full
                .map(|what| format!("{what}: nothing can be written until some are removed")),
            control: Box::new(Control {
                requests,
                terminal: streams.terminal,
            }),
            // The task ends with the runtime only.
            ending: Box::pin(async { told.await.unwrap_or_else(|_| lost()) }),
        })
    }
}

/// How many commands of each account run. Cheap to clone.
#[derive(Clone, Default)]
struct Running(
    // Held for one look or one change.
    Arc<Mutex<HashMap<AccountId, u32>>>,
);

impl Running {
    /// A place for one more, unless `most` run already.
    fn place(&self, account: AccountId, most: u32) -> Option<Occupied> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = running.entry(account).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Occupied {
            running: self.clone(),
            account,
        })
    }
}

/// One place, until it is dropped.
struct Occupied {
    running: Running,
    account: AccountId,
}

impl Drop for Occupied {
    fn drop(&mut self) {
        let mut running = self
            .running
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = running.entry(self.account) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

impl ProcessRunner for Processes {
    fn start<'a>(
        &'a self,
        account: &'a Account,
        home: &'a Arc<Home>,
        invocation: Invocation,
    ) -> BoxFuture<'a, Result<Process, ProcessError>> {
        Box::pin(self.begin(account, home, invocation))
    }
}

impl Launcher {
    fn start(command: Command, places: Places) -> Result<Self, String> {
        if let Some((place, around)) = system::exposed(places.all()) {
            return Err(format!(
                "{} lies in {}, which commands can read; move it elsewhere",
                place.display(),
                around.display()
            ));
        }
        Self::spawn(command, places).unwrap_or_else(|error| Err(format!("the launcher: {error}")))
    }

    fn spawn(mut command: Command, places: Places) -> io::Result<Result<Self, String>> {
        use std::os::unix::ffi::OsStrExt as _;
        let (ours, theirs) = wire::pair()?;
        // Not waited for: it ends with this process, or with an error in the log.
        command.stdin(Stdio::from(theirs)).spawn()?;
        drop(command);
        let folder = rustix::fs::open(&places.data, FOLDER, Mode::empty())?;
        let path = places.data.as_os_str().as_bytes();
        wire::send(&ours, path, &[folder.as_fd()], SendFlags::empty())?;
        let Some(ready) = wire::receive(&ours, RecvFlags::empty())? else {
            return Ok(Err("the launcher has ended".to_owned()));
        };
        let ready: Ready = ready.parse()?;
        Ok(match ready.problem {
            Some(problem) => Err(problem),
            None => Ok(Self {
                socket: Arc::new(ours),
                namespaces: ready.namespaces,
                places,
            }),
        })
    }

    /// Opens a home, unless it lies where others can read it, or around what nobody must reach.
    async fn open_home(&self, home: &Path) -> Result<OwnedFd, ProcessError> {
        let (home, places) = (home.to_path_buf(), self.places.clone());
        let open = move || {
            if system::encloses(&home, places.all())? || system::exposed([&*home]).is_some() {
                return Err(ProcessError::Misplaced);
            }
            Ok(rustix::fs::open(&home, FOLDER, Mode::empty()).map_err(io::Error::from)?)
        };
        tokio::task::spawn_blocking(open)
            .await
            .map_err(io::Error::from)?
    }

    /// Has `order` carried out.
    async fn run(&self, order: &Order, home: &OwnedFd) -> io::Result<(Channel, Streams)> {
        let (ours, theirs) = wire::pair()?;
        let launcher = Arc::clone(&self.socket);
        let asked = tokio::task::spawn_blocking(move || {
            wire::send(&launcher, b"run", &[theirs.as_fd()], SendFlags::empty())
        });
        asked.await?.map_err(|error| {
            io::Error::other(format!(
                "the launcher is gone, start the server again: {error}"
            ))
        })?;
        let control = Channel::new(ours)?;
        let pipes = match order.terminal {
            Some(_) => None,
            None => Some(Pipes::new()?),
        };
        let theirs = pipes.as_ref().map(Pipes::theirs);
        let descriptors: Vec<BorrowedFd<'_>> = [home.as_fd()]
            .into_iter()
            .chain(theirs.into_iter().flatten())
            .collect();
        control.send(&order.encode()?, &descriptors).await?;
        let Some(mut answer) = control.receive().await? else {
            return Err(io::Error::other("its supervisor has ended"));
        };
        if let Report::Refused(text) = answer.parse()? {
            return Err(io::Error::other(text));
        }
        let streams = match pipes {
            Some(pipes) => pipes.ours()?,
            None => {
                let controller = answer.descriptors.pop();
                Streams::of(controller.ok_or_else(|| io::Error::other("no terminal came"))?)?
            }
        };
        Ok((control, streams))
    }
}

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// What of a quota is used up.
fn is_full(usage: Usage, quota: QuotaLimits) -> Option<&'static str> {
    let full = |used: u64, limit: Option<u64>| limit.is_some_and(|limit| used >= limit);
    if full(usage.bytes, quota.bytes) {
        Some("the quota of bytes is used up")
    } else if full(usage.files, quota.files) {
        Some("the quota of files is used up")
    } else {
        None
    }
}

/// Of what the client wants to have set, what may be.
fn environment(wanted: Vec<(String, String)>) -> Vec<(String, String)> {
    let is_name = |name: &str| {
        let plain = |byte: u8| byte.is_ascii_uppercase() || byte == b'_';
        matches!(name, "LANG" | "TERM") || (name.starts_with("LC_") && name.bytes().all(plain))
    };
    let is_value = |value: &str| value.len() <= MAX_VALUE_BYTES && is_plain(value);
    let wanted = wanted.into_iter();
    wanted
        .filter(|(name, value)| is_name(name) && is_value(value))
        .take(MAX_VARIABLES)
        .collect()
}

fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn terminal_order(wanted: TerminalRequest) -> TerminalOrder {
    let is_kind = !wanted.kind.is_empty() && wanted.kind.len() <= 64 && is_plain(&wanted.kind);
    TerminalOrder {
        kind: if is_kind {
            wanted.kind
        } else {
            "dumb".to_owned()
        },
        size: terminal::size_of(wanted.size),
        // One for each opcode is all there can be.
        modes: wanted.modes.into_iter().take(256).collect(),
        path: None,
    }
}

/// Pipes to and from a command: ours and its own ends.
struct Pipes {
    stdin: (OwnedFd, OwnedFd),
    stdout: (OwnedFd, OwnedFd),
    stderr: (OwnedFd, OwnedFd),
}

impl Pipes {
    fn new() -> io::Result<Self> {
        let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
        Ok(Self {
            stdin: pipe()?,
            stdout: pipe()?,
            stderr: pipe()?,
        })
    }

    fn theirs(&self) -> [BorrowedFd<'_>; 3] {
        [&self.stdin.0, &self.stdout.1, &self.stderr.1].map(OwnedFd::as_fd)
    }

    fn ours(self) -> io::Result<Streams> {
        let stdout = pipe::Receiver::from_owned_fd(self.stdout.0)?;
        let stderr = pipe::Receiver::from_owned_fd(self.stderr.0)?;
        Ok(Streams {
            stdin: Box::new(pipe::Sender::from_owned_fd(self.stdin.1)?),
            stdout: Box::new(stdout),
            stderr: Some(Box::new(stderr)),
            terminal: None,
        })
    }
}

/// What a command is heard and spoken to by.
struct Streams {
    stdin: Box<dyn AsyncWrite + Send + Unpin>,
    stdout: Box<dyn AsyncRead + Send + Unpin>,
    stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    terminal: Option<OwnedFd>,
}

impl Streams {
    /// Those of a terminal, by our side of it.
    fn of(controller: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&controller, true)?;
        // To the runtime it is like a pipe that goes both ways.
        let (reader, writer) = (controller.try_clone()?, controller.try_clone()?);
        Ok(Self {
            stdin: Box::new(pipe::Sender::from_file_unchecked(writer.into())?),
            stdout: Box::new(pipe::Receiver::from_file_unchecked(reader.into())?),
            stderr: None,
            terminal: Some(controller),
        })
    }
}

/// The session's hold on a command. The command ends when it is dropped.
struct Control {
    requests: mpsc::Sender<String>,
    terminal: Option<OwnedFd>,
}

impl ProcessControl for Control {
    fn resize(&self, size: TerminalSize) {
        if let Some(controller) = &self.terminal {
            terminal::resize(controller, size);
        }
    }

    fn signal(&self, name: &str) {
        let _ = self.requests.try_send(name.to_owned());
    }
}

/// Stays with a command, whatever becomes of its session.
struct Warden {
    control: Channel,
    home: Arc<Home>,
    quota: QuotaLimits,
    count_interval: Duration,
    activity: ForeignActivity,
}

impl Warden {
    /// Until nothing of the command is left, and its home is counted.
    async fn watch(self, mut requests: mpsc::Receiver<String>) -> Ending {
        let mut wanted = true;
        let mut may_pass = true;
        let outcome = {
            // Beside the rest: a home may take long to count, and its command must still hear.
            let passing = self.passes_quota();
            tokio::pin!(passing);
            loop {
                let instruction = tokio::select! {
                    message = self.control.receive() => break outcome(message),
                    request = requests.recv(), if wanted => match request {
                        Some(name) => Instruction::Signal(name),
                        None => {
                            wanted = false;
                            Instruction::End(Reason::Gone)
                        }
                    },
                    () = &mut passing, if may_pass => {
                        may_pass = false;
                        Instruction::End(Reason::Quota)
                    }
                };
                // Once the supervisor is gone its end is what is received.
                let _ = self.control.tell(&instruction).await;
            }
        };
        // Nothing writes any more.
        drop(self.activity);
        let counting = tokio::spawn(is_over(Arc::clone(&self.home), self.quota));
        let over = match tokio::time::timeout(COUNT_PATIENCE, counting).await {
            Ok(counted) => counted.unwrap_or(false),
            Err(_) => {
                tracing::warn!(
                    "a home takes long to count after a command, which is not told whether it is over its quota"
                );
                false
            }
        };
        ending(outcome, over)
    }

    /// Counts the home from time to time, until it has passed the quota.
    async fn passes_quota(&self) {
        let mut pause = self.count_interval;
        loop {
            tokio::time::sleep(pause).await;
            let started = Instant::now();
            if self.has_passed_quota().await {
                return;
            }
            pause = self.count_interval.max(started.elapsed() * COUNT_SHARE);
        }
    }

    async fn has_passed_quota(&self) -> bool {
        let is_limited = self.quota.bytes.is_some() || self.quota.files.is_some();
        let counted = if is_limited {
            self.home.recount().await.ok()
        } else {
            None
        };
        // The folder for temporary files is not the account's.
        let without_temporary = |usage: Usage| Usage {
            files: usage.files.saturating_sub(1),
            ..usage
        };
        counted.is_some_and(|usage| over(without_temporary(usage), self.quota))
    }
}

fn outcome(message: io::Result<Option<wire::Received>>) -> Option<Outcome> {
    match message.ok()??.parse().ok()? {
        Report::Ended(outcome) => Some(outcome),
        Report::Started | Report::Refused(_) => None,
    }
}

/// Whether a home is over the quota after a command.
async fn is_over(home: Arc<Home>, quota: QuotaLimits) -> bool {
    match home.recount().await {
        Ok(usage) => over(usage, quota),
        Err(error) => {
            tracing::error!(%error, "a home could not be recounted after a command");
            false
        }
    }
}

fn over(usage: Usage, quota: QuotaLimits) -> bool {
    let passed = |used: u64, limit: Option<u64>| limit.is_some_and(|limit| used > limit);
    passed(usage.bytes, quota.bytes) || passed(usage.files, quota.files)
}

/// What the client is told.
fn ending(outcome: Option<Outcome>, over: bool) -> Ending {
    let Some(outcome) = outcome else {
        return lost();
    };
    let reason = match outcome.reason {
        None | Some(Reason::Gone) if over => {
            Some("over quota; nothing can be written until files are removed")
        }
        None | Some(Reason::Gone) => None,
        Some(Reason::WallClock) => Some("ended: it has run for too long"),
        Some(Reason::ProcessorTime) => Some("ended: it has used too much processor time"),
        Some(Reason::Memory) => Some("ended: it uses too much memory"),
        Some(Reason::Processes) => Some("ended: it has too many processes"),
        Some(Reason::Quota) => {
            Some("ended: over quota; nothing can be written until files are removed")
        }
    };
    let exit = match outcome.status {
        Status::Exited(code) => Exit::Status(u32::try_from(code).unwrap_or(255)),
        Status::Signalled(number) => match signals::name_of(number) {
            Some(name) => Exit::Signal(name),
            // As a shell has it.
            None => Exit::Status(u32::try_from(128 + number).unwrap_or(255)),
        },
    };
    Ending {
        exit,
        notice: reason.map(str::to_owned),
    }
}

/// How a command ends whose supervisor was killed.
fn lost() -> Ending {
    Ending {
        exit: Exit::Signal("KILL"),
        notice: Some("ended: its supervisor is gone".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::JoinHandle;

    use wharf_testkit::{ArrangedStorage, Counts};
    use wharf_vfs::{Ledger, NoJournal};

    #[test]
    fn only_the_language_and_the_terminal_are_set_by_clients() {
        let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let long = "x".repeat(MAX_VALUE_BYTES + 1);
        let wanted = vec![
            set("LANG", "de_DE.UTF-8"),
            set("LC_ALL", "C"),
            set("LD_PRELOAD", "/home/x.so"),
            set("PATH", "/tmp"),
            set("LC_all", "C"),
            set("LC_TIME", "a\nb"),
            set("LC_CTYPE", &long),
            set("TERM", "xterm"),
        ];
        let kept = environment(wanted);
        let names: Vec<&str> = kept.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["LANG", "LC_ALL", "TERM"]);
        let many = (0..100).map(|_| set("LC_ALL", "C")).collect();
        assert_eq!(environment(many).len(), MAX_VARIABLES);
    }

    const INTERVAL: Duration = Duration::from_secs(10);

    /// A command whose home is counted as a test has it.
    struct Watched {
        counts: Counts,
        /// The session's hold on it.
        requests: Option<mpsc::Sender<String>>,
        /// The supervisor's end.
        supervisor: Channel,
        ending: JoinHandle<Ending>,
        started: Instant,
    }

    impl Watched {
        /// With a quota of ten bytes, and `bytes` in the home.
        async fn with(bytes: u64) -> Self {
            let counts = Counts::of(Usage { bytes, files: 1 });
            let storage = Arc::new(ArrangedStorage::counted(counts.clone()));
            let ledger = Ledger::new(Usage::ZERO, true, Box::new(NoJournal));
            let home = Home::new(storage, ledger);
            let (ours, theirs) = wire::pair().expect("a pair");
            let warden = Warden {
                control: Channel::new(ours).expect("a socket"),
                quota: QuotaLimits {
                    bytes: Some(10),
                    files: None,
                },
                count_interval: INTERVAL,
                activity: home.ledger().begin_foreign().await.expect("a journal"),
                home,
            };
            let (requests, taken) = mpsc::channel(MAX_REQUESTS);
            Self {
                counts,
                requests: Some(requests),
                supervisor: Channel::new(theirs).expect("a socket"),
                ending: tokio::spawn(warden.watch(taken)),
                started: Instant::now(),
            }
        }

        async fn told(&self) -> Instruction {
            // By a clock that runs on when nothing else can.
            let coming = tokio::time::timeout(INTERVAL / 2, self.supervisor.receive());
            let message = coming.await.expect("told").expect("receives");
            message.expect("goes on").parse().expect("an instruction")
        }

        async fn ends(&self, reason: Option<Reason>) {
            let status = Status::Exited(0);
            let ended = Report::Ended(Outcome { status, reason });
            self.supervisor.tell(&ended).await.expect("tells");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn signals_and_the_end_of_the_client_are_heard_while_a_home_is_counted() {
        let mut watched = Watched::with(5).await;
        watched.counts.begun().await;
        assert_eq!(watched.started.elapsed(), INTERVAL);
        let requests = watched.requests.as_ref().expect("open");
        requests.send("HUP".to_owned()).await.expect("taken");
        let told = watched.told().await;
        assert!(
            matches!(&told, Instruction::Signal(name) if name == "HUP"),
            "{told:?}"
        );
        watched.requests = None;
        let told = watched.told().await;
        assert!(matches!(told, Instruction::End(Reason::Gone)), "{told:?}");
        // None of that took any time: the count goes on.
        assert_eq!(watched.started.elapsed(), INTERVAL);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_command_waits_ten_seconds_for_the_last_count_and_no_longer() {
        let watched = Watched::with(11).await;
        watched.ends(None).await;
        watched.counts.begun().await;
        let ending = watched.ending.await.expect("no panic");
        assert_eq!(watched.started.elapsed(), Duration::from_secs(10));
        assert_eq!((ending.exit, ending.notice), (Exit::Status(0), None));
        // One that is counted in time is told that it is over its quota.
        let watched = Watched::with(11).await;
        watched.ends(None).await;
        watched.counts.begun().await;
        tokio::time::sleep(Duration::from_secs(9)).await;
        watched.counts.end();
        let ending = watched.ending.await.expect("no panic");
        assert!(ending.notice.expect("told").contains("over quota"));
    }

    #[tokio::test(start_paused = true)]
    async fn slow_counts_take_a_twentieth_of_the_time_and_the_first_one_over_the_quota_ends_it() {
        let watched = Watched::with(11).await;
        watched.counts.begun().await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        watched.counts.end();
        let told = watched.told().await;
        assert!(matches!(told, Instruction::End(Reason::Quota)), "{told:?}");
        let watched = Watched::with(10).await;
        watched.counts.begun().await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        watched.counts.end();
        watched.counts.begun().await;
        let expected = INTERVAL + Duration::from_secs(60 + 20 * 60);
        assert_eq!(watched.started.elapsed(), expected);
    }

    #[test]
    fn an_ending_is_told_as_ssh_has_it() {
        let told = |status, reason, over| ending(Some(Outcome { status, reason }), over);
        let ended = told(Status::Exited(3), None, false);
        assert_eq!((ended.exit, ended.notice), (Exit::Status(3), None));
        let ended = told(Status::Signalled(9), Some(Reason::WallClock), false);
        assert_eq!(ended.exit, Exit::Signal("KILL"));
        assert!(ended.notice.expect("said").contains("too long"));
        // SIGXFSZ has no name in SSH.
        let ended = told(Status::Signalled(25), None, true);
        assert_eq!(ended.exit, Exit::Status(153));
        assert!(ended.notice.expect("said").contains("over quota"));
    }
}
