//! How many connections there may be: in total, and from one address.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most connections at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// In total.
    pub total: usize,
    /// From one address.
    pub per_address: usize,
}

/// Counts connections; shared by all listeners of a server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ConnectionSlots {
    // The lock makes "compare both counts, then add to both" one step; it is
    // held for a hash look-up and never across an await.
    counts: Arc<Mutex<Counts>>,
}

#[derive(Debug)]
struct Counts {
    limits: ConnectionLimits,
    total: usize,
    /// Invariant: no value is 0, so the map is no larger than `total`.
    per_address: HashMap<IpAddr, usize>,
}

impl ConnectionSlots {
    /// No connection yet.
    pub fn new(limits: ConnectionLimits) -> Self {
        let counts = Counts {
            limits,
            total: 0,
            per_address: HashMap::new(),
        };
        Self {
            counts: Arc::new(Mutex::new(counts)),
        }
    }

    /// Takes a slot for a connection from `address`; it is given back when the slot is dropped.
    ///
    /// # Errors
    /// [`LimitReached`] says which limit.
    pub fn take(&self, address: IpAddr) -> Result<ConnectionSlot, LimitReached> {
        let address = address.to_canonical();
        let mut counts = self.lock();
        if counts.total >= counts.limits.total {
            return Err(LimitReached::Total);
        }
        let here = counts.per_address.get(&address).copied().unwrap_or(0);
        if here >= counts.limits.per_address {
            return Err(LimitReached::PerAddress);
        }
        counts.total += 1;
        counts.per_address.insert(address, here + 1);
        drop(counts);
        Ok(ConnectionSlot {
            slots: self.clone(),
            address,
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

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One counted connection.
#[derive(Debug)]
pub struct ConnectionSlot {
    slots: ConnectionSlots,
    address: IpAddr,
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut counts = self.slots.lock();
        counts.total = counts.total.saturating_sub(1);
        if let Entry::Occupied(mut entry) = counts.per_address.entry(self.address) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_refused_at_each_limit_and_free_again_when_dropped() {
        let slots = ConnectionSlots::new(ConnectionLimits {
            total: 3,
            per_address: 2,
        });
        let [one, two]: [IpAddr; 2] =
            ["127.0.0.1", "127.0.0.2"].map(|text| text.parse().expect("an address"));
        let first = slots.take(one).expect("free");
        let _second = slots.take(one).expect("free");
        assert_eq!(slots.take(one).err(), Some(LimitReached::PerAddress));
        let _third = slots.take(two).expect("free");
        assert_eq!(slots.take(two).err(), Some(LimitReached::Total));
        drop(first);
        assert!(slots.take(one).is_ok());
        assert_eq!(slots.total(), 2);
    }

    #[test]
    fn a_mapped_address_counts_as_its_ipv4_self() {
        let slots = ConnectionSlots::new(ConnectionLimits {
            total: 9,
            per_address: 1,
        });
        let _held = slots.take("127.0.0.1".parse().expect("v4")).expect("free");
        let mapped = "::ffff:127.0.0.1".parse().expect("v6");
        assert_eq!(slots.take(mapped).err(), Some(LimitReached::PerAddress));
    }
}
