//! Shows an event loop without a runtime: non-blocking sockets and poll(2), in one thread.
//! It echoes, and a slow client holds up nobody: what it does not take waits for it.
//!
//! ```text
//! cargo run -p wharf-net --example polling -- 127.0.0.1:4000
//! ```

use std::error::Error;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use rustix::event::{PollFd, PollFlags, poll};

/// What a client may owe before nothing more is read from it.
const MOST_OWED_BYTES: usize = 64 * 1024;

struct Client {
    socket: TcpStream,
    /// Read from it, and not yet sent back.
    owed: Vec<u8>,
    has_ended: bool,
}

impl Client {
    fn wants(&self) -> PollFlags {
        let mut wants = PollFlags::empty();
        wants.set(PollFlags::OUT, !self.owed.is_empty());
        let reads = !self.has_ended && self.owed.len() < MOST_OWED_BYTES;
        wants.set(PollFlags::IN, reads);
        wants
    }

    /// Does what can be done at once. Whether the client stays.
    fn serve(&mut self, ready: PollFlags) -> bool {
        let done = self.receive(ready).and_then(|()| self.send());
        match done {
            Ok(()) => !(self.has_ended && self.owed.is_empty()),
            // A client that is gone is its own affair.
            Err(_) => false,
        }
    }

    fn receive(&mut self, ready: PollFlags) -> io::Result<()> {
        if !ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            return Ok(());
        }
        let mut buffer = [0; 16 * 1024];
        match self.socket.read(&mut buffer) {
            Ok(0) => self.has_ended = true,
            Ok(length) => self.owed.extend(buffer.iter().take(length)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn send(&mut self) -> io::Result<()> {
        match self.socket.write(&self.owed) {
            Ok(length) => drop(self.owed.drain(..length)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args()
        .nth(1)
        .ok_or("give an address, such as 127.0.0.1:4000")?;
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    println!("listening on tcp:{}", listener.local_addr()?);
    let mut clients: Vec<Client> = Vec::new();
    loop {
        let mut watched = vec![PollFd::new(&listener, PollFlags::IN)];
        watched.extend(
            clients
                .iter()
                .map(|client| PollFd::new(&client.socket, client.wants())),
        );
        poll(&mut watched, None)?;
        let ready: Vec<PollFlags> = watched.iter().skip(1).map(PollFd::revents).collect();
        drop(watched);

        let mut ready = ready.into_iter();
        clients.retain_mut(|client| client.serve(ready.next().unwrap_or(PollFlags::empty())));
        while let Ok((socket, _)) = listener.accept() {
            socket.set_nonblocking(true)?;
            clients.push(Client {
                socket,
                owed: Vec::new(),
                has_ended: false,
            });
        }
    }
}
