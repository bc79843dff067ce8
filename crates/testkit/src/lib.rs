//! What the integration tests share: the real binary, a raw FTP peer, the
//! real clients and servers of others, and a storage that does as a test says.
//!
//! Everything here panics with what it saw; a test that uses it shows why it failed.

#![expect(
    clippy::disallowed_methods,
    reason = "tests own the directories that they make"
)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

mod openssh;
mod peer;
mod relay;
mod sshd;
mod storage;
mod streams;

pub use openssh::{OpenSsh, Proof};
pub use peer::Peer;
pub use relay::DelayingRelay;
pub use sshd::{Agent, PASSPHRASE, Sshd};
pub use storage::{ArrangedStorage, Counts, Gate, SLOW};
pub use streams::Wire;

/// Longest time that any single step may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A data directory, and the binary that works on it.
pub struct Wharf {
    binary: PathBuf,
    directory: tempfile::TempDir,
}

impl Wharf {
    /// A fresh data directory for `binary`.
    pub fn new(binary: &str) -> Self {
        Self {
            binary: binary.into(),
            directory: tempfile::tempdir().expect("a temporary directory"),
        }
    }

    /// A folder of the test's own beside the data directory.
    pub fn scratch(&self) -> PathBuf {
        let scratch = self.directory.path().join("scratch");
        std::fs::create_dir_all(&scratch).expect("a directory");
        scratch
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// The home that `add_user` gives.
    pub fn home(&self, user: &str) -> PathBuf {
        self.data().join("homes").join(user)
    }

    /// The command with its data directory.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(arguments).env("WHARF_DATA_DIR", self.data());
        command.env_remove("RUST_LOG");
        command
    }

    /// Runs the command to its end with `input`; its output, and whether it succeeded.
    pub fn run(&self, arguments: &[&str], input: &str) -> (bool, String, String) {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        // A command that reads nothing may be gone already.
        let _ = child
            .stdin
            .take()
            .expect("piped")
            .write_all(input.as_bytes());
        let output = child.wait_with_output().expect("ends");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (
            output.status.success(),
            text(output.stdout),
            text(output.stderr),
        )
    }

    /// Writes a configuration file; its path, for `--config`.
    pub fn configure(&self, text: &str) -> String {
        let path = self.scratch().join("wharf.toml");
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("text").to_owned()
    }

    /// Adds an account whose password is `secret`.
    pub fn add_user(&self, name: &str, options: &[&str]) {
        let arguments = [&["user", "add", name, "--password-stdin"], options].concat();
        let (success, _, errors) = self.run(&arguments, "secret\n");
        assert!(success, "{errors}");
    }

    /// `bytes_used` and `files_used` of an account.
    pub fn usage(&self, name: &str) -> (u64, u64) {
        let (success, output, errors) = self.run(&["user", "usage", name, "--json"], "");
        assert!(success, "{errors}");
        let value: serde_json::Value = serde_json::from_str(&output).expect("JSON");
        let number = |key: &str| {
            value
                .get(key)
                .and_then(serde_json::Value::as_u64)
                .expect("a number")
        };
        (number("bytes_used"), number("files_used"))
    }

    /// Starts `wharf serve` on a free port and waits until it listens.
    pub fn serve(&self, options: &[&str]) -> Server {
        self.serve_prepared(options, |_| ())
    }

    /// The same with a command that `prepare` has changed, such as its environment.
    pub fn serve_prepared(&self, options: &[&str], prepare: impl FnOnce(&mut Command)) -> Server {
        let listen = ["serve", "--ftp", "127.0.0.1:0,[::1]:0"];
        let mut command = self.command(&[&listen, SERVE_OPTIONS, options].concat());
        prepare(&mut command);
        Server::start(command, 2, options)
    }

    /// Starts `wharf serve` with a socket that is passed on as systemd does it,
    /// under the name that its unit would give it.
    pub fn serve_activated(&self, name: &str, listener: TcpListener, options: &[&str]) -> Server {
        // The first descriptor that is passed is 3, and the server must be the
        // process that the environment names, sd_listen_fds(3).
        let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ exec \"$0\" \"$@\"";
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).arg(&self.binary).arg("serve");
        command.args(SERVE_OPTIONS).args(options);
        command.env("WHARF_DATA_DIR", self.data());
        command.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", name);
        command.stdin(OwnedFd::from(listener));
        Server::start(command, 1, options)
    }
}

/// What every server of a test is started with.
const SERVE_OPTIONS: &[&str] = &["--passive-ports", "0-0", "--log-format", "json"];

fn listening(log: &mut impl std::io::BufRead, seen: &mut Vec<String>) -> SocketAddr {
    loop {
        let mut line = String::new();
        let length = log.read_line(&mut line).expect("a log");
        assert!(
            length > 0,
            "the server ended before it listened: {}",
            seen.concat()
        );
        let event: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        seen.push(line);
        if event.get("message").and_then(serde_json::Value::as_str) == Some("listening") {
            let address = event.get("address").and_then(serde_json::Value::as_str);
            return address
                .and_then(|text| text.parse().ok())
                .expect("an address");
        }
    }
}

/// A running server; killed when it is dropped.
pub struct Server {
    child: Child,
    addresses: Vec<SocketAddr>,
    implicit: Option<SocketAddr>,
    ssh: Option<SocketAddr>,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Starts it and waits until it listens for FTP in `plain` places, and then
    /// where `options` say so for implicit FTPS and SSH.
    fn start(mut command: Command, plain: usize, options: &[&str]) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("starts");
        let mut log = BufReader::new(child.stderr.take().expect("piped"));
        let mut seen = Vec::new();
        let addresses = (0..plain).map(|_| listening(&mut log, &mut seen)).collect();
        let mut other = |option| {
            let is_served = options.contains(&option);
            is_served.then(|| listening(&mut log, &mut seen))
        };
        let (implicit, ssh) = (other("--ftps"), other("--ssh"));
        let lines = Arc::new(Mutex::new(seen));
        let seen = Arc::clone(&lines);
        // The log must be read on, or the server would wait for us.
        std::thread::spawn(move || {
            let mut line = String::new();
            while log.read_line(&mut line).is_ok_and(|length| length > 0) {
                if std::env::var_os("WHARF_TEST_LOG").is_some() {
                    eprint!("{line}");
                }
                seen.lock()
                    .expect("no panic")
                    .push(std::mem::take(&mut line));
            }
        });
        Self {
            child,
            addresses,
            implicit,
            ssh,
            lines,
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens on IPv4.
    pub fn v4(&self) -> SocketAddr {
        *self.addresses.first().expect("it listens")
    }

    /// Where it listens on IPv6.
    pub fn v6(&self) -> SocketAddr {
        *self.addresses.get(1).expect("it listens on IPv6")
    }

    /// Where it listens for implicit FTPS, if it was started with `--ftps`.
    pub fn ftps(&self) -> SocketAddr {
        self.implicit.expect("started with --ftps")
    }

    /// Where it listens for SSH, if it was started with `--ssh`.
    pub fn ssh(&self) -> SocketAddr {
        self.ssh.expect("started with --ssh")
    }

    /// Waits until a line of the log has all of `parts`; that line.
    pub fn await_log(&self, parts: &[&str]) -> String {
        let started = Instant::now();
        loop {
            let lines = self.log();
            if let Some(line) = lines
                .iter()
                .find(|line| parts.iter().all(|part| line.contains(part)))
            {
                return line.clone();
            }
            assert!(
                started.elapsed() < PATIENCE,
                "{parts:?} is not in {lines:#?}"
            );
            std::thread::yield_now();
        }
    }

    /// The lines of its log so far.
    pub fn log(&self) -> Vec<String> {
        self.lines.lock().expect("no panic").clone()
    }

    /// The lines of `/proc/PID/status` of each of its threads.
    pub fn threads(&self) -> Vec<String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("runs");
        // A thread may end meanwhile.
        tasks
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("status")).ok())
            .collect()
    }

    /// The numbers of the processes that it has started and that have not ended.
    pub fn children(&self) -> Vec<u32> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("runs");
        let children = tasks
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
        let children: Vec<String> = children.collect();
        let numbers = children.iter().flat_map(|line| line.split_whitespace());
        numbers
            .map(|number| number.parse().expect("a number"))
            .collect()
    }

    /// `kill -9`, and wait until it is gone.
    pub fn kill(mut self) {
        self.child.kill().expect("runs");
        self.child.wait().expect("ends");
    }

    /// Sends a signal by name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args(["-s", name, &self.child.id().to_string()])
            .status()
            .expect("runs");
        assert!(status.success());
    }

    /// Waits for its end; whether it succeeded.
    pub fn wait(mut self) -> bool {
        self.child.wait().expect("ends").success()
    }

    /// Its memory in use, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("runs");
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .expect("a line");
        let kib = line
            .split_whitespace()
            .nth(1)
            .and_then(|number| number.parse::<u64>().ok());
        kib.expect("a number") * 1024
    }

    /// What its open descriptors are, as the kernel names them: paths, `socket:[…]`.
    pub fn descriptors(&self) -> Vec<String> {
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("runs");
        // One that is closed meanwhile has no target any more.
        let targets = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        targets.map(|target| target.display().to_string()).collect()
    }

    /// A session of `user`.
    pub fn login(&self, user: &str) -> Ftp {
        let mut ftp = Ftp::connect(self.v4());
        ftp.log_in(user);
        ftp
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A control connection that says exactly what it is told to.
pub struct Ftp {
    control: BufReader<TcpStream>,
    /// The server's address.
    pub address: SocketAddr,
}

/// A reply: its code, and all its lines.
pub type Reply = (u16, String);

impl Ftp {
    /// Connects and takes the greeting.
    pub fn connect(address: SocketAddr) -> Self {
        let (greeting, ftp) = Self::greeted(address);
        assert_eq!(greeting.0, 220, "{greeting:?}");
        ftp
    }

    fn open(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).expect("connects");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        socket.set_nodelay(true).expect("a socket");
        Self {
            control: BufReader::new(socket),
            address,
        }
    }

    /// Connects; the first reply, and the connection.
    pub fn greeted(address: SocketAddr) -> (Reply, Self) {
        let mut ftp = Self::open(address);
        (ftp.reply(), ftp)
    }

    /// USER and PASS, TYPE I.
    pub fn log_in(&mut self, user: &str) {
        assert_eq!(self.command(&format!("USER {user}")).0, 331);
        assert_eq!(self.command("PASS secret").0, 230);
        assert_eq!(self.command("TYPE I").0, 200);
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.control.get_mut().write_all(bytes).expect("writes");
    }

    /// Sends bytes as TCP's urgent data, the last of them at its mark.
    pub fn send_urgent(&mut self, bytes: &[u8]) {
        let sent = socket2::SockRef::from(self.control.get_ref())
            .send_out_of_band(bytes)
            .expect("writes");
        assert_eq!(sent, bytes.len());
    }

    /// Sends a line and takes the reply.
    pub fn command(&mut self, line: &str) -> Reply {
        self.send(format!("{line}\r\n").as_bytes());
        self.reply()
    }

    /// Takes one reply, of one line or several.
    pub fn reply(&mut self) -> Reply {
        let mut text = String::new();
        loop {
            let start = text.len();
            let length = self.control.read_line(&mut text).expect("a reply");
            assert!(
                length > 0,
                "the server closed the connection after {text:?}"
            );
            let line = &text[start..];
            let code: Option<u16> = line.get(..3).and_then(|digits| digits.parse().ok());
            if let (Some(code), Some(" ")) = (code, line.get(3..4)) {
                return (code, text);
            }
        }
    }

    /// Whether the server has closed the connection.
    pub fn is_closed(&mut self) -> bool {
        matches!(self.control.read(&mut [0]), Ok(0) | Err(_))
    }

    /// A passive data connection.
    pub fn passive(&mut self) -> TcpStream {
        let (code, text) = self.command("EPSV");
        assert_eq!(code, 229, "{text}");
        let port = text
            .split('|')
            .nth(3)
            .and_then(|port| port.parse().ok())
            .expect("a port");
        TcpStream::connect(SocketAddr::new(self.address.ip(), port)).expect("connects")
    }

    /// An active data connection that the server makes for `command`; its first reply too.
    pub fn active(&mut self, command: &str) -> (TcpStream, Reply) {
        let listener = TcpListener::bind(SocketAddr::new(
            self.control.get_ref().local_addr().expect("bound").ip(),
            0,
        ))
        .expect("a port");
        let address = listener.local_addr().expect("bound");
        let family = if address.is_ipv4() { 1 } else { 2 };
        let prepared = self.command(&format!(
            "EPRT |{family}|{}|{}|",
            address.ip(),
            address.port()
        ));
        assert_eq!(prepared.0, 200, "{prepared:?}");
        let reply = self.command(command);
        (listener.accept().expect("the server connects").0, reply)
    }

    /// A whole upload by `command`; the final reply.
    pub fn upload(&mut self, command: &str, content: &[u8]) -> Reply {
        let mut data = self.passive();
        let first = self.command(command);
        if first.0 != 150 {
            return first;
        }
        // A server that refuses midway closes the connection.
        let _ = data.write_all(content);
        drop(data);
        self.reply()
    }

    /// A whole download or listing by `command`; its bytes, and the final reply.
    pub fn download(&mut self, command: &str) -> (Vec<u8>, Reply) {
        let mut data = self.passive();
        let first = self.command(command);
        if first.0 != 150 {
            return (Vec::new(), first);
        }
        let mut content = Vec::new();
        data.read_to_end(&mut content).expect("reads");
        (content, self.reply())
    }
}

/// Bytes that look like no others: a xorshift sequence from `seed`.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Bytes of all regular files below `directory`, and the number of entries.
pub fn count(directory: &Path) -> (u64, u64) {
    let mut total = (0, 0);
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let entry = entry.expect("an entry");
        let metadata = entry.metadata().expect("facts");
        total.1 += 1;
        if metadata.is_dir() {
            let below = count(&entry.path());
            total = (total.0 + below.0, total.1 + below.1);
        } else if metadata.is_file() {
            total.0 += metadata.len();
        }
    }
    total
}

/// Whether a program is installed. Where `WHARF_TEST_REQUIRE_PEERS` is set, a
/// missing one fails the test; elsewhere the test says that it is skipped.
pub fn has_program(name: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(name).is_file()));
    if !found {
        assert!(
            std::env::var_os("WHARF_TEST_REQUIRE_PEERS").is_none(),
            "{name} is not installed; .ci/run shows how to get it"
        );
        eprintln!("SKIPPED: {name} is not installed; .ci/run shows how to get it");
    }
    found
}
