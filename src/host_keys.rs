//! The keys that SSH shows the server by: files of the data directory, made at first start.

use std::io;
use std::path::{Path, PathBuf};

use wharf_server::ssh::{HostKey, HostKeyError, HostKeyKind};

use crate::compose::make_private_directory;
use crate::tls::write_private;

/// One key of each kind from `folder`, made where there is none, and shown in the log.
///
/// # Errors
/// [`HostKeysError`].
pub(crate) fn open(folder: &Path) -> Result<Vec<HostKey>, HostKeysError> {
    make_private_directory(folder).map_err(|source| HostKeysError::Make {
        path: folder.to_path_buf(),
        source,
    })?;
    HostKeyKind::ALL
        .into_iter()
        .map(|kind| {
            let path = folder.join(format!("host_{}_key", kind.name()));
            let key = read_or_make(kind, &path)?;
            tracing::info!(
                path = %path.display(), algorithm = key.algorithm(), fingerprint = key.fingerprint(), "host key"
            );
            Ok(key)
        })
        .collect()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the data directory is the operator's, from the configuration"
)]
fn read_or_make(kind: HostKeyKind, path: &Path) -> Result<HostKey, HostKeysError> {
    let unusable = |source| HostKeysError::Unusable {
        path: path.to_path_buf(),
        source,
    };
    match std::fs::read(path) {
        Ok(text) => HostKey::parse(&text).map_err(unusable),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = HostKey::generate(kind).map_err(unusable)?;
            let text = key.to_text().map_err(unusable)?;
            write_private(path, text.expose()).map_err(|source| HostKeysError::Make {
                path: path.to_path_buf(),
                source,
            })?;
            Ok(key)
        }
        Err(source) => Err(HostKeysError::Read {
            path: path.to_path_buf(),
            source,
        }),
    }
}

/// Why there are no host keys.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HostKeysError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot make {}", path.display())]
    Make { path: PathBuf, source: io::Error },
    #[error("{} cannot be used; delete it to have a new one made, which clients will have to accept", path.display())]
    Unusable { path: PathBuf, source: HostKeyError },
}
