//! Sessions over an in-memory control connection: the timeouts, under a paused
//! clock, and whole transcripts at every chunk size.

mod setting;

use std::future::ready;
use std::io;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use setting::{TIMEOUTS, setting, setting_in, setting_in_memory, setting_on};
use socket2::SockRef;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, duplex};
use tokio::time::Instant;
use wharf_model::Secret;
use wharf_net::Stream;
use wharf_server::door::{Approach, Credential, LoginRefused, Protocol};
use wharf_server::ftp::{Connecting, DataNetwork, Ends, PassivePorts};
use wharf_server::registry::{Direction, Subject};
use wharf_testkit::{ArrangedStorage, Gate};

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
async fn guesses_under_way_when_the_ban_comes_learn_nothing() {
    let setting = setting().await;
    let log_in = |peer: &str, password: String| {
        let door = Arc::clone(&setting.door);
        let approach = Approach {
            peer: peer.parse().expect("an address"),
            protocol: Protocol::Ftp,
            secure: true,
        };
        let credential = Credential {
            name: b"alice".to_vec(),
            password: Secret::new(password.into_bytes()),
        };
        tokio::spawn(async move { door.login(approach, credential).await.map(drop) })
    };
    // Five failures make a ban; the hashes of all these are asked for at once.
    let mut guesses: Vec<_> = (0..60)
        .map(|number| log_in("192.0.2.7:50000", format!("guess {number}")))
        .collect();
    guesses.push(log_in("192.0.2.7:50000", "secret".to_owned()));
    let (mut wrong, mut banned) = (0, 0);
    for guess in guesses {
        match guess.await.expect("no panic") {
            Err(LoginRefused::Credential { .. }) => wrong += 1,
            Err(LoginRefused::Banned) => banned += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((wrong, banned), (5, 56));
    let owner = log_in("198.51.100.1:50000", "secret".to_owned());
    assert!(owner.await.expect("no panic").is_ok());
}

#[tokio::test]
async fn a_line_that_comes_byte_by_byte_puts_no_timeout_off() {
    let setting = setting().await;
    let mut stranger = setting.connect_from("127.0.0.1:50000");
    let mut user = setting.log_in().await;
    tokio::time::pause();
    for (client, timeout) in [(&mut stranger, TIMEOUTS.login), (&mut user, TIMEOUTS.idle)] {
        let started = Instant::now();
        while client.stream.write_all(b"N").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let seconds = started.elapsed().as_secs();
        assert!(seconds <= timeout.as_secs() + 1, "{seconds}");
    }
    assert_eq!(setting.slots.total(), 0);
}

#[tokio::test]
async fn a_client_that_sends_without_end_puts_no_timeout_off() {
    let setting = setting().await;
    // More than a session reads before it lets others have their turn.
    let connect = || setting.connect_over("127.0.0.1:50000", 1 << 20);
    let user = setting.log_in_over(1 << 20).await;
    tokio::time::pause();
    for (client, flood, timeout) in [
        (connect(), "N", TIMEOUTS.login),
        (connect(), "NOOP\r\n", TIMEOUTS.login),
        (user, "N", TIMEOUTS.idle),
    ] {
        let (mut replies, mut commands) = tokio::io::split(client.stream);
        let taking =
            tokio::spawn(
                async move { tokio::io::copy(&mut replies, &mut tokio::io::sink()).await },
            );
        let flood = flood.repeat(100_000);
        let flooding =
            tokio::spawn(
                async move { while commands.write_all(flood.as_bytes()).await.is_ok() {} },
            );
        let started = Instant::now();
        while !flooding.is_finished() && started.elapsed() < timeout * 2 {
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let seconds = started.elapsed().as_secs();
        assert!(seconds <= timeout.as_secs() + 1, "{seconds}");
        taking.abort();
    }
}

#[tokio::test]
async fn the_time_of_a_command_is_not_the_silence_of_its_client() {
    let gate = Gate::closed();
    let storage = Arc::new(ArrangedStorage::slow(gate.clone()));
    let setting = setting_in(storage).await;
    let mut client = setting.log_in().await;
    tokio::time::pause();
    client.send("SIZE slow").await;
    gate.begun().await;
    tokio::time::sleep(2 * TIMEOUTS.idle).await;
    gate.end();
    client.expect("550").await;
    let answered = Instant::now();
    client.expect("421").await;
    assert_eq!(answered.elapsed().as_secs(), TIMEOUTS.idle.as_secs());
    // Nor is the time that it takes to take the reply, which is longer than what the pipe holds.
    let mut client = setting.log_in_over(8).await;
    client.send("NOOP").await;
    tokio::time::sleep(Duration::from_secs(40)).await;
    client.expect("200").await;
    let answered = Instant::now();
    client.expect("421").await;
    assert_eq!(answered.elapsed().as_secs(), TIMEOUTS.idle.as_secs());
}

#[tokio::test]
async fn a_quiet_session_hears_at_once_what_it_is_called_to() {
    let setting = setting().await;
    let mut kicked = setting.log_in().await;
    let mut drained = setting.log_in().await;
    tokio::time::pause();
    // Longer than anything lasts that a session looks at behind a command.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let called = Instant::now();
    let registry = setting.door.registry();
    assert!(registry.kick(registry.sessions()[0].id));
    kicked.expect("421").await;
    assert_eq!(called.elapsed(), Duration::ZERO);
    setting.drain.begin();
    drained.expect("421").await;
    assert_eq!(called.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn a_client_that_takes_no_replies_is_given_up() {
    let setting = setting().await;
    let mut client = setting.log_in().await;
    tokio::time::pause();
    let started = Instant::now();
    // Their replies are far more than the pipe holds.
    client
        .stream
        .write_all(&b"FEAT\r\n".repeat(2000))
        .await
        .expect("writes");
    while setting.slots.total() > 0 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(started.elapsed() <= Duration::from_secs(125));
}

#[tokio::test]
async fn a_download_that_nobody_reads_is_stopped() {
    let setting = setting().await;
    let mut client = setting.log_in().await;
    let mut data = client.data().await;
    client.send("STOR file").await;
    client.expect("150").await;
    // More than the buffers of a socket hold.
    let piece = vec![0; 1024 * 1024];
    for _ in 0..32 {
        data.write_all(&piece).await.expect("writes");
    }
    drop(data);
    client.expect("226").await;
    let _unread = client.data().await;
    client.send("RETR file").await;
    client.expect("150").await;
    let mut before = String::new();
    loop {
        client.send("STAT").await;
        let status = client.expect("213").await;
        if status == before {
            break;
        }
        before = status;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::pause();
    let started = Instant::now();
    client.expect("426").await;
    // It may have begun to wait only now, and its timer ends with a whole millisecond.
    assert!(started.elapsed().as_secs() <= TIMEOUTS.stall.as_secs());
}

#[tokio::test]
async fn a_passive_port_that_is_not_used_is_free_again_in_time() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = free.local_addr().expect("bound").port();
    drop(free);
    let setting = setting_on(PassivePorts(port..=port), None).await;
    let mut hoarder = setting.log_in().await;
    let mut user = setting.log_in().await;
    assert_eq!(hoarder.port().await, port);
    for _ in 0..100 {
        user.send("EPSV").await;
        user.expect("425").await;
    }
    tokio::time::pause();
    tokio::time::sleep(TIMEOUTS.data_connect).await;
    loop {
        user.send("EPSV").await;
        if user.line().await.starts_with("229") {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // Who is not logged in opens none at all.
    let mut stranger = setting.connect_from("127.0.0.1:50000");
    stranger.expect("220").await;
    for command in [
        "EPSV",
        "PASV",
        "PORT 127,0,0,1,200,1",
        "EPRT |1|127.0.0.1|50000|",
    ] {
        stranger.send(command).await;
        stranger.expect("530").await;
    }
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

/// A network whose one data connection is this pipe.
struct OnePipe(Mutex<Option<DuplexStream>>);

impl OnePipe {
    fn of(stream: DuplexStream) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Some(stream))))
    }

    fn connect(&self) -> Connecting {
        let stream = self.0.lock().expect("no panic").take().map(Stream::from);
        Box::pin(ready(stream.ok_or(io::ErrorKind::NotConnected.into())))
    }
}

impl DataNetwork for OnePipe {
    fn listen(&self, _ports: &PassivePorts, ends: Ends) -> io::Result<(SocketAddr, Connecting)> {
        Ok((ends.local, self.connect()))
    }

    fn dial(&self, _ends: Ends, _target: SocketAddr) -> Connecting {
        self.connect()
    }
}

/// Bytes that an upload sends at a time.
const PIECE: &[u8] = &[b'x'; 1024 * 1024];

#[tokio::test]
async fn stat_and_abor_are_heard_within_an_upload_that_never_waits() {
    // The runtime lets a task go on for 128 operations at a time, each of at most the 256 KiB of
    // the pump's buffer. That is half of what the pipe holds, and with one thread the session has
    // its turn only when we have had ours and filled it.
    let (mut ours, theirs) = duplex(64 * PIECE.len());
    let setting = setting_in_memory(OnePipe::of(theirs)).await;
    let mut client = setting.log_in().await;
    client.port().await;
    client.send("STOR file").await;
    client.expect("150").await;
    let sending = tokio::spawn(async move {
        for _ in 0..512 {
            ours.write_all(PIECE).await?;
        }
        ours.shutdown().await
    });
    let mut before = String::new();
    for _ in 0..3 {
        client.send("STAT").await;
        let status = client.expect("213").await;
        assert_ne!(status, before);
        before = status;
    }
    client.send("ABOR").await;
    client.expect("426").await;
    client.expect("226").await;
    sending
        .await
        .expect("no panic")
        .expect_err("not all was taken");
}

#[tokio::test]
async fn a_transfer_goes_on_while_its_client_takes_no_replies() {
    let (mut ours, theirs) = duplex(1024);
    let setting = setting_in_memory(OnePipe::of(theirs)).await;
    // Shorter than any reply.
    let mut client = setting.log_in_over(8).await;
    client.port().await;
    client.send("STOR file").await;
    client.expect("150").await;
    tokio::time::pause();
    client.send("STAT").await;
    // The session has begun to say it, and can only wait.
    let begun = client.stream.fill_buf().await.expect("reads");
    assert!(begun.starts_with(b"213"));
    ours.write_all(PIECE).await.expect("all of it is taken");
    drop(ours);
    client.expect("213 Status: 0 bytes transferred").await;
    client.expect("226").await;
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

#[tokio::test]
async fn a_session_that_is_kicked_is_told_and_its_upload_can_be_resumed() {
    let setting = setting().await;
    let mut client = setting.log_in().await;
    let mut data = client.data().await;
    client.send("STOR file").await;
    client.expect("150").await;
    data.write_all(b"half of it").await.expect("writes");
    let registry = setting.door.registry();
    let view = loop {
        let [view] = &registry.sessions()[..] else {
            panic!("one session")
        };
        if view.transfers.iter().any(|transfer| transfer.bytes == 10) {
            break view.clone();
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(
        view.account.map(|name| name.to_string()),
        Some("alice".to_owned())
    );
    assert_eq!(view.transfers[0].direction, Direction::Upload);
    let file = wharf_model::VirtualPath::parse(b"/file").expect("a path");
    assert_eq!(view.transfers[0].subject, Subject::Path(file));

    assert!(registry.kick(view.id));
    client.expect("421").await;
    assert_eq!(client.line().await, "");
    let mut again = setting.log_in().await;
    again.send("SIZE file").await;
    assert_eq!(again.expect("213").await, "213 10\r\n");
    assert_eq!(registry.sessions().len(), 1);
}

#[tokio::test]
async fn a_session_that_does_not_hear_its_kick_is_cut() {
    let setting = setting().await;
    let mut client = setting.log_in().await;
    tokio::time::pause();
    // It waits for the client to take its replies, and would for a minute.
    client
        .stream
        .write_all(&b"FEAT\r\n".repeat(2000))
        .await
        .expect("writes");
    let started = Instant::now();
    let registry = setting.door.registry();
    assert!(registry.kick(registry.sessions()[0].id));
    while setting.slots.total() > 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(started.elapsed() <= Duration::from_secs(3));
}

#[tokio::test]
async fn a_command_behind_the_mark_of_urgent_data_is_heard_though_nothing_follows() {
    let setting = setting().await;
    let mut client = TcpStream::connect(setting.serve()).expect("connects");
    client.set_nonblocking(true).expect("a socket");
    let read_half = client.try_clone().expect("a descriptor");
    let read_half = tokio::net::TcpStream::from_std(read_half).expect("a socket");
    let mut replies = BufReader::new(read_half).lines();
    let mut expect = async |code: &str| {
        let reply = tokio::time::timeout(Duration::from_secs(20), replies.next_line());
        let reply = reply.await.expect("a reply in time").expect("no reset");
        assert!(reply.is_some_and(|reply| reply.starts_with(code)), "{code}");
    };
    expect("220").await;
    client.write_all(b"NOOP\r\n").expect("sends");
    expect("200").await;

    // The server goes on when this test waits: its next read ends at the mark, with
    // the whole rest behind it. lftp sends the first byte of IAC IP IAC DM as urgent data.
    client.write_all(b"NOOP\r\n").expect("sends");
    let sent = SockRef::from(&client).send_out_of_band(b"\xff");
    assert_eq!(sent.expect("sends"), 1);
    client.write_all(b"\xf4\xff\xf2NOOP\r\n").expect("sends");
    expect("200").await;
    expect("200").await;
}
