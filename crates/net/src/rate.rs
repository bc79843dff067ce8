//! How often peers may come: so many a second on average, and so many at once.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::Peer;
use crate::limit::Origin;

/// So many a second on average.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// On average; with 0 nobody comes.
    pub per_second: u32,
    /// At once, after a quiet time; 0 counts as 1.
    pub burst: u32,
}

/// How often peers may come. Without a rate, as often as they like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateLimits {
    /// All of them together.
    pub total: Option<Rate>,
    /// Each: an IPv4 address, an IPv6 /64, or a user of this machine. Senders
    /// on a Unix datagram socket are one peer: the system does not say who they are.
    pub per_peer: Option<Rate>,
}

/// Counts who comes, in memory that does not grow.
#[derive(Debug)]
pub(crate) struct Throttle {
    limits: RateLimits,
    /// Spreads peers over the buckets as nobody outside can foretell.
    hasher: RandomState,
    // Held for one comparison, never across an await.
    buckets: Mutex<Buckets>,
}

#[derive(Debug)]
struct Buckets {
    total: Bucket,
    /// Peers share one where their hashes meet; a forged address costs no memory.
    per_peer: Box<[Bucket]>,
}

/// Peers that are told apart at least now and then.
const PEER_BUCKETS: usize = 4096;

/// One rate's state: when the next one would be due if all came evenly.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket(Option<Instant>);

impl Throttle {
    pub(crate) fn new(limits: RateLimits) -> Self {
        let peers = limits.per_peer.map_or(0, |_| PEER_BUCKETS);
        Self {
            limits,
            hasher: RandomState::new(),
            buckets: Mutex::new(Buckets {
                total: Bucket::default(),
                per_peer: vec![Bucket::default(); peers].into(),
            }),
        }
    }

    /// Whether `peer` may come now; if so, it has.
    pub(crate) fn admit(&self, peer: &Peer) -> bool {
        let RateLimits { total, per_peer } = self.limits;
        if total.is_none() && per_peer.is_none() {
            return true;
        }
        let now = Instant::now();
        let mut buckets = self.lock();
        // The peer first: one that comes too often takes nothing from the others.
        let bucket = buckets.of(self.hasher.hash_one(Origin::of(peer).network()));
        if let (Some(rate), Some(bucket)) = (per_peer, bucket)
            && !bucket.admit(rate, now)
        {
            return false;
        }
        total.is_none_or(|rate| buckets.total.admit(rate, now))
    }

    fn lock(&self) -> MutexGuard<'_, Buckets> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Buckets {
    fn of(&mut self, hash: u64) -> Option<&mut Bucket> {
        let count = u64::try_from(self.per_peer.len()).ok()?;
        let index = usize::try_from(hash.checked_rem(count)?).ok()?;
        self.per_peer.get_mut(index)
    }
}

impl Bucket {
    fn admit(&mut self, rate: Rate, now: Instant) -> bool {
        if rate.per_second == 0 {
            return false;
        }
        let period = Duration::from_secs(1) / rate.per_second;
        let due = self.0.map_or(now, |due| due.max(now));
        if due - now > period * (rate.burst.max(1) - 1) {
            return false;
        }
        self.0 = Some(due + period);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    fn peer(text: &str) -> Peer {
        text.parse::<SocketAddr>().expect("an address").into()
    }

    fn admitted(throttle: &Throttle, peer: &Peer, tries: usize) -> usize {
        (0..tries).filter(|_| throttle.admit(peer)).count()
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_admitted_at_once_and_then_so_many_a_second() {
        let throttle = Throttle::new(RateLimits {
            total: Some(Rate {
                per_second: 10,
                burst: 5,
            }),
            per_peer: None,
        });
        let peer = peer("192.0.2.1:1");
        assert_eq!(admitted(&throttle, &peer, 100), 5);
        tokio::time::advance(Duration::from_millis(99)).await;
        assert_eq!(admitted(&throttle, &peer, 100), 0);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(admitted(&throttle, &peer, 100), 1);
        tokio::time::advance(Duration::from_millis(200)).await;
        assert_eq!(admitted(&throttle, &peer, 100), 2);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(admitted(&throttle, &peer, 100), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_comes_too_often_leaves_the_others_theirs() {
        let rate = |burst| Rate {
            per_second: 1,
            burst,
        };
        let throttle = Throttle::new(RateLimits {
            total: Some(rate(10)),
            per_peer: Some(rate(2)),
        });
        // One machine has all addresses of its /64.
        let loud = [peer("[2001:db8::1]:1"), peer("[2001:db8::2]:2")];
        let count: usize = loud.iter().map(|peer| admitted(&throttle, peer, 50)).sum();
        assert_eq!(count, 2);
        // Of nine others all but those who share a bucket, which two of them hardly do.
        let others = (1..=9).map(|host| peer(&format!("192.0.2.{host}:1")));
        let count = others.filter(|peer| throttle.admit(peer)).count();
        assert!((7..=8).contains(&count), "{count}");
    }

    #[test]
    fn nobody_comes_at_a_rate_of_nought_and_everyone_without_a_rate() {
        let nought = Rate {
            per_second: 0,
            burst: 9,
        };
        let throttle = Throttle::new(RateLimits {
            total: Some(nought),
            per_peer: None,
        });
        assert!(!throttle.admit(&peer("192.0.2.1:1")));
        let throttle = Throttle::new(RateLimits::default());
        assert_eq!(admitted(&throttle, &peer("192.0.2.1:1"), 1000), 1000);
    }
}
