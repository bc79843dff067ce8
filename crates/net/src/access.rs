//! Who may connect at all, decided before a byte is read.

use std::net::SocketAddr;

/// What an access hook says of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Serve it.
    Admit,
    /// Close the connection.
    Refuse,
}

/// Decides by address whether a peer is served.
pub trait AccessHook: Send + Sync + 'static {
    /// Judges `peer`. Called on the accept loop: it must not block.
    fn judge(&self, peer: SocketAddr) -> Verdict;
}

/// Admits everyone.
#[derive(Debug, Clone, Copy, Default)]
pub struct AllowAll;

impl AccessHook for AllowAll {
    fn judge(&self, _peer: SocketAddr) -> Verdict {
        Verdict::Admit
    }
}

impl<F: Fn(SocketAddr) -> Verdict + Send + Sync + 'static> AccessHook for F {
    fn judge(&self, peer: SocketAddr) -> Verdict {
        self(peer)
    }
}
