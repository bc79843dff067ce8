//! The verbs: one table that says what each is called, takes, needs and does.
//!
//! Parsing, the order of the session, FEAT, HELP and SITE HELP all read it;
//! nothing else repeats it.

use wharf_model::Permissions;

/// A command's name, one for each row of [`VERBS`] and in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is described by its row in VERBS")]
#[rustfmt::skip]
pub enum Verb {
    Abor, Acct, Allo, Appe, Auth, Avbl, Ccc, Cdup, Clnt, Cwd, Dele, Eprt, Epsv, Feat, Hash, Help, List, Mdtm, Mff,
    Mfmt, Mkd, Mlsd, Mlst, Mode, Nlst, Noop, Opts, Pass, Pasv, Pbsz, Port, Prot, Pwd, Quit, Rang, Rein, Rest, Retr,
    Rmd, Rnfr, Rnto, Site, Size, Stat, Stor, Stou, Stru, Syst, Type, User, Xcrc, Xmd5, Xsha1, Xsha256, Xsha512,
}

/// What a verb takes behind its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Argument {
    /// Nothing; a stray one is an error.
    None,
    /// Something or nothing.
    Optional,
    /// Something.
    Required,
}

/// When a verb may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// At any time.
    Always,
    /// After the login.
    LoggedIn,
}

/// What happens to a verb that comes while a transfer runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DuringTransfer {
    /// It is answered at once.
    Heard,
    /// It waits for the end of the transfer.
    Deferred,
}

/// One row of the table.
#[derive(Debug)]
pub struct VerbInfo {
    /// The verb.
    pub verb: Verb,
    /// Its names in capitals, the usual one first.
    pub names: &'static [&'static str],
    /// Where it is defined.
    pub source: &'static str,
    /// Its argument as HELP writes it.
    pub syntax: &'static str,
    /// Whether it takes one.
    pub argument: Argument,
    /// When it may come.
    pub phase: Phase,
    /// What a running transfer does to it.
    pub during_transfer: DuringTransfer,
    /// What the account must be allowed, at the path it names; for a reader.
    /// The gate itself is in the virtual file system.
    pub permission: Permissions,
    /// Its line in FEAT, if it has one. The session completes those of MLST and HASH, and
    /// leaves out those of AUTH, PBSZ and PROT where it has no TLS, and that of CCC where it refuses it.
    pub feature: Option<&'static str>,
    /// What it does, in one line.
    pub help: &'static str,
}

/// The usual case: after the login, deferred by a transfer, no permission, no feature.
const ROW: VerbInfo = VerbInfo {
    verb: Verb::Noop,
    names: &[],
    source: "RFC 959",
    syntax: "",
    argument: Argument::None,
    phase: Phase::LoggedIn,
    during_transfer: DuringTransfer::Deferred,
    permission: Permissions::empty(),
    feature: None,
    help: "",
};

use Argument::{Optional, Required};
use DuringTransfer::Heard;
use Phase::Always;

const EITHER_WRITE: Permissions = Permissions::WRITE.union(Permissions::OVERWRITE);
const EITHER_APPEND: Permissions = Permissions::WRITE.union(Permissions::APPEND);

/// Every verb, in alphabetical order, by which [`VerbInfo::find`] finds it.
#[rustfmt::skip]
pub static VERBS: &[VerbInfo] = &[
    VerbInfo { verb: Verb::Abor, names: &["ABOR"], source: "RFC 959 §4.1.3", phase: Always, during_transfer: Heard, help: "stop the running transfer", ..ROW },
    VerbInfo { verb: Verb::Acct, names: &["ACCT"], source: "RFC 959 §4.1.1", syntax: "<account>", argument: Required, phase: Always, help: "accepted and not needed", ..ROW },
    VerbInfo { verb: Verb::Allo, names: &["ALLO"], source: "RFC 959 §4.1.3", syntax: "<bytes>", argument: Required, help: "announce the size of the next upload", ..ROW },
    VerbInfo { verb: Verb::Appe, names: &["APPE"], source: "RFC 959 §4.1.3", syntax: "<path>", argument: Required, permission: EITHER_APPEND, help: "upload to the end of a file", ..ROW },
    VerbInfo { verb: Verb::Auth, names: &["AUTH"], source: "RFC 4217 §4", syntax: "TLS", argument: Required, phase: Always, feature: Some("AUTH TLS"), help: "encrypt the control connection", ..ROW },
    VerbInfo { verb: Verb::Avbl, names: &["AVBL"], source: "draft-peterson-streamlined-ftp-command-extensions §4", syntax: "[<path>]", argument: Optional, feature: Some("AVBL"), help: "bytes that may still be uploaded", ..ROW },
    VerbInfo { verb: Verb::Ccc, names: &["CCC"], source: "RFC 4217 §6", phase: Always, feature: Some("CCC"), help: "end the encryption of the control connection, where the server allows it", ..ROW },
    VerbInfo { verb: Verb::Cdup, names: &["CDUP", "XCUP"], source: "RFC 959 §4.1.1", help: "change to the directory above", ..ROW },
    VerbInfo { verb: Verb::Clnt, names: &["CLNT"], source: "pragmatic", syntax: "<client>", argument: Optional, phase: Always, feature: Some("CLNT"), help: "name the client, for the log", ..ROW },
    VerbInfo { verb: Verb::Cwd, names: &["CWD", "XCWD"], source: "RFC 959 §4.1.1", syntax: "<path>", argument: Optional, help: "change the directory", ..ROW },
    VerbInfo { verb: Verb::Dele, names: &["DELE"], source: "RFC 959 §4.1.3", syntax: "<path>", argument: Required, permission: Permissions::DELETE, help: "delete a file", ..ROW },
    VerbInfo { verb: Verb::Eprt, names: &["EPRT"], source: "RFC 2428 §2", syntax: "|<family>|<address>|<port>|", argument: Required, feature: Some("EPRT"), help: "connect to this address for data", ..ROW },
    VerbInfo { verb: Verb::Epsv, names: &["EPSV"], source: "RFC 2428 §3", syntax: "[1|2|ALL]", argument: Optional, feature: Some("EPSV"), help: "open a port for data", ..ROW },
    VerbInfo { verb: Verb::Feat, names: &["FEAT"], source: "RFC 2389 §3", phase: Always, help: "list the extensions", ..ROW },
    VerbInfo { verb: Verb::Hash, names: &["HASH"], source: "draft-bryan-ftpext-hash §3", syntax: "<path>", argument: Required, permission: Permissions::READ, feature: Some("HASH"), help: "digest of a file, or of the range set by RANG", ..ROW },
    VerbInfo { verb: Verb::Help, names: &["HELP"], source: "RFC 959 §4.1.3", syntax: "[<verb>]", argument: Optional, phase: Always, help: "list the verbs, or explain one", ..ROW },
    VerbInfo { verb: Verb::List, names: &["LIST"], source: "RFC 959 §4.1.3", syntax: "[<path>]", argument: Optional, permission: Permissions::LIST, help: "list a directory for people", ..ROW },
    VerbInfo { verb: Verb::Mdtm, names: &["MDTM"], source: "RFC 3659 §3", syntax: "[YYYYMMDDHHMMSS] <path>", argument: Required, permission: Permissions::LIST, feature: Some("MDTM"), help: "modification time of a file; with a time, set it", ..ROW },
    VerbInfo { verb: Verb::Mff, names: &["MFF"], source: "draft-somers-ftp-mfxx §5", syntax: "<fact>=<value>;... <path>", argument: Required, permission: Permissions::ATTRIBUTES, feature: Some("MFF modify;UNIX.mode;"), help: "set facts of a file", ..ROW },
    VerbInfo { verb: Verb::Mfmt, names: &["MFMT"], source: "draft-somers-ftp-mfxx §3", syntax: "YYYYMMDDHHMMSS <path>", argument: Required, permission: Permissions::ATTRIBUTES, feature: Some("MFMT"), help: "set the modification time of a file", ..ROW },
    VerbInfo { verb: Verb::Mkd, names: &["MKD", "XMKD"], source: "RFC 959 §4.1.3", syntax: "<path>", argument: Required, permission: Permissions::MKDIR, help: "make a directory", ..ROW },
    VerbInfo { verb: Verb::Mlsd, names: &["MLSD"], source: "RFC 3659 §7", syntax: "[<path>]", argument: Optional, permission: Permissions::LIST, help: "list a directory for programs", ..ROW },
    VerbInfo { verb: Verb::Mlst, names: &["MLST"], source: "RFC 3659 §7", syntax: "[<path>]", argument: Optional, permission: Permissions::LIST, feature: Some("MLST"), help: "facts of one file or directory", ..ROW },
    VerbInfo { verb: Verb::Mode, names: &["MODE"], source: "RFC 959 §4.1.2", syntax: "S", argument: Required, help: "set the transfer mode; only stream", ..ROW },
    VerbInfo { verb: Verb::Nlst, names: &["NLST"], source: "RFC 959 §4.1.3", syntax: "[<path>]", argument: Optional, permission: Permissions::LIST, help: "list the names in a directory", ..ROW },
    VerbInfo { verb: Verb::Noop, names: &["NOOP"], source: "RFC 959 §4.1.3", argument: Optional, phase: Always, help: "do nothing", ..ROW },
    VerbInfo { verb: Verb::Opts, names: &["OPTS"], source: "RFC 2389 §4", syntax: "UTF8 ON | MLST <fact>;... | HASH [<algorithm>]", argument: Required, phase: Always, help: "set an option of a verb", ..ROW },
    VerbInfo { verb: Verb::Pass, names: &["PASS"], source: "RFC 959 §4.1.1", syntax: "<password>", argument: Optional, phase: Always, help: "log in with the password", ..ROW },
    VerbInfo { verb: Verb::Pasv, names: &["PASV"], source: "RFC 959 §4.1.2", help: "open a port for data (IPv4)", ..ROW },
    VerbInfo { verb: Verb::Pbsz, names: &["PBSZ"], source: "RFC 4217 §8", syntax: "0", argument: Required, phase: Always, feature: Some("PBSZ"), help: "must come before PROT", ..ROW },
    VerbInfo { verb: Verb::Port, names: &["PORT"], source: "RFC 959 §4.1.2", syntax: "h1,h2,h3,h4,p1,p2", argument: Required, help: "connect to this address for data (IPv4)", ..ROW },
    VerbInfo { verb: Verb::Prot, names: &["PROT"], source: "RFC 4217 §9", syntax: "C|P", argument: Required, phase: Always, feature: Some("PROT"), help: "encrypt data connections (P) or not (C)", ..ROW },
    VerbInfo { verb: Verb::Pwd, names: &["PWD", "XPWD"], source: "RFC 959 §4.1.3", help: "show the current directory", ..ROW },
    VerbInfo { verb: Verb::Quit, names: &["QUIT"], source: "RFC 959 §4.1.1", phase: Always, help: "log out, after a running transfer", ..ROW },
    VerbInfo { verb: Verb::Rang, names: &["RANG"], source: "draft-bryan-ftp-range §3", syntax: "<first> <last>", argument: Required, feature: Some("RANG STREAM"), help: "bytes that the next RETR or HASH covers", ..ROW },
    VerbInfo { verb: Verb::Rein, names: &["REIN"], source: "RFC 959 §4.1.1", help: "log out and stay connected", phase: Always, ..ROW },
    VerbInfo { verb: Verb::Rest, names: &["REST"], source: "RFC 3659 §5", syntax: "<offset>", argument: Required, feature: Some("REST STREAM"), help: "byte at which the next transfer starts", ..ROW },
    VerbInfo { verb: Verb::Retr, names: &["RETR"], source: "RFC 959 §4.1.3", syntax: "<path>", argument: Required, permission: Permissions::READ, help: "download a file", ..ROW },
    VerbInfo { verb: Verb::Rmd, names: &["RMD", "XRMD"], source: "RFC 959 §4.1.3", syntax: "<path>", argument: Required, permission: Permissions::RMDIR, help: "remove an empty directory", ..ROW },
    VerbInfo { verb: Verb::Rnfr, names: &["RNFR"], source: "RFC 959 §4.1.3", syntax: "<path>", argument: Required, permission: Permissions::RENAME, help: "name what RNTO renames", ..ROW },
    VerbInfo { verb: Verb::Rnto, names: &["RNTO"], source: "RFC 959 §4.1.3", syntax: "<path>", argument: Required, permission: Permissions::RENAME, help: "rename to this", ..ROW },
    VerbInfo { verb: Verb::Site, names: &["SITE"], source: "RFC 959 §4.1.3", syntax: "<command>", argument: Required, help: "commands of this server; see SITE HELP", ..ROW },
    VerbInfo { verb: Verb::Size, names: &["SIZE"], source: "RFC 3659 §4", syntax: "<path>", argument: Required, permission: Permissions::LIST, feature: Some("SIZE"), help: "bytes in a file", ..ROW },
    VerbInfo { verb: Verb::Stat, names: &["STAT"], source: "RFC 959 §4.1.3", syntax: "[<path>]", argument: Optional, phase: Always, during_transfer: Heard, help: "state of the session or transfer; with a path, list it here", ..ROW },
    VerbInfo { verb: Verb::Stor, names: &["STOR"], source: "RFC 959 §4.1.3", syntax: "<path>", argument: Required, permission: EITHER_WRITE, help: "upload a file", ..ROW },
    VerbInfo { verb: Verb::Stou, names: &["STOU"], source: "RFC 959 §4.1.3", syntax: "[<path>]", argument: Optional, permission: Permissions::WRITE, help: "upload under a name that is not taken", ..ROW },
    VerbInfo { verb: Verb::Stru, names: &["STRU"], source: "RFC 959 §4.1.2", syntax: "F", argument: Required, help: "set the file structure; only file", ..ROW },
    VerbInfo { verb: Verb::Syst, names: &["SYST"], source: "RFC 959 §4.1.3", phase: Always, help: "say what kind of system this is", ..ROW },
    VerbInfo { verb: Verb::Type, names: &["TYPE"], source: "RFC 959 §4.1.2", syntax: "A|I|L 8", argument: Required, help: "set the representation: text or binary", ..ROW },
    VerbInfo { verb: Verb::User, names: &["USER"], source: "RFC 959 §4.1.1", syntax: "<name>", argument: Required, phase: Always, help: "name the account to log in to", ..ROW },
    VerbInfo { verb: Verb::Xcrc, names: &["XCRC"], source: "pragmatic", syntax: "<path> [<start> [<end>]]", argument: Required, permission: Permissions::READ, feature: Some("XCRC"), help: "CRC-32 of a file", ..ROW },
    VerbInfo { verb: Verb::Xmd5, names: &["XMD5"], source: "pragmatic", syntax: "<path> [<start> [<end>]]", argument: Required, permission: Permissions::READ, feature: Some("XMD5"), help: "MD5 of a file", ..ROW },
    VerbInfo { verb: Verb::Xsha1, names: &["XSHA1", "XSHA"], source: "pragmatic", syntax: "<path> [<start> [<end>]]", argument: Required, permission: Permissions::READ, feature: Some("XSHA1"), help: "SHA-1 of a file", ..ROW },
    VerbInfo { verb: Verb::Xsha256, names: &["XSHA256"], source: "pragmatic", syntax: "<path> [<start> [<end>]]", argument: Required, permission: Permissions::READ, feature: Some("XSHA256"), help: "SHA-256 of a file", ..ROW },
    VerbInfo { verb: Verb::Xsha512, names: &["XSHA512"], source: "pragmatic", syntax: "<path> [<start> [<end>]]", argument: Required, permission: Permissions::READ, feature: Some("XSHA512"), help: "SHA-512 of a file", ..ROW },
];

/// Bytes of the longest name in [`VERBS`].
const LONGEST_NAME: usize = 7;

// The last verb has the last row, so that each has one.
const _: () = assert!(Verb::Xsha512 as usize + 1 == VERBS.len());

/// Features that belong to no single verb (RFC 3659 §6, RFC 2640 §3.2).
pub const FEATURES_WITHOUT_VERB: [&str; 3] = ["SITE PARTIAL", "TVFS", "UTF8"];

impl VerbInfo {
    /// The row of the verb called `name`, in any case.
    pub fn find(name: &[u8]) -> Option<&'static Self> {
        let mut capitals = [0; LONGEST_NAME];
        let capitals = capitals.get_mut(..name.len())?;
        capitals.copy_from_slice(name);
        capitals.make_ascii_uppercase();
        let usual = VERBS.binary_search_by(|row| row.name().as_bytes().cmp(capitals));
        if let Some(row) = usual.ok().and_then(|index| VERBS.get(index)) {
            return Some(row);
        }
        let is_called = |row: &&Self| row.names.iter().any(|known| known.as_bytes() == capitals);
        VERBS.iter().find(is_called)
    }

    /// The verb's usual name, in capitals.
    pub fn name(&self) -> &'static str {
        self.names.first().copied().unwrap_or_default()
    }
}

impl Verb {
    /// The verb's row.
    pub fn info(self) -> &'static VerbInfo {
        VERBS
            .get(self as usize)
            .expect("every verb has a row, in the same order; a test holds it")
    }
}

/// A SITE command's row.
#[derive(Debug)]
pub struct SiteInfo {
    /// Its name behind SITE, in capitals.
    pub name: &'static str,
    /// Its argument as SITE HELP writes it.
    pub syntax: &'static str,
    /// What it does.
    pub help: &'static str,
}

/// Every SITE command.
#[rustfmt::skip]
pub static SITE_COMMANDS: &[SiteInfo] = &[
    SiteInfo { name: "CHMOD", syntax: "<octal mode> <path>", help: "set the permission bits of a file" },
    SiteInfo { name: "COPY", syntax: "<path> <path>", help: "copy a file on the server; quote paths with spaces" },
    SiteInfo { name: "HELP", syntax: "", help: "list these commands" },
    SiteInfo { name: "PARTIAL", syntax: "<path>", help: "size and digest of a cut upload that can be resumed" },
    SiteInfo { name: "QUOTA", syntax: "", help: "what is used and what is left" },
    SiteInfo { name: "UTIME", syntax: "YYYYMMDDHHMM[SS] <path> | <path> <atime> <mtime> <ctime> UTC", help: "set the modification time of a file" },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_has_one_row_and_every_name_is_used_once() {
        let mut names: Vec<&str> = VERBS.iter().flat_map(|row| row.names).copied().collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert_eq!(VERBS.len(), 55);
        for row in VERBS {
            assert_eq!(row.verb.info().name(), row.name());
            assert_eq!(format!("{:?}", row.verb).to_uppercase(), row.name());
        }
        assert_eq!(
            names.iter().map(|name| name.len()).max(),
            Some(LONGEST_NAME)
        );
        let usual: Vec<&str> = VERBS.iter().map(VerbInfo::name).collect();
        assert!(usual.is_sorted());
    }

    #[test]
    fn verbs_are_found_in_any_case_and_by_their_old_names() {
        assert_eq!(VerbInfo::find(b"xCwD").map(|row| row.verb), Some(Verb::Cwd));
        assert_eq!(
            VerbInfo::find(b"stor").map(|row| row.verb),
            Some(Verb::Stor)
        );
        for row in VERBS {
            for name in row.names {
                let small = name.to_ascii_lowercase();
                let found = VerbInfo::find(small.as_bytes()).map(|row| row.verb);
                assert_eq!(found, Some(row.verb), "{name}");
            }
        }
        assert!(VerbInfo::find(b"STORX").is_none());
        assert!(VerbInfo::find(b"STO").is_none());
        assert!(VerbInfo::find(b"XSHA2567").is_none());
        assert!(VerbInfo::find(b"").is_none());
    }
}
