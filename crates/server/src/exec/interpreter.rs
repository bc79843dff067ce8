//! The state of a shell and the running of its lines.

use std::collections::BTreeMap;
use std::io;

use wharf_model::{Refusal, VirtualPath};
use wharf_proto::exec::{
    Command, ExpansionTooLong, MAX_LINE_BYTES, OutputStream, Redirection, Script, When, Word,
};
use wharf_vfs::{Disposition, UploadOptions, Vfs};

use super::glob::NotExpanded;
use super::streams::{Input, InputLine, Redirected, Route, Routes, Source, Streams};
use super::table::{Outcome, find_command};
use super::{ExitStatus, glob, quote, refusal};

/// Most bytes that the names and values of a shell's variables have together.
const MAX_VARIABLE_BYTES: usize = 64 * 1024;

/// Most bytes that the words of a command stand for together, wildcards included, each with what
/// it costs to keep one. Some times what Linux takes for a program (`ARG_MAX`).
const MAX_WORDS_BYTES: usize = 8 * 1024 * 1024;

/// What is said beyond that.
const TOO_LONG: &str = "Argument list too long";

/// What it costs to keep a word, about.
const WORD_BYTES: usize = 32;

/// A shell: a directory, variables, and how the last command ended.
pub struct Interpreter {
    vfs: Vfs,
    directory: VirtualPath,
    previous: VirtualPath,
    variables: BTreeMap<Vec<u8>, Vec<u8>>,
    status: ExitStatus,
    ended: bool,
}

impl Interpreter {
    /// A shell of its own in `directory`.
    pub fn new(vfs: Vfs, directory: VirtualPath) -> Self {
        Self {
            vfs,
            previous: directory.clone(),
            directory,
            variables: BTreeMap::new(),
            status: ExitStatus::SUCCESS,
            ended: false,
        }
    }

    /// The directory that relative paths start from.
    pub fn directory(&self) -> &VirtualPath {
        &self.directory
    }

    pub(super) fn vfs(&self) -> &Vfs {
        &self.vfs
    }

    pub(super) fn previous(&self) -> &VirtualPath {
        &self.previous
    }

    pub(super) fn change_directory(&mut self, to: VirtualPath) {
        self.previous = std::mem::replace(&mut self.directory, to);
    }

    /// Ends the shell after the command that is running.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    pub(super) fn status(&self) -> ExitStatus {
        self.status
    }

    /// Sets a variable; `false` where there is no room for it.
    pub(super) fn set_variable(&mut self, name: &[u8], value: Vec<u8>) -> bool {
        let others = self.variables.iter().filter(|(other, _)| *other != name);
        let held: usize = others.map(|(name, value)| name.len() + value.len()).sum();
        if held + name.len() + value.len() > MAX_VARIABLE_BYTES {
            return false;
        }
        self.variables.insert(name.to_vec(), value);
        true
    }

    pub(super) fn unset_variable(&mut self, name: &[u8]) {
        self.variables.remove(name);
    }

    /// Runs the lines of the client until it ends or one of them is `exit`. An interrupt stops
    /// the command that runs, or drops the line that is being read.
    ///
    /// # Errors
    /// A stream to the client is gone.
    pub async fn run_shell(&mut self, streams: &mut Streams) -> io::Result<ExitStatus> {
        let interrupts = streams.interrupts();
        while !self.ended {
            if streams.has_terminal() {
                let shown = wharf_model::escape_for_display(self.directory.as_bytes());
                streams.write(format!("{shown}$ ").as_bytes()).await?;
                streams.flush().await?;
            }
            tokio::select! {
                // First, so that nothing is read that was typed after it.
                biased;
                () = interrupts.notified() => {
                    self.status = ExitStatus::INTERRUPTED;
                    streams.interrupt().await.map_err(io::Error::other)?;
                }
                ran = self.run_next_line(streams) => ran?,
            }
        }
        Ok(self.status)
    }

    async fn run_next_line(&mut self, streams: &mut Streams) -> io::Result<()> {
        match streams.input.line(MAX_LINE_BYTES).await? {
            InputLine::End => self.end(),
            InputLine::Whole(line) => {
                self.run_line(&line, streams).await?;
            }
            InputLine::TooLong => {
                let error = wharf_proto::exec::SyntaxError::TooLong;
                self.syntax_error(&error, streams).await?;
            }
        }
        Ok(())
    }

    /// Runs one line and says how its last command ended.
    ///
    /// # Errors
    /// A stream to the client is gone.
    pub async fn run_line(&mut self, line: &[u8], streams: &mut Streams) -> io::Result<ExitStatus> {
        match Script::parse(line) {
            Ok(script) => self.run_script(&script, streams).await?,
            Err(error) => self.syntax_error(&error, streams).await?,
        }
        streams.flush().await?;
        Ok(self.status)
    }

    async fn syntax_error(
        &mut self,
        error: &wharf_proto::exec::SyntaxError,
        streams: &mut Streams,
    ) -> io::Result<()> {
        self.status = ExitStatus::USAGE;
        streams
            .write_error(format!("wharf: {error}\n").as_bytes())
            .await
    }

    async fn run_script(&mut self, script: &Script, streams: &mut Streams) -> io::Result<()> {
        for step in &script.steps {
            let runs = match step.when {
                When::Always => true,
                When::AfterSuccess => self.status.is_success(),
                When::AfterFailure => !self.status.is_success(),
            };
            if runs && !self.ended {
                // What a command has said is seen before the next one waits for anything.
                streams.flush().await?;
                self.status = self.run_command(&step.command, streams).await?;
            }
        }
        Ok(())
    }

    async fn run_command(&mut self, command: &Command, streams: &mut Streams) -> Outcome {
        let words = match self.expand(&command.words).await {
            Ok(words) => words,
            Err(why) => return complain(streams, b"", why).await,
        };
        if !self.assign(command) {
            return complain(streams, b"", "no room for more variables").await;
        }
        let redirected = match self.open(command, streams.routes()).await {
            Ok(redirected) => redirected,
            Err(NotOpened { name, why }) => return complain(streams, &name, why).await,
        };
        streams.redirect(redirected);
        let ran = self.run_words(words, streams).await;
        let Ok(status) = ran else {
            streams.break_off().await;
            return ran;
        };
        let restored = streams.restore().await;
        match restored {
            Ok(()) => Ok(status),
            Err(refusal) => complain(streams, b"", refusal::text(&refusal)).await,
        }
    }

    async fn run_words(&mut self, words: Vec<Vec<u8>>, streams: &mut Streams) -> Outcome {
        let mut words = words.into_iter();
        let Some(name) = words.next() else {
            return Ok(ExitStatus::SUCCESS);
        };
        let Some(spec) = find_command(&name) else {
            let shown = quote::quoted_if_needed(&name);
            let text = format!(
                "{shown}: command not found\n\
                 wharf: this account has built-in commands only; 'help' lists them\n"
            );
            streams.write_error(text.as_bytes()).await?;
            return Ok(ExitStatus::NOT_FOUND);
        };
        tracing::debug!(command = spec.name, directory = %self.directory, "remote command");
        // Boxed, since `command NAME` starts a command out of one.
        Box::pin(spec.start(words.collect(), self, streams)).await
    }

    /// Runs a command that another one was given.
    pub(super) async fn run_other(
        &mut self,
        words: Vec<Vec<u8>>,
        streams: &mut Streams,
    ) -> Outcome {
        self.run_words(words, streams).await
    }

    /// Makes words of words: variables, then wildcards.
    async fn expand(&self, words: &[Word]) -> Result<Vec<Vec<u8>>, &'static str> {
        let mut expanded = Vec::new();
        let mut room = MAX_WORDS_BYTES;
        for word in words {
            let Some(word) = word
                .expand(&|name| self.value(name), room)
                .map_err(|ExpansionTooLong| TOO_LONG)?
            else {
                continue;
            };
            let mut made = match word.as_pattern() {
                Some(pattern) => glob::expand(&self.vfs, &self.directory, pattern)
                    .await
                    .map_err(|error| match error {
                        NotExpanded::TooManyNames => TOO_LONG,
                        NotExpanded::Refused(refusal) => refusal::text(&refusal),
                    })?,
                None => Vec::new(),
            };
            if made.is_empty() {
                made.push(word.into_bytes());
            }
            let cost: usize = made.iter().map(|word| word.len() + WORD_BYTES).sum();
            room = room.checked_sub(cost).ok_or(TOO_LONG)?;
            expanded.append(&mut made);
        }
        Ok(expanded)
    }

    /// Sets what stands before the command. It stays set, as nothing here reads an
    /// environment of its own.
    fn assign(&mut self, command: &Command) -> bool {
        command.assignments.iter().all(|assignment| {
            let value = &assignment.value;
            let Ok(value) = value.expand(&|name| self.value(name), MAX_VARIABLE_BYTES) else {
                return false;
            };
            let value = value.map(|value| value.into_bytes()).unwrap_or_default();
            self.set_variable(&assignment.name, value)
        })
    }

    fn value(&self, name: &[u8]) -> Vec<u8> {
        match name {
            b"?" => self.status.to_string().into_bytes(),
            b"HOME" => b"/".to_vec(),
            b"PWD" => self.directory.as_bytes().to_vec(),
            b"OLDPWD" => self.previous.as_bytes().to_vec(),
            b"0" => b"wharf".to_vec(),
            b"#" => b"0".to_vec(),
            _ => self.variables.get(name).cloned().unwrap_or_default(),
        }
    }

    /// Opens what the redirections name.
    async fn open(&self, command: &Command, routes: Routes) -> Result<Redirected, NotOpened> {
        let mut redirected = Redirected {
            input: None,
            routes,
            file: None,
        };
        for redirection in &command.redirections {
            match redirection {
                Redirection::Same { stream, as_stream } => {
                    let route = match as_stream {
                        OutputStream::Output => redirected.routes.output,
                        OutputStream::Errors => redirected.routes.errors,
                    };
                    *redirected.route(*stream) = route;
                }
                Redirection::Input(word) => {
                    redirected.input = Some(Input::new(self.open_input(word).await?));
                }
                Redirection::Output {
                    stream,
                    target,
                    append,
                } => {
                    let name = self.target(target);
                    *redirected.route(*stream) = if name == b"/dev/null" {
                        Route::Nowhere
                    } else if redirected.file.is_some() {
                        let why = "the output of a command leads to one file at most";
                        return Err(NotOpened { name, why });
                    } else {
                        redirected.file = Some(self.open_output(name, *append).await?);
                        Route::File
                    };
                }
            }
        }
        Ok(redirected)
    }

    async fn open_input(&self, word: &Word) -> Result<Source, NotOpened> {
        let name = self.target(word);
        if name == b"/dev/null" {
            return Ok(Source::Nothing);
        }
        let opened = match self.path(&name) {
            Ok(path) => self.vfs.open(&path).await,
            Err(refusal) => Err(refusal),
        };
        match opened {
            Ok(download) => Ok(Source::File {
                download,
                offset: 0,
            }),
            Err(refusal) => Err(NotOpened::by(name, &refusal)),
        }
    }

    async fn open_output(
        &self,
        name: Vec<u8>,
        append: bool,
    ) -> Result<wharf_vfs::Upload, NotOpened> {
        let options = UploadOptions {
            disposition: if append {
                Disposition::Append
            } else {
                Disposition::Replace
            },
            announced_bytes: None,
            digest: None,
        };
        let created = match self.path(&name) {
            Ok(path) => self.vfs.create(&path, options).await,
            Err(refusal) => Err(refusal),
        };
        created.map_err(|refusal| NotOpened::by(name, &refusal))
    }

    /// An argument as a path.
    pub(super) fn path(&self, name: &[u8]) -> Result<VirtualPath, Refusal> {
        if name.is_empty() {
            return Err(Refusal::NotFound);
        }
        Ok(self.directory.resolve(name)?)
    }

    fn target(&self, word: &Word) -> Vec<u8> {
        let most = VirtualPath::MAX_BYTES;
        let expanded = word.expand(&|name| self.value(name), most);
        // No file has a longer name, nor an empty one.
        let expanded = expanded.unwrap_or_default();
        expanded.map(|word| word.into_bytes()).unwrap_or_default()
    }
}

impl Redirected {
    fn route(&mut self, stream: OutputStream) -> &mut Route {
        match stream {
            OutputStream::Output => &mut self.routes.output,
            OutputStream::Errors => &mut self.routes.errors,
        }
    }
}

/// What a redirection names cannot be opened.
struct NotOpened {
    name: Vec<u8>,
    why: &'static str,
}

impl NotOpened {
    fn by(name: Vec<u8>, refusal: &Refusal) -> Self {
        Self {
            name,
            why: refusal::text(refusal),
        }
    }
}

/// `wharf: NAME: why`, as the shell itself says it.
async fn complain(streams: &mut Streams, name: &[u8], why: &str) -> Outcome {
    let shown = if name.is_empty() {
        String::new()
    } else {
        format!("{}: ", quote::quoted_if_needed(name))
    };
    streams
        .write_error(format!("wharf: {shown}{why}\n").as_bytes())
        .await?;
    Ok(ExitStatus::FAILURE)
}
