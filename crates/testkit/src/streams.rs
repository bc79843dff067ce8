//! Connections, in the clear and encrypted.

use std::sync::Arc;

use rustls_pki_types::PrivateKeyDer;
use tokio::net::{TcpListener, TcpStream};
use wharf_net::{
    BareEnd, ForeignTickets, Stream, TicketOwner, TlsClient, TlsClientOptions, TlsOptions,
    TlsServer,
};

/// What a connection goes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// TCP.
    Clear,
    /// TLS on TCP, whose end must be said.
    Encrypted,
}

impl Wire {
    /// Every one.
    pub const ALL: [Self; 2] = [Self::Clear, Self::Encrypted];

    /// A client's end of a connection and the server's, which is a data connection.
    pub async fn streams(self) -> (Stream, Stream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("bound"));
        let (client, accepted) = tokio::join!(client, listener.accept());
        let client = client.expect("connects").into();
        let server = accepted.expect("accepts").0.into();
        match self {
            Self::Clear => (client, server),
            Self::Encrypted => encrypted(client, server).await,
        }
    }
}

async fn encrypted(client: Stream, server: Stream) -> (Stream, Stream) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
    let ours = TlsServer::new(TlsOptions {
        chain: vec![made.cert.der().clone()],
        key: PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key"),
        protocols: Vec::new(),
        joining_protocols: Vec::new(),
        clients: None,
    });
    let theirs = TlsClientOptions {
        roots: Vec::new(),
        pinned: Arc::new(|_| true),
        identity: None,
        protocols: Vec::new(),
        joining_end: BareEnd::Refused,
    };
    let theirs = TlsClient::new("localhost", theirs).expect("usable");
    let ours = ours.expect("usable");
    let (owner, foreign) = (TicketOwner::new([1; 16]), ForeignTickets::Ignored);
    let (client, server) = tokio::join!(
        theirs.connect(client),
        ours.accept_joining(server, owner, foreign, BareEnd::Refused),
    );
    (client.expect("trusts"), server.expect("accepts").stream)
}
