//! The real binary and the clients of OpenSSH.

#![expect(
    clippy::disallowed_methods,
    reason = "tests own the directories that they make"
)]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use wharf_testkit::{Ftp, OpenSsh, Proof, Server, Sshd, Wharf, noise};

const LISTEN: [&str; 2] = ["--ssh", "127.0.0.1:0"];

fn wharf() -> Wharf {
    Wharf::new(env!("CARGO_BIN_EXE_wharf"))
}

/// A server with alice, who runs built-in commands and has a key, and clients.
struct Setting {
    wharf: Wharf,
    server: Server,
    clients: OpenSsh,
    key: PathBuf,
}

fn setting() -> Option<Setting> {
    setting_with("")
}

fn setting_with(configuration: &str) -> Option<Setting> {
    let clients = OpenSsh::new()?;
    let wharf = wharf();
    wharf.add_user("alice", &["--exec", "builtin"]);
    let (key, line) = clients.make_key("ed25519", "alice-key");
    add_key(&wharf, "alice", &line);
    let file = wharf.configure(configuration);
    let server = wharf.serve(&[&LISTEN[..], &["--config", &file]].concat());
    Some(Setting {
        wharf,
        server,
        clients,
        key,
    })
}

fn add_key(wharf: &Wharf, user: &str, line: &str) {
    let (success, _, errors) = wharf.run(&["user", "key", "add", user, line], "");
    assert!(success, "{errors}");
}

impl Setting {
    fn ssh(&self, words: &[&str]) -> Command {
        let mut command = self
            .clients
            .ssh(self.server.ssh(), "alice", Proof::Key(&self.key));
        command.args(words);
        command
    }

    fn home(&self) -> PathBuf {
        self.wharf.home("alice")
    }
}

/// Runs a command to its end with nothing to read.
fn ran(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.stdin(Stdio::null()).output().expect("runs");
    parts(output)
}

fn parts(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (
        output.status.code(),
        text(output.stdout),
        // What a client says that meets a server for the first time.
        text(output.stderr)
            .split_inclusive('\n')
            .filter(|line| !line.starts_with("Warning: Permanently added"))
            .collect(),
    )
}

fn with_input(command: &mut Command, input: &[u8]) -> (Option<i32>, String, String) {
    let mut child = piped(command);
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input).expect("written");
    drop(stdin);
    parts(child.wait_with_output().expect("ends"))
}

fn piped(command: &mut Command) -> Child {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts")
}

#[test]
fn long_command_lines_and_names_are_cut_in_the_log() {
    let Some(setting) = setting() else { return };
    let command = format!("true {}", "x".repeat(100_000));
    assert_eq!(ran(&mut setting.ssh(&[&command])).0, Some(0));
    let line = setting.server.await_log(&["\"command\"", "bytes cut"]);
    let event: Value = serde_json::from_str(&line).expect("one event a line");
    let expected = format!("true {}\\…(98981 bytes cut)", "x".repeat(1019));
    assert_eq!(event["command"], expected);
    let (server, name) = (setting.server.ssh(), "n".repeat(5000));
    let mut stranger = setting.clients.ssh(server, &name, Proof::Password);
    assert_eq!(ran(&mut stranger).0, Some(255));
    let line = setting.server.await_log(&["login refused"]);
    let event: Value = serde_json::from_str(&line).expect("one event a line");
    assert_eq!(event["user"], "n".repeat(1024) + "\\…(3976 bytes cut)");
}

#[test]
fn passwords_and_keys_of_every_kind_open_an_account_and_nothing_else_does() {
    let Some(setting) = setting() else { return };
    let server = setting.server.ssh();
    let try_as = |user: &str, proof: Proof<'_>| {
        let mut command = setting.clients.ssh(server, user, proof);
        ran(command.args(["echo", "hello"]))
    };
    let hello = (Some(0), "hello\n".to_owned());
    for proof in [
        Proof::Password,
        Proof::Interactive,
        Proof::Key(&setting.key),
    ] {
        let (status, output, errors) = try_as("alice", proof);
        assert_eq!((status, output), hello, "{proof:?}: {errors}");
    }
    for kind in ["ecdsa", "rsa"] {
        let (key, line) = setting.clients.make_key(kind, kind);
        let refused = try_as("alice", Proof::Key(&key));
        assert_eq!(refused.0, Some(255), "{kind}: not added yet");
        add_key(&setting.wharf, "alice", &line);
        let (status, output, errors) = try_as("alice", Proof::Key(&key));
        assert_eq!((status, output), hello, "{kind}: {errors}");
    }
    for (user, proof) in [
        ("alice", Proof::WrongPassword(1)),
        ("nobody", Proof::Password),
        ("nobody", Proof::Key(&setting.key)),
    ] {
        let (status, output, errors) = try_as(user, proof);
        assert_eq!((status, &*output), (Some(255), ""), "{user} {proof:?}");
        assert!(errors.contains("Permission denied"), "{errors}");
    }
    // From when it is disabled on, no key opens it either.
    let disable = ["user", "set", "alice", "--disabled"];
    assert!(setting.wharf.run(&disable, "").0);
    assert_eq!(try_as("alice", Proof::Key(&setting.key)).0, Some(255));
    setting
        .server
        .await_log(&["login refused", "the account is disabled"]);
}

#[test]
fn a_key_opens_from_its_networks_only_and_a_restricted_one_has_no_terminal() {
    let Some(setting) = setting() else { return };
    let login = |key: &Path, words: &[&str]| {
        let proof = Proof::Key(key);
        let mut command = setting.clients.ssh(setting.server.ssh(), "alice", proof);
        ran(command.args(words))
    };
    let (elsewhere, line) = setting.clients.make_key("ed25519", "elsewhere");
    add_key(
        &setting.wharf,
        "alice",
        &format!("from=\"192.0.2.0/24\" {line}"),
    );
    assert_eq!(login(&elsewhere, &["echo", "hello"]).0, Some(255));
    let (here, line) = setting.clients.make_key("ed25519", "here");
    let options = "from=\"127.0.0.0/8,!127.0.0.2\",restrict";
    add_key(&setting.wharf, "alice", &format!("{options} {line}"));
    assert_eq!(login(&here, &["echo", "hello"]).1, "hello\n");
    let (_, _, errors) = login(&here, &["-tt", "echo", "hello"]);
    assert!(errors.contains("PTY allocation request failed"), "{errors}");
}

#[test]
fn failed_logins_over_ssh_ban_from_ftp_too() {
    let Some(setting) = setting_with("[login]\nmax_failures = 3\ndelay = \"0s\"\n") else {
        return;
    };
    let guess = || {
        let proof = Proof::WrongPassword(1);
        ran(&mut setting.clients.ssh(setting.server.ssh(), "alice", proof))
    };
    // Keys that open nothing are no guesses.
    let (key, _) = setting.clients.make_key("ed25519", "unknown");
    for _ in 0..4 {
        let proof = Proof::Key(&key);
        ran(&mut setting.clients.ssh(setting.server.ssh(), "alice", proof));
    }
    assert_eq!(Ftp::greeted(setting.server.v4()).0.0, 220);
    for _ in 0..3 {
        assert_eq!(guess().0, Some(255));
    }
    assert_eq!(Ftp::greeted(setting.server.v4()).0.0, 421);
    let (_, _, errors) = guess();
    assert!(!errors.contains("Permission denied"), "{errors}");
    let mut told = String::new();
    let mut socket = TcpStream::connect(setting.server.ssh()).expect("connects");
    socket.read_to_string(&mut told).expect("reads");
    assert_eq!(
        told,
        "Too many failed logins from your network; try again later.\r\n"
    );
}

#[test]
fn three_wrong_passwords_end_the_connection() {
    let Some(setting) = setting_with("[login]\ndelay = \"0s\"\n") else {
        return;
    };
    let proof = Proof::WrongPassword(9);
    let mut command = setting.clients.ssh(setting.server.ssh(), "alice", proof);
    let (status, _, errors) = ran(command.arg("echo"));
    assert_eq!(status, Some(255));
    assert!(errors.contains("Too many failed logins."), "{errors}");
    let refused = setting.server.log();
    let refused = refused.iter().filter(|line| line.contains("login refused"));
    assert_eq!(refused.count(), 3);
}

#[test]
fn host_keys_are_made_once_for_their_owner_only() {
    let Some(setting) = setting() else { return };
    let shown = |server: &Server| -> Vec<String> {
        let keys = server.log().into_iter();
        keys.filter(|line| line.contains("\"host key\""))
            .map(|line| {
                let event: Value = serde_json::from_str(&line).expect("JSON");
                event["fingerprint"].as_str().expect("text").to_owned()
            })
            .collect()
    };
    let first = shown(&setting.server);
    assert_eq!(first.len(), 3);
    assert_eq!(ran(&mut setting.ssh(&["echo", "hello"])).0, Some(0));
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let path = setting.wharf.data().join(format!("ssh/host_{kind}_key"));
        let metadata = std::fs::metadata(&path).expect("is there");
        let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions());
        assert_eq!(mode & 0o777, 0o600, "{kind}");
        // OpenSSH reads it, and finds the same in it.
        let arguments = ["-l", "-f", path.to_str().expect("text")];
        let read = ran(Command::new("ssh-keygen").args(arguments)).1;
        assert!(first.iter().any(|key| read.contains(&**key)), "{read}");
    }
    setting.server.kill();
    let server = setting.wharf.serve(&LISTEN);
    assert_eq!(shown(&server), first);
    // The client has remembered the first server's key under one name for both.
    let proof = Proof::Key(&setting.key);
    let mut again = setting.clients.ssh(server.ssh(), "alice", proof);
    let (status, _, errors) = ran(again.args(["echo", "hello"]));
    assert_eq!(status, Some(0), "{errors}");
}

#[test]
fn without_a_listener_for_ssh_no_host_keys_are_made() {
    let wharf = wharf();
    let _server = wharf.serve(&[]);
    assert!(!wharf.data().join("ssh").exists());
}

#[test]
fn algorithms_are_modern_ones() {
    let Some(setting) = setting() else { return };
    let negotiate = |option: &str| {
        let mut command = setting.ssh(&[]);
        ran(command.args(["-vvv", "-o", option, "echo"]))
    };
    let (status, _, errors) = negotiate("Compression=yes");
    assert_eq!(status, Some(0), "{errors}");
    assert!(errors.contains("compression: none"), "{errors}");
    assert!(errors.contains("will use strict KEX ordering"), "{errors}");
    for old in [
        "KexAlgorithms=diffie-hellman-group14-sha1",
        "KexAlgorithms=diffie-hellman-group-exchange-sha256",
        "Ciphers=aes128-cbc,3des-cbc",
        "HostKeyAlgorithms=ssh-rsa",
        "MACs=hmac-sha1,hmac-md5",
    ] {
        // A MAC is negotiated with ciphers that need one.
        let old = match old.strip_prefix("MACs=") {
            Some(_) => format!("{old} -oCiphers=aes256-ctr"),
            None => old.to_owned(),
        };
        let mut command = setting.ssh(&[]);
        let options = old.split(" -o").flat_map(|option| ["-o", option]);
        let (status, _, errors) = ran(command.args(options).arg("echo"));
        assert_eq!(status, Some(255), "{old}");
        assert!(errors.contains("Unable to negotiate"), "{old}: {errors}");
    }
    for new in ["Ciphers=aes256-gcm@openssh.com", "Ciphers=aes256-ctr"] {
        assert_eq!(negotiate(new).0, Some(0), "{new}");
    }
    // All that libssh2 had before 1.11.
    let mut old_library = setting.ssh(&[]);
    old_library.args(["-oCiphers=aes256-ctr", "-oMACs=hmac-sha2-256", "echo"]);
    assert_eq!(ran(&mut old_library).0, Some(0));
}

/// OpenSSH has ML-KEM since 9.9 (release notes), and sntrup761 since 8.5.
#[test]
fn openssh_gets_ml_kem_where_it_knows_it_and_x25519_where_it_knows_sntrup_only() {
    let Some(setting) = setting() else { return };
    let (_, known, _) = ran(Command::new("ssh").args(["-Q", "kex"]));
    let knows = |name: &str| known.lines().any(|line| line == name);
    let exchange = if knows("mlkem768x25519-sha256") {
        "kex: algorithm: mlkem768x25519-sha256"
    } else {
        "kex: algorithm: curve25519-sha256"
    };
    let (status, _, errors) = ran(setting.ssh(&[]).args(["-v", "echo"]));
    assert_eq!(status, Some(0), "{errors}");
    assert!(errors.contains(exchange), "{errors}");
    let sntrup = "sntrup761x25519-sha512@openssh.com";
    if knows(sntrup) {
        let only = format!("KexAlgorithms={sntrup}");
        let (status, _, errors) = ran(setting.ssh(&[]).args(["-o", &only, "echo"]));
        assert_eq!(status, Some(255), "{errors}");
        assert!(
            errors.contains("no matching key exchange method found"),
            "{errors}"
        );
        assert!(errors.contains("mlkem768x25519-sha256"), "{errors}");
    }
}

#[test]
fn the_ends_of_commands_are_told_and_their_errors_come_apart() {
    let Some(setting) = setting() else { return };
    for (command, status, output, errors) in [
        ("true", 0, "", ""),
        ("false", 1, "", ""),
        ("nonsense", 127, "", "nonsense: command not found"),
        ("cat missing", 1, "", "No such file"),
        ("mkdir a && cd a && pwd", 0, "/a\n", ""),
        ("exit 42", 42, "", ""),
    ] {
        let ended = ran(&mut setting.ssh(&[command]));
        assert_eq!((ended.0, &*ended.1), (Some(status), output), "{command}");
        assert!(ended.2.contains(errors), "{command}: {}", ended.2);
        assert!(!errors.is_empty() || ended.2.is_empty(), "{}", ended.2);
    }
    // The end of the input is heard, whether there was any or not.
    let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  -\n";
    let read = with_input(&mut setting.ssh(&["sha256sum"]), b"abc");
    assert_eq!((read.0, &*read.1), (Some(0), digest));
    let empty = "d41d8cd98f00b204e9800998ecf8427e  -\n";
    assert_eq!(ran(&mut setting.ssh(&["md5sum"])).1, empty);
}

#[test]
fn an_account_without_commands_is_told_so() {
    let Some(setting) = setting() else { return };
    for (policy, text) in [
        ("none", "This account runs no commands; sftp and scp work."),
        ("shell", "[processes] enabled = true"),
    ] {
        assert!(
            setting
                .wharf
                .run(&["user", "set", "alice", "--exec", policy], "")
                .0
        );
        for words in [&["ls"][..], &["-T"]] {
            let (status, output, errors) = ran(&mut setting.ssh(words));
            assert_eq!((status, &*output), (Some(126), ""), "{words:?}");
            assert!(errors.contains(text), "{words:?}: {errors}");
        }
    }
}

#[test]
fn two_hundred_megabytes_come_as_they_are_in_both_directions_at_once() {
    let Some(setting) = setting() else { return };
    let content = noise(200_000_000, 1);
    std::fs::write(setting.home().join("big"), &content).expect("written");
    let output = setting
        .ssh(&["cat", "big"])
        .stdin(Stdio::null())
        .output()
        .expect("runs");
    assert!(output.status.success());
    assert!(output.stdout == content, "{} bytes", output.stdout.len());
    let file = File::open(setting.home().join("big")).expect("opens");
    let echoed = setting.ssh(&["cat"]).stdin(file).output().expect("runs");
    assert!(echoed.status.success());
    assert!(echoed.stdout == content, "{} bytes", echoed.stdout.len());
}

#[test]
fn files_go_and_come_by_sftp_and_scp_without_commands() {
    let Some(setting) = setting() else { return };
    let no_commands = ["user", "set", "alice", "--exec", "none"];
    assert!(setting.wharf.run(&no_commands, "").0);
    let content = noise(3_000_000, 5);
    let local = setting.clients.file("local");
    std::fs::write(&local, &content).expect("written");
    let client = |program| {
        let proof = Proof::Key(&setting.key);
        setting.clients.client(program, setting.server.ssh(), proof)
    };
    let local = local.to_str().expect("text");
    let back = setting.clients.file("back");
    let back = back.to_str().expect("text");
    let target = "alice@127.0.0.1:/copied";
    for (from, to) in [(local, target), (target, back)] {
        let (status, _, errors) = ran(client("scp").args(["-p", from, to]));
        assert_eq!(status, Some(0), "{errors}");
    }
    assert!(std::fs::read(setting.home().join("copied")).expect("reads") == content);
    assert!(std::fs::read(back).expect("reads") == content);
    std::fs::remove_file(back).expect("there");
    let batch = setting.clients.file("batch");
    let commands = format!(
        "mkdir in\ncd in\nput {local} file\nrename file named\nget named {back}\nrm /copied\nls -1 /\nbye\n"
    );
    std::fs::write(&batch, commands).expect("written");
    let mut sftp = client("sftp");
    let batch = batch.to_str().expect("text");
    let (status, output, errors) = ran(sftp.args(["-q", "-b", batch, "alice@127.0.0.1"]));
    assert_eq!(status, Some(0), "{errors}");
    assert!(output.ends_with("ls -1 /\n/in\nsftp> bye\n"), "{output}");
    assert!(std::fs::read(back).expect("reads") == content);
    assert_eq!(
        setting.wharf.usage("alice"),
        (u64::try_from(content.len()).expect("fits"), 2)
    );
}

#[test]
fn keys_are_exchanged_anew_in_the_middle_of_what_runs() {
    let Some(setting) = setting() else { return };
    let content = noise(30_000_000, 6);
    std::fs::write(setting.home().join("big"), &content).expect("written");
    let often = ["-v", "-o", "RekeyLimit=3M"];
    let file = || File::open(setting.home().join("big")).expect("opens");
    let mut down = setting.ssh(&[]);
    let down = down.args(often).args(["cat", "big"]).stdin(Stdio::null());
    let mut up = setting.ssh(&[]);
    let up = up.args(often).args(["cat > copy"]).stdin(file());
    let mut both = setting.ssh(&[]);
    let both = both.args(often).arg("cat").stdin(file());
    for (command, expected) in [(down, &*content), (up, &[][..]), (both, &*content)] {
        let output = command.output().expect("runs");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{told}");
        assert!(output.stdout == expected, "{} bytes", output.stdout.len());
        let exchanges = told.matches("SSH2_MSG_KEXINIT received").count();
        assert!(exchanges >= 8, "{exchanges}: {told}");
    }
    assert!(std::fs::read(setting.home().join("copy")).expect("reads") == content);
}

#[test]
fn a_client_that_is_killed_ends_what_it_ran_and_what_it_sent_is_kept_as_cut() {
    let Some(setting) = setting() else { return };
    let one = ["user", "set", "alice", "--max-sessions", "1"];
    assert!(setting.wharf.run(&one, "").0);
    let mut writing = piped(&mut setting.ssh(&["cat > file"]));
    let mut stdin = writing.stdin.take().expect("piped");
    stdin.write_all(&noise(1_000_000, 7)).expect("writes");
    setting.server.await_log(&["\"command\"", "cat > file"]);
    let (status, _, errors) = ran(&mut setting.ssh(&["echo", "hello"]));
    assert_eq!(status, Some(255), "one session is there");
    assert!(errors.contains("as many sessions as it may"), "{errors}");
    // While the input is open: what the server sees is a connection that breaks.
    writing.kill().expect("runs");
    writing.wait().expect("ends");
    while ran(&mut setting.ssh(&["echo", "hello"])).1 != "hello\n" {
        std::thread::yield_now();
    }
    let (_, listing, _) = ran(&mut setting.ssh(&["ls"]));
    assert_eq!(listing, "file\n");
    let mark = rustix::fs::getxattr(
        setting.home().join("file"),
        "user.wharf.incomplete",
        &mut [0u8; 64][..],
    );
    assert!(mark.is_ok(), "{mark:?}");
}

#[test]
fn open_files_and_commands_are_among_the_transfers_while_they_move() {
    let Some(setting) = setting() else { return };
    let await_transfer = |is_meant: &dyn Fn(&Value) -> bool| loop {
        let (success, output, errors) = setting.wharf.run(&["sessions", "--json"], "");
        assert!(success, "{errors}");
        let sessions = output
            .lines()
            .map(|line| -> Value { serde_json::from_str(line).expect("JSON") });
        let mut transfers = sessions.flat_map(|session| {
            let transfers = session["transfers"].as_array().cloned();
            transfers.expect("a list")
        });
        if let Some(found) = transfers.find(|transfer| is_meant(transfer)) {
            return found;
        }
    };
    // What a command has read and what it has written.
    let mut cat = piped(&mut setting.ssh(&["cat", "-"]));
    let mut stdin = cat.stdin.take().expect("piped");
    stdin.write_all(&noise(100_000, 1)).expect("written");
    let command = await_transfer(&|transfer| transfer["bytes"] == 200_000);
    assert_eq!(command["direction"], "command");
    assert_eq!(command["command"], "cat -");
    assert!(command["path"].is_null(), "{command}");
    let (success, shown, _) = setting.wharf.run(&["sessions"], "");
    assert!(
        success && shown.contains("command cat -: 195.3 KiB, 0 B/s"),
        "{shown}"
    );
    drop(stdin);
    assert!(cat.wait_with_output().expect("ends").status.success());
    // The client is held to 1 MB/s, so that there is time to look.
    let content = noise(4_000_000, 2);
    let local = setting.clients.file("local");
    std::fs::write(&local, &content).expect("written");
    std::fs::write(setting.home().join("there"), &content).expect("written");
    let batch = setting.clients.file("batch");
    for (direction, path, commands) in [
        ("download", "/there", "get there /dev/null".to_owned()),
        ("upload", "/sent", format!("put {} sent", local.display())),
    ] {
        std::fs::write(&batch, commands).expect("written");
        let proof = Proof::Key(&setting.key);
        let mut sftp = setting.clients.client("sftp", setting.server.ssh(), proof);
        sftp.args(["-q", "-l", "8000", "-b"]).arg(&batch);
        let sftp = piped(sftp.arg("alice@127.0.0.1"));
        let moving = await_transfer(&|transfer| transfer["path"] == path);
        assert_eq!(moving["direction"], direction);
        let total = (direction == "download").then_some(4_000_000);
        assert_eq!(moving["bytes_total"].as_u64(), total);
        let id = &moving["transfer"];
        await_transfer(&|transfer| {
            let rate = transfer["bytes_per_second"].as_u64();
            transfer["transfer"] == *id
                && transfer["bytes"].as_u64() > Some(500_000)
                && rate > Some(0)
        });
        assert!(sftp.wait_with_output().expect("ends").status.success());
    }
    let (_, output, _) = setting.wharf.run(&["sessions", "--json"], "");
    assert!(!output.contains("\"direction\""), "{output}");
}

#[test]
fn what_nobody_reads_costs_no_memory_and_goes_on_when_it_is_read() {
    let Some(setting) = setting() else { return };
    let content = noise(100_000_000, 2);
    std::fs::write(setting.home().join("big"), &content).expect("written");
    let before = setting.server.resident_bytes();
    // Echoed, so that neither side of the server can go on.
    let mut child = setting
        .ssh(&["cat"])
        .stdin(File::open(setting.home().join("big")).expect("opens"))
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut stdout = child.stdout.take().expect("piped");
    let mut read = vec![0; 1_000_000];
    stdout.read_exact(&mut read).expect("reads");
    // The client goes on sending while it is not read, until it is held back.
    let mut most = 0;
    for _ in 0..30 {
        most = most.max(setting.server.resident_bytes());
        // Nothing tells when a peer has stopped sending.
        std::thread::park_timeout(Duration::from_millis(100));
    }
    assert!(most < before + 64_000_000, "{before} -> {most}");
    stdout.read_to_end(&mut read).expect("reads");
    assert!(read == content, "{} bytes", read.len());
    assert!(child.wait().expect("ends").success());
}

#[test]
fn many_channels_of_one_connection_work_at_once() {
    let Some(setting) = setting() else { return };
    let content = noise(5_000_000, 3);
    std::fs::write(setting.home().join("file"), &content).expect("written");
    let socket = setting.clients.file("control");
    let socket = socket.to_str().expect("text");
    let mut master = setting
        .clients
        .client("ssh", setting.server.ssh(), Proof::Key(&setting.key));
    let mut master = master
        .args(["-M", "-S", socket, "-N", "-l", "alice", "127.0.0.1"])
        .spawn()
        .expect("starts");
    while !Path::new(socket).exists() {
        assert!(
            master.try_wait().expect("runs").is_none(),
            "the master ended"
        );
        std::thread::yield_now();
    }
    let over_it = |words: &[&str]| {
        let mut command = Command::new("ssh");
        command.args(["-F", "none", "-S", socket, "-o", "ControlMaster=no"]);
        command.arg("127.0.0.1").args(words);
        command
    };
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let output = over_it(&["cat", "file"])
                    .stdin(Stdio::null())
                    .output()
                    .expect("runs");
                assert!(output.stdout == content, "{} bytes", output.stdout.len());
            });
        }
    });
    // Channels that are gone count no more.
    for _ in 0..30 {
        assert_eq!(ran(&mut over_it(&["echo", "hello"])).1, "hello\n");
    }
    let sessions = setting.server.log();
    let logins = sessions.iter().filter(|line| line.contains("logged in"));
    assert_eq!(logins.count(), 1);
    let _ = ran(over_it(&[]).args(["-O", "exit"]));
    master.wait().expect("ends");
}

#[test]
fn a_shell_reads_lines_with_a_terminal_and_without() {
    let Some(setting) = setting() else { return };
    std::fs::create_dir(setting.home().join("in")).expect("made");
    let (status, output, errors) =
        with_input(&mut setting.ssh(&["-T"]), b"cd in\npwd\nnonsense\nexit 3\n");
    assert_eq!((status, &*output), (Some(3), "/in\n"), "{errors}");
    assert!(errors.contains("nonsense: command not found"), "{errors}");
    let mut shell = piped(&mut setting.ssh(&["-tt"]));
    let mut keys = shell.stdin.take().expect("piped");
    let mut screen = shell.stdout.take().expect("piped");
    let mut expect = |text: &str| {
        let mut shown = vec![0; text.len()];
        screen.read_exact(&mut shown).expect("reads");
        assert_eq!(String::from_utf8_lossy(&shown), text);
    };
    expect("/$ ");
    keys.write_all(b"cd inx\x7f\r").expect("writes");
    expect("cd inx\x08 \x08\r\n/in$ ");
    keys.write_all(b"pwd\r").expect("writes");
    expect("pwd\r\n/in\r\n/in$ ");
    keys.write_all(b"exit 4\r").expect("writes");
    expect("exit 4\r\n");
    assert_eq!(shell.wait().expect("ends").code(), Some(4));
}

#[test]
fn ctrl_c_stops_what_runs_in_a_shell_and_the_shell_goes_on() {
    let Some(setting) = setting() else { return };
    // It takes longer than anybody waits, without a block on the disk.
    let huge = File::create(setting.home().join("huge")).expect("made");
    huge.set_len(1 << 40).expect("set");
    let mut shell = piped(&mut setting.ssh(&["-tt"]));
    let mut keys = shell.stdin.take().expect("piped");
    let mut screen = shell.stdout.take().expect("piped");
    let mut expect = |text: &str| {
        let mut shown = vec![0; text.len()];
        screen.read_exact(&mut shown).expect("reads");
        assert_eq!(String::from_utf8_lossy(&shown), text);
    };
    let mut press = |pressed: &[u8]| keys.write_all(pressed).expect("writes");
    expect("/$ ");
    press(b"sha256sum huge\r");
    expect("sha256sum huge\r\n");
    // What was typed before is gone, and what comes after is not.
    press(b"rm huge\r");
    expect("rm huge\r\n");
    press(b"\x03echo $?\r");
    expect("^C\r\n");
    expect("echo $?\r\n/$ 130\r\n/$ ");
    press(b"cat > file\rline\r");
    expect("cat > file\r\nline\r\n");
    press(b"\x03");
    expect("^C\r\n/$ ");
    press(b"cat\r");
    expect("cat\r\n");
    press(b"one\r");
    expect("one\r\none\r\n");
    // The end of what it reads is not the shell's, but the next one is.
    press(b"\x04");
    expect("/$ ");
    press(b"ls; rm huge\x03");
    expect("ls; rm huge^C\r\n/$ ");
    press(b"\x04");
    assert_eq!(shell.wait().expect("ends").code(), Some(130));
}

#[test]
fn nothing_is_forwarded() {
    let Some(setting) = setting() else { return };
    let inside = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = inside.local_addr().expect("bound").port();
    let mut command = setting
        .clients
        .client("ssh", setting.server.ssh(), Proof::Key(&setting.key));
    let target = format!("127.0.0.1:{port}");
    let (status, _, errors) = ran(command.args(["-W", &target, "alice@127.0.0.1"]));
    assert_eq!(status, Some(255));
    assert!(errors.contains("nothing is forwarded here"), "{errors}");
    let backwards = format!("0:{target}");
    let mut command = setting
        .clients
        .client("ssh", setting.server.ssh(), Proof::Key(&setting.key));
    let arguments = [
        "-o",
        "ExitOnForwardFailure=yes",
        "-R",
        &backwards,
        "alice@127.0.0.1",
        "echo",
    ];
    let (status, _, errors) = ran(command.args(arguments));
    assert_eq!(status, Some(255));
    assert!(errors.contains("remote port forwarding failed"), "{errors}");
    inside.set_nonblocking(true).expect("a socket");
    assert!(inside.accept().is_err(), "somebody came");
}

#[test]
fn a_stop_tells_shells_and_waits_for_commands() {
    let Some(setting) = setting() else { return };
    let mut shell = piped(&mut setting.ssh(&["-T"]));
    let mut command = piped(&mut setting.ssh(&["cat"]));
    setting.server.await_log(&["shell", "\"exec\""]);
    setting.server.await_log(&["\"command\"", "cat"]);
    setting.server.signal("TERM");
    let mut errors = String::new();
    let mut told = shell.stderr.take().expect("piped");
    told.read_to_string(&mut errors).expect("reads");
    assert!(errors.contains("The server is stopping."), "{errors}");
    let mut stdin = command.stdin.take().expect("piped");
    stdin.write_all(b"the rest").expect("writes");
    drop(stdin);
    let (status, output, errors) = parts(command.wait_with_output().expect("ends"));
    assert_eq!((status, &*output), (Some(0), "the rest"), "{errors}");
    shell.wait().expect("ends");
    assert!(setting.server.wait());
}

#[test]
fn a_client_that_does_nothing_is_ended_before_the_login_and_after_it() {
    let configuration = "[timeouts]\nlogin = \"1s\"\nidle = \"1s\"\n";
    let Some(setting) = setting_with(configuration) else {
        return;
    };
    let mut socket = TcpStream::connect(setting.server.ssh()).expect("connects");
    assert!(closes(&mut socket).starts_with(b"SSH-2.0-Wharf\r\n"));
    let mut shell = piped(&mut setting.ssh(&["-T"]));
    let mut errors = String::new();
    let mut told = shell.stderr.take().expect("piped");
    told.read_to_string(&mut errors).expect("reads");
    assert!(
        errors.contains("Nothing happened for too long."),
        "{errors}"
    );
    shell.wait().expect("ends");
    // A command that is silent is at work, but one whose output nobody takes is not for ever.
    std::fs::write(setting.home().join("big"), noise(50_000_000, 4)).expect("written");
    let mut unread = piped(&mut setting.ssh(&["cat", "big"]));
    let stdout = unread.stdout.take();
    setting
        .server
        .await_log(&["ending the session", "Idle", "\"id\":\"3\""]);
    drop(stdout);
    unread.wait().expect("ends");
}

/// What a server still says until it closes.
fn closes(socket: &mut TcpStream) -> Vec<u8> {
    let patience = Some(Duration::from_secs(30));
    socket.set_read_timeout(patience).expect("a socket");
    let mut said = Vec::new();
    match socket.read_to_end(&mut said) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("not closed: {error}"),
    }
    said
}

#[test]
fn a_peer_that_speaks_no_ssh_is_closed_at_once() {
    let Some(setting) = setting() else { return };
    let server: SocketAddr = setting.server.ssh();
    let before = setting.server.resident_bytes();
    let version = b"SSH-2.0-x\r\n";
    let floods: [Vec<u8>; 6] = [
        // A version without an end, lines before it, one that is none.
        vec![b'x'; 10_000_000],
        b"hello\r\n".repeat(1_000_000),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        b"SSH-1.5-old\r\n".to_vec(),
        // A packet of 4 GiB, and one that is shorter than its padding.
        [&version[..], &[0xff; 4], &[0; 64]].concat(),
        [&version[..], &[0, 0, 0, 12, 255], &[0; 64]].concat(),
    ];
    for flood in floods {
        let mut socket = TcpStream::connect(server).expect("connects");
        let patience = Some(Duration::from_secs(30));
        socket.set_write_timeout(patience).expect("a socket");
        // It may be closed before everything is sent.
        let _ = socket.write_all(&flood);
        closes(&mut socket);
    }
    let after = setting.server.resident_bytes();
    assert!(after < before + 32_000_000, "{before} -> {after}");
    assert_eq!(ran(&mut setting.ssh(&["echo", "hello"])).1, "hello\n");
}

#[test]
fn strangers_who_do_not_log_in_over_ssh_have_a_cap() {
    let Some(setting) = setting_with("[limits]\nbefore_login_per_address = 3\n") else {
        return;
    };
    let mut strangers: Vec<TcpStream> = (0..3)
        .map(|_| {
            let mut stranger = TcpStream::connect(setting.server.ssh()).expect("connects");
            let mut version = [0; 15];
            stranger.read_exact(&mut version).expect("greeted");
            stranger
        })
        .collect();
    let mut next = TcpStream::connect(setting.server.ssh()).expect("connects");
    assert_eq!(
        closes(&mut next),
        b"Too many connections; try again later.\r\n"
    );
    strangers.pop();
    // Whoever logs in counts no more.
    while ran(&mut setting.ssh(&["echo", "hello"])).1 != "hello\n" {
        std::thread::yield_now();
    }
    for _ in 0..3 {
        assert_eq!(ran(&mut setting.ssh(&["echo", "hello"])).1, "hello\n");
    }
}

const MEASURED_BYTES: usize = 1 << 30;
const ROUNDS: usize = 5;

/// Both servers in one run, in alternate rounds, with OpenSSH's client; `just compare-sftp`
/// measures it.
#[test]
#[ignore = "takes minutes, 4 GiB of disk and a machine of its own"]
fn a_gibibyte_by_sftp_is_as_fast_as_with_openssh() {
    let (Some(setting), Some(sshd), Some(clients)) = (setting(), Sshd::start(""), OpenSsh::new())
    else {
        return;
    };
    let local = setting.clients.file("local");
    std::fs::write(&local, noise(MEASURED_BYTES, 9)).expect("written");
    std::fs::copy(&local, setting.home().join("there")).expect("copied");
    std::fs::copy(&local, sshd.root().join("there")).expect("copied");
    let ours = |cipher: &str, [get, name]: [&str; 2]| {
        let proof = Proof::Key(&setting.key);
        let client = setting.clients.client("sftp", setting.server.ssh(), proof);
        let name = format!("/{name}");
        timed(client, cipher, &setting, "alice", [get, &name])
    };
    let theirs = |cipher: &str, [get, name]: [&str; 2]| {
        let key = sshd.key("key");
        let proof = Proof::Key(&key);
        // Others than for Wharf, since they know each server by its key.
        let client = clients.client("sftp", sshd.address(), proof);
        let name = sshd.root().join(name).display().to_string();
        timed(client, cipher, &setting, &sshd.user(), [get, &name])
    };
    let mut slower = Vec::new();
    for cipher in ["aes128-gcm@openssh.com", "chacha20-poly1305@openssh.com"] {
        for work in [["get", "there"], ["put", "sent"]] {
            let mut rounds = [Vec::new(), Vec::new()];
            // The first round warms both up.
            for round in 0..=ROUNDS {
                let times = [ours(cipher, work), theirs(cipher, work)];
                for (rounds, time) in rounds.iter_mut().zip(times) {
                    rounds.extend((round > 0).then_some(time));
                }
            }
            let [ours, theirs] = rounds.map(|mut times| {
                times.sort();
                let rate = |time: Duration| MEASURED_BYTES as f64 / time.as_secs_f64() / 1e6;
                [times[ROUNDS / 2], times[ROUNDS - 1], times[0]].map(rate)
            });
            let ratio = ours[0] / theirs[0];
            eprintln!(
                "{cipher} {}: Wharf {:.0} MB/s ({:.0} to {:.0}), sshd {:.0} MB/s ({:.0} to {:.0}), ratio {ratio:.2}",
                work[0], ours[0], ours[1], ours[2], theirs[0], theirs[1], theirs[2]
            );
            if ratio < 1.0 {
                slower.push((cipher, work[0]));
            }
        }
    }
    let stored = |folder: PathBuf| std::fs::read(folder.join("sent")).expect("there");
    assert!(stored(setting.home()) == stored(sshd.root()));
    assert!(slower.is_empty(), "slower than OpenSSH: {slower:?}");
}

/// How long `sftp` takes for one command.
fn timed(
    mut client: Command,
    cipher: &str,
    setting: &Setting,
    user: &str,
    [work, name]: [&str; 2],
) -> Duration {
    let local = setting.clients.file("local");
    let line = match work {
        "get" => format!("get {name} /dev/null\n"),
        _ => format!("put {} {name}\n", local.display()),
    };
    let batch = setting.clients.file("batch");
    std::fs::write(&batch, line).expect("written");
    client.args(["-q", "-c", cipher, "-b"]).arg(&batch);
    client.arg(format!("{user}@127.0.0.1"));
    let started = Instant::now();
    let (status, _, errors) = ran(&mut client);
    assert_eq!(status, Some(0), "{errors}");
    started.elapsed()
}
