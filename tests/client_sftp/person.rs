//! A person who runs the client, in a home of their own.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use serde_json::Value;

/// A home, which is also the folder where commands run.
pub(crate) struct Person {
    home: tempfile::TempDir,
}

impl Person {
    /// Somebody without keys, who has met no server.
    pub(crate) fn new() -> Self {
        Self {
            home: tempfile::tempdir().expect("a temporary directory"),
        }
    }

    /// A place in the home.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: &[u8]) {
        write(&self.file(name), content);
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.file(name)).expect(name)
    }

    pub(crate) fn client(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wharf"));
        command
            .args(arguments)
            .current_dir(self.home.path())
            .env("HOME", self.home.path())
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("SSH_AUTH_SOCK")
            .env_remove("WHARF_PASSWORD")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.client(arguments).output().expect("starts")
    }

    /// Runs a command that must succeed; its standard output.
    pub(crate) fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs a command that must end with `code`; its standard error.
    pub(crate) fn fail(&self, arguments: &[&str], code: i32) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        errors
    }

    /// The object of the one file that a command with `--json` transferred.
    pub(crate) fn transferred(&self, arguments: &[&str]) -> Value {
        let told = self.succeed(arguments);
        told.lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("one object a line"))
            .find(|object| object["event"] == "transferred")
            .expect("a transfer")
    }

    /// Starts a transfer with `--json` and a low rate, and kills it once it has told progress.
    pub(crate) fn cut(&self, arguments: &[&str]) {
        let slow = [arguments, &["--json", "--limit-rate", "4MiB"]].concat();
        let mut child = self.client(&slow).spawn().expect("starts");
        await_progress(&mut child);
        child.kill().expect("killed");
        child.wait().expect("ends");
    }

    /// Runs the client at a terminal of 24 rows and 80 columns, as a script of Python behind
    /// [`EXPECT`] has it used.
    pub(crate) fn at_terminal(&self, script: &str, arguments: &[&str]) {
        let output = Command::new("python3")
            .args(["-c", script, env!("CARGO_BIN_EXE_wharf")])
            .args(arguments)
            .current_dir(self.home.path())
            .env("HOME", self.home.path())
            .env_remove("SSH_AUTH_SOCK")
            .env_remove("WHARF_PASSWORD")
            .env("TERM", "xterm")
            .output()
            .expect("starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
    }
}

/// Waits until a command with `--json` tells progress; the rest of what it tells.
pub(crate) fn await_progress(child: &mut Child) -> BufReader<ChildStdout> {
    let mut told = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    while !line.contains("\"progress\"") {
        line.clear();
        let length = told.read_line(&mut line).expect("reads");
        assert!(length > 0, "it ended before it could be cut");
    }
    told
}

/// Writes a file, and makes the folders above it.
pub(crate) fn write(path: &Path, content: &[u8]) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    std::fs::write(path, content).expect("written");
}

/// How a script uses the terminal: `expect(text)`, `send(text)`, `end(exit code)`.
pub(crate) const EXPECT: &str = r#"
import os, pty, select, sys, time, fcntl, struct, termios
def fail(what): sys.exit(what + ": " + repr(seen))
pid, terminal = pty.fork()
if pid == 0:
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 80, 0, 0))
    os.execv(sys.argv[1], sys.argv[1:])
seen = b""
def expect(text):
    global seen
    deadline = time.monotonic() + 60
    while text not in seen:
        ready, _, _ = select.select([terminal], [], [], max(0, deadline - time.monotonic()))
        if not ready: fail("waited for " + repr(text))
        try: piece = os.read(terminal, 65536)
        except OSError: fail("ended before " + repr(text))
        if not piece: fail("ended before " + repr(text))
        seen += piece
    seen = seen[seen.index(text) + len(text):]
def send(text): os.write(terminal, text)
def end(code):
    _, status = os.waitpid(pid, 0)
    if os.waitstatus_to_exitcode(status) != code: fail("exit " + str(status))
"#;
