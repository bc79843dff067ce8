//! Digests by HASH with RANG, or by the commands that each make one kind.

use wharf_model::{ByteRange, Digest, DigestAlgorithm, VirtualPath};
use wharf_proto::ftp::reply::Reply;

use super::refusal::{is_not_understood, refusal};
use super::{FtpSession, LONGEST_DIGEST};
use crate::error::{ClientError, Waiting};

impl FtpSession {
    pub(super) async fn digest(
        &mut self,
        path: &VirtualPath,
        algorithm: DigestAlgorithm,
        range: Option<ByteRange>,
    ) -> Result<Digest, ClientError> {
        let reply = if self.features.hash.contains(&algorithm) {
            self.hash(path, algorithm, range).await?
        } else if let Some(verb) = self.features.own_command(algorithm) {
            let argument = own_command_argument(path, range);
            self.digest_reply(verb, &argument).await?
        } else {
            return Err(NO_DIGEST);
        };
        find_digest(algorithm, reply.text())
            .ok_or_else(|| ClientError::Protocol(format!("the reply holds no {algorithm} digest")))
    }

    /// HASH (draft-bryan-ftpext-hash), over what RANG chose (draft-bryan-ftp-range).
    async fn hash(
        &mut self,
        path: &VirtualPath,
        algorithm: DigestAlgorithm,
        range: Option<ByteRange>,
    ) -> Result<Reply, ClientError> {
        self.tell_hash(algorithm).await?;
        if let Some(range) = range {
            let Some(last) = range.end.checked_sub(1).filter(|_| self.features.range) else {
                return Err(NO_DIGEST);
            };
            let argument = format!("{} {last}", range.start);
            let reply = self.control.exchange("RANG", argument.as_bytes()).await?;
            if !reply.code().is_intermediate() && !reply.code().is_completion() {
                return Err(refusal_of_digest(&reply));
            }
        }
        self.digest_reply("HASH", path.as_bytes()).await
    }

    /// Makes HASH use `algorithm` from now on.
    pub(super) async fn tell_hash(
        &mut self,
        algorithm: DigestAlgorithm,
    ) -> Result<(), ClientError> {
        if self.hash_chosen == Some(algorithm) && self.told_hash {
            return Ok(());
        }
        let argument = format!("HASH {algorithm}");
        let reply = self.control.exchange("OPTS", argument.as_bytes()).await?;
        if !reply.code().is_completion() {
            return Err(refusal_of_digest(&reply));
        }
        self.hash_chosen = Some(algorithm);
        self.told_hash = true;
        Ok(())
    }

    async fn digest_reply(&mut self, verb: &str, argument: &[u8]) -> Result<Reply, ClientError> {
        let reply = self
            .control
            .exchange_within(verb, argument, Waiting::Digest, LONGEST_DIGEST)
            .await?;
        if !reply.code().is_completion() {
            return Err(refusal_of_digest(&reply));
        }
        Ok(reply)
    }
}

/// A path alone, or quoted and followed by the first byte and the one after the last.
fn own_command_argument(path: &VirtualPath, range: Option<ByteRange>) -> Vec<u8> {
    let Some(range) = range else {
        return path.as_bytes().to_vec();
    };
    let mut argument = Vec::with_capacity(path.as_bytes().len() + 44);
    argument.push(b'"');
    argument.extend_from_slice(path.as_bytes());
    argument.extend_from_slice(format!("\" {} {}", range.start, range.end).as_bytes());
    argument
}

/// The word that is the digest: some servers write it alone, some with the
/// algorithm, the range and the path around it.
fn find_digest(algorithm: DigestAlgorithm, text: &[u8]) -> Option<Digest> {
    let words = text
        .split(|byte| byte.is_ascii_whitespace() || *byte == b'=')
        .filter_map(|word| std::str::from_utf8(word).ok());
    words
        .clone()
        .find_map(|word| Digest::parse_hex(algorithm, word))
        // XCRC is often written as a number, without its leading zeros.
        .or_else(|| match words.collect::<Vec<_>>().as_slice() {
            [word] if algorithm == DigestAlgorithm::Crc32 => {
                Digest::parse_hex(algorithm, &format!("{word:0>8}"))
            }
            _ => None,
        })
}

fn refusal_of_digest(reply: &Reply) -> ClientError {
    if is_not_understood(reply) {
        NO_DIGEST
    } else {
        refusal(reply)
    }
}

const NO_DIGEST: ClientError = ClientError::Unsupported("make this digest");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_found_in_every_servers_reply() {
        for text in [
            "SHA-1 0-2 a9993e364706816aba3e25717850c26c9cd0d89d /f",
            "A9993E364706816ABA3E25717850C26C9CD0D89D",
            "/f SHA1=a9993e364706816aba3e25717850c26c9cd0d89d",
        ] {
            let digest = find_digest(DigestAlgorithm::Sha1, text.as_bytes()).expect(text);
            assert_eq!(
                digest.to_string(),
                "a9993e364706816aba3e25717850c26c9cd0d89d"
            );
        }
        assert_eq!(
            find_digest(DigestAlgorithm::Sha1, b"SHA-1 0-2 none /f"),
            None
        );
        let checksum = find_digest(DigestAlgorithm::Crc32, b"BF43926");
        assert_eq!(checksum.expect("a digest").to_string(), "0bf43926");
    }

    #[test]
    fn ranges_follow_a_quoted_path() {
        let path = VirtualPath::parse(b"/a b").expect("a path");
        assert_eq!(own_command_argument(&path, None), b"/a b");
        assert_eq!(
            own_command_argument(&path, ByteRange::new(0, 100)),
            b"\"/a b\" 0 100"
        );
    }
}
