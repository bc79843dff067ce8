//! Where a server listens or a client connects: four kinds of address, and their text.
//!
//! ```text
//! tcp:127.0.0.1:2121    tcp:[::]:2121    udp:[::1]:9
//! unix:/run/x.sock      unix:@abstract   unixgram:/run/y.sock
//! ```

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use socket2::{SockAddr, Type};

/// An address that a server can listen on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// TCP over IPv4 or IPv6; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// UDP over IPv4 or IPv6; port 0 lets the system choose.
    Udp(SocketAddr),
    /// A Unix socket for streams.
    Unix(UnixName),
    /// A Unix socket for datagrams.
    UnixDatagram(UnixName),
}

impl Endpoint {
    /// The endpoints that a text stands for: one where it has an address, and
    /// one for each address of a name (`tcp:localhost:80`), in the resolver's order.
    ///
    /// # Errors
    /// [`EndpointError`], which names the text.
    pub async fn resolve(text: &str) -> Result<Vec<Self>, EndpointError> {
        let error = match text.parse() {
            Ok(endpoint) => return Ok(vec![endpoint]),
            Err(error @ EndpointError::NotAnAddress { .. }) => error,
            Err(error) => return Err(error),
        };
        let Some((kind, host)) = text.split_once(':') else {
            return Err(error);
        };
        let endpoint: fn(SocketAddr) -> Self = if kind == "tcp" { Self::Tcp } else { Self::Udp };
        let resolved = tokio::net::lookup_host(host).await;
        let addresses = resolved.map_err(|source| EndpointError::NotResolved {
            text: text.to_owned(),
            source,
        })?;
        Ok(addresses.map(endpoint).collect())
    }

    /// The address of a TCP or UDP endpoint.
    pub fn socket_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) | Self::Udp(address) => Some(*address),
            Self::Unix(_) | Self::UnixDatagram(_) => None,
        }
    }

    /// The name of a Unix endpoint.
    pub fn unix_name(&self) -> Option<&UnixName> {
        match self {
            Self::Unix(name) | Self::UnixDatagram(name) => Some(name),
            Self::Tcp(_) | Self::Udp(_) => None,
        }
    }

    /// Whether it carries datagrams and not streams.
    pub fn is_datagram(&self) -> bool {
        matches!(self, Self::Udp(_) | Self::UnixDatagram(_))
    }

    /// The same kind of endpoint at the address that a socket has.
    pub(crate) fn at(&self, address: &SockAddr) -> Self {
        let ip = address.as_socket();
        let name = UnixName::of(address);
        match (self, ip, name) {
            (Self::Tcp(_), Some(ip), _) => Self::Tcp(ip),
            (Self::Udp(_), Some(ip), _) => Self::Udp(ip),
            (Self::Unix(_), _, Some(name)) => Self::Unix(name),
            (Self::UnixDatagram(_), _, Some(name)) => Self::UnixDatagram(name),
            _ => self.clone(),
        }
    }

    /// What the system calls it.
    ///
    /// # Errors
    /// A Unix name is too long.
    pub(crate) fn to_socket_address(&self) -> io::Result<SockAddr> {
        match self {
            Self::Tcp(address) | Self::Udp(address) => Ok((*address).into()),
            Self::Unix(name) | Self::UnixDatagram(name) => name.to_socket_address(),
        }
    }

    pub(crate) fn socket_type(&self) -> Type {
        if self.is_datagram() {
            Type::DGRAM
        } else {
            Type::STREAM
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Tcp(_) => "tcp",
            Self::Udp(_) => "udp",
            Self::Unix(_) => "unix",
            Self::UnixDatagram(_) => "unixgram",
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.kind())?;
        match self {
            Self::Tcp(address) | Self::Udp(address) => address.fmt(f),
            Self::Unix(name) | Self::UnixDatagram(name) => name.fmt(f),
        }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        let address = || {
            rest.parse().map_err(|_| EndpointError::NotAnAddress {
                text: text.to_owned(),
            })
        };
        let name = || UnixName::parse(rest).ok_or_else(|| EndpointError::NotAName(text.to_owned()));
        match kind {
            "tcp" => Ok(Self::Tcp(address()?)),
            "udp" => Ok(Self::Udp(address()?)),
            "unix" => Ok(Self::Unix(name()?)),
            "unixgram" => Ok(Self::UnixDatagram(name()?)),
            _ => Err(EndpointError::UnknownKind(text.to_owned())),
        }
    }
}

/// The name of a Unix socket: neither is empty, and neither has a NUL.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum UnixName {
    /// A file.
    Path(PathBuf),
    /// A name of Linux's abstract namespace, without its leading NUL: no file,
    /// and gone with the last socket that has it.
    Abstract(Vec<u8>),
}

impl UnixName {
    /// A path, or an abstract name after `@`.
    fn parse(text: &str) -> Option<Self> {
        if text.contains('\0') {
            return None;
        }
        match text.strip_prefix('@') {
            Some("") => None,
            Some(name) => Some(Self::Abstract(name.as_bytes().to_vec())),
            None if text.is_empty() => None,
            None => Some(Self::Path(text.into())),
        }
    }

    /// The name that a socket has, if it has one.
    pub(crate) fn of(address: &SockAddr) -> Option<Self> {
        match address.as_abstract_namespace() {
            Some(name) => Some(Self::Abstract(name.to_vec())),
            None => Some(Self::Path(address.as_pathname()?.to_path_buf())),
        }
    }

    /// The name that a socket of the runtime has, if it has one.
    pub(crate) fn of_runtime(address: &tokio::net::unix::SocketAddr) -> Option<Self> {
        match address.as_abstract_name() {
            Some(name) => Some(Self::Abstract(name.to_vec())),
            None => Some(Self::Path(address.as_pathname()?.to_path_buf())),
        }
    }

    /// The bytes that stand in `sun_path`: an abstract name begins with a NUL there.
    pub(crate) fn to_os_path(&self) -> PathBuf {
        match self {
            Self::Path(path) => path.clone(),
            Self::Abstract(name) => {
                let bytes = [&[0], name.as_slice()].concat();
                Path::new(OsStr::from_bytes(&bytes)).to_path_buf()
            }
        }
    }

    /// What the system calls it.
    ///
    /// # Errors
    /// It is too long.
    pub(crate) fn to_socket_address(&self) -> io::Result<SockAddr> {
        SockAddr::unix(self.to_os_path())
    }
}

/// A peer chooses its name, so what a terminal or a log would act on is escaped.
impl fmt::Display for UnixName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Path(path) => path.to_string_lossy(),
            Self::Abstract(name) => {
                f.write_str("@")?;
                String::from_utf8_lossy(name)
            }
        };
        for character in text.chars() {
            match character {
                '"' | '\'' | '\\' => write!(f, "{character}")?,
                _ => write!(f, "{}", character.escape_debug())?,
            }
        }
        Ok(())
    }
}

/// A text that is no endpoint.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// Another kind than the four, or none.
    #[error(
        "{0:?} does not begin with tcp:, udp:, unix: or unixgram:, such as tcp:127.0.0.1:2121 or unix:/run/x.sock"
    )]
    UnknownKind(String),
    /// No IP address with a port. [`Endpoint::resolve`] takes names too.
    #[error("{text:?} has no IP address with a port, such as 127.0.0.1:2121 or [::1]:2121")]
    NotAnAddress {
        /// What was given.
        text: String,
    },
    /// No name of a Unix socket.
    #[error("{0:?} has neither a path nor an abstract name after @")]
    NotAName(String),
    /// The name of a host has no address.
    #[error("cannot find the address of {text:?}")]
    NotResolved {
        /// What was given.
        text: String,
        /// What the resolver said.
        #[source]
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_an_endpoint_reads_back_as_itself() {
        for text in [
            "tcp:127.0.0.1:2121",
            "tcp:[::]:0",
            "udp:[::1]:9",
            "udp:192.0.2.1:65535",
            "unix:/run/x.sock",
            "unix:x.sock",
            "unix:@name with blanks",
            "unixgram:/run/ü.sock",
            "unixgram:@n",
        ] {
            let endpoint: Endpoint = text.parse().expect(text);
            assert_eq!(endpoint.to_string(), text);
        }
    }

    #[test]
    fn a_text_that_is_no_endpoint_says_what_one_is() {
        for (text, hint) in [
            ("", "tcp:"),
            ("127.0.0.1:2121", "tcp:"),
            ("http:x", "unixgram:"),
            ("tcp:", "127.0.0.1:2121"),
            ("tcp:localhost:80", "127.0.0.1:2121"),
            ("tcp:127.0.0.1", "port"),
            ("udp:127.0.0.1:65536", "port"),
            ("unix:", "path"),
            ("unix:@", "abstract"),
            ("unixgram:/a\0b", "path"),
        ] {
            let error = text.parse::<Endpoint>().expect_err(text).to_string();
            assert!(error.contains(hint), "{error}");
        }
    }

    #[test]
    fn a_name_that_a_peer_chose_forges_no_line() {
        let name = UnixName::Path("/tmp/a\nb\u{202e}c".into());
        assert_eq!(name.to_string(), "/tmp/a\\nb\\u{202e}c");
        let name = UnixName::Abstract(b"x\x1b[2J".to_vec());
        assert_eq!(name.to_string(), "@x\\u{1b}[2J");
    }

    #[tokio::test]
    async fn a_name_of_a_host_resolves_to_its_addresses() {
        let endpoints = Endpoint::resolve("udp:localhost:9")
            .await
            .expect("localhost");
        assert!(!endpoints.is_empty());
        for endpoint in endpoints {
            assert!(matches!(endpoint, Endpoint::Udp(_)));
            let address = endpoint.socket_address().expect("an address");
            assert!(address.ip().is_loopback());
            assert_eq!(address.port(), 9);
        }
        let error = Endpoint::resolve("tcp:no-such-host.invalid:1").await;
        assert!(matches!(error, Err(EndpointError::NotResolved { .. })));
        let error = Endpoint::resolve("gopher:localhost:70").await;
        assert!(matches!(error, Err(EndpointError::UnknownKind(_))));
    }
}
