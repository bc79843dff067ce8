//! The old protocol of `scp` (OpenSSH's scp.c; there is no standard): control lines between the one that
//! sends files, `scp -f`, and the one that takes them, `scp -t`.
//!
//! ```text
//! T1700000000 0 1700000000 0   times of what comes next         \0         the other end may go on
//! C0644 5 name                 a file of five bytes             \1text     a warning: this file failed
//! D0755 0 name                 a directory begins               \2text     a failure: this is the end
//! E                            the directory ends
//! ```
//!
//! Every line ends with LF and is answered by a NUL or a complaint; so is the content of a file,
//! which stands behind its line and is followed by a NUL or a complaint of the sender.

use std::fmt;
use std::time::{Duration, SystemTime};

use wharf_model::{FileName, PathError, escape_for_display};

/// Longest line, in bytes without its LF: what OpenSSH reads (`buf` in scp.c).
pub const MAX_LINE_BYTES: usize = 16 * 1024;

/// The byte that says that all is well.
pub const GO_ON: u8 = 0;

/// Begins a complaint after which the transfer goes on.
pub const WARNING: u8 = 1;

/// Begins a complaint after which it does not.
pub const FAILURE: u8 = 2;

/// A control line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A file; its content comes next.
    File(Announced),
    /// A directory; what follows is in it, up to its [`Message::End`].
    Directory(Announced),
    /// The directory ends.
    End,
    /// Times of the file or directory that is announced next.
    Times(Times),
}

/// What is announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// Permission bits, as the sender has them: 0o7777 at most.
    pub mode: u32,
    /// Bytes of content; of a directory it means nothing.
    pub size: u64,
    /// Its name in the directory that is open.
    pub name: FileName,
}

/// When something was used, in whole seconds from 1970, UTC; nothing before that is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Last modification.
    pub modified: u64,
    /// Last access.
    pub accessed: u64,
}

impl Times {
    /// Both as `time`; 1970 for what is before it.
    pub fn both(time: SystemTime) -> Self {
        let seconds = time
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |after| after.as_secs());
        Self {
            modified: seconds,
            accessed: seconds,
        }
    }

    /// The last modification; `None` where the system's clock ends before it.
    pub fn modified(self) -> Option<SystemTime> {
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(self.modified))
    }
}

impl Message {
    /// Reads a line without its LF.
    ///
    /// # Errors
    /// [`LineError`] with what is wrong.
    pub fn parse(line: &[u8]) -> Result<Self, LineError> {
        let Some((kind, rest)) = line.split_first() else {
            return Err(LineError::Unknown);
        };
        match kind {
            b'C' => Announced::parse(rest).map(Self::File),
            b'D' => Announced::parse(rest).map(Self::Directory),
            b'E' if rest.is_empty() => Ok(Self::End),
            b'T' => parse_times(rest).map(Self::Times),
            _ => Err(LineError::Unknown),
        }
    }

    /// The line with its LF.
    pub fn to_line(&self) -> Vec<u8> {
        match self {
            Self::File(announced) => announced.to_line('C'),
            Self::Directory(announced) => announced.to_line('D'),
            Self::End => b"E\n".to_vec(),
            Self::Times(times) => {
                format!("T{} 0 {} 0\n", times.modified, times.accessed).into_bytes()
            }
        }
    }
}

impl Announced {
    fn parse(rest: &[u8]) -> Result<Self, LineError> {
        let (mode, rest) = rest.split_first_chunk::<4>().ok_or(LineError::Mode)?;
        let mode = number(mode, 8).ok_or(LineError::Mode)?;
        let rest = rest.strip_prefix(b" ").ok_or(LineError::Mode)?;
        let at = rest.iter().position(|byte| *byte == b' ');
        let (size, name) = rest.split_at(at.ok_or(LineError::Size)?);
        Ok(Self {
            mode: u32::try_from(mode).map_err(|_| LineError::Mode)?,
            size: number(size, 10).ok_or(LineError::Size)?,
            name: FileName::parse(name.get(1..).unwrap_or_default()).map_err(LineError::Name)?,
        })
    }

    fn to_line(&self, kind: char) -> Vec<u8> {
        let mut line = format!("{kind}{:04o} {} ", self.mode & 0o7777, self.size).into_bytes();
        line.extend_from_slice(self.name.as_bytes());
        line.push(b'\n');
        line
    }
}

/// `modified 0 accessed 0`: seconds and microseconds, and these are passed over.
fn parse_times(rest: &[u8]) -> Result<Times, LineError> {
    let mut numbers = rest
        .split(|byte| *byte == b' ')
        .map(|text| number(text, 10));
    let mut next = || numbers.next().flatten().ok_or(LineError::Times);
    let (modified, microseconds) = (next()?, next()?);
    let (accessed, more) = (next()?, next()?);
    if microseconds >= 1_000_000 || more >= 1_000_000 || numbers.next().is_some() {
        return Err(LineError::Times);
    }
    Ok(Times { modified, accessed })
}

/// Digits and nothing else, up to what a file can be long.
fn number(digits: &[u8], radix: u32) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = u64::from_str_radix(str::from_utf8(digits).ok()?, radix).ok()?;
    i64::try_from(number).is_ok().then_some(number)
}

/// A complaint about `name` as it is sent: one line, whatever is in it.
pub fn complaint(kind: u8, name: &[u8], why: &str) -> Vec<u8> {
    let mut line = vec![kind];
    let text = format!(
        "scp: {}: {}",
        escape_for_display(name),
        escape_for_display(why.as_bytes())
    );
    line.extend_from_slice(text.as_bytes());
    line.truncate(MAX_LINE_BYTES);
    line.push(b'\n');
    line
}

/// Why a line is none of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineError {
    /// It begins with none of the letters.
    Unknown,
    /// No mode of four octal digits and a blank.
    Mode,
    /// No size and a blank behind it.
    Size,
    /// Not four numbers.
    Times,
    /// A name that no file can have, or that would lead elsewhere.
    Name(PathError),
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("not a line of scp"),
            Self::Mode => f.write_str("mode not delimited"),
            Self::Size => f.write_str("size not delimited"),
            Self::Times => f.write_str("times not delimited"),
            Self::Name(error) => write!(f, "unexpected filename: {error}"),
        }
    }
}

impl std::error::Error for LineError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn announced(mode: u32, size: u64, name: &[u8]) -> Announced {
        Announced {
            mode,
            size,
            name: FileName::parse(name).expect("a name"),
        }
    }

    /// Lines as OpenSSH 9.2 sends them.
    #[test]
    fn lines_are_those_of_openssh() {
        for (line, message) in [
            (
                &b"C0644 11 a name"[..],
                Message::File(announced(0o644, 11, b"a name")),
            ),
            (
                b"D0755 0 tree",
                Message::Directory(announced(0o755, 0, b"tree")),
            ),
            (b"E", Message::End),
            (
                b"T1234567890 0 1700000000 0",
                Message::Times(Times {
                    modified: 1_234_567_890,
                    accessed: 1_700_000_000,
                }),
            ),
            (
                b"C7777 9223372036854775807 \xff",
                Message::File(announced(0o7777, 9_223_372_036_854_775_807, b"\xff")),
            ),
        ] {
            assert_eq!(Message::parse(line), Ok(message.clone()));
            assert_eq!(message.to_line(), [line, b"\n"].concat());
        }
    }

    #[test]
    fn lines_that_are_none_are_named() {
        for (line, expected) in [
            (&b""[..], LineError::Unknown),
            (b"X", LineError::Unknown),
            (b"E ", LineError::Unknown),
            (b"C", LineError::Mode),
            (b"C0849 1 f", LineError::Mode),
            (b"C+644 1 f", LineError::Mode),
            (b"C06441 f", LineError::Mode),
            (b"C0644 f", LineError::Size),
            (b"C0644 -1 f", LineError::Size),
            (b"C0644 0x1 f", LineError::Size),
            (b"C0644 9223372036854775808 f", LineError::Size),
            (b"C0644 99999999999999999999999 f", LineError::Size),
            (b"C0644 1 ", LineError::Name(PathError::NotAName)),
            (b"C0644 1 ..", LineError::Name(PathError::NotAName)),
            (b"D0755 0 .", LineError::Name(PathError::NotAName)),
            (b"C0644 1 a/b", LineError::Name(PathError::NotAName)),
            (b"C0644 1 /etc/passwd", LineError::Name(PathError::NotAName)),
            (b"C0644 1 a\0b", LineError::Name(PathError::Nul)),
            (b"C0644 1 a\rb", LineError::Name(PathError::LineEnd)),
            (b"T1 0 1", LineError::Times),
            (b"T1 0 1 0 0", LineError::Times),
            (b"T1 1000000 1 0", LineError::Times),
            (b"T-1 0 1 0", LineError::Times),
        ] {
            assert_eq!(Message::parse(line), Err(expected), "{line:?}");
        }
    }

    #[test]
    fn a_complaint_is_one_line_whatever_it_holds() {
        let line = complaint(WARNING, b"a\nb\x1b[2J", "no");
        assert_eq!(line.first(), Some(&1));
        assert_eq!(
            line.iter().position(|byte| *byte == b'\n'),
            Some(line.len() - 1)
        );
        assert!(!line.contains(&0x1b));
        let long = complaint(FAILURE, &[b'x'; 100_000], "no");
        assert_eq!(long.len(), MAX_LINE_BYTES + 1);
    }

    proptest! {
        #[test]
        fn what_is_parsed_reads_the_same_when_it_is_written(
            line in prop_oneof![
                "[CD][0-7]{4} [0-9]{1,20} .{1,10}",
                "T[0-9]{1,20} [0-9]{1,6} [0-9]{1,20} [0-9]{1,6}",
                ".{0,20}",
            ],
        ) {
            if let Ok(message) = Message::parse(line.as_bytes()) {
                let mut written = message.to_line();
                prop_assert_eq!(written.pop(), Some(b'\n'));
                prop_assert!(!written.contains(&b'\n'));
                prop_assert_eq!(Message::parse(&written), Ok(message));
            }
        }
    }
}
