//! What a server does with a connection.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use crate::{ConnectionSlot, Drain, Endpoint, LimitReached, Peer, Stream};

/// One admitted connection; its place in the limits is freed when it is dropped.
#[derive(Debug)]
pub struct Connection {
    /// The bytes.
    pub stream: Stream,
    /// The other end; behind a proxy, the one that the proxy announced.
    pub peer: Peer,
    /// This end.
    pub local: Endpoint,
    /// The proxy that passed the connection on, if one did.
    pub proxy: Option<Proxied>,
    /// The server's end: a service watches [`Drain::begun`].
    pub drain: Drain,
    /// The connection's place in the limits; see [`Server::with_newcomers`](crate::Server::with_newcomers).
    pub slot: ConnectionSlot,
}

/// How a connection came through a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxied {
    /// The other end of the socket.
    pub by: Peer,
    /// Where the peer connected to, as the proxy announced it.
    pub destination: SocketAddr,
}

/// What ends a service's work for one peer early: any error.
pub type ServiceError = Box<dyn Error + Send + Sync>;

/// Serves stream connections.
///
/// What a connection needs is set up at the begin of [`StreamService::serve`],
/// lives in its local variables, and is put away by their `Drop`, however it ends.
pub trait StreamService: Send + Sync + 'static {
    /// Serves one connection to its end. A cut, the connection's deadline, or a
    /// newcomer who takes its place, drops the future at any await: what must
    /// be tidied up belongs in `Drop`. An error or a panic ends this connection
    /// only, and is told to [`StreamService::failed`].
    fn serve(
        self: Arc<Self>,
        connection: Connection,
    ) -> impl Future<Output = Result<(), ServiceError>> + Send;

    /// Tells a peer that it is not served, before the stream is closed. The
    /// server gives it a second. By default the peer is told nothing.
    fn refuse(&self, stream: Stream, reason: Refused) -> impl Future<Output = ()> + Send {
        let _ = (stream, reason);
        async {}
    }

    /// Hears how the service of a peer failed; by default it goes to the log.
    fn failed(&self, peer: &Peer, failure: &Failure) {
        failure.log(peer);
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

/// How the service of one peer failed.
#[derive(Debug)]
pub enum Failure {
    /// It returned an error.
    Error(ServiceError),
    /// It panicked, with this message.
    Panic(String),
    /// It took longer than it may.
    Deadline(Duration),
    /// No thread could be started for it.
    NoThread(io::Error),
}

impl Failure {
    /// Writes to the log: what a peer can bring about at will as `debug`, the rest as `error`.
    pub fn log(&self, peer: &Peer) {
        match self {
            Self::Error(_) | Self::Deadline(_) => tracing::debug!(%peer, "{self}"),
            Self::Panic(_) | Self::NoThread(_) => tracing::error!(%peer, "{self}"),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(error) => {
                write!(f, "the service ended with an error: {error}")?;
                let mut below = error.source();
                while let Some(source) = below {
                    write!(f, ": {source}")?;
                    below = source.source();
                }
                Ok(())
            }
            Self::Panic(message) => write!(f, "the service panicked: {message}"),
            Self::Deadline(deadline) => write!(f, "the service took longer than {deadline:?}"),
            Self::NoThread(error) => write!(f, "no thread could be started: {error}"),
        }
    }
}
