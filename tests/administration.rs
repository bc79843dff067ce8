//! A running server and those beside it: the administrator, the service
//! manager, and a proxy.

#![expect(
    clippy::disallowed_methods,
    reason = "tests own the directories that they make"
)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use wharf_testkit::{Ftp, Server, Wharf, has_program, noise};

fn wharf() -> Wharf {
    let wharf = Wharf::new(env!("CARGO_BIN_EXE_wharf"));
    wharf.add_user("alice", &[]);
    wharf
}

/// The lines that a command prints with `--json`.
fn json(wharf: &Wharf, arguments: &[&str]) -> Vec<Value> {
    let (success, output, errors) = wharf.run(&[arguments, &["--json"]].concat(), "");
    assert!(success, "{errors}");
    let lines = output.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

fn number(value: &Value, name: &str) -> u64 {
    value[name]
        .as_u64()
        .unwrap_or_else(|| panic!("{name} in {value}"))
}

/// A session of alice whose upload has sent `sent` and goes on.
fn uploading(server: &Server, sent: &[u8]) -> (Ftp, TcpStream) {
    let mut ftp = server.login("alice");
    let mut data = ftp.passive();
    assert_eq!(ftp.command("STOR big.bin").0, 150);
    data.write_all(sent).expect("sent");
    (ftp, data)
}

/// Looks at the sessions until one has moved `bytes`.
fn session_that_moved(wharf: &Wharf, bytes: u64) -> Value {
    loop {
        for session in json(wharf, &["sessions"]) {
            let transfers = session.get("transfers").and_then(Value::as_array);
            let mut transfers = transfers.expect("a list").iter();
            if transfers.any(|transfer| number(transfer, "bytes") == bytes) {
                return session;
            }
        }
    }
}

#[test]
fn a_running_server_tells_who_is_there_and_what_they_move() {
    let wharf = wharf();
    let server = wharf.serve(&[]);
    let _stranger = Ftp::connect(server.v4());
    let (_ftp, _data) = uploading(&server, &noise(100_000, 1));

    // The bytes may come between the two looks of a command: another one finds them there.
    session_that_moved(&wharf, 100_000);
    let session = session_that_moved(&wharf, 100_000);
    assert_eq!(session["account"], "alice");
    assert_eq!(session["protocol"], "ftp");
    assert_eq!(session["encrypted"], false);
    let upload = &session["transfers"][0];
    assert_eq!(upload["direction"], "upload");
    assert_eq!(upload["path"], "/big.bin");
    assert_eq!(
        number(upload, "bytes_per_second"),
        0,
        "nothing came between two looks"
    );

    let status = json(&wharf, &["status"]).remove(0);
    assert_eq!(number(&status, "pid"), u64::from(server.pid()));
    assert_eq!(status["state"], "serving");
    assert_eq!(status["listeners"][0]["address"], server.v4().to_string());
    let counts = [
        "connections",
        "logged_in",
        "accounts",
        "uploads",
        "downloads",
    ];
    assert_eq!(counts.map(|name| number(&status, name)), [2, 1, 1, 1, 0]);

    let (success, text, _) = wharf.run(&["sessions"], "");
    assert!(
        success && text.contains("alice") && text.contains("upload /big.bin: 97.6 KiB"),
        "{text}"
    );
    let (success, text, _) = wharf.run(&["status"], "");
    assert!(success && text.contains("2 of at most 10000"), "{text}");
    assert!(
        text.contains("1 logged in to 1 account; 2 sessions so far")
            && text.contains("1 upload, 0 downloads"),
        "{text}"
    );
}

#[test]
fn a_session_that_is_kicked_is_told_and_ends_and_others_stay() {
    let wharf = wharf();
    let server = wharf.serve(&[]);
    let mut other = server.login("alice");
    let (mut ftp, _data) = uploading(&server, &noise(50_000, 2));
    let id = number(&session_that_moved(&wharf, 50_000), "session").to_string();

    let (success, output, errors) = wharf.run(&["sessions", "kick", &id], "");
    assert!(success, "{errors}");
    assert_eq!(output, format!("session {id} is told to end\n"));
    let last = std::iter::repeat_with(|| ftp.reply().0).find(|code| *code == 421);
    assert_eq!(last, Some(421));
    assert!(ftp.is_closed());
    assert_eq!(other.command("NOOP").0, 200);

    while json(&wharf, &["sessions"]).len() > 1 {}
    let (success, _, errors) = wharf.run(&["sessions", "kick", &id], "");
    assert!(!success);
    assert_eq!(
        errors,
        format!("wharf: there is no session {id}; see which there are with: wharf sessions\n")
    );
}

#[test]
fn where_the_server_is_and_how_to_print_may_be_said_before_and_behind_kick() {
    let wharf = wharf();
    let _server = wharf.serve(&[]);
    let data = wharf.data();
    let place = ["--data-dir", data.to_str().expect("text")];
    let run = |arguments: &[&str]| {
        let mut command = wharf.command(arguments);
        let output = command.env_remove("WHARF_DATA_DIR").output().expect("runs");
        let errors = String::from_utf8(output.stderr).expect("text");
        (output.status.code(), errors)
    };
    let hint = format!(
        "wharf: there is no session 700; see which there are with: wharf sessions --data-dir {}\n",
        data.display()
    );
    let before = [&["sessions"], &place[..], &["--json", "kick", "700"]].concat();
    let behind = [&["sessions", "kick", "700", "--json"], &place[..]].concat();
    for arguments in [before, behind] {
        assert_eq!(run(&arguments), (Some(1), hint.clone()));
    }
    let watching = [&["sessions", "--watch=5", "kick", "700"], &place[..]].concat();
    let (code, errors) = run(&watching);
    assert_eq!(code, Some(2));
    assert!(errors.contains("--watch"), "{errors}");
}

#[test]
fn each_look_is_a_connection_of_its_own_and_looks_stay_apart() {
    let wharf = wharf();
    let listener = UnixListener::bind(wharf.data().join("admin.sock")).expect("binds");
    let mut command = wharf.command(&["sessions", "--watch", "1"]);
    let watching = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let watching = watching.spawn().expect("starts");
    for answer in ["{\"end\":0}\n", "{\"end\":0}\n", ""] {
        let (mut stream, _) = listener.accept().expect("a look");
        let mut request = String::new();
        let mut reader = BufReader::new(stream.try_clone().expect("a handle"));
        reader.read_line(&mut request).expect("reads");
        assert_eq!(request, "{\"request\":\"sessions\"}\n");
        stream.write_all(answer.as_bytes()).expect("writes");
    }
    let output = watching.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(8));
    assert_eq!(
        String::from_utf8(output.stdout).expect("text"),
        "nobody is connected\n\nnobody is connected\n\n"
    );
    let errors = String::from_utf8(output.stderr).expect("text");
    assert!(
        errors.ends_with("has stopped or closed the connection\n"),
        "{errors}"
    );
}

#[test]
fn an_administrator_too_many_is_told_so() {
    let wharf = wharf();
    let _server = wharf.serve(&[]);
    let ask = || {
        let mut stream = UnixStream::connect(wharf.data().join("admin.sock")).expect("connects");
        // It may have been refused already.
        let _ = stream.write_all(b"{\"request\":\"status\"}\n");
        let mut answer = String::new();
        let mut reader = BufReader::new(stream.try_clone().expect("a handle"));
        reader.read_line(&mut answer).expect("reads");
        (stream, answer)
    };
    let served: Vec<(UnixStream, String)> = (0..16).map(|_| ask()).collect();
    assert!(served.iter().all(|(_, answer)| answer.contains("uptime")));
    let (success, _, errors) = wharf.run(&["status"], "");
    assert!(!success);
    assert_eq!(
        errors,
        "wharf: too many administrators ask this server: 16 at once are answered; try again later\n"
    );
}

#[test]
fn a_server_whose_path_is_longer_than_a_socket_address_is_asked_all_the_same() {
    let wharf = wharf();
    let data = wharf.scratch().join("d".repeat(120));
    let place = ["--data-dir", data.to_str().expect("text")];
    let server = wharf.serve(&place);
    let status = json(&wharf, &[&["status"], &place[..]].concat()).remove(0);
    assert_eq!(number(&status, "pid"), u64::from(server.pid()));
    let socket = data.join("admin.sock");
    let made = std::fs::symlink_metadata(&socket).expect("there");
    assert_eq!(made.permissions().mode() & 0o777, 0o600);
    server.kill();
    let server = wharf.serve(&place);
    assert_eq!(json(&wharf, &[&["status"], &place[..]].concat()).len(), 1);
    server.signal("TERM");
    assert!(server.wait());
    assert!(!socket.exists());
    let (_, _, errors) = wharf.run(&[&["status"], &place[..]].concat(), "");
    assert!(errors.contains("no server is running on"), "{errors}");
}

#[test]
fn without_a_server_the_error_says_how_to_start_one() {
    let wharf = wharf();
    for command in [&["status"][..], &["sessions"], &["sessions", "kick", "1"]] {
        let output = wharf.command(command).output().expect("runs");
        assert_eq!(output.status.code(), Some(8));
        let errors = String::from_utf8(output.stderr).expect("text");
        let begin = format!(
            "wharf: no server is running on {}; ",
            wharf.data().display()
        );
        assert!(
            errors.starts_with(&begin) && errors.contains("wharf serve --data-dir"),
            "{errors}"
        );
    }
}

#[test]
fn only_the_owner_may_ask_and_a_crash_leaves_nothing_in_the_way() {
    let wharf = wharf();
    let socket = wharf.data().join("admin.sock");
    wharf.serve(&[]).kill();
    let left = std::fs::symlink_metadata(&socket).expect("left behind");
    assert!(left.file_type().is_socket());
    assert_eq!(left.permissions().mode() & 0o777, 0o600);

    let server = wharf.serve(&[]);
    assert_eq!(json(&wharf, &["status"]).len(), 1);
    server.signal("TERM");
    assert!(server.wait());
    assert!(!socket.exists());
}

#[test]
fn nonsense_on_the_socket_is_answered_or_closed_and_never_kept() {
    let wharf = wharf();
    let _server = wharf.serve(&[]);
    let ask = |request: &[u8]| {
        let mut stream = UnixStream::connect(wharf.data().join("admin.sock")).expect("connects");
        // It may be closed before everything is written.
        let _ = stream.write_all(request);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    for request in [
        &b"{}\n"[..],
        b"\xff\xfe\n",
        b"{\"request\":\"halt\"}\n",
        b"\n",
    ] {
        let answer = ask(request);
        assert!(
            answer.starts_with("{\"error\":\"no such request: "),
            "{answer}"
        );
    }
    assert!(ask(&vec![b'x'; 1 << 20]).len() < 10_000);
    assert_eq!(json(&wharf, &["status"]).len(), 1);
}

#[test]
fn while_a_server_stops_it_says_that_it_waits_for_transfers() {
    let wharf = wharf();
    let server = wharf.serve(&[]);
    let content = noise(70_000, 3);
    let (mut ftp, mut data) = uploading(&server, &content[..50_000]);
    session_that_moved(&wharf, 50_000);
    server.signal("TERM");
    while json(&wharf, &["status"]).remove(0)["state"] != "draining" {}
    data.write_all(&content[50_000..]).expect("sent");
    drop(data);
    while ftp.reply().0 != 226 {}
    assert!(server.wait());
    assert_eq!(
        std::fs::read(wharf.home("alice").join("big.bin")).expect("kept"),
        content
    );
}

#[test]
fn a_server_that_stops_at_once_says_whom_it_cut() {
    let wharf = wharf();
    let server = wharf.serve(&[]);
    let (_ftp, _data) = uploading(&server, &noise(50_000, 5));
    let peer = session_that_moved(&wharf, 50_000)["peer"].clone();
    server.signal("TERM");
    while json(&wharf, &["status"]).remove(0)["state"] != "draining" {}
    server.signal("TERM");
    server.await_log(&["sessions cut", peer.as_str().expect("text")]);
    server.await_log(&["stopped", "\"sessions\":1", "\"cut\":1"]);
    assert!(server.wait());
}

/// The lines of the next message to the service manager.
fn heard(manager: &UnixDatagram) -> Vec<String> {
    let mut message = [0; 4096];
    let length = manager.recv(&mut message).expect("a message");
    let message = message.get(..length).expect("within");
    let text = std::str::from_utf8(message).expect("text");
    text.lines().map(str::to_owned).collect()
}

#[test]
fn the_service_manager_hears_of_ready_alive_reload_and_stop() {
    let wharf = wharf();
    let path = wharf.scratch().join("notify");
    let manager = UnixDatagram::bind(&path).expect("binds");
    manager
        .set_read_timeout(Some(Duration::from_secs(60)))
        .expect("set");
    let server = wharf.serve_prepared(&[], |command| {
        command
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "200000");
    });
    let ready = heard(&manager);
    assert_eq!(ready[0], "READY=1");
    assert!(
        ready[1].contains(&format!("ftp on {}", server.v4())),
        "{ready:?}"
    );
    assert_eq!(
        [heard(&manager), heard(&manager)],
        [["WATCHDOG=1"], ["WATCHDOG=1"]]
    );

    let next = || std::iter::repeat_with(|| heard(&manager)).find(|lines| lines[0] != "WATCHDOG=1");
    server.signal("HUP");
    let reloading = next().expect("a message");
    assert_eq!(reloading[0], "RELOADING=1");
    assert!(reloading[1].starts_with("MONOTONIC_USEC="));
    assert_eq!(next().expect("a message")[0], "READY=1");
    server.signal("TERM");
    assert_eq!(next().expect("a message")[0], "STOPPING=1");
    assert!(server.wait());
}

#[test]
fn a_port_that_the_service_manager_opened_is_served() {
    let wharf = wharf();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let server = wharf.serve_activated("ftp", listener, &[]);
    assert_eq!(server.v4(), address);
    assert_eq!(server.login("alice").command("NOOP").0, 200);
}

#[test]
fn a_port_whose_name_says_nothing_is_refused_with_the_line_that_names_it() {
    let wharf = wharf();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut command = Command::new("sh");
    let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ exec \"$0\" serve";
    command
        .arg("-c")
        .arg(script)
        .arg(env!("CARGO_BIN_EXE_wharf"));
    command.env("WHARF_DATA_DIR", wharf.data());
    command
        .env("LISTEN_FDS", "1")
        .env("LISTEN_FDNAMES", "wharf.socket");
    let output = command
        .stdin(OwnedFd::from(listener))
        .output()
        .expect("runs");
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr).expect("text");
    assert!(
        errors.ends_with(
            "\"wharf.socket\"; say what is spoken on it: FileDescriptorName=ftp, ftps or ssh\n"
        ),
        "{errors}"
    );
}

/// Connects from `source`, as a proxy or a client elsewhere would.
fn connect_from(source: &str, target: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    let source: SocketAddr = format!("{source}:0").parse().expect("an address");
    socket.bind(&source.into()).expect("binds");
    socket.connect(&target.into()).expect("connects");
    socket.into()
}

fn first_line(stream: TcpStream) -> String {
    let mut line = String::new();
    let _ = BufReader::new(stream).read_line(&mut line);
    line
}

#[test]
fn behind_a_proxy_everything_goes_by_the_address_that_it_announces() {
    let wharf = wharf();
    let config = wharf.configure(
        "[ftp]\nproxies = [\"127.0.0.9\"]\ndeny = [\"192.0.2.66\"]\n[tls]\npolicy = \"optional\"\n",
    );
    let server = wharf.serve(&["--config", &config]);
    let announce = |source: &str, header: &str| {
        let mut stream = connect_from(source, server.v4());
        stream.write_all(header.as_bytes()).expect("sent");
        stream
    };
    let stranger = announce("127.0.0.1", "PROXY TCP4 192.0.2.7 198.51.100.1 9 21\r\n");
    assert!(
        first_line(stranger).starts_with("421 "),
        "who is no proxy may announce nobody"
    );
    let denied = announce("127.0.0.9", "PROXY TCP4 192.0.2.66 198.51.100.1 9 21\r\n");
    assert!(first_line(denied).starts_with("421 "));

    let mut client = announce(
        "127.0.0.9",
        "PROXY TCP4 192.0.2.7 198.51.100.1 50123 21\r\n",
    );
    client
        .write_all(b"USER alice\r\nPASS secret\r\nPASV\r\n")
        .expect("sent");
    let mut replies = BufReader::new(client)
        .lines()
        .map(|line| line.expect("a reply"));
    let passive = replies
        .find(|line| line.starts_with("227 "))
        .expect("a reply");
    // Where the client connected to, and not the server behind the proxy.
    assert!(passive.contains("(198,51,100,1,"), "{passive}");
    server.await_log(&["logged in", "192.0.2.7:50123"]);
    assert_eq!(json(&wharf, &["sessions"])[0]["peer"], "192.0.2.7:50123");
}

/// Passes connections on to `server` as the proxy 127.0.0.9 would, behind `header`; where it listens.
fn proxy_in_front_of(server: SocketAddr, header: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let mut server = connect_from("127.0.0.9", server);
            server.write_all(header.as_bytes()).expect("sent");
            let copy = |stream: &TcpStream| stream.try_clone().expect("a descriptor");
            let (from_server, to_client) = (copy(&server), copy(&client));
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut &from_server, &mut &to_client);
                let _ = to_client.shutdown(Shutdown::Both);
            });
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut &client, &mut &server);
                let _ = server.shutdown(Shutdown::Write);
            });
        }
    });
    address
}

#[test]
fn behind_a_proxy_ssh_goes_by_the_address_that_it_announces() {
    let wharf = wharf();
    let config = wharf.configure(
        "[ssh]\nproxies = [\"127.0.0.9\"]\ndeny = [\"192.0.2.66\"]\n[login]\nmax_failures = 1\ndelay = \"0s\"\n",
    );
    let server = wharf.serve(&["--ssh", "127.0.0.1:0", "--config", &config]);
    let greeted = |source: &str, header: &str| {
        let mut stream = connect_from(source, server.ssh());
        // Who is no proxy may be refused before this is sent.
        let _ = stream.write_all(header.as_bytes());
        first_line(stream).starts_with("SSH-2.0-Wharf")
    };
    let header = "PROXY TCP4 192.0.2.7 198.51.100.1 50123 22\r\n";
    assert!(greeted("127.0.0.9", header));
    assert!(
        !greeted("127.0.0.1", header),
        "no proxy may announce nobody"
    );
    let denied = "PROXY TCP4 192.0.2.66 198.51.100.1 50123 22\r\n";
    assert!(!greeted("127.0.0.9", denied));

    let proxy = proxy_in_front_of(server.ssh(), header);
    let url = format!("sftp://alice@{proxy}/");
    let list = |password: &str| {
        wharf
            .command(&["ls", "--accept-new", "--retries", "0", &url])
            .env("HOME", wharf.scratch())
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("SSH_AUTH_SOCK")
            .env("WHARF_PASSWORD", password)
            .stdin(Stdio::null())
            .output()
            .expect("starts")
    };
    let output = list("secret");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    server.await_log(&["logged in", "192.0.2.7:50123"]);
    // A ban is one of whom the proxy announces, too.
    assert_eq!(list("wrong").status.code(), Some(4));
    assert!(!greeted("127.0.0.9", header));
    let other = "PROXY TCP4 203.0.113.7 198.51.100.1 50123 22\r\n";
    assert!(greeted("127.0.0.9", other));
}

/// HAProxy in front of a server; killed when it is dropped.
struct Haproxy(Child);

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// HAProxy that passes connections on to `server` with the second version of
/// the header; where it listens.
fn haproxy(wharf: &Wharf, server: SocketAddr) -> (Haproxy, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let file = wharf.scratch().join("haproxy.cfg");
    let configuration = format!(
        "defaults\n mode tcp\n timeout connect 30s\n timeout client 60s\n timeout server 60s\n\
         listen ftp\n bind fd@0\n server wharf {server} send-proxy-v2\n"
    );
    std::fs::write(&file, configuration).expect("written");
    let mut command = Command::new("haproxy");
    command
        .arg("-db")
        .arg("-f")
        .arg(file)
        .stdin(OwnedFd::from(listener));
    (
        Haproxy(command.stderr(Stdio::null()).spawn().expect("starts")),
        address,
    )
}

#[test]
fn haproxy_can_stand_in_front() {
    if !has_program("haproxy") || !has_program("curl") {
        return;
    }
    let wharf = wharf();
    let config = wharf.configure("[ftp]\nproxies = [\"127.0.0.1\"]\n");
    let server = wharf.serve(&["--config", &config]);
    let (_haproxy, address) = haproxy(&wharf, server.v4());
    let content = noise(300_000, 4);
    let local = wharf.scratch().join("local");
    std::fs::write(&local, &content).expect("written");
    // From another address than the proxy's, so that the client's own data
    // connections can be told from those that a proxy passes on.
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--interface", "127.0.0.2", "-T"])
        .arg(&local);
    curl.arg(format!("ftp://alice:secret@{address}/through.bin"));
    let output = curl.output().expect("runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(
        std::fs::read(wharf.home("alice").join("through.bin")).expect("there"),
        content
    );
    server.await_log(&["logged in", "127.0.0.2:"]);
}
