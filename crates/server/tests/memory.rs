//! What sessions hold, counted by the allocator.

mod pair;
mod raw;
mod setting;

use std::alloc::System;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};

use std::sync::Arc;

use bytes::Bytes;
use pair::{connect, unencrypted};
use raw::{RawChannel, string};
use setting::setting;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use wharf_model::{PermissionRules, QuotaLimits, Usage};
use wharf_server::activity::Activity;
use wharf_server::registry::Transfers;
use wharf_server::sftp::{AttributePolicy, SftpOptions, serve};
use wharf_testkit::ArrangedStorage;
use wharf_vfs::{Home, Ledger, NoJournal, Vfs};

#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Held while a test counts: they share the heap.
static COUNTING: Mutex<()> = Mutex::const_new(());

/// Bytes of the heap that are in use.
fn heap_bytes() -> usize {
    let stats = HEAP.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

/// A session that is logged in, whose client holds no memory.
fn log_in(server: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(server).expect("connects");
    let mut replies = BufReader::new(stream.try_clone().expect("a descriptor"));
    let mut expect = |code: &str| {
        let mut line = String::new();
        replies.read_line(&mut line).expect("a reply");
        assert!(line.starts_with(code), "{line}");
    };
    expect("220");
    for (command, code) in [
        ("USER alice", "331"),
        ("PASS secret", "230"),
        ("TYPE I", "200"),
    ] {
        write!(stream, "{command}\r\n").expect("sends");
        expect(code);
    }
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_idle_session_holds_less_than_five_kibibytes() {
    let _alone = COUNTING.lock().await;
    let setting = setting().await;
    let server = setting.serve();
    let mut held = Vec::new();
    let mut growths: Vec<usize> = (0..9)
        .map(|_| {
            let before = heap_bytes();
            held.push(log_in(server));
            heap_bytes().saturating_sub(before)
        })
        .collect();
    // The median: some of them make a table grow that all of them share.
    growths.sort_unstable();
    assert!(growths[4] < 5 * 1024, "{growths:?} bytes");
}

/// A packet of SFTP (draft-ietf-secsh-filexfer-02 §3): a kind, the number of the request, fields.
fn request(kind: u8, number: u32, fields: &[u8]) -> Vec<u8> {
    string(&[&[kind][..], &number.to_be_bytes(), fields].concat())
}

/// The first of the packets in these bytes, if it is whole, and what is behind it.
fn split_packet(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

#[tokio::test]
async fn answers_over_ssh_that_nobody_takes_hold_few_megabytes_however_many_are_asked_for() {
    let _alone = COUNTING.lock().await;
    let setting = setting().await;
    setting.make_sparse("huge", 1 << 40);
    let (stream, _serving) = connect(&setting, unencrypted(&setting));
    let mut channel = RawChannel::open(stream).await;
    let subsystem = [&string(b"subsystem")[..], &[0], &string(b"sftp")].concat();
    channel.send_of(98, &subsystem).await;
    let open = [&string(b"huge")[..], &[0, 0, 0, 1], &[0; 4]].concat();
    let begin = [&string(&[1, 0, 0, 0, 3])[..], &request(3, 1, &open)].concat();
    channel.send_data(&begin).await;
    let handle = loop {
        channel.take_packet().await;
        let rest = split_packet(&channel.taken).map_or(&[][..], |(_version, rest)| rest);
        if let Some((opened, _)) = split_packet(rest) {
            break opened[5..].to_vec();
        }
    };
    // 256 KiB from the begin, two million times.
    let read = [&handle[..], &[0; 8], &[0, 4, 0, 0]].concat();
    let flood = request(5, 2, &read).repeat(2_000_000);
    let before = heap_bytes();
    let sent = channel.send_until_closed(&flood).await;
    let held = heap_bytes().saturating_sub(before);
    assert!(sent < flood.len(), "all {sent} bytes are taken");
    // Windows of 16 MiB, and 8 MiB of SFTP requests and answers.
    assert!(held < 40 * 1024 * 1024, "{held} bytes for {sent} bytes");
}

#[tokio::test]
async fn requests_over_ssh_that_want_no_answer_leave_nothing_behind() {
    let _alone = COUNTING.lock().await;
    let setting = setting().await;
    let (stream, _serving) = connect(&setting, unencrypted(&setting));
    let mut channel = RawChannel::open(stream).await;
    let size = [0, 0, 0, 80].repeat(4);
    let requests: [(&[u8], Vec<u8>); 6] = [
        (b"env", [string(b"LC_X"), string(&[b'x'; 256])].concat()),
        (
            b"pty-req",
            [&string(b"xterm")[..], &size, &string(b"")].concat(),
        ),
        (b"window-change", size.clone()),
        (b"signal", string(b"USR1")),
        (b"unknown@example", vec![0; 256]),
        (b"subsystem", string(b"unknown")),
    ];
    let mut held = Vec::new();
    for round in 0..2 {
        for _ in 0..20_000 {
            for (name, fields) in &requests {
                let fields = [&string(name)[..], &[0], fields].concat();
                channel.send_of(98, &fields).await;
            }
            let global = [&[80][..], &string(b"unknown@example"), &[0]].concat();
            channel.send(&global).await;
        }
        // The only one that is answered, behind all the others.
        let last = [&string(b"env")[..], &[1], &string(b"LANG"), &string(b"C")].concat();
        channel.send_of(98, &last).await;
        while channel.packets.recv().await.expect("goes on").first() != Some(&99) {}
        held.push(heap_bytes());
        assert_eq!(held.len(), round + 1);
    }
    let grown = held[1].saturating_sub(held[0]);
    assert!(grown < 64 * 1024, "{grown} bytes");
}

#[tokio::test]
async fn a_directory_of_a_million_entries_is_read_in_constant_memory() {
    const ENTRIES: u64 = 1_000_000;
    let _alone = COUNTING.lock().await;
    let storage = Arc::new(ArrangedStorage::listing(ENTRIES));
    let ledger = Ledger::new(Usage::ZERO, true, Box::new(NoJournal));
    let home = Home::new(storage, ledger);
    let vfs = Vfs::new(home, PermissionRules::default(), QuotaLimits::default());
    let options = SftpOptions {
        account: Bytes::from_static(b"alice"),
        attributes: AttributePolicy::Refuse,
        activity: Activity::default(),
        transfers: Transfers::unseen(),
        stop: CancellationToken::new(),
    };
    let (mut stream, server) = tokio::io::duplex(64 * 1024);
    let _serving = tokio::spawn(serve(server, vfs, options));
    let begin = [string(&[1, 0, 0, 0, 3]), request(11, 1, &string(b"/"))].concat();
    stream.write_all(&begin).await.expect("taken");
    packet(&mut stream).await;
    let handle = packet(&mut stream).await;
    let read = request(12, 2, &handle[5..]);
    // Far more under way than are read.
    stream.write_all(&read.repeat(1000)).await.expect("taken");
    let before = heap_bytes();
    let (mut entries, mut most) = (0, 0);
    loop {
        let answer = packet(&mut stream).await;
        // SSH_FXP_STATUS, at the end.
        if answer[0] == 101 {
            break;
        }
        entries += u64::from(u32::from_be_bytes(answer[5..9].try_into().expect("four")));
        stream.write_all(&read).await.expect("taken");
        most = most.max(heap_bytes().saturating_sub(before));
    }
    assert_eq!(entries, ENTRIES);
    // Answers of 8 MiB are under way, which take twice as much until they are written.
    assert!(most < 32 * 1024 * 1024, "{most} bytes");
}

/// The next packet without its length.
async fn packet(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Vec<u8> {
    let length = stream.read_u32().await.expect("a packet");
    let mut packet = vec![0; usize::try_from(length).expect("64 bits")];
    stream.read_exact(&mut packet).await.expect("a packet");
    packet
}
