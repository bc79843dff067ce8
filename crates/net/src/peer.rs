//! Who is at the other end.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::stream::canonical;
use crate::{Endpoint, UnixName};

/// The other end of a connection, or the sender of a datagram.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Peer {
    /// An address and a port; an IPv4-mapped address is written as IPv4.
    Ip(SocketAddr),
    /// A process of this machine.
    Unix(UnixPeer),
}

impl Peer {
    /// Who has `endpoint`, as one sends to them.
    pub fn at(endpoint: &Endpoint) -> Self {
        match endpoint {
            Endpoint::Tcp(address) | Endpoint::Udp(address) => (*address).into(),
            Endpoint::Unix(name) | Endpoint::UnixDatagram(name) => Self::Unix(UnixPeer {
                credentials: None,
                name: Some(name.clone()),
            }),
        }
    }

    /// The address, without the port.
    pub fn ip(&self) -> Option<IpAddr> {
        self.socket_address().map(|address| address.ip())
    }

    /// The address and the port.
    pub fn socket_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// What the kernel says of the process at the other end of a Unix stream.
    pub fn credentials(&self) -> Option<Credentials> {
        match self {
            Self::Ip(_) => None,
            Self::Unix(peer) => peer.credentials,
        }
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(canonical(address))
    }
}

/// A process of this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct UnixPeer {
    /// Who it was when it connected; unknown for the sender of a datagram.
    pub credentials: Option<Credentials>,
    /// The name of its socket; most clients have none.
    pub name: Option<UnixName>,
}

/// What the kernel says of a process (`SO_PEERCRED`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// Its number, where the system tells it.
    pub pid: Option<i32>,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(peer) => peer.fmt(f),
        }
    }
}

impl fmt::Display for UnixPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unix:")?;
        match (&self.credentials, &self.name) {
            (Some(credentials), Some(name)) => write!(f, "{name}({credentials})"),
            (Some(credentials), None) => write!(f, "({credentials})"),
            (None, Some(name)) => name.fmt(f),
            (None, None) => f.write_str("(unnamed)"),
        }
    }
}

impl fmt::Display for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(pid) = self.pid {
            write!(f, "pid {pid}, ")?;
        }
        write!(f, "uid {}", self.uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_is_shown_as_ipv4() {
        let address: SocketAddr = "[::ffff:192.0.2.1]:5".parse().expect("an address");
        assert_eq!(Peer::from(address).to_string(), "192.0.2.1:5");
    }

    #[test]
    fn a_unix_peer_is_shown_by_what_is_known_of_it() {
        let credentials = Some(Credentials {
            pid: Some(42),
            uid: 1000,
            gid: 100,
        });
        let name = Some(UnixName::Path("/run/c.sock".into()));
        for (credentials, name, text) in [
            (credentials, None, "unix:(pid 42, uid 1000)"),
            (
                credentials,
                name.clone(),
                "unix:/run/c.sock(pid 42, uid 1000)",
            ),
            (None, name, "unix:/run/c.sock"),
            (None, None, "unix:(unnamed)"),
        ] {
            assert_eq!(Peer::Unix(UnixPeer { credentials, name }).to_string(), text);
        }
    }
}
