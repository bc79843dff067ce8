//! Examples as processes: started, spoken to, and gone with the test.

#![allow(dead_code, reason = "each test binary uses its part of it")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use wharf_net::Endpoint;

/// Longer than anything takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A program that is spoken to; killed when it is dropped.
pub(crate) struct Program {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

/// A program that serves.
pub(crate) struct Example {
    pub(crate) program: Program,
    /// Where it listens.
    pub(crate) endpoint: Endpoint,
}

fn command(name: &str) -> Command {
    Command::new(program(name))
}

/// An example's program: beside the folder of this test's.
pub(crate) fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("this test");
    let folder = own.parent().and_then(|deps| deps.parent());
    let program = folder.expect("two folders").join("examples").join(name);
    assert!(
        program.exists(),
        "build the examples first, as `cargo test -p wharf-net` does: {} is missing",
        program.display()
    );
    program
}

impl Program {
    pub(crate) fn start(name: &str, words: &[&str]) -> Self {
        let mut command = command(name);
        command.args(words);
        Self::start_command(command)
    }

    pub(crate) fn start_command(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        Self {
            input: child.stdin.take(),
            output: BufReader::new(child.stdout.take().expect("piped")),
            child,
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn say(&mut self, text: &str) {
        let input = self.input.as_mut().expect("open");
        input.write_all(text.as_bytes()).expect("writes");
    }

    /// Waits for its next line.
    pub(crate) fn hear(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a line");
        line
    }

    pub(crate) fn hang_up(&mut self) {
        self.input = None;
    }

    /// Waits until it ends by itself, and returns what else it said.
    pub(crate) fn ended(mut self) -> String {
        let mut told = String::new();
        self.output.read_to_string(&mut told).expect("text");
        assert!(self.child.wait().expect("ends").success());
        told
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Example {
    /// Starts it, and waits until it listens.
    pub(crate) fn start(name: &str, words: &[&str]) -> Self {
        Self::of(Program::start(name, words))
    }

    /// Any program that says where it listens in its first line.
    pub(crate) fn of(mut program: Program) -> Self {
        let line = program.hear();
        let endpoint = line.trim().strip_prefix("listening on ");
        let endpoint = endpoint.and_then(|text| text.parse().ok());
        Self {
            program,
            endpoint: endpoint.unwrap_or_else(|| panic!("{line:?} instead of an endpoint")),
        }
    }

    /// Where it listens, as a word for a client.
    pub(crate) fn word(&self) -> String {
        self.endpoint.to_string()
    }
}

/// Runs an example to its end, which must be a good one, and returns what it said.
pub(crate) fn run(name: &str, words: &[&str], input: &[u8]) -> String {
    let mut command = command(name);
    command.args(words);
    run_command(command, input)
}

/// The same for any program.
pub(crate) fn run_command(command: Command, input: &[u8]) -> String {
    let shown = format!("{command:?}");
    let Program {
        child,
        input: stdin,
        output,
    } = &mut Program::start_command(command);
    let mut stdin = stdin.take().expect("piped");
    stdin.write_all(input).expect("writes");
    drop(stdin);
    let mut told = String::new();
    output.read_to_string(&mut told).expect("text");
    assert!(child.wait().expect("ends").success(), "{shown}");
    told
}

/// Runs an example that must fail, and returns what it complains of.
pub(crate) fn fail(name: &str, words: &[&str]) -> String {
    let output = command(name).args(words).output().expect("starts");
    assert!(!output.status.success(), "{name} {words:?}");
    String::from_utf8(output.stderr).expect("text")
}
