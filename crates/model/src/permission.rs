//! What an account may do, by directory.

use std::fmt;
use std::str::FromStr;

use crate::VirtualPath;

bitflags::bitflags! {
    /// A set of things that an account may do to entries below a directory.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct Permissions: u16 {
        /// Download a file's content, and have its digest computed.
        const READ = 1 << 0;
        /// See names and facts of a directory's entries.
        const LIST = 1 << 1;
        /// Create files that did not exist.
        const WRITE = 1 << 2;
        /// Replace or change files that exist.
        const OVERWRITE = 1 << 3;
        /// Add to the end of files that exist, which is also how a cut upload is resumed.
        const APPEND = 1 << 4;
        /// Remove files.
        const DELETE = 1 << 5;
        /// Rename or move entries.
        const RENAME = 1 << 6;
        /// Create directories.
        const MKDIR = 1 << 7;
        /// Remove directories.
        const RMDIR = 1 << 8;
        /// Change mode and times.
        const ATTRIBUTES = 1 << 9;
    }
}

/// One name for each bit, as the command line and the database spell it.
const NAMES: [(&str, Permissions); 10] = [
    ("read", Permissions::READ),
    ("list", Permissions::LIST),
    ("write", Permissions::WRITE),
    ("overwrite", Permissions::OVERWRITE),
    ("append", Permissions::APPEND),
    ("delete", Permissions::DELETE),
    ("rename", Permissions::RENAME),
    ("mkdir", Permissions::MKDIR),
    ("rmdir", Permissions::RMDIR),
    ("attributes", Permissions::ATTRIBUTES),
];

/// Writes the names with commas between them: `read,list`; `none` and `all` for the two ends.
impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        if self.is_all() {
            return f.write_str("all");
        }
        let mut separator = "";
        for (name, permission) in NAMES {
            if self.contains(permission) {
                write!(f, "{separator}{name}")?;
                separator = ",";
            }
        }
        Ok(())
    }
}

/// Parses a comma-separated list of names, `all` or `none`.
impl FromStr for Permissions {
    type Err = UnknownPermission;

    fn from_str(list: &str) -> Result<Self, Self::Err> {
        list.split(',')
            .map(|name| match name.trim() {
                "all" => Ok(Self::all()),
                "none" => Ok(Self::empty()),
                name => NAMES
                    .iter()
                    .find(|(known, _)| *known == name)
                    .map(|(_, permission)| *permission)
                    .ok_or_else(|| UnknownPermission(name.to_owned())),
            })
            .try_fold(Self::empty(), |set, permission| Ok(set | permission?))
    }
}

/// A word that names no permission.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown permission {0:?}; known are all, none, read, list, write, overwrite, append, delete, \
     rename, mkdir, rmdir and attributes"
)]
pub struct UnknownPermission(pub String);

/// An account's permissions: a default for the whole tree, and exceptions by directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PermissionRules {
    everywhere: Permissions,
    /// Invariant: sorted by path length, longest first, so that the first match is the nearest.
    exceptions: Vec<(VirtualPath, Permissions)>,
}

impl PermissionRules {
    /// `everywhere`, except that at and below each path of `exceptions` that rule's set holds instead.
    pub fn new(everywhere: Permissions, mut exceptions: Vec<(VirtualPath, Permissions)>) -> Self {
        exceptions.sort_by_key(|(path, _)| std::cmp::Reverse(path.as_bytes().len()));
        Self {
            everywhere,
            exceptions,
        }
    }

    /// The set that holds for the entry at `path`: the rule of the nearest directory at or above it.
    pub fn at(&self, path: &VirtualPath) -> Permissions {
        self.exceptions
            .iter()
            .find(|(directory, _)| path.starts_with(directory))
            .map_or(self.everywhere, |(_, permissions)| *permissions)
    }

    /// The set where no exception holds.
    pub fn everywhere(&self) -> Permissions {
        self.everywhere
    }

    /// The exceptions, nearest (longest path) first.
    pub fn exceptions(&self) -> &[(VirtualPath, Permissions)] {
        &self.exceptions
    }
}

impl Default for PermissionRules {
    fn default() -> Self {
        Self::new(Permissions::all(), Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_directory_rule_holds() {
        let path = |text: &str| VirtualPath::parse(text.as_bytes()).expect("a path");
        let rules = PermissionRules::new(
            Permissions::READ | Permissions::LIST,
            vec![
                (path("/in"), Permissions::all()),
                (path("/in/locked"), Permissions::empty()),
            ],
        );
        assert_eq!(
            rules.at(&path("/readme")),
            Permissions::READ | Permissions::LIST
        );
        assert_eq!(rules.at(&path("/in")), Permissions::all());
        assert_eq!(
            rules.at(&path("/inbox")),
            Permissions::READ | Permissions::LIST
        );
        assert_eq!(rules.at(&path("/in/locked/x")), Permissions::empty());
    }

    #[test]
    fn lists_of_names_parse_and_print_alike() {
        assert_eq!(
            "read, list".parse(),
            Ok(Permissions::READ | Permissions::LIST)
        );
        assert_eq!(
            (Permissions::READ | Permissions::RMDIR).to_string(),
            "read,rmdir"
        );
        assert_eq!("all".parse(), Ok(Permissions::all()));
        assert_eq!(Permissions::empty().to_string(), "none");
        assert_eq!(
            "fly".parse::<Permissions>(),
            Err(UnknownPermission("fly".into()))
        );
    }
}
