//! What the machine can do: the same transfers by the barest loop, which
//! blocks, knows no protocol and checks nothing.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use serde_json::{Value, json};

use crate::Outcome;
use crate::ftp::{Wire, connect, discard, pour};
use crate::workload::{at_once, moved, zeros};

/// Bytes that one call may move; as Linux bounds a pipe by default.
const PIECE_BYTES: usize = 1024 * 1024;

pub(crate) fn send(file: &Path) -> Outcome<Value> {
    let size = file.metadata()?.len();
    let file = file.to_owned();
    serve(move |socket| {
        let file = File::open(&file)?;
        let mut offset = 0;
        while offset < size {
            if rustix::fs::sendfile(&socket, &file, Some(&mut offset), PIECE_BYTES)? == 0 {
                break;
            }
        }
        Ok(())
    })
}

pub(crate) fn receive(file: &Path) -> Outcome<Value> {
    let folder = file.to_owned();
    serve(move |socket| {
        let name = folder.with_extension(socket.peer_addr()?.port().to_string());
        let file = File::create(&name)?;
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        fcntl_setpipe_size(&writer, PIECE_BYTES)?;
        loop {
            let flags = SpliceFlags::MOVE | SpliceFlags::MORE;
            let mut left = splice(&socket, None, &writer, None, PIECE_BYTES, flags)?;
            if left == 0 {
                break;
            }
            while left > 0 {
                left -= splice(&reader, None, &file, None, left, flags)?;
            }
        }
        drop(file);
        std::fs::remove_file(name)?;
        Ok(())
    })
}

/// Prints the address, then serves for ever, a thread a connection.
pub(crate) fn serve(
    work: impl Fn(TcpStream) -> Outcome<()> + Send + Sync + 'static,
) -> Outcome<Value> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", json!({"address": listener.local_addr()?.to_string()}));
    let work = std::sync::Arc::new(work);
    loop {
        let (socket, _) = listener.accept()?;
        let work = std::sync::Arc::clone(&work);
        thread::spawn(move || {
            if let Err(error) = work(socket) {
                eprintln!("wharf-bench limit: {error}");
            }
        });
    }
}

pub(crate) fn fetch(address: SocketAddr, streams: u64, rounds: u64) -> Outcome<Value> {
    let (bytes, elapsed) = at_once(
        streams,
        |_| Ok(()),
        |(), _| {
            let fetch = |_| discard(&mut Wire::Plain(connect(address)?));
            (0..rounds).map(fetch).sum()
        },
    )?;
    Ok(moved(bytes, elapsed))
}

pub(crate) fn store(address: SocketAddr, streams: u64, rounds: u64, bytes: u64) -> Outcome<Value> {
    let source = zeros(bytes)?;
    let (total, elapsed) = at_once(
        streams,
        |_| Ok(()),
        |(), _| {
            for _ in 0..rounds {
                let mut wire = Wire::Plain(connect(address)?);
                pour(&mut wire, &source, bytes)?;
                // The other end closes once it has everything.
                discard(&mut wire)?;
            }
            Ok(bytes * rounds)
        },
    )?;
    Ok(moved(total, elapsed))
}
