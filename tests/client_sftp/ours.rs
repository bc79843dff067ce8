//! Against Wharf's own server.

use std::io::{BufRead as _, BufReader, Write as _};
use std::ops::Deref;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use wharf_testkit::{Server, Wharf, has_program, noise};

use crate::person::{EXPECT, Person, await_progress, write};

struct Setting {
    wharf: Wharf,
    server: Server,
    person: Person,
}

/// A server that the person has met. alice has the password `secret`, which the person knows
/// by their `.netrc`; her account has `options`.
fn setting(options: &[&str]) -> Setting {
    let wharf = Wharf::new(env!("CARGO_BIN_EXE_wharf"));
    wharf.add_user("alice", options);
    let file = wharf.configure("[login]\ndelay = \"0s\"\n");
    let server = wharf.serve(&["--ssh", "127.0.0.1:0", "--config", &file]);
    let person = Person::new();
    person.write(".netrc", NETRC);
    let setting = Setting {
        wharf,
        server,
        person,
    };
    setting.succeed(&["ls", "--accept-new", &setting.url("")]);
    setting
}

const NETRC: &[u8] = b"machine 127.0.0.1 login alice password secret\n";

impl Deref for Setting {
    type Target = Person;

    fn deref(&self) -> &Person {
        &self.person
    }
}

impl Setting {
    fn url(&self, name: &str) -> String {
        self.url_as("alice", name)
    }

    /// `authority` is a user, or a user and a password.
    fn url_as(&self, authority: &str, name: &str) -> String {
        format!("sftp://{authority}@{}/{name}", self.server.ssh())
    }

    /// A place in alice's home on the server.
    fn there(&self, name: &str) -> PathBuf {
        self.wharf.home("alice").join(name)
    }

    fn store(&self, name: &str, content: &[u8]) {
        write(&self.there(name), content);
    }

    fn stored(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.there(name)).expect(name)
    }

    /// The commands that the server was asked to run over SSH.
    fn commands(&self) -> Vec<String> {
        let mut lines = self.server.log();
        lines.retain(|line| line.contains("\"command\"") || line.contains("\"exec\""));
        lines
    }

    fn set_alice(&self, options: &[&str]) {
        let (success, _, errors) = self
            .wharf
            .run(&[&["user", "set", "alice"], options].concat(), "");
        assert!(success, "{errors}");
    }
}

/// Runs a command to its end with a few lines to read.
fn with_input(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command.stdin(Stdio::piped()).spawn().expect("starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input).expect("written");
    drop(stdin);
    child.wait_with_output().expect("ends")
}

#[test]
fn files_are_verified_by_check_file_where_no_command_may_run() {
    let setting = setting(&["--exec", "none"]);
    let content = noise(3_000_000, 1);
    setting.write("it's a b", &content);
    let moment = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let file = std::fs::File::options()
        .write(true)
        .open(setting.file("it's a b"))
        .expect("opens");
    file.set_modified(moment).expect("is set");

    let up = setting.transferred(&["put", "--json", "it's a b", &setting.url("in/")]);
    assert_eq!(up["verified"], "BLAKE3", "{up}");
    assert!(setting.stored("in/it's a b") == content);
    let url = setting.url("in/it's%20a%20b");
    let down = setting.transferred(&["get", "--json", &url, "copy"]);
    assert_eq!(down["verified"], "BLAKE3", "{down}");
    assert!(setting.read("copy") == content);
    for path in [setting.file("copy"), setting.there("in/it's a b")] {
        let metadata = std::fs::metadata(&path).expect("is there");
        assert_eq!(metadata.modified().expect("a time"), moment, "{path:?}");
    }
    let told = setting.succeed(&["put", "it's a b", &setting.url("in/")]);
    assert!(told.contains("unchanged"), "{told}");
    let here = Command::new("sha256sum")
        .arg(setting.file("copy"))
        .output()
        .expect("runs");
    let digest = setting.succeed(&["hash", "--algorithm", "sha256", &url]);
    assert_eq!(digest.as_bytes().get(..64), here.stdout.get(..64));
    assert_eq!(setting.commands(), [""; 0]);
}

#[test]
fn a_cut_transfer_resumes_with_its_begin_proven_in_either_direction() {
    let setting = setting(&[]);
    let content = noise(16 << 20, 2);
    setting.store("down", &content);
    setting.write("up", &content);
    for arguments in [
        ["get", &setting.url("down")[..]].as_slice(),
        &["put", "up", &setting.url("")],
    ] {
        setting.cut(arguments);
        let json = [arguments, &["--json"]].concat();
        let file = setting.transferred(&json);
        assert!(file["resumed_at"].as_u64().expect("resumed") > 0, "{file}");
        assert_eq!(file["evidence"], "begin proven by BLAKE3", "{file}");
        assert_eq!(file["verified"], "BLAKE3", "{file}");
    }
    assert!(setting.read("down") == content);
    assert!(setting.stored("up") == content);
}

#[test]
fn a_session_that_is_kicked_is_taken_up_again_where_it_was() {
    let setting = setting(&[]);
    let content = noise(16 << 20, 3);
    setting.store("big", &content);
    let url = setting.url("big");
    let arguments = ["get", "--json", "--limit-rate", "8MiB", &url];
    let mut child = setting.client(&arguments).spawn().expect("starts");
    let told = await_progress(&mut child);
    let (_, sessions, _) = setting.wharf.run(&["sessions", "--json"], "");
    let session: serde_json::Value = serde_json::from_str(sessions.trim()).expect("one session");
    let kick = ["sessions", "kick", &session["session"].to_string()];
    let (success, _, errors) = setting.wharf.run(&kick, "");
    assert!(success, "{errors}");
    let lines: Vec<String> = told.lines().map(|line| line.expect("text")).collect();
    assert!(child.wait().expect("ends").success(), "{lines:?}");
    let says = |part| lines.iter().any(|line: &String| line.contains(part));
    assert!(says("\"retrying\""), "{lines:?}");
    assert!(
        says("begin moved by this very transfer") || says("begin proven"),
        "{lines:?}"
    );
    assert!(setting.read("big") == content);
}

#[test]
fn trees_are_mirrored_both_ways_with_progress() {
    let setting = setting(&[]);
    for index in 0..20_u8 {
        setting.write(&format!("site/{}/{index}", index % 3), &[index; 1000]);
    }
    setting.store("site/gone", b"old");
    let told = setting.succeed(&["mirror", "--json", "--delete", "site", &setting.url("site")]);
    assert_eq!(
        told.matches("\"event\":\"transferred\"").count(),
        20,
        "{told}"
    );
    assert_eq!(
        told.matches("\"verified\":\"BLAKE3\"").count(),
        20,
        "{told}"
    );
    assert!(!setting.there("site/gone").exists());
    assert_eq!(setting.stored("site/1/7"), [7; 1000]);
    setting.store("site/2/new", b"new");
    std::fs::remove_file(setting.there("site/1/7")).expect("removed");
    setting.succeed(&["mirror", "--delete", &setting.url("site"), "site"]);
    assert_eq!(setting.read("site/2/new"), b"new");
    assert!(!setting.file("site/1/7").exists());
    let told = setting.succeed(&["mirror", "--json", &setting.url("site"), "site"]);
    assert!(!told.contains("\"event\":\"transferred\""), "{told}");
}

#[test]
fn standard_input_is_uploaded_and_verified() {
    let setting = setting(&[]);
    let content = noise(3_000_000, 5);
    setting.write("piped", &content);
    let input = std::fs::File::open(setting.file("piped")).expect("opens");
    let url = setting.url("new");
    let mut put = setting.client(&["put", "-", &url]);
    let output = put.stdin(input).output().expect("starts");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(told.contains("verified by BLAKE3"), "{told}");
    assert!(setting.stored("new") == content);
}

#[test]
fn the_shell_works_over_ssh() {
    let setting = setting(&[]);
    setting.write("here", b"content");
    let lines = "mkdir sub\ncd sub\nput here\nls\nget here back\npwd\nmv here there\ncat there\n";
    let output = with_input(
        &mut setting.client(&["shell", &setting.url("")]),
        lines.as_bytes(),
    );
    let told = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}{errors}");
    assert!(told.contains("/sub\n"), "{told}");
    assert!(told.contains("verified by BLAKE3"), "{told}");
    assert!(told.ends_with("content\n"), "{told}");
    assert_eq!(setting.stored("sub/there"), b"content");
    assert_eq!(setting.read("back"), b"content");
}

#[test]
fn what_keeps_a_tree_from_being_removed_is_told() {
    let setting = setting(&[]);
    setting.store("tree/two\nlines", b"");
    setting.store("tree/file", b"");
    std::os::unix::fs::symlink("file", setting.there("tree/link")).expect("made");
    let error = setting.fail(&["rm", "-r", &setting.url("tree")], 5);
    assert!(error.contains("two\\x0alines: left out"), "{error}");
    assert!(!error.contains("link"), "{error}");
    assert!(!setting.there("tree/link").is_symlink());
    // And what is not there is not said twice.
    let error = setting.fail(&["get", &setting.url("missing")], 3);
    assert_eq!(error, "wharf: missing: no such file or directory\n");
}

#[test]
fn a_command_whose_output_nobody_reads_ends_quietly() {
    use std::io::Read as _;
    let setting = setting(&["--exec", "builtin"]);
    setting.store("big", &noise(20_000_000, 4));
    let mut child = setting
        .client(&["exec", &setting.url(""), "--", "cat", "big"])
        .spawn()
        .expect("starts");
    let mut output = child.stdout.take().expect("piped");
    output.read_exact(&mut [0; 5]).expect("reads");
    drop(output);
    let ended = child.wait_with_output().expect("ends");
    assert_eq!(ended.status.code(), Some(141));
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
}

#[test]
fn commands_have_their_streams_and_their_exit_status() {
    let setting = setting(&["--exec", "builtin"]);
    let url = setting.url("");
    let url = url.trim_end_matches('/');
    // So much both ways that neither end may wait for its writes before it reads.
    let content = noise(60_000_000, 4);
    setting.write("in", &content);
    for _ in 0..4 {
        let input = std::fs::File::open(setting.file("in")).expect("opens");
        let output = setting
            .client(&["exec", url, "--", "cat"])
            .stdin(input)
            .output()
            .expect("starts");
        assert!(output.status.success());
        assert!(output.stdout == content, "{} bytes", output.stdout.len());
    }
    let both = "echo out; cat missing; exit 7";
    let output = setting.run(&["exec", url, "--", both]);
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(output.stdout, b"out\n");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("No such file"), "{errors}");
    // Alone it is the shell.
    let output = with_input(
        &mut setting.client(&["exec", url]),
        b"mkdir in\ncd in\npwd\nexit 5\n",
    );
    assert_eq!(
        (output.status.code(), &output.stdout[..]),
        (Some(5), &b"/in\n"[..])
    );

    setting.set_alice(&["--exec", "none"]);
    let errors = setting.fail(&["exec", url, "--", "ls"], 126);
    assert!(errors.contains("This account runs no commands"), "{errors}");
}

#[test]
fn a_shell_at_a_terminal_is_the_servers() {
    let setting = setting(&["--exec", "builtin"]);
    if !has_program("python3") {
        return;
    }
    let script = format!(
        "{EXPECT}\nexpect(b\"/$ \")\nsend(b\"mkdir a && cd a\\r\")\nexpect(b\"/a$ \")\nsend(b\"exit 6\\r\")\nend(6)\n"
    );
    setting.at_terminal(&script, &["exec", &setting.url("")]);
}

/// Waits for the prompt, and opens the terminal's other side, which tells whether it is raw.
const LINE: &str = r#"
import signal
expect(b"/$ ")
line = os.open(os.readlink(f"/proc/{pid}/fd/0"), os.O_RDWR | os.O_NOCTTY)
def is_raw(): return not termios.tcgetattr(line)[3] & (termios.ECHO | termios.ICANON)
"#;

#[test]
fn a_server_that_hangs_is_left_with_a_tilde_and_the_terminal_is_as_before() {
    let setting = setting(&["--exec", "builtin"]);
    if !has_program("python3") {
        return;
    }
    let server = setting.server.pid();
    let script = format!(
        "{EXPECT}{LINE}\nif not is_raw(): fail('cooked')\n\
         send(b\"~?\")\nexpect(b\"closes the connection\")\nsend(b\"~~x\\r\")\nexpect(b\"~x\")\n\
         os.kill({server}, signal.SIGSTOP)\nsend(b\"not taken\\r~.\")\nend(255)\n\
         os.kill({server}, signal.SIGCONT)\nif is_raw(): fail('raw')\n"
    );
    setting.at_terminal(&script, &["exec", &setting.url("")]);
}

#[test]
fn a_server_that_hangs_is_given_up_by_a_command_without_a_terminal() {
    let setting = setting(&["--exec", "builtin"]);
    let url = setting.url("");
    let mut child = setting
        .client(&["exec", "--timeout", "1", &url, "--", "cat"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut input = child.stdin.take().expect("piped");
    input.write_all(b"runs\n").expect("taken");
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    output.read_line(&mut line).expect("reads");
    assert_eq!(line, "runs\n");
    setting.server.signal("STOP");
    let ended = child.wait_with_output().expect("ends");
    setting.server.signal("CONT");
    assert_eq!(ended.status.code(), Some(255));
    let errors = String::from_utf8_lossy(&ended.stderr);
    assert!(errors.contains("silent for 1 s"), "{errors}");
}

#[test]
fn a_signal_puts_the_terminal_back_and_is_told_by_the_exit_code() {
    let setting = setting(&["--exec", "builtin"]);
    if !has_program("python3") {
        return;
    }
    for (name, code) in [("HUP", 129), ("INT", 130), ("QUIT", 131), ("TERM", 143)] {
        let script = format!(
            "{EXPECT}{LINE}\nif not is_raw(): fail('cooked')\n\
             os.kill(pid, signal.SIG{name})\nend({code})\nif is_raw(): fail('raw')\n"
        );
        setting.at_terminal(&script, &["exec", &setting.url("")]);
    }
}

#[test]
fn a_password_comes_from_the_url_the_environment_or_netrc() {
    let setting = setting(&[]);
    setting.store("within", b"");
    // As long as `.netrc` knows it, too, the nearer one counts.
    let in_url = setting.url_as("alice:wrong", "");
    let error = setting.fail(&["ls", &in_url], 4);
    assert!(error.contains("tried in vain: a password"), "{error}");
    assert!(!error.contains("wrong"), "{error}");
    let from_variable = setting
        .client(&["ls", &setting.url("")])
        .env("WHARF_PASSWORD", "wrong")
        .output()
        .expect("starts");
    assert_eq!(from_variable.status.code(), Some(4));

    std::fs::remove_file(setting.file(".netrc")).expect("removed");
    let listed = setting.succeed(&["ls", &setting.url_as("alice:secret", "")]);
    assert!(listed.contains("within"), "{listed}");
    let from_variable = setting
        .client(&["ls", &setting.url("")])
        .env("WHARF_PASSWORD", "secret")
        .output()
        .expect("starts");
    assert!(from_variable.status.success());
    let error = setting.fail(&["ls", &setting.url("")], 4);
    assert!(error.contains("nobody to ask"), "{error}");
}

#[test]
fn a_wrong_password_is_sent_once() {
    let setting = setting(&[]);
    setting.fail(&["ls", &setting.url_as("alice:wrong", "")], 4);
    // The log comes in order: behind this line there are no more of the first session.
    setting.succeed(&["ls", &setting.url_as("alice:secret", "")]);
    setting.server.await_log(&["logged in"]);
    let refused = setting.server.log();
    let refused = refused.iter().filter(|line| line.contains("login refused"));
    assert_eq!(refused.count(), 1);
}

#[test]
fn a_person_is_asked_for_a_password_and_may_mistype() {
    let setting = setting(&[]);
    if !has_program("python3") {
        return;
    }
    std::fs::remove_file(setting.file(".netrc")).expect("removed");
    setting.store("within", b"");
    let script = format!(
        "{EXPECT}\nexpect(b\"Password for alice: \")\nsend(b\"mistyped\\r\")\n\
         expect(b\"Password for alice: \")\nsend(b\"secret\\r\")\nexpect(b\"within\")\n\
         if b\"secret\" in seen: fail(\"shown\")\nend(0)\n"
    );
    setting.at_terminal(&script, &["ls", &setting.url("")]);
}
