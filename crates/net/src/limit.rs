//! How many connections there may be: in total, from one address, and of
//! peers that have not shown who they are.
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

/// Most connections at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// In total.
    pub total: usize,
    /// From one address.
    pub per_address: usize,
    /// Newcomers from one network: an IPv4 address, or the /64 of an IPv6
    /// address, of which one machine has every address that it likes.
    pub newcomers_per_network: usize,
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
    per_address: HashMap<IpAddr, usize>,
    /// The number of the next newcomer.
    next: u64,
    /// Newcomers by number, so the oldest is the first.
    /// Invariant: at most half of `limits.total`, as it was when the last one came.
    newcomers: BTreeMap<u64, Newcomer>,
    /// Invariant: no value is 0, and their sum is the number of newcomers.
    newcomers_per_network: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Newcomer {
    network: IpAddr,
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

    /// Takes a slot for a newcomer from `address`; it is given back when the
    /// slot is dropped. May dismiss the oldest newcomer to make room.
    ///
    /// # Errors
    /// [`LimitReached`] says which limit.
    pub fn take(&self, address: IpAddr) -> Result<ConnectionSlot, LimitReached> {
        let address = address.to_canonical();
        let network = network_of(address);
        let mut counts = self.lock();
        counts.judge(address, network)?;
        counts.make_room();
        let number = counts.next;
        counts.next += 1;
        counts.total += 1;
        *counts.per_address.entry(address).or_insert(0) += 1;
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
            address,
            number,
            dismissed,
        })
    }

    /// Changes the limits; connections over them stay until they end.
    pub fn set_limits(&self, limits: ConnectionLimits) {
        self.lock().limits = limits;
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
    fn judge(&self, address: IpAddr, network: IpAddr) -> Result<(), LimitReached> {
        let of = |counts: &HashMap<IpAddr, usize>, key| counts.get(&key).copied().unwrap_or(0);
        if self.total >= self.limits.total {
            return Err(LimitReached::Total);
        }
        if of(&self.per_address, address) >= self.limits.per_address {
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

/// An IPv4 address, or the first address of an IPv6 address's /64.
fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

/// One counted connection.
#[derive(Debug)]
pub struct ConnectionSlot {
    slots: ConnectionSlots,
    address: IpAddr,
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
        count_down(&mut counts.per_address, self.address);
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
    #[error("too many connections from one address")]
    PerAddress,
    /// [`ConnectionLimits::newcomers_per_network`].
    #[error("too many connections from one network that have not shown who they are")]
    Newcomers,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Context, Poll, Waker};

    fn slots(total: usize, per_address: usize, newcomers_per_network: usize) -> ConnectionSlots {
        ConnectionSlots::new(ConnectionLimits {
            total,
            per_address,
            newcomers_per_network,
        })
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
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
        let take = |address| {
            let slot = slots.take(address)?;
            slot.settle();
            Ok(slot)
        };
        let first = take(one).expect("free");
        let _second = take(one).expect("free");
        assert_eq!(take(one).err(), Some(LimitReached::PerAddress));
        let _third = take(two).expect("free");
        assert_eq!(take(two).err(), Some(LimitReached::Total));
        drop(first);
        assert!(take(one).is_ok());
        assert_eq!(slots.total(), 2);
    }

    #[test]
    fn a_mapped_address_counts_as_its_ipv4_self() {
        let slots = slots(9, 1, 9);
        let _held = slots.take(address("127.0.0.1")).expect("free");
        let mapped = slots.take(address("::ffff:127.0.0.1"));
        assert_eq!(mapped.err(), Some(LimitReached::PerAddress));
    }

    #[test]
    fn newcomers_of_one_network_stop_at_their_cap_and_settled_ones_do_not_count() {
        let slots = slots(100, 100, 2);
        let first = slots.take(address("2001:db8::1")).expect("free");
        let second = slots.take(address("2001:db8::2:2")).expect("free");
        let third = slots.take(address("2001:db8:0:0:ffff::3"));
        assert_eq!(third.err(), Some(LimitReached::Newcomers));
        let _other_network = slots.take(address("2001:db8:0:1::1")).expect("free");
        first.settle();
        first.settle();
        let _third = slots.take(address("2001:db8::3")).expect("free");
        drop(second);
        let _fourth = slots.take(address("2001:db8::4")).expect("free");
        assert_eq!(
            slots.take(address("2001:db8::5")).err(),
            Some(LimitReached::Newcomers)
        );
        assert_eq!((slots.total(), slots.newcomers()), (4, 3));
    }

    #[test]
    fn beyond_half_of_the_places_the_oldest_newcomer_makes_room() {
        let slots = slots(8, 100, 100);
        let mut strangers: Vec<ConnectionSlot> = (1..=4)
            .map(|host| slots.take(IpAddr::from([192, 0, 2, host])).expect("free"))
            .collect();
        assert!(strangers.iter().all(|stranger| !is_dismissed(stranger)));
        // The oldest has shown who it is, so it is the second that goes.
        strangers[0].settle();
        strangers.push(slots.take(address("192.0.2.5")).expect("free"));
        assert!(strangers.iter().all(|stranger| !is_dismissed(stranger)));
        strangers.push(slots.take(address("192.0.2.6")).expect("room is made"));
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
                    .take(IpAddr::from([198, 51, high, low]))
                    .expect("room"),
            );
            // Their sessions end when they are dismissed.
            strangers.retain(|stranger| !is_dismissed(stranger));
        }
        let user = slots.take(address("192.0.2.1")).expect("room for the user");
        user.settle();
        for number in 0..200_u8 {
            strangers.push_back(
                slots
                    .take(IpAddr::from([198, 52, 0, number]))
                    .expect("room"),
            );
            strangers.retain(|stranger| !is_dismissed(stranger));
        }
        assert!(!is_dismissed(&user));
    }
}
