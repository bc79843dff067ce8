//! The client's commands over TLS, with a running server of ours and with those
//! of others. A server that is not there is skipped, loudly; in CI it must be there.

#![expect(
    clippy::disallowed_methods,
    reason = "tests own the directories that they make"
)]

use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use wharf_testkit::{Peer, Server, Wharf, has_program, noise};

struct Setting {
    wharf: Wharf,
    server: Server,
    scratch: PathBuf,
}

/// A server for explicit and implicit TLS under `configuration`, with the account `alice`.
fn setting(configuration: &str) -> Setting {
    let wharf = Wharf::new(env!("CARGO_BIN_EXE_wharf"));
    wharf.add_user("alice", &[]);
    let scratch = wharf.scratch();
    let file = scratch.join("wharf.toml");
    std::fs::write(&file, configuration).expect("written");
    let file = file.to_str().expect("text");
    let server = wharf.serve(&["--ftps", "127.0.0.1:0", "--config", file]);
    Setting {
        wharf,
        server,
        scratch,
    }
}

impl Setting {
    /// By name: the made certificate is good for `localhost`.
    fn url(&self, path: &str) -> String {
        format!("ftp://alice@localhost:{}/{path}", self.server.v4().port())
    }

    fn ftps_url(&self, path: &str) -> String {
        format!(
            "ftps://alice@127.0.0.1:{}/{path}",
            self.server.ftps().port()
        )
    }

    fn certificate(&self) -> String {
        let path = self.wharf.data().join("tls/certificate.pem");
        path.to_str().expect("text").to_owned()
    }

    fn known_hosts(&self) -> String {
        let file = self.scratch.join(".config/wharf/known_hosts");
        std::fs::read_to_string(file).unwrap_or_default()
    }

    fn client(&self, arguments: &[&str]) -> Command {
        client(&self.wharf, arguments)
    }

    fn succeed(&self, arguments: &[&str]) -> String {
        succeed(self.client(arguments))
    }

    fn fail(&self, arguments: &[&str], code: i32) -> String {
        let output = self.client(arguments).output().expect("starts");
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        errors
    }
}

/// The client in the scratch folder, which is its home too.
fn client(wharf: &Wharf, arguments: &[&str]) -> Command {
    let scratch = wharf.scratch();
    let mut command = wharf.command(arguments);
    command
        .current_dir(&scratch)
        .env("WHARF_PASSWORD", "secret")
        .env("HOME", &scratch)
        .env_remove("XDG_CONFIG_HOME")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn succeed(mut command: Command) -> String {
    let output = command.output().expect("starts");
    assert!(output.status.success(), "{command:?}: {}", shown(&output));
    text(&output.stdout)
}

fn shown(output: &Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn an_authority_is_trusted_and_its_server_is_expected_to_stay_encrypted() {
    let setting = setting("");
    let content = noise(1_000_000, 1);
    std::fs::write(setting.scratch.join("file"), &content).expect("written");
    let certificate = setting.certificate();
    let trusting = ["--tls", "required", "--ca-file", &certificate];
    for url in [setting.url(""), setting.ftps_url("")] {
        setting.succeed(&[&["put", "file", &url], &trusting[..]].concat());
        let from = format!("{url}file");
        let line = setting.succeed(&[&["get", &from, "copy"], &trusting[..]].concat());
        assert!(line.contains("verified by BLAKE3"), "{line}");
        let copy = std::fs::read(setting.scratch.join("copy")).expect("is there");
        assert!(copy == content);
        std::fs::remove_file(setting.scratch.join("copy")).expect("removed");
    }
    let known = setting.known_hosts();
    assert_eq!(known.matches(" tls authority\n").count(), 2, "{known}");
    // Without its authority it is somebody else.
    let errors = setting.fail(&["ls", &setting.url(""), "--tls", "required"], 12);
    assert!(errors.contains("HAS CHANGED"), "{errors}");
}

#[test]
fn a_new_server_is_refused_or_accepted_and_a_changed_one_always_refused() {
    let setting = setting("");
    let (url, ftps) = (setting.url(""), setting.ftps_url(""));
    let required = ["--tls", "required"];
    let list = |more: &[&'static str]| [&["ls", url.as_str()], &required[..], more].concat();
    let errors = setting.fail(&list(&[]), 12);
    assert!(errors.contains("fingerprint is sha256:"), "{errors}");
    assert!(errors.contains("--accept-new"), "{errors}");
    assert_eq!(setting.known_hosts(), "");
    // ftps:// is encrypted whatever else is said, and its server is another one.
    setting.fail(&["ls", &ftps], 12);
    let accepted = setting
        .client(&list(&["--accept-new"]))
        .output()
        .expect("starts");
    assert!(accepted.status.success(), "{}", shown(&accepted));
    assert!(shown(&accepted).contains("trusted from now on"));
    setting.succeed(&list(&[]));
    assert_eq!(setting.known_hosts().lines().count(), 1);

    // Another certificate, as from somebody in between.
    let tls = setting.wharf.data().join("tls");
    std::fs::remove_dir_all(&tls).expect("removed");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
    std::fs::create_dir(&tls).expect("made");
    std::fs::write(tls.join("certificate.pem"), made.cert.pem()).expect("written");
    std::fs::write(
        tls.join("private_key.pem"),
        made.signing_key.serialize_pem(),
    )
    .expect("written");
    let files: Vec<_> = std::fs::read_dir(&tls).expect("a folder").collect();
    assert_eq!(files.len(), 2, "{files:?}");
    setting.server.signal("HUP");
    let changed = (0..100).any(|_| {
        let output = setting
            .client(&list(&["--accept-new"]))
            .output()
            .expect("starts");
        let errors = text(&output.stderr);
        errors.contains("HAS CHANGED") && {
            assert_eq!(output.status.code(), Some(12), "{errors}");
            let known = setting.known_hosts();
            let old = known.split_whitespace().last().expect("a fingerprint");
            assert!(
                errors.contains(&format!("was {old} and is sha256:")),
                "{errors}"
            );
            let place = "/.config/wharf/known_hosts (the last one is line 1)";
            assert!(errors.contains(place), "{errors}");
            true
        }
    });
    assert!(changed);
    assert_eq!(setting.known_hosts().lines().count(), 1);
    // --tls off is the way around everything, and says so by its name.
    setting.succeed(&["ls", &url, "--tls", "off"]);
    let errors = setting.fail(&["ls", &ftps, "--tls", "off"], 2);
    assert!(errors.contains("always encrypted"), "{errors}");
}

#[test]
fn at_a_terminal_a_person_is_asked_about_a_new_server() {
    if !has_program("python3") {
        return;
    }
    let setting = setting("");
    let script = r#"
import os, pty, sys
def ask(answer):
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.argv[1], sys.argv[1:])
    seen, told = b"", False
    while True:
        try: piece = os.read(terminal, 65536)
        except OSError: break
        if not piece: break
        seen += piece
        if b"(yes/no)" in seen and not told:
            told = True
            os.write(terminal, answer)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), seen, told
code, seen, asked = ask(b"no\r")
assert code == 12 and asked and b"fingerprint is sha256:" in seen, (code, seen)
code, seen, asked = ask(b"yes\r")
assert code == 0 and asked, (code, seen)
code, seen, asked = ask(b"")
assert code == 0 and not asked, (code, seen)
"#;
    let mut command = Command::new("python3");
    command
        .args(["-c", script, env!("CARGO_BIN_EXE_wharf")])
        .args(["ls", "--tls", "required", &setting.url("")])
        .env("WHARF_PASSWORD", "secret")
        .env("HOME", &setting.scratch)
        .env_remove("XDG_CONFIG_HOME")
        .current_dir(&setting.scratch);
    succeed(command);
}

#[test]
fn many_files_go_both_ways_where_data_connections_must_resume_their_session() {
    let setting = setting("[ftp]\ndata_binding = \"required\"\n");
    let url = setting.url("");
    mirror_both_ways(&setting.wharf, &url, &["--ca-file", &setting.certificate()]);
    // One session after the other as well: the tickets of each serve four times.
    setting.succeed(&["put", "-r", "tree", &url]);
    let from = format!("{url}tree");
    setting.succeed(&["get", "-r", "-j", "1", &from, "single"]);
    assert_eq!(
        std::fs::read_dir(setting.scratch.join("single"))
            .expect("is there")
            .count(),
        20
    );
}

/// Twenty small files up and down again, over four sessions.
fn mirror_both_ways(wharf: &Wharf, url: &str, options: &[&str]) {
    let scratch = wharf.scratch();
    std::fs::create_dir(scratch.join("tree")).expect("made");
    let content = |number: usize| noise(number * 997, 3);
    for number in 0..20 {
        let file = scratch.join(format!("tree/file {number}"));
        std::fs::write(file, content(number)).expect("written");
    }
    let required = ["--tls", "required", "-j", "4"];
    let run =
        |arguments: &[&str]| succeed(client(wharf, &[arguments, &required[..], options].concat()));
    run(&["put", "-r", "tree", url]);
    run(&["get", "-r", &format!("{url}tree"), "down"]);
    for number in 0..20 {
        let name = format!("down/file {number}");
        let copy = std::fs::read(scratch.join(&name)).expect(&name);
        assert!(copy == content(number), "{name}");
    }
    let tree = format!("{url}tree");
    let remove = ["rm", "-r", &tree, "--tls", "required"];
    succeed(client(wharf, &[&remove[..], options].concat()));
}

/// A client's folders, and a peer's URL with the option that trusts it.
fn with_peer(peer: Option<Peer>) {
    let Some(peer) = peer else {
        return;
    };
    let wharf = Wharf::new(env!("CARGO_BIN_EXE_wharf"));
    let password = peer.password().replace('@', "%40");
    let port = peer.address().port();
    let url = format!("ftp://{}:{password}@127.0.0.1:{port}/", peer.user());
    let certificate = peer.certificate();
    let certificate = certificate.to_str().expect("text");
    mirror_both_ways(&wharf, &url, &["--ca-file", certificate]);

    // ProFTPD takes Telnet's signals out of a line; the others take its bytes as they come.
    let odd = std::ffi::OsStr::from_bytes(b"a\xffb\xff\xf4\xff\xffc\xff");
    std::fs::create_dir(wharf.scratch().join("odd")).expect("made");
    std::fs::write(wharf.scratch().join("odd").join(odd), b"x").expect("written");
    let trusting = ["--tls", "required", "--ca-file", certificate];
    let put = ["put", "-r", "odd", &url];
    succeed(client(&wharf, &[&put[..], &trusting[..]].concat()));
    assert!(peer.root().join("odd").join(odd).exists());
    let from = format!("{url}odd");
    let get = ["get", "-r", &from, "even"];
    succeed(client(&wharf, &[&get[..], &trusting[..]].concat()));
    assert!(wharf.scratch().join("even").join(odd).exists());

    let errors = client(&wharf, &["ls", &url, "--tls", "off"])
        .output()
        .expect("starts");
    assert!(!errors.status.success(), "takes passwords in the clear");
    let content = noise(3_000_000, 5);
    std::fs::write(wharf.scratch().join("big"), &content).expect("written");
    succeed(client(
        &wharf,
        &[&["put", "big", &url], &trusting[..]].concat(),
    ));
    let from = format!("{url}big");
    succeed(client(
        &wharf,
        &[&["get", &from, "copy"], &trusting[..]].concat(),
    ));
    assert!(std::fs::read(wharf.scratch().join("copy")).expect("is there") == content);
}

#[test]
fn vsftpd_with_required_reuse_is_served_in_full() {
    with_peer(Peer::vsftpd_tls());
}

#[test]
fn pure_ftpd_with_tls_is_served_in_full() {
    with_peer(Peer::pure_ftpd_tls());
}

#[test]
fn proftpd_with_required_reuse_is_served_in_full() {
    with_peer(Peer::proftpd_tls());
}

/// As [`with_peer`], and TLS 1.2 is what is spoken.
fn with_peer_of_tls_1_2(peer: Option<Peer>) {
    let Some(peer) = peer else {
        return;
    };
    let wharf = Wharf::new(env!("CARGO_BIN_EXE_wharf"));
    let url = format!("ftp://{}/", peer.url_authority());
    let told = succeed(client(&wharf, &["doctor", "--read-only", &url]));
    assert!(told.contains("TLSv1_2"), "{told}");
    assert!(told.contains("resumed the session's TLS"), "{told}");
    with_peer(Some(peer));
}

#[test]
fn vsftpd_with_tls_1_2_is_served_in_full() {
    with_peer_of_tls_1_2(Peer::vsftpd_tls_1_2());
}

#[test]
fn proftpd_with_tls_1_2_is_served_in_full() {
    with_peer_of_tls_1_2(Peer::proftpd_tls_1_2());
}
