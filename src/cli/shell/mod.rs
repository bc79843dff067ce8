//! `wharf shell`: an interactive session with a server.

mod command;
mod complete;
mod history;
mod words;

use std::io::{BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use clap::Parser as _;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Config, Editor};
use serde_json::json;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use wharf_client::{
    Direction, Filter, Found, RemoteUrl, TreeEntry, Unobserved, UrlPath, WalkOptions, below, stat,
    walk_remote,
};
use wharf_model::{EntryKind, VirtualPath};

use self::command::{Command, Kind, Line};
use self::complete::ShellHelper;
use crate::cli::output::Output;
use crate::cli::site::{
    MOST_JOBS, Site, SiteArgs, UrlArgument, runtime, start_output, tell_program,
};
use crate::cli::{CliError, cat, get, hash, local, ls, mirror, mkdir, mv, put, rm, text};

/// Options of `wharf shell`.
#[derive(clap::Args)]
#[command(after_help = "\
`help` in the shell lists its commands; Tab completes commands, remote paths and local ones. Where standard input is \
no terminal, lines are read from it, and the first one that fails ends the shell with its exit code.

Examples:
  wharf shell ftp://alice@files.example/photos
  echo 'mirror -R site /public' | wharf shell ftp://alice@files.example")]
pub(crate) struct Args {
    #[command(flatten)]
    site: SiteArgs,
    /// The server, and the directory to begin in
    #[arg(value_name = "URL")]
    url: UrlArgument,
}

pub(crate) fn run(args: Args) -> Result<(), CliError> {
    let runtime = Arc::new(runtime()?);
    let interrupts = Interrupts::default();
    runtime.spawn(interrupts.clone().watch(std::io::stdin().is_terminal()));
    let output = start_output(&args.site);
    let shell = Shell::open(&args, Arc::clone(&output), Arc::clone(&runtime), interrupts);
    let result = shell.and_then(|mut shell| {
        let result = if std::io::stdin().is_terminal() {
            shell.talk()
        } else {
            shell.read_lines()
        };
        runtime.block_on(shell.site.pool.close());
        result
    });
    tell_program(&output, &result);
    if let Ok(runtime) = Arc::try_unwrap(runtime) {
        runtime.shutdown_background();
    }
    result
}

struct Shell {
    runtime: Arc<Runtime>,
    interrupts: Interrupts,
    site: Site,
    /// Where the login led to.
    home: VirtualPath,
    /// What the prompt shows before the directory: `ftp://alice@host`.
    server: String,
}

/// Whether the shell goes on.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Go,
    Quit,
}

impl Shell {
    fn open(
        args: &Args,
        output: Arc<Output>,
        runtime: Arc<Runtime>,
        interrupts: Interrupts,
    ) -> Result<Self, CliError> {
        let url = args.url.parse()?;
        let sessions = usize::try_from(MOST_JOBS).unwrap_or(1);
        let cancel = interrupts.begin();
        let site = runtime.block_on(Site::open(&args.site, &url, sessions, output, cancel))?;
        let mut shell = Self {
            home: site.directory.clone(),
            server: server_name(&url),
            runtime,
            interrupts,
            site,
        };
        if !url.path.components().is_empty() {
            let path = url.path;
            shell.while_interruptible(async |shell| shell.change_directory(&path).await)?;
        }
        Ok(shell)
    }

    /// Reads lines from a person.
    fn talk(&mut self) -> Result<(), CliError> {
        let config = Config::builder()
            .completion_type(CompletionType::List)
            .history_ignore_space(true)
            .build();
        let mut editor: Editor<ShellHelper, FileHistory> =
            Editor::with_config(config).map_err(|error| CliError::failed(&error))?;
        let history = history::file();
        if let Some(history) = &history {
            // The first session has none.
            let _ = editor.load_history(history);
        }
        loop {
            let pool = Arc::clone(&self.site.pool);
            let directory = self.site.directory.clone();
            editor.set_helper(Some(ShellHelper::new(
                self.runtime.handle().clone(),
                pool,
                directory,
            )));
            let prompt = format!("{}{}> ", self.server, self.site.directory);
            let next = match editor.readline(&prompt) {
                Ok(line) => {
                    remember(&mut editor, history.as_deref(), &line);
                    self.run_line(&line)
                }
                // Ctrl-C at the prompt drops the line.
                Err(ReadlineError::Interrupted) => Ok(Next::Go),
                Err(ReadlineError::Eof) => Ok(Next::Quit),
                Err(error) => return Err(CliError::failed(&error)),
            };
            match next {
                Ok(Next::Go) => {}
                Ok(Next::Quit) => break,
                Err(error) => self.tell(&error),
            }
        }
        Ok(())
    }

    /// Reads lines from a file or a pipe; the first that fails ends the shell:
    /// what follows a `cd` that failed must not happen elsewhere.
    fn read_lines(&mut self) -> Result<(), CliError> {
        for (index, line) in std::io::stdin().lock().lines().enumerate() {
            let line =
                line.map_err(|error| CliError::Usage(format!("line {}: {error}", index + 1)))?;
            match self.run_line(&line) {
                Ok(Next::Go) => {}
                Ok(Next::Quit) => break,
                Err(error) => {
                    eprintln!("wharf: line {}: {}", index + 1, line.trim());
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn tell(&self, error: &CliError) {
        if matches!(error, CliError::Told(_)) {
            return;
        }
        self.site.output.trouble(
            &error.to_string(),
            || json!({"event": "error", "kind": error.kind_name(), "message": error.to_string()}),
        );
    }

    fn run_line(&mut self, line: &str) -> Result<Next, CliError> {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return Ok(Next::Go);
        }
        if let Some(command) = line.strip_prefix('!') {
            return run_here(command).map(|()| Next::Go);
        }
        let (words, is_open) = words::split(line);
        if is_open {
            return Err(CliError::Usage(
                "a quotation mark is missing; write \\' or \\\" for one that belongs to a name"
                    .to_owned(),
            ));
        }
        let command = match Line::try_parse_from(words.into_iter().map(|word| word.text)) {
            Ok(line) => line.command,
            Err(help) if !help.use_stderr() => {
                self.site.output.result(
                    help.render().to_string().trim_end(),
                    || json!({"event": "help", "text": help.render().to_string()}),
                );
                return Ok(Next::Go);
            }
            Err(error) => return Err(CliError::Usage(usage(&error))),
        };
        if matches!(command, Command::Quit) {
            return Ok(Next::Quit);
        }
        let result = self.while_interruptible(async |shell| shell.run_command(command).await);
        self.site.output.end_bars();
        result.map(|()| Next::Go)
    }

    /// Does `work` so that Ctrl-C stops it and nothing else.
    fn while_interruptible(
        &mut self,
        work: impl AsyncFnOnce(&mut Self) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        self.site.cancel = self.interrupts.begin();
        let runtime = Arc::clone(&self.runtime);
        let result = runtime.block_on(work(self));
        self.interrupts.end();
        result
    }

    async fn run_command(&mut self, command: Command) -> Result<(), CliError> {
        let here = || UrlPath::parse("").map_err(|error| CliError::Usage(error.to_string()));
        let or_here = |paths: Vec<UrlPath>| {
            if paths.is_empty() {
                here().map(|here| vec![here])
            } else {
                Ok(paths)
            }
        };
        let site = &self.site;
        match command {
            Command::Ls { flags, paths } => ls::ls(site, &flags, &or_here(paths)?).await,
            Command::Cd { path: Some(path) } => self.change_directory(&path).await,
            Command::Cd { path: None } => {
                self.site.directory = self.home.clone();
                Ok(())
            }
            Command::Pwd => {
                let directory = site.directory.to_string();
                site.output
                    .result(&directory, || json!({"directory": directory}));
                Ok(())
            }
            Command::Lcd { path } => change_folder(site, path.as_deref()),
            Command::Get {
                flags,
                path,
                target,
            } => get::get(site, &flags, &[path], target.as_deref()).await,
            Command::Mget { flags, paths } => get::get(site, &flags, &paths, None).await,
            Command::Put {
                flags,
                path,
                target,
            } => {
                let sources = put::find_sources(&flags, &[path])?;
                put::put(site, &flags, sources, target.as_ref()).await
            }
            Command::Mput { flags, paths } => {
                let mut found = Vec::new();
                for word in &paths {
                    found.extend(expand_here(word)?);
                }
                let sources = put::find_sources(&flags, &found)?;
                put::put(site, &flags, sources, None).await
            }
            Command::Rm { flags, paths } => rm::rm(site, &flags, &paths).await,
            Command::Mkdir { flags, paths } => mkdir::mkdir(site, &flags, &paths).await,
            Command::Rmdir { paths } => rm::rmdir(site, &paths).await,
            Command::Mv { paths } => mv::mv(site, &paths).await,
            Command::Cat { paths } => cat::cat(site, &paths, true).await,
            Command::Hash { flags, paths } => hash::hash(site, &flags, &paths).await,
            Command::Du { paths } => du(site, &or_here(paths)?).await,
            Command::Find { path, name, kind } => {
                let path = match path {
                    Some(path) => path,
                    None => here()?,
                };
                find(site, &path, name, kind).await
            }
            Command::Mirror {
                mut flags,
                reverse,
                source,
                target,
            } => {
                flags.patterns_from(words::plain);
                let (direction, remote, folder) = if reverse {
                    (Direction::Upload, target, source)
                } else {
                    (Direction::Download, source, target)
                };
                let remote = remote.as_deref().unwrap_or_default();
                let remote = command::remote(remote).map_err(CliError::Usage)?;
                let folder = words::local_path(folder.as_deref().unwrap_or("."));
                mirror::mirror(site, &flags, direction, &remote, &folder).await
            }
            Command::Quit => Ok(()),
        }
    }

    async fn change_directory(&mut self, path: &UrlPath) -> Result<(), CliError> {
        let path = self.site.literal(path)?;
        let entry = self
            .site
            .at(&path, stat(&self.site.pool, &path, self.site.retries))
            .await?;
        if matches!(entry.kind, EntryKind::File | EntryKind::Other) {
            return Err(CliError::at(
                &path,
                &wharf_client::ClientError::NotADirectory,
            ));
        }
        self.site.directory = path;
        Ok(())
    }
}

/// Keeps a line at once: a session may end in any way. History is a comfort; a
/// folder that cannot be written is no reason to disturb.
fn remember(editor: &mut Editor<ShellHelper, FileHistory>, file: Option<&Path>, line: &str) {
    if matches!(editor.add_history_entry(line), Ok(true))
        && let Some(file) = file
    {
        let _ = editor.append_history(file);
    }
}

/// `ftp://alice@files.example:2121`.
fn server_name(url: &RemoteUrl) -> String {
    let mut bare = url.clone();
    bare.path = UrlPath::default();
    bare.to_string().trim_end_matches('/').to_owned()
}

/// What the argument parser complains about, without the colours and advice of a command line.
fn usage(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let text = text.trim_end().trim_start_matches("error: ");
    let text = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with("For more information"))
        .collect::<Vec<_>>()
        .join("\n");
    text + "\n`help` lists the commands"
}

/// Runs a command of this machine in the person's own shell.
fn run_here(command: &str) -> Result<(), CliError> {
    let shell = std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
    let status = std::process::Command::new(&shell)
        .arg("-c")
        .arg(command)
        .status()
        .map_err(|error| {
            CliError::Failed(format!(
                "cannot run {}: {error}",
                Path::new(&shell).display()
            ))
        })?;
    if status.success() {
        Ok(())
    } else {
        Err(CliError::Failed(format!("the command ended with {status}")))
    }
}

fn change_folder(site: &Site, path: Option<&Path>) -> Result<(), CliError> {
    if let Some(path) = path {
        std::env::set_current_dir(path).map_err(|error| {
            CliError::Client(
                wharf_client::ErrorKind::Local,
                format!("cannot change to {}: {error}", path.display()),
            )
        })?;
    }
    let folder = std::env::current_dir().map_err(|error| CliError::failed(&error))?;
    let folder = folder.display().to_string();
    site.output.note(&folder, || json!({"folder": folder}));
    Ok(())
}

/// The local files that a word with wildcards stands for; one without stands for itself.
fn expand_here(word: &str) -> Result<Vec<PathBuf>, CliError> {
    if !words::has_wildcards(word) {
        return Ok(vec![words::local_path(word)]);
    }
    let pattern = command::remote(word).map_err(CliError::Usage)?;
    let start = if word.starts_with('/') { "/" } else { "." };
    let found = local::expand(Path::new(start), &pattern)?;
    if found.is_empty() {
        return Err(CliError::Client(
            wharf_client::ErrorKind::Local,
            format!("nothing here matches {}", words::plain(word)),
        ));
    }
    Ok(found)
}

async fn walk(site: &Site, root: &VirtualPath) -> Result<Vec<TreeEntry>, CliError> {
    let everything = Filter::default();
    let options = WalkOptions {
        parallel: 4,
        retries: site.retries,
    };
    let walk = walk_remote(&site.pool, root, &everything, options, &Unobserved);
    site.at(root, walk).await
}

async fn du(site: &Site, paths: &[UrlPath]) -> Result<(), CliError> {
    for path in paths {
        for Found { path, entry } in site.find(path).await? {
            let entries = if entry.kind == EntryKind::Directory {
                walk(site, &path).await?
            } else {
                Vec::new()
            };
            let files = entries
                .iter()
                .filter(|entry| entry.kind == EntryKind::File)
                .count();
            let bytes: u64 = entries
                .iter()
                .filter(|entry| entry.kind == EntryKind::File)
                .filter_map(|entry| entry.facts.size)
                .sum();
            let (files, bytes) = match entry.kind {
                EntryKind::Directory => (files, bytes),
                _ => (1, entry.size.unwrap_or(0)),
            };
            site.output.result(
                &format!("{:>12}  {files:>8} files  {path}", text::size(bytes)),
                || json!({"name": text::json_name(path.as_bytes()), "files": files, "bytes": bytes}),
            );
        }
    }
    Ok(())
}

async fn find(
    site: &Site,
    path: &UrlPath,
    name: Option<String>,
    kind: Option<Kind>,
) -> Result<(), CliError> {
    let patterns: Vec<String> = name.into_iter().collect();
    let filter = Filter::new(&patterns, &[]).map_err(|error| CliError::Usage(error.to_string()))?;
    let root = site.literal(path)?;
    let mut entries = walk(site, &root).await?;
    entries.sort_by(|one, other| one.path.cmp(&other.path));
    for entry in entries {
        let right_kind = match kind {
            None => true,
            Some(Kind::File) => entry.kind == EntryKind::File,
            Some(Kind::Directory) => entry.kind == EntryKind::Directory,
        };
        if right_kind && filter.takes(&entry.path) {
            let path = below(&root, &entry.path)?;
            let shown = text::shown_name(path.as_bytes(), entry.kind);
            site.output.result(&shown, || {
                json!({"name": text::json_name(path.as_bytes()), "kind": text::kind_name(entry.kind), "size": entry.facts.size})
            });
        }
    }
    Ok(())
}

/// What Ctrl-C is about: the command that runs, if one does.
#[derive(Clone, Default)]
struct Interrupts {
    /// A lock because the signal comes in another task; never held across an await.
    running: Arc<Mutex<Option<CancellationToken>>>,
}

impl Interrupts {
    /// A token for a command that starts now.
    fn begin(&self) -> CancellationToken {
        let token = CancellationToken::new();
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.clone());
        token
    }

    fn end(&self) {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Cancels what runs at each Ctrl-C. One that comes between two commands
    /// ends a script, and is nothing to a person, who has the prompt.
    async fn watch(self, interactive: bool) {
        while tokio::signal::ctrl_c().await.is_ok() {
            let running = self
                .running
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            match running {
                Some(token) => token.cancel(),
                None if interactive => {}
                None => std::process::exit(130),
            }
        }
    }
}
