//! What of the machine a command sees beside its home. Nothing here may hold a secret:
//! a command runs as the server's own user.

use std::path::{Path, PathBuf};

/// Folders with programs and what they need: read and executed.
pub(super) const FOLDERS: [&str; 8] = [
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/proc",
];

/// What programs read in `/etc`, files and folders. Not all of it: keys and
/// configurations of services lie there, the server's own perhaps.
pub(super) const SETTINGS: [&str; 46] = [
    "/etc/alternatives",
    "/etc/bash.bashrc",
    "/etc/bashrc",
    "/etc/bash_completion.d",
    "/etc/ca-certificates",
    "/etc/crypto-policies",
    "/etc/debian_version",
    "/etc/DIR_COLORS",
    "/etc/environment",
    "/etc/fonts",
    "/etc/gai.conf",
    "/etc/gitconfig",
    "/etc/group",
    "/etc/host.conf",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/inputrc",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld.so.preload",
    "/etc/locale.alias",
    "/etc/locale.conf",
    "/etc/localtime",
    "/etc/lsb-release",
    "/etc/magic",
    "/etc/manpath.config",
    "/etc/mime.types",
    "/etc/nanorc",
    "/etc/networks",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/perl",
    "/etc/profile",
    "/etc/profile.d",
    "/etc/protocols",
    "/etc/python3",
    "/etc/redhat-release",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/shells",
    "/etc/skel",
    "/etc/ssl/certs",
    "/etc/terminfo",
    "/etc/timezone",
];

/// Devices that hold nothing and keep nothing: read and written.
pub(super) const DEVICES: [&str; 5] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
];

/// The terminal of whoever asks for it.
pub(super) const OWN_TERMINAL: &str = "/dev/tty";

/// Where programs are looked for.
pub(super) const SEARCH_PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games";

/// The shell of every account.
pub(super) const SHELL: &str = "/bin/sh";

/// The first of `places` that a command could read although it is none of its business:
/// and the folder of the system that it is in.
#[expect(
    clippy::disallowed_methods,
    reason = "paths of the system and of the operator"
)]
pub(super) fn exposed<'a>(
    places: impl IntoIterator<Item = &'a Path>,
) -> Option<(PathBuf, PathBuf)> {
    let shown = FOLDERS.iter().chain(&SETTINGS);
    let shown: Vec<PathBuf> = shown
        .filter_map(|path| std::fs::canonicalize(path).ok())
        .collect();
    places.into_iter().find_map(|place| {
        let place = std::fs::canonicalize(place).unwrap_or_else(|_| place.to_path_buf());
        let around = shown.iter().find(|folder| place.starts_with(folder))?;
        Some((place, around.clone()))
    })
}

/// Whether one of `places` lies in `home`, or is it.
///
/// # Errors
/// The home is not there.
#[expect(
    clippy::disallowed_methods,
    reason = "paths of the operator: a home is looked up as a whole"
)]
pub(super) fn encloses<'a>(
    home: &Path,
    mut places: impl Iterator<Item = &'a Path>,
) -> std::io::Result<bool> {
    let home = std::fs::canonicalize(home)?;
    Ok(places.any(|place| {
        let place = std::fs::canonicalize(place).unwrap_or_else(|_| place.to_path_buf());
        place.starts_with(&home)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_inside_of_what_commands_read_are_noticed() {
        let exposed = |path: &str| exposed([Path::new("/srv"), Path::new(path)]);
        for path in ["/usr", "/usr/local/wharf", "/etc/passwd", "/proc/1"] {
            assert!(exposed(path).is_some(), "{path}");
        }
        for path in ["/etc", "/etc/wharf", "/var/lib/wharf", "/usr2"] {
            assert_eq!(exposed(path), None, "{path}");
        }
    }

    #[test]
    fn a_home_around_secrets_is_noticed_by_any_of_its_names() {
        let encloses = |home: &str| {
            let places = [Path::new("/usr/bin"), Path::new("/missing/wharf.toml")];
            encloses(Path::new(home), places.into_iter()).ok()
        };
        assert_eq!(encloses("/"), Some(true));
        assert_eq!(encloses("/usr"), Some(true));
        assert_eq!(encloses("/dev/../usr/bin"), Some(true));
        assert_eq!(encloses("/usr/lib"), Some(false));
        assert_eq!(encloses("/missing"), None);
    }
}
