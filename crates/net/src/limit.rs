//! How many connections there may be: in total, from one peer, and of
//! peers that have not shown who they are. A peer is an IP address, or on a
//! Unix socket a user.
//!
//! A connection is a newcomer until its service settles it. Newcomers may fill
//! half of the places; beyond it the one that has waited longest makes room, so
//! that idle strangers, however many addresses they have, shut out nobody.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::Peer;

/// Most connections at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// In total.
    pub total: usize,
    /// From one address, or of one user of this machine.
    pub per_address: usize,
    /// Newcomers from one network: an IPv4 address, or the /64 of an IPv6
    /// address, of which one machine has every address that it likes.
    pub newcomers_per_network: usize,
}

impl Default for ConnectionLimits {
    /// A thousand connections, whoever has them.
    fn default() -> Self {
        Self::everyone(1000)
    }
}

impl ConnectionLimits {
    /// So many connections, whoever has them.
    pub fn everyone(total: usize) -> Self {
        Self {
            total,
            per_address: total,
            newcomers_per_network: total,
        }
    }
}

/// Whom connections are counted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Origin {
    Address(IpAddr),
    /// Of this machine, by number.
    User(u32),
    /// A process of this machine that the system says nothing of.
    Unknown,
}

impl Origin {
    pub(crate) fn of(peer: &Peer) -> Self {
        match (peer, peer.credentials()) {
            (Peer::Ip(address), _) => Self::Address(address.ip().to_canonical()),
            (Peer::Unix(_), Some(credentials)) => Self::User(credentials.uid),
            (Peer::Unix(_), None) => Self::Unknown,
        }
    }

    /// An IPv4 address, or the first address of an IPv6 address's /64.
    pub(crate) fn network(self) -> Self {
        match self {
            Self::Address(IpAddr::V6(v6)) => {
                let [a, b, c, d, ..] = v6.segments();
                Self::Address(IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0)))
            }
            origin => origin,
        }
    }
}

/// Counts connections; shared by all listeners of a server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ConnectionSlots {
    // The lock makes "compare the counts, then add to them" one step; it is
    // held for a few look-ups and never across an await.
    counts: Arc<Mutex<Counts>>,
}

#[derive(Debug)]
struct Counts {
    limits: ConnectionLimits,
    total: usize,
    /// Invariant: no value is 0, so the map is no larger than `total`.
    per_address: HashMap<Origin, usize>,
    /// The number of the next newcomer.
    next: u64,
    /// Newcomers by number, so the oldest is the first.
    /// Invariant: at most half of `limits.total`, as it was when the last one came.
    newcomers: BTreeMap<u64, Newcomer>,
    /// Invariant: no value is 0, and their sum is the number of newcomers.
    newcomers_per_network: HashMap<Origin, usize>,
}

#[derive(Debug)]
struct Newcomer {
    network: Origin,
    dismissed: CancellationToken,
}

impl ConnectionSlots {
    /// No connection yet.
    pub fn new(limits: ConnectionLimits) -> Self {
        let counts = Counts {
            limits,
            total: 0,
            per_address: HashMap::new(),
            next: 0,
            newcomers: BTreeMap::new(),
            newcomers_per_network: HashMap::new(),
        };
        Self {
            counts: Arc::new(Mutex::new(counts)),
        }
    }

    /// Takes a slot for a newcomer; it is given back when the
    /// slot is dropped. May dismiss the oldest newcomer to make room.
    ///
    /// # Errors
    /// [`LimitReached`] says which limit.
    pub fn take(&self, peer: &Peer) -> Result<ConnectionSlot, LimitReached> {
        let origin = Origin::of(peer);
        let network = origin.network();
        let mut counts = self.lock();
        counts.judge(origin, network)?;
        counts.make_room();
        let number = counts.next;
        counts.next += 1;
        counts.total += 1;
        *counts.per_address.entry(origin).or_insert(0) += 1;
        *counts.newcomers_per_network.entry(network).or_insert(0) += 1;
        let dismissed = CancellationToken::new();
        let newcomer = Newcomer {
            network,
            dismissed: dismissed.clone(),
        };
        counts.newcomers.insert(number, newcomer);
        drop(counts);
        Ok(ConnectionSlot {
            slots: self.clone(),
            origin,
            number,
            dismissed,
        })
    }

    /// Changes the limits; connections over them stay until they end.
    pub fn set_limits(&self, limits: ConnectionLimits) {
        self.lock().limits = limits;
    }

    /// The limits.
    pub fn limits(&self) -> ConnectionLimits {
        self.lock().limits
    }

    /// Connections now.
    pub fn total(&self) -> usize {
        self.lock().total
    }

    /// Those of them that are newcomers.
    pub fn newcomers(&self) -> usize {
        self.lock().newcomers.len()
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn judge(&self, origin: Origin, network: Origin) -> Result<(), LimitReached> {
        let of = |counts: &HashMap<Origin, usize>, key| counts.get(&key).copied().unwrap_or(0);
        if self.total >= self.limits.total {
            return Err(LimitReached::Total);
        }
        if of(&self.per_address, origin) >= self.limits.per_address {
            return Err(LimitReached::PerAddress);
        }
        if of(&self.newcomers_per_network, network) >= self.limits.newcomers_per_network {
            return Err(LimitReached::Newcomers);
        }
        Ok(())
    }

    /// Dismisses the oldest newcomers until one more is within their share.
    fn make_room(&mut self) {
        let share = (self.limits.total / 2).max(1);
        while self.newcomers.len() >= share {
            let Some(number) = self.newcomers.keys().next().copied() else {
                return;
            };
            if let Some(oldest) = self.remove_newcomer(number) {
                oldest.dismissed.cancel();
            }
        }
    }

    fn remove_newcomer(&mut self, number: u64) -> Option<Newcomer> {
        let newcomer = self.newcomers.remove(&number)?;
        count_down(&mut self.newcomers_per_network, newcomer.network);
        Some(newcomer)
    }
}

fn count_down<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: K) {
    if let Entry::Occupied(mut entry) = counts.entry(key) {
        *entry.get_mut() -= 1;
        if *entry.get() == 0 {
            entry.remove();
        }
    }
}

/// One counted connection.
#[derive(Debug)]
pub struct ConnectionSlot {
    slots: ConnectionSlots,
    origin: Origin,
    number: u64,
    dismissed: CancellationToken,
}

impl ConnectionSlot {
    /// The service knows who is there: the connection is a newcomer no more
    /// and will not be dismissed. Settling again changes nothing.
    pub fn settle(&self) {
        self.slots.lock().remove_newcomer(self.number);
    }

    /// Completes when the connection must end to make room for another; never
    /// for one that was settled before. Dropping the future is safe.
    pub fn dismissed(&self) -> impl Future<Output = ()> + Send + use<> {
        self.dismissed.clone().cancelled_owned()
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut counts = self.slots.lock();
        counts.total = counts.total.saturating_sub(1);
        count_down(&mut counts.per_address, self.origin);
        counts.remove_newcomer(self.number);
    }
}

/// Which limit refused a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LimitReached {
    /// [`ConnectionLimits::total`].
    #[error("too many connections in total")]
    Total,
    /// [`ConnectionLimits::per_address`].
    #[error("too many connections from one peer")]
    PerAddress,
    /// [`ConnectionLimits::newcomers_per_network`].
    #[error("too many connections from one network that have not shown who they are")]
    Newcomers,
    /// [`Server::with_rates`](crate::Server::with_rates).
    #[error("connections come too often")]
    Rate,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::{Credentials, UnixPeer};
    use std::task::{Context, Poll, Waker};

    fn slots(total: usize, per_address: usize, newcomers_per_network: usize) -> ConnectionSlots {
        ConnectionSlots::new(ConnectionLimits {
            total,
            per_address,
            newcomers_per_network,
        })
    }

    fn address(text: &str) -> Peer {
        peer(text.parse().expect("an address"))
    }

    fn peer(address: IpAddr) -> Peer {
        std::net::SocketAddr::new(address, 50_000).into()
    }

    fn is_dismissed(slot: &ConnectionSlot) -> bool {
        let mut dismissed = std::pin::pin!(slot.dismissed());
        dismissed
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            == Poll::Ready(())
    }

    #[test]
    fn a_slot_is_refused_at_each_limit_and_free_again_when_dropped() {
        let slots = slots(3, 2, 9);
        let [one, two] = ["127.0.0.1", "127.0.0.2"].map(address);
        let take = |peer: &Peer| {
            let slot = slots.take(peer)?;
            slot.settle();
            Ok(slot)
        };
        let first = take(&one).expect("free");
        let _second = take(&one).expect("free");
        assert_eq!(take(&one).err(), Some(LimitReached::PerAddress));
        let _third = take(&two).expect("free");
        assert_eq!(take(&two).err(), Some(LimitReached::Total));
        drop(first);
        assert!(take(&one).is_ok());
        assert_eq!(slots.total(), 2);
    }

    #[test]
    fn a_mapped_address_counts_as_its_ipv4_self() {
        let slots = slots(9, 1, 9);
        let _held = slots.take(&address("127.0.0.1")).expect("free");
        let mapped = slots.take(&address("::ffff:127.0.0.1"));
        assert_eq!(mapped.err(), Some(LimitReached::PerAddress));
    }

    #[test]
    fn a_user_of_this_machine_counts_as_one_peer() {
        let of_user = |pid, uid| {
            Peer::Unix(UnixPeer {
                credentials: Some(Credentials {
                    pid: Some(pid),
                    uid,
                    gid: 100,
                }),
                name: None,
            })
        };
        let slots = slots(9, 1, 9);
        let _held = slots.take(&of_user(1, 1000)).expect("free");
        let again = slots.take(&of_user(2, 1000));
        assert_eq!(again.err(), Some(LimitReached::PerAddress));
        assert!(slots.take(&of_user(3, 1001)).is_ok());
        assert!(slots.take(&Peer::Unix(UnixPeer::default())).is_ok());
    }

    #[test]
    fn newcomers_of_one_network_stop_at_their_cap_and_settled_ones_do_not_count() {
        let slots = slots(100, 100, 2);
        let first = slots.take(&address("2001:db8::1")).expect("free");
        let second = slots.take(&address("2001:db8::2:2")).expect("free");
        let third = slots.take(&address("2001:db8:0:0:ffff::3"));
        assert_eq!(third.err(), Some(LimitReached::Newcomers));
        let _other_network = slots.take(&address("2001:db8:0:1::1")).expect("free");
        first.settle();
        first.settle();
        let _third = slots.take(&address("2001:db8::3")).expect("free");
        drop(second);
        let _fourth = slots.take(&address("2001:db8::4")).expect("free");
        assert_eq!(
            slots.take(&address("2001:db8::5")).err(),
            Some(LimitReached::Newcomers)
        );
        assert_eq!((slots.total(), slots.newcomers()), (4, 3));
    }

    #[test]
    fn beyond_half_of_the_places_the_oldest_newcomer_makes_room() {
        let slots = slots(8, 100, 100);
        let mut strangers: Vec<ConnectionSlot> = (1..=4)
            .map(|host| slots.take(&peer([192, 0, 2, host].into())).expect("free"))
            .collect();
        assert!(strangers.iter().all(|stranger| !is_dismissed(stranger)));
        // The oldest has shown who it is, so it is the second that goes.
        strangers[0].settle();
        strangers.push(slots.take(&address("192.0.2.5")).expect("free"));
        assert!(strangers.iter().all(|stranger| !is_dismissed(stranger)));
        strangers.push(slots.take(&address("192.0.2.6")).expect("room is made"));
        let gone: Vec<bool> = strangers.iter().map(is_dismissed).collect();
        assert_eq!(gone, [false, true, false, false, false, false]);
        assert_eq!(slots.newcomers(), 4);
        drop(strangers);
        assert_eq!((slots.total(), slots.newcomers()), (0, 0));
        assert!(slots.lock().newcomers_per_network.is_empty());
    }

    #[test]
    fn five_hundred_strangers_keep_nobody_out() {
        let slots = slots(100, 100, 100);
        let mut strangers = std::collections::VecDeque::new();
        for number in 0..500_u16 {
            let [high, low] = number.to_be_bytes();
            strangers.push_back(
                slots
                    .take(&peer([198, 51, high, low].into()))
                    .expect("room"),
            );
            // Their sessions end when they are dismissed.
            strangers.retain(|stranger| !is_dismissed(stranger));
        }
        let user = slots
            .take(&address("192.0.2.1"))
            .expect("room for the user");
        user.settle();
        for number in 0..200_u8 {
            strangers.push_back(
                slots
                    .take(&peer([198, 52, 0, number].into()))
                    .expect("room"),
            );
            strangers.retain(|stranger| !is_dismissed(stranger));
        }
        assert!(!is_dismissed(&user));
    }
}
