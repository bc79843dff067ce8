//! Ending TLS on a connection that goes on without it (RFC 4217 §6, CCC).
//!
//! Invariant: nothing that comes behind the peer's `close_notify` is read, so
//! that what is left on the stream is whole. Therefore that record is taken
//! from the stream here, to its end and no byte farther.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_rustls::rustls::Connection;

use crate::{Stream, TlsStream};

/// Content types of records (RFC 8446 §5.1). No line of text begins with one of these bytes.
const CONTENT_TYPES: std::ops::RangeInclusive<u8> = 20..=24;
const ALERT: u8 = 21;
const APPLICATION_DATA: u8 = 23;

/// An alert under TLS 1.2: two bytes, and at most the eight and sixteen of AES-GCM (RFC 5288 §3).
const MAX_ALERT_BYTES: usize = 2 + 8 + 16;

/// An alert under TLS 1.3: two bytes, its type, and the sixteen of every cipher here
/// (RFC 8446 §5.2). The shortest line of text, `PWD` and its end, is longer.
const HIDDEN_ALERT_BYTES: usize = 2 + 1 + 16;

/// A stream whose TLS has ended.
#[derive(Debug)]
pub struct Cleared {
    /// What TLS was on.
    pub stream: Stream,
    /// The first byte that came on it since, where the peer went on without a
    /// `close_notify` of its own, as curl does.
    pub first: Option<u8>,
}

impl TlsStream {
    /// Awaits the peer's `close_notify`, sends its own, and gives back the stream below. A
    /// peer that has not begun after `grace` is left to expect the other to begin, as curl does;
    /// lftp and others want to, and take an end that comes with the last reply for the connection's.
    /// What has been written must be flushed before. Has no deadline of its own.
    /// Dropping the future closes the stream.
    ///
    /// # Errors
    /// The peer has sent something else that is encrypted
    /// ([`io::ErrorKind::InvalidData`]), or the stream failed.
    pub async fn end(self, grace: Duration) -> io::Result<Cleared> {
        match self.into_below() {
            tokio_rustls::TlsStream::Server(tls) => {
                let (stream, session) = tls.into_inner();
                end(stream.into_inner()?, session.into(), grace).await
            }
            tokio_rustls::TlsStream::Client(tls) => {
                let (stream, session) = tls.into_inner();
                end(stream.into_inner()?, session.into(), grace).await
            }
        }
    }
}

async fn end(mut stream: Stream, mut session: Connection, grace: Duration) -> io::Result<Cleared> {
    if has_ended(&mut session)? {
        // What came behind the end may have been read with it.
        return Err(invalid("TLS has ended already"));
    }
    let (first, has_begun) = match timeout(grace, stream.read_u8()).await {
        Ok(first) => (first?, true),
        Err(_) => {
            say_end(&mut session, &mut stream).await?;
            (stream.read_u8().await?, false)
        }
    };
    if !CONTENT_TYPES.contains(&first) {
        let first = Some(first);
        return Ok(Cleared { stream, first });
    }
    skip_alert(first, &mut stream).await?;
    if has_begun {
        say_end(&mut session, &mut stream).await?;
    }
    let first = None;
    Ok(Cleared { stream, first })
}

async fn say_end(session: &mut Connection, stream: &mut Stream) -> io::Result<()> {
    session.send_close_notify();
    let mut last = Vec::new();
    while session.wants_write() {
        session.write_tls(&mut last)?;
    }
    stream.write_all(&last).await?;
    stream.flush().await
}

/// Takes the record that begins with `first`, which must have the form of an
/// alert. It is not decrypted: the session, which has said its own end, has no answer left to
/// one that is forged, and whoever could forge it may write what they like from here on.
async fn skip_alert(first: u8, stream: &mut Stream) -> io::Result<()> {
    let _version = stream.read_u16().await?;
    let length = usize::from(stream.read_u16().await?);
    let is_alert = match first {
        ALERT => length <= MAX_ALERT_BYTES,
        APPLICATION_DATA => length == HIDDEN_ALERT_BYTES,
        _ => false,
    };
    if !is_alert {
        return Err(invalid("something was sent before the end of TLS"));
    }
    let mut alert = [0; MAX_ALERT_BYTES];
    let alert = alert.get_mut(..length).unwrap_or_default();
    stream.read_exact(alert).await?;
    Ok(())
}

/// Whether the peer's `close_notify` has been read.
fn has_ended(session: &mut Connection) -> io::Result<bool> {
    let state = session.process_new_packets().map_err(invalid)?;
    if state.plaintext_bytes_to_read() > 0 {
        return Err(invalid("something was sent before the end of TLS"));
    }
    Ok(state.peer_has_closed())
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls_pki_types::PrivateKeyDer;
    use tokio::io::DuplexStream;
    use tokio_rustls::rustls::crypto::aws_lc_rs;
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};
    use tokio_rustls::{TlsConnector, client};

    use super::*;
    use crate::{TicketOwner, TlsOptions, TlsServer};

    const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

    /// Both ends of a connection, with TLS.
    async fn pair(
        version: &'static SupportedProtocolVersion,
    ) -> (TlsStream, client::TlsStream<DuplexStream>) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).expect("acceptable");
        let server = TlsServer::new(TlsOptions {
            chain: vec![made.cert.der().clone()],
            key: PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key"),
            protocols: vec![],
            joining_protocols: vec![],
            clients: None,
        })
        .expect("usable");
        let provider = Arc::new(aws_lc_rs::default_provider());
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .expect("known")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let name = "localhost".try_into().expect("a name");
        let (served, connected) = tokio::join!(
            server.accept(theirs.into(), TicketOwner::new([1; 16])),
            TlsConnector::from(Arc::new(client)).connect(name, ours),
        );
        let Ok(Stream::Tls(served)) = served else {
            panic!("{served:?}");
        };
        (*served, connected.expect("a handshake"))
    }

    #[tokio::test]
    async fn what_comes_behind_the_peers_end_stays_on_the_stream() {
        for version in VERSIONS {
            let (served, client) = pair(version).await;
            // All in one piece, so that a reader that takes more than records takes too much.
            let (mut client, mut session) = client.into_inner();
            session.send_close_notify();
            let mut sent = Vec::new();
            session.write_tls(&mut sent).expect("written");
            sent.extend_from_slice(b"PWD\r\n");
            client.write_all(&sent).await.expect("written");
            let mut cleared = served.end(Duration::ZERO).await.expect("an end");
            assert_eq!(cleared.first, None);
            let mut line = [0; 5];
            cleared.stream.read_exact(&mut line).await.expect("reads");
            assert_eq!(&line, b"PWD\r\n");
            cleared.stream.write_all(b"257").await.expect("written");
            drop(cleared);
            let mut heard = Vec::new();
            client.read_to_end(&mut heard).await.expect("reads");
            // The server's own end, and then the clear text.
            let mut unread = heard.as_slice();
            session.read_tls(&mut unread).expect("reads");
            let state = session.process_new_packets().expect("a record");
            assert!(state.peer_has_closed());
            assert!(heard.ends_with(b"257"));
        }
    }

    #[tokio::test]
    async fn a_peer_that_goes_on_without_an_end_is_understood() {
        for version in VERSIONS {
            let (served, client) = pair(version).await;
            let mut client = client.into_inner().0;
            client.write_all(b"PWD\r\n").await.expect("written");
            let mut cleared = served.end(Duration::ZERO).await.expect("an end");
            assert_eq!(cleared.first, Some(b'P'));
            let mut line = [0; 4];
            cleared.stream.read_exact(&mut line).await.expect("reads");
            assert_eq!(&line, b"WD\r\n");
        }
    }

    #[tokio::test]
    async fn what_is_no_end_is_refused() {
        for version in VERSIONS {
            let (served, mut client) = pair(version).await;
            client.write_all(b"PWD\r\n").await.expect("written");
            client.flush().await.expect("written");
            let error = served
                .end(Duration::ZERO)
                .await
                .expect_err("more than an end");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);

            // Records of other kinds and lengths than an end has.
            for forged in [
                b"\x17\x03\x03\xff\xff",
                b"\x15\x03\x03\x00\x1b",
                b"\x16\x03\x03\x00\x13",
            ] {
                let (served, client) = pair(version).await;
                let mut client = client.into_inner().0;
                client.write_all(forged).await.expect("written");
                let error = served.end(Duration::ZERO).await.expect_err("no end");
                assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            }

            let (served, client) = pair(version).await;
            let mut client = client.into_inner().0;
            client.shutdown().await.expect("an end of the pipe alone");
            let error = served.end(Duration::ZERO).await.expect_err("no end");
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}
