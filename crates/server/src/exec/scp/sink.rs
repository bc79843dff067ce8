//! `scp -t`: takes what the other end sends.

use std::io;

use wharf_model::{Refusal, VirtualPath};
use wharf_proto::scp::{Announced, FAILURE, MAX_LINE_BYTES, Message, Times, WARNING};
use wharf_vfs::{Disposition, Upload, UploadOptions, Vfs};

use super::super::streams::{InputLine, PIECE_BYTES};
use super::super::table::Context;
use super::{Answer, Options, answer, give_up, go_on, refuse};

/// Mode bits that new files and directories do not get without `-p` (umask 022).
const NEVER_NEW: u32 = 0o022;

/// Takes files to `target`, or into it where it is a directory; whether all went well.
pub(super) async fn take(
    context: &mut Context<'_>,
    target: &[u8],
    options: &Options,
) -> io::Result<bool> {
    let place = match context.path(target) {
        Ok(path) => context
            .shell
            .vfs()
            .enter(&path)
            .await
            .map(|()| path.clone())
            .or_else(|refusal| match refusal {
                // What is not there, or a file, is the new name itself.
                Refusal::NotFound | Refusal::NotADirectory if !options.into_directory => Ok(path),
                refusal => Err(refusal),
            }),
        Err(refusal) => Err(refusal),
    };
    let place = match place {
        Ok(place) => place,
        Err(refusal) => {
            refuse(context, target, &refusal).await?;
            return Ok(false);
        }
    };
    let mut sink = Sink {
        vfs: context.shell.vfs().clone(),
        preserve: options.preserve,
        recursive: options.recursive,
        target: place,
        open: Vec::new(),
        times: None,
        success: true,
    };
    go_on(context).await?;
    sink.run(context).await?;
    Ok(sink.success)
}

struct Sink {
    vfs: Vfs,
    preserve: bool,
    recursive: bool,
    target: VirtualPath,
    /// Directories on the way down to where the next thing goes. Bounded, as paths are.
    open: Vec<OpenDirectory>,
    /// Of what is announced next.
    times: Option<Times>,
    success: bool,
}

struct OpenDirectory {
    path: VirtualPath,
    /// What it gets when nothing is put into it any more.
    mode: Option<u32>,
    times: Option<Times>,
}

/// Whether lines are still taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Line,
    Nothing,
}

impl Sink {
    /// Takes lines until the stream ends, or what comes makes no sense.
    async fn run(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        loop {
            let line = match context.streams.input.line(MAX_LINE_BYTES).await? {
                InputLine::End => {
                    // Cut off within a directory.
                    self.success &= self.open.is_empty();
                    return Ok(());
                }
                InputLine::TooLong => {
                    self.success = false;
                    return give_up(context, b"protocol error", "a line is too long").await;
                }
                InputLine::Whole(line) => line,
            };
            if self.line(context, &line).await? == Next::Nothing {
                return Ok(());
            }
        }
    }

    async fn line(&mut self, context: &mut Context<'_>, line: &[u8]) -> io::Result<Next> {
        if let Some((&kind @ (WARNING | FAILURE), text)) = line.split_first() {
            let complaint = wharf_model::cut_for_display(text);
            tracing::debug!(complaint, "the other end of scp complains");
            self.success = false;
            return Ok(if kind == FAILURE {
                Next::Nothing
            } else {
                Next::Line
            });
        }
        match Message::parse(line) {
            Ok(Message::Times(times)) => {
                self.times = Some(times);
                go_on(context).await?;
            }
            Ok(Message::File(announced)) => return self.file(context, announced).await,
            Ok(Message::Directory(announced)) if self.recursive => {
                self.directory(context, announced).await?;
            }
            Ok(Message::Directory(announced)) => {
                let name = announced.name.as_bytes();
                return self
                    .end(context, name, "received a directory without -r")
                    .await;
            }
            Ok(Message::End) => return self.leave(context).await,
            Err(error) => {
                let why = error.to_string();
                return self.end(context, b"protocol error", &why).await;
            }
        }
        Ok(Next::Line)
    }

    async fn end(&mut self, context: &mut Context<'_>, name: &[u8], why: &str) -> io::Result<Next> {
        self.success = false;
        give_up(context, name, why).await?;
        Ok(Next::Nothing)
    }

    /// Where what is announced goes: into the directory that is open, or else to the target.
    async fn place(&self, announced: &Announced) -> Result<VirtualPath, Refusal> {
        let directory = match self.open.last() {
            Some(open) => &open.path,
            None => match self.vfs.enter(&self.target).await {
                Ok(()) => &self.target,
                Err(Refusal::NotFound | Refusal::NotADirectory) => return Ok(self.target.clone()),
                Err(refusal) => return Err(refusal),
            },
        };
        Ok(directory.resolve(announced.name.as_bytes())?)
    }

    async fn directory(
        &mut self,
        context: &mut Context<'_>,
        announced: Announced,
    ) -> io::Result<()> {
        let times = self.times.take().filter(|_| self.preserve);
        match self.enter(&announced).await {
            Ok((path, is_new)) => {
                let mode = if self.preserve {
                    Some(announced.mode & 0o777)
                } else {
                    is_new.then_some(announced.mode & 0o777 & !NEVER_NEW)
                };
                self.open.push(OpenDirectory { path, mode, times });
                go_on(context).await
            }
            Err(refusal) => {
                // The other end passes over what is in it.
                self.success = false;
                refuse(context, announced.name.as_bytes(), &refusal).await
            }
        }
    }

    /// The directory, and whether it was made.
    async fn enter(&self, announced: &Announced) -> Result<(VirtualPath, bool), Refusal> {
        let path = self.place(announced).await?;
        match self.vfs.make_directory(&path).await {
            Ok(()) => Ok((path, true)),
            Err(Refusal::AlreadyExists) => {
                self.vfs.enter(&path).await?;
                Ok((path, false))
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// A directory has everything that belongs into it.
    async fn leave(&mut self, context: &mut Context<'_>) -> io::Result<Next> {
        let Some(directory) = self.open.pop() else {
            return self
                .end(context, b"protocol error", "no directory is open")
                .await;
        };
        match self.finish(&directory).await {
            Ok(()) => go_on(context).await?,
            Err(refusal) => {
                self.success = false;
                refuse(context, directory.path.as_bytes(), &refusal).await?;
            }
        }
        Ok(Next::Line)
    }

    async fn finish(&self, directory: &OpenDirectory) -> Result<(), Refusal> {
        if let Some(mode) = directory.mode {
            let set = self.vfs.set_mode(&directory.path, mode).await;
            // Without -p it is a wish: whoever may not change modes still makes directories.
            if self.preserve {
                set?;
            }
        }
        match directory.times.and_then(Times::modified) {
            Some(time) => self.vfs.set_modified(&directory.path, time).await,
            None => Ok(()),
        }
    }

    async fn file(&mut self, context: &mut Context<'_>, announced: Announced) -> io::Result<Next> {
        let times = self.times.take().filter(|_| self.preserve);
        let begun = match self.place(&announced).await {
            Ok(path) => self
                .begin(&path, &announced)
                .await
                .map(|upload| (path, upload)),
            Err(refusal) => Err(refusal),
        };
        let (path, mut upload) = match begun {
            Ok(begun) => begun,
            Err(refusal) => {
                self.success = false;
                refuse(context, announced.name.as_bytes(), &refusal).await?;
                return Ok(Next::Line);
            }
        };
        go_on(context).await?;
        let mut written = Ok(());
        if !self
            .content(context, announced.size, &mut upload, &mut written)
            .await?
        {
            self.success = false;
            keep(upload, &path).await;
            return Ok(Next::Nothing);
        }
        match answer(context).await? {
            Answer::GoOn => {}
            // The sender could not read it all, and filled up with anything.
            Answer::Complaint => {
                self.success = false;
                upload.discard().await;
                go_on(context).await?;
                return Ok(Next::Line);
            }
            Answer::End => {
                self.success = false;
                keep(upload, &path).await;
                return Ok(Next::Nothing);
            }
        }
        let landed = match written {
            Ok(()) => self.land(upload, &announced, times).await,
            Err(refusal) => {
                upload.discard().await;
                Err(refusal)
            }
        };
        match landed {
            Ok(()) => {
                tracing::info!(%path, bytes = announced.size, "file taken");
                go_on(context).await?;
            }
            Err(refusal) => {
                self.success = false;
                refuse(context, announced.name.as_bytes(), &refusal).await?;
            }
        }
        Ok(Next::Line)
    }

    async fn begin(&self, path: &VirtualPath, announced: &Announced) -> Result<Upload, Refusal> {
        let options = UploadOptions {
            disposition: Disposition::Replace,
            announced_bytes: Some(announced.size),
            digest: None,
        };
        self.vfs.create(path, options).await
    }

    /// Takes the content of a file, whether it can be written or not; `false` if it ends early.
    async fn content(
        &self,
        context: &mut Context<'_>,
        size: u64,
        upload: &mut Upload,
        written: &mut Result<(), Refusal>,
    ) -> io::Result<bool> {
        let mut left = size;
        while left > 0 {
            let most = usize::try_from(left).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
            let Some(piece) = context.streams.input.piece(most).await? else {
                return Ok(false);
            };
            left -= u64::try_from(piece.len()).unwrap_or(left).min(left);
            if written.is_ok() {
                *written = upload.write(piece).await;
            }
        }
        Ok(true)
    }

    /// Puts a whole file under its name, with what belongs to it.
    async fn land(
        &self,
        mut upload: Upload,
        announced: &Announced,
        times: Option<Times>,
    ) -> Result<(), Refusal> {
        let facts = self.facts(&mut upload, announced, times).await;
        upload.commit().await?;
        facts
    }

    async fn facts(
        &self,
        upload: &mut Upload,
        announced: &Announced,
        times: Option<Times>,
    ) -> Result<(), Refusal> {
        if self.preserve {
            upload.set_mode(announced.mode & 0o777).await?;
        }
        match times.and_then(Times::modified) {
            Some(time) => upload.set_modified(time).await,
            None => Ok(()),
        }
    }
}

/// Keeps what arrived of a file, to be resumed by SFTP or FTP.
async fn keep(upload: Upload, path: &VirtualPath) {
    if let Err(refusal) = upload.cut().await {
        tracing::warn!(%refusal, %path, "an upload could not be kept");
    }
}
