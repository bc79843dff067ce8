//! The one table of commands: names, options and help. What is parsed, what `--help`
//! and `help` say and what may be run comes from here.

use std::io;

use futures_util::future::BoxFuture;
use wharf_model::{Refusal, VirtualPath};

use super::interpreter::Interpreter;
use super::quote::{quoted, quoted_if_needed};
use super::streams::Streams;
use super::{ExitStatus, digest, facts, files, find, list, refusal, scp, state, text};

/// What a command comes to; an error means that a stream to the client is gone.
pub(super) type Outcome = io::Result<ExitStatus>;

/// A command.
pub(super) struct Spec {
    pub(super) name: &'static str,
    /// How its operands are written in its usage line.
    pub(super) operands: &'static str,
    /// What it does, in one line.
    pub(super) about: &'static str,
    pub(super) syntax: Syntax,
    /// How it ends when it is used wrongly.
    pub(super) misuse: ExitStatus,
    pub(super) run: Run,
}

/// What carries a command out.
pub(super) type Run = for<'a> fn(Context<'a>, Arguments) -> BoxFuture<'a, Outcome>;

/// How a command reads its arguments.
pub(super) enum Syntax {
    /// As they are: everything is an operand.
    Raw,
    /// Options as GNU takes them, anywhere before `--`.
    Options(&'static [Choice]),
    /// The same, and `-5` for `-n 5`.
    CountedOptions(&'static [Choice]),
}

/// One option of a command.
#[derive(Debug)]
pub(super) struct Choice {
    /// Its letters; the first is what the command asks for. Empty if it has a long name only.
    letters: &'static str,
    /// Empty if it has letters only.
    long: &'static str,
    value: Value,
    about: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    None,
    /// Called so in the help.
    Needed(&'static str),
    /// After `=` only.
    Optional(&'static str),
}

/// An option without a value.
pub(super) const fn flag(letters: &'static str, long: &'static str, about: &'static str) -> Choice {
    Choice {
        letters,
        long,
        value: Value::None,
        about,
    }
}

/// An option with a value.
pub(super) const fn valued(
    letters: &'static str,
    long: &'static str,
    value: &'static str,
    about: &'static str,
) -> Choice {
    Choice {
        letters,
        long,
        value: Value::Needed(value),
        about,
    }
}

/// A long option that may have a value.
pub(super) const fn optional(
    long: &'static str,
    value: &'static str,
    about: &'static str,
) -> Choice {
    Choice {
        letters: "",
        long,
        value: Value::Optional(value),
        about,
    }
}

/// Every command, in the order in which `help` shows them.
pub(super) static TABLE: [&Spec; 38] = [
    &list::LS,
    &text::CAT,
    &text::HEAD,
    &text::TAIL,
    &text::WC,
    &state::PWD,
    &state::CD,
    &files::MKDIR,
    &files::RMDIR,
    &files::RM,
    &files::MV,
    &files::CP,
    &files::TOUCH,
    &files::CHMOD,
    &facts::STAT,
    &facts::DU,
    &facts::DF,
    &find::FIND,
    &digest::MD5SUM,
    &digest::SHA1SUM,
    &digest::SHA256SUM,
    &digest::SHA512SUM,
    &digest::B3SUM,
    &digest::CRC32,
    &scp::SCP,
    &state::ECHO,
    &state::TRUE,
    &state::COLON,
    &state::FALSE,
    &state::TEST,
    &state::BRACKET,
    &state::TYPE,
    &state::COMMAND,
    &state::EXPORT,
    &state::UNSET,
    &state::UNALIAS,
    &state::EXIT,
    &state::HELP,
];

/// The command called `name`, also by a path such as `/bin/ls`, as clients send it
/// that have looked for it.
pub(super) fn find_command(name: &[u8]) -> Option<&'static Spec> {
    let bare = [&b"/bin/"[..], b"/usr/bin/"]
        .into_iter()
        .find_map(|folder| name.strip_prefix(folder))
        .unwrap_or(name);
    TABLE.into_iter().find(|spec| spec.name.as_bytes() == bare)
}

impl Spec {
    fn choices(&self) -> &'static [Choice] {
        match self.syntax {
            Syntax::Raw => &[],
            Syntax::Options(choices) | Syntax::CountedOptions(choices) => choices,
        }
    }

    /// `Usage: ls [OPTION]... [FILE]...`.
    pub(super) fn usage(&self) -> String {
        let options = if self.choices().is_empty() {
            ""
        } else {
            " [OPTION]..."
        };
        let gap = if self.operands.is_empty() { "" } else { " " };
        format!("{}{options}{gap}{}", self.name, self.operands)
    }

    /// What `--help` prints.
    pub(super) fn help(&self) -> String {
        let mut text = format!("Usage: {}\n{}\n", self.usage(), self.about);
        if !self.choices().is_empty() {
            text.push('\n');
        }
        for choice in self.choices() {
            text.push_str(&format!("  {:<28} {}\n", choice.spelling(), choice.about));
        }
        text
    }

    /// Runs the command.
    pub(super) async fn start(
        &'static self,
        words: Vec<Vec<u8>>,
        shell: &mut Interpreter,
        streams: &mut Streams,
    ) -> Outcome {
        let mut context = Context {
            spec: self,
            shell,
            streams,
        };
        let arguments = match self.read(words) {
            Ok(arguments) => arguments,
            Err(misuse) => return context.misused(&misuse).await,
        };
        if arguments.help {
            context.streams.write(self.help().as_bytes()).await?;
            return Ok(ExitStatus::SUCCESS);
        }
        (self.run)(context, arguments).await
    }

    fn read(&'static self, words: Vec<Vec<u8>>) -> Result<Arguments, String> {
        let counted = match self.syntax {
            Syntax::Raw => {
                return Ok(Arguments {
                    operands: words,
                    ..Arguments::default()
                });
            }
            Syntax::Options(_) => false,
            Syntax::CountedOptions(_) => true,
        };
        let mut arguments = Arguments::default();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            match word.as_slice() {
                b"--" => {
                    arguments.operands.extend(words.by_ref());
                }
                [b'-', b'-', long @ ..] => self.read_long(long, &mut words, &mut arguments)?,
                [b'-', digits @ ..]
                    if counted && !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) =>
                {
                    arguments.options.push(("n", digits.to_vec()));
                }
                [b'-', letters @ ..] if !letters.is_empty() => {
                    self.read_letters(letters, &mut words, &mut arguments)?;
                }
                _ => arguments.operands.push(word),
            }
        }
        Ok(arguments)
    }

    fn read_long(
        &self,
        word: &[u8],
        words: &mut impl Iterator<Item = Vec<u8>>,
        arguments: &mut Arguments,
    ) -> Result<(), String> {
        let equals = word.iter().position(|byte| *byte == b'=');
        let (name, value) = match equals {
            Some(at) => (word.get(..at).unwrap_or_default(), word.get(at + 1..)),
            None => (word, None),
        };
        let shown = quoted(&[b"--", name].concat());
        if name == b"help" {
            arguments.help = true;
            return Ok(());
        }
        let choice = self.choose_long(name).ok_or_else(|| {
            let shown = String::from_utf8_lossy(name);
            format!(
                "unrecognized option '--{}'",
                wharf_model::escape_for_display(shown.as_bytes())
            )
        })?;
        let value = match (choice.value, value) {
            (Value::None, Some(_)) => {
                return Err(format!("option {shown} doesn't allow an argument"));
            }
            (Value::None | Value::Optional(_), value) => value.unwrap_or_default().to_vec(),
            (Value::Needed(_), Some(value)) => value.to_vec(),
            (Value::Needed(_), None) => words
                .next()
                .ok_or_else(|| format!("option {shown} requires an argument"))?,
        };
        arguments.options.push((choice.key(), value));
        Ok(())
    }

    /// By its name, or by the beginning of one name only.
    fn choose_long(&self, name: &[u8]) -> Option<&'static Choice> {
        let mut longs = self
            .choices()
            .iter()
            .filter(|choice| !choice.long.is_empty());
        if let Some(exact) = longs.clone().find(|choice| choice.long.as_bytes() == name) {
            return Some(exact);
        }
        let mut begun = longs
            .by_ref()
            .filter(|choice| !name.is_empty() && choice.long.as_bytes().starts_with(name));
        begun.next().filter(|_| begun.next().is_none())
    }

    fn read_letters(
        &self,
        mut letters: &[u8],
        words: &mut impl Iterator<Item = Vec<u8>>,
        arguments: &mut Arguments,
    ) -> Result<(), String> {
        while let [letter, rest @ ..] = letters {
            let choice = self
                .choices()
                .iter()
                .find(|choice| choice.letters.as_bytes().contains(letter))
                .ok_or_else(|| {
                    let shown = wharf_model::escape_for_display(&[*letter]);
                    format!("invalid option -- '{shown}'")
                })?;
            letters = rest;
            let value = match choice.value {
                Value::None | Value::Optional(_) => Vec::new(),
                Value::Needed(_) if !rest.is_empty() => {
                    letters = &[];
                    rest.to_vec()
                }
                Value::Needed(_) => words.next().ok_or_else(|| {
                    format!("option requires an argument -- '{}'", char::from(*letter))
                })?,
            };
            arguments.options.push((choice.key(), value));
        }
        Ok(())
    }
}

impl Choice {
    /// What a command asks for it by: its first letter, or its long name.
    fn key(&self) -> &'static str {
        self.letters.get(..1).unwrap_or(self.long)
    }

    fn spelling(&self) -> String {
        let value = |separator: &str| match self.value {
            Value::None => String::new(),
            Value::Needed(name) => format!("{separator}{name}"),
            Value::Optional(name) => format!("[={name}]"),
        };
        let letters: Vec<String> = self
            .letters
            .chars()
            .map(|letter| format!("-{letter}"))
            .collect();
        match (letters.is_empty(), self.long.is_empty()) {
            (false, true) => format!("{}{}", letters.join(", "), value(" ")),
            (false, false) => format!("{}, --{}{}", letters.join(", "), self.long, value("=")),
            (true, _) => format!("    --{}{}", self.long, value("=")),
        }
    }
}

/// What a command was given.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    /// In the order in which they were given.
    options: Vec<(&'static str, Vec<u8>)>,
    pub(super) operands: Vec<Vec<u8>>,
    help: bool,
}

impl Arguments {
    /// Whether the option with this first letter, or this long name, was given.
    pub(super) fn has(&self, key: &str) -> bool {
        self.options.iter().any(|(given, _)| *given == key)
    }

    /// The value that was given last.
    pub(super) fn value(&self, key: &str) -> Option<&[u8]> {
        self.last_of(&[key]).map(|(_, value)| value)
    }

    /// Which of some options was given last, with its value.
    pub(super) fn last_of(&self, keys: &[&str]) -> Option<(&'static str, &[u8])> {
        let mut given = self.options.iter().rev();
        given
            .find(|(given, _)| keys.contains(given))
            .map(|(key, value)| (*key, value.as_slice()))
    }

    /// The operands, or this one if there are none.
    pub(super) fn operands_or(&self, usual: &[u8]) -> Vec<Vec<u8>> {
        if self.operands.is_empty() {
            vec![usual.to_vec()]
        } else {
            self.operands.clone()
        }
    }
}

/// What a command works with.
pub(super) struct Context<'a> {
    pub(super) spec: &'static Spec,
    pub(super) shell: &'a mut Interpreter,
    pub(super) streams: &'a mut Streams,
}

impl Context<'_> {
    /// An argument as a path.
    pub(super) fn path(&self, argument: &[u8]) -> Result<VirtualPath, Refusal> {
        self.shell.path(argument)
    }

    /// Writes to standard output.
    pub(super) async fn print(&mut self, content: &[u8]) -> io::Result<()> {
        self.streams.write(content).await
    }

    /// `NAME: what` on standard error.
    pub(super) async fn complain(&mut self, what: &str) -> io::Result<()> {
        let line = format!("{}: {what}\n", self.spec.name);
        self.streams.write_error(line.as_bytes()).await
    }

    /// `NAME: doing 'operand': why`, and the log learns of what only it may know.
    pub(super) async fn refuse(
        &mut self,
        doing: &str,
        operand: &[u8],
        refusal: &Refusal,
    ) -> io::Result<()> {
        log(self.spec.name, operand, refusal);
        let why = refusal::text(refusal);
        let line = if doing.is_empty() {
            format!("{}: {why}", quoted_if_needed(operand))
        } else {
            format!("{doing} {}: {why}", quoted(operand))
        };
        self.complain(&line).await
    }

    /// Says how the command is used.
    pub(super) async fn misused(&mut self, why: &str) -> Outcome {
        self.complain(why).await?;
        let hint = format!("Try '{} --help' for more information.\n", self.spec.name);
        self.streams.write_error(hint.as_bytes()).await?;
        Ok(self.spec.misuse)
    }
}

/// Tells the log what was refused, and what only it may know.
pub(super) fn log(command: &str, operand: &[u8], refusal: &Refusal) {
    let operand = wharf_model::cut_for_display(operand);
    if let Refusal::Io(error) = refusal {
        tracing::warn!(command, operand, %error, "a command failed");
    } else {
        tracing::debug!(command, operand, %refusal, "a command was refused");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<Vec<u8>> {
        line.split(' ')
            .map(|word| word.as_bytes().to_vec())
            .collect()
    }

    #[test]
    fn names_and_options_are_unique() {
        for (at, spec) in TABLE.iter().enumerate() {
            assert!(
                TABLE
                    .iter()
                    .skip(at + 1)
                    .all(|other| other.name != spec.name)
            );
            let letters: String = spec.choices().iter().map(|choice| choice.letters).collect();
            for letter in letters.chars() {
                assert_eq!(
                    letters.matches(letter).count(),
                    1,
                    "{} -{letter}",
                    spec.name
                );
            }
        }
    }

    #[test]
    fn options_are_read_as_by_getopt() {
        let read = |line| text::HEAD.read(words(line)).expect("arguments");
        for line in [
            "-n 5 file",
            "-n5 file",
            "file -n 5",
            "--lines=5 file",
            "--lin 5 file",
            "-5 file",
        ] {
            let arguments = read(line);
            assert_eq!(arguments.value("n"), Some(&b"5"[..]), "{line}");
            assert_eq!(arguments.operands, [b"file"], "{line}");
        }
        let arguments = read("-qn5 -- -n 6");
        assert!(arguments.has("q"));
        assert_eq!(arguments.operands, [&b"-n"[..], b"6"]);
        assert_eq!(read("-").operands, [b"-"]);
    }

    #[test]
    fn misuse_is_named_as_by_getopt() {
        for (line, expected) in [
            ("-x", "invalid option -- 'x'"),
            ("-n", "option requires an argument -- 'n'"),
            ("--lines", "option '--lines' requires an argument"),
            ("--quiet=1", "option '--quiet' doesn't allow an argument"),
            ("--nope", "unrecognized option '--nope'"),
        ] {
            assert_eq!(text::HEAD.read(words(line)).expect_err(line), expected);
        }
    }

    #[test]
    fn help_names_every_option() {
        for spec in TABLE {
            let help = spec.help();
            assert!(help.starts_with(&format!("Usage: {}", spec.name)), "{help}");
            for choice in spec.choices() {
                assert!(help.contains(&choice.spelling()), "{help}");
                assert!(!choice.about.is_empty());
            }
        }
    }
}
