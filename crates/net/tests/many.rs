//! Many connections held at once on one echo server, in a process of its own.
//!
//! ```text
//! cargo test -p wharf-net --test many -- --ignored --nocapture
//! ```

mod running;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use running::Example;

/// Of the echo's connection: its buffer of 16 KiB, of which short messages touch
/// a page or two, its task, and what the server keeps of it.
const MOST_BYTES_EACH: u64 = 24 * 1024;

#[test]
fn a_thousand_connections_are_held_and_all_are_echoed() {
    hold(1000);
}

#[test]
#[ignore = "needs 10,000 descriptors in each of two processes"]
fn ten_thousand_connections_are_held_and_all_are_echoed() {
    hold(10_000);
}

fn hold(count: u64) {
    allow_descriptors(count + 100);
    let server = Example::start("echo", &["tcp:127.0.0.1:0"]);
    let address = server.endpoint.socket_address().expect("of TCP");
    // What the first one needs is there for all.
    let mut first = TcpStream::connect(address).expect("connects");
    echoes(&mut first);
    let before = resident_bytes(server.program.id());
    let mut streams: Vec<TcpStream> = (0..count)
        .map(|_| {
            let mut stream = TcpStream::connect(address).expect("connects");
            echoes(&mut stream);
            stream
        })
        .collect();
    let each = resident_bytes(server.program.id()).saturating_sub(before) / count;
    println!("{count} connections, {each} bytes of memory each");
    streams.iter_mut().for_each(echoes);
    echoes(&mut first);
    assert!(each < MOST_BYTES_EACH, "{each}");
}

fn echoes(stream: &mut TcpStream) {
    stream.write_all(b"still there?").expect("writes");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).expect("an echo");
    assert_eq!(&answer, b"still there?");
}

/// Of this process, and so of those that it starts.
fn allow_descriptors(count: u64) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= count) {
        return;
    }
    let raised = Rlimit {
        current: Some(count),
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised)
        .unwrap_or_else(|error| panic!("{count} descriptors are needed (ulimit -Hn): {error}"));
}

/// See proc(5), `VmRSS`.
#[expect(clippy::disallowed_methods, reason = "a file of the kernel's")]
fn resident_bytes(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("alive");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|text| text.trim().strip_suffix(" kB"));
    let kilobytes: u64 = kilobytes.expect("VmRSS").parse().expect("a number");
    kilobytes * 1024
}
