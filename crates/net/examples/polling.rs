//! Shows an event loop without a runtime: non-blocking sockets and poll(2), in one thread.
//! It echoes, and a slow client holds up nobody: what it does not take waits for it.
//!
//! ```text
//! cargo run -p wharf-net --example polling -- 127.0.0.1:4000
//! ```

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;

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
        let has_room = self.owed.len() < MOST_OWED_BYTES;
        wants.set(PollFlags::IN, has_room && !self.has_ended);
        wants
    }

    /// Does what can be done at once. Whether the client stays.
    fn serve(&mut self, ready: PollFlags) -> bool {
        let not_now = |error: io::Error| match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(()),
            _ => Err(error),
        };
        let received = self.receive(ready).or_else(not_now);
        let sent = self.socket.write(&self.owed);
        let sent = sent.map(|length| drop(self.owed.drain(..length)));
        // A client that is gone is its own affair.
        let is_there = received.and(sent.or_else(not_now)).is_ok();
        is_there && !(self.has_ended && self.owed.is_empty())
    }

    fn receive(&mut self, ready: PollFlags) -> io::Result<()> {
        if !ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            return Ok(());
        }
        let mut buffer = [0; 16 * 1024];
        let length = self.socket.read(&mut buffer)?;
        self.has_ended = length == 0;
        self.owed.extend(buffer.iter().take(length));
        Ok(())
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind(std::env::args().nth(1).ok_or("give an address")?)?;
    listener.set_nonblocking(true)?;
    println!("listening on tcp:{}", listener.local_addr()?);
    let mut clients: Vec<Client> = Vec::new();
    let mut pause: Option<Timespec> = None;
    loop {
        let welcome = pause.map_or(PollFlags::IN, |_| PollFlags::empty());
        let mut watched = vec![PollFd::new(&listener, welcome)];
        for client in &clients {
            watched.push(PollFd::new(&client.socket, client.wants()));
        }
        retry_on_intr(|| poll(&mut watched, pause.as_ref()))?;
        let ready: Vec<PollFlags> = watched.iter().skip(1).map(PollFd::revents).collect();
        let mut ready = ready.into_iter();
        clients.retain_mut(|client| client.serve(ready.next().unwrap_or(PollFlags::empty())));
        pause = loop {
            match listener.accept() {
                Ok((socket, _)) => {
                    socket.set_nonblocking(true)?;
                    clients.push(Client {
                        socket,
                        owed: Vec::new(),
                        has_ended: false,
                    });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break None,
                // Descriptors have run out, say: others are served, and it is tried again soon.
                Err(_) => break Some(Duration::from_millis(100).try_into()?),
            }
        };
    }
}

fn main() {
    if let Err(error) = run() {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}
