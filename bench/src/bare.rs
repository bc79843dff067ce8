//! The limit of workloads that are conversations: a server that knows just what they ask.
//!
//! A thread for each session, which blocks, does what first comes to mind, and checks nothing:
//! neither names nor rights nor limits. With a certificate it speaks TLS by the same library as
//! Wharf. It is a measure and no bound: a server that takes more trouble can be faster.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use crate::Outcome;
use crate::ftp::{ReadAhead, Wire};
use crate::limit::serve;

/// Bytes that are read and written at a time.
const PIECE_BYTES: u64 = 256 * 1024;

/// Ports for data connections: a power of two, and all of them dynamic (RFC 6335 §6).
const PORTS: u16 = 0x2000;

/// Serves what is in `home` to whoever asks, and takes whatever comes.
pub(crate) fn converse(home: &Path, certificate: Option<&Path>) -> Outcome<Value> {
    let host = Host {
        home: home.to_owned(),
        tls: certificate.map(accepting).transpose()?,
        next_port: AtomicU16::new(0),
    };
    serve(move |socket| host.hold(socket))
}

fn accepting(certificate: &Path) -> Outcome<Arc<ServerConfig>> {
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(certificate)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    Ok(Arc::new(config))
}

/// A connection of the server's.
type Line = Wire<ServerConnection>;

/// What all sessions share.
struct Host {
    home: PathBuf,
    tls: Option<Arc<ServerConfig>>,
    next_port: AtomicU16,
}

/// A control connection.
struct Control {
    line: BufReader<Line>,
    /// Replies to commands of which more are there already.
    unsaid: Vec<u8>,
}

impl Control {
    fn new(line: Line) -> Self {
        Self {
            line: BufReader::new(line),
            unsaid: Vec::new(),
        }
    }

    fn say(&mut self, reply: &[u8]) -> Outcome<()> {
        self.unsaid.extend_from_slice(reply);
        if self.line.buffer().is_empty() {
            self.line.get_mut().write_all(&self.unsaid)?;
            self.unsaid.clear();
        }
        Ok(())
    }
}

impl Host {
    /// A session, from the greeting on.
    fn hold(&self, socket: TcpStream) -> Outcome<()> {
        socket.set_nodelay(true)?;
        let mut control = Control::new(Line::Plain(socket));
        control.say(b"220 Bare.\r\n")?;
        let mut passive = None;
        let mut line = String::new();
        while control.line.read_line(&mut line)? > 0 {
            let asked = line.trim_end();
            let (verb, argument) = asked.split_once(' ').unwrap_or((asked, ""));
            match verb {
                "AUTH" => {
                    control.say(b"234 Go on.\r\n")?;
                    let Line::Plain(socket) = control.line.get_ref() else {
                        return Err("TLS is there already".into());
                    };
                    control = Control::new(self.wrap(socket.try_clone()?)?);
                }
                "USER" => control.say(b"331 Password.\r\n")?,
                "PASS" => control.say(b"230 Welcome.\r\n")?,
                "EPSV" => {
                    let listener = self.listen()?;
                    let port = listener.local_addr()?.port();
                    passive = Some(listener);
                    control.say(format!("229 Here (|||{port}|).\r\n").as_bytes())?;
                }
                "SIZE" => {
                    let size = self.home.join(argument).metadata()?.len();
                    control.say(format!("213 {size}\r\n").as_bytes())?;
                }
                "RETR" | "STOR" => {
                    let listener = passive.take().ok_or("no EPSV before")?;
                    self.transfer(verb, &self.home.join(argument), &listener, &mut control)?;
                }
                "QUIT" => return control.say(b"221 Bye.\r\n"),
                _ => control.say(b"200 Done.\r\n")?,
            }
            line.clear();
        }
        Ok(())
    }

    /// Listens on the next port that is free. Some thousands have been used within a minute, and
    /// the system, asked for any, takes milliseconds to find one that has not.
    fn listen(&self) -> io::Result<TcpListener> {
        let mut bound = Err(io::ErrorKind::AddrInUse.into());
        for _ in 0..PORTS {
            let next = self.next_port.fetch_add(1, Ordering::Relaxed) % PORTS;
            bound = TcpListener::bind((Ipv4Addr::LOCALHOST, u16::MAX - next));
            if !matches!(&bound, Err(error) if error.kind() == io::ErrorKind::AddrInUse) {
                break;
            }
        }
        bound
    }

    fn transfer(
        &self,
        verb: &str,
        path: &Path,
        listener: &TcpListener,
        control: &mut Control,
    ) -> Outcome<()> {
        let file = match verb {
            "RETR" => File::open(path)?,
            _ => File::create(path)?,
        };
        let (data, _) = listener.accept()?;
        control.say(b"150 Go on.\r\n")?;
        let mut data = match control.line.get_ref() {
            Line::Plain(_) => Line::Plain(data),
            Line::Tls(_) => self.wrap(data)?,
        };
        match verb {
            "RETR" => copy(file, &mut data)?,
            _ => copy(&mut data, file)?,
        }
        end(data)?;
        control.say(b"226 Done.\r\n")
    }

    fn wrap(&self, socket: TcpStream) -> Outcome<Line> {
        let config = self.tls.clone().ok_or("no certificate was given")?;
        let mut stream = StreamOwned::new(ServerConnection::new(config)?, ReadAhead::new(socket));
        // As many records as are there go to the system with one call.
        stream.conn.set_buffer_limit(None);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Line::Tls(Box::new(stream)))
    }
}

/// Says that nothing more comes.
fn end(data: Line) -> Outcome<()> {
    match data {
        Line::Plain(stream) => stream.shutdown(Shutdown::Write)?,
        Line::Tls(mut stream) => {
            stream.conn.send_close_notify();
            stream.flush()?;
        }
    }
    Ok(())
}

fn copy(mut from: impl Read, mut to: impl Write) -> Outcome<()> {
    let mut piece = Vec::with_capacity(usize::try_from(PIECE_BYTES)?);
    while from.by_ref().take(PIECE_BYTES).read_to_end(&mut piece)? > 0 {
        to.write_all(&piece)?;
        piece.clear();
    }
    Ok(())
}
