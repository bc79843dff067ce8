//! Paths and names as a peer sees them: bytes, absolute, normalised.
//!
//! `VirtualPath` is made once, where bytes from a peer enter, and nothing below
//! parses again. It says nothing about the operating system: the storage walks
//! its components beneath a directory descriptor.

use std::fmt;

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

/// Foreign bytes as text that cannot move a cursor, end a line or hide: valid
/// UTF-8 stays, control characters (C0, DEL, C1) and the bidirectional
/// overrides become `\xNN` or `\u{…}`, invalid bytes become `\xNN`.
pub fn escape_for_display(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\0'..='\x1f' | '\x7f' => {
                    text.push_str(&format!("\\x{:02x}", u32::from(character)));
                }
                '\u{80}'..='\u{9f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
                | '\u{feff}' => {
                    text.push_str(&format!("\\u{{{:x}}}", u32::from(character)));
                }
                _ => text.push(character),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

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
