//! Verbs about the facts of one entry, and about the quota: SIZE, MDTM, MFMT, MFF, CHMOD, UTIME, AVBL, QUOTA, PARTIAL.

use std::time::SystemTime;

use wharf_model::{ByteSize, EntryKind, Refusal};
use wharf_proto::ftp::command::{FactChange, TransferType};
use wharf_proto::ftp::reply::{Reply, ReplyCode};
use wharf_proto::time::encode_time;

use crate::ftp::session::{Outcome, Session};

impl Session {
    pub(in crate::ftp) async fn size(&mut self, path: &[u8]) -> Result<Outcome, Refusal> {
        if self.transfer_type == TransferType::Ascii {
            // The number on the wire would need a look at every byte (RFC 3659 §4).
            let text = "SIZE is not known while line ends are translated; send TYPE I first.";
            return Ok(Reply::new(ReplyCode::UNAVAILABLE, text).into());
        }
        let target = self.resolve(path)?;
        let entry = self.files()?.vfs.metadata(&target).await?;
        match entry.kind {
            EntryKind::File => {
                Ok(Reply::new(ReplyCode::FILE_STATUS, entry.size.to_string()).into())
            }
            EntryKind::Directory => Err(Refusal::IsADirectory),
            EntryKind::Symlink | EntryKind::Other => Err(Refusal::NotAFile),
        }
    }

    /// The whole argument is a name first; only if nothing is called so, it
    /// sets a time, as vsftpd's clients want.
    pub(in crate::ftp) async fn mdtm(
        &mut self,
        as_path: &[u8],
        set: Option<(SystemTime, Vec<u8>)>,
    ) -> Result<Outcome, Refusal> {
        let target = self.resolve(as_path)?;
        let found = self.files()?.vfs.metadata(&target).await;
        match (found, set) {
            (Ok(entry), _) => {
                Ok(Reply::new(ReplyCode::FILE_STATUS, time_value(entry.modified)).into())
            }
            (Err(_), Some((time, path))) => {
                self.set_time(time, &path).await?;
                Ok(Reply::new(ReplyCode::FILE_STATUS, time_value(time)).into())
            }
            (Err(refusal), None) => Err(refusal),
        }
    }

    pub(in crate::ftp) async fn mfmt(
        &mut self,
        time: SystemTime,
        path: &[u8],
    ) -> Result<Outcome, Refusal> {
        self.set_time(time, path).await?;
        let mut text = b"Modify=".to_vec();
        encode_time(time, &mut text);
        text.extend_from_slice(b"; ");
        text.extend_from_slice(path);
        Ok(Reply::new(ReplyCode::FILE_STATUS, text).into())
    }

    pub(in crate::ftp) async fn mff(
        &mut self,
        change: FactChange,
        path: &[u8],
    ) -> Result<Outcome, Refusal> {
        let mut text = Vec::new();
        if let Some(mode) = change.mode {
            let target = self.resolve(path)?;
            self.files()?.vfs.set_mode(&target, mode).await?;
            text.extend_from_slice(format!("UNIX.mode=0{mode:o};").as_bytes());
        }
        if let Some(time) = change.modify {
            self.set_time(time, path).await?;
            text.extend_from_slice(b"Modify=");
            encode_time(time, &mut text);
            text.push(b';');
        }
        text.push(b' ');
        text.extend_from_slice(path);
        Ok(Reply::new(ReplyCode::FILE_STATUS, text).into())
    }

    pub(in crate::ftp) async fn utime(
        &mut self,
        time: SystemTime,
        path: &[u8],
    ) -> Result<Outcome, Refusal> {
        self.set_time(time, path).await?;
        Ok(Reply::new(ReplyCode::OK, "Time set.").into())
    }

    pub(in crate::ftp) async fn chmod(
        &mut self,
        mode: u32,
        path: &[u8],
    ) -> Result<Outcome, Refusal> {
        let target = self.resolve(path)?;
        self.files()?.vfs.set_mode(&target, mode).await?;
        Ok(Reply::new(ReplyCode::OK, "Mode set.").into())
    }

    async fn set_time(&self, time: SystemTime, path: &[u8]) -> Result<(), Refusal> {
        let target = self.resolve(path)?;
        self.files()?.vfs.set_modified(&target, time).await
    }

    /// Bytes that an upload into the directory could bring.
    pub(in crate::ftp) async fn avbl(&mut self, path: &[u8]) -> Result<Outcome, Refusal> {
        let target = self.resolve(path)?;
        let files = self.files()?;
        files.vfs.enter(&target).await?;
        let available = files.vfs.available().await?;
        Ok(Reply::new(ReplyCode::FILE_STATUS, available.bytes_left().to_string()).into())
    }

    pub(in crate::ftp) async fn quota(&mut self) -> Result<Outcome, Refusal> {
        let report = self.files()?.vfs.available().await?;
        let bytes = match report.limits.bytes {
            Some(limit) => format!(
                " Bytes: {} of {limit} used, {} left ({})",
                report.usage.bytes,
                report.bytes_left(),
                ByteSize(report.bytes_left()),
            ),
            None => format!(" Bytes: {} used, no limit", report.usage.bytes),
        };
        let files = match report.limits.files {
            Some(limit) => format!(
                " Files: {} of {limit} used, {} left",
                report.usage.files,
                limit.saturating_sub(report.usage.files),
            ),
            None => format!(" Files: {} used, no limit", report.usage.files),
        };
        let lines = [bytes.into_bytes(), files.into_bytes()];
        Ok(Reply::multiline(ReplyCode::OK, "Quota:", lines, "End").into())
    }

    /// `213 <size> <algorithm> <digest>` of what a cut upload left.
    pub(in crate::ftp) async fn partial(&mut self, path: &[u8]) -> Result<Outcome, Refusal> {
        let target = self.resolve(path)?;
        let algorithm = self.hash_algorithm;
        let partial = self
            .files()?
            .vfs
            .partial(&target, algorithm)
            .await?
            .ok_or(Refusal::NotFound)?;
        let text = format!("{} {algorithm} {}", partial.size, partial.digest);
        Ok(Reply::new(ReplyCode::FILE_STATUS, text).into())
    }
}

fn time_value(time: SystemTime) -> Vec<u8> {
    let mut text = Vec::with_capacity(14);
    encode_time(time, &mut text);
    text
}
