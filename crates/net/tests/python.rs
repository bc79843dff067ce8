//! Programs in Python, written for these tests as its documentation writes
//! them, talk to ours: clients to our servers, `socketserver` to our clients.

mod running;

use std::path::Path;
use std::process::Command;

use running::{Example, Program, run, run_command};
use wharf_net::{DatagramSocket, Endpoint, EndpointOptions, Peer};

/// A script with its words; nothing where there is no Python, unless it is required.
fn script(name: &str, words: &[&str]) -> Option<Command> {
    let found = Command::new("python3").arg("--version").output().is_ok();
    let required = std::env::var_os("WHARF_TEST_REQUIRE_PEERS").is_some_and(|value| value == "1");
    if !found {
        assert!(!required, "python3 is not installed");
        eprintln!("skipped: python3 is not installed");
        return None;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python");
    let mut command = Command::new("python3");
    command.arg(folder.join(name)).args(words);
    Some(command)
}

#[test]
fn a_client_in_python_is_echoed_on_every_kind_of_endpoint_under_every_model() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name).display().to_string();
    for (number, model) in ["--tasks", "--serial", "--threads", "--processes"]
        .iter()
        .enumerate()
    {
        for endpoint in [
            "tcp:127.0.0.1:0".to_owned(),
            "udp:127.0.0.1:0".to_owned(),
            format!("unix:{}", at("unix")),
            format!("unixgram:{}", at("unixgram")),
        ] {
            let server = Example::start("echo", &[&endpoint, model, "--upper"]);
            let word = server.word();
            let own = at(&format!("own-{number}"));
            let mut words = vec![word.as_str()];
            words.extend(endpoint.starts_with("unixgram").then_some(own.as_str()));
            let Some(client) = script("echo_client.py", &words) else {
                return;
            };
            let told = run_command(client, b"");
            assert_eq!(told, "FIRST\nSECOND, IN PIECES\nTHIRD\n", "{words:?}");
        }
    }
}

#[test]
fn one_client_of_ours_has_many_connections_to_a_server_in_python() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("s").display().to_string();
    for words in [&["tcp"][..], &["forking"], &["unix", &path]] {
        let Some(server) = script("echo_server.py", words) else {
            return;
        };
        let server = Example::of(Program::start_command(server));
        let told = run("multi_client", &[&server.word(), "20", "5"], b"");
        assert_eq!(told, "20 connections, 5 messages each, all echoed\n");
    }
}

#[tokio::test]
async fn a_server_in_python_answers_our_datagrams() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name).display().to_string();
    for (words, own) in [
        (vec!["udp".to_owned()], "udp:127.0.0.1:0".to_owned()),
        (
            vec!["unixgram".to_owned(), at("s")],
            format!("unixgram:{}", at("c")),
        ),
    ] {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let Some(server) = script("echo_server.py", &words) else {
            return;
        };
        let server = Example::of(Program::start_command(server));
        let own: Endpoint = own.parse().expect("an endpoint");
        let socket = DatagramSocket::bind(own, EndpointOptions::default()).expect("free");
        let target = Peer::at(&server.endpoint);
        socket.send(b"question", &target).await.expect("sends");
        let mut buffer = [0; 64];
        let answered = tokio::time::timeout(running::PATIENCE, socket.receive(&mut buffer)).await;
        let (length, peer) = answered.expect("in time").expect("receives");
        assert_eq!((&buffer[..length], peer), (&b"QUESTION"[..], target));
    }
}

#[test]
fn frames_written_in_python_are_ours() {
    let server = Example::start("command_server", &["tcp:127.0.0.1:0", "seq"]);
    let Some(client) = script("frames.py", &["command", &server.word(), "seq 1 3000"]) else {
        return;
    };
    let told = run_command(client, b"");
    assert_eq!((told.lines().count(), told.len()), (3000, 13_893));
    assert!(told.ends_with("\n2999\n3000\n"), "{told}");

    let server = script("frames.py", &["serve"]).expect("was there before");
    let server = Example::of(Program::start_command(server));
    let told = run("command_client", &[&server.word(), "say", "it"], b"");
    assert_eq!(told, "command: say it\n");
}

#[test]
fn an_upload_from_python_arrives_and_leads_nowhere_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let folder = directory.path().to_str().expect("a name");
    let server = Example::start("upload_server", &["tcp:127.0.0.1:0", folder]);
    for (name, expected) in [
        ("a.bin", "digests agree\n"),
        ("../a.bin", "refused: 403\n"),
        ("/etc/a.bin", "refused: 403\n"),
    ] {
        let words = ["upload", &server.word(), name, "300000"];
        let Some(client) = script("frames.py", &words) else {
            return;
        };
        assert_eq!(run_command(client, b""), expected, "{name}");
    }
    let names: Vec<_> = directory.path().read_dir().expect("a folder").collect();
    assert_eq!(names.len(), 1);
    let arrived = directory.path().join("a.bin").metadata().expect("there");
    assert_eq!(arrived.len(), 300_000);
}
