//! What stands where: STAT, and OPENDIR with several READDIR under way.

use std::collections::VecDeque;

use wharf_model::{EntryKind, VirtualPath};
use wharf_proto::ftp::list::{Precision, RemoteEntry};
use wharf_proto::sftp::{Attributes, Handle, Name, Request, RequestId, Response, StatusCode};

use super::SftpSession;
use crate::error::{ClientError, Waiting};
use crate::remote::{LISTING_BOUNDS, ListingBounds};

impl SftpSession {
    pub(super) async fn stat(&mut self, path: &VirtualPath) -> Result<RemoteEntry, ClientError> {
        let request = Request::Stat {
            path: super::wire_path(path),
        };
        match self.exchange.call(request).await? {
            Response::Attributes(attributes) => {
                let name = path.file_name().unwrap_or_default();
                Ok(entry(name.to_vec(), &attributes))
            }
            response => Err(self.exchange.refused(response)),
        }
    }

    pub(super) async fn list(
        &mut self,
        path: &VirtualPath,
    ) -> Result<Vec<RemoteEntry>, ClientError> {
        let request = Request::OpenDirectory {
            path: super::wire_path(path),
        };
        let handle = self.open(request).await?;
        let listed = self.read_directory(&handle, LISTING_BOUNDS).await;
        // Given back even after a refusal; what it says to that changes nothing.
        if self.exchange.is_usable() {
            let id = self.exchange.send(Request::Close { handle }).await?;
            self.exchange.forget(id);
        }
        listed
    }

    async fn read_directory(
        &mut self,
        handle: &Handle,
        bounds: ListingBounds,
    ) -> Result<Vec<RemoteEntry>, ClientError> {
        let mut asked = VecDeque::new();
        let listed = self.read_batches(handle, bounds, &mut asked).await;
        for id in asked {
            self.exchange.forget(id);
        }
        listed
    }

    /// Asks for the next entries before the last ones have come; one more with each answer.
    async fn read_batches(
        &mut self,
        handle: &Handle,
        bounds: ListingBounds,
        asked: &mut VecDeque<RequestId>,
    ) -> Result<Vec<RemoteEntry>, ClientError> {
        let mut entries = Vec::new();
        let mut bytes: u64 = 0;
        let mut most_asked = 2;
        loop {
            while asked.len() < most_asked {
                let request = Request::ReadDirectory {
                    handle: handle.clone(),
                };
                asked.push_back(self.exchange.send(request).await?);
            }
            let Some(id) = asked.pop_front() else {
                return Ok(entries);
            };
            let stall = self.exchange.stall();
            match self.exchange.receive(id, Waiting::Data, stall).await? {
                Response::Names(names) => {
                    // Without an end it would go on for ever; each answer costs the bound something.
                    bytes += ANSWER_BYTES;
                    for name in names {
                        bytes += name.name.len() as u64;
                        entries.extend(listed_entry(&name));
                    }
                    bounds
                        .check(entries.len(), bytes)
                        .map_err(|error| self.exchange.broken(error))?;
                    most_asked = (most_asked + 1).min(MOST_ASKED);
                }
                Response::Status {
                    code: StatusCode::Eof,
                    ..
                } => return Ok(entries),
                response => return Err(self.exchange.refused(response)),
            }
        }
    }
}

/// `None` for the directory itself and the one above it.
fn listed_entry(name: &Name) -> Option<RemoteEntry> {
    let is_itself = matches!(&name.name[..], b"." | b"..");
    (!is_itself).then(|| entry(name.name.to_vec(), &name.attributes))
}

fn entry(name: Vec<u8>, attributes: &Attributes) -> RemoteEntry {
    // Who does not say what it is has files: an upload must not take one for a directory.
    let kind = attributes.kind().unwrap_or(EntryKind::File);
    let mut entry = RemoteEntry::new(name, kind);
    entry.size = attributes.size;
    entry.modified = attributes.times.map(|times| times.modified());
    entry.precision = Precision::Second;
    entry.mode = attributes.permissions.map(|bits| bits & 0o7777);
    entry
}

/// Most READDIR under way. OpenSSH answers each with a hundred names.
const MOST_ASKED: usize = 16;

/// What an answer counts beside its names.
const ANSWER_BYTES: u64 = 32;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::tests::{names, scripted};
    use super::*;

    const HANDLE: Handle = Handle(Bytes::from_static(b"d"));

    #[tokio::test]
    async fn a_listing_that_does_not_end_is_given_up() {
        let mut session = scripted(&[], |id, _| vec![(id, names(&[b"again"]))]).await;
        let bounds = ListingBounds {
            entries: 50,
            bytes: u64::MAX,
        };
        let error = session.read_directory(&HANDLE, bounds).await;
        assert!(
            matches!(&error, Err(ClientError::Protocol(what)) if what == "a listing does not end"),
            "{error:?}"
        );
        assert!(!session.exchange.is_usable());
    }

    #[tokio::test]
    async fn answers_without_names_do_not_go_on_for_ever() {
        let mut session = scripted(&[], |id, _| vec![(id, names(&[]))]).await;
        let bounds = ListingBounds {
            entries: 10,
            bytes: 1000,
        };
        assert!(session.read_directory(&HANDLE, bounds).await.is_err());
    }
}
