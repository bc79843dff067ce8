//! Where the shell keeps its history.

use std::path::PathBuf;

/// `$XDG_STATE_HOME/wharf/history`, its folder made if it is missing; `None`
/// where there is no home directory or the folder cannot be made.
pub(super) fn file() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| Some(std::env::home_dir()?.join(".local/state")))?;
    let folder = state.join("wharf");
    crate::compose::make_private_directory(&folder).ok()?;
    Some(folder.join("history"))
}
