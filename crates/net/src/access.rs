//! Who may connect at all, decided before a byte is read.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::Peer;
use crate::concurrency::caught_call;

/// What an access hook says of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Serve it.
    Admit,
    /// Close the connection.
    Refuse,
    /// Close the connection; later ones may be served.
    RefuseForNow,
}

/// Decides whether a peer is served.
pub trait AccessHook: Send + Sync + 'static {
    /// Judges `peer`. Called on the accept loop: it must not block. A panic
    /// goes to the log, and the peer is refused.
    fn judge(&self, peer: &Peer) -> Verdict;
}

/// What `hook` says; who it cannot judge is refused.
pub(crate) fn verdict(hook: &dyn AccessHook, peer: &Peer) -> Verdict {
    caught_call(|| hook.judge(peer)).unwrap_or_else(|message| {
        tracing::error!(%peer, "the access hook panicked: {message}");
        Verdict::Refuse
    })
}

/// Admits everyone.
#[derive(Debug, Clone, Copy, Default)]
pub struct AllowAll;

impl AccessHook for AllowAll {
    fn judge(&self, _peer: &Peer) -> Verdict {
        Verdict::Admit
    }
}

impl<F: Fn(&Peer) -> Verdict + Send + Sync + 'static> AccessHook for F {
    fn judge(&self, peer: &Peer) -> Verdict {
        self(peer)
    }
}

/// Networks that are served and networks that are not. Peers of Unix sockets
/// have no address: they are admitted, and the socket's mode says who they can be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressRules {
    /// Nobody else is served, unless this is empty.
    pub allow: Vec<IpNet>,
    /// Not served, even if `allow` says so.
    pub deny: Vec<IpNet>,
}

impl AccessHook for AddressRules {
    fn judge(&self, peer: &Peer) -> Verdict {
        let Some(address) = peer.ip() else {
            return Verdict::Admit;
        };
        let address = address.to_canonical();
        if contains(&self.deny, address) {
            return Verdict::Refuse;
        }
        if self.allow.is_empty() || contains(&self.allow, address) {
            return Verdict::Admit;
        }
        Verdict::Refuse
    }
}

fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    fn networks(texts: &[&str]) -> Vec<IpNet> {
        texts
            .iter()
            .map(|text| text.parse().expect("a network"))
            .collect()
    }

    fn judge(allow: &[&str], deny: &[&str], address: &str) -> Verdict {
        let rules = AddressRules {
            allow: networks(allow),
            deny: networks(deny),
        };
        let address = address.parse().expect("an address");
        rules.judge(&SocketAddr::new(address, 50_000).into())
    }

    #[test]
    fn deny_goes_before_allow_and_an_empty_allow_admits_everyone() {
        let inside = ["10.0.0.0/8", "2001:db8::/32"];
        for (allow, deny, address, expected) in [
            (&[][..], &[][..], "192.0.2.1", Verdict::Admit),
            (&[], &["192.0.2.0/24"], "192.0.2.1", Verdict::Refuse),
            (&[], &["192.0.2.0/24"], "::ffff:192.0.2.1", Verdict::Refuse),
            (&[], &["192.0.2.0/24"], "192.0.3.1", Verdict::Admit),
            (&inside, &[], "10.255.255.255", Verdict::Admit),
            (&inside, &[], "11.0.0.0", Verdict::Refuse),
            (&inside, &[], "2001:db8::1", Verdict::Admit),
            (&inside, &[], "2001:db9::1", Verdict::Refuse),
            (&inside, &["10.1.0.0/16"], "10.1.2.3", Verdict::Refuse),
            (&inside, &["10.1.0.0/16"], "10.2.2.3", Verdict::Admit),
            (&inside, &["0.0.0.0/0"], "10.2.2.3", Verdict::Refuse),
        ] {
            assert_eq!(judge(allow, deny, address), expected, "{address}");
        }
    }
}
