//! Digests by check-file (draft-ietf-secsh-filexfer-extensions-00 §3), or by a command of the
//! server's where it runs any.

use bytes::Bytes;
use wharf_model::{ByteRange, Digest, DigestAlgorithm, VirtualPath};
use wharf_proto::sftp::{CheckSubject, CheckedFile, Extension, Request, Response, check_file_name};

use super::SftpSession;
use crate::error::{ClientError, Waiting};
use crate::remote::{Answer, PREFERENCE};

/// Makes digests beside the SFTP session.
pub(crate) trait Digester: Send + std::fmt::Debug {
    /// Which digests it makes, and whether of ranges too. May have to try. `home` is where
    /// SFTP says that the login led to.
    fn learn<'a>(&'a mut self, home: &'a VirtualPath) -> Answer<'a, (Vec<DigestAlgorithm>, bool)>;

    /// The digest of a file or of a range of it; only of an algorithm that was learnt.
    fn digest<'a>(
        &'a mut self,
        path: &'a VirtualPath,
        algorithm: DigestAlgorithm,
        range: Option<ByteRange>,
    ) -> Answer<'a, Digest>;
}

/// The algorithms that a server says check-file has, the preferred ones first.
pub(super) fn advertised(extensions: &[(Bytes, Bytes)]) -> Vec<DigestAlgorithm> {
    let list = extensions
        .iter()
        .find(|(name, _)| name == Extension::CheckFile.name())
        .map(|(_, list)| list.clone())
        .unwrap_or_default();
    let offers = |algorithm: &DigestAlgorithm| {
        let name = check_file_name(*algorithm).as_bytes();
        list.split(|byte| *byte == b',').any(|one| one == name)
    };
    PREFERENCE.into_iter().filter(offers).collect()
}

impl SftpSession {
    pub(super) async fn learn_digests(&mut self) -> Result<(), ClientError> {
        if !self.abilities.digests.is_empty() || self.has_learnt {
            return Ok(());
        }
        if let Some(digester) = &mut self.digester {
            let (digests, of_ranges) = digester.learn(&self.home).await?;
            self.abilities.digests = digests;
            self.abilities.digests_of_ranges = of_ranges;
        }
        self.has_learnt = true;
        Ok(())
    }

    pub(super) async fn digest(
        &mut self,
        path: &VirtualPath,
        algorithm: DigestAlgorithm,
        range: Option<ByteRange>,
    ) -> Result<Digest, ClientError> {
        if !self.abilities.digests.contains(&algorithm) {
            return Err(NO_DIGEST);
        }
        if self.checks_files {
            return self.check_file(path, algorithm, range).await;
        }
        match &mut self.digester {
            Some(digester) => digester.digest(path, algorithm, range).await,
            None => Err(NO_DIGEST),
        }
    }

    async fn check_file(
        &mut self,
        path: &VirtualPath,
        algorithm: DigestAlgorithm,
        range: Option<ByteRange>,
    ) -> Result<Digest, ClientError> {
        let (offset, length) = range.map_or((0, 0), |range| (range.start, range.end - range.start));
        if range.is_some() && length == 0 {
            // No bytes cannot be asked for: a length of 0 means all.
            return Err(NO_DIGEST);
        }
        let request = Request::CheckFile {
            subject: CheckSubject::Path(super::wire_path(path)),
            algorithms: Bytes::from_static(check_file_name(algorithm).as_bytes()),
            offset,
            length,
            block_bytes: 0,
        };
        let id = self.exchange.send(request).await?;
        let response = self
            .exchange
            .receive(id, Waiting::Digest, LONGEST_DIGEST)
            .await?;
        let Response::Extended(reply) = response else {
            return Err(match self.exchange.refused(response) {
                ClientError::Unsupported(_) => NO_DIGEST,
                error => error,
            });
        };
        CheckedFile::decode(reply)
            .ok()
            .filter(|checked| checked.algorithm == check_file_name(algorithm))
            .and_then(|checked| Digest::parse_hex(algorithm, &hex(&checked.digests)))
            .ok_or_else(|| ClientError::Protocol(format!("the answer holds no {algorithm} digest")))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const NO_DIGEST: ClientError = ClientError::Unsupported("make this digest");

/// Long enough to read a terabyte at 300 MB/s.
pub(crate) const LONGEST_DIGEST: std::time::Duration = std::time::Duration::from_secs(60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digests_of_check_file_are_sorted_by_preference() {
        let pair = |name: &'static str, value: &'static str| {
            (
                Bytes::from_static(name.as_bytes()),
                Bytes::from_static(value.as_bytes()),
            )
        };
        let extensions = [
            pair("limits@openssh.com", "1"),
            pair("check-file", "md5,sha384,sha1,sha256"),
        ];
        assert_eq!(
            advertised(&extensions),
            [
                DigestAlgorithm::Sha256,
                DigestAlgorithm::Sha1,
                DigestAlgorithm::Md5
            ]
        );
        assert_eq!(advertised(&[]), []);
    }
}
