//! The one table of extensions: their names, and what the server's `VERSION` says of them.

use bytes::Bytes;
use wharf_model::DigestAlgorithm;

/// Something beyond version 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Extension {
    /// A rename that replaces.
    PosixRename,
    /// A second name for a file.
    HardLink,
    /// Content on the disk.
    Fsync,
    /// Space, by path.
    StatVfs,
    /// Space, by handle.
    FstatVfs,
    /// Attributes of a link itself.
    LsetStat,
    /// What the server takes.
    Limits,
    /// What `~` stands for.
    ExpandPath,
    /// A copy on the server.
    CopyData,
    /// Where an account is at home.
    HomeDirectory,
    /// Names of numeric owners.
    UsersGroupsById,
    /// Digests. By this name of its own it is what paramiko sends: as by handle, but the
    /// reply begins with the name.
    CheckFile,
    /// Digests, by handle.
    CheckFileHandle,
    /// Digests, by path.
    CheckFileName,
}

/// What the server says of an extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Advertised {
    /// Its version.
    As(&'static str),
    /// Which digests there are.
    WithAlgorithms,
    /// Nothing: another name speaks for it.
    Not,
}

/// Names and versions from OpenSSH's PROTOCOL §4, and from
/// draft-ietf-secsh-filexfer-extensions-00 §3 (check-file).
const TABLE: [(Extension, &str, Advertised); 14] = [
    (
        Extension::PosixRename,
        "posix-rename@openssh.com",
        Advertised::As("1"),
    ),
    (
        Extension::StatVfs,
        "statvfs@openssh.com",
        Advertised::As("2"),
    ),
    (
        Extension::FstatVfs,
        "fstatvfs@openssh.com",
        Advertised::As("2"),
    ),
    (
        Extension::HardLink,
        "hardlink@openssh.com",
        Advertised::As("1"),
    ),
    (Extension::Fsync, "fsync@openssh.com", Advertised::As("1")),
    (
        Extension::LsetStat,
        "lsetstat@openssh.com",
        Advertised::As("1"),
    ),
    (Extension::Limits, "limits@openssh.com", Advertised::As("1")),
    (
        Extension::ExpandPath,
        "expand-path@openssh.com",
        Advertised::As("1"),
    ),
    (Extension::CopyData, "copy-data", Advertised::As("1")),
    (
        Extension::HomeDirectory,
        "home-directory",
        Advertised::As("1"),
    ),
    (
        Extension::UsersGroupsById,
        "users-groups-by-id@openssh.com",
        Advertised::As("1"),
    ),
    (
        Extension::CheckFile,
        "check-file",
        Advertised::WithAlgorithms,
    ),
    (
        Extension::CheckFileHandle,
        "check-file-handle",
        Advertised::Not,
    ),
    (Extension::CheckFileName, "check-file-name", Advertised::Not),
];

impl Extension {
    /// The extension of this name.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        TABLE
            .iter()
            .find(|(_, known, _)| known.as_bytes() == name)
            .map(|(extension, ..)| *extension)
    }

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        TABLE
            .iter()
            .find(|(extension, ..)| *extension == self)
            .map_or("", |(_, name, _)| name)
    }

    /// What a server with all of them says in its `VERSION`.
    pub fn advertised() -> Vec<(Bytes, Bytes)> {
        let pair = |(_, name, advertised): &(Self, &'static str, Advertised)| {
            let data = match advertised {
                Advertised::As(version) => Bytes::from_static(version.as_bytes()),
                Advertised::WithAlgorithms => {
                    Bytes::from(DigestAlgorithm::ALL.map(check_file_name).join(","))
                }
                Advertised::Not => return None,
            };
            Some((Bytes::from_static(name.as_bytes()), data))
        };
        TABLE.iter().filter_map(pair).collect()
    }
}

/// What check-file calls an algorithm. BLAKE3 is ours.
pub fn check_file_name(algorithm: DigestAlgorithm) -> &'static str {
    match algorithm {
        DigestAlgorithm::Blake3 => "blake3",
        DigestAlgorithm::Sha512 => "sha512",
        DigestAlgorithm::Sha256 => "sha256",
        DigestAlgorithm::Sha1 => "sha1",
        DigestAlgorithm::Md5 => "md5",
        DigestAlgorithm::Crc32 => "crc32",
    }
}

/// The first algorithm of a list with commas that is known.
pub fn known_algorithm(list: &[u8]) -> Option<DigestAlgorithm> {
    list.split(|byte| *byte == b',').find_map(|name| {
        DigestAlgorithm::ALL
            .into_iter()
            .find(|algorithm| check_file_name(*algorithm).as_bytes() == name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_extension_is_found_by_its_name() {
        for (extension, name, _) in TABLE {
            assert_eq!(Extension::from_name(name.as_bytes()), Some(extension));
            assert_eq!(extension.name(), name);
        }
        assert_eq!(Extension::from_name(b"posix-rename"), None);
    }

    #[test]
    fn the_server_tells_versions_and_algorithms() {
        let advertised = Extension::advertised();
        let data = |name: &str| {
            let found = advertised.iter().find(|(known, _)| known == name);
            found.map(|(_, data)| data.clone())
        };
        assert_eq!(data("statvfs@openssh.com").as_deref(), Some(&b"2"[..]));
        assert_eq!(
            data("check-file").as_deref(),
            Some(&b"blake3,sha512,sha256,sha1,md5,crc32"[..])
        );
        assert_eq!(data("check-file-name"), None);
    }

    #[test]
    fn the_first_known_algorithm_of_a_list_is_taken() {
        assert_eq!(
            known_algorithm(b"sha384,sha256,md5"),
            Some(DigestAlgorithm::Sha256)
        );
        assert_eq!(known_algorithm(b"sha384, md5"), None);
        assert_eq!(known_algorithm(b""), None);
    }
}
