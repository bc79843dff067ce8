//! What a person at a terminal types to Wharf itself, and not to the command: `~` at the start
//! of a line, as ssh(1) has it. A server that hangs is left so.

/// Tells keys for the command from those for Wharf.
#[derive(Debug)]
pub(super) struct Escapes {
    at_line_start: bool,
    /// A `~` has come that may be for Wharf.
    is_begun: bool,
}

/// What was typed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Typed {
    /// The keys for the command.
    pub(super) for_command: Vec<u8>,
    /// `~?`: what there is to type.
    pub(super) asks: bool,
    /// `~.`: to leave the command. What came behind it is dropped.
    pub(super) leaves: bool,
}

/// What `~?` shows, on a terminal that adds no returns.
pub(super) const HELP: &str = "~?\r\n\
At the start of a line:\r\n\
 ~.  closes the connection, and so ends the command\r\n\
 ~~  sends a ~\r\n\
 ~?  shows this\r\n";

impl Escapes {
    pub(super) fn new() -> Self {
        Self {
            at_line_start: true,
            is_begun: false,
        }
    }

    /// Takes what was typed next, in pieces of any length.
    pub(super) fn take(&mut self, keys: &[u8]) -> Typed {
        let mut typed = Typed::default();
        for key in keys {
            let is_escape = std::mem::take(&mut self.is_begun);
            match key {
                b'.' if is_escape => {
                    typed.leaves = true;
                    return typed;
                }
                b'?' if is_escape => typed.asks = true,
                b'~' if self.at_line_start && !is_escape => self.is_begun = true,
                _ => {
                    // It was none: both go to the command.
                    if is_escape && *key != b'~' {
                        typed.for_command.push(b'~');
                    }
                    typed.for_command.push(*key);
                    self.at_line_start = matches!(key, b'\r' | b'\n');
                }
            }
        }
        typed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(pieces: &[&str]) -> (String, bool, bool) {
        let mut escapes = Escapes::new();
        let mut all = Typed::default();
        for piece in pieces {
            let typed = escapes.take(piece.as_bytes());
            all.for_command.extend(typed.for_command);
            all.asks |= typed.asks;
            all.leaves |= typed.leaves;
        }
        let text = String::from_utf8(all.for_command).expect("text");
        (text, all.asks, all.leaves)
    }

    /// As ssh(1) has it under ESCAPE CHARACTERS.
    #[test]
    fn only_a_tilde_at_the_start_of_a_line_is_for_wharf() {
        for (pieces, text, asks, leaves) in [
            (&["~."][..], "", false, true),
            (&["ls\r~.more"], "ls\r", false, true),
            (&["ls\n~."], "ls\n", false, true),
            (&["~", "."], "", false, true),
            (&["ls ~.\r"], "ls ~.\r", false, false),
            (&["~/x\r"], "~/x\r", false, false),
            (&["~~.\r"], "~.\r", false, false),
            (&["~~", "~."], "~~.", false, false),
            (&["~?"], "", true, false),
            (&["~?~."], "", true, true),
            (&["~\r~."], "~\r", false, true),
            (&["x~?"], "x~?", false, false),
        ] {
            let expected = (text.to_owned(), asks, leaves);
            assert_eq!(typed(pieces), expected, "{pieces:?}");
        }
    }
}
