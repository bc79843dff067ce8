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
use crate::remote::{LISTING_BOUNDS, ListingBounds};

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
                    Err(ClientError::Refused(said)) if matches!(said.code, Some(500 | 502)) => {
                        self.list_style = ListStyle::AllNames;
                        self.list_plainly(path).await
                    }
                    Err(error) => Err(self.why_closed(path, error).await),
                    listed => listed,
                }
            }
            ListStyle::AllNames | ListStyle::Plain => self.list_plainly(path).await,
        }
    }

    /// LIST without a path, in the directory itself: servers take paths with
    /// spaces, wildcards and a leading `-` apart in many ways.
    async fn list_plainly(&mut self, path: &VirtualPath) -> Result<Vec<RemoteEntry>, ClientError> {
        self.enter(path).await?;
        self.list_here().await
    }

    async fn list_here(&mut self) -> Result<Vec<RemoteEntry>, ClientError> {
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
            Err(ClientError::Refused(said)) if said.code == Some(550) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    async fn enter(&mut self, path: &VirtualPath) -> Result<(), ClientError> {
        match self.try_to_enter(path).await {
            Err(error) => Err(self.why_closed(path, error).await),
            entered => entered,
        }
    }

    async fn try_to_enter(&mut self, path: &VirtualPath) -> Result<(), ClientError> {
        self.control.complete("CWD", path.as_bytes()).await?;
        Ok(())
    }

    /// What a bare 550 to CWD or MLSD means. vsftpd has the same words for a
    /// directory that is missing, a file and a directory that nobody may enter;
    /// Pure-FTPd says of a file that is no directory that it does not exist.
    async fn why_closed(&mut self, path: &VirtualPath, error: ClientError) -> ClientError {
        let said = match &error {
            ClientError::Refused(said) if said.code == Some(550) => said.clone(),
            ClientError::NotFound(Some(said)) if self.features.facts => said.clone(),
            _ => return error,
        };
        let found = if self.features.facts {
            self.stat_by_facts(path).await
        } else {
            self.find_from_above(path).await
        };
        match found {
            Ok(entry) if matches!(entry.kind, EntryKind::File | EntryKind::Other) => {
                ClientError::NotADirectory
            }
            Err(ClientError::NotFound(_)) => ClientError::NotFound(Some(said)),
            Err(other) if other.ends_session() => other,
            _ => error,
        }
    }

    /// Looks for `path` in the listing of the directory above it. Where that
    /// cannot be entered, the one above it tells whether it is there at all.
    async fn find_from_above(&mut self, path: &VirtualPath) -> Result<RemoteEntry, ClientError> {
        let mut below = path.clone();
        let mut closed = None;
        while let (Some(directory), Some(name)) = (below.parent(), below.file_name()) {
            match self.try_to_enter(&directory).await {
                Ok(()) => {
                    let entry = self.find_here(name).await?;
                    return closed.map_or(Ok(entry), Err);
                }
                Err(error) if error.ends_session() => return Err(error),
                Err(error) => closed = Some(error),
            }
            below = directory;
        }
        Err(closed.unwrap_or(ClientError::NotFound(None)))
    }

    async fn find_here(&mut self, name: &[u8]) -> Result<RemoteEntry, ClientError> {
        self.list_here()
            .await?
            .into_iter()
            .find(|entry| entry.name == name)
            .ok_or(ClientError::NotFound(None))
    }

    async fn receive_lines(
        &mut self,
        verb: &str,
        argument: &[u8],
        parse: fn(&[u8], SystemTime) -> Option<RemoteEntry>,
    ) -> Result<Vec<RemoteEntry>, ClientError> {
        let mut listing = Listing::new(parse, SystemTime::now(), LISTING_BOUNDS);
        let mut read = self.receive(verb, argument).await?;
        let mut chunk = vec![0; 32 * 1024];
        loop {
            let count = read.read_some(&mut chunk).await?;
            if count == 0 {
                break;
            }
            listing.take(chunk.get(..count).unwrap_or_default())?;
        }
        let entries = listing.finish()?;
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
            if path.is_root() {
                return Ok(RemoteEntry::new(name, EntryKind::Directory));
            }
            return self.find_from_above(path).await;
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
}

/// A listing as it comes in.
struct Listing {
    parse: fn(&[u8], SystemTime) -> Option<RemoteEntry>,
    now: SystemTime,
    decoder: LineDecoder,
    buffer: BytesMut,
    entries: Vec<RemoteEntry>,
    received_bytes: u64,
    bounds: ListingBounds,
}

impl Listing {
    fn new(
        parse: fn(&[u8], SystemTime) -> Option<RemoteEntry>,
        now: SystemTime,
        bounds: ListingBounds,
    ) -> Self {
        Self {
            parse,
            now,
            decoder: LineDecoder::without_telnet(MAX_REPLY_BYTES),
            buffer: BytesMut::new(),
            entries: Vec::new(),
            received_bytes: 0,
            bounds,
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        self.buffer.extend_from_slice(bytes);
        self.received_bytes += bytes.len() as u64;
        while let Some(line) = self.decoder.decode(&mut self.buffer) {
            let Line::Complete(line) = line else {
                return Err(line_too_long());
            };
            self.entries
                .extend((self.parse)(&line, self.now).filter(is_entry));
        }
        if self.decoder.is_overlong() {
            return Err(line_too_long());
        }
        self.bounds.check(self.entries.len(), self.received_bytes)
    }

    /// All entries; a last line without a line end is a line too.
    fn finish(mut self) -> Result<Vec<RemoteEntry>, ClientError> {
        self.take(b"\n")?;
        Ok(self.entries)
    }
}

fn line_too_long() -> ClientError {
    ClientError::Protocol("a line of a listing is too long".to_owned())
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
        ClientError::Refused(said) if said.code == Some(550) => ClientError::NotFound(Some(said)),
        other => other,
    }
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(entries: usize, bytes: u64) -> Listing {
        Listing::new(
            as_facts,
            SystemTime::UNIX_EPOCH,
            ListingBounds { entries, bytes },
        )
    }

    #[test]
    fn a_listing_is_given_up_one_entry_past_its_bound() {
        let mut endless = listing(3, 1000);
        for name in ["a", "b", "c"] {
            let line = format!("type=file; {name}\r\n");
            endless.take(line.as_bytes()).expect("within the bound");
        }
        let refused = endless.take(b"type=file; d\r\n");
        assert!(matches!(refused, Err(ClientError::Protocol(_))));
    }

    #[test]
    fn lines_that_are_no_entries_count_as_bytes() {
        let mut endless = listing(3, 10);
        endless.take(b"junk\njunk\n").expect("within the bound");
        let refused = endless.take(b"\n");
        assert!(matches!(refused, Err(ClientError::Protocol(_))));
    }

    #[test]
    fn a_line_without_end_is_not_kept() {
        let mut endless = listing(3, u64::MAX);
        endless
            .take(&vec![b'x'; MAX_REPLY_BYTES])
            .expect("may still end");
        let refused = endless.take(b"x");
        assert!(matches!(refused, Err(ClientError::Protocol(_))));
    }

    #[test]
    fn the_last_line_needs_no_end_and_an_empty_listing_has_no_entries() {
        let mut cut = listing(3, 1000);
        cut.take(b"type=file; a\r\ntype=dir; b").expect("fits");
        let names: Vec<_> = cut
            .finish()
            .expect("fits")
            .into_iter()
            .map(|e| e.name)
            .collect();
        assert_eq!(names, [b"a", b"b"]);
        assert_eq!(listing(3, 1000).finish().expect("fits").len(), 0);
    }
}
