//! Patterns of host names (ssh_config(5), PATTERNS): `*`, `?`, and `!` before one that excludes.

/// Whether `name`, in lower case, matches one of the patterns, and none that excludes.
pub(super) fn matches_list<'a>(patterns: impl Iterator<Item = &'a str>, name: &str) -> bool {
    let mut is_match = false;
    for pattern in patterns {
        match pattern.strip_prefix('!') {
            Some(excluded) if matches(excluded, name) => return false,
            Some(_) => {}
            None => is_match |= matches(pattern, name),
        }
    }
    is_match
}

/// Byte by byte with one place to return to, so that no pattern takes long.
fn matches(pattern: &str, name: &str) -> bool {
    let pattern = pattern.to_ascii_lowercase();
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut at, mut here) = (0, 0);
    // Where the last `*` was, and how far it reaches.
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = name.get(here) {
        match (pattern.get(at), star) {
            (Some(b'*'), _) => {
                star = Some((at + 1, here));
                at += 1;
            }
            (Some(wanted), _) if *wanted == b'?' || wanted == byte => {
                at += 1;
                here += 1;
            }
            (_, Some((after, reach))) => {
                star = Some((after, reach + 1));
                (at, here) = (after, reach + 1);
            }
            (_, None) => return false,
        }
    }
    pattern.iter().skip(at).all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_those_of_openssh() {
        for (pattern, name, expected) in [
            ("*", "anything", true),
            ("*.example", "a.b.example", true),
            ("*.example", "example", false),
            ("192.0.2.?", "192.0.2.7", true),
            ("192.0.2.?", "192.0.2.77", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b", false),
            ("Files.Example", "files.example", true),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
        let list = |text: &'static str, name| matches_list(text.split(','), name);
        assert!(list("*.example,!bad.example", "good.example"));
        assert!(!list("*.example,!bad.example", "bad.example"));
        assert!(!list("!bad.example", "good.example"));
    }
}
