//! What stands where: MLST and MLSD, or LIST, SIZE and MDTM on servers without them.

use std::time::SystemTime;

use bytes::BytesMut;
use wharf_model::{EntryKind, VirtualPath};
use wharf_proto::ftp::facts::parse_facts_line;
use wharf_proto::ftp::list::{Precision, RemoteEntry, parse_list_line};
use wharf_proto::ftp::reply::{Reply, ReplyCode};
use wharf_proto::line::{Line, LineDecoder, MAX_REPLY_BYTES};
use wharf_proto::time::parse_time;

use super::FtpSession;
use super::features::Features;
use super::refusal::{is_not_understood, refusal};
use crate::error::ClientError;

/// How directories are listed in this session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ListStyle {
    /// MLSD.
    Facts,
    /// `LIST -a`, which shows hidden files where LIST alone does not.
    AllNames,
    /// LIST.
    Plain,
}

impl ListStyle {
    pub(super) fn for_server(features: &Features) -> Self {
        if features.facts {
            Self::Facts
        } else {
            Self::AllNames
        }
    }
}

impl FtpSession {
    pub(super) async fn list(
        &mut self,
        path: &VirtualPath,
    ) -> Result<Vec<RemoteEntry>, ClientError> {
        match self.list_style {
            ListStyle::Facts => {
                let lines = self.receive_lines("MLSD", path.as_bytes(), as_facts).await;
                match lines {
                    // MLST was announced and MLSD is not there after all.
                    Err(ClientError::Refused(said)) if matches!(said.code, 500 | 502) => {
                        self.list_style = ListStyle::AllNames;
                        self.list_plainly(path).await
                    }
                    other => other,
                }
            }
            ListStyle::AllNames | ListStyle::Plain => self.list_plainly(path).await,
        }
    }

    /// LIST without a path, in the directory itself: servers take paths with
    /// spaces, wildcards and a leading `-` apart in many ways.
    async fn list_plainly(&mut self, path: &VirtualPath) -> Result<Vec<RemoteEntry>, ClientError> {
        self.enter(path).await?;
        if self.list_style == ListStyle::AllNames {
            match self.receive_lines("LIST", b"-a", as_list).await {
                Ok(entries) if !entries.is_empty() => return Ok(entries),
                Err(error) if error.ends_session() || error.is_transient() => return Err(error),
                // An empty directory, or a server that looks for a file "-a".
                _ => {}
            }
        }
        match self.receive_lines("LIST", b"", as_list).await {
            Ok(entries) => {
                if !entries.is_empty() {
                    self.list_style = ListStyle::Plain;
                }
                Ok(entries)
            }
            // The directory is there, as CWD has shown: some servers call an empty one "not found".
            Err(ClientError::NotFound(_)) => Ok(Vec::new()),
            Err(ClientError::Refused(said)) if said.code == 550 => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    async fn enter(&mut self, path: &VirtualPath) -> Result<(), ClientError> {
        self.control.complete("CWD", path.as_bytes()).await?;
        Ok(())
    }

    async fn receive_lines(
        &mut self,
        verb: &str,
        argument: &[u8],
        parse: fn(&[u8], SystemTime) -> Option<RemoteEntry>,
    ) -> Result<Vec<RemoteEntry>, ClientError> {
        let now = SystemTime::now();
        let mut read = self.receive(verb, argument).await?;
        let mut decoder = LineDecoder::without_telnet(MAX_REPLY_BYTES);
        let mut buffer = BytesMut::new();
        let mut chunk = vec![0; 32 * 1024];
        let mut entries = Vec::new();
        let mut received: u64 = 0;
        loop {
            let count = read.read_some(&mut chunk).await?;
            if count == 0 {
                // A last line without a line end is a line too.
                buffer.extend_from_slice(b"\n");
            }
            buffer.extend_from_slice(chunk.get(..count).unwrap_or_default());
            received += count as u64;
            while let Some(line) = decoder.decode(&mut buffer) {
                let Line::Complete(line) = line else {
                    return Err(ClientError::Protocol(
                        "a line of a listing is too long".to_owned(),
                    ));
                };
                entries.extend(parse(&line, now).filter(is_entry));
            }
            if entries.len() > MAX_ENTRIES || received > MAX_LISTING_BYTES {
                return Err(ClientError::Protocol("a listing does not end".to_owned()));
            }
            if count == 0 {
                break;
            }
        }
        read.hear_end().await?;
        Ok(entries)
    }

    pub(super) async fn stat_by_facts(
        &mut self,
        path: &VirtualPath,
    ) -> Result<RemoteEntry, ClientError> {
        let reply = self.control.exchange("MLST", path.as_bytes()).await?;
        if is_not_understood(&reply) {
            return self.stat_by_probing(path).await;
        }
        if !reply.code().is_completion() {
            return Err(missing(&reply));
        }
        let facts = reply
            .lines()
            .iter()
            .skip(1)
            .find_map(|line| parse_facts_line(line));
        let mut entry = facts
            .ok_or_else(|| ClientError::Protocol("the MLST reply holds no facts".to_owned()))?;
        entry.name = path.file_name().unwrap_or_default().to_vec();
        Ok(entry)
    }

    /// SIZE and MDTM answer for files; what they refuse and CWD enters is a directory.
    pub(super) async fn stat_by_probing(
        &mut self,
        path: &VirtualPath,
    ) -> Result<RemoteEntry, ClientError> {
        let name = path.file_name().unwrap_or_default().to_vec();
        let size = self.control.exchange("SIZE", path.as_bytes()).await?;
        if is_not_understood(&size) {
            return self.stat_by_listing(path).await;
        }
        if size.code() == ReplyCode::FILE_STATUS {
            let mut entry = RemoteEntry::new(name, EntryKind::File);
            entry.size = number(size.text());
            let time = self.control.exchange("MDTM", path.as_bytes()).await?;
            if time.code() == ReplyCode::FILE_STATUS {
                entry.modified = parse_time(time.text().trim_ascii());
                entry.precision = Precision::Second;
            }
            return Ok(entry);
        }
        let entered = self.control.exchange("CWD", path.as_bytes()).await?;
        if entered.code().is_completion() {
            return Ok(RemoteEntry::new(name, EntryKind::Directory));
        }
        Err(missing(&size))
    }

    /// Looks the name up in its directory's listing.
    async fn stat_by_listing(&mut self, path: &VirtualPath) -> Result<RemoteEntry, ClientError> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(RemoteEntry::new(Vec::new(), EntryKind::Directory));
        };
        self.list_plainly(&parent)
            .await?
            .into_iter()
            .find(|entry| entry.name == name)
            .ok_or(ClientError::NotFound(None))
    }
}

fn as_facts(line: &[u8], _: SystemTime) -> Option<RemoteEntry> {
    parse_facts_line(line)
}

fn as_list(line: &[u8], now: SystemTime) -> Option<RemoteEntry> {
    parse_list_line(line, now)
}

fn is_entry(entry: &RemoteEntry) -> bool {
    !entry.is_listed_directory && !matches!(entry.name.as_slice(), b"." | b"..")
}

/// To a question whether something is there, 550 in any words means that it is not.
fn missing(reply: &Reply) -> ClientError {
    match refusal(reply) {
        ClientError::Refused(said) if said.code == 550 => ClientError::NotFound(Some(said)),
        other => other,
    }
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}

/// Most entries of one directory: beyond it a listing is broken or hostile.
const MAX_ENTRIES: usize = 2_000_000;

/// Most bytes of one listing.
const MAX_LISTING_BYTES: u64 = 512 * 1024 * 1024;
