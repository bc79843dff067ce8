//! A relay that lets bytes arrive late, as a long way does.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Passes connections on to a server, each byte a fixed time late in either direction, at
/// whatever rate. Lives as long as the process.
pub struct DelayingRelay {
    address: SocketAddr,
}

impl DelayingRelay {
    /// A relay to `server` over a way of `one_way` in each direction.
    pub fn start(server: SocketAddr, one_way: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        std::thread::spawn(move || {
            while let Ok((near, _)) = listener.accept() {
                let far = TcpStream::connect(server).expect("the server accepts");
                for socket in [&near, &far] {
                    socket.set_nodelay(true).expect("set");
                }
                let clone = |socket: &TcpStream| socket.try_clone().expect("a descriptor");
                pass(clone(&near), clone(&far), one_way);
                pass(far, near, one_way);
            }
        });
        Self { address }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// One direction: a thread that reads, and one that writes what is due.
fn pass(mut from: TcpStream, mut to: TcpStream, late: Duration) {
    // What is on its way: far more than any client has under way.
    let (sender, due) = mpsc::sync_channel::<(Instant, Vec<u8>)>(4096);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 256 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let piece = buffer.get(..count).unwrap_or_default().to_vec();
            if sender.send((Instant::now() + late, piece)).is_err() {
                return;
            }
        }
    });
    std::thread::spawn(move || {
        for (when, piece) in due {
            std::thread::sleep(when.saturating_duration_since(Instant::now()));
            if to.write_all(&piece).is_err() {
                return;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
}
