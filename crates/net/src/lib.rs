//! A socket-server runtime that knows no protocol.
//!
//! ```text
//! Endpoint ──bind──► Listener ──accept──► PROXY header ──► access hook ──► limits ──► StreamService::serve(Connection)
//!                        ▲                                                    │
//!                      Drain ◄── begin / wait / cut                           └─ refused: StreamService::refuse
//! ```
//!
//! What is spoken on a connection is the service's business; a [`Server`] admits
//! peers, counts them, hands over one [`Stream`] each, and ends them in order.
//! A service may put TLS on its stream with a [`TlsServer`]; a client, with a [`TlsClient`].
//! It depends on no other crate of the workspace.

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod accept;
mod access;
mod bind;
mod blocking;
mod claim;
mod concurrency;
mod datagram;
mod drain;
mod endpoint;
#[cfg(feature = "framing")]
mod framing;
mod inherit;
mod limit;
mod peer;
mod program;
mod proxy;
mod rate;
mod read_ahead;
mod server;
mod service;
mod stream;
mod tls;
mod tls_client;
mod tls_end;
mod unwatched;

pub use access::{AccessHook, AddressRules, AllowAll, Verdict};
pub use bind::{BindError, BindProblem, BoundEndpoint, DatagramSocket, EndpointOptions, Listener};
pub use blocking::{Blocking, BlockingConnection, BlockingService, BlockingStream};
pub use concurrency::Concurrency;
pub use datagram::{Datagram, DatagramCounts, DatagramServer, DatagramService};
pub use drain::{Drain, DrainReport};
pub use endpoint::{Endpoint, EndpointError, UnixName};
#[cfg(feature = "framing")]
pub use framing::{Frame, FrameCodec, FrameError};
pub use inherit::{InheritError, Inherited, inherited};
pub use limit::{ConnectionLimits, ConnectionSlot, ConnectionSlots, LimitReached};
pub use peer::{Credentials, Peer, UnixPeer};
pub use program::{Program, ProgramErrors};
pub use proxy::{ProxyError, ProxyHeader, ProxyProgress, ProxyRules, parse_proxy, read_proxy};
pub use rate::{Rate, RateLimits};
pub use server::{Refusing, Server};
pub use service::{Connection, Failure, Proxied, Refused, ServiceError, StreamService};
pub use stream::Stream;
pub use tls::{
    BareEnd, ClientAuthorities, ForeignTickets, Joined, Resumption, TicketOwner, TlsOptions,
    TlsServer, TlsSetupError, TlsStream, is_signed_by,
};
pub use tls_client::{
    Distrust, HandshakeError, Pinned, TlsClient, TlsClientError, TlsClientOptions, TrustedBy,
};
pub use tls_end::Cleared;
pub use unwatched::{Patience, Unwatched, UnwatchedSocket};
