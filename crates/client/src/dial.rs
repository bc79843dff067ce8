//! From a host name to a connection: all addresses, the first that answers; and how long to wait.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{sleep, timeout};

use crate::error::{ClientError, Waiting};

/// How long the client waits, by what it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// Name lookup and TCP connection, all addresses together.
    pub connect: Duration,
    /// A reply to a command or a request.
    pub reply: Duration,
    /// A data connection.
    pub data_connect: Duration,
    /// The next bytes of a transfer, and room for the next.
    pub stall: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(30),
            reply: Duration::from_secs(60),
            data_connect: Duration::from_secs(30),
            stall: Duration::from_secs(60),
        }
    }
}

/// Connects to any address of `host`, trying the next one whenever one has
/// failed or has been silent for a quarter of a second (RFC 8305 §5).
///
/// Dropping the future closes every attempt.
pub(crate) async fn dial(
    host: &str,
    port: u16,
    deadline: Duration,
) -> Result<TcpStream, ClientError> {
    let attempt = async {
        race(addresses(host, port).await?)
            .await
            .map_err(|source| ClientError::Connect {
                host: host.to_owned(),
                port,
                source,
            })
    };
    timeout(deadline, attempt)
        .await
        .map_err(|_| too_late(deadline))?
}

/// The addresses of `host` in the order in which they are tried. Has no deadline of its own.
pub(crate) async fn addresses(host: &str, port: u16) -> Result<Vec<SocketAddr>, ClientError> {
    let found = lookup_host((host, port)).await;
    let found = found.map_err(|source| ClientError::UnknownHost {
        host: host.to_owned(),
        source,
    })?;
    Ok(by_turns(found.collect()))
}

/// As [`addresses`], within `deadline`.
pub(crate) async fn addresses_within(
    host: &str,
    port: u16,
    deadline: Duration,
) -> Result<Vec<SocketAddr>, ClientError> {
    timeout(deadline, addresses(host, port))
        .await
        .map_err(|_| too_late(deadline))?
}

/// Connects to this one address.
pub(crate) async fn connect_to(
    address: SocketAddr,
    deadline: Duration,
) -> Result<TcpStream, ClientError> {
    timeout(deadline, TcpStream::connect(address))
        .await
        .map_err(|_| too_late(deadline))?
        .map_err(|source| ClientError::Connect {
            host: address.ip().to_string(),
            port: address.port(),
            source,
        })
}

fn too_late(deadline: Duration) -> ClientError {
    ClientError::Timeout {
        waiting: Waiting::Connect,
        after: deadline,
    }
}

async fn race(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut waiting = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut last_error = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        if let Some(address) = waiting.next() {
            attempts.push(TcpStream::connect(address));
        } else if attempts.is_empty() {
            return Err(last_error);
        }
        let more_wait = waiting.len() > 0;
        tokio::select! {
            Some(result) = attempts.next() => match result {
                Ok(stream) => return Ok(stream),
                Err(error) => last_error = error,
            },
            () = sleep(ATTEMPT_DELAY), if more_wait => {}
        }
    }
}

/// The families by turns, beginning with that of the first address: the system
/// has sorted them by what it thinks works best (RFC 6724).
fn by_turns(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == first_is_v6);
    let mut second = second.into_iter();
    let mut turns = Vec::new();
    for address in first {
        turns.push(address);
        turns.extend(second.next());
    }
    turns.extend(second);
    turns
}

/// Lets the network keep the state of a connection that is silent for long.
pub(crate) fn keep_alive(socket: &TcpStream) {
    let options = socket2::TcpKeepalive::new().with_time(KEEP_ALIVE);
    // Failing only means that a firewall may forget the connection.
    let _ = socket2::SockRef::from(socket).set_tcp_keepalive(&options);
}

/// RFC 1122 §4.2.3.6 asks for two hours by default; firewalls forget after minutes.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// RFC 8305 §5: the recommended delay between attempts.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn families_take_turns_in_the_order_of_the_system() {
        let sorted = ["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1"].map(address);
        let expected = ["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"].map(address);
        assert_eq!(by_turns(sorted.to_vec()), expected);
        assert_eq!(by_turns(Vec::new()), Vec::new());
    }

    #[tokio::test]
    async fn a_dead_address_does_not_stand_in_the_way_of_a_live_one() {
        let dead = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let dead_address = dead.local_addr().expect("an address");
        drop(dead);
        let live = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let live_address = live.local_addr().expect("an address");
        let stream = race(vec![dead_address, live_address])
            .await
            .expect("connects");
        assert_eq!(stream.peer_addr().expect("an address"), live_address);
    }

    #[tokio::test]
    async fn the_last_error_is_told_when_no_address_answers() {
        let dead = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let port = dead.local_addr().expect("an address").port();
        drop(dead);
        let error = dial("127.0.0.1", port, Duration::from_secs(5)).await;
        assert!(matches!(error, Err(ClientError::Connect { port: p, .. }) if p == port));
    }
}
