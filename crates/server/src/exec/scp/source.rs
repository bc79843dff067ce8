//! `scp -f`: sends what the other end asks for.

use std::io;

use wharf_model::{Entry, EntryKind, FileName, Refusal, VirtualPath};
use wharf_proto::scp::{Announced, GO_ON, Message, Times, WARNING};
use wharf_vfs::{Download, Vfs};

use super::super::files::below;
use super::super::streams::PIECE_BYTES;
use super::super::table::Context;
use super::super::walk::{Step, Walk};
use super::{Answer, Options, answer, complain, refuse};

/// Sends `sources`, as typed; whether all went well.
pub(super) async fn send(
    context: &mut Context<'_>,
    sources: &[Vec<u8>],
    options: &Options,
) -> io::Result<bool> {
    let mut source = Source {
        vfs: context.shell.vfs().clone(),
        preserve: options.preserve,
        success: true,
    };
    if answer(context).await? != Answer::GoOn {
        return Ok(false);
    }
    for typed in sources {
        if source.argument(context, typed, options.recursive).await? == Next::Nothing {
            return Ok(false);
        }
    }
    Ok(source.success)
}

struct Source {
    vfs: Vfs,
    preserve: bool,
    success: bool,
}

/// Whether the other end still listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Thing,
    Nothing,
}

/// Whether the other end took what was announced to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    Yes,
    No,
    Gone,
}

/// Directories that were announced and not ended yet, and what is passed over.
struct Descent<'a> {
    typed: &'a [u8],
    start: &'a VirtualPath,
    open: Vec<VirtualPath>,
    /// A directory that the other end did not take.
    refused: Option<VirtualPath>,
}

impl Source {
    async fn argument(
        &mut self,
        context: &mut Context<'_>,
        typed: &[u8],
        recursive: bool,
    ) -> io::Result<Next> {
        let found = match context.path(typed) {
            Ok(path) => self.vfs.metadata(&path).await.map(|entry| (path, entry)),
            Err(refusal) => Err(refusal),
        };
        match found {
            Ok((path, entry)) if entry.kind == EntryKind::Directory && recursive => {
                self.tree(context, typed, &path).await
            }
            Ok((_, entry)) if entry.kind == EntryKind::Directory => {
                self.complain(context, typed, "not a regular file (-r sends directories)")
                    .await
            }
            Ok((path, entry)) => self.file(context, typed, &path, &entry).await,
            Err(refusal) => self.refuse(context, typed, &refusal).await,
        }
    }

    async fn refuse(
        &mut self,
        context: &mut Context<'_>,
        name: &[u8],
        refusal: &Refusal,
    ) -> io::Result<Next> {
        self.success = false;
        refuse(context, name, refusal).await?;
        Ok(Next::Thing)
    }

    async fn complain(
        &mut self,
        context: &mut Context<'_>,
        name: &[u8],
        why: &str,
    ) -> io::Result<Next> {
        self.success = false;
        complain(context, WARNING, name, why).await?;
        Ok(Next::Thing)
    }

    /// Sends a directory and all below it. Links to files are sent as files, and links to
    /// directories are not followed: they may lead back.
    async fn tree(
        &mut self,
        context: &mut Context<'_>,
        typed: &[u8],
        start: &VirtualPath,
    ) -> io::Result<Next> {
        let vfs = self.vfs.clone();
        let mut descent = Descent {
            typed,
            start,
            open: Vec::new(),
            refused: None,
        };
        let mut walk = Walk::new(&vfs, start.clone(), usize::MAX);
        while let Some(step) = walk.next().await {
            if self.step(context, &mut descent, step).await? == Next::Nothing {
                return Ok(Next::Nothing);
            }
        }
        Ok(Next::Thing)
    }

    async fn step(
        &mut self,
        context: &mut Context<'_>,
        descent: &mut Descent<'_>,
        step: Step,
    ) -> io::Result<Next> {
        match step {
            Step::Found { path, entry, .. } => {
                let parent = path.parent().unwrap_or_else(VirtualPath::root);
                match self.ensure_open(context, descent, &parent).await? {
                    Taken::Yes => {}
                    Taken::No => return Ok(Next::Thing),
                    Taken::Gone => return Ok(Next::Nothing),
                }
                if entry.kind == EntryKind::Directory {
                    return Ok(Next::Thing);
                }
                let shown = below(descent.typed, descent.start, &path);
                self.found(context, &shown, &path, entry).await
            }
            Step::Left { path, .. } => {
                let taken = self.ensure_open(context, descent, &path).await?;
                if descent.refused.as_ref() == Some(&path) {
                    descent.refused = None;
                }
                match taken {
                    Taken::Yes => {}
                    Taken::No => return Ok(Next::Thing),
                    Taken::Gone => return Ok(Next::Nothing),
                }
                descent.open.pop();
                Ok(match self.announce(context, &Message::End).await? {
                    Taken::Gone => Next::Nothing,
                    Taken::Yes | Taken::No => Next::Thing,
                })
            }
            Step::Refused { path, refusal } => {
                let shown = below(descent.typed, descent.start, &path);
                self.refuse(context, &shown, &refusal).await
            }
        }
    }

    /// Announces a directory at the first thing in it, or when it is left.
    async fn ensure_open(
        &mut self,
        context: &mut Context<'_>,
        descent: &mut Descent<'_>,
        path: &VirtualPath,
    ) -> io::Result<Taken> {
        if let Some(refused) = &descent.refused
            && path.starts_with(refused)
        {
            return Ok(Taken::No);
        }
        if descent.open.last() == Some(path) {
            return Ok(Taken::Yes);
        }
        let shown = below(descent.typed, descent.start, path);
        let entry = self.vfs.metadata(path).await;
        let taken = match (entry, name_of(&shown, path)) {
            (Ok(entry), Some(name)) => {
                let times = Times::both(entry.modified);
                let announced = Announced {
                    mode: entry.mode & 0o7777,
                    size: 0,
                    name,
                };
                self.announce_with(context, times, Message::Directory(announced))
                    .await?
            }
            (Err(refusal), _) => {
                self.refuse(context, &shown, &refusal).await?;
                Taken::No
            }
            (_, None) => {
                self.complain(context, &shown, NO_NAME).await?;
                Taken::No
            }
        };
        match taken {
            Taken::Yes => descent.open.push(path.clone()),
            Taken::No => descent.refused = Some(path.clone()),
            Taken::Gone => {}
        }
        Ok(taken)
    }

    async fn found(
        &mut self,
        context: &mut Context<'_>,
        shown: &[u8],
        path: &VirtualPath,
        entry: Entry,
    ) -> io::Result<Next> {
        let entry = if entry.kind == EntryKind::Symlink {
            match self.vfs.metadata(path).await {
                Ok(entry) => entry,
                Err(refusal) => return self.refuse(context, shown, &refusal).await,
            }
        } else {
            entry
        };
        match entry.kind {
            EntryKind::File => self.file(context, shown, path, &entry).await,
            EntryKind::Directory => {
                self.complain(context, shown, "a link to a directory is not followed")
                    .await
            }
            EntryKind::Symlink => {
                self.complain(context, shown, "a link that leads nowhere")
                    .await
            }
            EntryKind::Other => self.complain(context, shown, "not a regular file").await,
        }
    }

    async fn file(
        &mut self,
        context: &mut Context<'_>,
        shown: &[u8],
        path: &VirtualPath,
        entry: &Entry,
    ) -> io::Result<Next> {
        let Some(name) = name_of(shown, path) else {
            return self.complain(context, shown, NO_NAME).await;
        };
        let download = match self.vfs.open(path).await {
            Ok(download) => download,
            Err(refusal) => return self.refuse(context, shown, &refusal).await,
        };
        let size = download.entry().size;
        let announced = Message::File(Announced {
            mode: entry.mode & 0o7777,
            size,
            name,
        });
        let times = Times::both(entry.modified);
        match self.announce_with(context, times, announced).await? {
            Taken::Yes => {}
            Taken::No => return Ok(Next::Thing),
            Taken::Gone => return Ok(Next::Nothing),
        }
        match content(context, &download, size).await? {
            Ok(()) => {
                context.print(&[GO_ON]).await?;
                context.streams.flush().await?;
            }
            Err(refusal) => {
                self.refuse(context, shown, &refusal).await?;
            }
        }
        tracing::info!(%path, bytes = size, "file sent");
        Ok(match answer(context).await? {
            Answer::GoOn => Next::Thing,
            Answer::Complaint => {
                self.success = false;
                Next::Thing
            }
            Answer::End => Next::Nothing,
        })
    }

    /// Announces something, with `-p` its times before it.
    async fn announce_with(
        &mut self,
        context: &mut Context<'_>,
        times: Times,
        message: Message,
    ) -> io::Result<Taken> {
        if self.preserve {
            match self.announce(context, &Message::Times(times)).await? {
                Taken::Yes => {}
                not => return Ok(not),
            }
        }
        self.announce(context, &message).await
    }

    async fn announce(
        &mut self,
        context: &mut Context<'_>,
        message: &Message,
    ) -> io::Result<Taken> {
        context.print(&message.to_line()).await?;
        context.streams.flush().await?;
        Ok(match answer(context).await? {
            Answer::GoOn => Taken::Yes,
            Answer::Complaint => {
                self.success = false;
                Taken::No
            }
            Answer::End => Taken::Gone,
        })
    }
}

/// Sends exactly `size` bytes: where the file ends early, zeros make up for it, since the
/// other end counts, and the error says so.
async fn content(
    context: &mut Context<'_>,
    download: &Download,
    size: u64,
) -> io::Result<Result<(), Refusal>> {
    let mut read = Ok(());
    let mut offset = 0;
    while offset < size {
        let most = usize::try_from(size - offset).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
        let piece = match &read {
            Ok(()) => download.read_at(offset, most).await,
            Err(_) => Ok(vec![0; most].into()),
        };
        match piece {
            Ok(piece) if !piece.is_empty() => {
                context.print(&piece).await?;
                offset += u64::try_from(piece.len()).unwrap_or(u64::MAX);
            }
            Ok(_) => read = Err(Refusal::Io(io::ErrorKind::UnexpectedEof.into())),
            Err(refusal) => read = Err(refusal),
        }
    }
    Ok(read)
}

/// Said of a name that cannot be told in a line, and of the home without a name.
const NO_NAME: &str = "has no name that can be sent; ask for what is in it, as with '*'";

/// The name under which something is announced: as it was typed, else as it stands.
fn name_of(shown: &[u8], path: &VirtualPath) -> Option<FileName> {
    let mut typed = shown.rsplit(|byte| *byte == b'/');
    let typed = typed
        .find(|component| !component.is_empty())
        .unwrap_or_default();
    let stands = path.file_name().unwrap_or_default();
    FileName::parse(typed)
        .or_else(|_| FileName::parse(stands))
        .ok()
}
