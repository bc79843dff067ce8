//! A blocking FTP client that does no more than a workload needs.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use rustix::net::{RecvFlags, recv};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

use crate::Outcome;

/// The server under load.
#[derive(Args, Clone)]
pub(crate) struct Target {
    /// Where it listens
    #[arg(long)]
    address: SocketAddr,
    /// Account
    #[arg(long)]
    user: String,
    /// Its password
    #[arg(long)]
    password: String,
    /// With TLS for commands and data
    #[arg(long)]
    pub(crate) tls: bool,
    /// Where everything is, seen from where the login leads to
    #[arg(long)]
    directory: Option<String>,
}

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(120);

/// Bytes discarded or sent by one call.
pub(crate) const PIECE_BYTES: usize = 1024 * 1024;

/// A connection, with TLS or without.
pub(crate) enum Wire<C = ClientConnection> {
    Plain(TcpStream),
    Tls(Box<StreamOwned<C, ReadAhead>>),
}

/// A socket that is read ahead: TLS asks it for one record after the other, and many are there.
pub(crate) struct ReadAhead(BufReader<TcpStream>);

impl ReadAhead {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self(BufReader::with_capacity(PIECE_BYTES / 16, stream))
    }

    pub(crate) fn get_ref(&self) -> &TcpStream {
        self.0.get_ref()
    }

    /// Drops what was read ahead; its length.
    pub(crate) fn forget(&mut self) -> usize {
        let length = self.0.buffer().len();
        self.0.consume(length);
        length
    }
}

impl Read for ReadAhead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for ReadAhead {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.get_mut().write(buffer)
    }

    fn write_vectored(&mut self, buffers: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.get_mut().write_vectored(buffers)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.get_mut().flush()
    }
}

impl<C> Read for Wire<C>
where
    StreamOwned<C, ReadAhead>: Read,
{
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => match stream.read(buffer) {
                // Not everyone says close_notify; sizes are checked anyway.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
                result => result,
            },
        }
    }
}

impl<C> Write for Wire<C>
where
    StreamOwned<C, ReadAhead>: Write,
{
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// A session that is logged in, in binary mode.
pub(crate) struct Session {
    control: BufReader<Wire>,
    server: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
}

impl Session {
    pub(crate) fn open(target: &Target) -> Outcome<Self> {
        let stream = connect(target.address)?;
        let mut session = Self {
            control: BufReader::new(Wire::Plain(stream)),
            server: target.address,
            tls: None,
        };
        session.expect(220)?;
        if target.tls {
            session.encrypt()?;
        }
        session.send(&format!("USER {}", target.user))?;
        if session.reply()?.0 == 331 {
            session.command(&format!("PASS {}", target.password), 230)?;
        }
        if target.tls {
            session.command("PBSZ 0", 200)?;
            session.command("PROT P", 200)?;
        }
        session.command("TYPE I", 200)?;
        if let Some(directory) = &target.directory {
            session.command(&format!("CWD {directory}"), 250)?;
        }
        Ok(session)
    }

    fn encrypt(&mut self) -> Outcome<()> {
        self.command("AUTH TLS", 234)?;
        let config = Arc::new(trusting());
        let Wire::Plain(stream) = self.control.get_ref() else {
            return Err("TLS is there already".into());
        };
        let stream = stream.try_clone()?;
        self.control = BufReader::new(wrap(stream, &config)?);
        self.tls = Some(config);
        Ok(())
    }

    pub(crate) fn send(&mut self, line: &str) -> Outcome<()> {
        let wire = self.control.get_mut();
        wire.write_all(format!("{line}\r\n").as_bytes())?;
        Ok(wire.flush()?)
    }

    /// The next reply's code and last line.
    pub(crate) fn reply(&mut self) -> Outcome<(u16, String)> {
        loop {
            let mut line = String::new();
            if self.control.read_line(&mut line)? == 0 {
                return Err("the server closed the connection".into());
            }
            let code = line.get(..3).and_then(|code| code.parse().ok());
            if let (Some(code), Some(" ")) = (code, line.get(3..4)) {
                return Ok((code, line));
            }
        }
    }

    pub(crate) fn expect(&mut self, wanted: u16) -> Outcome<String> {
        let (code, line) = self.reply()?;
        // 150 and 125, 226 and 250 mean the same (RFC 959 §5.4).
        let same = matches!((wanted, code), (150, 125) | (226, 250));
        if code != wanted && !same {
            return Err(format!("{wanted} expected: {}", line.trim_end()).into());
        }
        Ok(line)
    }

    pub(crate) fn command(&mut self, line: &str, wanted: u16) -> Outcome<String> {
        self.send(line)?;
        self.expect(wanted)
    }

    /// A data connection for `line`, once the server has said 150.
    pub(crate) fn transfer(&mut self, line: &str) -> Outcome<Wire> {
        let reply = self.command("EPSV", 229)?;
        let port = reply.split('|').nth(3).and_then(|port| port.parse().ok());
        let port = port.ok_or_else(|| format!("no port in {reply:?}"))?;
        let stream = connect(SocketAddr::new(self.server.ip(), port))?;
        self.send(line)?;
        self.expect(150)?;
        match &self.tls {
            None => Ok(Wire::Plain(stream)),
            Some(config) => wrap(stream, config),
        }
    }

    /// The size of a file in bytes, RFC 3659 section 4.
    pub(crate) fn size(&mut self, path: &str) -> Outcome<u64> {
        let reply = self.command(&format!("SIZE {path}"), 213)?;
        let size = reply.split(' ').nth(1).map(|size| size.trim().parse());
        Ok(size.ok_or_else(|| format!("no size in {reply:?}"))??)
    }

    /// Downloads and discards; the number of bytes.
    pub(crate) fn fetch(&mut self, path: &str) -> Outcome<u64> {
        let mut data = self.transfer(&format!("RETR {path}"))?;
        let bytes = discard(&mut data)?;
        drop(data);
        self.expect(226)?;
        Ok(bytes)
    }

    /// Uploads the first `bytes` of `source`, which holds nothing but zeros.
    pub(crate) fn store(&mut self, path: &str, source: &File, bytes: u64) -> Outcome<()> {
        let mut data = self.transfer(&format!("STOR {path}"))?;
        pour(&mut data, source, bytes)?;
        drop(data);
        self.expect(226)?;
        Ok(())
    }
}

/// Reads to the end; plain bytes are thrown away in the kernel.
pub(crate) fn discard(data: &mut Wire) -> Outcome<u64> {
    let mut total = 0;
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let count = match data {
            Wire::Plain(stream) => discard_some(stream, &mut buffer)?,
            Wire::Tls(stream) => discard_decrypted(stream)?,
        };
        if count == 0 {
            return Ok(total);
        }
        total += u64::try_from(count)?;
    }
}

pub(crate) fn discard_some(stream: &TcpStream, buffer: &mut [u8]) -> Outcome<usize> {
    // MSG_TRUNC on TCP: the bytes are taken off the queue and not copied, tcp(7).
    let (_, length) = recv(stream, buffer, RecvFlags::TRUNC)?;
    Ok(length)
}

fn discard_decrypted(stream: &mut impl io::BufRead) -> Outcome<usize> {
    let length = match stream.fill_buf() {
        Ok(content) => content.len(),
        // Not everyone says close_notify; sizes are checked anyway.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
        Err(error) => return Err(error.into()),
    };
    stream.consume(length);
    Ok(length)
}

/// Sends `bytes` bytes and ends the stream.
pub(crate) fn pour(data: &mut Wire, source: &File, bytes: u64) -> Outcome<()> {
    match data {
        Wire::Plain(stream) => {
            send_file(stream, source, bytes)?;
            stream.shutdown(std::net::Shutdown::Write)?;
        }
        Wire::Tls(stream) => {
            let zeros = vec![0; PIECE_BYTES];
            let mut left = bytes;
            while left > 0 {
                let piece = usize::try_from(left.min(u64::try_from(PIECE_BYTES)?))?;
                stream.write_all(zeros.get(..piece).unwrap_or(&zeros))?;
                left -= u64::try_from(piece)?;
            }
            stream.conn.send_close_notify();
            stream.flush()?;
            stream.sock.get_ref().shutdown(std::net::Shutdown::Write)?;
            // What the server has to say must be read, or closing resets.
            let _ = io::copy(stream, &mut io::sink());
        }
    }
    Ok(())
}

pub(crate) fn send_file(stream: &TcpStream, source: &File, bytes: u64) -> Outcome<()> {
    let mut offset = 0;
    while offset < bytes {
        let piece = usize::try_from((bytes - offset).min(1 << 30))?;
        if rustix::fs::sendfile(stream, source, Some(&mut offset), piece)? == 0 {
            return Err("the source is too short".into());
        }
    }
    Ok(())
}

pub(crate) fn connect(address: SocketAddr) -> Outcome<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn wrap(stream: TcpStream, config: &Arc<ClientConfig>) -> Outcome<Wire> {
    let name = ServerName::try_from("localhost")?;
    let connection = ClientConnection::new(Arc::clone(config), name)?;
    let mut stream = StreamOwned::new(connection, ReadAhead::new(stream));
    // What is sent goes to the system with as few calls.
    stream.conn.set_buffer_limit(Some(2 * PIECE_BYTES));
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(Wire::Tls(Box::new(stream)))
}

/// A client that trusts every certificate: the servers are of this machine and
/// this minute, and who they are is not what is measured.
fn trusting() -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Arc::new(TrustsEveryone(Arc::clone(&provider)));
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth()
}

#[derive(Debug)]
struct TrustsEveryone(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustsEveryone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
