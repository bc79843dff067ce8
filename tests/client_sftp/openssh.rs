//! Against OpenSSH's server.

use std::io::{BufRead as _, Write as _};
use std::ops::Deref;
use std::process::{Command, Stdio};
use std::time::Duration;

use wharf_testkit::{PASSPHRASE, Sshd, has_program, noise};

use crate::person::{EXPECT, Person, await_progress, write};

struct Setting {
    sshd: Sshd,
    person: Person,
}

/// A server that the person has met, and whose key `key` the person holds as `~/.ssh/id_ed25519`.
fn setting() -> Option<Setting> {
    let setting = strangers("")?;
    setting.write(
        ".ssh/known_hosts",
        setting.sshd.known_hosts_line().as_bytes(),
    );
    setting.take_key("key", "id_ed25519");
    Some(setting)
}

/// A server and a person who have never met.
fn strangers(configuration: &str) -> Option<Setting> {
    let sshd = Sshd::start(configuration)?;
    let person = Person::new();
    Some(Setting { sshd, person })
}

impl Deref for Setting {
    type Target = Person;

    fn deref(&self) -> &Person {
        &self.person
    }
}

impl Setting {
    fn store(&self, name: &str, content: &[u8]) {
        write(&self.sshd.root().join(name), content);
    }

    fn stored(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.sshd.root().join(name)).expect(name)
    }

    fn take_key(&self, name: &str, as_name: &str) {
        let content = std::fs::read(self.sshd.key(name)).expect("a key");
        self.write(&format!(".ssh/{as_name}"), &content);
    }

    fn url(&self, name: &str) -> String {
        self.sshd.url(name)
    }
}

#[test]
fn files_go_up_and_down_verified_and_keep_their_times() {
    let Some(setting) = setting() else { return };
    let content = noise(3_000_000, 1);
    setting.write("it's a b", &content);
    let moment = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let file = std::fs::File::options()
        .write(true)
        .open(setting.file("it's a b"))
        .expect("opens");
    file.set_modified(moment).expect("is set");

    let told = setting.succeed(&["put", "it's a b", &setting.url("")]);
    assert!(told.contains("verified by SHA-256"), "{told}");
    assert_eq!(setting.stored("it's a b"), content);
    let url = setting.url("it's%20a%20b");
    let told = setting.succeed(&["get", &url, "copy"]);
    assert!(told.contains("verified by SHA-256"), "{told}");
    assert_eq!(setting.read("copy"), content);
    let copy = std::fs::metadata(setting.file("copy")).expect("is there");
    assert_eq!(copy.modified().expect("a time"), moment);

    let told = setting.succeed(&["get", &url, "copy"]);
    assert!(told.contains("unchanged"), "{told}");
    assert_eq!(setting.run(&["cat", &url]).stdout, content);
    let digest = setting.succeed(&["hash", &url]);
    let here = Command::new("sha256sum")
        .arg(setting.file("copy"))
        .output()
        .expect("runs");
    assert_eq!(
        digest.as_bytes().get(..64),
        here.stdout.get(..64),
        "{digest}"
    );
}

#[test]
fn directories_are_made_listed_renamed_and_removed() {
    let Some(setting) = setting() else { return };
    setting.succeed(&["mkdir", "-p", &setting.url("a/b/c")]);
    setting.store("a/b/file", b"1234");
    setting.store("a/b/hi\x1bdden", b"");
    let listed = setting.succeed(&["ls", &setting.url("a/b")]);
    assert!(
        listed.contains("c/") && listed.contains("4") && listed.contains("file"),
        "{listed}"
    );
    assert!(listed.contains("hi\\x1bdden"), "{listed}");
    // As with FTP a rename replaces.
    setting.store("a/b/old", b"old");
    setting.succeed(&["mv", &setting.url("a/b/file"), &setting.url("a/b/old")]);
    assert_eq!(setting.stored("a/b/old"), b"1234");
    setting.succeed(&["rm", &setting.url("a/b/o*")]);
    assert!(!setting.sshd.root().join("a/b/old").exists());
    setting.succeed(&["rm", "-r", &setting.url("a")]);
    assert!(!setting.sshd.root().join("a").exists());
    let error = setting.fail(&["get", &setting.url("a")], 3);
    assert!(error.contains("no such file"), "{error}");
    setting.store("taken", b"");
    let error = setting.fail(&["mkdir", &setting.url("taken")], 5);
    assert!(error.contains("already exists"), "{error}");
}

#[test]
fn a_cut_download_resumes_with_its_begin_proven() {
    let Some(setting) = setting() else { return };
    let content = noise(16 << 20, 2);
    setting.store("big", &content);
    setting.cut(&["get", &setting.url("big")]);
    assert!(!setting.file("big").exists());
    let file = setting.transferred(&["get", "--json", &setting.url("big")]);
    assert!(file["resumed_at"].as_u64().expect("resumed") > 0, "{file}");
    assert_eq!(file["evidence"], "begin proven by SHA-256");
    assert_eq!(file["verified"], "SHA-256");
    assert_eq!(setting.read("big"), content);
}

#[test]
fn a_cut_upload_resumes_with_its_begin_proven() {
    let Some(setting) = setting() else { return };
    let content = noise(16 << 20, 3);
    setting.write("big", &content);
    setting.cut(&["put", "big", &setting.url("")]);
    assert!(setting.stored("big").len() < content.len());
    let file = setting.transferred(&["put", "--json", "big", &setting.url("")]);
    assert!(file["resumed_at"].as_u64().expect("resumed") > 0, "{file}");
    assert_eq!(file["evidence"], "begin proven by SHA-256");
    assert_eq!(setting.stored("big"), content);
}

#[test]
fn a_connection_that_breaks_is_taken_up_again_where_it_broke() {
    let Some(setting) = setting() else { return };
    let content = noise(16 << 20, 4);
    setting.store("big", &content);
    let url = setting.url("big");
    let arguments = ["get", "--json", "--limit-rate", "8MiB", &url];
    let mut child = setting.client(&arguments).spawn().expect("starts");
    let told = await_progress(&mut child);
    setting.sshd.kill_sessions();
    let lines: Vec<String> = told.lines().map(|line| line.expect("text")).collect();
    assert!(child.wait().expect("ends").success(), "{lines:?}");
    assert!(
        lines.iter().any(|line| line.contains("\"retrying\"")),
        "{lines:?}"
    );
    assert_eq!(setting.read("big"), content);
}

#[test]
fn trees_are_mirrored_both_ways() {
    let Some(setting) = setting() else { return };
    for index in 0..20_u8 {
        setting.write(&format!("site/{}/{index}", index % 3), &[index; 1000]);
    }
    setting.store("site/gone", b"old");
    setting.succeed(&["mirror", "--delete", "site", &setting.url("site")]);
    assert!(!setting.sshd.root().join("site/gone").exists());
    assert_eq!(setting.stored("site/1/7"), [7; 1000]);
    setting.store("site/2/new", b"new");
    std::fs::remove_file(setting.sshd.root().join("site/1/7")).expect("removed");
    setting.succeed(&["mirror", "--delete", &setting.url("site"), "site"]);
    assert_eq!(setting.read("site/2/new"), b"new");
    assert!(!setting.file("site/1/7").exists());
    let told = setting.succeed(&["mirror", "--json", &setting.url("site"), "site"]);
    assert!(!told.contains("\"event\":\"transferred\""), "{told}");
}

#[test]
fn the_shell_works_over_ssh() {
    let Some(setting) = setting() else { return };
    setting.write("here", b"content");
    let mut shell = setting
        .client(&["shell", &setting.url("")])
        .stdin(Stdio::piped())
        .spawn()
        .expect("starts");
    shell
        .stdin
        .take()
        .expect("piped")
        .write_all(b"mkdir sub\ncd sub\nput here\nls\nhash here\npwd\n")
        .expect("written");
    let output = shell.wait_with_output().expect("ends");
    let told = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}{errors}");
    assert!(told.contains("/home/sub"), "{told}");
    assert_eq!(setting.stored("sub/here"), b"content");
}

#[test]
fn an_account_without_commands_is_served_and_verified_by_size() {
    let Some(setting) = strangers("ForceCommand internal-sftp") else {
        return;
    };
    setting.write(
        ".ssh/known_hosts",
        setting.sshd.known_hosts_line().as_bytes(),
    );
    setting.take_key("key", "id_ed25519");
    setting.write("file", &noise(100_000, 5));
    let file = setting.transferred(&["put", "--json", "file", &setting.url("")]);
    assert_eq!(file["verified"], "size", "{file}");
    let file = setting.transferred(&["get", "--json", &setting.url("file"), "copy"]);
    assert_eq!(file["verified"], "size", "{file}");
    assert_eq!(setting.read("copy"), setting.read("file"));
}

#[test]
fn a_server_with_one_channel_a_connection_is_served() {
    let Some(setting) = strangers("MaxSessions 1") else {
        return;
    };
    setting.write(
        ".ssh/known_hosts",
        setting.sshd.known_hosts_line().as_bytes(),
    );
    setting.take_key("key", "id_ed25519");
    setting.store("file", b"content");
    let file = setting.transferred(&["get", "--json", &setting.url("file")]);
    assert_eq!(file["verified"], "size", "{file}");
}

#[test]
fn a_server_that_refuses_too_many_keys_is_not_asked_again_and_again() {
    let Some(setting) = strangers("MaxAuthTries 1") else {
        return;
    };
    setting.write(
        ".ssh/known_hosts",
        setting.sshd.known_hosts_line().as_bytes(),
    );
    setting.take_key("stranger", "id_ed25519");
    setting.take_key("rsa", "id_rsa");
    setting.fail(&["ls", &setting.url("")], 4);
}

#[test]
fn a_server_is_trusted_on_first_use_and_refused_loudly_when_its_key_changes() {
    let Some(setting) = strangers("") else { return };
    setting.take_key("key", "id_ed25519");
    let url = setting.url("");
    let error = setting.fail(&["ls", &url], 12);
    assert!(
        error.contains("is not known") && error.contains("SHA256:"),
        "{error}"
    );
    assert!(!setting.file(".config").exists());

    let output = setting.run(&["ls", "--accept-new", &url]);
    assert!(output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("new and trusted from now on"), "{said}");
    let pins = String::from_utf8(setting.read(".config/wharf/known_hosts")).expect("text");
    let key = setting.sshd.public_line("host");
    let key: Vec<&str> = key.split(' ').take(2).collect();
    assert_eq!(
        pins,
        format!("{} {}\n", setting.sshd.address(), key.join(" "))
    );
    setting.succeed(&["ls", &url]);

    setting.sshd.change_host_key();
    for arguments in [&["ls", &url][..], &["ls", "--accept-new", &url]] {
        let error = setting.fail(arguments, 12);
        assert!(error.contains("HAS CHANGED"), "{error}");
        assert!(error.contains("wharf/known_hosts line 1"), "{error}");
    }
    assert_eq!(setting.read(".config/wharf/known_hosts"), pins.as_bytes());
}

#[test]
fn known_hosts_of_openssh_are_honoured_hashed_and_revoked_ones_too() {
    let Some(setting) = setting() else { return };
    let url = setting.url("");
    setting.succeed(&["ls", &url]);
    let file = setting.file(".ssh/known_hosts");
    let hashed = Command::new("ssh-keygen")
        .arg("-H")
        .arg("-f")
        .arg(&file)
        .output()
        .expect("runs");
    assert!(hashed.status.success());
    assert!(setting.read(".ssh/known_hosts").starts_with(b"|1|"));
    setting.succeed(&["ls", &url]);
    // Nothing was remembered beside them.
    assert!(!setting.file(".config").exists());

    let line = setting.sshd.known_hosts_line();
    setting.write(
        ".ssh/known_hosts",
        format!("{line}@revoked {line}").as_bytes(),
    );
    let error = setting.fail(&["ls", &url], 12);
    assert!(
        error.contains("REVOKED") && error.contains("line 2"),
        "{error}"
    );

    setting.write(".ssh/known_hosts", line.as_bytes());
    setting.sshd.change_host_key();
    let error = setting.fail(&["ls", "--accept-new", &url], 12);
    assert!(
        error.contains("HAS CHANGED") && error.contains(".ssh/known_hosts line 1"),
        "{error}"
    );
}

#[test]
fn a_kind_of_host_key_that_is_known_is_asked_for() {
    let Some(setting) = strangers("") else { return };
    setting.take_key("key", "id_ed25519");
    let folder = setting.sshd.key("sshd_config");
    let text = std::fs::read_to_string(&folder).expect("reads");
    let other = setting.sshd.key("other_host");
    write(
        &folder,
        format!("HostKey {}\n{text}", other.display()).as_bytes(),
    );
    // The server would rather show its Ed25519 key, and only the ECDSA key is known.
    let address = setting.sshd.address();
    let line = format!(
        "[{}]:{} {}",
        address.ip(),
        address.port(),
        setting.sshd.public_line("other_host")
    );
    setting.write(".ssh/known_hosts", line.as_bytes());
    setting.succeed(&["ls", &setting.url("")]);
}

#[test]
fn keys_of_an_agent_and_rsa_keys_open_an_account() {
    let Some(setting) = setting() else { return };
    let url = setting.url("");
    setting.sshd.authorize(&["rsa"]);
    let rsa = setting.sshd.key("rsa");
    setting.succeed(&["ls", "--identity", rsa.to_str().expect("text"), &url]);

    setting.sshd.authorize(&["locked"]);
    let error = setting.fail(&["ls", &url], 4);
    assert!(
        error.contains("publickey") && error.contains("id_ed25519"),
        "{error}"
    );
    if !has_program("python3") {
        return;
    }
    setting.sshd.authorize(&["stranger"]);
    let agent = setting.sshd.agent_with("stranger");
    let output = setting
        .client(&["ls", &url])
        .env("SSH_AUTH_SOCK", agent.socket())
        .output()
        .expect("starts");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    // `IdentitiesOnly` keeps the agent's other keys back.
    setting.write(".ssh/config", b"IdentitiesOnly yes\n");
    let output = setting
        .client(&["ls", &url])
        .env("SSH_AUTH_SOCK", agent.socket())
        .output()
        .expect("starts");
    assert_eq!(output.status.code(), Some(4));
}

#[test]
fn a_locked_key_is_asked_for_at_a_terminal() {
    let Some(setting) = setting() else { return };
    if !has_program("python3") {
        return;
    }
    setting.sshd.authorize(&["locked"]);
    setting.take_key("locked", "id_ed25519");
    let script = format!(
        "{EXPECT}\nexpect(b\"Passphrase of the key \")\nsend(b\"wrong\\r\")\n\
         expect(b\"Passphrase of the key \")\nsend(b\"{PASSPHRASE}\\r\")\nexpect(b\"within\")\nend(0)\n"
    );
    setting.store("within", b"");
    setting.at_terminal(&script, &["ls", &setting.url("")]);
}

#[test]
fn host_aliases_of_the_configuration_are_followed() {
    let Some(setting) = setting() else { return };
    let address = setting.sshd.address();
    std::fs::rename(setting.file(".ssh/id_ed25519"), setting.file(".ssh/mine")).expect("renamed");
    let config = "Include config.d/*\nHost behind\n  ProxyJump bastion\nHost *\n  IdentityFile ~/.ssh/mine\n";
    let alias = format!(
        "Host files\n  HostName {}\n  Port {}\n  User {}\n",
        address.ip(),
        address.port(),
        setting.sshd.user()
    );
    setting.write(".ssh/config", config.as_bytes());
    setting.write(".ssh/config.d/files", alias.as_bytes());
    setting.store("within", b"");
    let root = setting.sshd.root();
    let listed = setting.succeed(&["ls", &format!("sftp://files/{}", root.display())]);
    assert!(listed.contains("within"), "{listed}");
    assert_eq!(
        setting.succeed(&["exec", "sftp://files", "--", "echo", "there"]),
        "there\n"
    );
    let error = setting.fail(&["ls", "sftp://behind/"], 2);
    assert!(error.contains("proxyjump bastion"), "{error}");
}

#[test]
fn what_belongs_to_ftp_is_refused_with_sftp() {
    let Some(setting) = setting() else { return };
    let url = setting.url("");
    for arguments in [
        &["ls", "--active", &url][..],
        &["ls", "--tls", "off", &url],
        &["doctor", "--try-active", &url],
        &["exec", &url, "--", "true"],
    ] {
        let code = if arguments[0] == "exec" { 255 } else { 2 };
        setting.fail(arguments, code);
    }
}

#[test]
fn a_command_has_its_streams_and_its_exit_status() {
    let Some(setting) = setting() else { return };
    let url = setting.sshd.server_url();
    let output = setting.run(&["exec", &url, "--", "echo out; echo err >&2; exit 7"]);
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(
        (&output.stdout[..], &output.stderr[..]),
        (&b"out\n"[..], &b"err\n"[..])
    );
    let output = setting.run(&["exec", &url, "--", "kill -KILL $$"]);
    assert_eq!(output.status.code(), Some(137));
    let output = setting.run(&[
        "exec",
        "--timeout",
        "5",
        "sftp://nobody@127.0.0.1:1",
        "--",
        "true",
    ]);
    assert_eq!(output.status.code(), Some(255));
}

#[test]
fn a_command_is_fed_and_read_byte_by_byte_as_it_is() {
    let Some(setting) = setting() else { return };
    let content = noise(50_000_000, 6);
    setting.write("in", &content);
    let input = std::fs::File::open(setting.file("in")).expect("opens");
    let output = setting
        .client(&["exec", &setting.sshd.server_url(), "--", "cat"])
        .stdin(input)
        .output()
        .expect("starts");
    assert!(output.status.success());
    assert!(
        output.stdout == content,
        "{} bytes came back",
        output.stdout.len()
    );
}

#[test]
fn without_a_command_the_shell_reads_what_is_piped() {
    let Some(setting) = setting() else { return };
    let mut child = setting
        .client(&["exec", &setting.sshd.server_url()])
        .stdin(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut input = child.stdin.take().expect("piped");
    input
        .write_all(b"echo from the shell\nexit 5\n")
        .expect("written");
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(5));
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains("from the shell"), "{told}");
}

#[test]
fn a_command_gets_a_terminal_that_follows_the_size_of_this_one() {
    let Some(setting) = setting() else { return };
    if !has_program("python3") {
        return;
    }
    let script = format!(
        "{EXPECT}\nimport fcntl, struct, termios\n\
         def resize(rows, columns): fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack('HHHH', rows, columns, 0, 0))\n\
         expect(b\"ready\")\nsend(b\"\\r\")\nexpect(b\"24 80\")\nresize(33, 99)\nexpect(b\"33 99\")\nend(9)\n"
    );
    // Waits for a line, so that nothing is missed, and tells the size then and when it changes.
    let command = "test -t 0 || exit 1; trap 'stty size; exit 9' WINCH; echo ready; read line; stty size; while :; do sleep 0.1; done";
    let url = setting.sshd.server_url();
    setting.at_terminal(&script, &["exec", "-t", &url, "--", command]);
}
