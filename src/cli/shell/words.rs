//! Lines of the shell as words, and names as words again.
//!
//! Quoting is that of a Unix shell: white space separates, `'…'` and `"…"`
//! keep everything, a backslash keeps the next character. `\xNN` and `\u{…}`
//! stand for what they stand for in listings, so that every name that is shown
//! can be typed. A quoted wildcard is a letter like any other.
//!
//! A quoted byte travels through the argument parser as a character of its own
//! (plane 16, private use), which no parser takes for an option or a wildcard;
//! [`remote_path`], [`local_path`] and [`plain`] take it back.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use wharf_client::{UrlError, UrlPath};
use wharf_model::{DisplayPiece, display_pieces};

/// The character that stands for the quoted byte 0; the others follow.
const QUOTED: u32 = 0x10_0000;

/// One word of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    /// Where it begins in the line, in bytes.
    pub(super) start: usize,
    /// Its characters; quoted ones as the module says.
    pub(super) text: String,
}

/// Splits a line into words. The second value says whether a quotation mark is missing.
pub(super) fn split(line: &str) -> (Vec<Word>, bool) {
    let mut words: Vec<Word> = Vec::new();
    let mut current: Option<Word> = None;
    let mut quote = None;
    let mut rest = line.char_indices();
    while let Some((at, character)) = rest.next() {
        if quote.is_none() && character.is_whitespace() {
            words.extend(current.take());
            continue;
        }
        let word = current.get_or_insert_with(|| Word {
            start: at,
            text: String::new(),
        });
        match (quote, character) {
            (None, '\'' | '"') => quote = Some(character),
            (Some(open), _) if open == character => quote = None,
            (None | Some('"'), '\\') => escape(&mut rest, &mut word.text),
            (Some(_), _) => push_quoted(character, &mut word.text),
            (None, _) => word.text.push(unforged(character)),
        }
    }
    words.extend(current);
    (words, quote.is_some())
}

/// Takes in what follows a backslash.
fn escape(rest: &mut std::str::CharIndices<'_>, text: &mut String) {
    let after = rest.as_str();
    if let Some(byte) = after
        .strip_prefix('x')
        .and_then(|digits| digits.get(..2))
        .and_then(|digits| u8::from_str_radix(digits, 16).ok())
    {
        rest.nth(2);
        text.push(quoted(byte));
        return;
    }
    if let Some((digits, _)) = after
        .strip_prefix("u{")
        .and_then(|digits| digits.split_once('}'))
        && let Some(character) = u32::from_str_radix(digits, 16)
            .ok()
            .and_then(char::from_u32)
    {
        rest.nth(digits.len() + 2);
        push_quoted(character, text);
        return;
    }
    match rest.next() {
        Some((_, character)) => push_quoted(character, text),
        None => push_quoted('\\', text),
    }
}

fn push_quoted(character: char, text: &mut String) {
    if character.is_ascii() || as_quoted(character).is_some() {
        let bytes = character.encode_utf8(&mut [0; 4]).to_owned();
        text.extend(bytes.bytes().map(quoted));
    } else {
        text.push(character);
    }
}

fn quoted(byte: u8) -> char {
    char::from_u32(QUOTED + u32::from(byte)).expect("plane 16 has room for every byte")
}

/// What `character` stands for, if it is a quoted byte.
fn as_quoted(character: char) -> Option<u8> {
    u32::from(character)
        .checked_sub(QUOTED)
        .and_then(|byte| u8::try_from(byte).ok())
}

/// A typed character that would pass for a quoted byte becomes the replacement character.
fn unforged(character: char) -> char {
    if as_quoted(character).is_some() {
        char::REPLACEMENT_CHARACTER
    } else {
        character
    }
}

/// A word as bytes, wildcards taken as letters.
pub(super) fn bytes(word: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(word.len());
    for character in word.chars() {
        match as_quoted(character) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

/// A word as text, for options that are neither path.
pub(super) fn plain(word: &str) -> String {
    String::from_utf8_lossy(&bytes(word)).into_owned()
}

/// A word as a path on the server, with its wildcards.
pub(super) fn remote_path(word: &str) -> Result<UrlPath, UrlError> {
    let mut encoded = String::with_capacity(word.len());
    for character in word.chars() {
        match as_quoted(character) {
            // A quoted slash still separates.
            Some(b'/') => encoded.push('/'),
            Some(byte) => encoded.push_str(&percent_encode(&[byte], NON_ALPHANUMERIC).to_string()),
            None if matches!(character, '/' | '*' | '?' | '[' | ']' | '!' | '-') => {
                encoded.push(character);
            }
            None => {
                let mut buffer = [0; 4];
                let bytes = character.encode_utf8(&mut buffer).as_bytes();
                encoded.push_str(&percent_encode(bytes, NON_ALPHANUMERIC).to_string());
            }
        }
    }
    UrlPath::parse(&encoded)
}

/// A word as a local path; `~/` is the home directory.
pub(super) fn local_path(word: &str) -> PathBuf {
    if let (Some(rest), Some(home)) = (word.strip_prefix('~'), std::env::home_dir())
        && (rest.is_empty() || rest.starts_with('/'))
    {
        let rest = bytes(rest.trim_start_matches('/'));
        return home.join(OsString::from_vec(rest));
    }
    PathBuf::from(OsString::from_vec(bytes(word)))
}

/// Whether a word has wildcards that are not quoted.
pub(super) fn has_wildcards(word: &str) -> bool {
    word.contains(['*', '?', '['])
}

/// A name as a word that splits into this name again. What is not quoted for
/// the shell's sake is written as it is shown.
pub(super) fn quote(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for piece in display_pieces(name) {
        match piece {
            DisplayPiece::Escape(escape) => text.push_str(&escape),
            DisplayPiece::Plain(character) => {
                let leads = text.is_empty() && matches!(character, '-' | '~' | '!' | '#');
                if leads || matches!(character, ' ' | '\'' | '"' | '*' | '?' | '[') {
                    text.push('\\');
                }
                if character.is_whitespace() && !character.is_ascii() {
                    text.push_str(&format!("\\u{{{:x}}}", u32::from(character)));
                } else {
                    text.push(character);
                }
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use wharf_model::VirtualPath;

    fn texts(line: &str) -> Vec<Vec<u8>> {
        let (words, _) = split(line);
        words.iter().map(|word| bytes(&word.text)).collect()
    }

    #[test]
    fn words_are_split_and_quoted_as_in_a_unix_shell() {
        let cases: [(&str, &[&[u8]]); 8] = [
            ("get a b", &[b"get", b"a", b"b"]),
            ("  get   'a b'  ", &[b"get", b"a b"]),
            (r#"get "a 'b" c\ d"#, &[b"get", b"a 'b", b"c d"]),
            (r"get 'a\b'", &[b"get", br"a\b"]),
            (r"x \x1b[2J\xff", &[b"x", b"\x1b[2J\xff"]),
            (r"x \u{202e}", &[b"x", "\u{202e}".as_bytes()]),
            ("x ''", &[b"x", b""]),
            ("é\u{a0}ü", &["é".as_bytes(), "ü".as_bytes()]),
        ];
        for (line, expected) in cases {
            assert_eq!(texts(line), expected, "{line}");
        }
    }

    #[test]
    fn a_missing_quotation_mark_is_noticed() {
        assert!(split("get 'a").1);
        assert!(!split("get 'a'").1);
    }

    #[test]
    fn quoted_wildcards_and_options_are_letters() {
        let wildcards = |line: &str| {
            let (words, _) = split(line);
            remote_path(&words[1].text).expect("a path").has_wildcards()
        };
        assert!(wildcards("get *.txt"));
        assert!(!wildcards(r"get \*.txt"));
        assert!(!wildcards("get '*.txt'"));
        let (words, _) = split("rm '-r'");
        assert!(!words[1].text.starts_with('-'));
    }

    #[test]
    fn a_typed_private_character_stands_for_no_byte() {
        let forged = format!("get {}", quoted(b'\n'));
        assert_eq!(texts(&forged)[1], "\u{fffd}".as_bytes());
    }

    /// Names with what is shown in other ways than as it is.
    fn names() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            (1_u8..).prop_map(|byte| vec![byte]),
            r"[\\xu{}019a-f '-]{1,6}".prop_map(String::into_bytes),
            "[\u{300}-\u{30f}]{1,7}".prop_map(String::into_bytes),
            "[\u{ad}\u{a0}\u{61c}\u{200b}-\u{206f}\u{e0000}-\u{e007f}\u{fff9}-\u{fffb}]"
                .prop_map(String::into_bytes),
            "[\u{100000}-\u{1000ff}]".prop_map(String::into_bytes),
            any::<char>().prop_map(|character| character.to_string().into_bytes()),
        ];
        let name = proptest::collection::vec(part, 1..10).prop_map(|parts| parts.concat());
        name.prop_filter("FTP cannot carry it", |name| {
            !name
                .iter()
                .any(|byte| matches!(byte, 0 | b'/' | b'\n' | b'\r'))
                && name != b"."
                && name != b".."
        })
    }

    proptest! {
        #[test]
        fn every_name_that_is_shown_can_be_typed(name in names()) {
            let shown = wharf_model::escape_for_display(&name);
            // What separates and quotes words must be quoted by whoever types it.
            prop_assume!(!shown.contains(|typed: char| typed.is_whitespace() || matches!(typed, '\'' | '"')));
            prop_assert_eq!(texts(&shown), [name]);
        }

        #[test]
        fn every_name_that_is_quoted_is_read_back(name in names()) {
            let line = format!("get {}", quote(&name));
            let (words, open) = split(&line);
            prop_assert!(!open);
            prop_assert_eq!(words.len(), 2);
            prop_assert_eq!(&bytes(&words[1].text), &name);
            let path = remote_path(&words[1].text).expect("a path");
            let path = path.literal(&VirtualPath::root()).expect("a path");
            prop_assert_eq!(path.as_relative_bytes(), &name[..]);
            prop_assert!(quote(&name).chars().all(|character| !character.is_control()));
        }

        #[test]
        fn no_line_panics(line in "\\PC*") {
            let (words, _) = split(&line);
            for word in words {
                let _ = remote_path(&word.text);
                let _ = local_path(&word.text);
            }
        }
    }
}
