//! From where: sets of networks, as operators write them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// Networks in CIDR notation; may be empty.
///
/// Invariant: every network is written with its first address (`10.1.2.3/8`
/// is kept as `10.0.0.0/8`), and IPv4 networks are IPv4, never mapped ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct NetworkSet(Vec<IpNet>);

impl NetworkSet {
    /// Whether `address` lies in one of the networks. An IPv4 address inside
    /// an IPv6 one (`::ffff:192.0.2.1`) counts as the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Whether there is no network in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The networks.
    pub fn networks(&self) -> &[IpNet] {
        &self.0
    }

    /// One set of all the networks of `texts`.
    ///
    /// # Errors
    /// [`InvalidNetwork`] names the first text that is none.
    pub fn parse_all<T: AsRef<str>>(texts: &[T]) -> Result<Self, InvalidNetwork> {
        texts
            .iter()
            .map(|text| parse_network(text.as_ref()))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// Comma-separated, as [`fmt::Display`] writes it; an empty text is the empty set.
impl FromStr for NetworkSet {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        Self::parse_all(&text.split(',').collect::<Vec<_>>())
    }
}

impl fmt::Display for NetworkSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, network) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{network}")?;
        }
        Ok(())
    }
}

/// A network, or one address that stands for the network of itself alone.
fn parse_network(text: &str) -> Result<IpNet, InvalidNetwork> {
    let text = text.trim();
    let network = match text.parse::<IpAddr>() {
        Ok(address) => Some(IpNet::from(address.to_canonical())),
        Err(_) => text.parse::<IpNet>().ok().and_then(unmapped),
    };
    network
        .map(|network| network.trunc())
        .ok_or_else(|| InvalidNetwork(text.to_owned()))
}

/// A network of mapped addresses as the IPv4 network that it is: peers are
/// compared by their IPv4 address, which no mapped network would contain.
fn unmapped(network: IpNet) -> Option<IpNet> {
    match (network, network.addr().to_canonical()) {
        (IpNet::V6(mapped), address @ IpAddr::V4(_)) => {
            let length = mapped.prefix_len().checked_sub(96)?;
            IpNet::new(address, length).ok()
        }
        _ => Some(network),
    }
}

/// Text that is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid network {0:?}; expected ADDRESS or ADDRESS/LENGTH such as \"192.0.2.0/24\" or \"2001:db8::/32\""
)]
pub struct InvalidNetwork(String);

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> NetworkSet {
        text.parse().expect("networks")
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_set_contains_its_networks_from_the_first_address_to_the_last() {
        let networks = set("192.0.2.64/26,2001:db8:1::/48,203.0.113.7");
        for (text, expected) in [
            ("192.0.2.63", false),
            ("192.0.2.64", true),
            ("192.0.2.127", true),
            ("192.0.2.128", false),
            ("::ffff:192.0.2.100", true),
            ("2001:db8:1::", true),
            ("2001:db8:1:ffff:ffff:ffff:ffff:ffff", true),
            ("2001:db8:2::", false),
            ("203.0.113.7", true),
            ("203.0.113.8", false),
        ] {
            assert_eq!(networks.contains(address(text)), expected, "{text}");
        }
    }

    #[test]
    fn sets_print_as_they_parse_with_the_first_address_of_each_network() {
        for (text, printed) in [
            ("", ""),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("192.0.2.1, ::1", "192.0.2.1/32,::1/128"),
            ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
            ("0.0.0.0/0,::/0", "0.0.0.0/0,::/0"),
        ] {
            assert_eq!(set(text).to_string(), printed);
            assert_eq!(set(printed), set(text));
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in [
            ",",
            "10.0.0.0/33",
            "10.0.0/8",
            "::1/129",
            "example.org",
            "10.0.0.1-10.0.0.9",
            "::ffff:192.0.2.0/95",
        ] {
            assert!(text.parse::<NetworkSet>().is_err(), "{text}");
        }
    }
}
