//! What a peer may have of an SSH session, at each bound and one past it.

mod pair;
mod raw;
mod setting;

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use pair::client::{Client, log_in, open};
use pair::{config, connect, service, unencrypted};
use raw::{RawChannel, packet, string};
use russh::client::{self, Handle};
use russh::{Channel, ChannelMsg, ChannelOpenFailure, Sig};
use setting::{Setting, setting, setting_of};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Semaphore;
use wharf_accounts::{Account, ExecPolicy};
use wharf_server::ftp::PassivePorts;
use wharf_server::process::{
    Ending, Exit, Invocation, Process, ProcessControl, ProcessError, ProcessRunner, TerminalSize,
};
use wharf_server::ssh::SshService;
use wharf_vfs::Home;

async fn client_of(setting: &Setting) -> Handle<Client> {
    let (stream, _serving) = connect(setting, service(setting));
    let (mut client, _said) = open(stream).await;
    log_in(&mut client).await;
    client
}

async fn channel(client: &Handle<Client>) -> Channel<client::Msg> {
    client.channel_open_session().await.expect("opens")
}

/// Whether another channel is refused for there being so many.
async fn is_full(client: &Handle<Client>) -> bool {
    match client.channel_open_session().await {
        Ok(_) => false,
        Err(russh::Error::ChannelOpenFailure(ChannelOpenFailure::ResourceShortage)) => true,
        Err(other) => panic!("{other}"),
    }
}

/// Whether the server says that it did the last thing that it was asked for.
async fn is_done(channel: &mut Channel<client::Msg>) -> bool {
    loop {
        match channel.wait().await.expect("an answer") {
            ChannelMsg::Success => return true,
            ChannelMsg::Failure => return false,
            _ => {}
        }
    }
}

/// What comes until the end, and the status.
async fn ran(mut channel: Channel<client::Msg>) -> (Vec<u8>, Option<u32>) {
    let (mut output, mut status) = (Vec::new(), None);
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Data { data } => output.extend_from_slice(&data),
            ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
            _ => {}
        }
    }
    (output, status)
}

#[tokio::test]
async fn ten_channels_are_open_at_once_and_the_next_waits_until_one_is_closed() {
    let setting = setting().await;
    let client = client_of(&setting).await;
    let mut open = Vec::new();
    for number in 0..10 {
        let mut channel = channel(&client).await;
        // Whether something runs on it makes no difference.
        if number % 2 == 0 {
            channel.exec(true, "cat").await.expect("sends");
            assert!(is_done(&mut channel).await);
        }
        open.push(channel);
    }
    assert!(is_full(&client).await);
    let idle = open.pop().expect("one");
    idle.close().await.expect("sends");
    let again = channel(&client).await;
    assert!(client.channel_open_session().await.is_err());
    // The ones that are open go on.
    again.exec(true, "echo here").await.expect("sends");
    assert_eq!(ran(again).await, (b"here\n".to_vec(), Some(0)));
}

/// Runs what takes its time to end, until there is a permit for it.
struct Slow(Arc<Semaphore>);

impl ProcessRunner for Slow {
    fn start<'a>(
        &'a self,
        _account: &'a Account,
        _home: &'a Arc<Home>,
        _invocation: Invocation,
    ) -> BoxFuture<'a, Result<Process, ProcessError>> {
        let may_end = Arc::clone(&self.0);
        Box::pin(ready(Ok(Process {
            stdin: Box::new(tokio::io::sink()),
            stdout: Box::new(tokio::io::empty()),
            stderr: None,
            notice: None,
            control: Box::new(Uncontrolled),
            ending: Box::pin(async move {
                may_end.acquire().await.expect("open").forget();
                Ending {
                    exit: Exit::Status(0),
                    notice: None,
                }
            }),
        })))
    }
}

struct Uncontrolled;

impl ProcessControl for Uncontrolled {
    fn resize(&self, _size: TerminalSize) {}

    fn signal(&self, _name: &str) {}
}

#[tokio::test]
async fn what_runs_takes_the_place_of_its_channel_until_it_has_ended() {
    let setting = setting_of(ExecPolicy::Shell, PassivePorts(0..=0), None).await;
    let may_end = Arc::new(Semaphore::new(0));
    let runner = Arc::new(Slow(Arc::clone(&may_end)));
    let service = SshService::new(&config(), Arc::clone(&setting.door), runner);
    let (stream, _serving) = connect(&setting, service);
    let (mut client, _said) = open(stream).await;
    log_in(&mut client).await;
    tokio::time::pause();
    for _ in 0..10 {
        let mut channel = channel(&client).await;
        channel.exec(true, "slow").await.expect("sends");
        assert!(is_done(&mut channel).await);
        channel.close().await.expect("sends");
    }
    assert!(is_full(&client).await);
    may_end.add_permits(1);
    while is_full(&client).await {}
    // What it had is open now, and idle.
    assert!(is_full(&client).await);
    // What has not ended five seconds behind its channel is dropped.
    tokio::time::sleep(Duration::from_secs(6)).await;
    for _ in 0..9 {
        channel(&client).await;
    }
    assert!(is_full(&client).await);
}

#[tokio::test]
async fn a_connection_opens_ten_thousand_channels_and_no_more() {
    let setting = setting().await;
    let client = client_of(&setting).await;
    for _ in 0..10_000 {
        let channel = channel(&client).await;
        channel.close().await.expect("sends");
    }
    assert!(client.channel_open_session().await.is_err());
    // Another connection has its own.
    channel(&client_of(&setting).await).await;
}

#[tokio::test]
async fn thirty_two_variables_are_set_and_one_past_them_is_refused() {
    let setting = setting().await;
    let client = client_of(&setting).await;
    let mut channel = channel(&client).await;
    for number in 0..33 {
        let name = format!("LC_{}", "X".repeat(number + 1));
        channel.set_env(true, name, "C").await.expect("sends");
        assert_eq!(is_done(&mut channel).await, number < 32, "{number}");
    }
    // One that is set may change.
    channel.set_env(true, "LC_X", "POSIX").await.expect("sends");
    assert!(is_done(&mut channel).await);
}

#[tokio::test]
async fn a_channel_runs_one_program_and_what_it_gets_is_settled_then() {
    let setting = setting().await;
    let client = client_of(&setting).await;
    let mut channel = channel(&client).await;
    channel.exec(true, "cat").await.expect("sends");
    assert!(is_done(&mut channel).await);
    channel.exec(true, "echo second").await.expect("sends");
    assert!(!is_done(&mut channel).await, "exec");
    channel.request_shell(true).await.expect("sends");
    assert!(!is_done(&mut channel).await, "shell");
    let asked = channel.request_subsystem(true, "sftp").await;
    asked.expect("sends");
    assert!(!is_done(&mut channel).await, "subsystem");
    channel.set_env(true, "LANG", "C").await.expect("sends");
    assert!(!is_done(&mut channel).await, "env");
    // The first goes on.
    channel.data(&b"first"[..]).await.expect("sends");
    channel.eof().await.expect("sends");
    assert_eq!(ran(channel).await, (b"first".to_vec(), Some(0)));
}

#[tokio::test]
async fn eight_signals_wait_for_a_program_and_more_are_dropped() {
    let setting = setting().await;
    let client = client_of(&setting).await;
    for (before, ends) in [(7, true), (8, false)] {
        let mut channel = channel(&client).await;
        // What a built-in command passes over.
        for _ in 0..before {
            channel.signal(Sig::USR1).await.expect("sends");
        }
        channel.signal(Sig::TERM).await.expect("sends");
        channel.exec(true, "cat").await.expect("sends");
        assert!(is_done(&mut channel).await);
        channel.eof().await.expect("sends");
        let status = ran(channel).await.1;
        assert_eq!(status.is_none(), ends, "{before} before it: {status:?}");
    }
}

/// RFC 4254 §5.2: no window is wider than 2^32 - 1 bytes.
#[tokio::test]
async fn a_window_that_would_pass_its_greatest_width_stays_open() {
    let setting = setting().await;
    let (stream, _serving) = connect(&setting, unencrypted(&setting));
    let mut channel = RawChannel::run(stream, "cat").await;
    for _ in 0..3 {
        channel.widen(u32::MAX).await;
    }
    // More than is left where the sum starts again at 0.
    let content = vec![7; 900_000];
    let mut sent = 0;
    while sent < content.len() {
        sent += channel.send_until_closed(&content[sent..]).await;
    }
    while channel.taken.len() < content.len() {
        channel.take_packet().await;
    }
    assert!(channel.taken == content);
}

/// Requests about a channel, or about nothing, that are each answered with a packet.
fn questions(channel: [u8; 4]) -> Vec<Vec<u8>> {
    let of_channel =
        |name: &[u8], more: &[u8]| [&[98][..], &channel, &string(name), &[1], more].concat();
    vec![
        of_channel(b"env", &[string(b"LC_X"), string(b"C")].concat()),
        of_channel(b"env", &[string(b"PATH"), string(b"C")].concat()),
        of_channel(b"shell", &[]),
        of_channel(
            b"x11-req",
            &[&[0][..], &string(b""), &string(b""), &[0; 4]].concat(),
        ),
        of_channel(b"unknown@example", &[]),
        [&[80][..], &string(b"keepalive@openssh.com"), &[1]].concat(),
        [
            &[80][..],
            &string(b"tcpip-forward"),
            &[1],
            &string(b"::1"),
            &[0; 4],
        ]
        .concat(),
        [
            &[90][..],
            &string(b"x11"),
            &[0; 4],
            &[0, 1, 0, 0],
            &[0, 1, 0, 0],
            &string(b"::1"),
            &[0; 4],
        ]
        .concat(),
    ]
}

/// A peer that asks and asks, and takes no answer, is not read from; then it is given up.
#[tokio::test]
async fn answers_that_nobody_takes_end_a_flood_of_questions() {
    for number in 0..questions([0; 4]).len() {
        let setting = setting().await;
        let (stream, serving) = connect(&setting, unencrypted(&setting));
        let channel = RawChannel::run(stream, "cat").await;
        let flood = packet(&questions(channel.id)[number]).repeat(100);
        // Nothing more is taken.
        drop(channel.packets);
        tokio::time::pause();
        let mut stream = channel.stream;
        let mut sent = 0;
        while stream.write_all(&flood).await.is_ok() {
            sent += flood.len();
            assert!(
                sent < 8 * 1024 * 1024,
                "question {number} is taken without end"
            );
        }
        serving.await.expect("no panic").expect("over TCP");
        tokio::time::resume();
    }
}
