//! Names in messages and on terminals, as GNU's quoting styles write them.

/// `name` in quotes (`shell-escape-always`): what stands in a message.
pub(super) fn quoted(name: &[u8]) -> String {
    escape(name, true)
}

/// `name`, in quotes where a shell would need them (`shell-escape`).
pub(super) fn quoted_if_needed(name: &[u8]) -> String {
    escape(name, false)
}

fn escape(name: &[u8], always: bool) -> String {
    let plain = std::str::from_utf8(name)
        .ok()
        .filter(|text| !text.chars().any(needs_escape));
    let Some(text) = plain else {
        return with_escapes(name);
    };
    let needed = text.is_empty() || text.starts_with(['~', '#']) || text.contains(is_special);
    match (always || needed, text.contains('\'')) {
        (false, _) => text.to_owned(),
        (true, true) if !text.contains(['"', '$', '`', '\\', '!']) => format!("\"{text}\""),
        (true, true) => format!("'{}'", text.replace('\'', "'\\''")),
        (true, false) => format!("'{text}'"),
    }
}

/// `'a'$'\n''b'`: what cannot be shown stands between `$'` and `'`.
fn with_escapes(name: &[u8]) -> String {
    let mut text = String::from("'");
    let mut escaping = false;
    let mut enter = |text: &mut String, escape: bool| {
        if escape != escaping {
            text.push_str(if escape { "'$'" } else { "''" });
            escaping = escape;
        }
    };
    for chunk in name.utf8_chunks() {
        for character in chunk.valid().chars() {
            let escape = needs_escape(character);
            enter(&mut text, escape);
            match character {
                '\'' => text.push_str("'\\''"),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                _ if escape => {
                    let mut buffer = [0; 4];
                    let bytes = character.encode_utf8(&mut buffer).bytes();
                    bytes.for_each(|byte| push_octal(&mut text, byte));
                }
                shown => text.push(shown),
            }
        }
        for byte in chunk.invalid() {
            enter(&mut text, true);
            push_octal(&mut text, *byte);
        }
    }
    text.push('\'');
    text
}

fn push_octal(text: &mut String, byte: u8) {
    text.push_str(&format!("\\{byte:03o}"));
}

/// Characters that act on a terminal or hide: those that listings escape too.
fn needs_escape(character: char) -> bool {
    let mut buffer = [0; 4];
    let bytes = character.encode_utf8(&mut buffer).as_bytes();
    character != '\\'
        && wharf_model::display_pieces(bytes)
            .any(|piece| matches!(piece, wharf_model::DisplayPiece::Escape(_)))
}

/// ASCII characters that mean something to a shell.
fn is_special(character: char) -> bool {
    matches!(
        character,
        ' ' | '!'
            | '"'
            | '$'
            | '&'
            | '\''
            | '('
            | ')'
            | '*'
            | ';'
            | '<'
            | '='
            | '>'
            | '?'
            | '['
            | '\\'
            | '^'
            | '`'
            | '|'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_as_by_gnu_ls() {
        // From `ls -1 --quoting-style=shell-escape` of coreutils 9.1.
        for (name, expected) in [
            (&b"plain"[..], "plain"),
            (b"a b", "'a b'"),
            (b"it's", "\"it's\""),
            (b"it's $5", "'it'\\''s $5'"),
            (b"a\nb", "'a'$'\\n''b'"),
            (b"\x1b[2J", "''$'\\033''[2J'"),
            (b"a\xff", "'a'$'\\377'"),
            ("grün".as_bytes(), "grün"),
            (b"~x", "'~x'"),
        ] {
            assert_eq!(quoted_if_needed(name), expected);
        }
        assert_eq!(quoted(b"plain"), "'plain'");
    }
}
