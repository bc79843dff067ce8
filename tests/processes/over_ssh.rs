//! The same by way of SSH: a server with a fence of its own, and OpenSSH's clients.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::OpenptFlags;
use rustix::termios::{Winsize, tcsetwinsize};
use wharf_testkit::{Ftp, OpenSsh, Proof, Server, Wharf, has_program, noise};

use crate::ending::{STAYERS, stayers};
use crate::fixture::{PATIENCE, allow, give_to_user, marked, until, user};

/// A server with alice, who runs processes and has a key, and clients.
struct Setting {
    wharf: Wharf,
    server: Server,
    clients: OpenSsh,
    key: std::path::PathBuf,
}

/// None, loudly, where the kernel cannot confine or OpenSSH is not there.
fn setting(limits: &str) -> Option<Setting> {
    let clients = OpenSsh::new()?;
    let wharf = Wharf::new(env!("CARGO_BIN_EXE_wharf"));
    std::fs::create_dir(wharf.data()).expect("made");
    give_to_user(&wharf.data());
    allow(wharf.data().parent().expect("a parent"), 0o755);
    wharf.add_user("alice", &["--exec", "shell"]);
    let (key, line) = clients.make_key("ed25519", "alice-key");
    let (added, _, errors) = wharf.run(&["user", "key", "add", "alice", &line], "");
    assert!(added, "{errors}");
    let file = wharf.configure(&format!("[processes]\nenabled = true\n{limits}"));
    allow(&wharf.scratch(), 0o755);
    let mut options = vec!["--ssh", "127.0.0.1:0", "--config", &file];
    let user = user();
    if let Some(user) = &user {
        options.extend(["--user", &user.name]);
    }
    let server = wharf.serve(&options);
    let setting = Setting {
        wharf,
        server,
        clients,
        key,
    };
    let (status, _, errors) = setting.ran(&["true"]);
    if errors.contains("cannot be confined") {
        eprintln!("SKIPPED: {errors}");
        return None;
    }
    assert_eq!((status, &*errors), (Some(0), ""));
    Some(setting)
}

impl Setting {
    fn ssh(&self, words: &[&str]) -> Command {
        let proof = Proof::Key(&self.key);
        let mut command = self.clients.ssh(self.server.ssh(), "alice", proof);
        command.args(words).stdin(Stdio::null());
        command
    }

    /// Status, output and errors of what has nothing to read.
    fn ran(&self, words: &[&str]) -> (Option<i32>, String, String) {
        parts(self.ssh(words).output().expect("runs"))
    }

    /// `ssh` with a terminal of this size, which it has a terminal made like.
    fn at_terminal(&self, words: &[&str], columns: u16, rows: u16) -> Terminal {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
        let screen = rustix::pty::openpt(flags).expect("a terminal");
        rustix::pty::unlockpt(&screen).expect("ours");
        let name = rustix::pty::ptsname(&screen, Vec::new()).expect("a name");
        let name = name.to_str().expect("text");
        let open = || File::options().read(true).write(true).open(name);
        let ssh = self.ssh(words);
        // Takes its input as the terminal that it belongs to.
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(ssh.get_program());
        command.args(ssh.get_args()).env("TERM", "xterm");
        command.envs(
            ssh.get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        let keyboard = open().expect("opens");
        resize(&screen, columns, rows);
        command
            .stdout(open().expect("opens"))
            .stderr(open().expect("opens"));
        Terminal {
            child: command.stdin(keyboard).spawn().expect("starts"),
            screen: screen.into(),
            shown: String::new(),
        }
    }
}

fn parts(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes| String::from_utf8(bytes).expect("text");
    let errors = text(output.stderr);
    // What a client says that meets a server for the first time.
    let said = errors
        .split_inclusive('\n')
        .filter(|line| !line.starts_with("Warning: Permanently added"));
    (output.status.code(), text(output.stdout), said.collect())
}

fn resize(terminal: &OwnedFd, columns: u16, rows: u16) {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size).expect("a terminal");
}

/// What a person sits at, with a client in it.
struct Terminal {
    child: Child,
    screen: File,
    shown: String,
}

impl Terminal {
    fn types(&mut self, keys: &str) {
        self.screen.write_all(keys.as_bytes()).expect("takes");
    }

    /// Waits until `text` is shown behind what was waited for before.
    fn expect(&mut self, text: &str) {
        while !self.shown.contains(text) {
            let patience = Timespec::try_from(PATIENCE).expect("fits");
            let mut ready = [PollFd::new(&self.screen, PollFlags::IN)];
            let count = poll(&mut ready, Some(&patience)).expect("a terminal");
            assert!(count > 0, "{text:?} is not in {:?}", self.shown);
            let mut piece = [0; 4096];
            let length = self.screen.read(&mut piece).unwrap_or_default();
            let read = piece.get(..length).unwrap_or_default();
            assert!(!read.is_empty(), "{text:?} is not in {:?}", self.shown);
            self.shown.push_str(&String::from_utf8_lossy(read));
        }
        let end = self.shown.find(text).map_or(0, |start| start + text.len());
        self.shown.drain(..end);
    }

    fn status(mut self) -> Option<i32> {
        // What is still shown must be taken, or the client would not end.
        let _ = std::io::copy(&mut self.screen, &mut std::io::sink());
        self.child.wait().expect("ends").code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn outputs_the_status_and_the_signal_of_a_process_are_told_over_ssh() {
    let Some(setting) = setting("") else { return };
    let ran = setting.ran(&["echo out | tr a-z A-Z; echo err >&2; exit 3"]);
    assert_eq!(ran, (Some(3), "OUT\n".to_owned(), "err\n".to_owned()));
    assert_eq!(setting.ran(&["nonsense"]).0, Some(127));
    // OpenSSH's client shows it to who asks for details only.
    let (status, _, errors) = setting.ran(&["-v", "kill -TERM $$"]);
    assert_eq!(status, Some(255), "{errors}");
    assert!(errors.contains("rtype exit-signal"), "{errors}");
    // Ours tells its name.
    let url = format!("sftp://alice@{}", setting.server.ssh());
    let mut command = setting.wharf.command(&["exec", "--accept-new", &url]);
    command.args(["--", "kill -USR1 $$"]);
    let command = command.env("HOME", setting.wharf.scratch());
    let command = command.env("WHARF_PASSWORD", "secret");
    let output = command.stdin(Stdio::null()).output().expect("runs");
    let (status, _, errors) = parts(output);
    assert_eq!(status, Some(128 + 10), "{errors}");
}

/// rclone asks for digests by commands, to which files have other paths than to SFTP.
#[test]
fn rclone_compares_by_digests_where_it_is_told_the_path_of_the_home() {
    if !has_program("rclone") {
        return;
    }
    let Some(setting) = setting("") else { return };
    let tree = setting.wharf.scratch().join("tree");
    std::fs::create_dir_all(tree.join("below")).expect("made");
    for (seed, name) in (0..).zip(["plain", "it's $HOME; a \"name\"", "below/deep"]) {
        std::fs::write(tree.join(name), noise(100_000, seed)).expect("written");
    }
    let remote = format!(
        ":sftp,host=127.0.0.1,port={},user=alice,key_file='{}',path_override='{}':tree",
        setting.server.ssh().port(),
        setting.key.display(),
        setting.wharf.home("alice").join("tree").display(),
    );
    let rclone = |verb: &[&str]| {
        let mut command = Command::new("rclone");
        command
            .args(verb)
            .args(["--config", "", "--retries", "1", "--checkers", "1", "-v"]);
        let output = command.arg(&tree).arg(&remote).output().expect("starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{verb:?}: {said}");
        said
    };
    rclone(&["sync", "--checksum"]);
    let checked = rclone(&["check"]);
    assert!(checked.contains("0 differences found"), "{checked}");
    assert!(checked.contains("3 matching files"), "{checked}");
    // Without a digest in common, rclone would say so and compare sizes.
    assert!(
        !checked.contains("hashes could not be checked"),
        "{checked}"
    );
}

#[test]
fn a_shell_reads_lines_and_the_end_of_its_input_over_ssh() {
    let Some(setting) = setting("") else { return };
    let mut shell = setting.ssh(&["-T"]);
    let mut shell = shell
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut stdin = shell.stdin.take().expect("piped");
    let lines = b"mkdir in && cd in\necho $((20 + 3)) >file\ncat file; basename \"$PWD\"; false\n";
    stdin.write_all(lines).expect("writes");
    drop(stdin);
    let ended = parts(shell.wait_with_output().expect("ends"));
    assert_eq!(ended, (Some(1), "23\nin\n".to_owned(), String::new()));
    assert_eq!(setting.wharf.usage("alice"), (3, 2));
}

#[test]
fn two_hundred_megabytes_pass_a_process_as_they_are_over_ssh() {
    let Some(setting) = setting("") else { return };
    let content = noise(200_000_000, 8);
    let local = setting.clients.file("local");
    std::fs::write(&local, &content).expect("written");
    let file = File::open(&local).expect("opens");
    let mut command = setting.ssh(&["cat >copy; echo end"]);
    let output = command.stdin(file).output().expect("runs");
    assert_eq!(parts(output), (Some(0), "end\n".to_owned(), String::new()));
    let stored = std::fs::read(setting.wharf.home("alice").join("copy")).expect("reads");
    assert!(stored == content, "{} bytes", stored.len());
    let output = setting.ssh(&["cat copy"]).output().expect("runs");
    assert!(output.status.success());
    assert!(output.stdout == content, "{} bytes", output.stdout.len());
    assert_eq!(setting.wharf.usage("alice"), (200_000_000, 1));
}

#[test]
fn what_a_process_writes_passes_in_constant_memory_over_ssh() {
    flood(512 << 20);
}

#[test]
#[ignore = "takes a minute"]
fn five_gigabytes_of_a_process_pass_in_constant_memory_over_ssh() {
    flood(5 << 30);
}

/// Has `bytes` come from a process; the server holds no more of them meanwhile than windows and pipes do.
fn flood(bytes: u64) {
    let Some(setting) = setting("") else { return };
    let before = setting.server.resident_bytes();
    let mut command = setting.ssh(&[&format!("yes | head -c {bytes}")]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("starts");
    let mut stdout = child.stdout.take().expect("piped");
    let (mut piece, mut count, mut look, mut most) = (vec![0; 1 << 20], 0, 0, 0);
    loop {
        let length = stdout.read(&mut piece).expect("reads");
        if length == 0 {
            break;
        }
        count += u64::try_from(length).expect("a length");
        if count >= look {
            look += bytes / 64;
            most = most.max(setting.server.resident_bytes());
        }
    }
    assert!(child.wait().expect("ends").success());
    assert_eq!(count, bytes);
    assert!(most < before + (64 << 20), "{before} -> {most}");
}

#[test]
fn a_terminal_over_ssh_has_the_persons_size_and_follows_it() {
    let Some(setting) = setting("") else { return };
    let script = "trap 'stty size; exit 5' WINCH; tty | cut -c1-9; echo $TERM; stty size; \
                  while :; do sleep 0.1; done";
    let mut terminal = setting.at_terminal(&["-t", script], 80, 24);
    terminal.expect("/dev/pts/\r\nxterm\r\n24 80\r\n");
    let screen = terminal.screen.try_clone().expect("cloned");
    resize(&screen.into(), 132, 43);
    terminal.expect("43 132\r\n");
    assert_eq!(terminal.status(), Some(5));
}

#[test]
fn a_login_shell_in_a_terminal_over_ssh_takes_lines_and_an_interrupt() {
    let Some(setting) = setting("") else { return };
    let mut terminal = setting.at_terminal(&[], 80, 24);
    // What is typed is echoed, so that it must not be what is looked for.
    terminal.types("echo $0; sh -c 'echo $((20 + 3)); exec sleep 1000'\n");
    terminal.expect("-sh\r\n");
    terminal.expect("23\r\n");
    terminal.types("\x03");
    terminal.types("echo $((20 + 4))\n");
    terminal.expect("24\r\n");
    terminal.types("exit 6\n");
    assert_eq!(terminal.status(), Some(6));
}

#[tokio::test]
async fn top_runs_in_a_terminal_over_ssh_and_ends_with_its_key_or_its_client() {
    let Some(setting) = setting("") else { return };
    let mut terminal = setting.at_terminal(&["-t", "top -d 1"], 80, 24);
    terminal.expect("load average");
    terminal.types("q");
    assert_eq!(terminal.status(), Some(0));

    let mark = format!("top-{}", std::process::id());
    let command = format!("sh -c 'top -d 1; :' {mark}");
    let mut terminal = setting.at_terminal(&["-t", &command], 80, 24);
    terminal.expect("load average");
    let tops: Vec<String> = marked(&mark)
        .iter()
        .flat_map(|pid| children(*pid))
        .collect();
    let is_top = |pid: &String| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
        name.is_ok_and(|name| name == "top\n")
    };
    assert!(tops.iter().any(is_top), "{tops:?}");
    terminal.child.kill().expect("runs");
    until("none is left", || {
        marked(&mark).is_empty() && !tops.iter().any(is_top)
    })
    .await;
}

fn children(pid: i32) -> Vec<String> {
    let listed = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let listed = listed.unwrap_or_default();
    listed.split_whitespace().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_client_of_ssh_that_is_killed_leaves_no_process() {
    let Some(setting) = setting("") else { return };
    for terminal in ["-T", "-tt"] {
        let mark = format!("ssh{terminal}-{}", std::process::id());
        let mut command = setting.ssh(&[terminal, &stayers(&mark)]);
        let mut child = command.stdout(Stdio::null()).spawn().expect("starts");
        until("all are there", || marked(&mark).len() >= STAYERS).await;
        child.kill().expect("runs");
        child.wait().expect("ends");
        // The client itself had it among its arguments as a part only.
        until("none is left", || marked(&mark).is_empty()).await;
    }
    // The account's places are free again, and so is its home.
    assert_eq!(setting.ran(&["echo on"]).1, "on\n");
}

#[tokio::test]
async fn a_session_that_is_kicked_and_a_server_that_is_killed_leave_no_process() {
    let Some(setting) = setting("") else { return };
    let start = |mark: &str| {
        let mut command = setting.ssh(&[&stayers(mark)]);
        let command = command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("starts")
    };
    let mark = format!("kicked-{}", std::process::id());
    let mut child = start(&mark);
    until("all are there", || marked(&mark).len() >= STAYERS).await;
    let (_, sessions, errors) = setting.wharf.run(&["sessions", "--json"], "");
    // The last one, in case that the one before has not ended quite.
    let session = sessions.lines().last().expect(&errors);
    let session: serde_json::Value = serde_json::from_str(session).expect("JSON");
    let id = session["session"].to_string();
    let (kicked, _, errors) = setting
        .wharf
        .run(&["sessions", "kick", id.trim_matches('"')], "");
    assert!(kicked, "{errors}");
    until("none is left", || marked(&mark).is_empty()).await;
    assert_eq!(child.wait().expect("ends").code(), Some(255));

    let mark = format!("server-killed-{}", std::process::id());
    let mut child = start(&mark);
    until("all are there", || marked(&mark).len() >= STAYERS).await;
    setting.server.kill();
    until("none is left", || marked(&mark).is_empty()).await;
    assert_eq!(child.wait().expect("ends").code(), Some(255));
}

#[test]
fn a_client_of_ssh_sets_how_a_person_reads_and_nothing_else() {
    let Some(setting) = setting("") else { return };
    let set = "SetEnv=LANG=de_DE.UTF-8 LC_TIME=C LD_PRELOAD=/x.so PATH=/tmp HOME=/ BASH_ENV=x";
    let (status, output, errors) = setting.ran(&["-o", set, "env | grep -v ^TMPDIR= | sort; pwd"]);
    let home = setting.wharf.home("alice");
    let home = std::fs::canonicalize(home).expect("is there");
    let home = home.display();
    let expected = format!(
        "HOME={home}\nLANG=de_DE.UTF-8\nLC_TIME=C\nLOGNAME=alice\n\
         PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games\n\
         PWD={home}\nSHELL=/bin/sh\nUSER=alice\n{home}\n"
    );
    assert_eq!((status, output), (Some(0), expected), "{errors}");
}

#[test]
fn a_process_over_ssh_ends_at_the_wall_clock_limit_and_the_client_hears_why() {
    let Some(setting) = setting("wall_clock = \"1s\"\n") else {
        return;
    };
    let (status, output, errors) = setting.ran(&["echo begun; sleep 1000"]);
    assert_eq!((status, &*output), (Some(255), "begun\n"));
    assert_eq!(errors, "wharf: ended: it has run for too long\n");
}

#[test]
fn a_home_over_quota_is_told_and_blocked_over_ssh_as_over_ftp() {
    let Some(setting) = setting("") else { return };
    let limit = ["user", "set", "alice", "--quota", "100000"];
    assert!(setting.wharf.run(&limit, "").0);
    let ran = setting.ran(&["head -c 60000 /dev/zero >a"]);
    assert_eq!(ran, (Some(0), String::new(), String::new()));
    let (status, _, errors) = setting.ran(&["head -c 60000 /dev/zero >b"]);
    let told = "wharf: over quota; nothing can be written until files are removed\n";
    assert_eq!((status, &*errors), (Some(0), told));
    assert_eq!(setting.wharf.usage("alice"), (120_000, 2));
    let mut ftp = setting.server.login("alice");
    assert_eq!(ftp.upload("STOR c", b"x").0, 552);
    let (status, _, errors) = setting.ran(&["echo >c || rm b"]);
    assert_eq!(status, Some(0), "{errors}");
    let told =
        "wharf: the quota of bytes is used up: nothing can be written until some are removed\n";
    assert!(errors.starts_with(told), "{errors}");
    assert!(errors.lines().count() == 2, "{errors}");
    assert_eq!(setting.wharf.usage("alice"), (60_000, 1));
    assert_eq!(ftp.upload("STOR c", b"x").0, 226);
}

#[test]
fn sftp_and_scp_stay_built_in_for_accounts_that_run_processes() {
    let Some(setting) = setting("") else { return };
    let content = noise(1_000_000, 9);
    let local = setting.clients.file("local");
    std::fs::write(&local, &content).expect("written");
    let back = setting.clients.file("back");
    for protocol in ["-O", "-s"] {
        // From the root of the home, which is no root to a process.
        let there = format!("alice@127.0.0.1:/copied{protocol}");
        for (from, to) in [(path(&local), &*there), (&*there, path(&back))] {
            let proof = Proof::Key(&setting.key);
            let mut scp = setting.clients.client("scp", setting.server.ssh(), proof);
            let output = scp.args([protocol, from, to]).output().expect("runs");
            let (status, _, errors) = parts(output);
            assert_eq!(status, Some(0), "{protocol}: {errors}");
        }
        assert!(std::fs::read(&back).expect("reads") == content);
        std::fs::remove_file(&back).expect("there");
    }
    let (_, listing, _) = setting.ran(&["ls"]);
    assert_eq!(listing, "copied-O\ncopied-s\n");
}

fn path(path: &Path) -> &str {
    path.to_str().expect("text")
}

#[test]
fn a_process_over_ssh_reaches_no_other_home_and_no_database() {
    let Some(setting) = setting("") else { return };
    setting.wharf.add_user("bob", &[]);
    let mut ftp: Ftp = setting.server.login("bob");
    assert_eq!(ftp.upload("STOR letter", b"secret").0, 226);
    for target in [
        setting.wharf.home("bob").join("letter"),
        setting.wharf.data().join("wharf.db"),
        setting.wharf.data().join("ssh/host_ed25519_key"),
        "/etc/shadow".into(),
    ] {
        let (status, output, errors) = setting.ran(&[&format!("cat {}", path(&target))]);
        assert_eq!((status, &*output), (Some(1), ""), "{errors}");
    }
}
