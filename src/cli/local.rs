//! The local side of a command: where copies go, and what is copied. These are
//! paths of the person's own, taken at their word; what a server names goes
//! through [`LocalTree`] below them.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use wharf_client::{LocalTree, UrlPath};
use wharf_model::{FileName, VirtualPath, escape_for_display};

use crate::cli::CliError;

/// Where downloads go.
pub(super) enum Place {
    /// Into this folder, under their own names.
    Into(PathBuf),
    /// Under this name.
    Named(PathBuf),
}

impl Place {
    /// What `target` means for `count` things: an existing folder or a path
    /// that ends in a slash takes any number, a new name takes one.
    #[expect(
        clippy::disallowed_methods,
        reason = "a path of the person's own, from the command line"
    )]
    pub(super) fn of(target: &Path, count: usize) -> Result<Self, CliError> {
        let ends_in_slash = target.as_os_str().as_bytes().ends_with(b"/");
        if ends_in_slash || std::fs::metadata(target).is_ok_and(|found| found.is_dir()) {
            return Ok(Self::Into(target.to_path_buf()));
        }
        if count == 1 {
            return Ok(Self::Named(target.to_path_buf()));
        }
        Err(CliError::Usage(format!(
            "{} is no folder, and {count} things are to be put there; end it in a slash to make one",
            target.display()
        )))
    }

    /// Where a file that is called `name` goes.
    pub(super) fn file(&self, name: &FileName) -> Result<(LocalTree, VirtualPath), CliError> {
        match self {
            Self::Into(folder) => Ok((LocalTree::open_or_create(folder)?, below_root(name)?)),
            Self::Named(path) => {
                let (folder, name) = split(path)?;
                Ok((LocalTree::open(folder)?, below_root(&name)?))
            }
        }
    }

    /// Where a directory that is called `name` goes; `None` is the root, which has no name.
    pub(super) fn directory(
        &self,
        name: Option<&FileName>,
    ) -> Result<(LocalTree, VirtualPath), CliError> {
        match (self, name) {
            (Self::Into(folder), Some(name)) => {
                Ok((LocalTree::open_or_create(folder)?, below_root(name)?))
            }
            (Self::Into(folder) | Self::Named(folder), _) => {
                Ok((LocalTree::open_or_create(folder)?, VirtualPath::root()))
            }
        }
    }
}

/// Something to upload.
#[derive(Debug)]
pub(super) struct Source {
    /// The folder that it is in; for a directory, the directory itself.
    pub(super) tree: LocalTree,
    /// Where in the folder it is.
    pub(super) path: VirtualPath,
    /// What the copy is called; `None` for the root of the file system.
    pub(super) name: Option<FileName>,
    /// Whether it is a directory.
    pub(super) is_directory: bool,
    /// As the person wrote it.
    pub(super) given: PathBuf,
}

impl Source {
    /// Finds what `given` names. A link is followed: the person named it.
    #[expect(
        clippy::disallowed_methods,
        reason = "a path of the person's own, from the command line"
    )]
    pub(super) fn find(given: &Path) -> Result<Self, CliError> {
        let absolute = std::fs::canonicalize(given).map_err(|error| unreadable(given, &error))?;
        let is_directory = std::fs::metadata(&absolute)
            .map_err(|error| unreadable(given, &error))?
            .is_dir();
        // `link` keeps its own name; `.` and `..` take the name of what they are.
        let name = given.file_name().or_else(|| absolute.file_name());
        let name = name.map(file_name).transpose()?;
        let (tree, path) = if is_directory {
            (LocalTree::open(&absolute)?, VirtualPath::root())
        } else {
            let (folder, target) = split(&absolute)?;
            (LocalTree::open(folder)?, below_root(&target)?)
        };
        Ok(Self {
            tree,
            path,
            name,
            is_directory,
            given: given.to_path_buf(),
        })
    }
}

/// What a pattern stands for below `start`, in the order of names. Names that
/// begin with a dot match only a pattern that does.
pub(super) fn expand(start: &Path, pattern: &UrlPath) -> Result<Vec<PathBuf>, CliError> {
    let mut places = vec![start.to_path_buf()];
    for component in pattern.components() {
        let Some(matcher) = &component.pattern else {
            for place in &mut places {
                place.push(OsStr::from_bytes(&component.name));
            }
            continue;
        };
        let shows_hidden = component.name.starts_with(b".");
        let mut next = Vec::new();
        for place in places {
            // A file, or a step that leads nowhere, holds nothing that could match.
            let Ok(tree) = LocalTree::open(&place) else {
                continue;
            };
            let mut names: Vec<Vec<u8>> = tree
                .list(&VirtualPath::root())?
                .into_iter()
                .map(|entry| entry.name)
                .filter(|name| shows_hidden || !name.starts_with(b"."))
                .filter(|name| matcher.is_match(OsStr::from_bytes(name)))
                .collect();
            names.sort();
            next.extend(names.iter().map(|name| place.join(OsStr::from_bytes(name))));
        }
        places = next;
    }
    places.retain(|place| place.symlink_metadata().is_ok());
    Ok(places)
}

/// Two copies under one name would leave only the later one.
pub(super) fn no_two_alike<N: AsRef<[u8]>>(names: impl Iterator<Item = N>) -> Result<(), CliError> {
    let mut seen = HashSet::new();
    for name in names {
        let name = name.as_ref().to_vec();
        if let Some(twice) = seen.replace(name) {
            return Err(CliError::Usage(format!(
                "two copies would be called {}; copy them one by one",
                escape_for_display(&twice)
            )));
        }
    }
    Ok(())
}

fn unreadable(path: &Path, error: &std::io::Error) -> CliError {
    CliError::Client(
        wharf_client::ErrorKind::Local,
        format!("cannot read {}: {error}", path.display()),
    )
}

/// The folder that `path` is in, and its name there.
fn split(path: &Path) -> Result<(&Path, FileName), CliError> {
    let name = path
        .file_name()
        .ok_or_else(|| CliError::Usage(format!("{} is no name for a file", path.display())))?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    Ok((folder, file_name(name)?))
}

fn file_name(name: &OsStr) -> Result<FileName, CliError> {
    FileName::parse(name.as_bytes())
        .map_err(|error| CliError::Usage(format!("{}: {error}", Path::new(name).display())))
}

fn below_root(name: &FileName) -> Result<VirtualPath, CliError> {
    VirtualPath::root()
        .join(name)
        .map_err(|error| CliError::Usage(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_file_may_get_a_name_and_several_need_a_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let new = folder.path().join("new");
        assert!(matches!(Place::of(folder.path(), 3), Ok(Place::Into(_))));
        assert!(matches!(Place::of(&new, 1), Ok(Place::Named(_))));
        assert!(matches!(Place::of(&new.join(""), 3), Ok(Place::Into(_))));
        let error = Place::of(&new, 2).err().expect("is refused");
        assert!(error.to_string().contains("end it in a slash"), "{error}");
    }

    #[test]
    fn a_source_is_called_as_the_person_called_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let target = folder.path().join("target");
        #[expect(clippy::disallowed_methods, reason = "a test's own folder")]
        std::fs::write(&target, b"x").expect("written");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&target, &link).expect("linked");
        let source = Source::find(&link).expect("is found");
        assert_eq!(source.name.expect("a name").as_bytes(), b"link");
        assert_eq!(source.path.as_bytes(), b"/target");
        let dots = Source::find(&folder.path().join(".")).expect("is found");
        assert!(dots.is_directory);
        let missing = Source::find(&folder.path().join("missing")).expect_err("is missing");
        assert!(missing.to_string().contains("missing"), "{missing}");
    }
}
