//! Paths and names as a peer sees them: bytes, absolute, normalised.
//!
//! `VirtualPath` is made once, where bytes from a peer enter, and nothing below
//! parses again. It says nothing about the operating system: the storage walks
//! its components beneath a directory descriptor.

use std::fmt;

use unicode_width::UnicodeWidthChar as _;

/// An absolute, normalised path inside an account's tree.
///
/// Bytes, not text: any byte but NUL and `/` may stand in a component.
/// Invariant: starts with `/`; no component is empty, `.` or `..`; at most
/// [`VirtualPath::MAX_BYTES`] long, each component at most [`FileName::MAX_BYTES`].
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VirtualPath(Box<[u8]>);

impl VirtualPath {
    /// Longest path in bytes: Linux `PATH_MAX` less its terminating NUL.
    pub const MAX_BYTES: usize = 4095;

    /// The root, `/`.
    pub fn root() -> Self {
        Self(Box::from(&b"/"[..]))
    }

    /// Resolves `argument`, absolute or relative to `self`, in the way of a
    /// POSIX shell: `.` and empty components vanish, `..` removes the component
    /// before it and stops at the root.
    ///
    /// # Errors
    /// [`PathError`] when a NUL is in the argument, or a component or the whole is too long.
    pub fn resolve(&self, argument: &[u8]) -> Result<Self, PathError> {
        if argument.contains(&0) {
            return Err(PathError::Nul);
        }
        let mut bytes = if argument.first() == Some(&b'/') {
            Vec::with_capacity(argument.len() + 1)
        } else {
            self.without_trailing_slash().to_vec()
        };
        for component in argument.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => {
                    let parent_length = bytes.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                    bytes.truncate(parent_length);
                }
                name if name.len() > FileName::MAX_BYTES => return Err(PathError::NameTooLong),
                name => {
                    bytes.push(b'/');
                    bytes.extend_from_slice(name);
                }
            }
        }
        if bytes.is_empty() {
            bytes.push(b'/');
        }
        if bytes.len() > Self::MAX_BYTES {
            return Err(PathError::PathTooLong);
        }
        Ok(Self(bytes.into_boxed_slice()))
    }

    /// Parses a path that must stand by itself; relative ones start at the root.
    ///
    /// # Errors
    /// As [`VirtualPath::resolve`].
    pub fn parse(argument: &[u8]) -> Result<Self, PathError> {
        Self::root().resolve(argument)
    }

    /// The path below `self` that `name` is the last component of.
    ///
    /// # Errors
    /// [`PathError::PathTooLong`] when the whole would pass [`VirtualPath::MAX_BYTES`].
    pub fn join(&self, name: &FileName) -> Result<Self, PathError> {
        let head = self.without_trailing_slash();
        let mut bytes = Vec::with_capacity(head.len() + 1 + name.as_bytes().len());
        bytes.extend_from_slice(head);
        bytes.push(b'/');
        bytes.extend_from_slice(name.as_bytes());
        if bytes.len() > Self::MAX_BYTES {
            return Err(PathError::PathTooLong);
        }
        Ok(Self(bytes.into_boxed_slice()))
    }

    /// The whole path, starting with `/`.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path without its leading `/`; `.` for the root. What a lookup
    /// relative to a directory descriptor takes.
    pub fn as_relative_bytes(&self) -> &[u8] {
        match self.0.strip_prefix(b"/") {
            Some(b"") | None => b".",
            Some(rest) => rest,
        }
    }

    /// Whether this is `/`.
    pub fn is_root(&self) -> bool {
        self.0.len() == 1
    }

    /// The components from the root down; none for the root.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0
            .split(|byte| *byte == b'/')
            .filter(|component| !component.is_empty())
    }

    /// The last component; `None` for the root.
    pub fn file_name(&self) -> Option<&[u8]> {
        self.components().next_back()
    }

    /// The directory that holds this path; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        let name = self.file_name()?;
        let end = self.0.len().saturating_sub(name.len() + 1).max(1);
        self.0.get(..end).map(|head| Self(Box::from(head)))
    }

    /// Whether `self` is `ancestor` or lies below it, component by component.
    pub fn starts_with(&self, ancestor: &Self) -> bool {
        match self.0.strip_prefix(ancestor.without_trailing_slash()) {
            Some(rest) => rest.is_empty() || rest.first() == Some(&b'/'),
            None => false,
        }
    }

    fn without_trailing_slash(&self) -> &[u8] {
        if self.is_root() { b"" } else { &self.0 }
    }
}

/// Shows the path with control bytes and invalid UTF-8 escaped: safe in a log or a terminal.
impl fmt::Display for VirtualPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape_for_display(&self.0))
    }
}

impl fmt::Debug for VirtualPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VirtualPath({self})")
    }
}

/// One component that may be created: not empty, not `.` or `..`, at most 255
/// bytes, without NUL, `/`, CR or LF.
///
/// A name with CR or LF that already stands on a disk can be listed (escaped)
/// and removed, but never made: it could forge a line of a listing or a reply.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileName(Box<[u8]>);

impl FileName {
    /// Longest name in bytes: `NAME_MAX` of every Linux file system that matters.
    pub const MAX_BYTES: usize = 255;

    /// Parses a single component.
    ///
    /// # Errors
    /// [`PathError`] naming the rule that `name` breaks.
    pub fn parse(name: &[u8]) -> Result<Self, PathError> {
        if matches!(name, b"" | b"." | b"..") || name.contains(&b'/') {
            return Err(PathError::NotAName);
        }
        if name.contains(&0) {
            return Err(PathError::Nul);
        }
        if name.iter().any(|byte| matches!(byte, b'\r' | b'\n')) {
            return Err(PathError::LineEnd);
        }
        if name.len() > Self::MAX_BYTES {
            return Err(PathError::NameTooLong);
        }
        Ok(Self(Box::from(name)))
    }

    /// The name's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape_for_display(&self.0))
    }
}

/// Why bytes are no path or no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// A NUL byte, which no file system can hold.
    #[error("the name contains a NUL byte")]
    Nul,
    /// CR or LF in a name that would be created.
    #[error("the name contains a line end")]
    LineEnd,
    /// A component of more than [`FileName::MAX_BYTES`].
    #[error("a name in the path is longer than {} bytes", FileName::MAX_BYTES)]
    NameTooLong,
    /// A path of more than [`VirtualPath::MAX_BYTES`].
    #[error("the path is longer than {} bytes", VirtualPath::MAX_BYTES)]
    PathTooLong,
    /// Empty, `.`, `..` or containing `/`.
    #[error("not the name of a single entry")]
    NotAName,
    /// A name that the server keeps for its own files.
    #[error("the name is reserved")]
    Reserved,
}

/// Foreign bytes as text that cannot move a cursor, end a line or hide, and
/// that stands for these bytes alone: [`display_pieces`] put together.
pub fn escape_for_display(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for piece in display_pieces(bytes) {
        match piece {
            DisplayPiece::Plain(character) => text.push(character),
            DisplayPiece::Escape(escape) => text.push_str(&escape),
        }
    }
    text
}

/// Most bytes of what a peer has chosen, such as a command line or a name to log in by,
/// that go into a line of a log or a list.
const MAX_SHOWN_BYTES: usize = 1024;

/// As [`escape_for_display`] of the first 1,024 bytes, for what a peer can make as long as it
/// likes and a line of a log or a list shows. Where something was left out, `\…(N bytes cut)`
/// stands at the end, which nothing else shows as: a backslash of the bytes themselves is `\\`.
/// A character is cut off whole.
pub fn cut_for_display(bytes: &[u8]) -> String {
    if bytes.len() <= MAX_SHOWN_BYTES {
        return escape_for_display(bytes);
    }
    let shown = whole_characters(bytes.split_at(MAX_SHOWN_BYTES).0);
    let cut = bytes.len() - shown.len();
    format!("{}\\…({cut} bytes cut)", escape_for_display(shown))
}

/// These bytes without a begun character at their end.
fn whole_characters(bytes: &[u8]) -> &[u8] {
    let end = bytes
        .utf8_chunks()
        .last()
        .map_or(&[][..], |last| last.invalid());
    let is_begun = std::str::from_utf8(end).is_err_and(|error| error.error_len().is_none());
    bytes
        .strip_suffix(end)
        .filter(|_| is_begun)
        .unwrap_or(bytes)
}

/// A part of what [`escape_for_display`] makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DisplayPiece {
    /// A character as it is.
    Plain(char),
    /// What is shown in place of a character or a byte.
    Escape(String),
}

/// Takes foreign bytes apart into what can be shown of them. Valid UTF-8 stays,
/// but for control characters (C0, DEL, C1), characters that cannot be seen or
/// turn the direction of writing, and marks on top of four others: these become
/// `\xNN` or `\u{…}`. Invalid bytes become `\xNN`, and a backslash `\\`.
pub fn display_pieces(bytes: &[u8]) -> impl Iterator<Item = DisplayPiece> {
    let mut marks = 0;
    bytes
        .utf8_chunks()
        .flat_map(|chunk| {
            let characters = chunk.valid().chars().map(Ok);
            characters.chain(chunk.invalid().iter().copied().map(Err))
        })
        .map(move |part| {
            let is_mark = part.is_ok_and(|character| character.width() == Some(0));
            marks = if is_mark { marks + 1 } else { 0 };
            match part {
                Err(byte) => DisplayPiece::Escape(format!("\\x{byte:02x}")),
                Ok('\\') => DisplayPiece::Escape("\\\\".to_owned()),
                Ok(character) if character.is_ascii_control() => {
                    DisplayPiece::Escape(format!("\\x{:02x}", u32::from(character)))
                }
                Ok(character) if is_invisible(character) || marks > MAX_MARKS => {
                    DisplayPiece::Escape(format!("\\u{{{:x}}}", u32::from(character)))
                }
                Ok(character) => DisplayPiece::Plain(character),
            }
        })
}

/// Characters above ASCII without a shape of their own: C1 controls, format
/// characters, fillers, tags, and the planes whose characters nobody has agreed on.
fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{80}'..='\u{9f}'
            | '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{10ffff}'
    )
}

/// Most marks on one letter: Vietnamese has two, Hebrew with its accents three;
/// more of them run over the lines around.
const MAX_MARKS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(bytes: &str) -> VirtualPath {
        VirtualPath::parse(bytes.as_bytes()).expect("a valid path")
    }

    #[test]
    fn relative_and_absolute_arguments_resolve_like_a_shell() {
        let current = path("/a/b");
        for (argument, expected) in [
            ("", "/a/b"),
            (".", "/a/b"),
            ("c", "/a/b/c"),
            ("../c", "/a/c"),
            ("../../../..", "/"),
            ("/x//y/./z/", "/x/y/z"),
            ("/..", "/"),
            (" c ", "/a/b/ c "),
            ("...", "/a/b/..."),
        ] {
            let resolved = current.resolve(argument.as_bytes()).expect("resolves");
            assert_eq!(resolved, path(expected), "{argument:?}");
        }
    }

    #[test]
    fn nul_and_overlong_names_are_refused() {
        let root = VirtualPath::root();
        assert_eq!(root.resolve(b"a\0b"), Err(PathError::Nul));
        assert!(root.resolve(&[b'x'; 255]).is_ok());
        assert_eq!(root.resolve(&[b'x'; 256]), Err(PathError::NameTooLong));
        assert_eq!(
            root.resolve(&b"x/".repeat(2048)),
            Err(PathError::PathTooLong)
        );
    }

    #[test]
    fn names_with_line_ends_cannot_be_made() {
        assert_eq!(FileName::parse(b"a\rb"), Err(PathError::LineEnd));
        assert_eq!(FileName::parse(b"a\nb"), Err(PathError::LineEnd));
        assert_eq!(FileName::parse(b".."), Err(PathError::NotAName));
        assert!(FileName::parse(b" leading and trailing ").is_ok());
        assert!(FileName::parse(b"\xff\xfe").is_ok());
    }

    #[test]
    fn parents_and_prefixes_follow_components() {
        assert_eq!(path("/a/b").parent(), Some(path("/a")));
        assert_eq!(path("/a").parent(), Some(path("/")));
        assert_eq!(path("/").parent(), None);
        assert!(path("/ab/c").starts_with(&path("/ab")));
        assert!(!path("/abc").starts_with(&path("/ab")));
        assert!(path("/abc").starts_with(&path("/")));
        assert_eq!(path("/").as_relative_bytes(), b".");
        assert_eq!(path("/a/b").as_relative_bytes(), b"a/b");
    }

    #[test]
    fn control_bytes_never_reach_a_terminal() {
        assert_eq!(escape_for_display(b"a\x1b[2Jb\r\n"), "a\\x1b[2Jb\\x0d\\x0a");
        assert_eq!(
            escape_for_display("gr\u{fc}n \u{202e}".as_bytes()),
            "gr\u{fc}n \\u{202e}"
        );
        assert_eq!(escape_for_display(b"\xffz"), "\\xffz");
    }

    #[test]
    fn what_cannot_be_seen_is_shown_and_nothing_shows_as_something_else() {
        for hidden in [
            '\u{ad}',
            '\u{34f}',
            '\u{61c}',
            '\u{180e}',
            '\u{200d}',
            '\u{2028}',
            '\u{202e}',
            '\u{2060}',
            '\u{2064}',
            '\u{2069}',
            '\u{3164}',
            '\u{feff}',
            '\u{fff9}',
            '\u{fffb}',
            '\u{e0041}',
            '\u{e007f}',
            '\u{e0100}',
            '\u{100041}',
        ] {
            let shown = escape_for_display(format!("a{hidden}b").as_bytes());
            assert_eq!(shown, format!("a\\u{{{:x}}}b", u32::from(hidden)));
        }
        assert_eq!(escape_for_display(br"a\x01b"), r"a\\x01b");
        for seen in [
            "a b",
            "\u{442}\u{435}\u{301}\u{441}\u{442}",
            "\u{fffd}",
            "\u{1f600}",
            "\u{e00}",
        ] {
            assert_eq!(escape_for_display(seen.as_bytes()), seen);
        }
    }

    #[test]
    fn what_a_peer_makes_long_is_cut_with_a_mark_that_nothing_forges() {
        let line = |count: usize| "x".repeat(count);
        assert_eq!(cut_for_display(line(1024).as_bytes()), line(1024));
        let cut = line(1024) + "\\…(1 bytes cut)";
        assert_eq!(cut_for_display(line(1025).as_bytes()), cut);
        let forged = line(1000) + "\\…(1 bytes cut)";
        let shown = line(1000) + "\\\\…(1 bytes cut)";
        assert_eq!(cut_for_display(forged.as_bytes()), shown);
        // Each of them is shown as four.
        let noise = vec![0xff; 256 * 1024];
        let shown = cut_for_display(&noise);
        assert_eq!(shown.len(), 4 * 1024 + "\\…(261120 bytes cut)".len());
    }

    #[test]
    fn a_cut_goes_through_no_character() {
        let euros = "x".repeat(1022) + "\u{20ac}\u{20ac}";
        let shown = "x".repeat(1022) + "\\…(6 bytes cut)";
        assert_eq!(cut_for_display(euros.as_bytes()), shown);
        // What stands there and is no character is shown.
        let broken = ["x".repeat(1023).as_bytes(), &[0xff; 2]].concat();
        let shown = "x".repeat(1023) + "\\xff\\…(1 bytes cut)";
        assert_eq!(cut_for_display(&broken), shown);
    }

    #[test]
    fn marks_do_not_pile_up() {
        let name = format!("a{}b{}", "\u{301}".repeat(6), "\u{e47}".repeat(4));
        let expected = format!(
            "a{}\\u{{301}}\\u{{301}}b{}",
            "\u{301}".repeat(4),
            "\u{e47}".repeat(4)
        );
        assert_eq!(escape_for_display(name.as_bytes()), expected);
    }

    proptest! {
        #[test]
        fn a_resolved_path_is_normal_and_resolving_it_again_changes_nothing(
            start in proptest::collection::vec(any::<u8>(), 0..64),
            argument in proptest::collection::vec(prop_oneof![Just(b'/'), Just(b'.'), any::<u8>()], 0..64),
        ) {
            let Ok(base) = VirtualPath::parse(&start) else { return Ok(()) };
            let Ok(resolved) = base.resolve(&argument) else { return Ok(()) };
            prop_assert_eq!(resolved.as_bytes().first(), Some(&b'/'));
            for component in resolved.components() {
                prop_assert!(!matches!(component, b"" | b"." | b".."));
            }
            prop_assert_eq!(base.resolve(resolved.as_bytes()), Ok(resolved.clone()));
        }
    }
}
