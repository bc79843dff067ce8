//! Identities: accounts by name and number, sessions by number.

use std::fmt;
use std::str::FromStr;

/// An account's number in its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountId(pub i64);

/// The number of one login session, unique within the process; in every log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An account's name. It is also the name of the account's folder, so it is
/// safe as one: 1 to 64 of `A-Z a-z 0-9 . _ @ + -`, not starting with `.` or `-`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountName(Box<str>);

impl AccountName {
    /// Longest name, in bytes.
    pub const MAX_BYTES: usize = 64;

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for AccountName {
    type Err = InvalidAccountName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._@+-".contains(&byte);
        let valid = !name.is_empty()
            && name.len() <= Self::MAX_BYTES
            && name.bytes().all(allowed)
            && !name.starts_with(['.', '-']);
        valid
            .then(|| Self(Box::from(name)))
            .ok_or(InvalidAccountName)
    }
}

/// Text that cannot be an account's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an account name is 1 to 64 characters out of A-Z a-z 0-9 . _ @ + - and does not start with \".\" or \"-\""
)]
pub struct InvalidAccountName;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn account_names_are_safe_as_folder_names() {
        for good in ["alice", "bob.smith@example.org", "x", "a+b_c-d"] {
            assert!(good.parse::<AccountName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "-rf",
            ".hidden",
            "a b",
            "a\n",
            "\u{e4}",
            &"x".repeat(65),
        ] {
            assert!(bad.parse::<AccountName>().is_err(), "{bad:?}");
        }
    }
}
