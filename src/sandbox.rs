//! Which files the process reaches: Landlock, a fence that the kernel keeps
//! around everything that paths and descriptors lead to.
//!
//! It is kept per thread, and must come before there are threads. What is outside
//! stays there until a restart: nothing widens it again.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, LandlockStatus,
    PathBeneath, PathFd, PathFdError, RestrictionStatus, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};

use crate::config::{Config, Sandbox};

/// The newest Landlock whose restrictions are asked for; an older kernel keeps those that it knows.
const NEWEST: ABI = ABI::V9;

/// What is allowed where homes may lie. Nothing is executed, no device is made
/// or asked for what only it can do, and no socket there is connected to.
fn full_access() -> BitFlags<AccessFs> {
    AccessFs::from_all(NEWEST)
        & !(AccessFs::Execute
            | AccessFs::MakeChar
            | AccessFs::MakeBlock
            | AccessFs::IoctlDev
            | AccessFs::ResolveUnix)
}

/// What a server reaches.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reach {
    /// Folders in which it does everything that it does with files.
    full: Vec<PathBuf>,
    /// Files that it reads, and folders of such.
    read: BTreeSet<PathBuf>,
    /// Folders that the configuration names and that are not there.
    missing: Vec<PathBuf>,
}

impl Reach {
    /// What `config`, read from `file`, asks for; the data directory is at `data`.
    #[expect(
        clippy::disallowed_methods,
        reason = "paths of the operator, from the configuration"
    )]
    pub(crate) fn of(config: &Config, file: Option<&Path>, data: &Path) -> Self {
        let mut full = vec![data.to_path_buf()];
        let mut missing = Vec::new();
        for root in &config.home_roots {
            match std::fs::canonicalize(&root.0) {
                Ok(root) => full.push(root),
                Err(_) => missing.push(root.0.clone()),
            }
        }
        let tls = &config.tls;
        let certificates = [
            &tls.certificate,
            &tls.private_key,
            &tls.client_ca,
            &tls.client_crl,
        ];
        let certificates = certificates.into_iter().filter(|path| !path.is_empty());
        let home = std::env::var_os("HOME");
        let read = certificates
            .map(Path::new)
            .chain(file)
            .flat_map(|file| places_of(file, home.as_deref()))
            .filter(|place| !full.iter().any(|folder| place.starts_with(folder)))
            .collect();
        Self {
            full,
            read,
            missing,
        }
    }

    /// Whether a home at `path` can be used.
    pub(crate) fn covers(&self, path: &Path) -> bool {
        self.full.iter().any(|folder| path.starts_with(folder))
    }
}

/// What must be readable so that `file` can be read again after it was replaced:
/// its folder, and that of what it is a link to. A folder that holds much else is
/// left out; the file itself can be read then until it is replaced.
#[expect(
    clippy::disallowed_methods,
    reason = "paths of the operator, from the configuration"
)]
fn places_of(file: &Path, home: Option<&OsStr>) -> Vec<PathBuf> {
    // The parent of a bare name is "".
    let named = std::path::absolute(file).ok();
    let named = named.as_deref().and_then(Path::parent);
    let folder = named.and_then(|folder| std::fs::canonicalize(folder).ok());
    let Ok(target) = std::fs::canonicalize(file) else {
        // Whoever needs it says so.
        return Vec::new();
    };
    let targets_folder = target.parent().map(Path::to_path_buf);
    let mut places: Vec<PathBuf> = [folder, targets_folder]
        .into_iter()
        .flatten()
        .filter(|folder| !holds_much_else(folder, home))
        .collect();
    places.push(target);
    places.dedup();
    places
}

/// `/`, folders right under it such as `/etc`, and somebody's home.
fn holds_much_else(folder: &Path, home: Option<&OsStr>) -> bool {
    folder.components().count() <= 2 || home.is_some_and(|home| folder == Path::new(home))
}

/// What came of the sandbox.
pub(crate) struct Fence {
    reach: Reach,
    state: State,
}

enum State {
    /// As configured.
    Off,
    /// The kernel has none that is new enough.
    NotOffered(String),
    /// The kernel has refused it.
    Refused(SandboxError),
    /// It stands, with the restrictions that the kernel knows.
    Stands(String),
}

impl Fence {
    /// What is within it, if it stands.
    pub(crate) fn reach(&self) -> Option<&Reach> {
        matches!(self.state, State::Stands(_)).then_some(&self.reach)
    }

    pub(crate) fn log(&self) {
        match &self.state {
            State::Off => tracing::info!("sandbox: off, as configured"),
            State::NotOffered(kernel) => {
                tracing::warn!(kernel, "sandbox: none; it needs Landlock 2 (Linux 5.19)");
            }
            State::Refused(error) => {
                let error = crate::compose::with_source(error);
                tracing::warn!(%error, "sandbox: none; the kernel has refused it");
            }
            State::Stands(kernel) => {
                let (full, read) = (list(&self.reach.full), list(&self.reach.read));
                tracing::info!(kernel, full, read, "sandbox: only these are reached");
                for path in &self.reach.missing {
                    tracing::warn!(path = %path.display(), "sandbox: a folder in home_roots is not there; homes in it need a restart");
                }
            }
        }
    }
}

/// Puts the fence up. For the log once the server has started: an error is to be the only line.
pub(crate) fn enforce(mode: Sandbox, reach: Reach) -> Result<Fence, SandboxError> {
    let is_everything = |path: &PathBuf| path.parent().is_none();
    let state = match mode {
        Sandbox::Off => State::Off,
        // By a link: configured as it is, it would have been refused.
        _ if reach.full.iter().any(is_everything) => return Err(SandboxError::Everything),
        Sandbox::BestEffort => attempt(&reach).unwrap_or_else(State::Refused),
        Sandbox::Required => {
            if let Some(path) = reach.missing.first() {
                return Err(SandboxError::Missing(path.clone()));
            }
            match attempt(&reach)? {
                State::NotOffered(kernel) => return Err(SandboxError::NotOffered(kernel)),
                state => state,
            }
        }
    };
    Ok(Fence { reach, state })
}

fn attempt(reach: &Reach) -> Result<State, SandboxError> {
    let status = restrict(reach)?;
    let kernel = offer(status.landlock);
    Ok(match status.ruleset {
        RulesetStatus::NotEnforced => State::NotOffered(kernel),
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => State::Stands(kernel),
    })
}

fn restrict(reach: &Reach) -> Result<RestrictionStatus, SandboxError> {
    let ruleset = Ruleset::default()
        // Without it files could not be moved between folders: then rather no sandbox.
        .set_compatibility(CompatLevel::SoftRequirement)
        .handle_access(AccessFs::Refer)?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        // Signals to other processes, and abstract sockets of theirs.
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    let full = reach.full.iter().map(|path| rule(path, full_access()));
    let read = reach
        .read
        .iter()
        .map(|path| rule(path, AccessFs::ReadFile.into()));
    Ok(ruleset.add_rules(full.chain(read))?.restrict_self()?)
}

fn rule(path: &Path, access: BitFlags<AccessFs>) -> Result<PathBeneath<PathFd>, SandboxError> {
    Ok(PathBeneath::new(PathFd::new(path)?, access))
}

/// What the kernel has, in words.
fn offer(status: LandlockStatus) -> String {
    match status {
        LandlockStatus::NotEnabled => "Landlock is not enabled (kernel option lsm=)".to_owned(),
        LandlockStatus::NotImplemented => "no Landlock".to_owned(),
        LandlockStatus::Available {
            effective_abi,
            kernel_abi,
        } => {
            let version = kernel_abi.unwrap_or(effective_abi as i32);
            format!("Landlock {version}")
        }
    }
}

fn list<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> String {
    let paths: Vec<String> = paths
        .into_iter()
        .map(|path| path.display().to_string())
        .collect();
    paths.join(", ")
}

/// Why there is no sandbox where one is required.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SandboxError {
    #[error(
        "sandbox = \"required\", and the kernel does not offer it: {0}; it needs Landlock 2 (Linux 5.19)"
    )]
    NotOffered(String),
    #[error(
        "sandbox = \"required\", and {} in home_roots is not there; make it or leave it out",
        .0.display()
    )]
    Missing(PathBuf),
    #[error(
        "data_dir or a folder in home_roots leads to /, and a sandbox around everything is none; name a folder below it"
    )]
    Everything,
    #[error("the sandbox cannot be made")]
    Path(#[from] PathFdError),
    #[error("the sandbox cannot be made")]
    Rules(#[from] RulesetError),
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "tests own the directories that they make"
)]
mod tests {
    use super::*;
    use crate::config::HomeRoot;

    #[test]
    fn files_that_are_replaced_bring_their_folders_unless_those_hold_much_else() {
        let folder = tempfile::tempdir().expect("a directory");
        let root = std::fs::canonicalize(folder.path()).expect("is there");
        for name in ["live", "archive"] {
            std::fs::create_dir(root.join(name)).expect("made");
        }
        // As certbot keeps certificates.
        std::fs::write(root.join("archive/key1.pem"), "").expect("written");
        let link = root.join("live/key.pem");
        std::os::unix::fs::symlink("../archive/key1.pem", &link).expect("linked");
        let expected = ["live", "archive", "archive/key1.pem"].map(|name| root.join(name));
        assert_eq!(places_of(&link, None), expected);
        let home = root.join("archive");
        let expected = ["live", "archive/key1.pem"].map(|name| root.join(name));
        assert_eq!(places_of(&link, Some(home.as_os_str())), expected);
        assert_eq!(
            places_of(&root.join("missing"), None),
            [""; 0].map(PathBuf::from)
        );
        let hosts = Path::new("/etc/hosts");
        if let Ok(real) = std::fs::canonicalize(hosts) {
            assert!(!places_of(hosts, None).contains(&PathBuf::from("/etc")));
            assert!(places_of(hosts, None).contains(&real));
        }
    }

    #[test]
    fn a_link_to_the_whole_file_system_is_no_root_of_homes() {
        let folder = tempfile::tempdir().expect("a directory");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/", &link).expect("linked");
        let config = Config {
            home_roots: vec![HomeRoot(link)],
            ..Config::default()
        };
        let reach = Reach::of(&config, None, folder.path());
        let refused = enforce(Sandbox::BestEffort, reach).err();
        assert!(matches!(refused, Some(SandboxError::Everything)));
    }

    #[test]
    fn homes_are_covered_below_the_data_directory_and_the_roots_that_are_there() {
        let folder = tempfile::tempdir().expect("a directory");
        let root = std::fs::canonicalize(folder.path()).expect("is there");
        let missing = root.join("missing");
        let config = Config {
            home_roots: [&root, &missing].map(|path| HomeRoot(path.clone())).into(),
            ..Config::default()
        };
        let reach = Reach::of(&config, None, Path::new("/srv/wharf"));
        assert_eq!(reach.missing, [missing]);
        for (home, covered) in [
            (PathBuf::from("/srv/wharf/homes/alice"), true),
            (root.join("bob"), true),
            (PathBuf::from("/srv/wharf2/carol"), false),
            (PathBuf::from("/etc"), false),
        ] {
            assert_eq!(reach.covers(&home), covered, "{home:?}");
        }
    }
}
