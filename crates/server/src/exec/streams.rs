//! The three streams of a command, and where redirections lead them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufWriter};
use tokio::sync::Notify;
use wharf_model::Refusal;
use wharf_vfs::{Download, Upload};

/// Bytes that are read or written at a time. At 256 KiB the cost of handing a piece to a
/// thread that may block is under a tenth of its reading.
pub(super) const PIECE_BYTES: usize = 256 * 1024;

/// Bytes of output that are gathered from small writes.
const GATHERED_BYTES: usize = 64 * 1024;

/// Standard input, output and errors of a command.
pub struct Streams {
    pub(super) input: Input,
    output: BufWriter<Box<dyn AsyncWrite + Send + Unpin>>,
    errors: Box<dyn AsyncWrite + Send + Unpin>,
    routes: Routes,
    file: Option<FileOutput>,
    /// Where they led before the command that runs.
    before: Option<Before>,
    terminal: bool,
    interrupts: Arc<Notify>,
    asks: Arc<AtomicBool>,
}

/// What leads the streams back after a command.
struct Before {
    input: Option<Input>,
    routes: Routes,
}

/// Where the two outputs lead.
#[derive(Debug, Clone, Copy)]
pub(super) struct Routes {
    pub(super) output: Route,
    pub(super) errors: Route,
}

/// Where an output leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    Output,
    Errors,
    Nowhere,
    File,
}

impl Routes {
    const USUAL: Self = Self {
        output: Route::Output,
        errors: Route::Errors,
    };
}

/// A file that takes in the output of a command.
struct FileOutput {
    upload: Upload,
    gathered: BytesMut,
    /// The first write that failed; what comes after it goes nowhere.
    failed: Option<Refusal>,
}

impl Streams {
    /// Streams of a command; an SSH channel's, for instance.
    pub fn new(
        input: impl AsyncRead + Send + Unpin + 'static,
        output: impl AsyncWrite + Send + Unpin + 'static,
        errors: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Self {
        let asks = Arc::new(AtomicBool::new(false));
        let input = Source::Stream {
            stream: Box::new(input),
            asks: Arc::clone(&asks),
        };
        Self {
            input: Input::new(input),
            output: BufWriter::with_capacity(GATHERED_BYTES, Box::new(output)),
            errors: Box::new(errors),
            routes: Routes::USUAL,
            file: None,
            before: None,
            terminal: false,
            interrupts: Arc::default(),
            asks,
        }
    }

    /// The same, for a person: with a prompt, and names quoted so that they cannot harm a terminal.
    #[must_use]
    pub fn with_terminal(mut self) -> Self {
        self.terminal = true;
        self
    }

    /// The same, where each notification of `interrupts` is a Ctrl-C: a shell stops the command
    /// that runs and drops what was typed for it. A write to an output may then be dropped
    /// half-way and go on with other content.
    #[must_use]
    pub fn with_interrupts(mut self, interrupts: Arc<Notify>) -> Self {
        self.interrupts = interrupts;
        self
    }

    /// Whether the command that runs has asked for input of the client, and so hears when there
    /// will be no more.
    pub fn asks(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.asks)
    }

    /// What tells of a Ctrl-C.
    pub(super) fn interrupts(&self) -> Arc<Notify> {
        Arc::clone(&self.interrupts)
    }

    /// Whether there is a prompt.
    pub(super) fn has_terminal(&self) -> bool {
        self.terminal
    }

    /// Whether standard output is read by a person.
    pub(super) fn shows_to_person(&self) -> bool {
        self.terminal && self.routes.output == Route::Output
    }

    /// Writes to standard output.
    pub(super) async fn write(&mut self, content: &[u8]) -> io::Result<()> {
        self.write_to(self.routes.output, content).await
    }

    /// Writes to standard error, after what was written to standard output.
    pub(super) async fn write_error(&mut self, content: &[u8]) -> io::Result<()> {
        if self.routes.errors == Route::Errors {
            self.output.flush().await?;
        }
        self.write_to(self.routes.errors, content).await
    }

    async fn write_to(&mut self, route: Route, content: &[u8]) -> io::Result<()> {
        match route {
            Route::Output => self.output.write_all(content).await,
            Route::Errors => self.errors.write_all(content).await,
            Route::Nowhere => Ok(()),
            Route::File => {
                if let Some(file) = &mut self.file {
                    file.write(content).await;
                }
                Ok(())
            }
        }
    }

    /// Hands everything that was gathered to the client.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        self.output.flush().await?;
        self.errors.flush().await
    }

    /// Leads the streams elsewhere for one command that starts.
    pub(super) fn redirect(&mut self, redirected: Redirected) {
        self.asks.store(false, Ordering::Release);
        let input = redirected
            .input
            .map(|input| std::mem::replace(&mut self.input, input));
        self.file = redirected.file.map(|upload| FileOutput {
            upload,
            gathered: BytesMut::new(),
            failed: None,
        });
        let routes = std::mem::replace(&mut self.routes, redirected.routes);
        self.before = Some(Before { input, routes });
    }

    /// Leads the streams back and puts the file with the output in its place.
    ///
    /// # Errors
    /// Why the output did not get into the file.
    pub(super) async fn restore(&mut self) -> Result<(), Refusal> {
        if let Some(before) = self.before.take() {
            if let Some(input) = before.input {
                self.input = input;
            }
            self.routes = before.routes;
        }
        match self.file.take() {
            Some(file) => file.finish().await,
            None => Ok(()),
        }
    }

    /// Keeps what is in the file so far as a cut upload: whoever was to send or take the rest is gone.
    pub(super) async fn break_off(&mut self) {
        if let Some(mut file) = self.file.take() {
            file.hand_over().await;
        }
    }

    /// Makes the streams ready for the next command after one that was dropped half-way: what
    /// it was to read and had to say is forgotten, and its file is kept as a cut upload.
    pub(super) async fn interrupt(&mut self) -> Result<(), Refusal> {
        self.break_off().await;
        self.restore().await?;
        self.input.buffer.clear();
        let nowhere: Box<dyn AsyncWrite + Send + Unpin> = Box::new(tokio::io::sink());
        let output = std::mem::replace(&mut self.output, BufWriter::new(nowhere));
        self.output = BufWriter::with_capacity(GATHERED_BYTES, output.into_inner());
        Ok(())
    }

    pub(super) fn routes(&self) -> Routes {
        self.routes
    }
}

/// Where the streams of one command lead.
pub(super) struct Redirected {
    pub(super) input: Option<Input>,
    pub(super) routes: Routes,
    pub(super) file: Option<Upload>,
}

impl FileOutput {
    async fn write(&mut self, content: &[u8]) {
        self.gathered.extend_from_slice(content);
        if self.gathered.len() >= PIECE_BYTES {
            self.hand_over().await;
        }
    }

    async fn hand_over(&mut self) {
        let content = self.gathered.split().freeze();
        if self.failed.is_none()
            && !content.is_empty()
            && let Err(refusal) = self.upload.write(content).await
        {
            self.failed = Some(refusal);
        }
    }

    async fn finish(mut self) -> Result<(), Refusal> {
        self.hand_over().await;
        match self.failed {
            Some(refusal) => {
                self.upload.discard().await;
                Err(refusal)
            }
            None => self.upload.commit().await.map(drop),
        }
    }
}

/// A standard input, read through a buffer that is shared by whoever reads it in turn.
pub(super) struct Input {
    source: Source,
    buffer: BytesMut,
}

/// What stands behind an input.
pub(super) enum Source {
    Stream {
        stream: Box<dyn AsyncRead + Send + Unpin>,
        /// Set when something is read of it.
        asks: Arc<AtomicBool>,
    },
    File {
        download: Download,
        offset: u64,
    },
    Nothing,
}

/// A line of an input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum InputLine {
    /// Without its line end.
    Whole(Vec<u8>),
    /// It had more bytes than the bound; nothing of it was kept.
    TooLong,
    End,
}

impl Input {
    pub(super) fn new(source: Source) -> Self {
        Self {
            source,
            buffer: BytesMut::new(),
        }
    }

    /// The next bytes, at most `most` of them; `None` at the end. Dropping the future loses nothing.
    pub(super) async fn piece(&mut self, most: usize) -> io::Result<Option<Bytes>> {
        if !self.fill().await? {
            return Ok(None);
        }
        let length = self.buffer.len().min(most);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    /// The next line, of at most `most` bytes. What stands behind the last line end is a line.
    pub(super) async fn line(&mut self, most: usize) -> io::Result<InputLine> {
        let mut line = Vec::new();
        let mut overlong = false;
        while self.fill().await? {
            let end = self.buffer.iter().position(|byte| *byte == b'\n');
            let taken = self.buffer.split_to(end.unwrap_or(self.buffer.len()));
            overlong |= line.len() + taken.len() > most;
            if !overlong {
                line.extend_from_slice(&taken);
            }
            if end.is_some() {
                let _ = self.buffer.split_to(1);
                return Ok(finished(line, overlong));
            }
        }
        if line.is_empty() && !overlong {
            return Ok(InputLine::End);
        }
        Ok(finished(line, overlong))
    }

    /// Makes sure that something is in the buffer; `false` at the end.
    async fn fill(&mut self) -> io::Result<bool> {
        if !self.buffer.is_empty() {
            return Ok(true);
        }
        match &mut self.source {
            Source::Nothing => {}
            Source::Stream { stream, asks } => {
                asks.store(true, Ordering::Release);
                self.buffer.reserve(PIECE_BYTES);
                stream.read_buf(&mut self.buffer).await?;
            }
            Source::File { download, offset } => {
                let piece = download.read_at(*offset, PIECE_BYTES).await;
                let piece = piece.map_err(io::Error::other)?;
                *offset += u64::try_from(piece.len()).unwrap_or(u64::MAX);
                self.buffer.extend_from_slice(&piece);
            }
        }
        Ok(!self.buffer.is_empty())
    }
}

fn finished(line: Vec<u8>, overlong: bool) -> InputLine {
    if overlong {
        InputLine::TooLong
    } else {
        InputLine::Whole(line)
    }
}
