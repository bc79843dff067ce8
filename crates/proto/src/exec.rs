//! Command lines of remote commands: what a POSIX shell makes of them, as far as
//! simple commands go (POSIX.1-2024 Shell Command Language, §2.2 to §2.10).
//!
//! ```text
//! bytes ─► Script::parse ─► Step (when, Command (words, redirections))
//! Word ─► expand (variables) ─► Expanded ─► Pattern, or the bytes as they are
//! ```
//!
//! Quotes, backslashes, comments, `;`, `&&`, `||`, `$NAME`, `~/`, assignments and the
//! harmless redirections that clients add are understood. Pipes, substitutions of
//! commands and everything that needs a process are refused by name. The value of a
//! variable is one word wherever it stands: it is neither split nor taken for a pattern.

pub mod pattern;

use pattern::escape;

/// Longest command line, in bytes: what fits into one packet of SSH as OpenSSH takes
/// them (256 KiB, `PACKET_MAX_SIZE`).
pub const MAX_LINE_BYTES: usize = 256 * 1024;

/// Commands of one line, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Script {
    /// In the order in which they stand.
    pub steps: Vec<Step>,
}

/// A command and when it is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What must have come before.
    pub when: When,
    /// What is run.
    pub command: Command,
}

/// On what a command depends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// On nothing: it is the first, or stands behind `;` or a line end.
    Always,
    /// On the success of what ran last: `&&`.
    AfterSuccess,
    /// On the failure of what ran last: `||`.
    AfterFailure,
}

/// One simple command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Command {
    /// `NAME=word` before the command.
    pub assignments: Vec<Assignment>,
    /// Its name and arguments; empty where only assignments stand.
    pub words: Vec<Word>,
    /// In the order in which they stand, which is the order in which they take effect.
    pub redirections: Vec<Redirection>,
}

/// A variable that is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Letters, digits and `_`, not beginning with a digit.
    pub name: Vec<u8>,
    /// Its value before expansion.
    pub value: Word,
}

/// Where a stream of a command leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redirection {
    /// `<WORD`.
    Input(Word),
    /// `>WORD`, `>>WORD`, `2>WORD`.
    Output {
        /// Which of the two streams.
        stream: OutputStream,
        /// The file's name.
        target: Word,
        /// Whether it is added to.
        append: bool,
    },
    /// `2>&1`, `>&2`: to where the other stream leads at that moment.
    Same {
        /// Which stream.
        stream: OutputStream,
        /// Where it is to lead.
        as_stream: OutputStream,
    },
}

/// A stream that a command writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputStream {
    /// Standard output, descriptor 1.
    Output,
    /// Standard error, descriptor 2.
    Errors,
}

/// A word before its expansion.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Word(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Plain(Vec<u8>),
    Quoted(Vec<u8>),
    Variable {
        name: Vec<u8>,
        quoted: bool,
    },
    /// `~` at the start of the word, with nothing or `/` behind it.
    Home,
}

/// A word after its expansion: bytes, some of which are wildcards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expanded {
    /// As a pattern: letters that look like wildcards have a backslash before them.
    pattern: Vec<u8>,
    /// Without the backslashes.
    bytes: Vec<u8>,
    has_wildcards: bool,
}

impl Script {
    /// Parses a command line, which may hold several lines.
    ///
    /// # Errors
    /// [`SyntaxError`] naming what cannot be understood or is not done here.
    pub fn parse(line: &[u8]) -> Result<Self, SyntaxError> {
        if line.len() > MAX_LINE_BYTES {
            return Err(SyntaxError::TooLong);
        }
        if line.contains(&0) {
            return Err(SyntaxError::Nul);
        }
        let mut scanner = Scanner { rest: line };
        let mut steps = Vec::new();
        let mut when = When::Always;
        loop {
            let command = scanner.command()?;
            let end = scanner.end_of_command()?;
            match command {
                Some(command) => steps.push(Step { when, command }),
                None if when != When::Always && end == End::Newline => continue,
                None if when != When::Always || end.needs_command() => {
                    return Err(SyntaxError::MissingCommand);
                }
                None => {}
            }
            when = match end {
                End::Whole => break,
                End::Semicolon | End::Newline => When::Always,
                End::And => When::AfterSuccess,
                End::Or => When::AfterFailure,
            };
        }
        Ok(Self { steps })
    }
}

/// What ends a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Whole,
    Newline,
    Semicolon,
    And,
    Or,
}

impl End {
    /// Whether something must stand before it.
    fn needs_command(self) -> bool {
        matches!(self, Self::Semicolon | Self::And | Self::Or)
    }
}

impl Word {
    /// What the word stands for, with `value` giving what variables hold (`HOME` for `~`);
    /// `None` where nothing is left of it, as of an unset variable without quotes.
    ///
    /// # Errors
    /// [`ExpansionTooLong`] when it stands for more than `most` bytes.
    pub fn expand(
        &self,
        value: &dyn Fn(&[u8]) -> Vec<u8>,
        most: usize,
    ) -> Result<Option<Expanded>, ExpansionTooLong> {
        let mut expanded = Expanded {
            pattern: Vec::new(),
            bytes: Vec::new(),
            has_wildcards: false,
        };
        let mut stands = false;
        for piece in &self.0 {
            match piece {
                Piece::Plain(text) => {
                    stands = true;
                    expanded.push_plain(text);
                }
                Piece::Quoted(text) => {
                    stands = true;
                    expanded.push_literal(text);
                }
                Piece::Variable { name, quoted } => {
                    let held = value(name);
                    stands |= *quoted || !held.is_empty();
                    expanded.push_literal(&held);
                }
                Piece::Home => {
                    stands = true;
                    expanded.push_literal(&value(b"HOME"));
                }
            }
            if expanded.bytes.len() > most {
                return Err(ExpansionTooLong);
            }
        }
        Ok(stands.then_some(expanded))
    }

    fn push(&mut self, byte: u8) {
        match self.0.last_mut() {
            Some(Piece::Plain(text)) => text.push(byte),
            _ => self.0.push(Piece::Plain(vec![byte])),
        }
    }

    fn push_quoted(&mut self, bytes: &[u8]) {
        match self.0.last_mut() {
            Some(Piece::Quoted(text)) => text.extend_from_slice(bytes),
            _ => self.0.push(Piece::Quoted(bytes.to_vec())),
        }
    }
}

/// A word stands for more bytes than there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("argument list too long")]
pub struct ExpansionTooLong;

impl Expanded {
    /// The word as it is, wildcards as letters.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The word as a pattern for [`pattern::Pattern`], if it has wildcards that are not quoted.
    pub fn as_pattern(&self) -> Option<&[u8]> {
        self.has_wildcards.then_some(&*self.pattern)
    }

    fn push_plain(&mut self, text: &[u8]) {
        self.bytes.extend_from_slice(text);
        self.pattern.extend_from_slice(text);
        self.has_wildcards |= text.iter().any(|byte| matches!(byte, b'*' | b'?' | b'['));
    }

    fn push_literal(&mut self, text: &[u8]) {
        self.bytes.extend_from_slice(text);
        escape(text, &mut self.pattern);
    }
}

/// Reads words and operators off the front of a line.
struct Scanner<'a> {
    rest: &'a [u8],
}

impl<'a> Scanner<'a> {
    /// The next simple command; `None` where none stands.
    fn command(&mut self) -> Result<Option<Command>, SyntaxError> {
        let mut command = Command::default();
        loop {
            self.skip_blanks();
            if let Some(redirection) = self.redirection()? {
                command.redirections.push(redirection);
                continue;
            }
            let Some(word) = self.word()? else { break };
            match split_assignment(&word) {
                Some(assignment) if command.words.is_empty() => {
                    command.assignments.push(assignment);
                }
                _ => command.words.push(word),
            }
        }
        let empty = command.words.is_empty()
            && command.assignments.is_empty()
            && command.redirections.is_empty();
        Ok((!empty).then_some(command))
    }

    fn end_of_command(&mut self) -> Result<End, SyntaxError> {
        let unsupported = |what| Err(SyntaxError::Unsupported(what));
        let (end, length) = match self.rest {
            [] => (End::Whole, 0),
            [b'\n', ..] => (End::Newline, 1),
            [b'&', b'&', ..] => (End::And, 2),
            [b'|', b'|', ..] => (End::Or, 2),
            [b';', b';', ..] => return Err(SyntaxError::Unexpected(';')),
            [b';', ..] => (End::Semicolon, 1),
            [b'|', ..] => return unsupported("a pipe ('|')"),
            [b'&', ..] => return unsupported("a command in the background ('&')"),
            [b'(', ..] => return unsupported("a subshell ('(')"),
            [other, ..] => return Err(SyntaxError::Unexpected(char::from(*other))),
        };
        self.skip(length);
        Ok(end)
    }

    /// Blanks, line ends that are quoted with a backslash, and comments.
    fn skip_blanks(&mut self) {
        loop {
            match self.rest {
                [b' ' | b'\t' | b'\r', ..] => self.skip(1),
                [b'\\', b'\n', ..] => self.skip(2),
                [b'#', ..] => {
                    let end = self.rest.iter().position(|byte| *byte == b'\n');
                    self.skip(end.unwrap_or(self.rest.len()));
                }
                _ => return,
            }
        }
    }

    fn redirection(&mut self) -> Result<Option<Redirection>, SyntaxError> {
        let (stream, length) = match self.rest {
            [b'<', b'<', ..] => return Err(SyntaxError::Unsupported("a here-document ('<<')")),
            [b'<', ..] | [b'0', b'<', ..] => {
                let length = if self.rest.first() == Some(&b'<') {
                    1
                } else {
                    2
                };
                self.skip(length);
                return Ok(Some(Redirection::Input(self.redirection_target()?)));
            }
            [b'>', ..] => (OutputStream::Output, 1),
            [b'1', b'>', ..] => (OutputStream::Output, 2),
            [b'2', b'>', ..] => (OutputStream::Errors, 2),
            [digit, b'>' | b'<', ..] if digit.is_ascii_digit() => {
                return Err(SyntaxError::Unsupported("a descriptor beyond 2"));
            }
            _ => return Ok(None),
        };
        self.skip(length);
        if let Some(rest) = self.rest.strip_prefix(b"&") {
            self.rest = rest;
            let as_stream = match rest {
                [b'1', ..] => OutputStream::Output,
                [b'2', ..] => OutputStream::Errors,
                _ => return Err(SyntaxError::Unsupported("a descriptor beyond 2")),
            };
            self.skip(1);
            return Ok(Some(Redirection::Same { stream, as_stream }));
        }
        let append = self.rest.first() == Some(&b'>');
        // `>|` is `>` for those who have set `noclobber`, which nobody can here.
        if append || self.rest.first() == Some(&b'|') {
            self.skip(1);
        }
        Ok(Some(Redirection::Output {
            stream,
            target: self.redirection_target()?,
            append,
        }))
    }

    fn redirection_target(&mut self) -> Result<Word, SyntaxError> {
        self.skip_blanks();
        self.word()?.ok_or(SyntaxError::MissingTarget)
    }

    /// The next word; `None` before an operator and at the end.
    fn word(&mut self) -> Result<Option<Word>, SyntaxError> {
        let mut word = Word::default();
        if let [b'~', after @ ..] = self.rest
            && matches!(
                after,
                [] | [b'/' | b' ' | b'\t' | b'\r' | b'\n' | b';' | b'&' | b'|', ..]
            )
        {
            word.0.push(Piece::Home);
            self.skip(1);
        }
        loop {
            match self.rest {
                [] => break,
                [
                    b' ' | b'\t' | b'\r' | b'\n' | b';' | b'&' | b'|' | b'<' | b'>' | b'(' | b')',
                    ..,
                ] => break,
                [b'\\', b'\n', ..] => self.skip(2),
                [b'\\', escaped, ..] => {
                    word.push_quoted(&[*escaped]);
                    self.skip(2);
                }
                [b'\'', ..] => {
                    self.skip(1);
                    word.push_quoted(self.up_to_quote()?);
                }
                [b'"', ..] => {
                    self.skip(1);
                    self.double_quoted(&mut word)?;
                }
                [b'$', ..] => self.dollar(&mut word, false)?,
                [b'`', ..] => return Err(SyntaxError::Unsupported(SUBSTITUTION)),
                [byte, ..] => {
                    word.push(*byte);
                    self.skip(1);
                }
            }
        }
        Ok((!word.0.is_empty()).then_some(word))
    }

    fn up_to_quote(&mut self) -> Result<&'a [u8], SyntaxError> {
        let end = self.rest.iter().position(|byte| *byte == b'\'');
        let end = end.ok_or(SyntaxError::UnclosedQuote('\''))?;
        let text = self.rest.get(..end).unwrap_or_default();
        self.skip(end + 1);
        Ok(text)
    }

    fn double_quoted(&mut self, word: &mut Word) -> Result<(), SyntaxError> {
        // `""` is a word too.
        word.push_quoted(b"");
        loop {
            match self.rest {
                [] => return Err(SyntaxError::UnclosedQuote('"')),
                [b'"', ..] => {
                    self.skip(1);
                    return Ok(());
                }
                [b'\\', b'\n', ..] => self.skip(2),
                [b'\\', escaped @ (b'$' | b'`' | b'"' | b'\\'), ..] => {
                    word.push_quoted(&[*escaped]);
                    self.skip(2);
                }
                [b'$', ..] => self.dollar(word, true)?,
                [b'`', ..] => return Err(SyntaxError::Unsupported(SUBSTITUTION)),
                [byte, ..] => {
                    word.push_quoted(&[*byte]);
                    self.skip(1);
                }
            }
        }
    }

    fn dollar(&mut self, word: &mut Word, quoted: bool) -> Result<(), SyntaxError> {
        self.skip(1);
        let name = match self.rest {
            [b'(', ..] => return Err(SyntaxError::Unsupported(SUBSTITUTION)),
            [b'\'', ..] if !quoted => {
                return Err(SyntaxError::Unsupported("a string in $'…'"));
            }
            [b'{', inner @ ..] => {
                let end = inner.iter().position(|byte| *byte == b'}');
                let name = end
                    .and_then(|end| inner.get(..end))
                    .filter(|name| is_parameter(name))
                    .ok_or(SyntaxError::Unsupported("a substitution in ${…}"))?;
                self.skip(2);
                name
            }
            [b'?' | b'$' | b'#' | b'!' | b'0'..=b'9', ..] => self.rest.get(..1).unwrap_or_default(),
            rest => {
                let length = rest.iter().take_while(|byte| is_name_byte(**byte)).count();
                rest.get(..length).unwrap_or_default()
            }
        };
        if name.is_empty() {
            // A dollar sign that is only that.
            if quoted {
                word.push_quoted(b"$");
            } else {
                word.push(b'$');
            }
            return Ok(());
        }
        word.0.push(Piece::Variable {
            name: name.to_vec(),
            quoted,
        });
        self.skip(name.len());
        Ok(())
    }

    fn skip(&mut self, length: usize) {
        self.rest = self.rest.get(length..).unwrap_or_default();
    }
}

const SUBSTITUTION: &str = "the output of a command in a word ('$(…)')";

fn split_assignment(word: &Word) -> Option<Assignment> {
    let first = match word.0.first()? {
        Piece::Plain(text) => text,
        _ => return None,
    };
    let equals = first.iter().position(|byte| *byte == b'=')?;
    let (name, value) = (first.get(..equals)?, first.get(equals + 1..)?);
    if !is_name(name) {
        return None;
    }
    let mut pieces = word.0.clone();
    match pieces.first_mut() {
        Some(Piece::Plain(text)) if !value.is_empty() => *text = value.to_vec(),
        _ => {
            pieces.remove(0);
        }
    }
    Some(Assignment {
        name: name.to_vec(),
        value: Word(pieces),
    })
}

fn is_parameter(name: &[u8]) -> bool {
    is_name(name) || matches!(name, b"?" | b"$" | b"#" | b"!") || is_digits(name)
}

fn is_digits(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(u8::is_ascii_digit)
}

fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.iter().all(|byte| is_name_byte(*byte))
        && !name.first().is_some_and(u8::is_ascii_digit)
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Why a line is no script.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SyntaxError {
    /// More than [`MAX_LINE_BYTES`].
    #[error("the command line is longer than {MAX_LINE_BYTES} bytes")]
    TooLong,
    /// A NUL byte, which no shell takes.
    #[error("the command line contains a NUL byte")]
    Nul,
    /// A quotation mark without its other half.
    #[error("a closing {0} is missing")]
    UnclosedQuote(char),
    /// An operator where none can stand.
    #[error("{0:?} cannot stand here")]
    Unexpected(char),
    /// An operator without a command on one of its sides.
    #[error("a command is missing beside ';', '&&' or '||'")]
    MissingCommand,
    /// `<` or `>` without a name.
    #[error("a file name is missing behind '<' or '>'")]
    MissingTarget,
    /// Something that a whole shell would do.
    #[error("{0} needs a shell, and this account has built-in commands only")]
    Unsupported(&'static str),
}

#[cfg(test)]
mod tests;
