//! What a session that waits for its client holds, counted by the allocator.

mod setting;

use std::alloc::System;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};

use setting::setting;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

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
