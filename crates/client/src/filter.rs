//! Which entries of a tree take part: wildcards over paths.

use std::borrow::Cow;
use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use wharf_model::VirtualPath;

/// What is included and what is excluded. Excluding wins.
///
/// A pattern without `/` is matched against names at any depth, one with `/`
/// against the path from the root of the tree; `**` crosses directories. An
/// excluded directory is excluded with all that is in it; `include` is about
/// files only.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    include: Option<GlobSet>,
    exclude: GlobSet,
}

impl Filter {
    /// A filter of `include` patterns (none: everything) and `exclude` patterns.
    ///
    /// # Errors
    /// [`InvalidPattern`].
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self, InvalidPattern> {
        Ok(Self {
            include: (!include.is_empty())
                .then(|| compile(include))
                .transpose()?,
            exclude: compile(exclude)?,
        })
    }

    /// Whether the directory at `path`, relative to the tree's root, is entered.
    pub fn enters(&self, path: &VirtualPath) -> bool {
        !matches(&self.exclude, path)
    }

    /// Whether the file at `path`, relative to the tree's root, takes part.
    pub fn takes(&self, path: &VirtualPath) -> bool {
        !matches(&self.exclude, path)
            && self
                .include
                .as_ref()
                .is_none_or(|include| matches(include, path))
    }
}

fn matches(set: &GlobSet, path: &VirtualPath) -> bool {
    set.is_match(glob_path(path.as_relative_bytes()))
}

fn compile(patterns: &[String]) -> Result<GlobSet, InvalidPattern> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let anchored = pattern.trim_end_matches('/');
        let glob = match anchored.strip_prefix('/') {
            Some(from_root) => from_root.to_owned(),
            None if anchored.contains('/') => anchored.to_owned(),
            None => format!("**/{anchored}"),
        };
        let glob = GlobBuilder::new(&glob)
            .literal_separator(true)
            .build()
            .map_err(|error| InvalidPattern {
                pattern: pattern.clone(),
                reason: error.kind().to_string(),
            })?;
        set.add(glob);
    }
    set.build().map_err(|error| InvalidPattern {
        pattern: patterns.join(" "),
        reason: error.kind().to_string(),
    })
}

/// Name or path bytes as the matcher takes them.
#[cfg(unix)]
pub(crate) fn glob_path(bytes: &[u8]) -> Cow<'_, Path> {
    use std::os::unix::ffi::OsStrExt;
    Cow::Borrowed(Path::new(std::ffi::OsStr::from_bytes(bytes)))
}

/// Name or path bytes as the matcher takes them; what is no text matches as its replacement.
#[cfg(not(unix))]
pub(crate) fn glob_path(bytes: &[u8]) -> Cow<'_, Path> {
    match String::from_utf8_lossy(bytes) {
        Cow::Borrowed(text) => Cow::Borrowed(Path::new(text)),
        Cow::Owned(text) => Cow::Owned(text.into()),
    }
}

/// A pattern that does not parse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid pattern {pattern:?}: {reason}")]
pub struct InvalidPattern {
    /// As given.
    pub pattern: String,
    /// Why.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(include: &[&str], exclude: &[&str]) -> Filter {
        let owned = |list: &[&str]| {
            list.iter()
                .map(|text| (*text).to_owned())
                .collect::<Vec<_>>()
        };
        Filter::new(&owned(include), &owned(exclude)).expect("patterns")
    }

    fn path(text: &str) -> VirtualPath {
        VirtualPath::parse(text.as_bytes()).expect("a path")
    }

    #[test]
    fn patterns_match_names_at_any_depth_or_paths_from_the_root() {
        let filter = filter(&[], &["*.tmp", "/build", "docs/*.md", "a/**/z"]);
        for (text, taken) in [
            ("x.tmp", false),
            ("deep/er/x.tmp", false),
            ("build", false),
            ("sub/build", true),
            ("docs/a.md", false),
            ("docs/sub/a.md", true),
            ("a/b/c/z", false),
            ("x.tmp.txt", true),
        ] {
            assert_eq!(filter.takes(&path(text)), taken, "{text}");
        }
    }

    #[test]
    fn including_is_about_files_and_excluding_wins() {
        let filter = filter(&["*.rs"], &["target/"]);
        assert!(filter.takes(&path("src/main.rs")));
        assert!(!filter.takes(&path("src/main.c")));
        assert!(filter.enters(&path("src")));
        assert!(!filter.enters(&path("target")));
    }

    #[cfg(unix)]
    #[test]
    fn names_that_are_no_text_match_too() {
        let path = VirtualPath::parse(b"\xff\xfe.tmp").expect("a path");
        assert!(!filter(&[], &["*.tmp"]).takes(&path));
    }

    #[test]
    fn a_broken_pattern_is_named() {
        let error = Filter::new(&[], &["[a".to_owned()]).expect_err("unclosed");
        assert_eq!(error.pattern, "[a");
    }
}
