//! The `.netrc` file: user and password by host, as ftp(1) and curl read it.
//!
//! Pure: the caller reads the file. Macros (`macdef`) are skipped, never run.

use wharf_model::Secret;

/// What a `.netrc` says about one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetrcEntry {
    /// Login name.
    pub login: Option<String>,
    /// Password.
    pub password: Option<Secret<String>>,
}

/// Looks up `host` in the text of a `.netrc`: the first `machine` of that
/// name, or `default` where it stands before one. With `user`, only entries
/// for that user or without a login count.
pub fn find_in_netrc(text: &str, host: &str, user: Option<&str>) -> Option<NetrcEntry> {
    entries(text)
        .into_iter()
        .find(|(machine, entry)| {
            let right_host = machine
                .as_ref()
                .is_none_or(|name| name.eq_ignore_ascii_case(host));
            let right_user = match (user, &entry.login) {
                (Some(user), Some(login)) => user == login,
                _ => true,
            };
            right_host && right_user
        })
        .map(|(_, entry)| entry)
}

/// All entries in order; `None` for the machine is `default`.
fn entries(text: &str) -> Vec<(Option<String>, NetrcEntry)> {
    let mut entries: Vec<(Option<String>, NetrcEntry)> = Vec::new();
    let mut words = Words { rest: text };
    while let Some(word) = words.next() {
        let machine = match word.as_str() {
            "machine" => match words.next() {
                Some(name) => Some(Some(name)),
                None => break,
            },
            "default" => Some(None),
            _ => None,
        };
        if let Some(machine) = machine {
            let empty = NetrcEntry {
                login: None,
                password: None,
            };
            entries.push((machine, empty));
            continue;
        }
        if word == "macdef" {
            words.skip_macro();
            continue;
        }
        let (Some((_, entry)), true) = (
            entries.last_mut(),
            matches!(word.as_str(), "login" | "password" | "account"),
        ) else {
            continue;
        };
        let value = words.next();
        match word.as_str() {
            "login" => entry.login = value,
            "password" => entry.password = value.map(Secret::new),
            _ => {}
        }
    }
    entries
}

/// Words separated by white space; `"..."` keeps spaces, a backslash keeps the
/// next character, `#` at the start of a word opens a comment.
struct Words<'a> {
    rest: &'a str,
}

impl Words<'_> {
    /// Skips a macro's name and body, which ends at an empty line.
    fn skip_macro(&mut self) {
        let end = ["\n\n", "\n\r\n"]
            .into_iter()
            .filter_map(|gap| self.rest.find(gap).map(|at| at + gap.len()))
            .min();
        self.rest = end.and_then(|end| self.rest.get(end..)).unwrap_or_default();
    }

    fn skip_spaces_and_comments(&mut self) {
        loop {
            self.rest = self.rest.trim_start();
            if !self.rest.starts_with('#') {
                return;
            }
            self.rest = self.rest.split_once('\n').map_or("", |(_, rest)| rest);
        }
    }
}

impl Iterator for Words<'_> {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        self.skip_spaces_and_comments();
        if self.rest.is_empty() {
            return None;
        }
        let quoted = self.rest.starts_with('"');
        let mut word = String::new();
        let mut characters = self.rest.char_indices().skip(usize::from(quoted));
        let mut end = self.rest.len();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' if quoted => {
                    end = at + 1;
                    break;
                }
                _ if !quoted && character.is_whitespace() => {
                    end = at;
                    break;
                }
                '\\' => word.extend(characters.next().map(|(_, escaped)| escaped)),
                _ => word.push(character),
            }
        }
        self.rest = self.rest.get(end..).unwrap_or_default();
        Some(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
# my hosts
machine files.example login alice password \"two words\"
macdef init
cd /tmp
machine trap login evil password evil

machine files.example login bob password b\\\\ob
machine other.example
  login carol
  password c#d
default login anonymous password me@example.org
";

    fn found(host: &str, user: Option<&str>) -> Option<(String, String)> {
        let entry = find_in_netrc(FILE, host, user)?;
        Some((entry.login?, entry.password?.expose().clone()))
    }

    #[test]
    fn hosts_and_users_are_looked_up_in_order() {
        let pair = |login: &str, password: &str| Some((login.to_owned(), password.to_owned()));
        assert_eq!(found("files.example", None), pair("alice", "two words"));
        assert_eq!(found("FILES.example", Some("bob")), pair("bob", "b\\ob"));
        assert_eq!(found("other.example", None), pair("carol", "c#d"));
        assert_eq!(
            found("new.example", None),
            pair("anonymous", "me@example.org")
        );
        assert_eq!(found("files.example", Some("dave")), None);
    }

    #[test]
    fn macros_are_skipped_and_never_taken_for_entries() {
        assert_eq!(found("trap", None), found("new.example", None));
    }

    #[test]
    fn broken_files_end_quietly() {
        for text in [
            "machine",
            "login x",
            "machine h login",
            "macdef x",
            "\"",
            "\\",
        ] {
            let entry = find_in_netrc(text, "h", None);
            assert!(entry.is_none_or(|entry| entry.password.is_none()), "{text}");
        }
    }
}
