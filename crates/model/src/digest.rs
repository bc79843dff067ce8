//! Digests: the algorithms by which the two ends of a transfer compare what they hold.

use std::fmt;
use std::str::FromStr;

use md5::Md5;
use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha512};

/// A digest algorithm, by its name in the IANA registry that the FTP `HASH`
/// draft refers to (plus `BLAKE3`, which is ours).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DigestAlgorithm {
    /// BLAKE3, 32 bytes; what Wharf uses with Wharf.
    Blake3,
    /// SHA-512 (FIPS 180-4).
    Sha512,
    /// SHA-256 (FIPS 180-4).
    Sha256,
    /// SHA-1 (FIPS 180-4): against accidents only, not against an attacker.
    Sha1,
    /// MD5 (RFC 1321): against accidents only.
    Md5,
    /// CRC-32 as in IEEE 802.3: against accidents only.
    Crc32,
}

impl DigestAlgorithm {
    /// Every algorithm, in the order of preference.
    pub const ALL: [Self; 6] = [
        Self::Blake3,
        Self::Sha512,
        Self::Sha256,
        Self::Sha1,
        Self::Md5,
        Self::Crc32,
    ];

    /// The name on the wire, such as `SHA-256`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Blake3 => "BLAKE3",
            Self::Sha512 => "SHA-512",
            Self::Sha256 => "SHA-256",
            Self::Sha1 => "SHA-1",
            Self::Md5 => "MD5",
            Self::Crc32 => "CRC32",
        }
    }

    /// Length of the digest in bytes.
    pub const fn digest_bytes(self) -> usize {
        match self {
            Self::Blake3 | Self::Sha256 => 32,
            Self::Sha512 => 64,
            Self::Sha1 => 20,
            Self::Md5 => 16,
            Self::Crc32 => 4,
        }
    }
}

impl fmt::Display for DigestAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Parses a name in any case, with or without its hyphen: `SHA-256`, `sha256`.
impl FromStr for DigestAlgorithm {
    type Err = UnknownAlgorithm;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let plain = |text: &str| text.replace('-', "").to_ascii_uppercase();
        Self::ALL
            .into_iter()
            .find(|algorithm| plain(algorithm.name()) == plain(name))
            .ok_or(UnknownAlgorithm)
    }
}

/// A name that is none of [`DigestAlgorithm::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown digest algorithm; known are BLAKE3, SHA-512, SHA-256, SHA-1, MD5 and CRC32")]
pub struct UnknownAlgorithm;

/// A finished digest. Shows itself in lower-case hexadecimal.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Digest {
    algorithm: DigestAlgorithm,
    /// Invariant: `bytes.len() == algorithm.digest_bytes()`.
    bytes: Box<[u8]>,
}

impl Digest {
    /// Parses hexadecimal digits in any case; `None` when they are not a
    /// digest of `algorithm`.
    pub fn parse_hex(algorithm: DigestAlgorithm, text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != algorithm.digest_bytes() * 2 {
            return None;
        }
        let nibble = |digit: u8| {
            char::from(digit)
                .to_digit(16)
                .and_then(|value| u8::try_from(value).ok())
        };
        let bytes = digits
            .chunks_exact(2)
            .map(|pair| match pair {
                [high, low] => Some(nibble(*high)? << 4 | nibble(*low)?),
                _ => None,
            })
            .collect::<Option<Box<[u8]>>>()?;
        Some(Self { algorithm, bytes })
    }

    /// Which algorithm made it.
    pub fn algorithm(&self) -> DigestAlgorithm {
        self.algorithm
    }

    /// The digest's bytes, in the order in which the algorithm's hexadecimal form is written.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{self}", self.algorithm)
    }
}

/// A digest in the making; feed it content in order.
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Blake3(Box<blake3::Hasher>),
    Sha512(Sha512),
    Sha256(Sha256),
    Sha1(Sha1),
    Md5(Md5),
    Crc32(crc32fast::Hasher),
}

impl Hasher {
    /// An empty digest of `algorithm`.
    pub fn new(algorithm: DigestAlgorithm) -> Self {
        Self(match algorithm {
            DigestAlgorithm::Blake3 => State::Blake3(Box::new(blake3::Hasher::new())),
            DigestAlgorithm::Sha512 => State::Sha512(Sha512::new()),
            DigestAlgorithm::Sha256 => State::Sha256(Sha256::new()),
            DigestAlgorithm::Sha1 => State::Sha1(Sha1::new()),
            DigestAlgorithm::Md5 => State::Md5(Md5::new()),
            DigestAlgorithm::Crc32 => State::Crc32(crc32fast::Hasher::new()),
        })
    }

    /// Takes in the next piece of content.
    pub fn update(&mut self, content: &[u8]) {
        match &mut self.0 {
            State::Blake3(state) => {
                state.update(content);
            }
            State::Sha512(state) => state.update(content),
            State::Sha256(state) => state.update(content),
            State::Sha1(state) => state.update(content),
            State::Md5(state) => state.update(content),
            State::Crc32(state) => state.update(content),
        }
    }

    /// The digest of everything taken in.
    pub fn finish(self) -> Digest {
        let (algorithm, bytes): (_, Box<[u8]>) = match self.0 {
            State::Blake3(state) => (
                DigestAlgorithm::Blake3,
                Box::from(&state.finalize().as_bytes()[..]),
            ),
            State::Sha512(state) => (DigestAlgorithm::Sha512, Box::from(&state.finalize()[..])),
            State::Sha256(state) => (DigestAlgorithm::Sha256, Box::from(&state.finalize()[..])),
            State::Sha1(state) => (DigestAlgorithm::Sha1, Box::from(&state.finalize()[..])),
            State::Md5(state) => (DigestAlgorithm::Md5, Box::from(&state.finalize()[..])),
            State::Crc32(state) => (
                DigestAlgorithm::Crc32,
                Box::from(&state.finalize().to_be_bytes()[..]),
            ),
        };
        Digest { algorithm, bytes }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each algorithm's published digest of "abc" (FIPS 180-4 examples, RFC
    /// 1321 §A.5, BLAKE3 test data); CRC-32 of "123456789" is its check value.
    #[test]
    fn digests_agree_with_the_published_examples() {
        let vectors = [
            (
                "BLAKE3",
                "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85",
            ),
            (
                "SHA-512",
                "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                 2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
            ),
            (
                "SHA-256",
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            ),
            ("SHA-1", "a9993e364706816aba3e25717850c26c9cd0d89d"),
            ("MD5", "900150983cd24fb0d6963f7d28e17f72"),
        ];
        for (name, expected) in vectors {
            let mut hasher = Hasher::new(name.parse().expect("a known name"));
            hasher.update(b"a");
            hasher.update(b"bc");
            assert_eq!(hasher.finish().to_string(), expected, "{name}");
        }
        let mut crc = Hasher::new(DigestAlgorithm::Crc32);
        crc.update(b"123456789");
        assert_eq!(crc.finish().to_string(), "cbf43926");
    }

    #[test]
    fn hexadecimal_parses_only_at_the_right_length() {
        let digest = Digest::parse_hex(DigestAlgorithm::Crc32, "CBF43926").expect("eight digits");
        assert_eq!(digest.as_bytes(), [0xcb, 0xf4, 0x39, 0x26]);
        assert_eq!(Digest::parse_hex(DigestAlgorithm::Crc32, "cbf4392"), None);
        assert_eq!(Digest::parse_hex(DigestAlgorithm::Crc32, "cbf4392g"), None);
        assert_eq!(Digest::parse_hex(DigestAlgorithm::Crc32, "+bf43926"), None);
    }

    #[test]
    fn names_parse_in_any_case_with_or_without_hyphen() {
        assert_eq!("sha256".parse(), Ok(DigestAlgorithm::Sha256));
        assert_eq!("Sha-512".parse(), Ok(DigestAlgorithm::Sha512));
        assert_eq!(
            "whirlpool".parse::<DigestAlgorithm>(),
            Err(UnknownAlgorithm)
        );
    }
}
