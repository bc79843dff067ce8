//! `wharf doctor` against servers that are well and servers that are not.

#![expect(
    clippy::disallowed_methods,
    reason = "tests own the directories that they make"
)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};

use serde_json::Value;
use wharf_testkit::{Peer, Sshd, Wharf};

/// What `wharf doctor --json` has told, and its exit code.
struct Told {
    steps: Vec<Value>,
    code: Option<i32>,
}

impl Told {
    fn step(&self, name: &str) -> &Value {
        let found = self.steps.iter().find(|step| step["step"] == name);
        found.unwrap_or_else(|| panic!("no step {name} in {:#?}", self.steps))
    }

    fn result(&self, name: &str) -> &str {
        self.step(name)["result"].as_str().expect("text")
    }

    fn says(&self, name: &str, key: &str, part: &str) {
        let text = self.step(name)[key].as_str().expect("text");
        assert!(text.contains(part), "{part:?} in {key} of {name}: {text:?}");
    }

    fn with_result(&self, result: &str) -> Vec<&str> {
        let those = self.steps.iter().filter(|step| step["result"] == result);
        those.filter_map(|step| step["step"].as_str()).collect()
    }
}

fn run(wharf: &Wharf, arguments: &[&str]) -> Output {
    command(wharf, arguments).output().expect("starts")
}

fn command(wharf: &Wharf, arguments: &[&str]) -> Command {
    let mut command = wharf.command(&[&["doctor"], arguments].concat());
    let scratch = wharf.scratch();
    command
        .env("WHARF_PASSWORD", "secret")
        .env("HOME", &scratch)
        .env_remove("XDG_CONFIG_HOME")
        .env_remove("SSH_AUTH_SOCK")
        .current_dir(&scratch)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn doctor(wharf: &Wharf, arguments: &[&str]) -> Told {
    steps(&run(wharf, &[&["--json"], arguments].concat()))
}

fn steps(output: &Output) -> Told {
    let lines = output.stdout.split(|byte| *byte == b'\n');
    let steps: Vec<Value> = lines
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).expect("one object a line"))
        .collect();
    for step in &steps {
        assert!(step["seconds"].is_f64(), "{step}");
        let needs_advice = step["result"] == "warn" || step["result"] == "fail";
        assert_eq!(step["advice"] != "", needs_advice, "{step}");
    }
    Told {
        steps,
        code: output.status.code(),
    }
}

fn wharf() -> Wharf {
    Wharf::new(env!("CARGO_BIN_EXE_wharf"))
}

#[test]
fn a_server_of_ours_is_well() {
    let wharf = wharf();
    wharf.add_user("alice", &[]);
    let server = wharf.serve(&["--ftps", "127.0.0.1:0"]);
    let certificate = wharf.data().join("tls/certificate.pem");
    let certificate = certificate.to_str().expect("text");
    for url in [
        format!("ftp://alice@localhost:{}/", server.v4().port()),
        format!("ftps://alice@127.0.0.1:{}/", server.ftps().port()),
    ] {
        let options = [url.as_str(), "--tls", "required", "--try-active"];
        let told = doctor(
            &wharf,
            &[&options[..], &["--ca-file", certificate]].concat(),
        );
        assert_eq!(told.code, Some(0), "{:#?}", told.steps);
        assert!(told.with_result("fail").is_empty());
        for step in [
            "resolve",
            "greeting",
            "tls",
            "login",
            "directory",
            "features",
            "epsv",
            "pasv",
            "data",
            "list",
            "resumption",
            "active",
            "upload",
            "clock",
            "names",
            "digest",
            "download",
            "resume",
            "delete",
        ] {
            assert_eq!(told.result(step), "ok", "{:#?}", told.step(step));
        }
        told.says("tls", "detail", "TLSv1_3");
        told.says("tls", "detail", "localhost");
        told.says("tls", "detail", "an authority vouches for it");
        assert_eq!(told.result("idle"), "skip");
    }
    assert_eq!(wharf.usage("alice"), (0, 0));

    let url = format!("ftp://alice@{}/", server.v4());
    let plain = doctor(&wharf, &[&url, "--tls", "off", "--read-only"]);
    assert_eq!(plain.code, Some(0));
    assert_eq!(plain.with_result("warn"), ["tls"]);
    assert_eq!(plain.result("upload"), "skip");

    let stranger = doctor(&wharf, &[&url, "--tls", "required"]);
    assert_eq!(stranger.code, Some(12));
    stranger.says("certificate", "detail", "made by itself");
    stranger.says("tls", "advice", "--accept-new");
    let text = run(&wharf, &[&url, "--quiet", "--tls", "required"]);
    let shown = String::from_utf8_lossy(&text.stdout);
    assert!(shown.contains("fail  tls"), "{shown}");
    assert!(!shown.contains("ok "), "{shown}");
}

#[test]
fn what_needs_no_password_is_told_without_one() {
    let wharf = wharf();
    wharf.add_user("alice", &[]);
    let server = wharf.serve(&[]);
    let url = format!("ftp://alice@{}/", server.v4());
    let output = command(&wharf, &["--json", &url])
        .env_remove("WHARF_PASSWORD")
        .output()
        .expect("starts");
    assert_eq!(output.status.code(), Some(2));
    let told = steps(&output);
    for step in ["resolve", "connect", "greeting", "tls"] {
        assert_eq!(told.result(step), "ok");
    }
    assert_eq!(told.result("login"), "fail");
    told.says("login", "detail", "no password for alice");
    told.says("login", "detail", "WHARF_PASSWORD");
}

#[test]
fn a_login_that_is_refused_for_lack_of_tls_says_what_helps() {
    let wharf = wharf();
    let config = wharf.configure("[tls]\nplain_on_loopback = false\n");
    let server = wharf.serve(&["--config", &config]);
    let url = format!("ftp://alice@{}/", server.v4());
    let told = doctor(&wharf, &[&url, "--tls", "off"]);
    assert_eq!(told.code, Some(4));
    told.says("login", "advice", "--tls required");
}

#[test]
fn a_server_that_binds_data_connections_is_examined_to_the_end() {
    let wharf = wharf();
    wharf.add_user("alice", &["--rule", "/=list,read"]);
    wharf.add_user("bob", &[]);
    let file = wharf.scratch().join("wharf.toml");
    std::fs::write(&file, "[ftp]\ndata_binding = \"required\"\n").expect("written");
    let server = wharf.serve(&["--config", file.to_str().expect("text")]);
    let port = server.v4().port();
    let told = doctor(&wharf, &[&format!("ftp://bob@127.0.0.1:{port}/")]);
    assert_eq!(told.code, Some(0), "{:#?}", told.steps);
    assert_eq!(told.result("resumption"), "ok");
    assert_eq!(told.result("resume"), "ok");
    told.says("tls", "detail", "not checked on this machine");
    // Where nothing may be written, nothing is.
    let told = doctor(&wharf, &[&format!("ftp://alice@127.0.0.1:{port}/")]);
    assert_eq!(told.code, Some(0), "{:#?}", told.steps);
    assert_eq!(told.result("upload"), "skip");
    told.says("upload", "detail", "may not write");
}

fn examine_peer(peer: Option<Peer>, is_encrypted: bool, expected_warnings: &[&str]) {
    let Some(peer) = peer else {
        return;
    };
    let wharf = wharf();
    let url = format!("ftp://{}/", peer.url_authority());
    let told = doctor(&wharf, &[&url]);
    assert_eq!(told.code, Some(0), "{:#?}", told.steps);
    assert_eq!(
        told.with_result("warn"),
        expected_warnings,
        "{:#?}",
        told.steps
    );
    for step in [
        "list", "upload", "clock", "names", "download", "resume", "delete",
    ] {
        assert_eq!(told.result(step), "ok", "{:#?}", told.step(step));
    }
    if is_encrypted {
        assert_eq!(told.result("tls"), "ok");
    }
    let left = std::fs::read_dir(peer.root()).expect("a folder").count();
    assert_eq!(left, 0, "the file is left behind");
}

#[test]
fn vsftpd_is_examined() {
    examine_peer(Peer::vsftpd(), false, &["tls", "features"]);
    examine_peer(Peer::vsftpd_tls(), true, &["features"]);
}

#[test]
fn pure_ftpd_is_examined() {
    examine_peer(Peer::pure_ftpd(), false, &["tls", "features"]);
    // It keeps no sessions that could be resumed.
    examine_peer(Peer::pure_ftpd_tls(), true, &["features", "resumption"]);
}

#[test]
fn proftpd_is_examined() {
    examine_peer(Peer::proftpd_tls(), true, &["features"]);
}

/// A server that answers a few commands, and PASV with an address that nobody can reach.
fn misled_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut control = socket.try_clone().expect("a descriptor");
                let mut say = move |line: &str| {
                    // A client that goes away ends the session.
                    let _ = control.write_all(format!("{line}\r\n").as_bytes());
                };
                // Closed again: the port is one where nobody listens.
                let closed = TcpListener::bind("127.0.0.1:0").expect("a port");
                let port = closed.local_addr().expect("bound").port();
                drop(closed);
                say("220 Hello.");
                for line in BufReader::new(socket).lines().map_while(Result::ok) {
                    match line.split(' ').next().unwrap_or_default() {
                        "USER" => say("331 Password?"),
                        "PASS" => say("230 Come in."),
                        "TYPE" | "NOOP" => say("200 Fine."),
                        "PWD" => say("257 \"/\""),
                        "CWD" => say("250 Fine."),
                        "QUIT" => say("221 Goodbye."),
                        "PASV" => {
                            let (high, low) = (port >> 8, port & 0xff);
                            say(&format!("227 Passive (10,1,2,3,{high},{low})."));
                        }
                        _ => say("500 What?"),
                    }
                }
            });
        }
    });
    address
}

#[test]
fn a_private_passive_address_and_a_closed_port_are_explained() {
    let address = misled_server();
    let told = doctor(&wharf(), &[&format!("ftp://alice@{address}/")]);
    assert_eq!(told.code, Some(8), "{:#?}", told.steps);
    assert_eq!(
        told.with_result("warn"),
        ["tls", "features", "epsv", "pasv"]
    );
    told.says("pasv", "detail", "10.1.2.3, a private address");
    told.says("pasv", "advice", "pasv_address");
    assert_eq!(told.result("data"), "fail");
    told.says("data", "advice", "open the server's passive ports");
    told.says("features", "detail", "MLSD");
}

#[test]
fn what_cannot_be_reached_or_does_not_speak_is_told_with_what_to_do() {
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = closed.local_addr().expect("bound");
    drop(closed);
    let told = doctor(&wharf(), &[&format!("ftp://alice@{address}/")]);
    assert_eq!(told.code, Some(8));
    told.says("connect", "advice", "listens on this port");

    // The kernel accepts and nobody answers.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("bound");
    let told = doctor(
        &wharf(),
        &["--timeout", "1", &format!("ftp://alice@{address}/")],
    );
    assert_eq!(told.code, Some(8));
    assert_eq!(told.result("connect"), "ok");
    told.says("greeting", "detail", "silent for 1 s");
    told.says("greeting", "advice", "ftps://");
    let told = doctor(
        &wharf(),
        &["--timeout", "1", &format!("ftps://alice@{address}/")],
    );
    assert_eq!(told.code, Some(8));
    told.says("tls", "advice", "implicit TLS is ftps://");

    let told = doctor(&wharf(), &["ftp://alice@no-such-host.invalid/"]);
    assert_eq!(told.code, Some(8));
    told.says("resolve", "advice", "spelling");
}

/// Passes connections on to `server`. Once a file was uploaded, its session hears
/// nothing more, and the first word of it is told.
fn proxy(server: SocketAddr) -> (SocketAddr, Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let (sender, silenced) = channel();
    std::thread::spawn(move || {
        while let Ok((client, _)) = listener.accept() {
            let server = TcpStream::connect(server).expect("connects");
            let back = (
                server.try_clone().expect("a descriptor"),
                client.try_clone().expect("a descriptor"),
            );
            std::thread::spawn(move || std::io::copy(&mut &back.0, &mut &back.1));
            let sender = sender.clone();
            std::thread::spawn(move || pass_up_to_upload(&client, &server, &sender));
        }
    });
    (address, silenced)
}

fn pass_up_to_upload(client: &TcpStream, mut server: &TcpStream, silenced: &Sender<()>) {
    let mut was_uploaded = false;
    for line in BufReader::new(client).split(b'\n').map_while(Result::ok) {
        if was_uploaded {
            let _ = silenced.send(());
            continue;
        }
        was_uploaded = line.starts_with(b"STOR ");
        if server.write_all(&[&line[..], b"\n"].concat()).is_err() {
            return;
        }
    }
}

#[test]
fn an_interrupted_examination_leaves_no_file() {
    let wharf = wharf();
    wharf.add_user("alice", &[]);
    let server = wharf.serve(&[]);
    let (address, silenced) = proxy(server.v4());
    let url = format!("ftp://alice@{address}/");
    let child = command(&wharf, &[&url, "--tls", "off"])
        .spawn()
        .expect("starts");
    silenced.recv().expect("the file is there");
    assert_eq!(
        std::fs::read_dir(wharf.home("alice"))
            .expect("a folder")
            .count(),
        1
    );
    let status = Command::new("kill")
        .args(["-s", "INT", &child.id().to_string()])
        .status()
        .expect("kill(1) runs");
    assert!(status.success());
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("interrupted"));
    let left = std::fs::read_dir(wharf.home("alice"))
        .expect("a folder")
        .count();
    assert_eq!(left, 0, "the file is left behind");
}

/// The steps of a session over SSH that change nothing.
const OVER_SSH: [&str; 12] = [
    "resolve",
    "connect",
    "greeting",
    "exchange",
    "host key",
    "methods",
    "login",
    "sftp",
    "directory",
    "features",
    "digests",
    "list",
];

const ROUND_TRIP: [&str; 7] = [
    "upload", "clock", "names", "digest", "download", "resume", "delete",
];

#[test]
fn a_server_of_ours_is_well_over_ssh() {
    let wharf = wharf();
    wharf.add_user("alice", &[]);
    wharf.add_user("bob", &["--rule", "/=list,read"]);
    let server = wharf.serve(&["--ssh", "127.0.0.1:0"]);
    let port = server.ssh().port();
    let url = format!("sftp://alice@localhost:{port}/");
    let told = doctor(&wharf, &["--accept-new", &url]);
    assert_eq!(told.code, Some(0), "{:#?}", told.steps);
    for step in OVER_SSH.iter().chain(&ROUND_TRIP) {
        assert_eq!(told.result(step), "ok", "{:#?}", told.step(step));
    }
    told.says("greeting", "detail", "SSH-2.0-Wharf");
    told.says(
        "exchange",
        "detail",
        "mlkem768x25519-sha256, aes256-gcm@openssh.com",
    );
    told.says("host key", "detail", "ssh-ed25519 SHA256:");
    told.says("host key", "detail", "trusted from now on");
    told.says(
        "methods",
        "detail",
        "publickey, keyboard-interactive, password",
    );
    told.says("login", "detail", "by a password");
    told.says("sftp", "detail", "version 3 with posix-rename@openssh.com");
    told.says("digests", "detail", "BLAKE3");
    told.says("digests", "detail", "by check-file");
    assert_eq!(told.result("idle"), "skip");
    assert_eq!(wharf.usage("alice"), (0, 0));

    let told = doctor(&wharf, &["--read-only", &url]);
    assert_eq!(told.code, Some(0), "{:#?}", told.steps);
    told.says("host key", "detail", "known");
    assert_eq!(told.result("upload"), "skip");
    // Where nothing may be written, nothing is.
    let told = doctor(&wharf, &[&format!("sftp://bob@localhost:{port}/")]);
    assert_eq!(told.code, Some(0), "{:#?}", told.steps);
    told.says("upload", "detail", "may not write");
    let text = run(&wharf, &[&url]);
    let shown = String::from_utf8_lossy(&text.stdout);
    assert!(shown.contains("ok    host key    ssh-ed25519"), "{shown}");
}

#[test]
fn logins_over_ssh_that_fail_are_told_with_what_to_do() {
    let wharf = wharf();
    wharf.add_user("alice", &[]);
    let server = wharf.serve(&["--ssh", "127.0.0.1:0"]);
    let url = format!("sftp://alice@{}/", server.ssh());
    let stranger = doctor(&wharf, &[&url]);
    assert_eq!(stranger.code, Some(12), "{:#?}", stranger.steps);
    stranger.says("host key", "detail", "is not known");
    stranger.says("host key", "advice", "--accept-new");

    let wrong = format!("sftp://alice:wrong@{}/", server.ssh());
    let told = doctor(&wharf, &["--accept-new", &wrong]);
    assert_eq!(told.code, Some(4), "{:#?}", told.steps);
    assert_eq!(told.result("methods"), "ok");
    told.says("login", "detail", "tried in vain: a password");
    told.says("login", "advice", "--identity");

    let pins = wharf.scratch().join(".config/wharf/known_hosts");
    let known = std::fs::read_to_string(&pins).expect("was remembered");
    let name = known.split(' ').next().expect("a name");
    let other = "AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
    std::fs::write(&pins, format!("{name} ssh-ed25519 {other}\n")).expect("written");
    let told = doctor(&wharf, &["--accept-new", &url]);
    assert_eq!(told.code, Some(12), "{:#?}", told.steps);
    told.says("host key", "detail", "HAS CHANGED");
    told.says("host key", "advice", "do not log in before");
}

#[test]
fn what_does_not_speak_ssh_is_told_with_what_to_do() {
    let wharf = wharf();
    let server = wharf.serve(&[]);
    let told = doctor(&wharf, &[&format!("sftp://alice@{}/", server.v4())]);
    assert_eq!(told.code, Some(9), "{:#?}", told.steps);
    told.says("greeting", "detail", "it does not speak SSH: 220 ");
    told.says("greeting", "advice", "FTP is ftp://");

    // The kernel accepts and nobody answers.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("bound");
    let url = format!("sftp://alice@{address}/");
    let told = doctor(&wharf, &["--timeout", "1", &url]);
    assert_eq!(told.code, Some(8), "{:#?}", told.steps);
    assert_eq!(told.result("connect"), "ok");
    told.says("greeting", "detail", "silent for 1 s");
    drop(silent);
    let told = doctor(&wharf, &[&url]);
    assert_eq!(told.code, Some(8));
    told.says("connect", "advice", "22 for sftp://");
}

#[test]
fn sshd_is_examined() {
    for (configuration, digests, detail) in [
        ("", "ok", "MD5 by a command of the server's"),
        ("ForceCommand internal-sftp", "warn", "makes none"),
    ] {
        let Some(sshd) = Sshd::start(configuration) else {
            return;
        };
        let wharf = wharf();
        let folder = wharf.scratch().join(".ssh");
        std::fs::create_dir_all(&folder).expect("made");
        std::fs::copy(sshd.key("key"), folder.join("id_ed25519")).expect("copied");
        std::fs::write(folder.join("known_hosts"), sshd.known_hosts_line()).expect("written");
        let told = doctor(&wharf, &[&sshd.url("")]);
        assert_eq!(told.code, Some(0), "{:#?}", told.steps);
        for step in OVER_SSH {
            let expected = if step == "digests" { digests } else { "ok" };
            assert_eq!(told.result(step), expected, "{:#?}", told.step(step));
        }
        told.says("digests", "detail", detail);
        told.says("login", "detail", "id_ed25519");
        for step in ["upload", "clock", "names", "download", "resume", "delete"] {
            assert_eq!(told.result(step), "ok", "{:#?}", told.step(step));
        }
        let left = std::fs::read_dir(sshd.root()).expect("a folder").count();
        assert_eq!(left, 0, "the file is left behind");
    }
}
