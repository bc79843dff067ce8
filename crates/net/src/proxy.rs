//! The PROXY protocol, versions 1 and 2: how a proxy tells whose connection it passes on.
//!
//! The header is parsed by a pure function over what has come so far. It says
//! how many bytes are missing at least, so that its reader takes every byte of
//! the header and none behind it, which belongs to the service.
//!
//! Source: the HAProxy project's `doc/proxy-protocol.txt`, revision of 2020-03-05.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::Peer;

/// From whom a server takes PROXY headers. Everyone else is refused: whoever
/// may send one says as whom they are treated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyRules {
    /// Where the proxies are.
    pub trusted: Vec<IpNet>,
    /// Whether whoever may connect to a Unix socket is a proxy.
    pub trust_unix: bool,
    /// How long the header may take.
    pub deadline: Duration,
}

impl ProxyRules {
    /// The proxies of these networks, with the deadline that the protocol recommends at least.
    pub fn new(trusted: Vec<IpNet>) -> Self {
        Self {
            trusted,
            trust_unix: false,
            // §2: "at least 3 seconds to cover a TCP retransmit".
            deadline: Duration::from_secs(5),
        }
    }

    pub(crate) fn trusts(&self, peer: &Peer) -> bool {
        match peer.ip() {
            Some(ip) => self.trusted.iter().any(|network| network.contains(&ip)),
            None => self.trust_unix,
        }
    }
}

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeader {
    /// The proxy speaks for itself, as for health checks, or says nothing that
    /// is understood: the real addresses hold.
    Own,
    /// It passes a connection on.
    Announced {
        /// Whose connection it is.
        source: SocketAddr,
        /// Where they connected to.
        destination: SocketAddr,
    },
}

/// How far a header has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyProgress {
    /// At least so many bytes are missing; never 0.
    Missing(usize),
    /// It is whole.
    Whole(ProxyHeader),
}

/// Why bytes are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// The first bytes are of neither version.
    #[error("no PROXY header came first")]
    NoHeader,
    /// Version 1 does not end its line within 107 bytes.
    #[error("the PROXY line is longer than {MAX_LINE_BYTES} bytes")]
    LongLine,
    /// Version 1 is not in its form.
    #[error("the PROXY line is malformed")]
    BadLine,
    /// A version, command or family that the protocol does not have.
    #[error("the PROXY header has an unknown version, command or family")]
    Unknown,
    /// Version 2 announces addresses that its length cannot hold.
    #[error("the PROXY header is too short for its addresses")]
    ShortAddresses,
    /// Version 2 is longer than this server takes.
    #[error("the PROXY header has {0} bytes behind its begin, and {MAX_BINARY_BYTES} are taken")]
    LongHeader(u16),
}

/// "A 108-byte buffer is always enough", with a NUL (§2.1).
const MAX_LINE_BYTES: usize = 107;
/// The shortest line is `PROXY UNKNOWN` and its end.
const MIN_LINE_BYTES: usize = 15;
const LINE_START: &[u8] = b"PROXY ";
const LINE_END: &[u8] = b"\r\n";

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length (§2.2).
const BINARY_START_BYTES: usize = 16;
/// Addresses take 216 at most; what follows (TLVs) may hold a client's certificate.
const MAX_BINARY_BYTES: u16 = 4096;

/// Parses what has come so far. Must be called with nothing first: where a
/// header cannot be told from the first bytes, it asks for few, so that a peer
/// that sends none is known at its first wrong byte.
///
/// # Errors
/// [`ProxyError`]: no header can come of these bytes.
pub fn parse_proxy(bytes: &[u8]) -> Result<ProxyProgress, ProxyError> {
    if bytes.is_empty() {
        return Ok(ProxyProgress::Missing(1));
    }
    if starts_alike(bytes, LINE_START) {
        return parse_line(bytes);
    }
    if starts_alike(bytes, &SIGNATURE) {
        return parse_binary(bytes);
    }
    Err(ProxyError::NoHeader)
}

/// Whether `bytes` may be the begin of something that starts with `start`.
fn starts_alike(bytes: &[u8], start: &[u8]) -> bool {
    bytes.iter().zip(start).all(|(byte, wanted)| byte == wanted)
}

fn parse_line(bytes: &[u8]) -> Result<ProxyProgress, ProxyError> {
    let Some(line) = bytes.strip_suffix(LINE_END) else {
        // A line feed ends the line for whoever wrote it.
        if bytes.contains(&b'\n') {
            return Err(ProxyError::BadLine);
        }
        if bytes.len() >= MAX_LINE_BYTES {
            return Err(ProxyError::LongLine);
        }
        let end = if bytes.last() == Some(&b'\r') { 1 } else { 2 };
        let missing = MIN_LINE_BYTES.saturating_sub(bytes.len()).max(end);
        return Ok(ProxyProgress::Missing(
            missing.min(MAX_LINE_BYTES - bytes.len()),
        ));
    };
    let line = std::str::from_utf8(line).map_err(|_| ProxyError::BadLine)?;
    let header = line_header(line).ok_or(ProxyError::BadLine)?;
    Ok(ProxyProgress::Whole(header))
}

fn line_header(line: &str) -> Option<ProxyHeader> {
    let mut words = line.split(' ').skip(1);
    let family = words.next()?;
    if family == "UNKNOWN" {
        // "The receiver must ignore anything presented before the CRLF" (§2.1).
        return Some(ProxyHeader::Own);
    }
    let mut address = || -> Option<IpAddr> {
        let word = words.next()?;
        match family {
            "TCP4" => Ipv4Addr::from_str(word).ok().map(IpAddr::V4),
            "TCP6" => Ipv6Addr::from_str(word).ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let (source, destination) = (address()?, address()?);
    let (from, to) = (port(words.next()?)?, port(words.next()?)?);
    match words.next() {
        None => Some(ProxyHeader::Announced {
            source: SocketAddr::new(source, from),
            destination: SocketAddr::new(destination, to),
        }),
        Some(_) => None,
    }
}

/// Digits without a leading zero.
fn port(word: &str) -> Option<u16> {
    let plain = word.bytes().all(|byte| byte.is_ascii_digit());
    let leading = word.len() > 1 && word.starts_with('0');
    if plain && !leading {
        word.parse().ok()
    } else {
        None
    }
}

fn parse_binary(bytes: &[u8]) -> Result<ProxyProgress, ProxyError> {
    let Some((start, rest)) = bytes.split_first_chunk::<BINARY_START_BYTES>() else {
        return Ok(ProxyProgress::Missing(BINARY_START_BYTES - bytes.len()));
    };
    let [.., command, family, high, low] = *start;
    let own = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(ProxyError::Unknown),
    };
    let length = u16::from_be_bytes([high, low]);
    if length > MAX_BINARY_BYTES {
        return Err(ProxyError::LongHeader(length));
    }
    if rest.len() < usize::from(length) {
        return Ok(ProxyProgress::Missing(usize::from(length) - rest.len()));
    }
    let header = if own {
        ProxyHeader::Own
    } else {
        binary_header(family, rest)?
    };
    Ok(ProxyProgress::Whole(header))
}

/// Family in the high half, transport in the low one (§2.2).
fn binary_header(family: u8, addresses: &[u8]) -> Result<ProxyHeader, ProxyError> {
    match family {
        // UNSPEC; and Unix sockets, whose names say nothing about a peer.
        0x00 | 0x31 => Ok(ProxyHeader::Own),
        0x11 => announced(addresses, |bytes: [u8; 4]| bytes.into()),
        0x21 => announced(addresses, |bytes: [u8; 16]| bytes.into()),
        _ => Err(ProxyError::Unknown),
    }
}

/// Two addresses, two ports; what follows (TLVs) is passed over.
fn announced<const N: usize>(
    bytes: &[u8],
    address: fn([u8; N]) -> IpAddr,
) -> Result<ProxyHeader, ProxyError> {
    let read = || {
        let (source, rest) = bytes.split_first_chunk::<N>()?;
        let (destination, rest) = rest.split_first_chunk::<N>()?;
        let (from, rest) = rest.split_first_chunk::<2>()?;
        let (to, _) = rest.split_first_chunk::<2>()?;
        Some(ProxyHeader::Announced {
            source: SocketAddr::new(address(*source), u16::from_be_bytes(*from)),
            destination: SocketAddr::new(address(*destination), u16::from_be_bytes(*to)),
        })
    };
    read().ok_or(ProxyError::ShortAddresses)
}

/// Reads a header and no byte more. Dropping the future midway leaves a stream
/// that is of no use.
///
/// # Errors
/// What reading says, and `InvalidData` with a [`ProxyError`].
pub async fn read_proxy<R: AsyncRead + Unpin>(stream: &mut R) -> io::Result<ProxyHeader> {
    let mut bytes = Vec::with_capacity(MAX_LINE_BYTES + 1);
    loop {
        let progress = parse_proxy(&bytes)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        match progress {
            ProxyProgress::Whole(header) => return Ok(header),
            ProxyProgress::Missing(missing) => {
                let start = bytes.len();
                bytes.resize(start + missing, 0);
                let (_, rest) = bytes.split_at_mut(start);
                stream.read_exact(rest).await?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announced(source: &str, destination: &str) -> ProxyHeader {
        ProxyHeader::Announced {
            source: source.parse().expect("an address"),
            destination: destination.parse().expect("an address"),
        }
    }

    /// Signature, the four bytes behind it, and the rest.
    fn binary(start: [u8; 4], rest: &[u8]) -> Vec<u8> {
        let signature = [
            0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A,
        ];
        [&signature[..], &start, rest].concat()
    }

    /// The examples of §2.1, and headers of §2.2 made by hand from its tables.
    fn headers() -> Vec<(Vec<u8>, ProxyHeader)> {
        let longest_line = format!(
            "PROXY TCP6 {ones} {ones} 65535 65535\r\n",
            ones = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
        );
        let longest_unknown = format!(
            "PROXY UNKNOWN {ones} {ones} 65535 65535\r\n",
            ones = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
        );
        assert_eq!(longest_line.len(), 104);
        assert_eq!(longest_unknown.len(), 107);
        let ones = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535";
        let v4 = [192, 0, 2, 1, 198, 51, 100, 2, 0xC3, 0x50, 0x00, 0x15];
        let v6 = [
            0x20, 0x01, 0x0D, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, //
            0x20, 0x01, 0x0D, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, //
            0xC3, 0x50, 0x00, 0x15,
        ];
        // PP2_TYPE_UNIQUE_ID with three bytes, PP2_TYPE_NOOP with none.
        let tlvs = [0x05, 0x00, 0x03, b'a', b'b', b'c', 0x04, 0x00, 0x00];
        let mut longest = v4.to_vec();
        longest.resize(4096, 0);
        vec![
            (
                b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n".to_vec(),
                announced("255.255.255.255:65535", "255.255.255.255:65535"),
            ),
            (
                b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n".to_vec(),
                announced("192.168.0.1:56324", "192.168.0.11:443"),
            ),
            (longest_line.into_bytes(), announced(ones, ones)),
            (b"PROXY UNKNOWN\r\n".to_vec(), ProxyHeader::Own),
            (longest_unknown.into_bytes(), ProxyHeader::Own),
            (
                binary([0x21, 0x11, 0, 12], &v4),
                announced("192.0.2.1:50000", "198.51.100.2:21"),
            ),
            (
                binary([0x21, 0x11, 0, 21], &[&v4[..], &tlvs].concat()),
                announced("192.0.2.1:50000", "198.51.100.2:21"),
            ),
            (
                binary([0x21, 0x21, 0, 36], &v6),
                announced("[2001:db8::1]:50000", "[2001:db8::2]:21"),
            ),
            (binary([0x20, 0x00, 0, 0], &[]), ProxyHeader::Own),
            (binary([0x20, 0x11, 0, 12], &v4), ProxyHeader::Own),
            (binary([0x21, 0x00, 0, 9], &tlvs), ProxyHeader::Own),
            (binary([0x21, 0x31, 0, 216], &[b'/'; 216]), ProxyHeader::Own),
            (
                binary([0x21, 0x11, 0x10, 0x00], &longest),
                announced("192.0.2.1:50000", "198.51.100.2:21"),
            ),
        ]
    }

    #[test]
    fn the_examples_of_the_specification_are_understood() {
        for (bytes, header) in headers() {
            let parsed = parse_proxy(&bytes);
            assert_eq!(parsed, Ok(ProxyProgress::Whole(header)), "{bytes:?}");
        }
    }

    #[test]
    fn every_begin_of_a_header_asks_for_more_and_never_for_too_much() {
        for (bytes, _) in headers() {
            for cut in 0..bytes.len() {
                let Ok(ProxyProgress::Missing(missing)) = parse_proxy(&bytes[..cut]) else {
                    panic!("{cut} bytes of {bytes:?}");
                };
                assert!((1..=bytes.len() - cut).contains(&missing), "{cut}");
            }
        }
    }

    #[tokio::test]
    async fn a_header_that_comes_in_two_parts_is_read_to_its_end_and_no_further() {
        for (bytes, header) in headers() {
            let whole = [&bytes[..], b"220 what the peer said"].concat();
            for cut in [1, 5, 12, 15, 16, 17, bytes.len() - 1, bytes.len()] {
                let cut = cut.min(bytes.len());
                let (first, second) = whole.split_at(cut);
                let mut stream = first.chain(second);
                let read = read_proxy(&mut stream).await.expect("a header");
                assert_eq!(read, header);
                let mut rest = String::new();
                stream.read_to_string(&mut rest).await.expect("reads");
                assert_eq!(rest, "220 what the peer said");
            }
        }
    }

    #[test]
    fn what_is_no_header_is_known_as_soon_as_it_can_be() {
        let oversized = binary([0x21, 0x11, 0x10, 0x01], &[]);
        let long_line = [b"PROXY TCP4 ".to_vec(), vec![b'1'; 96]].concat();
        for (bytes, error) in [
            (&b"G"[..], ProxyError::NoHeader),
            (b"USER alice\r\n", ProxyError::NoHeader),
            (b"PROXy", ProxyError::NoHeader),
            (b"\r\n\r\n\0\r\nQUIZ", ProxyError::NoHeader),
            (&long_line, ProxyError::LongLine),
            (b"PROXY TCP4 1\n2.3.4 5", ProxyError::BadLine),
            (b"PROXY TCP4\r\nUSER", ProxyError::BadLine),
            (b"PROXY \r\n", ProxyError::BadLine),
            (b"PROXY TCP5 1.2.3.4 1.2.3.4 1 1\r\n", ProxyError::BadLine),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", ProxyError::BadLine),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1 \r\n", ProxyError::BadLine),
            (b"PROXY TCP4  1.2.3.4 1.2.3.4 1 1\r\n", ProxyError::BadLine),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 1\r\n", ProxyError::BadLine),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 01 1\r\n", ProxyError::BadLine),
            (
                b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 1\r\n",
                ProxyError::BadLine,
            ),
            (b"PROXY TCP4 ::1 ::1 1 1\r\n", ProxyError::BadLine),
            (b"PROXY TCP6 1.2.3.4 ::1 1 1\r\n", ProxyError::BadLine),
            (
                b"PROXY TCP4 \xff.2.3.4 1.2.3.4 1 1\r\n",
                ProxyError::BadLine,
            ),
            (&binary([0x11, 0x11, 0, 0], &[]), ProxyError::Unknown),
            (&binary([0x22, 0x11, 0, 0], &[]), ProxyError::Unknown),
            (&binary([0x21, 0x12, 0, 12], &[0; 12]), ProxyError::Unknown),
            (&binary([0x21, 0x41, 0, 12], &[0; 12]), ProxyError::Unknown),
            (
                &binary([0x21, 0x11, 0, 11], &[0; 11]),
                ProxyError::ShortAddresses,
            ),
            (
                &binary([0x21, 0x21, 0, 12], &[0; 12]),
                ProxyError::ShortAddresses,
            ),
            (&oversized, ProxyError::LongHeader(4097)),
        ] {
            assert_eq!(parse_proxy(bytes), Err(error), "{bytes:?}");
        }
    }
}
