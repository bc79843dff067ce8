//! What a server does with a connection.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::{ConnectionSlot, Drain, LimitReached, Stream};

/// One admitted connection; its place in the limits is freed when it is dropped.
#[derive(Debug)]
pub struct Connection {
    /// The bytes.
    pub stream: Stream,
    /// The other end, with an IPv4-mapped address written as IPv4.
    pub peer: SocketAddr,
    /// This end, likewise.
    pub local: SocketAddr,
    /// The server's end: a service watches [`Drain::begun`].
    pub drain: Drain,
    /// The connection's place in the limits; a service settles it once it knows who is there.
    pub slot: ConnectionSlot,
}

/// Serves stream connections.
pub trait StreamService: Send + Sync + 'static {
    /// Serves one connection to its end. Runs as a task of its own, which a
    /// cut, or a newcomer who takes its place, drops at any await: what must be
    /// tidied up belongs in `Drop`.
    fn serve(self: Arc<Self>, connection: Connection) -> impl Future<Output = ()> + Send;

    /// Tells a peer that it is not served, before the stream is closed. The
    /// accept loop gives it a second. By default the peer is told nothing.
    fn refuse(&self, stream: Stream, reason: Refused) -> impl Future<Output = ()> + Send {
        let _ = (stream, reason);
        async {}
    }
}

/// Why a connection is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// A limit on connections.
    Limit(LimitReached),
    /// The access hook.
    Access,
    /// The access hook, for a time.
    AccessForNow,
}
