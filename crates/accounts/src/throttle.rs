//! What failed logins cost: growing delays, then a ban of the address. Pure:
//! the time comes in, and nothing waits.
//!
//! Failures count for the network that they come from and for the name that
//! was tried. Only the network can be banned, so that nobody can lock the owner
//! of an account out of it; failures on a name merely slow down the answers to
//! networks from which the account was not opened lately.
//!
//! Invariant: everything that is remembered has a fixed maximum; beyond it the
//! oldest is forgotten.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use wharf_model::NetworkSet;

/// Most networks, names and pairs of both that are remembered, each.
const MAX_REMEMBERED: usize = 16 * 1024;

/// Most bans at one time, in memory and in a store.
pub(crate) const MAX_BANS: usize = 10_000;

/// How long after a successful login failures of others do not slow down its network.
const KNOWN_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long after its end a ban makes the next one longer.
const BAN_REMEMBERED_FOR: Duration = Duration::from_secs(24 * 3600);

/// Failures whose answer is not delayed: slips of the finger.
const FREE_FAILURES: u32 = 2;

/// Failures on one name that are remembered: with as many, a delay that started
/// at a second is longer than any that makes sense.
const DELAYS_GROW_UP_TO: usize = 16;

/// What holds for failed logins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThrottleRules {
    /// Failures from one network within `window` that make a ban; 0 for never.
    /// At most [`ThrottleRules::MOST_FAILURES`].
    pub max_failures: u32,
    /// How long a failure counts.
    pub window: Duration,
    /// How long the first ban lasts; each one soon after another lasts twice as long.
    pub ban: Duration,
    /// How long a ban lasts at most.
    pub longest_ban: Duration,
    /// How long an answer is delayed at most.
    pub longest_delay: Duration,
    /// Never delayed or banned.
    pub exempt: NetworkSet,
}

impl ThrottleRules {
    /// The largest `max_failures`: each failure is remembered.
    pub const MOST_FAILURES: u32 = 1000;

    /// The delay of the answer to the failure number `failures`: nothing, nothing, 1 s, 2 s, 4 s …
    fn delay(&self, failures: usize) -> Duration {
        let failures = u32::try_from(failures).unwrap_or(u32::MAX);
        let Some(doublings) = failures.checked_sub(FREE_FAILURES + 1) else {
            return Duration::ZERO;
        };
        doubled(Duration::from_secs(1), doublings).min(self.longest_delay)
    }
}

/// Remembers failed logins and bans.
#[derive(Debug)]
pub struct Throttle {
    rules: ThrottleRules,
    /// Turns names into numbers, so that a long name costs no more memory than a short one.
    names: RandomState,
    peers: Remembered<PeerNetwork, VecDeque<Failure>>,
    accounts: Remembered<NameNumber, VecDeque<SystemTime>>,
    known: Remembered<(PeerNetwork, NameNumber), SystemTime>,
    bans: HashMap<PeerNetwork, Ban>,
    /// Those of them that are not in the store yet.
    unsaved: HashMap<PeerNetwork, Ban>,
}

type NameNumber = u64;

#[derive(Debug, Clone, Copy)]
struct Failure {
    at: SystemTime,
    name: NameNumber,
}

impl Throttle {
    /// Nothing has happened yet.
    pub fn new(rules: ThrottleRules) -> Self {
        Self {
            rules,
            names: RandomState::new(),
            peers: Remembered::new(MAX_REMEMBERED),
            accounts: Remembered::new(MAX_REMEMBERED),
            known: Remembered::new(MAX_REMEMBERED),
            bans: HashMap::new(),
            unsaved: HashMap::new(),
        }
    }

    /// Uses other rules from now on; bans stay as long as they were given.
    pub fn set_rules(&mut self, rules: ThrottleRules) {
        self.rules = rules;
    }

    /// Until when `address` is banned, if it is.
    pub fn banned_until(&self, address: IpAddr, now: SystemTime) -> Option<SystemTime> {
        let ban = self.bans.get(&PeerNetwork::of(address))?;
        (ban.until > now && !self.rules.exempt.contains(address)).then_some(ban.until)
    }

    /// A login as `name`, whether there is such an account or not, has failed:
    /// the delay of the answer. Bans the network when this was one too many.
    pub fn failed(&mut self, address: IpAddr, name: &[u8], now: SystemTime) -> Duration {
        if self.rules.exempt.contains(address) {
            return Duration::ZERO;
        }
        if self.banned_until(address, now).is_some() {
            return self.rules.longest_delay;
        }
        let network = PeerNetwork::of(address);
        let name = self.names.hash_one(name);
        let on_account = self.failed_on_account(network, name, now);
        let from_peer = self.failed_from_peer(network, name, now);
        self.rules.delay(from_peer.max(on_account))
    }

    /// A login as `name` has succeeded: its network's failures on this name
    /// were slips. Those on other names still count, so that an account of
    /// one's own does not buy guesses at others.
    pub fn succeeded(&mut self, address: IpAddr, name: &[u8], now: SystemTime) {
        let network = PeerNetwork::of(address);
        let name = self.names.hash_one(name);
        self.known.insert((network, name), now);
        if let Some(failures) = self.peers.get_mut(&network) {
            failures.retain(|failure| failure.name != name);
            if failures.is_empty() {
                self.peers.remove(&network);
            }
        }
    }

    /// How many failures count for the account where this one comes from: none, if it is known there.
    fn failed_on_account(
        &mut self,
        network: PeerNetwork,
        name: NameNumber,
        now: SystemTime,
    ) -> usize {
        let known = self.known.get(&(network, name));
        if known.is_some_and(|since| !is_over(*since, KNOWN_FOR, now)) {
            return 0;
        }
        let window = self.rules.window;
        let failures = self.accounts.touch(name);
        failures.retain(|at| !is_over(*at, window, now));
        keep_last(failures, DELAYS_GROW_UP_TO, now);
        failures.len()
    }

    fn failed_from_peer(
        &mut self,
        network: PeerNetwork,
        name: NameNumber,
        now: SystemTime,
    ) -> usize {
        let window = self.rules.window;
        let max_failures = usize::try_from(self.rules.max_failures).unwrap_or(usize::MAX);
        let failures = self.peers.touch(network);
        failures.retain(|failure| !is_over(failure.at, window, now));
        let most = max_failures.max(DELAYS_GROW_UP_TO);
        keep_last(failures, most, Failure { at: now, name });
        let count = failures.len();
        if max_failures > 0 && count >= max_failures {
            self.peers.remove(&network);
            self.ban(network, now);
        }
        count
    }

    fn ban(&mut self, network: PeerNetwork, now: SystemTime) {
        let before = self
            .bans
            .get(&network)
            .filter(|ban| !is_over(ban.until, BAN_REMEMBERED_FOR, now))
            .map_or(0, |ban| ban.times);
        let length = doubled(self.rules.ban, before).min(self.rules.longest_ban);
        let ban = Ban {
            network,
            times: before.saturating_add(1),
            until: now + length,
        };
        if self.bans.len() >= MAX_BANS && !self.bans.contains_key(&network) {
            self.forget_a_ban();
        }
        self.bans.insert(network, ban);
        self.unsaved.insert(network, ban);
    }

    /// Forgets the ban that is over first.
    fn forget_a_ban(&mut self) {
        let first = self.bans.values().min_by_key(|ban| ban.until);
        if let Some(network) = first.map(|ban| ban.network) {
            self.bans.remove(&network);
            self.unsaved.remove(&network);
        }
    }

    /// The bans that are not in the store yet; the caller stores them and says so with [`Throttle::saved`].
    pub fn unsaved(&self) -> Vec<Ban> {
        self.unsaved.values().copied().collect()
    }

    /// These bans are in the store now.
    pub fn saved(&mut self, bans: &[Ban]) {
        for ban in bans {
            // A longer one may have come meanwhile.
            if self.unsaved.get(&ban.network) == Some(ban) {
                self.unsaved.remove(&ban.network);
            }
        }
    }

    /// What the store holds is what counts: a ban that is not in it any more
    /// was lifted, and its network starts anew. Those not stored yet stay.
    pub fn replace_saved(&mut self, saved: Vec<Ban>, now: SystemTime) {
        let still = |ban: &Ban| !is_over(ban.until, BAN_REMEMBERED_FOR, now);
        let saved = saved.into_iter().filter(still).take(MAX_BANS);
        self.bans = saved.map(|ban| (ban.network, ban)).collect();
        self.bans.extend(&self.unsaved);
    }
}

/// Appends `last` and keeps no more than `most`.
fn keep_last<T>(items: &mut VecDeque<T>, most: usize, last: T) {
    items.push_back(last);
    while items.len() > most {
        items.pop_front();
    }
}

/// Whether `length` has passed since `start`. A clock that was set back makes things last, not end.
fn is_over(start: SystemTime, length: Duration, now: SystemTime) -> bool {
    now.duration_since(start)
        .is_ok_and(|passed| passed >= length)
}

fn doubled(length: Duration, times: u32) -> Duration {
    let factor = 1_u32.checked_shl(times).unwrap_or(u32::MAX);
    length.saturating_mul(factor)
}

/// A network that is banned, or was not long ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ban {
    /// Who.
    pub network: PeerNetwork,
    /// How many bans it has had, each soon after the one before.
    pub times: u32,
    /// When it ends.
    pub until: SystemTime,
}

impl Ban {
    /// When nothing about it needs to be remembered any more.
    pub fn forgotten_at(&self) -> SystemTime {
        self.until + BAN_REMEMBERED_FOR
    }
}

/// What counts as one peer: an IPv4 address, or the /64 of an IPv6 address, of
/// which one machine has every address that it likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerNetwork(IpAddr);

impl PeerNetwork {
    /// The network that `address` belongs to; one written as mapped is IPv4.
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

impl fmt::Display for PeerNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => write!(f, "{address}"),
            IpAddr::V6(first) => write!(f, "{first}/64"),
        }
    }
}

/// Reads what [`fmt::Display`] writes, and any address as the network that it belongs to.
impl FromStr for PeerNetwork {
    type Err = InvalidPeerNetwork;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let address = text.strip_suffix("/64").unwrap_or(text);
        match address.parse() {
            Ok(IpAddr::V4(_)) if address.len() < text.len() => Err(InvalidPeerNetwork),
            Ok(address) => Ok(Self::of(address)),
            Err(_) => Err(InvalidPeerNetwork),
        }
    }
}

/// Text that is neither an address nor an IPv6 /64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid address; expected one such as 192.0.2.1, 2001:db8::1 or 2001:db8::/64")]
pub struct InvalidPeerNetwork;

/// A map that holds so many entries; beyond it the one that was not touched for longest goes.
#[derive(Debug)]
struct Remembered<K, V> {
    most: usize,
    /// Invariant: `order` has the number of each entry, and nothing else.
    entries: HashMap<K, (u64, V)>,
    order: BTreeMap<u64, K>,
    next: u64,
}

impl<K: Copy + Eq + Hash, V> Remembered<K, V> {
    fn new(most: usize) -> Self {
        Self {
            most,
            entries: HashMap::new(),
            order: BTreeMap::new(),
            next: 0,
        }
    }

    fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(_, value)| value)
    }

    fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key).map(|(_, value)| value)
    }

    /// The entry of `key`, which is the newest now.
    fn touch(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        let value = self.remove(&key).unwrap_or_default();
        self.insert(key, value)
    }

    fn insert(&mut self, key: K, value: V) -> &mut V {
        self.remove(&key);
        let number = self.next;
        self.next += 1;
        if self.entries.len() >= self.most
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.entries.remove(&oldest);
        }
        self.order.insert(number, key);
        &mut self.entries.entry(key).or_insert((number, value)).1
    }

    fn remove(&mut self, key: &K) -> Option<V> {
        let (number, value) = self.entries.remove(key)?;
        self.order.remove(&number);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_secs(60);

    fn rules() -> ThrottleRules {
        ThrottleRules {
            max_failures: 10,
            window: 10 * MINUTE,
            ban: 15 * MINUTE,
            longest_ban: 60 * MINUTE,
            longest_delay: 16 * SECOND,
            exempt: NetworkSet::default(),
        }
    }

    fn throttle() -> Throttle {
        Throttle::new(rules())
    }

    /// One failure bans.
    fn strict() -> Throttle {
        Throttle::new(ThrottleRules {
            max_failures: 1,
            ..rules()
        })
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// Addresses from 10.0.0.0 on.
    fn stranger(number: usize) -> IpAddr {
        let [_, a, b, c] = u32::try_from(number).expect("small").to_be_bytes();
        IpAddr::from([10, a, b, c])
    }

    #[test]
    fn delays_grow_to_their_longest_and_the_tenth_failure_bans() {
        let mut throttle = throttle();
        let peer = address("192.0.2.1");
        let delays: Vec<u64> = (0..10)
            .map(|number| {
                assert_eq!(throttle.banned_until(peer, at(number)), None, "{number}");
                throttle.failed(peer, b"alice", at(number)).as_secs()
            })
            .collect();
        assert_eq!(delays, [0, 0, 1, 2, 4, 8, 16, 16, 16, 16]);
        assert_eq!(throttle.banned_until(peer, at(9)), Some(at(9 + 15 * 60)));
        assert_eq!(throttle.banned_until(peer, at(9 + 15 * 60)), None);
        assert_eq!(throttle.banned_until(address("192.0.2.2"), at(9)), None);
    }

    #[test]
    fn failures_beyond_the_window_do_not_count() {
        let mut throttle = throttle();
        let peer = address("192.0.2.1");
        // Each 67 s, so never ten within ten minutes.
        for number in 0..1000 {
            throttle.failed(peer, &[], at(number * 67));
            assert_eq!(throttle.banned_until(peer, at(number * 67)), None);
        }
        throttle.failed(peer, &[], at(1000 * 67));
        let quiet = at(1000 * 67 + 600);
        assert_eq!(throttle.failed(peer, b"bob", quiet), Duration::ZERO);
    }

    #[test]
    fn each_ban_soon_after_another_lasts_twice_as_long_up_to_the_longest() {
        let mut throttle = throttle();
        let peer = address("192.0.2.1");
        let mut now = at(0);
        let mut lengths = Vec::new();
        for _ in 0..5 {
            for _ in 0..10 {
                throttle.failed(peer, b"alice", now);
            }
            let until = throttle.banned_until(peer, now).expect("banned");
            lengths.push(until.duration_since(now).expect("later").as_secs() / 60);
            now = until + MINUTE;
        }
        assert_eq!(lengths, [15, 30, 60, 60, 60]);
        now += 25 * 60 * MINUTE;
        for _ in 0..10 {
            throttle.failed(peer, b"alice", now);
        }
        assert_eq!(throttle.banned_until(peer, now), Some(now + 15 * MINUTE));
    }

    #[test]
    fn all_addresses_of_an_ipv6_64_are_one_peer_and_a_mapped_one_is_ipv4() {
        let mut throttle = throttle();
        for host in 0..10_u16 {
            throttle.failed(address(&format!("2001:db8::{host:x}:1")), b"alice", at(0));
        }
        for (text, banned) in [
            ("2001:db8::ffff:ffff:ffff:ffff", true),
            ("2001:db8:0:1::1", false),
        ] {
            let until = throttle.banned_until(address(text), at(1));
            assert_eq!(until.is_some(), banned, "{text}");
        }
        for _ in 0..10 {
            throttle.failed(address("::ffff:192.0.2.1"), b"alice", at(0));
        }
        let v4 = throttle.banned_until(address("192.0.2.1"), at(1));
        assert!(v4.is_some());
    }

    #[test]
    fn a_name_under_attack_is_slow_for_strangers_and_not_where_it_was_opened_lately() {
        let mut throttle = throttle();
        let home = address("192.0.2.1");
        throttle.succeeded(home, b"alice", at(0));
        for number in 0..100 {
            throttle.failed(stranger(number), b"alice", at(1));
        }
        // The first failure of each, and no ban: the name is what is slow.
        assert_eq!(throttle.failed(stranger(200), b"alice", at(2)), 16 * SECOND);
        assert_eq!(
            throttle.failed(stranger(201), b"bob", at(2)),
            Duration::ZERO
        );
        assert_eq!(throttle.failed(home, b"alice", at(2)), Duration::ZERO);
        assert_eq!(throttle.banned_until(home, at(2)), None);
    }

    #[test]
    fn a_success_forgives_slips_on_its_own_name_and_no_guesses_at_others() {
        let mut throttle = throttle();
        let peer = address("192.0.2.1");
        for round in 0..20 {
            throttle.failed(peer, b"alice", at(round));
            throttle.failed(peer, b"alice", at(round));
            throttle.succeeded(peer, b"alice", at(round));
        }
        assert_eq!(throttle.banned_until(peer, at(20)), None);
        for round in 20..30 {
            throttle.failed(peer, b"bob", at(round));
            throttle.succeeded(peer, b"alice", at(round));
        }
        assert!(throttle.banned_until(peer, at(30)).is_some());
    }

    #[test]
    fn an_unknown_name_is_delayed_as_a_known_one() {
        let delays = |name: &[u8]| -> Vec<Duration> {
            let mut throttle = throttle();
            (0..9)
                .map(|_| throttle.failed(address("192.0.2.1"), name, at(0)))
                .collect()
        };
        assert_eq!(delays(b"alice"), delays(b"\xff no such name /../"));
    }

    #[test]
    fn exempt_networks_are_neither_delayed_nor_banned() {
        let mut throttle = throttle();
        let office = address("192.0.2.1");
        for _ in 0..10 {
            throttle.failed(office, b"alice", at(0));
        }
        assert!(throttle.banned_until(office, at(0)).is_some());
        throttle.set_rules(ThrottleRules {
            exempt: "192.0.2.0/24".parse().expect("a network"),
            ..rules()
        });
        assert_eq!(throttle.banned_until(office, at(0)), None);
        assert_eq!(throttle.failed(office, b"alice", at(0)), Duration::ZERO);
    }

    #[test]
    fn without_a_number_of_failures_nobody_is_banned() {
        let mut throttle = Throttle::new(ThrottleRules {
            max_failures: 0,
            ..rules()
        });
        let peer = address("192.0.2.1");
        for _ in 0..10_000 {
            throttle.failed(peer, b"alice", at(0));
        }
        assert_eq!(throttle.banned_until(peer, at(0)), None);
        assert_eq!(throttle.failed(peer, b"alice", at(0)), 16 * SECOND);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_oldest_goes_first() {
        let mut throttle = throttle();
        for number in 0..MAX_REMEMBERED + 1000 {
            let name = number.to_string();
            throttle.failed(stranger(number), name.as_bytes(), at(0));
            throttle.succeeded(stranger(number), b"alice", at(0));
        }
        for sizes in [
            (throttle.peers.entries.len(), throttle.peers.order.len()),
            (
                throttle.accounts.entries.len(),
                throttle.accounts.order.len(),
            ),
            (throttle.known.entries.len(), throttle.known.order.len()),
        ] {
            assert_eq!(sizes, (MAX_REMEMBERED, MAX_REMEMBERED));
        }
        let remembers = |number| {
            let network = PeerNetwork::of(stranger(number));
            throttle.peers.get(&network).is_some()
        };
        assert!(!remembers(999));
        assert!(remembers(1000));
    }

    #[test]
    fn bans_are_bounded_and_the_one_that_ends_first_goes_first() {
        let mut throttle = strict();
        for number in 0..=MAX_BANS {
            let seconds = u64::try_from(number).expect("small") / 100;
            throttle.failed(stranger(number), b"x", at(seconds));
        }
        assert_eq!(throttle.bans.len(), MAX_BANS);
        assert_eq!(throttle.unsaved().len(), MAX_BANS);
        let last = throttle.banned_until(stranger(MAX_BANS), at(100));
        assert!(last.is_some());
    }

    #[test]
    fn a_ban_that_the_store_lost_is_lifted_and_one_not_stored_yet_stays() {
        let mut throttle = strict();
        let [one, two, three] = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(address);
        throttle.failed(one, b"x", at(0));
        let saved = throttle.unsaved();
        assert_eq!(saved.len(), 1);
        throttle.failed(two, b"x", at(0));
        throttle.saved(&saved);
        throttle.replace_saved(saved, at(1));
        assert!(throttle.banned_until(one, at(1)).is_some());
        assert!(throttle.banned_until(two, at(1)).is_some());
        let from_another = Ban {
            network: PeerNetwork::of(three),
            times: 1,
            until: at(100),
        };
        throttle.replace_saved(vec![from_another], at(2));
        assert_eq!(throttle.banned_until(one, at(2)), None);
        assert!(throttle.banned_until(two, at(2)).is_some());
        assert!(throttle.banned_until(three, at(2)).is_some());
        assert_eq!(throttle.unsaved().len(), 1);
    }

    #[test]
    fn a_clock_that_is_set_back_neither_panics_nor_lifts_a_ban() {
        let mut throttle = throttle();
        let peer = address("192.0.2.1");
        for _ in 0..10 {
            throttle.failed(peer, b"x", at(1000));
        }
        assert!(throttle.banned_until(peer, at(0)).is_some());
        throttle.failed(address("192.0.2.2"), b"x", at(0));
    }

    #[test]
    fn networks_print_as_they_parse() {
        for (text, printed) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:db8:1:2::/64", "2001:db8:1:2::/64"),
        ] {
            let network: PeerNetwork = text.parse().expect("a network");
            assert_eq!(network.to_string(), printed);
            assert_eq!(printed.parse(), Ok(network));
        }
        for text in ["", "192.0.2.0/64", "192.0.2.0/24", "2001:db8::/48", "host"] {
            assert_eq!(
                text.parse::<PeerNetwork>(),
                Err(InvalidPeerNetwork),
                "{text}"
            );
        }
    }
}
