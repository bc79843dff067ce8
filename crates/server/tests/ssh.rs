//! SSH sessions over memory: with a client that keeps the rules, and with packets that do not.

mod pair;
mod raw;
mod setting;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use pair::client::{Client, log_in, open, open_with};
use pair::{TIMEOUTS, config, connect, rekeying, service, unencrypted};
use proptest::prelude::*;
use raw::{Raw, RawChannel, packet, string};
use russh::client::{self};
use russh::{Channel, ChannelMsg, Disconnect, Preferred, Sig, kex};
use setting::{setting, setting_in, setting_of};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::Instant;
use wharf_accounts::{Account, ExecPolicy};
use wharf_server::door::Protocol;
use wharf_server::ftp::PassivePorts;
use wharf_server::process::{
    Invocation, Process, ProcessControl, ProcessError, ProcessRunner, TerminalSize,
};
use wharf_server::ssh::SshService;
use wharf_testkit::{ArrangedStorage, Gate};
use wharf_vfs::Home;

/// A client with nothing but these exchanges of keys, by their names, and strict order.
fn offering(exchanges: &[kex::Name]) -> client::Config {
    let strict = [kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT];
    let preferred = Preferred {
        kex: exchanges.iter().copied().chain(strict).collect(),
        ..Preferred::DEFAULT
    };
    client::Config {
        preferred,
        ..client::Config::default()
    }
}

/// Names: draft-ietf-sshm-mlkem-hybrid-kex, RFC 8731, RFC 5656.
#[tokio::test]
async fn keys_are_exchanged_with_ml_kem_where_the_client_can_and_with_x25519_where_it_cannot() {
    let setting = setting().await;
    for (offered, used) in [
        (
            &[kex::MLKEM768X25519_SHA256, kex::CURVE25519][..],
            "mlkem768x25519-sha256",
        ),
        (
            &[kex::CURVE25519, kex::ECDH_SHA2_NISTP256][..],
            "curve25519-sha256",
        ),
        (&[kex::ECDH_SHA2_NISTP256][..], "ecdh-sha2-nistp256"),
    ] {
        let (stream, _serving) = connect(&setting, service(&setting));
        let (mut client, _, exchanges) = open_with(offering(offered), stream).await;
        log_in(&mut client).await;
        assert_eq!(*exchanges.borrow(), [used]);
    }
}

/// The client asks for new keys after a gigabyte only.
#[tokio::test]
async fn the_server_exchanges_keys_anew_by_bytes_and_nothing_is_lost() {
    let setting = setting().await;
    let often = rekeying(&setting, 1 << 20, Duration::from_secs(3600));
    let (stream, _serving) = connect(&setting, often);
    let (mut client, _, exchanges) = open_with(client::Config::default(), stream).await;
    log_in(&mut client).await;
    let content: Vec<u8> = (0..20_000_000u32)
        .map(|number| (number % 251) as u8)
        .collect();
    // One direction after the other: two ends of this library that both send wait for each
    // other when the pipe between them is full.
    let mut up = runs(&client, "cat > file").await;
    up.data(&content[..]).await.expect("sends");
    up.eof().await.expect("sends");
    while up.wait().await.is_some() {}
    let mut down = runs(&client, "cat file").await;
    let mut came = Vec::new();
    while let Some(message) = down.wait().await {
        if let ChannelMsg::Data { data } = message {
            came.extend_from_slice(&data);
        }
    }
    assert!(came == content, "{} bytes", came.len());
    let exchanges = exchanges.borrow().len();
    assert!(exchanges >= 20, "{exchanges}");
}

#[tokio::test]
async fn the_server_exchanges_keys_anew_by_time_while_nothing_happens() {
    let setting = setting().await;
    let often = rekeying(&setting, 1 << 30, Duration::from_millis(200));
    let (stream, _serving) = connect(&setting, often);
    let (mut client, _, mut exchanges) = open_with(client::Config::default(), stream).await;
    log_in(&mut client).await;
    let thrice = exchanges.wait_for(|all| all.len() >= 3);
    thrice.await.expect("the client is there");
    // And the connection works on.
    assert!(runs(&client, "true").await.wait().await.is_some());
}

async fn runs(client: &client::Handle<Client>, command: &str) -> Channel<client::Msg> {
    let mut channel = client.channel_open_session().await.expect("opens");
    channel.exec(true, command).await.expect("sends");
    assert!(matches!(channel.wait().await, Some(ChannelMsg::Success)));
    channel
}

#[tokio::test]
async fn a_session_that_is_kicked_is_told_and_what_it_runs_ends() {
    let setting = setting().await;
    let (stream, serving) = connect(&setting, service(&setting));
    let (mut client, said) = open(stream).await;
    log_in(&mut client).await;
    let mut channel = runs(&client, "cat > file").await;
    channel.data(&vec![0; 600_000][..]).await.expect("sends");
    // Answered behind what was sent before.
    drop(runs(&client, "true").await);
    let registry = setting.door.registry();
    let sessions = registry.sessions();
    let [view] = &sessions[..] else {
        panic!("one session")
    };
    assert_eq!(view.protocol, Protocol::Ssh);
    assert!(view.encrypted);
    let account = view.account.as_ref().map(ToString::to_string);
    assert_eq!(account.as_deref(), Some("alice"));
    assert!(registry.kick(view.id));
    let (code, text) = said.await.expect("told");
    assert!(matches!(code, Disconnect::ByApplication), "{code:?}");
    assert_eq!(text, "The session was ended by an operator.");
    while channel.wait().await.is_some() {}
    // It does not take the seconds that are left to a command that does not end.
    let ended = tokio::time::timeout(Duration::from_secs(4), serving).await;
    ended.expect("soon").expect("no panic").expect("over TCP");
    assert!(registry.sessions().is_empty());
    // The command has ended, and what it wrote is kept as cut.
    let (stream, _) = connect(&setting, service(&setting));
    let (mut client, _) = open(stream).await;
    log_in(&mut client).await;
    let mut again = runs(&client, "ls").await;
    let mut listing = Vec::new();
    while let Some(message) = again.wait().await {
        if let ChannelMsg::Data { data } = message {
            listing.extend_from_slice(&data);
        }
    }
    assert_eq!(String::from_utf8_lossy(&listing), "file\n");
}

#[tokio::test]
async fn a_signal_ends_a_command_and_so_does_ctrl_c_in_a_terminal() {
    let setting = setting().await;
    let service = service(&setting);
    let (stream, _) = connect(&setting, service);
    let (mut client, _) = open(stream).await;
    log_in(&mut client).await;
    let signalled = runs(&client, "cat").await;
    signalled.signal(Sig::TERM).await.expect("sends");
    assert_eq!(signal_of(signalled).await, "TERM");
    let mut typed = client.channel_open_session().await.expect("opens");
    let asked = typed.request_pty(true, "xterm", 80, 24, 0, 0, &[]).await;
    asked.expect("sends");
    assert!(matches!(typed.wait().await, Some(ChannelMsg::Success)));
    typed.exec(true, "cat").await.expect("sends");
    typed.data(&b"line\r\x03"[..]).await.expect("sends");
    assert_eq!(signal_of(typed).await, "INT");
}

#[tokio::test]
async fn what_a_command_does_that_reads_no_input_ends_with_its_channel() {
    let setting = setting().await;
    setting.make_sparse("huge", 1 << 40);
    let (stream, serving) = connect(&setting, service(&setting));
    let (mut client, _) = open(stream).await;
    log_in(&mut client).await;
    for command in [
        "sha256sum huge",
        "sha256sum huge > sums",
        "sha256sum huge && cat",
    ] {
        let hashing = runs(&client, command).await;
        hashing.close().await.expect("sends");
    }
    let started = Instant::now();
    drop(client);
    serving.await.expect("no panic").expect("over TCP");
    // Not the five seconds that one may take to leave things tidy.
    assert!(started.elapsed() < Duration::from_secs(4));
}

/// Runs for ever and tells the sizes of its terminal.
struct Sizes(mpsc::UnboundedSender<(u32, u32)>);

impl ProcessRunner for Sizes {
    fn start<'a>(
        &'a self,
        _account: &'a Account,
        _home: &'a Arc<Home>,
        _invocation: Invocation,
    ) -> BoxFuture<'a, Result<Process, ProcessError>> {
        let control = Box::new(Self(self.0.clone()));
        Box::pin(async {
            Ok(Process {
                stdin: Box::new(tokio::io::sink()),
                stdout: Box::new(tokio::io::empty()),
                stderr: None,
                notice: None,
                control,
                ending: Box::pin(std::future::pending()),
            })
        })
    }
}

impl ProcessControl for Sizes {
    fn resize(&self, size: TerminalSize) {
        let _ = self.0.send((size.columns, size.rows));
    }

    fn signal(&self, _name: &str) {}
}

#[tokio::test]
async fn a_terminal_that_is_asked_for_too_late_is_refused_and_changes_nothing() {
    let setting = setting_of(ExecPolicy::Shell, PassivePorts(0..=0), None).await;
    let (sizes, mut seen) = mpsc::unbounded_channel();
    let door = Arc::clone(&setting.door);
    let service = SshService::new(&config(), door, Arc::new(Sizes(sizes)));
    let (stream, _serving) = connect(&setting, service);
    let (mut client, _) = open(stream).await;
    log_in(&mut client).await;
    let mut channel = client.channel_open_session().await.expect("opens");
    for (columns, is_done) in [(80, true), (81, true), (100, false)] {
        let asked = channel.request_pty(true, "xterm", columns, 24, 0, 0, &[]);
        asked.await.expect("sends");
        let answer = channel.wait().await;
        assert_eq!(
            matches!(answer, Some(ChannelMsg::Success)),
            is_done,
            "{answer:?}"
        );
        if columns == 81 {
            channel.exec(true, "top").await.expect("sends");
            assert!(matches!(channel.wait().await, Some(ChannelMsg::Success)));
        }
    }
    channel.window_change(132, 43, 0, 0).await.expect("sends");
    assert_eq!(seen.recv().await, Some((132, 43)));
}

/// The name of the signal that ended what ran on `channel`.
async fn signal_of(mut channel: Channel<client::Msg>) -> String {
    let mut ended = None;
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::ExitSignal { signal_name, .. } => ended = Some(signal_name),
            ChannelMsg::ExitStatus { exit_status } => panic!("ended with status {exit_status}"),
            _ => {}
        }
    }
    format!("{:?}", ended.expect("told"))
}

#[tokio::test]
async fn a_stop_waits_for_what_was_asked_over_sftp() {
    const INIT: &[u8] = b"\0\0\0\x05\x01\0\0\0\x03";
    const STAT: &[u8] = b"\0\0\0\x0e\x11\0\0\0\x01\0\0\0\x05/slow";
    let gate = Gate::closed();
    let setting = setting_in(Arc::new(ArrangedStorage::slow(gate.clone()))).await;
    let (stream, serving) = connect(&setting, service(&setting));
    let (mut client, said) = open(stream).await;
    log_in(&mut client).await;
    let channel = client.channel_open_session().await.expect("opens");
    channel
        .request_subsystem(true, "sftp")
        .await
        .expect("sends");
    for packet in [INIT, STAT] {
        channel.data(packet).await.expect("sends");
    }
    gate.begun().await;
    tokio::time::pause();
    setting.drain.begin();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(!serving.is_finished());
    gate.end();
    let (_, text) = said.await.expect("told");
    assert_eq!(text, "The server is stopping.");
    serving.await.expect("no panic").expect("over TCP");
}

#[tokio::test]
async fn who_does_not_log_in_is_told_so_at_the_deadline_however_busy_they_are() {
    let setting = setting().await;
    let (stream, serving) = connect(&setting, service(&setting));
    let started = Instant::now();
    let (mut client, mut said) = open(stream).await;
    tokio::time::pause();
    let mut attempts = 0;
    let (code, text) = loop {
        tokio::select! {
            biased;
            told = &mut said => break told.expect("told"),
            () = tokio::time::sleep(Duration::from_secs(3)) => {
                attempts += 1;
                let _ = client.authenticate_none("alice").await;
            }
        }
    };
    assert!(matches!(code, Disconnect::ByApplication), "{code:?}");
    assert_eq!(text, "You took too long to log in.");
    assert!((9..=10).contains(&attempts), "{attempts}");
    assert!(started.elapsed() < TIMEOUTS.login + Duration::from_secs(5));
    serving.await.expect("no panic").expect("over TCP");
}

#[tokio::test]
async fn windows_close_for_who_takes_no_output_and_open_again_for_who_does() {
    let setting = setting().await;
    let (stream, _serving) = connect(&setting, unencrypted(&setting));
    let mut channel = RawChannel::run(stream, "cat").await;
    let content: Vec<u8> = (0..80_000_000u32)
        .map(|number| (number % 251) as u8)
        .collect();
    let sent = channel.send_until_closed(&content).await;
    let mib = sent / (1024 * 1024);
    assert!((12..=32).contains(&mib), "{sent}");
    assert_eq!(channel.taken.len(), 100_000, "what it may be sent");
    // It takes so much that there is room again, and then everything.
    channel.widen(22_000_000).await;
    while channel.taken.len() < 22_100_000 {
        channel.take_packet().await;
    }
    let more = channel.send_until_closed(&content[sent..]).await;
    assert!((4_000_000..=32_000_000).contains(&more), "{more}");
    channel.widen(1_000_000_000).await;
    let mut sent = sent + more;
    while sent < content.len() {
        sent += channel.send_until_closed(&content[sent..]).await;
    }
    while channel.taken.len() < content.len() {
        channel.take_packet().await;
    }
    assert!(channel.taken == content);
}

#[tokio::test]
async fn a_peer_that_sends_past_its_windows_is_told_and_closed() {
    let setting = setting().await;
    let (stream, serving) = connect(&setting, unencrypted(&setting));
    let channel = RawChannel::run(stream, "cat").await;
    let RawChannel {
        mut stream,
        mut packets,
        id,
        ..
    } = channel;
    let flooding = tokio::spawn(async move {
        let piece = vec![0; 32 * 1024];
        let flood = packet(&[&[94][..], &id, &string(&piece)].concat());
        let mut sent = 0;
        while stream.write_all(&flood).await.is_ok() {
            sent += piece.len();
        }
        sent
    });
    let said = loop {
        let packet = packets.recv().await.expect("a word before the end");
        if packet.first() == Some(&1) {
            break packet;
        }
    };
    let text = String::from_utf8_lossy(&said[5..]).into_owned();
    assert!(
        text.contains("more than the windows of the channels allow"),
        "{text}"
    );
    serving.await.expect("no panic").expect("over TCP");
    let sent = flooding.await.expect("no panic");
    assert!(sent > 40 * 1024 * 1024, "{sent}");
}

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// A packet that begins as one that there is, with fields that may be anything.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    let name = prop::sample::select(
        &[
            "session",
            "x11",
            "direct-tcpip",
            "exec",
            "shell",
            "subsystem",
            "sftp",
            "pty-req",
            "env",
            "signal",
            "window-change",
            "auth-agent-req@openssh.com",
            "tcpip-forward",
            "cancel-tcpip-forward",
            "keepalive@openssh.com",
            "hostkeys-prove-00@openssh.com",
            "ssh-userauth",
            "ssh-connection",
            "publickey",
            "password",
            "keyboard-interactive",
            "none",
            "ssh-ed25519",
            "rsa-sha2-512",
            "alice",
            "secret",
            "cat",
            "ls -la",
            "TERM",
        ][..],
    );
    let field = prop_oneof![
        4 => name.prop_map(|name| string(name.as_bytes())),
        3 => (0u32..4).prop_map(|number| number.to_be_bytes().to_vec()),
        1 => any::<u32>().prop_map(|number| number.to_be_bytes().to_vec()),
        2 => any::<bool>().prop_map(|flag| vec![u8::from(flag)]),
        1 => prop::collection::vec(any::<u8>(), 0..40),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| string(&bytes)),
    ];
    // The numbers of messages that there are, most often those of channels.
    let kind = prop_oneof![
        2 => 1u8..8, 1 => 20u8..22, 1 => 30u8..35, 2 => 50u8..62, 1 => 80u8..83, 6 => 90u8..101, 1 => any::<u8>(),
    ];
    (kind, prop::collection::vec(field, 0..8)).prop_map(|(kind, fields)| {
        let mut payload = vec![kind];
        payload.extend(fields.concat());
        payload
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_packets_make_a_panic_and_every_session_ends_with_its_stream(
        payloads in prop::collection::vec(payload(), 1..25),
        opens_channel: bool,
        logged_in: bool,
    ) {
        std::panic::set_hook(Box::new(|_| {
            PANICS.fetch_add(1, Ordering::Relaxed);
        }));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let setting = setting().await;
            let (stream, serving) = connect(&setting, unencrypted(&setting));
            let mut raw = Raw::open(stream, logged_in).await;
            if opens_channel {
                let open = [&[90][..], &string(b"session"), &[0; 4], &[0, 1, 0, 0], &[0, 1, 0, 0]];
                raw.send(&open.concat()).await;
            }
            for payload in payloads {
                raw.send(&payload).await;
            }
            let _ = raw.0.shutdown().await;
            // Whatever it answers is taken.
            let _ = raw.0.read_to_end(&mut Vec::new()).await;
            serving.await.expect("no panic").expect("over TCP");
            assert!(setting.door.registry().sessions().is_empty());
        });
        let _ = std::panic::take_hook();
        prop_assert_eq!(PANICS.load(Ordering::Relaxed), 0);
    }
}
