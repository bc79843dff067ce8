//! An open directory: its entries, piece by piece.

use std::collections::VecDeque;
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedReceiver;
use wharf_model::{Entry, Refusal, VirtualPath};
use wharf_proto::ftp::list::encode_list_line;
use wharf_proto::sftp::{Attributes, Name, Response, StatusCode};
use wharf_vfs::{Listing, Vfs};

use super::refusal::Problem;
use super::replies::Asked;

/// Bytes of names in one answer: what every client takes (draft-ietf-secsh-filexfer-02 §3 asks
/// for packets of 34,000).
const NAMES_BYTES: usize = 30_000;

/// Most bytes of one answer: the last entry may pass [`NAMES_BYTES`].
pub(super) const ANSWER_BYTES: usize = 32 * 1024;

/// What can be asked of an open directory.
pub(super) enum DirectoryJob {
    Read,
    Facts,
    Close,
}

/// Carries out requests for one directory until it is closed.
pub(super) async fn run(
    vfs: Vfs,
    path: VirtualPath,
    listing: Listing,
    mut jobs: UnboundedReceiver<(Asked, DirectoryJob)>,
) {
    let mut open = OpenDirectory {
        listing,
        waiting: VecDeque::new(),
    };
    while let Some((asked, job)) = jobs.recv().await {
        match job {
            DirectoryJob::Read => asked.answer(open.names().await),
            DirectoryJob::Facts => {
                let entry = vfs.metadata(&path).await;
                let facts = entry.map(|entry| Response::Attributes(Attributes::of(&entry)));
                asked.answer(facts.map_err(Problem::from));
            }
            DirectoryJob::Close => {
                asked.answer(Ok(Response::status(StatusCode::Ok, "Closed.")));
                return;
            }
        }
    }
}

struct OpenDirectory {
    listing: Listing,
    waiting: VecDeque<Entry>,
}

impl OpenDirectory {
    async fn names(&mut self) -> Result<Response, Problem> {
        let now = SystemTime::now();
        let (mut names, mut bytes) = (Vec::new(), 0);
        while bytes < NAMES_BYTES {
            let Some(entry) = self.next().await? else {
                break;
            };
            let name = name_of(entry, now);
            // Attributes with their flags, and three lengths, have at most 40 bytes.
            bytes += name.name.len() + name.long_name.len() + 40;
            names.push(name);
        }
        if names.is_empty() {
            return Err(Problem::End);
        }
        Ok(Response::Names(names))
    }

    async fn next(&mut self) -> Result<Option<Entry>, Refusal> {
        if self.waiting.is_empty() {
            let batch = self.listing.next_batch().await?;
            self.waiting.extend(batch.unwrap_or_default());
        }
        Ok(self.waiting.pop_front())
    }
}

fn name_of(entry: Entry, now: SystemTime) -> Name {
    let mut long_name = Vec::new();
    encode_list_line(&entry, now, &mut long_name);
    Name {
        attributes: Attributes::of(&entry),
        name: Bytes::from(entry.name),
        long_name: Bytes::from(long_name),
    }
}
