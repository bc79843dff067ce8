//! A socket-server runtime that knows no protocol.
//!
//! ```text
//! Endpoint ──bind──► Listener ──accept──► access hook ──► limits ──► StreamService::serve(Connection)
//!                        ▲                                   │
//!                      Drain ◄── begin / wait / cut          └─ refused: StreamService::refuse
//! ```
//!
//! What is spoken on a connection is the service's business; this crate admits
//! peers, counts them, hands over one [`Stream`] each, and ends them in order.
//! A service may put TLS on its stream with a [`TlsServer`]; a client, with a [`TlsClient`].
//! It depends on no other crate of the workspace.

mod accept;
mod access;
mod drain;
mod endpoint;
mod limit;
mod service;
mod stream;
mod tls;
mod tls_client;
mod tls_end;

pub use accept::{AcceptOptions, serve};
pub use access::{AccessHook, AddressRules, AllowAll, Verdict};
pub use drain::{Drain, DrainReport};
pub use endpoint::{BindError, BoundEndpoint, Endpoint, EndpointOptions, Listener};
pub use limit::{ConnectionLimits, ConnectionSlot, ConnectionSlots, LimitReached};
pub use service::{Connection, Refused, StreamService};
pub use stream::Stream;
pub use tls::{
    BareEnd, ClientAuthorities, ForeignTickets, Joined, Resumption, TicketOwner, TlsOptions,
    TlsServer, TlsSetupError, TlsStream,
};
pub use tls_client::{
    Distrust, HandshakeError, Pinned, TlsClient, TlsClientError, TlsClientOptions, TrustedBy,
};
pub use tls_end::Cleared;
