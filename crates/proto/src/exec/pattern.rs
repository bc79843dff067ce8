//! Patterns of names (POSIX.1-2024 §2.14): `*`, `?`, `[…]`; a backslash quotes.
//!
//! Matching takes time in proportion to pattern times name at most, whatever stars a
//! hostile pattern has.

/// A pattern of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    tokens: Vec<Token>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Unit(u32),
    AnyOne,
    AnyMany,
    Set {
        negated: bool,
        ranges: Vec<(u32, u32)>,
    },
}

impl Pattern {
    /// Parses a pattern. Every sequence of bytes is one: a `[` that nothing closes stands for itself.
    pub fn parse(text: &[u8]) -> Self {
        let units = units(text);
        let mut tokens = Vec::new();
        let mut rest = units.as_slice();
        while let [unit, after @ ..] = rest {
            rest = after;
            let token = match char::from_u32(*unit) {
                Some('*') => Token::AnyMany,
                Some('?') => Token::AnyOne,
                Some('[') => match parse_set(after) {
                    Some((set, behind)) => {
                        rest = behind;
                        set
                    }
                    None => Token::Unit(*unit),
                },
                Some('\\') => match after {
                    [quoted, behind @ ..] => {
                        rest = behind;
                        Token::Unit(*quoted)
                    }
                    [] => Token::Unit(*unit),
                },
                _ => Token::Unit(*unit),
            };
            tokens.push(token);
        }
        Self { tokens }
    }

    /// The same pattern without regard to the case of ASCII letters and those of which
    /// Unicode knows one lower case letter.
    pub fn parse_ignoring_case(text: &[u8]) -> Self {
        let mut pattern = Self::parse(text);
        for token in &mut pattern.tokens {
            match token {
                Token::Unit(unit) => *unit = lower(*unit),
                Token::Set { ranges, .. } => {
                    let lowered: Vec<_> = ranges
                        .iter()
                        .map(|(first, last)| (lower(*first), lower(*last)))
                        .collect();
                    ranges.extend(lowered);
                }
                Token::AnyOne | Token::AnyMany => {}
            }
        }
        pattern
    }

    /// Whether the whole of `name` is as the pattern says.
    pub fn matches(&self, name: &[u8]) -> bool {
        self.matches_units(&units(name))
    }

    /// [`Pattern::matches`] for a pattern of [`Pattern::parse_ignoring_case`].
    pub fn matches_ignoring_case(&self, name: &[u8]) -> bool {
        let lowered: Vec<u32> = units(name).into_iter().map(lower).collect();
        self.matches_units(&lowered)
    }

    /// As in a shell: a dot at the start of a name is matched by a dot only.
    pub fn matches_visible(&self, name: &[u8]) -> bool {
        let hidden = name.first() == Some(&b'.');
        let dotted = self.tokens.first() == Some(&Token::Unit(u32::from(b'.')));
        (!hidden || dotted) && self.matches(name)
    }

    /// Goes back to the last star only: what an earlier one could take as well, the last
    /// one can take too.
    fn matches_units(&self, name: &[u32]) -> bool {
        let (mut token_at, mut unit_at) = (0, 0);
        let mut star: Option<(usize, usize)> = None;
        while let Some(unit) = name.get(unit_at) {
            match self.tokens.get(token_at) {
                Some(Token::AnyMany) => {
                    star = Some((token_at, unit_at));
                    token_at += 1;
                    continue;
                }
                Some(token) if token.matches(*unit) => {
                    token_at += 1;
                    unit_at += 1;
                    continue;
                }
                _ => {}
            }
            let Some((star_at, taken)) = star else {
                return false;
            };
            star = Some((star_at, taken + 1));
            token_at = star_at + 1;
            unit_at = taken + 1;
        }
        let mut left = self.tokens.iter().skip(token_at);
        left.all(|token| *token == Token::AnyMany)
    }
}

impl Token {
    fn matches(&self, unit: u32) -> bool {
        match self {
            Self::Unit(own) => *own == unit,
            Self::AnyOne => true,
            Self::AnyMany => false,
            Self::Set { negated, ranges } => {
                let within = ranges
                    .iter()
                    .any(|(first, last)| (*first..=*last).contains(&unit));
                within != *negated
            }
        }
    }
}

/// Appends `text` so that as a pattern it stands for itself.
pub fn escape(text: &[u8], out: &mut Vec<u8>) {
    for byte in text {
        if matches!(byte, b'*' | b'?' | b'[' | b']' | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
}

/// What a pattern stands for if its wildcards are letters.
pub fn unescape(pattern: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(pattern.len());
    let mut rest = pattern.iter();
    while let Some(byte) = rest.next() {
        match byte {
            b'\\' => bytes.extend(rest.next()),
            _ => bytes.push(*byte),
        }
    }
    bytes
}

/// Whether a pattern has wildcards.
pub fn has_wildcards(pattern: &[u8]) -> bool {
    let mut rest = pattern.iter();
    while let Some(byte) = rest.next() {
        match byte {
            b'\\' => drop(rest.next()),
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

/// What stands behind a `[`, and what comes after it.
fn parse_set(text: &[u32]) -> Option<(Token, &[u32])> {
    const CLOSE: u32 = ']' as u32;
    const DASH: u32 = '-' as u32;
    const BACKSLASH: u32 = '\\' as u32;
    let (negated, mut rest) = match text {
        [mark, after @ ..] if matches!(char::from_u32(*mark), Some('!' | '^')) => (true, after),
        _ => (false, text),
    };
    let mut ranges = Vec::new();
    loop {
        // A bracket that comes first is a member.
        let (first, after) = match rest {
            [CLOSE, after @ ..] if !ranges.is_empty() => {
                return Some((Token::Set { negated, ranges }, after));
            }
            [BACKSLASH, quoted, after @ ..] => (*quoted, after),
            [unit, after @ ..] => (*unit, after),
            [] => return None,
        };
        rest = match after {
            [DASH, last, behind @ ..] if *last != CLOSE => {
                let (last, behind) = match (*last, behind) {
                    (BACKSLASH, [quoted, behind @ ..]) => (*quoted, behind),
                    (last, behind) => (last, behind),
                };
                ranges.push((first, last));
                behind
            }
            _ => {
                ranges.push((first, first));
                after
            }
        };
    }
}

/// A name in units that a wildcard takes one of: characters, and bytes that are none.
fn units(text: &[u8]) -> Vec<u32> {
    /// The first number that is no character.
    const NO_CHARACTER: u32 = 0x11_0000;
    text.utf8_chunks()
        .flat_map(|chunk| {
            let characters = chunk.valid().chars().map(u32::from);
            let bytes = chunk.invalid().iter();
            characters.chain(bytes.map(|byte| NO_CHARACTER + u32::from(*byte)))
        })
        .collect()
}

fn lower(unit: u32) -> u32 {
    let Some(character) = char::from_u32(unit) else {
        return unit;
    };
    let mut lowered = character.to_lowercase();
    match (lowered.next(), lowered.next()) {
        (Some(lower), None) => u32::from(lower),
        _ => unit,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_match_as_in_a_shell() {
        // Decided by `case NAME in PATTERN)` of dash and bash.
        for (pattern, name, expected) in [
            ("*", "", true),
            ("*.txt", "a.txt", true),
            ("*.txt", "a.txt.bak", false),
            ("a*b*c", "a__b__b__c", true),
            ("a*b*c", "a__b__b__", false),
            ("?", "é", true),
            ("??", "é", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("[]]", "]", true),
            ("[]-a]", "^", true),
            ("[a-]", "-", true),
            ("[", "[", true),
            ("[a", "[a", true),
            (r"\*", "*", true),
            (r"\*", "a", false),
            (r"[\]]", "]", true),
            ("[é-ü]", "ö", true),
        ] {
            let matched = Pattern::parse(pattern.as_bytes()).matches(name.as_bytes());
            assert_eq!(matched, expected, "{pattern} {name}");
        }
        assert!(Pattern::parse(b"?\xff").matches(b"\xfe\xff"));
    }

    #[test]
    fn hidden_names_need_a_dot_and_case_can_be_passed_over() {
        assert!(!Pattern::parse(b"*").matches_visible(b".hidden"));
        assert!(Pattern::parse(b".*").matches_visible(b".hidden"));
        let pattern = Pattern::parse_ignoring_case("*.JpÉ[A-C]".as_bytes());
        assert!(pattern.matches_ignoring_case("x.jPéb".as_bytes()));
    }

    #[test]
    fn a_pattern_of_stars_is_decided_at_once() {
        let pattern = Pattern::parse(&b"*a".repeat(2000));
        assert!(!pattern.matches(&[b'a'; 1999]));
        assert!(pattern.matches(&[b'a'; 2000]));
    }

    proptest! {
        #[test]
        fn every_name_matches_itself_escaped(name in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut escaped = Vec::new();
            escape(&name, &mut escaped);
            prop_assert!(!has_wildcards(&escaped));
            prop_assert_eq!(&unescape(&escaped), &name);
            prop_assert!(Pattern::parse(&escaped).matches(&name));
        }

        #[test]
        fn no_pattern_panics(
            pattern in proptest::collection::vec(prop_oneof![
                Just(b'['), Just(b']'), Just(b'*'), Just(b'\\'), Just(b'-'), Just(b'!'), any::<u8>(),
            ], 0..40),
            name in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let _ = Pattern::parse(&pattern).matches(&name);
            let _ = Pattern::parse_ignoring_case(&pattern).matches_ignoring_case(&name);
        }
    }
}
