//! A furnished home, commands run in it, and the same by the real tools.

use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use tokio::io::AsyncReadExt as _;
use tokio_util::sync::CancellationToken;
use wharf_model::{PermissionRules, QuotaLimits, VirtualPath};
use wharf_server::activity::Activity;
use wharf_server::exec::{Streams, run};
use wharf_server::registry::Transfers;
use wharf_server::sftp::{AttributePolicy, SftpOptions};
use wharf_vfs::storage::Storage;
use wharf_vfs::storage::local::{LocalOptions, LocalStorage};
use wharf_vfs::storage::memory::MemoryStorage;
use wharf_vfs::{Home, Ledger, NoJournal, Vfs};

/// What a command line came to.
#[derive(PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) status: u8,
    pub(crate) output: Vec<u8>,
    pub(crate) errors: Vec<u8>,
}

impl fmt::Debug for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {:?} {:?}",
            self.status,
            String::from_utf8_lossy(&self.output),
            String::from_utf8_lossy(&self.errors)
        )
    }
}

impl Ran {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }

    pub(crate) fn error_text(&self) -> String {
        String::from_utf8_lossy(&self.errors).into_owned()
    }
}

/// A home on the disk.
pub(crate) struct Room {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) vfs: Vfs,
}

impl Room {
    pub(crate) async fn empty() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self::on(
            directory,
            PermissionRules::default(),
            QuotaLimits::default(),
        )
        .await
    }

    pub(crate) async fn furnished() -> Self {
        Self::furnished_with(PermissionRules::default(), QuotaLimits::default()).await
    }

    pub(crate) async fn furnished_with(rules: PermissionRules, limits: QuotaLimits) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        furnish(directory.path());
        Self::on(directory, rules, limits).await
    }

    async fn on(directory: tempfile::TempDir, rules: PermissionRules, limits: QuotaLimits) -> Self {
        let vfs = Self::at(directory.path(), rules, limits).await;
        Self { directory, vfs }
    }

    /// What a server sees whose home is a directory of somebody else.
    pub(crate) async fn at(home: &Path, rules: PermissionRules, limits: QuotaLimits) -> Vfs {
        let root = Dir::open_ambient_dir(home, ambient_authority()).expect("opens");
        let storage = LocalStorage::new(root, LocalOptions::default());
        vfs_on(Arc::new(storage), rules, limits).await
    }

    /// A file without a block on the disk.
    pub(crate) fn make_sparse(&self, name: &str, bytes: u64) {
        let home = Dir::open_ambient_dir(self.directory.path(), ambient_authority());
        let file = home.expect("opens").create(name).expect("made");
        file.set_len(bytes).expect("set");
    }

    pub(crate) async fn run(&self, line: &str, input: &[u8]) -> Ran {
        run_on(&self.vfs, line.as_bytes(), input).await
    }
}

/// A home in memory, empty and without a limit.
pub(crate) async fn in_memory() -> Vfs {
    in_memory_with(PermissionRules::default(), QuotaLimits::default()).await
}

/// A home in memory.
pub(crate) async fn in_memory_with(rules: PermissionRules, limits: QuotaLimits) -> Vfs {
    vfs_on(Arc::new(MemoryStorage::new()), rules, limits).await
}

/// A session of `alice`.
pub(crate) fn sftp_options(stop: CancellationToken) -> SftpOptions {
    SftpOptions {
        account: Bytes::from_static(b"alice"),
        attributes: AttributePolicy::Refuse,
        activity: Activity::default(),
        transfers: Transfers::unseen(),
        stop,
    }
}

pub(crate) async fn vfs_on(
    storage: Arc<dyn Storage>,
    rules: PermissionRules,
    limits: QuotaLimits,
) -> Vfs {
    let usage = storage.measure().await.expect("counts");
    let home = Home::new(storage, Ledger::new(usage, true, Box::new(NoJournal)));
    Vfs::new(home, rules, limits)
}

/// Runs a command line to its end, with all of its output in memory.
pub(crate) async fn run_on(vfs: &Vfs, line: &[u8], input: &[u8]) -> Ran {
    let (output, mut output_end) = tokio::io::duplex(4096);
    let (errors, mut errors_end) = tokio::io::duplex(4096);
    let streams = Streams::new(std::io::Cursor::new(input.to_vec()), output, errors);
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    let home = VirtualPath::root();
    let (status, _, _) = tokio::join!(
        run(line, vfs, &home, streams),
        output_end.read_to_end(&mut output),
        errors_end.read_to_end(&mut errors),
    );
    Ran {
        status: status.code(),
        output,
        errors,
    }
}

/// The same by bash and GNU's tools, in a copy of the furnished home.
pub(crate) fn ran_by_bash(line: &str, input: &[u8]) -> Ran {
    let directory = tempfile::tempdir().expect("a directory");
    furnish(directory.path());
    let mut child = Command::new("bash")
        .args(["-c", line])
        .current_dir(directory.path())
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("bash runs");
    std::io::Write::write_all(&mut child.stdin.take().expect("a pipe"), input).expect("written");
    let done = child.wait_with_output().expect("ends");
    Ran {
        status: u8::try_from(done.status.code().expect("a code")).expect("a byte"),
        output: done.stdout,
        errors: done.stderr,
    }
}

/// Names, content, modes and times that are the same each time.
pub(crate) fn furnish(directory: &Path) {
    let root = Dir::open_ambient_dir(directory, ambient_authority()).expect("opens");
    root.create_dir_all("sub/deep/leaf").expect("made");
    let lines: String = (1..=30).map(|number| format!("{number}\n")).collect();
    for (name, content) in [
        ("a.txt", &b"alpha beta\n"[..]),
        ("lines", lines.as_bytes()),
        ("no-line-end", b"1\n2\n3"),
        ("utf8", "grün äöü\n".as_bytes()),
        ("empty", b""),
        ("big", &[b'x'; 5000]),
        (".hidden", b"h"),
        ("a name with spaces", b"s"),
        ("it's", b"q"),
        ("sub/inner", b"inner\n"),
        ("sub/deep/leaf.txt", b"leaf\n"),
    ] {
        root.write(name, content).expect("written");
        set_time(directory, name);
    }
    for name in ["sub/deep/leaf", "sub/deep", "sub"] {
        set_time(directory, name);
    }
}

/// A time of its own for each name, long ago.
fn set_time(directory: &Path, name: &str) {
    let seconds = 1_000_000_000 + name.bytes().map(u64::from).sum::<u64>() * 60;
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let root = Dir::open_ambient_dir(directory, ambient_authority()).expect("opens");
    let file = root.open(name).expect("opens").into_std();
    file.set_modified(time).expect("set");
    let mode = if file.metadata().expect("facts").is_dir() {
        0o755
    } else {
        0o644
    };
    let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
    file.set_permissions(mode).expect("set");
}
