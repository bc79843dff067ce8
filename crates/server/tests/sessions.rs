//! Sessions over an in-memory control connection: the timeouts, under a paused
//! clock, and whole transcripts at every chunk size.

mod setting;

use std::time::Duration;

use setting::{TIMEOUTS, setting};
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;

#[tokio::test]
async fn a_client_that_does_not_log_in_is_closed_at_the_login_timeout() {
    let setting = setting().await;
    tokio::time::pause();
    let started = Instant::now();
    let mut client = setting.connect_from("127.0.0.1:50000");
    client.expect("220").await;
    // Commands do not put it off.
    tokio::time::sleep(Duration::from_secs(20)).await;
    client.send("NOOP").await;
    client.expect("200").await;
    client.expect("421").await;
    assert_eq!(client.line().await, "");
    assert_eq!(started.elapsed().as_secs(), TIMEOUTS.login.as_secs());
}

#[tokio::test]
async fn a_quiet_client_is_closed_at_the_idle_timeout() {
    let setting = setting().await;
    let mut client = setting.log_in().await;
    tokio::time::pause();
    let started = Instant::now();
    tokio::time::sleep(Duration::from_secs(500)).await;
    client.send("NOOP").await;
    client.expect("200").await;
    client.expect("421").await;
    assert_eq!(started.elapsed().as_secs(), 500 + TIMEOUTS.idle.as_secs());
}

#[tokio::test]
async fn a_client_that_logged_out_has_the_time_for_a_login_again() {
    let setting = setting().await;
    let mut client = setting.log_in().await;
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(300)).await;
    let started = Instant::now();
    client.send("REIN").await;
    client.expect("220").await;
    client.expect("421").await;
    assert_eq!(started.elapsed().as_secs(), TIMEOUTS.login.as_secs());
}

#[tokio::test]
async fn a_data_connection_that_never_comes_ends_the_transfer_and_not_the_session() {
    let setting = setting().await;
    let mut client = setting.log_in().await;
    client.port().await;
    client.send("STOR file").await;
    client.expect("150").await;
    tokio::time::pause();
    client.expect("425").await;
    client.send("SIZE file").await;
    client.expect("550").await;
}

#[tokio::test]
async fn an_upload_that_stalls_is_cut_and_kept() {
    let setting = setting().await;
    let mut client = setting.log_in().await;
    let mut data = client.data().await;
    client.send("STOR file").await;
    client.expect("150").await;
    data.write_all(b"half").await.expect("writes");
    loop {
        client.send("STAT").await;
        if client.expect("213").await.contains(" 4 bytes") {
            break;
        }
        tokio::task::yield_now().await;
    }
    tokio::time::pause();
    let started = Instant::now();
    client.expect("426").await;
    assert_eq!(started.elapsed().as_secs(), TIMEOUTS.stall.as_secs());
    client.send("SIZE file").await;
    client.expect("213 4").await;
}

#[tokio::test]
async fn a_password_from_another_machine_is_not_taken_in_the_clear() {
    let setting = setting().await;
    let mut client = setting.connect_from("192.0.2.7:50000");
    client.expect("220").await;
    client.send("USER alice").await;
    client.expect("530").await;
    client.send("PASS secret").await;
    client.expect("503").await;
}

/// What a client sends in one session, and all that it gets back.
const TRANSCRIPT: &[(&str, &[&str])] = &[
    ("", &["220 Ready."]),
    ("NOOP", &["200 Nothing done."]),
    ("PWD", &["530 Log in first, with USER and PASS."]),
    ("USER alice", &["331 Password, please."]),
    ("PASS secret", &["230 Welcome, alice."]),
    ("SYST", &["215 UNIX Type: L8"]),
    ("PWD", &["257 \"/\" is the current directory."]),
    ("MKD a \"b\"", &["257 \"/a \"\"b\"\"\" created."]),
    (
        "CWD a \"b\"",
        &["250 \"/a \"\"b\"\"\" is the current directory."],
    ),
    ("\u{f}CDUP", &["500 Unknown command."]),
    ("CDUP", &["250 \"/\" is the current directory."]),
    ("RNFR a \"b\"", &["350 Now RNTO with the new name."]),
    ("RNTO c", &["250 Renamed."]),
    ("RMD c", &["250 Directory removed."]),
    ("RMD c", &["550 No such file or directory."]),
    ("OPTS UTF8 ON", &["200 UTF8 is on."]),
    ("OPTS MLST size;type;", &["200 MLST OPTS type;size;"]),
    ("OPTS HASH", &["200 SHA-256"]),
    (
        "REST 7",
        &["501 An offset means nothing while line ends are translated; send TYPE I first."],
    ),
    ("TYPE I", &["200 Type is binary."]),
    ("REST 7", &["350 The next transfer starts at byte 7."]),
    (
        "SITE QUOTA",
        &[
            "200-Quota:",
            " Bytes: 0 used, no limit",
            " Files: 0 used, no limit",
            "200 End",
        ],
    ),
    ("QUIT", &["221 Goodbye."]),
];

#[tokio::test]
async fn a_whole_session_reads_the_same_at_every_chunk_size() {
    let setting = setting().await;
    let input: String = TRANSCRIPT
        .iter()
        .skip(1)
        .map(|(command, _)| format!("{command}\r\n"))
        .collect();
    let expected: String = TRANSCRIPT
        .iter()
        .flat_map(|(_, replies)| replies.iter())
        .map(|reply| format!("{reply}\r\n"))
        .collect();
    for chunk_bytes in (1..=16).chain([31, 64, 100, 256, 512]) {
        let mut client = setting.connect_from("127.0.0.1:50000");
        for chunk in input.as_bytes().chunks(chunk_bytes) {
            client.stream.write_all(chunk).await.expect("writes");
            tokio::task::yield_now().await;
        }
        let mut output = String::new();
        loop {
            let line = client.line().await;
            if line.is_empty() {
                break;
            }
            output.push_str(&line);
        }
        assert_eq!(output, expected, "by {chunk_bytes}");
    }
}
