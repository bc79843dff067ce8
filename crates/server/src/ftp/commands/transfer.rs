//! RETR, STOR, APPE, STOU, and what is said when a transfer has ended.

use wharf_model::{DigestAlgorithm, Refusal, VirtualPath};
use wharf_proto::ftp::reply::{Reply, ReplyCode};
use wharf_proto::ftp::verb::Verb;
use wharf_vfs::{Disposition, UploadOptions};

use crate::ftp::data::ConnectError;
use crate::ftp::refusal::reply_to;
use crate::ftp::running::{Completed, Failure, Finished, Work};
use crate::ftp::session::{Outcome, Session};
use crate::transfer::{TransferError, Translation};

impl Session {
    pub(in crate::ftp) async fn retr(&mut self, path: &[u8]) -> Result<Outcome, Refusal> {
        if let Some(outcome) = self.needs_channel() {
            return Ok(outcome);
        }
        let target = self.resolve(path)?;
        let download = self.files()?.vfs.open(&target).await?;
        let size = download.entry().size;
        let (start, end) = match self.range {
            Some(range) => (range.start, range.end.min(size)),
            None => (self.restart, size),
        };
        if start > size {
            self.forget_transfer_options();
            return Err(Refusal::OffsetBeyondEnd {
                offset: start,
                size,
            });
        }
        let text = format!("Sending {} bytes.", end.saturating_sub(start));
        let work = Work::Retrieve {
            download,
            start,
            end,
            translation: self.translation(),
        };
        Ok(self.start(Verb::Retr, target, text, work))
    }

    pub(in crate::ftp) async fn stor(
        &mut self,
        verb: Verb,
        path: &[u8],
    ) -> Result<Outcome, Refusal> {
        if let Some(outcome) = self.needs_channel() {
            return Ok(outcome);
        }
        let disposition = match verb {
            Verb::Appe => Disposition::Append,
            Verb::Stou => Disposition::Unique,
            _ if self.restart > 0 => Disposition::ResumeAt(self.restart),
            _ => Disposition::Replace,
        };
        let target = match (verb, path) {
            // The name is for the server to choose (RFC 959 §4.1.3).
            (Verb::Stou, b"") => self.resolve(b"upload")?,
            _ => self.resolve(path)?,
        };
        let options = UploadOptions {
            disposition,
            announced_bytes: self.announced,
            digest: self.upload_digest(),
        };
        let created = self.files()?.vfs.create(&target, options).await;
        let upload = match created {
            Ok(upload) => upload,
            Err(refusal) => {
                self.forget_transfer_options();
                return Err(refusal);
            }
        };
        let text = match verb {
            // The form that RFC 1123 §4.1.2.9 asks for.
            Verb::Stou => [b"FILE: ", upload.name()].concat(),
            _ => b"Ready for the data.".to_vec(),
        };
        let work = Work::Store {
            upload: Box::new(upload),
            translation: self.translation(),
        };
        Ok(self.start(verb, target, text, work))
    }

    /// Which digest is computed while an upload is written: none, unless the
    /// client has shown that it will ask, and none of text, whose bytes differ.
    fn upload_digest(&self) -> Option<DigestAlgorithm> {
        (self.hash_uploads && self.translation() == Translation::None)
            .then_some(self.hash_algorithm)
    }
}

/// The final reply, and the transfer's line in the log.
pub(in crate::ftp) fn finished(finished: Finished) -> Reply {
    let Finished {
        verb,
        path,
        bytes,
        elapsed,
        result,
        rest: _,
    } = finished;
    let verb = verb.info().name();
    let duration_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    match result {
        Ok(completed) => {
            tracing::info!(verb, %path, bytes, duration_ms, "transfer complete");
            complete(&completed)
        }
        Err(failure) => {
            log_failure(verb, &path, bytes, duration_ms, &failure);
            failed(&failure)
        }
    }
}

fn complete(completed: &Completed) -> Reply {
    let text = match &completed.digest {
        Some(digest) => format!("Transfer complete; {} {digest}.", digest.algorithm()),
        None => "Transfer complete.".to_owned(),
    };
    Reply::new(ReplyCode::TRANSFER_COMPLETE, text)
}

fn failed(failure: &Failure) -> Reply {
    match failure {
        Failure::NoConnection(ConnectError::Handshake(_)) => Reply::new(
            ReplyCode::CANNOT_OPEN_DATA,
            "The TLS handshake of the data connection failed.",
        ),
        Failure::NoConnection(ConnectError::Foreign) => Reply::new(
            ReplyCode::PROTECTION_REFUSED,
            "The data connection resumed the TLS session of another control connection.",
        ),
        Failure::NoConnection(ConnectError::NotResumed) => Reply::new(
            ReplyCode::PROTECTION_REFUSED,
            "TLS session reuse required: resume the session of the control connection.",
        ),
        Failure::NoConnection(ConnectError::Tcp(_)) => Reply::new(
            ReplyCode::CANNOT_OPEN_DATA,
            "No data connection was made in time; check passive mode and firewalls.",
        ),
        Failure::Broken(TransferError::Cancelled) => Reply::new(
            ReplyCode::TRANSFER_ABORTED,
            "Transfer stopped at your request.",
        ),
        Failure::Broken(TransferError::Stalled) => Reply::new(
            ReplyCode::TRANSFER_ABORTED,
            "Transfer stopped: no data moved for too long.",
        ),
        Failure::Broken(TransferError::Connection(_)) => Reply::new(
            ReplyCode::TRANSFER_ABORTED,
            "The data connection broke; what arrived can be resumed.",
        ),
        Failure::Broken(TransferError::Refused(refusal)) => reply_to(refusal),
    }
}

fn log_failure(verb: &str, path: &VirtualPath, bytes: u64, duration_ms: u64, failure: &Failure) {
    let cause = std::error::Error::source(failure).map(ToString::to_string);
    tracing::warn!(verb, %path, bytes, duration_ms, error = %failure, cause, "transfer failed");
}
