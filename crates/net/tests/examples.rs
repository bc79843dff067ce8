//! Each example is started as a user starts it, and does what its header says.
//! `cargo test` builds the examples; `cargo test --test examples` alone does not.

mod running;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use running::{Example, PATIENCE, Program, run};
use wharf_net::Endpoint;

/// A client of an echo server, with the standard library's sockets.
fn exchange(endpoint: &Endpoint, message: &[u8]) -> Vec<u8> {
    let mut answer = vec![0; message.len()];
    match endpoint {
        Endpoint::Tcp(address) => {
            let mut stream = TcpStream::connect(address).expect("connects");
            stream.set_read_timeout(Some(PATIENCE)).expect("a time");
            stream.write_all(message).expect("writes");
            stream.read_exact(&mut answer).expect("an echo");
        }
        Endpoint::Unix(_) => {
            let path = path_of(endpoint);
            let mut stream = UnixStream::connect(path).expect("connects");
            stream.set_read_timeout(Some(PATIENCE)).expect("a time");
            stream.write_all(message).expect("writes");
            stream.read_exact(&mut answer).expect("an echo");
        }
        Endpoint::Udp(address) => {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("free");
            socket.set_read_timeout(Some(PATIENCE)).expect("a time");
            socket.send_to(message, address).expect("sends");
            let length = socket.recv(&mut answer).expect("an echo");
            assert_eq!(length, message.len());
        }
        Endpoint::UnixDatagram(_) => {
            // Never the same: a child that was just forked may have the last one open until its exec.
            static COUNT: AtomicUsize = AtomicUsize::new(0);
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let own = format!("examples-{}-{number}", std::process::id());
            let own = UnixAddress::from_abstract_name(own).expect("a name");
            let socket = UnixDatagram::bind_addr(&own).expect("free");
            socket.set_read_timeout(Some(PATIENCE)).expect("a time");
            socket.send_to(message, path_of(endpoint)).expect("sends");
            let length = socket.recv(&mut answer).expect("an echo");
            assert_eq!(length, message.len());
        }
    }
    answer
}

#[test]
fn each_example_is_short_and_says_what_it_shows_and_how_to_run_it_and_is_driven_here() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    for entry in folder.read_dir().expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().and_then(|name| name.to_str());
        let name = name.expect("a name");
        let text = read(&path);
        assert!(text.lines().count() < 100, "{name} has 100 lines or more");
        assert!(text.starts_with("//! Shows "), "{name}");
        let run = format!("cargo run -p wharf-net --example {name} ");
        assert!(text.contains(&run), "{name} does not say: {run}");
        let driven = format!("\"{name}\"");
        assert!(include_str!("examples.rs").contains(&driven), "{name}");
    }
}

#[expect(clippy::disallowed_methods, reason = "source files of this package")]
fn read(path: &std::path::Path) -> String {
    std::fs::read_to_string(path).expect("text")
}

fn path_of(endpoint: &Endpoint) -> String {
    let name = endpoint.unix_name().expect("of Unix").to_string();
    assert!(name.starts_with('/'));
    name
}

fn echoes_under(model: &[&str]) {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |kind: &str| format!("{kind}:{}", directory.path().join(kind).display());
    for endpoint in [
        "tcp:127.0.0.1:0".to_owned(),
        "udp:127.0.0.1:0".to_owned(),
        at("unix"),
        at("unixgram"),
    ] {
        for (upper, expected) in [(&[][..], "Grüße, one\n"), (&["--upper"], "GRüßE, ONE\n")] {
            let words = [&[endpoint.as_str()], model, upper].concat();
            let server = Example::start("echo", &words);
            // `sed` knows capitals beyond ASCII, and is asked for none.
            let (message, expected) = if model.contains(&"--processes") {
                (
                    "Hello, one\n",
                    expected.replace("Grüße", "Hello").replace("GRüßE", "HELLO"),
                )
            } else {
                ("Grüße, one\n", expected.to_owned())
            };
            for _ in 0..3 {
                let answer = exchange(&server.endpoint, message.as_bytes());
                assert_eq!(String::from_utf8_lossy(&answer), expected, "{words:?}");
            }
        }
    }
}

#[test]
fn echo_answers_on_every_kind_of_endpoint_with_tasks() {
    echoes_under(&[]);
}

#[test]
fn echo_answers_on_every_kind_of_endpoint_one_after_the_other() {
    echoes_under(&["--serial"]);
}

#[test]
fn echo_answers_on_every_kind_of_endpoint_with_threads() {
    echoes_under(&["--threads"]);
}

#[test]
fn echo_answers_on_every_kind_of_endpoint_with_processes() {
    echoes_under(&["--processes"]);
}

#[test]
fn one_client_with_many_connections_is_echoed_on_all_of_them() {
    for model in ["--tasks", "--threads", "--processes"] {
        let server = Example::start("echo", &["tcp:127.0.0.1:0", model, "--upper"]);
        let told = run("multi_client", &[&server.word(), "50", "4"], b"");
        assert_eq!(told, "50 connections, 4 messages each, all echoed\n");
    }
}

#[test]
fn the_polling_server_echoes_many_and_is_not_held_up_by_one_that_reads_nothing() {
    let server = Example::start("polling", &["127.0.0.1:0"]);
    let address = server.endpoint.socket_address().expect("of TCP");
    let mut deaf = TcpStream::connect(address).expect("connects");
    deaf.set_write_timeout(Some(Duration::from_millis(200)))
        .expect("a time");
    // Until neither socket nor server take more.
    while deaf.write_all(&[b'x'; 65536]).is_ok() {}
    let told = run("multi_client", &[&server.word(), "50", "4"], b"");
    assert_eq!(told, "50 connections, 4 messages each, all echoed\n");
    // One that has ended still gets what it is owed.
    let mut leaving = TcpStream::connect(address).expect("connects");
    leaving.write_all(b"last words").expect("writes");
    leaving.shutdown(Shutdown::Write).expect("ends");
    let mut words = String::new();
    leaving.read_to_string(&mut words).expect("reads");
    assert_eq!(words, "last words");
}

#[test]
fn the_one_shot_server_greets_as_many_as_it_was_told_and_survives_who_leaves() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("greet");
    let server = Example::start("one_shot", &[&format!("unix:{}", path.display()), "3"]);
    for (name, greeting) in [("Ada", "Hello, Ada!\n"), ("Grace", "Hello, Grace!\n")] {
        let mut stream = UnixStream::connect(&path).expect("connects");
        stream
            .write_all(format!("{name}\n").as_bytes())
            .expect("writes");
        let mut told = String::new();
        stream.read_to_string(&mut told).expect("reads");
        assert_eq!(told, format!("Who is there?\n{greeting}"));
    }
    drop(UnixStream::connect(&path).expect("connects"));
    let told = server.program.ended();
    assert!(told.ends_with("served 3\n"), "{told}");
    assert!(!path.exists(), "the socket goes with its server");
}

#[test]
fn questions_are_answered_over_udp_and_unix_datagrams() {
    for endpoint in [
        "udp:127.0.0.1:0",
        &format!("unixgram:@wharf-net-question-{}", std::process::id()),
    ] {
        let server = Example::start("question", &["serve", endpoint]);
        let ask = |question: &[&str]| {
            run(
                "question",
                &[&["ask", &server.word()], question].concat(),
                b"",
            )
        };
        assert_eq!(ask(&["length", "of", "six", "by", "nine"]), "11\n");
        assert_eq!(ask(&["why"]), "what?\n");
        let time: u64 = ask(&["time"]).trim().parse().expect("seconds");
        assert!(time > 1_700_000_000);
    }
}

#[test]
fn both_ends_of_a_chat_speak_when_they_like_and_nothing_reaches_the_terminal_raw() {
    let mut host = Example::start("chat", &["host", "tcp:127.0.0.1:0"]);
    let mut guest = Program::start("chat", &["join", &host.word()]);
    let host = &mut host.program;
    assert!(host.hear().ends_with(" has come\n"));
    for round in 1..=2 {
        guest.say(&format!("guest {round}\n"));
        assert_eq!(host.hear(), format!("> guest {round}\n"));
        host.say(&format!("host {round}\n"));
        assert_eq!(guest.hear(), format!("> host {round}\n"));
    }
    guest.say("\x1b[2Jgone\n");
    guest.hang_up();
    assert_eq!(host.hear(), "> \\u{1b}[2Jgone\n");
    assert_eq!(host.hear(), "* the other end has said goodbye\n");
    // One that has said goodbye still listens.
    host.say("and yet\n");
    host.hang_up();
    let heard = guest.ended();
    assert_eq!(heard, "> and yet\n* the other end has said goodbye\n");
}

#[test]
fn commands_that_are_offered_run_and_no_others_and_no_shell_sees_them() {
    let server = Example::start("command_server", &["tcp:127.0.0.1:0", "echo", "seq"]);
    let ask = |words: &[&str]| {
        run(
            "command_client",
            &[&[server.word().as_str()], words].concat(),
            b"",
        )
    };
    assert_eq!(ask(&["echo", "a;", "$(id)", "|cat"]), "a; $(id) |cat\n");
    assert_eq!(
        ask(&["cat", "/etc/passwd"]),
        "\"cat\" is not offered here\n"
    );
    // Many frames, and exactly as many bytes as were announced.
    let many = ask(&["seq", "1", "20000"]);
    assert_eq!((many.lines().count(), many.len()), (20_000, 108_894));
}

#[test]
fn an_upload_arrives_whole_with_its_digest_and_leads_nowhere_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let folder = directory.path().join("uploads");
    std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700)
        .create(&folder)
        .expect("made");
    let server = Example::start(
        "upload_server",
        &["tcp:127.0.0.1:0", folder.to_str().expect("a name")],
    );
    let source = tempfile::NamedTempFile::new().expect("a file");
    // Three reads and a bit.
    source
        .as_file()
        .write_all(&[b'a'; 200_000])
        .expect("written");
    let path = source.path().to_str().expect("a name");
    let told = run("upload_client", &[&server.word(), path, "a.txt"], b"");
    // printf 'a%.0s' $(seq 200000) | sha256sum
    let digest = "2287d207f24a941ff3b56c04c8a25ad56b63e3023207b3bb5b4ac0c9869d74be";
    assert_eq!(told, format!("200000 bytes, sha256 {digest}\n"));
    let arrived = folder.join("a.txt").metadata().expect("there");
    assert_eq!(arrived.len(), 200_000);

    for name in ["../b", "..", ".", "/tmp/b", "a/b", ""] {
        let refused = running::fail("upload_client", &[&server.word(), path, name]);
        assert!(refused.contains("403"), "{name:?}: {refused}");
    }
    assert_eq!(folder.read_dir().expect("a folder").count(), 1);
    assert_eq!(directory.path().read_dir().expect("a folder").count(), 1);
}

#[test]
fn what_fails_is_one_line_that_says_what_and_where() {
    let directory = tempfile::tempdir().expect("a directory");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound");
    let nobody = format!("unix:{}", directory.path().join("none").display());
    let missing = directory.path().join("missing");
    let missing = missing.to_str().expect("text");
    let in_use = format!("tcp:{address}");
    let any = "tcp:127.0.0.1:0";
    for (name, words, part) in [
        ("echo", &[any, "--uper"][..], "no option \"--uper\""),
        ("echo", &[&in_use], &in_use),
        ("polling", &[], "give an address"),
        ("multi_client", &[&nobody], &nobody),
        ("command_client", &[&nobody, "date"], &nobody),
        ("upload_server", &[any, missing], missing),
    ] {
        let told = running::fail(name, words);
        assert!(
            told.starts_with("error: ") && told.contains(part) && told.lines().count() == 1,
            "{name}: {told}"
        );
    }
}

#[test]
fn a_program_that_is_offered_and_not_there_is_the_result() {
    let server = Example::start("command_server", &["tcp:127.0.0.1:0", "no-such-program"]);
    let told = run("command_client", &[&server.word(), "no-such-program"], b"");
    assert!(told.starts_with("cannot run no-such-program: "), "{told}");
}

#[test]
fn an_upload_that_makes_no_sense_or_finds_no_folder_is_told_a_status() {
    let directory = tempfile::tempdir().expect("a directory");
    let folder = directory.path().join("uploads");
    std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700)
        .create(&folder)
        .expect("made");
    let server = Example::start(
        "upload_server",
        &["tcp:127.0.0.1:0", folder.to_str().expect("a name")],
    );
    let address = server.endpoint.socket_address().expect("of TCP");
    let status_of = |body: &str| {
        let header = format!(r#"{{"type":"json","length":{}}}"#, body.len());
        let length = u16::try_from(header.len()).expect("short").to_be_bytes();
        let mut stream = TcpStream::connect(address).expect("connects");
        stream.write_all(&length).expect("writes");
        stream
            .write_all(format!("{header}{body}").as_bytes())
            .expect("writes");
        let mut told = String::new();
        stream.read_to_string(&mut told).expect("reads");
        told
    };
    for body in [
        "nonsense",
        "{}",
        r#"{"action":"get","filename":"a","filesize":1}"#,
    ] {
        assert!(status_of(body).ends_with(r#"{"status":400}"#), "{body}");
    }
    directory.close().expect("removed");
    let put = r#"{"action":"put","filename":"a","filesize":1}"#;
    assert!(status_of(put).ends_with(r#"{"status":500}"#));
}

#[test]
fn an_upload_that_is_cut_leaves_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = Example::start(
        "upload_server",
        &[
            "tcp:127.0.0.1:0",
            directory.path().to_str().expect("a name"),
        ],
    );
    let address = server.endpoint.socket_address().expect("of TCP");
    let mut stream = TcpStream::connect(address).expect("connects");
    let body = r#"{"action":"put","filename":"cut","filesize":1000000}"#;
    let header = format!(r#"{{"type":"json","length":{}}}"#, body.len());
    let length = u16::try_from(header.len()).expect("short").to_be_bytes();
    stream.write_all(&length).expect("writes");
    stream.write_all(header.as_bytes()).expect("writes");
    stream.write_all(body.as_bytes()).expect("writes");
    stream.write_all(&[b'x'; 1000]).expect("writes");
    stream.shutdown(Shutdown::Write).expect("ends");
    let mut told = String::new();
    stream.read_to_string(&mut told).expect("reads");
    assert!(told.ends_with(r#"{"status":200}"#), "{told}");
    assert_eq!(directory.path().read_dir().expect("a folder").count(), 0);
}
