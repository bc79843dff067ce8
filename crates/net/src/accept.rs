//! The accept loop: admit, count, hand over, survive.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use crate::stream::canonical;
use crate::{
    AccessHook, AllowAll, Connection, ConnectionSlots, Drain, Listener, Refused, Stream,
    StreamService, Verdict,
};

/// How an accept loop treats its peers.
pub struct AcceptOptions {
    /// Judges each peer before anything is read.
    pub access: Arc<dyn AccessHook>,
    /// Counts connections.
    pub slots: ConnectionSlots,
    /// Idle time after which the kernel probes whether a peer is still there.
    pub keepalive: Duration,
}

impl AcceptOptions {
    /// Everyone is admitted up to the limits of `slots`; dead peers are noticed within minutes.
    pub fn new(slots: ConnectionSlots) -> Self {
        Self {
            access: Arc::new(AllowAll),
            slots,
            keepalive: Duration::from_secs(60),
        }
    }
}

/// Accepts until the drain begins, each connection a task of the drain's.
///
/// An error of `accept(2)` never ends the loop: what concerns one peer is
/// passed over, and what the whole machine lacks (descriptors, memory) is
/// waited for, from 10 ms doubling to 1 s. Dropping the future stops
/// accepting and leaves the connections running.
pub async fn serve<S: StreamService>(
    listener: Listener,
    service: Arc<S>,
    options: AcceptOptions,
    drain: Drain,
) {
    let mut backoff = Backoff::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = drain.begun() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, peer)) => {
                backoff = Backoff::new();
                admit(socket, peer, &service, &options, &drain);
            }
            Err(error) if concerns_one_peer(&error) => {}
            Err(error) => {
                let pause = backoff.next();
                tracing::warn!(listener = %listener.local_address(), %error, ?pause, "cannot accept for now");
                tokio::select! {
                    () = drain.begun() => return,
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
    }
}

fn admit<S: StreamService>(
    socket: TcpStream,
    peer: SocketAddr,
    service: &Arc<S>,
    options: &AcceptOptions,
    drain: &Drain,
) {
    let peer = canonical(peer);
    // The peer may be gone already.
    let Ok(local) = socket.local_addr().map(canonical) else {
        return;
    };
    let keepalive = TcpKeepalive::new().with_time(options.keepalive);
    let _ = SockRef::from(&socket).set_tcp_keepalive(&keepalive);
    // Urgent bytes stay where they were sent; a service that reads on past
    // their mark (`Stream::read_at_once`) sees one stream.
    let _ = SockRef::from(&socket).set_out_of_band_inline(true);
    let stream = Stream::from(socket);
    stream.set_nodelay();

    match options.access.judge(peer) {
        Verdict::Admit => {}
        Verdict::Refuse => {
            tracing::info!(%peer, "connection refused by the access rules");
            return refuse(stream, Refused::Access, service, drain);
        }
        Verdict::RefuseForNow => {
            tracing::info!(%peer, "connection refused by the access rules for now");
            return refuse(stream, Refused::AccessForNow, service, drain);
        }
    }
    match options.slots.take(peer.ip()) {
        Ok(slot) => {
            let dismissed = slot.dismissed();
            let connection = Connection {
                stream,
                peer,
                local,
                drain: drain.clone(),
                slot,
            };
            let serving = Arc::clone(service).serve(connection);
            drain.track(async move {
                tokio::select! {
                    biased;
                    () = dismissed => tracing::info!(%peer, "connection closed in favour of a newer one"),
                    () = serving => {}
                }
            });
        }
        Err(limit) => {
            tracing::warn!(%peer, %limit, "connection refused");
            refuse(stream, Refused::Limit(limit), service, drain);
        }
    }
}

/// Tells a peer in a task of its own, so that one that does not read cannot hold up the loop.
fn refuse<S: StreamService>(stream: Stream, reason: Refused, service: &Arc<S>, drain: &Drain) {
    const PATIENCE: Duration = Duration::from_secs(1);
    let service = Arc::clone(service);
    drain.track(async move {
        let _ = tokio::time::timeout(PATIENCE, service.refuse(stream, reason)).await;
    });
}

/// Errors of a connection that broke before it was accepted; see accept(2), "Error handling".
fn concerns_one_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::TimedOut
    )
}

struct Backoff(Duration);

impl Backoff {
    const FIRST: Duration = Duration::from_millis(10);
    const LONGEST: Duration = Duration::from_secs(1);

    fn new() -> Self {
        Self(Self::FIRST)
    }

    fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(Self::LONGEST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ConnectionLimits, Endpoint, EndpointOptions};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Echoes, and says `full` to those it cannot serve.
    struct Echo;

    impl StreamService for Echo {
        async fn serve(self: Arc<Self>, mut connection: Connection) {
            let (mut reader, mut writer) = tokio::io::split(&mut connection.stream);
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
        }

        async fn refuse(&self, mut stream: Stream, _reason: Refused) {
            let _ = stream.write_all(b"full").await;
        }
    }

    fn start(address: &str, per_address: usize) -> (SocketAddr, Drain) {
        let endpoint = Endpoint::Tcp(address.parse().expect("an address"));
        let listener = Listener::bind(endpoint, EndpointOptions::default()).expect("a free port");
        let address = listener.local_address();
        let drain = Drain::new();
        let slots = ConnectionSlots::new(ConnectionLimits {
            total: 10,
            per_address,
            newcomers_per_network: per_address,
        });
        tokio::spawn(serve(
            listener,
            Arc::new(Echo),
            AcceptOptions::new(slots),
            drain.clone(),
        ));
        (address, drain)
    }

    #[tokio::test]
    async fn a_peer_over_the_limit_is_told_and_the_others_are_served() {
        let (address, _drain) = start("127.0.0.1:0", 1);
        let mut first = TcpStream::connect(address).await.expect("connects");
        first.write_all(b"hello").await.expect("writes");
        let mut answer = [0; 5];
        first.read_exact(&mut answer).await.expect("is echoed");
        assert_eq!(&answer, b"hello");

        let mut second = TcpStream::connect(address).await.expect("connects");
        let mut told = Vec::new();
        second.read_to_end(&mut told).await.expect("reads");
        assert_eq!(told, b"full");
    }

    #[tokio::test]
    async fn the_oldest_newcomer_is_closed_in_favour_of_the_next() {
        // Ten places, so five newcomers.
        let (address, _drain) = start("127.0.0.1:0", 10);
        let mut peers = Vec::new();
        for _ in 0..6 {
            let mut peer = TcpStream::connect(address).await.expect("connects");
            peer.write_all(b"x").await.expect("writes");
            assert_eq!(peer.read_u8().await.expect("is echoed"), b'x');
            peers.push(peer);
        }
        assert_eq!(peers[0].read(&mut [0]).await.ok(), Some(0));
        for peer in &mut peers[1..] {
            peer.write_all(b"y").await.expect("writes");
            assert_eq!(peer.read_u8().await.expect("is echoed"), b'y');
        }
    }

    #[tokio::test]
    async fn both_families_are_served_on_one_dual_stack_endpoint() {
        let (address, _drain) = start("[::]:0", 5);
        for host in ["127.0.0.1", "::1"] {
            let target = SocketAddr::new(host.parse().expect("an address"), address.port());
            let mut peer = TcpStream::connect(target).await.expect("connects");
            peer.write_all(b"x").await.expect("writes");
            assert_eq!(peer.read_u8().await.expect("is echoed"), b'x');
        }
    }

    #[tokio::test]
    async fn draining_refuses_new_connections_and_cuts_old_ones_at_the_deadline() {
        let (address, drain) = start("127.0.0.1:0", 5);
        let mut peer = TcpStream::connect(address).await.expect("connects");
        peer.write_all(b"x").await.expect("writes");
        assert_eq!(peer.read_u8().await.expect("is echoed"), b'x');
        let report = drain.finish(Duration::ZERO).await;
        assert_eq!(report.cut, 1);
        assert_eq!(peer.read(&mut [0]).await.ok(), Some(0));
    }

    #[test]
    fn the_pause_doubles_up_to_a_second() {
        let mut backoff = Backoff::new();
        let pauses: Vec<u128> = (0..9).map(|_| backoff.next().as_millis()).collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
    }
}
