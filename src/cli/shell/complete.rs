//! What Tab completes: commands, options, paths on the server and here.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::{CommandFactory as _, ValueHint};
use rustyline::completion::{Completer, Pair};
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper};
use tokio::runtime::Handle;
use wharf_client::{LocalTree, Pool, RemoteEntry, list};
use wharf_model::{EntryKind, VirtualPath, escape_for_display};

use crate::cli::shell::command::{Line, REMOTE};
use crate::cli::shell::words::{self, Word};

/// Completes lines of the shell.
pub(super) struct ShellHelper {
    runtime: Handle,
    pool: Arc<Pool>,
    directory: VirtualPath,
    /// The listing that was asked for last: people press Tab more than once.
    /// A lock because completion borrows the helper; never held while waiting.
    listed: Mutex<Option<(VirtualPath, Vec<RemoteEntry>)>>,
}

impl ShellHelper {
    pub(super) fn new(runtime: Handle, pool: Arc<Pool>, directory: VirtualPath) -> Self {
        Self {
            runtime,
            pool,
            directory,
            listed: Mutex::new(None),
        }
    }

    /// The entries of a directory on the server; none if it does not answer soon.
    fn list_remote(&self, directory: &VirtualPath) -> Vec<RemoteEntry> {
        let lock = || self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((listed, entries)) = &*lock()
            && listed == directory
        {
            return entries.clone();
        }
        let listing = list(&self.pool, directory, 0);
        let answer = self
            .runtime
            .block_on(async { tokio::time::timeout(PATIENCE, listing).await });
        let Ok(Ok(entries)) = answer else {
            return Vec::new();
        };
        *lock() = Some((directory.clone(), entries.clone()));
        entries
    }

    fn remote_names(&self, typed: &[u8]) -> Vec<Candidate> {
        let (folder, begin) = split_typed(typed);
        let Ok(directory) = self.directory.resolve(folder) else {
            return Vec::new();
        };
        let entries = self.list_remote(&directory);
        let entries = entries
            .iter()
            .map(|entry| (entry.name.as_slice(), entry.kind));
        candidates(entries, folder, begin)
    }
}

impl Completer for ShellHelper {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        at: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let before = line.get(..at).unwrap_or(line);
        let (start, candidates) = match what_is_typed(before) {
            Typed::Command(word) => (word.start, command_names(&word.text)),
            Typed::Option(command, word) => (word.start, option_names(&command, &word.text)),
            Typed::Remote(word) => (word.start, self.remote_names(&words::bytes(&word.text))),
            Typed::Local { word, folders } => {
                (word.start, local_names(&words::bytes(&word.text), folders))
            }
            Typed::Other => (at, Vec::new()),
        };
        let pairs = candidates
            .into_iter()
            .map(|Candidate { shown, written }| Pair {
                display: shown,
                replacement: written,
            })
            .collect();
        Ok((start, pairs))
    }
}

impl Hinter for ShellHelper {
    type Hint = String;
}

impl Highlighter for ShellHelper {
    fn highlight_candidate<'c>(
        &self,
        candidate: &'c str,
        _: rustyline::CompletionType,
    ) -> Cow<'c, str> {
        Cow::Borrowed(candidate)
    }
}

impl Validator for ShellHelper {}

impl Helper for ShellHelper {}

/// Something that a typed word may become.
#[derive(Debug, PartialEq, Eq)]
struct Candidate {
    shown: String,
    written: String,
}

/// What the last word of a line is the begin of.
#[derive(Debug, PartialEq, Eq)]
enum Typed {
    Command(Word),
    Option(String, Word),
    Remote(Word),
    Local { word: Word, folders: bool },
    Other,
}

/// Reads the line up to the cursor, as far as it was typed.
fn what_is_typed(before: &str) -> Typed {
    if before.trim_start().starts_with('!') {
        return Typed::Other;
    }
    let (mut words, is_open) = words::split(before);
    let begins_word = before.ends_with(char::is_whitespace) && !is_open;
    let last = match words.pop() {
        Some(last) if !begins_word || last.start + last.text.len() > before.len() => last,
        other => {
            words.extend(other);
            Word {
                start: before.len(),
                text: String::new(),
            }
        }
    };
    let Some((first, arguments)) = words.split_first() else {
        return Typed::Command(last);
    };
    let line = table();
    if first.text == "help" && arguments.is_empty() {
        return Typed::Command(last);
    }
    let Some(command) = line.find_subcommand(&first.text) else {
        return Typed::Other;
    };
    if last.text.starts_with('-') {
        return Typed::Option(first.text.clone(), last);
    }
    let mut position = 0;
    let mut is_value = false;
    for word in arguments {
        if is_value {
            is_value = false;
        } else if word.text.starts_with('-') {
            is_value = takes_value(command, &word.text);
        } else {
            position += 1;
        }
    }
    if is_value {
        return Typed::Other;
    }
    let positionals: Vec<_> = command.get_positionals().collect();
    let Some(argument) = positionals.get(position).or(positionals.last()) else {
        return Typed::Other;
    };
    let reverse = arguments
        .iter()
        .any(|word| matches!(word.text.as_str(), "-R" | "--reverse"));
    match argument.get_value_hint() {
        REMOTE if !reverse => Typed::Remote(last),
        ValueHint::DirPath if reverse => Typed::Remote(last),
        hint => Typed::Local {
            word: last,
            folders: hint == ValueHint::DirPath || reverse,
        },
    }
}

/// The commands, with all that is derived about their options.
fn table() -> clap::Command {
    let mut line = Line::command();
    line.build();
    line
}

fn takes_value(command: &clap::Command, option: &str) -> bool {
    if option.contains('=') {
        return false;
    }
    command.get_opts().any(|known| {
        let long = known
            .get_long()
            .is_some_and(|long| option == format!("--{long}"));
        let short = known
            .get_short()
            .is_some_and(|short| option == format!("-{short}"));
        long || short
    })
}

fn command_names(typed: &str) -> Vec<Candidate> {
    let mut names: Vec<String> = Line::command()
        .get_subcommands()
        .map(|command| command.get_name().to_owned())
        .chain(["help".to_owned()])
        .filter(|name| name.starts_with(typed))
        .collect();
    names.sort();
    names.into_iter().map(word_candidate).collect()
}

fn option_names(command: &str, typed: &str) -> Vec<Candidate> {
    let line = table();
    let Some(command) = line.find_subcommand(command) else {
        return Vec::new();
    };
    command
        .get_arguments()
        .filter(|argument| !argument.is_hide_set())
        .filter_map(clap::Arg::get_long)
        .map(|long| format!("--{long}"))
        .filter(|long| long.starts_with(typed))
        .map(word_candidate)
        .collect()
}

fn word_candidate(word: String) -> Candidate {
    Candidate {
        written: format!("{word} "),
        shown: word,
    }
}

/// The folder that was typed, with its slash, and the begin of the name.
fn split_typed(typed: &[u8]) -> (&[u8], &[u8]) {
    let after_slash = typed
        .iter()
        .rposition(|byte| *byte == b'/')
        .map_or(0, |at| at + 1);
    typed.split_at(after_slash)
}

/// Those of `entries` that begin as typed; hidden ones only for a typed dot.
fn candidates<'e>(
    entries: impl Iterator<Item = (&'e [u8], EntryKind)>,
    folder: &[u8],
    begin: &[u8],
) -> Vec<Candidate> {
    let mut found: Vec<_> = entries
        .filter(|(name, _)| name.starts_with(begin))
        .filter(|(name, _)| begin.starts_with(b".") || !name.starts_with(b"."))
        .collect();
    found.sort_unstable_by_key(|(name, _)| *name);
    found
        .into_iter()
        .map(|(name, kind)| {
            let end = if kind == EntryKind::Directory {
                "/"
            } else {
                " "
            };
            Candidate {
                shown: escape_for_display(name) + end.trim(),
                written: words::quote(&[folder, name].concat()) + end,
            }
        })
        .collect()
}

fn local_names(typed: &[u8], folders: bool) -> Vec<Candidate> {
    use std::os::unix::ffi::OsStrExt as _;
    let (folder, begin) = split_typed(typed);
    let path = match folder {
        b"" => std::path::Path::new("."),
        folder => std::path::Path::new(std::ffi::OsStr::from_bytes(folder)),
    };
    let Ok(entries) = LocalTree::open(path).and_then(|tree| tree.list(&VirtualPath::root())) else {
        return Vec::new();
    };
    let entries = entries
        .iter()
        .filter(|entry| !folders || entry.kind == EntryKind::Directory)
        .map(|entry| (entry.name.as_slice(), entry.kind));
    candidates(entries, folder, begin)
}

/// A person waits for a completion no longer than this.
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_of(line: &str) -> &'static str {
        match what_is_typed(line) {
            Typed::Command(_) => "command",
            Typed::Option(..) => "option",
            Typed::Remote(_) => "remote",
            Typed::Local { folders: false, .. } => "local",
            Typed::Local { folders: true, .. } => "folder",
            Typed::Other => "other",
        }
    }

    #[test]
    fn each_argument_is_completed_as_what_it_is() {
        for (line, expected) in [
            ("", "command"),
            ("ge", "command"),
            ("help m", "command"),
            ("get ", "remote"),
            ("get a", "remote"),
            ("get -r --jobs 4 a", "remote"),
            ("get --jobs ", "other"),
            ("get --jobs=4 a ", "local"),
            ("get 'a b", "remote"),
            ("get a ", "local"),
            ("get a b/", "local"),
            ("get --no", "option"),
            ("put ", "local"),
            ("put a ", "remote"),
            ("rm a b c", "remote"),
            ("lcd x", "folder"),
            ("mirror ", "remote"),
            ("mirror a ", "folder"),
            ("mirror -R ", "folder"),
            ("mirror -R a ", "remote"),
            ("nothing ", "other"),
            ("!ls ", "other"),
        ] {
            assert_eq!(kind_of(line), expected, "{line:?}");
        }
    }

    #[test]
    fn names_are_written_as_words_and_shown_as_they_are() {
        let entries: [(&[u8], EntryKind); 4] = [
            (b"a b", EntryKind::File),
            (b"a\x1b", EntryKind::Directory),
            (b".hidden", EntryKind::File),
            (b"other", EntryKind::File),
        ];
        let found = candidates(entries.into_iter(), b"d/", b"a");
        let pairs: Vec<_> = found
            .iter()
            .map(|found| (found.shown.as_str(), found.written.as_str()))
            .collect();
        assert_eq!(pairs, [("a\\x1b/", "d/a\\x1b/"), ("a b", "d/a\\ b ")]);
    }

    #[test]
    fn commands_and_options_come_from_the_table() {
        let names = |found: Vec<Candidate>| -> Vec<String> {
            found.into_iter().map(|found| found.shown).collect()
        };
        assert_eq!(
            names(command_names("m")),
            ["mget", "mirror", "mkdir", "mput", "mv"]
        );
        assert_eq!(names(option_names("rm", "--r")), ["--recursive"]);
    }
}
