//! Two accounts, what starts their commands, and a client of one.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cap_std::fs::Dir;
use nix::unistd::{User, geteuid};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use wharf_accounts::{Account, ExecPolicy, TlsPolicy};
use wharf_model::{AccountId, NetworkSet, PermissionRules, QuotaLimits};
use wharf_process::{Limits, Places, Processes};
use wharf_server::process::{
    Client, Ending, Exit, Invocation, Process, ProcessError, ProcessRunner, TerminalSize,
};
use wharf_vfs::storage::Storage as _;
use wharf_vfs::storage::local::{LocalOptions, LocalStorage};
use wharf_vfs::{Home, Ledger, NoJournal};

/// Longest time that any single step may take before the test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// How the commands are kept apart from the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// With namespaces, where there are some.
    Whole,
    /// As one that gives none to those without privileges.
    WithoutNamespaces,
}

/// What a command may use, where a test does not say otherwise.
pub(crate) fn limits() -> Limits {
    Limits {
        commands: 10,
        wall_clock: PATIENCE,
        processor_time: PATIENCE,
        memory_bytes: 1 << 30,
        processes: 100,
        open_files: 256,
        count_interval: PATIENCE,
        file_bytes: None,
    }
}

/// A data directory with two homes, and alice's account.
pub(crate) struct Fixture {
    directory: tempfile::TempDir,
    pub(crate) processes: Processes,
    pub(crate) account: Account,
    pub(crate) home: Arc<Home>,
}

impl Fixture {
    /// None, loudly, where the kernel cannot confine.
    pub(crate) async fn new() -> Option<Self> {
        Self::with(Kernel::Whole, limits()).await
    }

    pub(crate) async fn with(kernel: Kernel, limits: Limits) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a directory");
        allow(directory.path(), 0o755);
        let data = directory.path().join("data");
        for home in ["alice", "bob"] {
            std::fs::create_dir_all(data.join("homes").join(home)).expect("made");
        }
        for secret in ["wharf.db", "homes/bob/letter"] {
            std::fs::write(data.join(secret), "secret").expect("written");
        }
        give_to_user(&data);
        let launcher = launcher(kernel);
        let home = data.join("homes/alice");
        let fixture = Self {
            processes: Processes::prepare(launcher, limits, places(&data)),
            account: account(&home),
            home: open(&home).await,
            directory,
        };
        match fixture.run("true").await {
            Err(ProcessError::CannotConfine(why)) => {
                eprintln!("SKIPPED: {why}");
                None
            }
            ran => {
                assert_eq!(ran.expect("runs").exit, Exit::Status(0));
                Some(fixture)
            }
        }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub(crate) fn home_path(&self) -> &Path {
        &self.account.home
    }

    pub(crate) async fn start(&self, invocation: Invocation) -> Result<Process, ProcessError> {
        let starting = self.processes.start(&self.account, &self.home, invocation);
        tokio::time::timeout(PATIENCE, starting)
            .await
            .expect("starts in time")
    }

    /// What `command` writes without input, and how it ends.
    pub(crate) async fn run(&self, command: &str) -> Result<Ran, ProcessError> {
        self.run_with(command, &[][..]).await
    }

    pub(crate) async fn run_with(
        &self,
        command: &str,
        stdin: impl AsyncRead + Unpin,
    ) -> Result<Ran, ProcessError> {
        let process = self.start(line(command)).await?;
        let (client, _other) = client(stdin, Vec::new());
        let (stdout, stderr, ending) = attend(process, client).await;
        Ok(Ran {
            stdout,
            stderr,
            exit: ending.exit,
        })
    }

    /// What `command` writes; it must succeed.
    pub(crate) async fn output(&self, command: &str) -> String {
        let ran = self.run(command).await.expect("starts");
        assert_eq!(ran.exit, Exit::Status(0), "{command}: {}", ran.errors());
        ran.text()
    }
}

/// What came of a command.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) exit: Exit,
}

impl Ran {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub(crate) fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// A command line, without a terminal.
pub(crate) fn line(command: &str) -> Invocation {
    Invocation {
        command: Some(command.into()),
        ..Invocation::default()
    }
}

/// The other side of a client.
pub(crate) struct Remote {
    pub(crate) signals: mpsc::Sender<String>,
    pub(crate) size: watch::Sender<TerminalSize>,
    pub(crate) closed: CancellationToken,
}

/// A client whose errors are collected.
pub(crate) fn client<I, O>(stdin: I, stdout: O) -> (Client<I, O, Vec<u8>>, Remote) {
    let (signals, sent) = mpsc::channel(1);
    let (size, shown) = watch::channel(TerminalSize::default());
    let closed = CancellationToken::new();
    let client = Client {
        stdin,
        stdout,
        stderr: Vec::new(),
        signals: sent,
        size: Some(shown),
        closed: closed.clone(),
    };
    let remote = Remote {
        signals,
        size,
        closed,
    };
    (client, remote)
}

/// Attends to a process whose client keeps what it gets: outputs, errors, ending.
pub(crate) async fn attend<I: AsyncRead + Unpin>(
    process: Process,
    client: Client<I, Vec<u8>, Vec<u8>>,
) -> (Vec<u8>, Vec<u8>, Ending) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let client = Client {
        stdin: client.stdin,
        stdout: &mut stdout,
        stderr: &mut stderr,
        signals: client.signals,
        size: client.size,
        closed: client.closed,
    };
    let ending = tokio::time::timeout(PATIENCE, process.attend(client))
        .await
        .expect("ends in time");
    (stdout, stderr, ending)
}

/// Input that never comes, and never ends.
pub(crate) struct Silence;

impl AsyncRead for Silence {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        _cx: &mut std::task::Context<'_>,
        _buffer: &mut ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Pending
    }
}

/// What runs commands in `data`, as `launcher` does.
pub(crate) fn places(data: &Path) -> Places {
    Places {
        data: data.to_path_buf(),
        secrets: Vec::new(),
    }
}

/// The executable as a launcher, as a user without privileges.
pub(crate) fn launcher(kernel: Kernel) -> Command {
    let executable = env!("CARGO_BIN_EXE_wharf");
    let mut command = wharf_process::launcher(Path::new(executable));
    if kernel == Kernel::WithoutNamespaces {
        command = Command::new("unshare");
        command.args(["--user", "--map-current-user", "--keep-caps", "sh", "-c"]);
        command.arg("echo 0 >/proc/sys/user/max_user_namespaces && exec setpriv --inh-caps=-all --ambient-caps=-all \"$@\"");
        command.args(["sh", executable, wharf_process::SUBCOMMAND, "launch"]);
    }
    if let Some(user) = user() {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    command
}

/// As whom commands run: nobody, where the test is root.
pub(crate) fn user() -> Option<User> {
    let nobody = || User::from_name("nobody").expect("asked").expect("is there");
    geteuid().is_root().then(nobody)
}

/// Gives all that is at `path` to who commands run as.
pub(crate) fn give_to_user(path: &Path) {
    let Some(user) = user() else { return };
    let ids = (user.uid.as_raw(), user.gid.as_raw());
    std::os::unix::fs::chown(path, Some(ids.0), Some(ids.1)).expect("root may");
    if path.is_dir() {
        for entry in std::fs::read_dir(path).expect("is there") {
            give_to_user(&entry.expect("is there").path());
        }
    }
}

pub(crate) fn allow(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("ours");
}

fn account(home: &Path) -> Account {
    Account {
        id: AccountId(1),
        name: "alice".parse().expect("a name"),
        home: std::fs::canonicalize(home).expect("is there"),
        quota: QuotaLimits::default(),
        permissions: PermissionRules::default(),
        tls: TlsPolicy::Inherit,
        data_tls: TlsPolicy::Inherit,
        exec: ExecPolicy::Shell,
        disabled: false,
        expires: None,
        max_sessions: None,
        created: SystemTime::UNIX_EPOCH,
        allow_from: NetworkSet::default(),
        deny_from: NetworkSet::default(),
    }
}

async fn open(path: &Path) -> Arc<Home> {
    let root = Dir::open_ambient_dir(path, cap_std::ambient_authority()).expect("is there");
    let storage = LocalStorage::new(root, LocalOptions::default());
    let usage = storage.measure().await.expect("counts");
    Home::new(
        Arc::new(storage),
        Ledger::new(usage, false, Box::new(NoJournal)),
    )
}

/// Processes that have `mark` among their arguments.
pub(crate) fn marked(mark: &str) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").expect("is there");
    let processes =
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let is_marked = |pid: &i32| {
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        arguments
            .split(|byte| *byte == 0)
            .any(|argument| argument == mark.as_bytes())
    };
    processes.filter(is_marked).collect()
}

/// Waits for `condition`.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(waited.is_ok(), "{what}");
}
