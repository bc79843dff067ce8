//! Listings: LIST, NLST, MLSD over a data connection; MLST and STAT over the control connection.

use wharf_model::{Entry, EntryKind, Refusal, VirtualPath};
use wharf_proto::ftp::facts::{FactSubject, encode_facts};
use wharf_proto::ftp::reply::{Reply, ReplyCode};
use wharf_proto::ftp::verb::Verb;
use wharf_vfs::Listing;

use crate::ftp::running::{ListForm, Work};
use crate::ftp::session::{Outcome, Session};

/// Most entries that STAT shows: they pass through memory, and through the
/// control connection. Whole directories of any size are what MLSD is for.
const MAX_STAT_ENTRIES: usize = 1000;

impl Session {
    pub(in crate::ftp) async fn list(
        &mut self,
        verb: Verb,
        path: &[u8],
    ) -> Result<Outcome, Refusal> {
        if let Some(outcome) = self.needs_channel() {
            return Ok(outcome);
        }
        let target = self.resolve(path)?;
        let files = self.files()?;
        let form = match verb {
            Verb::Nlst => ListForm::Names,
            Verb::Mlsd => ListForm::Facts {
                facts: self.facts,
                allowed: files.vfs.permissions_in(&target),
            },
            _ => ListForm::Long { now: self.now() },
        };
        let listing = match files.vfs.list(&target).await {
            // A file lists itself, except by MLSD (RFC 3659 §7.1); nothing lists as nothing.
            Err(Refusal::NotADirectory) if verb != Verb::Mlsd => {
                let mut entry = files.vfs.metadata(&target).await?;
                entry.name = path.to_vec();
                Listing::of(vec![entry])
            }
            Err(Refusal::NotFound) if verb != Verb::Mlsd => Listing::of(Vec::new()),
            Err(refusal) if verb == Verb::Mlsd && matches!(refusal, Refusal::NotADirectory) => {
                return Ok(Reply::new(
                    ReplyCode::INVALID_ARGUMENT,
                    "MLSD is for directories; send MLST.",
                )
                .into());
            }
            listing => listing?,
        };
        let work = Work::List { listing, form };
        Ok(self.start(verb, target, "Here comes the listing.".to_owned(), work))
    }

    pub(in crate::ftp) async fn mlst(&mut self, path: &[u8]) -> Result<Outcome, Refusal> {
        let target = self.resolve(path)?;
        let files = self.files()?;
        let entry = files.vfs.metadata(&target).await?;
        let mut line = b" ".to_vec();
        let allowed = files.vfs.permissions_at(&target);
        encode_facts(
            &entry,
            FactSubject::Entry,
            self.facts,
            allowed,
            target.as_bytes(),
            &mut line,
        );
        Ok(Reply::multiline(ReplyCode::ACTION_OK, "Facts:", [line], "End").into())
    }

    pub(in crate::ftp) async fn stat_path(&mut self, path: &[u8]) -> Result<Outcome, Refusal> {
        let target = self.resolve(path)?;
        let entry = self.files()?.vfs.metadata(&target).await?;
        let code = match entry.kind {
            EntryKind::Directory => ReplyCode::DIRECTORY_STATUS,
            _ => ReplyCode::FILE_STATUS,
        };
        let entries = match entry.kind {
            EntryKind::Directory => self.first_entries(&target).await?,
            _ => vec![entry],
        };
        let form = ListForm::Long { now: self.now() };
        let last = if entries.len() >= MAX_STAT_ENTRIES {
            "There may be more; use MLSD or LIST."
        } else {
            "End of status"
        };
        let lines = entries.iter().map(|entry| {
            let mut line = Vec::new();
            form.encode(entry, &mut line);
            line.truncate(line.len().saturating_sub(2));
            line
        });
        Ok(Reply::multiline(code, "Status:", lines, last).into())
    }

    async fn first_entries(&self, directory: &VirtualPath) -> Result<Vec<Entry>, Refusal> {
        let mut listing = self.files()?.vfs.list(directory).await?;
        let mut entries = Vec::new();
        while let Some(batch) = listing.next_batch().await? {
            entries.extend(batch);
            if entries.len() >= MAX_STAT_ENTRIES {
                entries.truncate(MAX_STAT_ENTRIES);
                break;
            }
        }
        Ok(entries)
    }
}
