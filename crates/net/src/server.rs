//! The server for streams: accept, admit, count, hand over, survive.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use crate::accept::{Action, Arrivals, Pacing, Ticket, Work, take_in};
use crate::access;
use crate::concurrency::{Place, Places, caught};
use crate::rate::Throttle;
use crate::stream::canonical;
use crate::{
    AccessHook, AllowAll, BindError, BoundEndpoint, Concurrency, Connection, ConnectionLimits,
    ConnectionSlots, Drain, Endpoint, Failure, LimitReached, Listener, Peer, Proxied, ProxyHeader,
    ProxyRules, RateLimits, Refused, Stream, StreamService, Verdict, read_proxy,
};

/// Serves streams: a service, and how its peers are treated. Cheap to clone.
///
/// ```
/// use std::sync::Arc;
/// use wharf_net::{Connection, EndpointOptions, Listener, Server, ServiceError, StreamService};
///
/// struct Echo;
///
/// impl StreamService for Echo {
///     async fn serve(self: Arc<Self>, mut connection: Connection) -> Result<(), ServiceError> {
///         let (mut reader, mut writer) = tokio::io::split(&mut connection.stream);
///         tokio::io::copy(&mut reader, &mut writer).await?;
///         Ok(())
///     }
/// }
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let listener = Listener::bind("tcp:127.0.0.1:0".parse()?, EndpointOptions::default())?;
/// let server = Server::new(Arc::new(Echo));
/// let drain = server.drain();
/// let serving = tokio::spawn(server.serve(listener));
/// // Until somebody wants it to end:
/// drain.finish(std::time::Duration::from_secs(5)).await;
/// serving.await?;
/// # Ok(())
/// # }
/// ```
pub struct Server<S> {
    service: Arc<S>,
    access: Arc<dyn AccessHook>,
    slots: ConnectionSlots,
    newcomers: bool,
    rates: Arc<Throttle>,
    refusing: Refusing,
    /// Bounds peers that are being told that they are not served.
    telling: Arc<Semaphore>,
    places: Places,
    drain: Drain,
    deadline: Option<Duration>,
    action: Option<Action>,
    proxy: Option<Arc<ProxyGate>>,
}

/// What a peer that is not served gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Refusing {
    /// What [`StreamService::refuse`] says, then the end; just the end while
    /// 256 others are being told.
    #[default]
    Told,
    /// The end.
    Dropped,
}

/// The way in for what comes through proxies.
struct ProxyGate {
    rules: ProxyRules,
    /// Bounds connections whose header has not come.
    pending: Arc<Semaphore>,
}

/// Peers that are told at one time that they are not served: each has a
/// descriptor, for a second at most.
const MOST_TOLD_AT_ONCE: usize = 256;

/// Connections whose PROXY header has not come. Proxies are few and send it at once.
const MAX_PENDING_HEADERS: usize = 1024;

impl<S> Clone for Server<S> {
    fn clone(&self) -> Self {
        Self {
            service: Arc::clone(&self.service),
            access: Arc::clone(&self.access),
            slots: self.slots.clone(),
            newcomers: self.newcomers,
            rates: Arc::clone(&self.rates),
            refusing: self.refusing,
            telling: Arc::clone(&self.telling),
            places: self.places.clone(),
            drain: self.drain.clone(),
            deadline: self.deadline,
            action: self.action.clone(),
            proxy: self.proxy.clone(),
        }
    }
}

impl<S: StreamService> Server<S> {
    /// A server for everyone, with tasks, a thousand connections, and a drain of its own.
    pub fn new(service: Arc<S>) -> Self {
        Self {
            service,
            access: Arc::new(AllowAll),
            slots: ConnectionSlots::new(ConnectionLimits::default()),
            newcomers: false,
            rates: Arc::new(Throttle::new(RateLimits::default())),
            refusing: Refusing::default(),
            telling: Arc::new(Semaphore::new(MOST_TOLD_AT_ONCE)),
            places: Concurrency::default().into(),
            drain: Drain::new(),
            deadline: None,
            action: None,
            proxy: None,
        }
    }

    /// Judges each peer before anything of the service is read.
    #[must_use]
    pub fn with_access(mut self, access: Arc<dyn AccessHook>) -> Self {
        self.access = access;
        self
    }

    /// Counts connections; servers with the same slots have their limits in common.
    #[must_use]
    pub fn with_slots(mut self, slots: ConnectionSlots) -> Self {
        self.slots = slots;
        self
    }

    /// Has connections count as newcomers until their service settles their
    /// slot; without this, they are settled from the start.
    #[must_use]
    pub fn with_newcomers(mut self) -> Self {
        self.newcomers = true;
        self
    }

    /// Bounds how often connections may come.
    #[must_use]
    pub fn with_rates(mut self, rates: RateLimits) -> Self {
        self.rates = Arc::new(Throttle::new(rates));
        self
    }

    /// Chooses what a peer that is not served gets.
    #[must_use]
    pub fn refusing(mut self, refusing: Refusing) -> Self {
        self.refusing = refusing;
        self
    }

    /// Chooses how connections are served beside each other.
    #[must_use]
    pub fn with_concurrency(mut self, concurrency: Concurrency) -> Self {
        self.places = concurrency.into();
        self
    }

    /// Ends with `drain`, which may end other servers too.
    #[must_use]
    pub fn with_drain(mut self, drain: Drain) -> Self {
        self.drain = drain;
        self
    }

    /// Ends each connection at the latest so long after it was admitted.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Calls `act` once a `period`, of a millisecond at least, while the server
    /// accepts. It runs on the accept loop: it must not block. A panic goes to the log.
    #[must_use]
    pub fn with_action(mut self, period: Duration, act: impl Fn() + Send + Sync + 'static) -> Self {
        self.action = Some(Action {
            period,
            act: Arc::new(act),
        });
        self
    }

    /// Serves only what comes through proxies that send a PROXY header first.
    #[must_use]
    pub fn behind_proxies(mut self, rules: ProxyRules) -> Self {
        self.proxy = Some(Arc::new(ProxyGate {
            rules,
            pending: Arc::new(Semaphore::new(MAX_PENDING_HEADERS)),
        }));
        self
    }

    /// The server's end.
    pub fn drain(&self) -> Drain {
        self.drain.clone()
    }

    /// The server's count of connections.
    pub fn slots(&self) -> ConnectionSlots {
        self.slots.clone()
    }

    /// Accepts until the drain begins. Connections are tasks of the drain's:
    /// they may outlast this future, and dropping it leaves them running.
    ///
    /// An error of `accept(2)` never ends the loop: what concerns one peer is
    /// passed over, and what the whole machine lacks (descriptors, memory) is
    /// waited for, from 10 ms doubling to 1 s.
    pub async fn serve(self, listener: Listener) {
        self.take_in(&listener, None).await;
    }

    /// Serves in a task of its own, which ends when the drain begins. Must be
    /// called within a tokio runtime.
    ///
    /// # Errors
    /// [`BindError`], which names the endpoint: it is for datagrams, or the runtime cannot watch it.
    pub fn start(self, bound: BoundEndpoint) -> Result<JoinHandle<()>, BindError> {
        let listener = bound.listener()?;
        Ok(tokio::spawn(self.serve(listener)))
    }

    /// Serves `count` connections to their ends, or until the drain begins.
    /// Peers that are refused do not count. Dropping the future stops
    /// accepting and leaves connections running.
    pub async fn serve_some(&self, listener: &Listener, count: usize) {
        self.take_in(listener, Some(count)).await;
    }

    async fn take_in(&self, listener: &Listener, count: Option<usize>) {
        let mut connections = Connections {
            listener,
            pacing: Pacing::new(self.places.clone()),
        };
        let action = self.action.as_ref();
        take_in(
            &mut connections,
            count,
            action,
            &self.drain,
            |arrival, ticket| {
                self.welcome(Arrival { ticket, ..arrival });
            },
        )
        .await;
    }

    /// Takes in what was accepted: through the proxy's header, where there is one.
    fn welcome(&self, arrival: Arrival) {
        let Some(gate) = &self.proxy else {
            return self.admit(arrival);
        };
        let peer = &arrival.peer;
        if !gate.rules.trusts(peer) {
            tracing::warn!(%peer, "connection refused: not from a proxy that is trusted");
            return self.refuse(arrival, Refused::Access);
        }
        let Ok(pending) = Arc::clone(&gate.pending).try_acquire_owned() else {
            tracing::warn!(%peer, "connection closed: too many PROXY headers have not come");
            return;
        };
        let server = self.clone();
        let deadline = gate.rules.deadline;
        self.drain.track(async move {
            tokio::select! {
                biased;
                // Whoever is announced now comes too late.
                () = server.drain.begun() => {}
                arrival = announced(arrival, deadline, pending) => {
                    if let Some(arrival) = arrival {
                        server.admit(arrival);
                    }
                }
            }
        });
    }

    /// Serves the peer, if the access hook and the limits let it in.
    fn admit(&self, arrival: Arrival) {
        let peer = &arrival.peer;
        let refused = match access::verdict(&*self.access, peer) {
            Verdict::Admit => None,
            Verdict::Refuse => Some(Refused::Access),
            Verdict::RefuseForNow => Some(Refused::AccessForNow),
        };
        if let Some(reason) = refused {
            let for_now = reason == Refused::AccessForNow;
            tracing::info!(%peer, for_now, "connection refused by the access rules");
            return self.refuse(arrival, reason);
        }
        if !self.rates.admit(peer) {
            tracing::warn!(%peer, "connection refused: they come too often");
            return self.refuse(arrival, Refused::Limit(LimitReached::Rate));
        }
        match self.slots.take(peer) {
            Ok(slot) => self.launch(arrival, slot),
            Err(limit) => {
                tracing::warn!(%peer, %limit, "connection refused");
                self.refuse(arrival, Refused::Limit(limit));
            }
        }
    }

    fn launch(&self, arrival: Arrival, slot: crate::ConnectionSlot) {
        let Arrival {
            stream,
            peer,
            local,
            proxy,
            place,
            ticket,
        } = arrival;
        if !self.newcomers {
            slot.settle();
        }
        let dismissed = self.newcomers.then(|| slot.dismissed());
        let connection = Connection {
            stream,
            peer: peer.clone(),
            local,
            proxy,
            drain: self.drain.clone(),
            slot,
        };
        let service = Arc::clone(&self.service);
        let serving = Arc::clone(&service);
        let seen = peer.clone();
        let work = Work {
            peer,
            serving: Box::pin(async move {
                tokio::select! {
                    biased;
                    () = when(dismissed) => {
                        tracing::info!(peer = %seen, "connection closed in favour of a newer one");
                        Ok(())
                    }
                    end = serving.serve(connection) => end,
                }
            }),
            failed: move |peer: &Peer, failure: &Failure| service.failed(peer, failure),
            deadline: self.deadline,
            place,
            ticket,
        };
        work.launch(self.places.clone(), &self.drain);
    }

    /// Tells a peer in a task of its own, so that one that does not read cannot hold up the loop.
    fn refuse(&self, arrival: Arrival, reason: Refused) {
        const PATIENCE: Duration = Duration::from_secs(1);
        if self.refusing == Refusing::Dropped {
            return;
        }
        let Ok(telling) = Arc::clone(&self.telling).try_acquire_owned() else {
            return;
        };
        let service = Arc::clone(&self.service);
        self.drain.track(async move {
            let _telling = telling;
            let telling = caught(service.refuse(arrival.stream, reason));
            let _ = tokio::time::timeout(PATIENCE, telling).await;
        });
    }
}

/// When `event` happens, if it can at all.
async fn when(event: Option<impl Future<Output = ()>>) {
    match event {
        Some(event) => event.await,
        None => std::future::pending().await,
    }
}

/// A connection on its way in.
struct Arrival {
    stream: Stream,
    peer: Peer,
    local: Endpoint,
    proxy: Option<Proxied>,
    place: Place,
    ticket: Option<Ticket>,
}

/// The arrival as its PROXY header announces it.
async fn announced(
    mut arrival: Arrival,
    deadline: Duration,
    _pending: OwnedSemaphorePermit,
) -> Option<Arrival> {
    let peer = &arrival.peer;
    match tokio::time::timeout(deadline, read_proxy(&mut arrival.stream)).await {
        Ok(Ok(ProxyHeader::Own)) => {}
        Ok(Ok(ProxyHeader::Announced {
            source,
            destination,
        })) => {
            let by = std::mem::replace(&mut arrival.peer, source.into());
            let destination = canonical(destination);
            arrival.proxy = Some(Proxied { by, destination });
        }
        Ok(Err(error)) => {
            tracing::warn!(%peer, %error, "connection closed: no PROXY header can be read");
            return None;
        }
        Err(_) => {
            tracing::warn!(%peer, ?deadline, "connection closed: no PROXY header has come");
            return None;
        }
    }
    Some(arrival)
}

/// What comes over a listener.
struct Connections<'a> {
    listener: &'a Listener,
    pacing: Pacing,
}

impl Arrivals for Connections<'_> {
    type Item = Arrival;

    async fn next(&mut self) -> Arrival {
        loop {
            self.pacing.ready().await;
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    self.pacing.succeeded();
                    // The peer may be gone already.
                    let Some(local) = local_end(&stream, self.listener) else {
                        continue;
                    };
                    leave_urgent_bytes_inline(&stream);
                    return Arrival {
                        stream,
                        peer,
                        local,
                        proxy: None,
                        place: self.pacing.take_place(),
                        ticket: None,
                    };
                }
                Err(error) => self.pacing.failed(&error, self.listener.endpoint()),
            }
        }
    }
}

fn local_end(stream: &Stream, listener: &Listener) -> Option<Endpoint> {
    match stream.as_plain_socket() {
        Some(socket) => socket.local_addr().ok().map(canonical).map(Endpoint::Tcp),
        None => Some(listener.endpoint().clone()),
    }
}

/// Urgent bytes stay where they were sent; a service that reads on past their
/// mark ([`Stream::read_at_once`]) sees one stream.
fn leave_urgent_bytes_inline(stream: &Stream) {
    if let Some(socket) = stream.as_tcp() {
        let _ = socket.set_out_of_band_inline(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EndpointOptions, Rate, ServiceError};
    use std::io;
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::mpsc;
    use tokio::time::Instant;

    /// Echoes, and says `full` to those it cannot serve.
    struct Echo;

    impl StreamService for Echo {
        async fn serve(self: Arc<Self>, mut connection: Connection) -> Result<(), ServiceError> {
            let (mut reader, mut writer) = tokio::io::split(&mut connection.stream);
            tokio::io::copy(&mut reader, &mut writer).await?;
            Ok(())
        }

        async fn refuse(&self, mut stream: Stream, _reason: Refused) {
            let _ = stream.write_all(b"full").await;
        }
    }

    fn listen(endpoint: &str) -> Listener {
        let endpoint = endpoint.parse().expect("an endpoint");
        Listener::bind(endpoint, EndpointOptions::default()).expect("free")
    }

    fn slots(per_address: usize) -> ConnectionSlots {
        ConnectionSlots::new(ConnectionLimits {
            total: 10,
            per_address,
            newcomers_per_network: per_address,
        })
    }

    fn start<S: StreamService>(endpoint: &str, server: Server<S>) -> Endpoint {
        let listener = listen(endpoint);
        let endpoint = listener.endpoint().clone();
        tokio::spawn(server.serve(listener));
        endpoint
    }

    async fn echoes(stream: &mut Stream) {
        stream.write_all(b"x").await.expect("writes");
        assert_eq!(stream.read_u8().await.expect("is echoed"), b'x');
    }

    async fn connect(endpoint: &Endpoint) -> Stream {
        Stream::connect(endpoint).await.expect("connects")
    }

    async fn told(mut stream: Stream) -> String {
        let mut told = String::new();
        stream.read_to_string(&mut told).await.expect("reads");
        told
    }

    #[tokio::test]
    async fn a_peer_over_the_limit_is_told_and_the_others_are_served() {
        let server = Server::new(Arc::new(Echo)).with_slots(slots(1));
        let endpoint = start("tcp:127.0.0.1:0", server);
        let mut first = connect(&endpoint).await;
        echoes(&mut first).await;
        assert_eq!(told(connect(&endpoint).await).await, "full");
        echoes(&mut first).await;
    }

    #[tokio::test]
    async fn a_peer_over_the_limit_is_dropped_where_that_is_chosen() {
        let server = Server::new(Arc::new(Echo))
            .with_slots(slots(1))
            .refusing(Refusing::Dropped);
        let endpoint = start("tcp:127.0.0.1:0", server);
        let mut first = connect(&endpoint).await;
        echoes(&mut first).await;
        assert_eq!(told(connect(&endpoint).await).await, "");
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_are_told_at_once_as_there_is_room_for_and_the_others_dropped() {
        /// Says `no` and holds on.
        struct Slow;
        impl StreamService for Slow {
            async fn serve(self: Arc<Self>, _connection: Connection) -> Result<(), ServiceError> {
                Ok(())
            }

            async fn refuse(&self, mut stream: Stream, _reason: Refused) {
                let _ = stream.write_all(b"no").await;
                std::future::pending::<()>().await;
            }
        }
        let mut server =
            Server::new(Arc::new(Slow)).with_access(Arc::new(|_: &Peer| Verdict::Refuse));
        server.telling = Arc::new(Semaphore::new(2));
        let telling = Arc::clone(&server.telling);
        let endpoint = start("tcp:127.0.0.1:0", server);
        let mut peers = Vec::new();
        for told in [2, 2, 0] {
            let mut peer = connect(&endpoint).await;
            let length = peer.read(&mut [0; 2]).await.expect("reads");
            assert_eq!(length, told);
            peers.push(peer);
        }
        let started = Instant::now();
        let _room = telling.acquire_many(2).await.expect("open");
        assert!(started.elapsed() <= Duration::from_secs(1));
    }

    #[tokio::test]
    async fn a_hook_that_panics_refuses_its_peer_and_the_next_one_is_served() {
        let judged = AtomicUsize::new(0);
        let hook = move |_: &Peer| {
            assert!(judged.fetch_add(1, Ordering::Relaxed) > 0, "asked to");
            Verdict::Admit
        };
        let server = Server::new(Arc::new(Echo)).with_access(Arc::new(hook));
        let endpoint = start("tcp:127.0.0.1:0", server);
        assert_eq!(told(connect(&endpoint).await).await, "full");
        echoes(&mut connect(&endpoint).await).await;
    }

    #[tokio::test]
    async fn an_action_that_panics_or_is_always_due_keeps_nobody_out() {
        for period in [Duration::ZERO, Duration::MAX] {
            let (acted, mut acts) = mpsc::unbounded_channel();
            let act = move || {
                acted.send(()).expect("awaited");
                panic!("asked to");
            };
            let server = Server::new(Arc::new(Echo)).with_action(period, act);
            let endpoint = start("tcp:127.0.0.1:0", server);
            let times = if period.is_zero() { 3 } else { 0 };
            for _ in 0..times {
                acts.recv().await.expect("acts");
            }
            echoes(&mut connect(&endpoint).await).await;
        }
    }

    #[tokio::test]
    async fn who_is_announced_after_the_drain_has_begun_is_not_served() {
        let server = behind("127.0.0.0/8");
        let drain = server.drain();
        let endpoint = start("tcp:127.0.0.1:0", server);
        let stream = connect(&endpoint).await;
        while drain.running() == 0 {
            tokio::task::yield_now().await;
        }
        drain.begin();
        let report = drain.finish(Duration::MAX).await;
        assert_eq!(report.waiting, 0);
        assert_eq!(told(stream).await, "");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_connects_too_often_is_told_until_it_has_waited() {
        let rate = Rate {
            per_second: 1,
            burst: 2,
        };
        let server = Server::new(Arc::new(Echo)).with_rates(RateLimits {
            total: None,
            per_peer: Some(rate),
        });
        let endpoint = start("tcp:127.0.0.1:0", server);
        for _ in 0..2 {
            echoes(&mut connect(&endpoint).await).await;
        }
        assert_eq!(told(connect(&endpoint).await).await, "full");
        tokio::time::sleep(Duration::from_secs(1)).await;
        echoes(&mut connect(&endpoint).await).await;
    }

    #[tokio::test]
    async fn a_serial_server_serves_the_next_one_when_the_first_has_left() {
        let server = Server::new(Arc::new(Echo)).with_concurrency(Concurrency::Serial);
        let slots = server.slots();
        let endpoint = start("tcp:127.0.0.1:0", server);
        let mut first = connect(&endpoint).await;
        echoes(&mut first).await;
        let mut second = connect(&endpoint).await;
        second.write_all(b"y").await.expect("writes");
        // It waits in the kernel's queue while the first is served.
        for _ in 0..10 {
            echoes(&mut first).await;
        }
        assert_eq!(slots.total(), 1);
        drop(first);
        assert_eq!(second.read_u8().await.expect("is echoed"), b'y');
    }

    #[tokio::test]
    async fn the_oldest_newcomer_is_closed_in_favour_of_the_next() {
        // Ten places, so five newcomers.
        let server = Server::new(Arc::new(Echo))
            .with_slots(slots(10))
            .with_newcomers();
        let endpoint = start("tcp:127.0.0.1:0", server);
        let mut peers = Vec::new();
        for _ in 0..6 {
            let mut peer = connect(&endpoint).await;
            echoes(&mut peer).await;
            peers.push(peer);
        }
        assert_eq!(peers[0].read(&mut [0]).await.ok(), Some(0));
        for peer in &mut peers[1..] {
            echoes(peer).await;
        }
    }

    #[tokio::test]
    async fn without_newcomers_all_places_are_for_everyone() {
        let server = Server::new(Arc::new(Echo)).with_slots(slots(10));
        let endpoint = start("tcp:127.0.0.1:0", server);
        let mut peers = Vec::new();
        for _ in 0..10 {
            peers.push(connect(&endpoint).await);
        }
        for peer in &mut peers {
            echoes(peer).await;
        }
        assert_eq!(told(connect(&endpoint).await).await, "full");
    }

    #[tokio::test]
    async fn both_families_are_served_on_one_dual_stack_endpoint() {
        let endpoint = start("tcp:[::]:0", Server::new(Arc::new(Echo)));
        let port = endpoint.socket_address().expect("of TCP").port();
        for host in ["127.0.0.1", "::1"] {
            let target = SocketAddr::new(host.parse().expect("an address"), port);
            echoes(&mut connect(&Endpoint::Tcp(target)).await).await;
        }
    }

    #[tokio::test]
    async fn a_server_for_ipv6_alone_leaves_the_port_of_ipv4() {
        let options = EndpointOptions {
            only_v6: true,
            ..EndpointOptions::default()
        };
        let endpoint = "tcp:[::]:0".parse().expect("an endpoint");
        let listener = Listener::bind(endpoint, options).expect("free");
        let port = listener.local_address().expect("of TCP").port();
        let v4 = TcpStream::connect(("127.0.0.1", port)).await;
        assert_eq!(
            v4.expect_err("nobody is there").kind(),
            io::ErrorKind::ConnectionRefused
        );
    }

    #[tokio::test]
    async fn draining_refuses_new_connections_and_cuts_old_ones_at_the_deadline() {
        let server = Server::new(Arc::new(Echo));
        let drain = server.drain();
        let endpoint = start("tcp:127.0.0.1:0", server);
        let mut peer = TcpStream::connect(endpoint.socket_address().expect("of TCP"))
            .await
            .expect("connects");
        peer.write_all(b"x").await.expect("writes");
        assert_eq!(peer.read_u8().await.expect("is echoed"), b'x');
        let report = drain.finish(Duration::ZERO).await;
        assert_eq!(report.cut, 1);
        let ours = peer.local_addr().expect("an address");
        assert_eq!(report.peers, [Peer::from(ours)]);
        assert_eq!(peer.read(&mut [0]).await.ok(), Some(0));
    }

    /// Says goodbye when the drain begins, or does not hear it.
    struct Guest;

    impl StreamService for Guest {
        async fn serve(self: Arc<Self>, mut connection: Connection) -> Result<(), ServiceError> {
            let polite = connection.stream.read_u8().await? == b'p';
            connection.stream.write_all(b"served").await?;
            connection.drain.begun().await;
            if !polite {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
            Ok(connection.stream.write_all(b", goodbye").await?)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn draining_waits_for_those_who_finish_and_names_whom_it_cut_at_the_deadline() {
        let server = Server::new(Arc::new(Guest));
        let drain = server.drain();
        let endpoint = start("tcp:127.0.0.1:0", server);
        let address = endpoint.socket_address().expect("of TCP");
        let mut guests = Vec::new();
        for word in [b"p", b"i"] {
            let mut guest = TcpStream::connect(address).await.expect("connects");
            guest.write_all(word).await.expect("writes");
            let mut answer = [0; 6];
            guest.read_exact(&mut answer).await.expect("is served");
            guests.push(guest);
        }
        let rude = Peer::from(guests[1].local_addr().expect("an address"));
        let started = Instant::now();
        let report = drain.finish(Duration::from_secs(30)).await;
        assert_eq!(started.elapsed().as_secs(), 30);
        assert_eq!((report.cut, report.peers), (1, vec![rude]));
        for (mut guest, last) in guests.into_iter().zip([", goodbye", ""]) {
            let mut told = String::new();
            guest.read_to_string(&mut told).await.expect("reads");
            assert_eq!(told, last);
        }
        let refused = TcpStream::connect(address).await;
        assert_eq!(
            refused.expect_err("nobody is there").kind(),
            io::ErrorKind::ConnectionRefused
        );
    }

    #[tokio::test]
    async fn as_many_connections_as_asked_for_are_served_to_their_ends() {
        for endpoint in ["tcp:127.0.0.1:0", "unix:@wharf-net-serve-some"] {
            let listener = listen(endpoint);
            let target = listener.endpoint().clone();
            let server = Server::new(Arc::new(Echo)).with_access(Arc::new(refuse_second()));
            let serving = tokio::spawn(async move {
                server.serve_some(&listener, 2).await;
                listener
            });
            let mut first = connect(&target).await;
            echoes(&mut first).await;
            // Refused, so it does not count.
            assert_eq!(told(connect(&target).await).await, "full");
            let mut third = connect(&target).await;
            echoes(&mut third).await;
            assert!(!serving.is_finished());
            drop((first, third));
            let listener = serving.await.expect("no panic");
            // Nobody accepts a fourth, who waits in the kernel's queue.
            let _fourth = connect(&target).await;
            drop(listener);
        }
    }

    fn refuse_second() -> impl Fn(&Peer) -> Verdict {
        let count = AtomicUsize::new(0);
        move |_: &Peer| match count.fetch_add(1, Ordering::Relaxed) {
            1 => Verdict::Refuse,
            _ => Verdict::Admit,
        }
    }

    /// Fails as the peer asks, and tells the failures.
    struct Failing(mpsc::UnboundedSender<String>);

    impl StreamService for Failing {
        async fn serve(self: Arc<Self>, mut connection: Connection) -> Result<(), ServiceError> {
            match connection.stream.read_u8().await? {
                b'p' => panic!("asked to"),
                b'e' => Err("an error".into()),
                _ => std::future::pending().await,
            }
        }

        fn failed(&self, _peer: &Peer, failure: &Failure) {
            self.0.send(failure.to_string()).expect("is awaited");
        }
    }

    #[tokio::test]
    async fn a_failure_ends_its_own_connection_and_is_told_to_the_service() {
        for concurrency in [Concurrency::Tasks, Concurrency::Threads { most: 9 }] {
            let (failing, mut failures) = mpsc::unbounded_channel();
            let server = Server::new(Arc::new(Failing(failing)))
                .with_concurrency(concurrency)
                .with_deadline(Duration::from_millis(200));
            let endpoint = start("tcp:127.0.0.1:0", server);
            for (asked, expected) in [
                (b"p", "the service panicked: asked to"),
                (b"e", "the service ended with an error: an error"),
                (b"d", "the service took longer than 200ms"),
            ] {
                let mut stream = connect(&endpoint).await;
                stream.write_all(asked).await.expect("writes");
                assert_eq!(told(stream).await, "");
                assert_eq!(failures.recv().await.as_deref(), Some(expected));
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_action_is_called_once_a_period_while_the_server_accepts() {
        let count = Arc::new(AtomicUsize::new(0));
        let counting = Arc::clone(&count);
        let server = Server::new(Arc::new(Echo)).with_action(Duration::from_secs(10), move || {
            counting.fetch_add(1, Ordering::Relaxed);
        });
        let drain = server.drain();
        start("tcp:127.0.0.1:0", server);
        tokio::time::sleep(Duration::from_secs(35)).await;
        assert_eq!(count.load(Ordering::Relaxed), 3);
        drain.begin();
        tokio::time::sleep(Duration::from_secs(35)).await;
        assert_eq!(count.load(Ordering::Relaxed), 3);
    }

    /// Says who it sees, and through whom.
    struct WhoAmI;

    impl StreamService for WhoAmI {
        async fn serve(self: Arc<Self>, mut connection: Connection) -> Result<(), ServiceError> {
            let Connection { peer, proxy, .. } = &connection;
            let to = proxy.as_ref().map(|proxy| proxy.destination);
            let text = format!("{} {to:?} ", peer.ip().expect("of TCP"));
            connection.stream.write_all(text.as_bytes()).await?;
            let mut rest = [0; 4];
            connection.stream.read_exact(&mut rest).await?;
            connection.stream.write_all(&rest).await?;
            Ok(())
        }

        async fn refuse(&self, mut stream: Stream, reason: Refused) {
            let _ = stream.write_all(format!("{reason:?}").as_bytes()).await;
        }
    }

    fn behind(proxies: &str) -> Server<WhoAmI> {
        let rules = ProxyRules::new(vec![proxies.parse().expect("a network")]);
        let deny = vec!["203.0.113.0/24".parse().expect("a network")];
        Server::new(Arc::new(WhoAmI))
            .behind_proxies(rules)
            .with_access(Arc::new(crate::AddressRules {
                allow: Vec::new(),
                deny,
            }))
    }

    #[tokio::test]
    async fn behind_a_proxy_the_peer_is_the_one_that_it_announces() {
        let endpoint = start("tcp:127.0.0.1:0", behind("127.0.0.0/8"));
        for (header, expected) in [
            (
                "PROXY TCP4 192.0.2.7 198.51.100.2 50000 21\r\nUSER",
                "192.0.2.7 Some(198.51.100.2:21) USER",
            ),
            ("PROXY UNKNOWN\r\nUSER", "127.0.0.1 None USER"),
            // Access hook and limits judge whom it announces.
            ("PROXY TCP4 203.0.113.7 198.51.100.2 50000 21\r\n", "Access"),
        ] {
            let mut stream = connect(&endpoint).await;
            stream.write_all(header.as_bytes()).await.expect("writes");
            assert_eq!(told(stream).await, expected);
        }
    }

    #[tokio::test]
    async fn a_proxy_that_sends_something_else_is_closed_and_nobody_else_may_send_a_header() {
        let endpoint = start("tcp:127.0.0.1:0", behind("127.0.0.0/8"));
        let mut stream = connect(&endpoint).await;
        stream.write_all(b"U").await.expect("writes");
        assert_eq!(told(stream).await, "");

        let endpoint = start("tcp:127.0.0.1:0", behind("192.0.2.0/24"));
        assert_eq!(told(connect(&endpoint).await).await, "Access");
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxy_that_sends_no_header_is_closed_at_the_deadline() {
        let endpoint = start("tcp:127.0.0.1:0", behind("127.0.0.0/8"));
        let started = Instant::now();
        assert_eq!(told(connect(&endpoint).await).await, "");
        assert_eq!(started.elapsed().as_secs(), 5);
    }
}
