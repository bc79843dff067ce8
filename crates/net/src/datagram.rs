//! The server for datagrams: receive whole, judge, answer.
//!
//! While every place is taken, datagrams wait in the kernel's buffer for the
//! socket. It is the queue, and `EndpointOptions::receive_buffer_bytes` is its
//! bound: a sender on a Unix socket waits for room in it, and over UDP what
//! finds none is lost, as anywhere on its way.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::accept::{Action, Arrivals, Pacing, Ticket, Work, take_in};
use crate::access;
use crate::concurrency::{Place, Places};
use crate::rate::Throttle;
use crate::{
    AccessHook, AllowAll, BindError, BoundEndpoint, Concurrency, DatagramSocket, Drain, Endpoint,
    Failure, Peer, RateLimits, ServiceError, Verdict,
};

/// One datagram, and the way back to its sender.
#[derive(Debug)]
pub struct Datagram {
    /// All of it.
    pub content: Vec<u8>,
    /// Its sender; over UDP, who claims to be it.
    pub peer: Peer,
    /// The server's end: a service watches [`Drain::begun`].
    pub drain: Drain,
    socket: Arc<DatagramSocket>,
}

impl Datagram {
    /// Sends one datagram to the sender. A service may send none or several; a
    /// small question that earns a large answer makes a server a weapon against
    /// whoever the sender claims to be. Dropping the future sends all of it or nothing.
    ///
    /// # Errors
    /// What the system says, and `AddrNotAvailable` for a sender on a Unix
    /// socket without a name, to whom there is no way back.
    pub async fn reply(&self, content: &[u8]) -> io::Result<()> {
        self.socket.send(content, &self.peer).await
    }

    /// Where it came to.
    pub fn local(&self) -> &Endpoint {
        self.socket.endpoint()
    }
}

/// Answers datagrams.
pub trait DatagramService: Send + Sync + 'static {
    /// Answers one datagram. A cut or the datagram's deadline drops the future
    /// at any await. An error or a panic is told to [`DatagramService::failed`].
    fn answer(
        self: Arc<Self>,
        datagram: Datagram,
    ) -> impl Future<Output = Result<(), ServiceError>> + Send;

    /// Hears how the answer to a peer failed; by default it goes to the log.
    fn failed(&self, peer: &Peer, failure: &Failure) {
        failure.log(peer);
    }
}

/// Serves datagrams: a service, and how its peers are treated. Cheap to clone.
/// A server for streams is a [`Server`](crate::Server).
pub struct DatagramServer<S> {
    service: Arc<S>,
    access: Arc<dyn AccessHook>,
    rates: Arc<Throttle>,
    size_bytes: usize,
    places: Places,
    drain: Drain,
    deadline: Option<Duration>,
    action: Option<Action>,
    counts: Arc<Counters>,
}

/// What a UDP datagram over IPv4 can carry at most: 65,535 without the headers.
const MAX_UDP_BYTES: usize = 65_507;
/// Most bytes that a buffer is made for.
const MOST_SIZE_BYTES: usize = 16 * 1024 * 1024;
/// Datagrams that are answered at one time, if nothing else is chosen.
const AT_ONCE: usize = 1000;

impl<S> Clone for DatagramServer<S> {
    fn clone(&self) -> Self {
        Self {
            service: Arc::clone(&self.service),
            access: Arc::clone(&self.access),
            rates: Arc::clone(&self.rates),
            size_bytes: self.size_bytes,
            places: self.places.clone(),
            drain: self.drain.clone(),
            deadline: self.deadline,
            action: self.action.clone(),
            counts: Arc::clone(&self.counts),
        }
    }
}

impl<S: DatagramService> DatagramServer<S> {
    /// A server for everyone, with a thousand tasks at once, and a drain of its own.
    pub fn new(service: Arc<S>) -> Self {
        Self {
            service,
            access: Arc::new(AllowAll),
            rates: Arc::new(Throttle::new(RateLimits::default())),
            size_bytes: MAX_UDP_BYTES,
            places: Places::bounded(Concurrency::Tasks, AT_ONCE),
            drain: Drain::new(),
            deadline: None,
            action: None,
            counts: Arc::default(),
        }
    }

    /// Judges each sender. What is refused is dropped.
    #[must_use]
    pub fn with_access(mut self, access: Arc<dyn AccessHook>) -> Self {
        self.access = access;
        self
    }

    /// Bounds how often datagrams may come. What comes too often is dropped.
    #[must_use]
    pub fn with_rates(mut self, rates: RateLimits) -> Self {
        self.rates = Arc::new(Throttle::new(rates));
        self
    }

    /// Drops datagrams of more bytes, and of more than 16 MiB, which no socket
    /// carries; none is ever cut.
    #[must_use]
    pub fn with_size_limit(mut self, bytes: usize) -> Self {
        self.size_bytes = bytes.min(MOST_SIZE_BYTES);
        self
    }

    /// Chooses how datagrams are answered beside each other; with tasks, a
    /// thousand at once at most.
    #[must_use]
    pub fn with_concurrency(mut self, concurrency: Concurrency) -> Self {
        self.places = Places::bounded(concurrency, AT_ONCE);
        self
    }

    /// Ends with `drain`, which may end other servers too.
    #[must_use]
    pub fn with_drain(mut self, drain: Drain) -> Self {
        self.drain = drain;
        self
    }

    /// Ends the work on each datagram at the latest so long after it came.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Calls `act` once a `period`, of a millisecond at least, while the server
    /// receives. It runs on the server's loop: it must not block. A panic goes to the log.
    #[must_use]
    pub fn with_action(mut self, period: Duration, act: impl Fn() + Send + Sync + 'static) -> Self {
        self.action = Some(Action {
            period,
            act: Arc::new(act),
        });
        self
    }

    /// The server's end.
    pub fn drain(&self) -> Drain {
        self.drain.clone()
    }

    /// What has come so far.
    pub fn counts(&self) -> DatagramCounts {
        self.counts.read()
    }

    /// Receives until the drain begins. Answers are tasks of the drain's: they
    /// may outlast this future, and dropping it leaves them running.
    pub async fn serve(self, socket: DatagramSocket) {
        self.take_in(&Arc::new(socket), None).await;
    }

    /// Serves in a task of its own, which ends when the drain begins. Must be
    /// called within a tokio runtime.
    ///
    /// # Errors
    /// [`BindError`], which names the endpoint: it is for streams, or the runtime cannot watch it.
    pub fn start(self, bound: BoundEndpoint) -> Result<JoinHandle<()>, BindError> {
        let socket = bound.datagram_socket()?;
        Ok(tokio::spawn(self.serve(socket)))
    }

    /// Answers `count` datagrams, or until the drain begins. What is dropped
    /// does not count. Dropping the future stops receiving and leaves answers running.
    pub async fn serve_some(&self, socket: &Arc<DatagramSocket>, count: usize) {
        self.take_in(socket, Some(count)).await;
    }

    async fn take_in(&self, socket: &Arc<DatagramSocket>, count: Option<usize>) {
        // One byte more than is taken shows what is too large.
        let mut datagrams = Datagrams {
            socket,
            pacing: Pacing::new(self.places.clone()),
            buffer: vec![0; self.size_bytes.saturating_add(1)],
        };
        let action = self.action.as_ref();
        take_in(
            &mut datagrams,
            count,
            action,
            &self.drain,
            |receipt, ticket| {
                self.admit(receipt, ticket, socket);
            },
        )
        .await;
    }

    /// Answers the datagram, if it is whole and nothing speaks against its sender.
    fn admit(&self, receipt: Receipt, ticket: Option<Ticket>, socket: &Arc<DatagramSocket>) {
        let Receipt {
            content,
            peer,
            place,
        } = receipt;
        let dropped = if content.len() > self.size_bytes {
            Some((&self.counts.too_large, "larger than is taken"))
        } else if access::verdict(&*self.access, &peer) != Verdict::Admit {
            Some((&self.counts.refused, "refused by the access rules"))
        } else if !self.rates.admit(&peer) {
            Some((&self.counts.too_often, "they come too often"))
        } else {
            None
        };
        if let Some((count, why)) = dropped {
            count.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%peer, why, "datagram dropped");
            return;
        }
        self.counts.taken.fetch_add(1, Ordering::Relaxed);
        let datagram = Datagram {
            content,
            peer: peer.clone(),
            drain: self.drain.clone(),
            socket: Arc::clone(socket),
        };
        let service = Arc::clone(&self.service);
        let answering = Arc::clone(&service);
        let work = Work {
            peer,
            serving: Box::pin(async move { answering.answer(datagram).await }),
            failed: move |peer: &Peer, failure: &Failure| service.failed(peer, failure),
            deadline: self.deadline,
            place,
            ticket,
        };
        work.launch(self.places.clone(), &self.drain);
    }
}

/// What comes over a socket for datagrams.
struct Datagrams<'a> {
    socket: &'a DatagramSocket,
    pacing: Pacing,
    buffer: Vec<u8>,
}

struct Receipt {
    content: Vec<u8>,
    peer: Peer,
    place: Place,
}

impl Arrivals for Datagrams<'_> {
    type Item = Receipt;

    async fn next(&mut self) -> Receipt {
        loop {
            self.pacing.ready().await;
            match self.socket.receive(&mut self.buffer).await {
                Ok((length, peer)) => {
                    self.pacing.succeeded();
                    return Receipt {
                        content: self.buffer.iter().take(length).copied().collect(),
                        peer,
                        place: self.pacing.take_place(),
                    };
                }
                Err(error) => self.pacing.failed(&error, self.socket.endpoint()),
            }
        }
    }
}

/// What has come to a server for datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DatagramCounts {
    /// Handed to the service.
    pub taken: u64,
    /// Dropped: larger than is taken.
    pub too_large: u64,
    /// Dropped: refused by the access hook.
    pub refused: u64,
    /// Dropped: over a rate.
    pub too_often: u64,
}

#[derive(Debug, Default)]
struct Counters {
    taken: AtomicU64,
    too_large: AtomicU64,
    refused: AtomicU64,
    too_often: AtomicU64,
}

impl Counters {
    fn read(&self) -> DatagramCounts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        DatagramCounts {
            taken: read(&self.taken),
            too_large: read(&self.too_large),
            refused: read(&self.refused),
            too_often: read(&self.too_often),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EndpointOptions, Rate};
    use std::net::SocketAddr;
    use tokio::net::UdpSocket;

    /// Answers twice to `twice`, never to `silent`, panics at `panic`, and else once.
    struct Answering;

    impl DatagramService for Answering {
        async fn answer(self: Arc<Self>, datagram: Datagram) -> Result<(), ServiceError> {
            let times = match datagram.content.as_slice() {
                b"panic" => panic!("asked to"),
                b"silent" => 0,
                b"twice" => 2,
                _ => 1,
            };
            for _ in 0..times {
                datagram.reply(&datagram.content).await?;
            }
            Ok(())
        }
    }

    fn socket() -> (DatagramSocket, SocketAddr) {
        let endpoint = "udp:127.0.0.1:0".parse().expect("an endpoint");
        let socket = DatagramSocket::bind(endpoint, EndpointOptions::default()).expect("free");
        let address = socket.endpoint().socket_address().expect("of UDP");
        (socket, address)
    }

    async fn client(target: SocketAddr) -> UdpSocket {
        let client = UdpSocket::bind("127.0.0.1:0").await.expect("free");
        client.connect(target).await.expect("a target");
        client
    }

    async fn expect(client: &UdpSocket, content: &[u8]) {
        let mut buffer = vec![0; 70_000];
        let length = client.recv(&mut buffer).await.expect("receives");
        assert_eq!(&buffer[..length], content);
    }

    #[tokio::test]
    async fn a_datagram_has_as_many_answers_as_the_service_sends() {
        for concurrency in [
            Concurrency::Serial,
            Concurrency::Tasks,
            Concurrency::Threads { most: 2 },
        ] {
            let (socket, target) = socket();
            let server = DatagramServer::new(Arc::new(Answering)).with_concurrency(concurrency);
            let drain = server.drain();
            let serving = tokio::spawn(server.serve(socket));
            let client = client(target).await;
            for question in [&b"panic"[..], b"silent", b"twice"] {
                client.send(question).await.expect("sends");
            }
            expect(&client, b"twice").await;
            expect(&client, b"twice").await;
            client.send(b"").await.expect("sends");
            expect(&client, b"").await;
            drain.finish(Duration::from_secs(60)).await;
            serving.await.expect("no panic");
        }
    }

    #[tokio::test]
    async fn a_datagram_at_the_size_limit_is_answered_and_one_beyond_it_dropped_and_counted() {
        let (socket, target) = socket();
        let server = DatagramServer::new(Arc::new(Answering)).with_size_limit(1000);
        let counting = server.clone();
        tokio::spawn(server.serve(socket));
        let client = client(target).await;
        client.send(&[b'x'; 1001]).await.expect("sends");
        client.send(&[b'x'; 1000]).await.expect("sends");
        expect(&client, &[b'x'; 1000]).await;
        let expected = DatagramCounts {
            taken: 1,
            too_large: 1,
            ..DatagramCounts::default()
        };
        assert_eq!(counting.counts(), expected);
    }

    #[tokio::test]
    async fn the_largest_datagram_of_udp_is_answered_under_no_limit_to_speak_of() {
        let (socket, target) = socket();
        let server = DatagramServer::new(Arc::new(Answering)).with_size_limit(usize::MAX);
        tokio::spawn(server.serve(socket));
        let client = client(target).await;
        client.send(&[b'x'; 65_507]).await.expect("sends");
        expect(&client, &[b'x'; 65_507]).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_too_often_or_from_strangers_is_dropped_and_counted() {
        let (socket, target) = socket();
        let server = DatagramServer::new(Arc::new(Answering))
            .with_rates(RateLimits {
                total: None,
                per_peer: Some(Rate {
                    per_second: 1,
                    burst: 2,
                }),
            })
            .with_access(Arc::new(|peer: &Peer| match peer.ip() {
                Some(ip) if ip.to_string() == "127.0.0.1" => Verdict::Admit,
                _ => Verdict::Refuse,
            }));
        let stranger = UdpSocket::bind("127.0.0.2:0").await.expect("free");
        stranger.send_to(b"x", target).await.expect("sends");
        let client = client(target).await;
        for _ in 0..10 {
            client.send(b"y").await.expect("sends");
        }
        let socket = Arc::new(socket);
        server.serve_some(&socket, 2).await;
        expect(&client, b"y").await;
        expect(&client, b"y").await;
        // The other eight are there already, and no third one comes of them.
        let soon = Duration::from_millis(500);
        let third = server.serve_some(&socket, 1);
        assert!(tokio::time::timeout(soon, third).await.is_err());
        let expected = DatagramCounts {
            taken: 2,
            too_large: 0,
            refused: 1,
            too_often: 8,
        };
        assert_eq!(server.counts(), expected);
    }

    #[tokio::test]
    async fn an_answer_that_hangs_is_cut_by_the_drain_which_says_whose_it_was() {
        struct Hanging;
        impl DatagramService for Hanging {
            async fn answer(self: Arc<Self>, datagram: Datagram) -> Result<(), ServiceError> {
                datagram.reply(b"wait").await?;
                std::future::pending().await
            }
        }
        let (socket, target) = socket();
        let server = DatagramServer::new(Arc::new(Hanging));
        let drain = server.drain();
        tokio::spawn(server.serve(socket));
        let client = client(target).await;
        client.send(b"x").await.expect("sends");
        expect(&client, b"wait").await;
        let report = drain.finish(Duration::ZERO).await;
        let address = client.local_addr().expect("an address");
        assert_eq!(report.peers, [Peer::from(address)]);
    }
}
