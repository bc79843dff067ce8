//! MLSx facts (RFC 3659 §7), written by the server and read by the client.

use wharf_model::{Entry, EntryKind, Permissions};

use crate::ftp::list::{Precision, RemoteEntry};
use crate::time::{encode_time, parse_time};

/// Which facts a session wants to see (OPTS MLST).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FactSet(u16);

/// The facts, in the order in which they are written.
const FACTS: [&str; 8] = [
    "type",
    "size",
    "modify",
    "perm",
    "unique",
    "UNIX.mode",
    "UNIX.owner",
    "UNIX.group",
];
const TYPE: u16 = 1 << 0;
const SIZE: u16 = 1 << 1;
const MODIFY: u16 = 1 << 2;
const PERM: u16 = 1 << 3;
const UNIQUE: u16 = 1 << 4;
const MODE: u16 = 1 << 5;
const OWNER: u16 = 1 << 6;
const GROUP: u16 = 1 << 7;

impl Default for FactSet {
    /// All but the owner and the group, which mean nothing to a client.
    fn default() -> Self {
        Self(TYPE | SIZE | MODIFY | PERM | UNIQUE | MODE)
    }
}

impl FactSet {
    /// The known ones of a list `type;size;`; unknown names are passed over (RFC 3659 §7.9).
    pub fn parse(list: &[u8]) -> Self {
        list.split(|byte| *byte == b';').fold(Self(0), |set, name| {
            let index = FACTS
                .iter()
                .position(|fact| fact.as_bytes().eq_ignore_ascii_case(name));
            index.map_or(set, |index| Self(set.0 | 1 << index))
        })
    }

    /// `type;size;`: the chosen facts, as the reply to OPTS MLST names them.
    pub fn names(self) -> String {
        self.chosen().map(|fact| format!("{fact};")).collect()
    }

    /// The FEAT line, with `*` at the chosen facts.
    pub fn feature(self) -> String {
        let facts = FACTS.iter().enumerate().map(|(index, fact)| {
            let star = if self.0 & (1 << index) == 0 { "" } else { "*" };
            format!("{fact}{star};")
        });
        format!("MLST {}", facts.collect::<String>())
    }

    fn chosen(self) -> impl Iterator<Item = &'static str> {
        FACTS
            .iter()
            .enumerate()
            .filter(move |(index, _)| self.0 & (1 << index) != 0)
            .map(|(_, fact)| *fact)
    }

    fn has(self, fact: u16) -> bool {
        self.0 & fact != 0
    }
}

/// Which entry of a listing a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FactSubject {
    /// An entry by its name.
    Entry,
    /// The listed directory itself.
    Current,
    /// The directory above it.
    Parent,
}

/// Appends the facts of `entry`, one space and `name`; no line end. `allowed`
/// is what the account may do to it. Line ends in `name` become `?`.
pub fn encode_facts(
    entry: &Entry,
    subject: FactSubject,
    facts: FactSet,
    allowed: Permissions,
    name: &[u8],
    out: &mut Vec<u8>,
) {
    if facts.has(TYPE) {
        out.extend_from_slice(match (entry.kind, subject) {
            (EntryKind::Directory, FactSubject::Entry) => b"type=dir;",
            (EntryKind::Directory, FactSubject::Current) => b"type=cdir;",
            (EntryKind::Directory, FactSubject::Parent) => b"type=pdir;",
            (EntryKind::File, _) => b"type=file;",
            (EntryKind::Symlink, _) => b"type=OS.unix=slink;",
            (EntryKind::Other, _) => b"type=OS.unix=special;",
        });
    }
    if facts.has(SIZE) && entry.kind == EntryKind::File {
        out.extend_from_slice(b"size=");
        push_number(out, entry.size);
        out.push(b';');
    }
    if facts.has(MODIFY) {
        out.extend_from_slice(b"modify=");
        encode_time(entry.modified, out);
        out.push(b';');
    }
    if facts.has(PERM) {
        out.extend_from_slice(b"perm=");
        push_perm(out, entry.kind, allowed);
        out.push(b';');
    }
    if let (true, Some((device, inode))) = (facts.has(UNIQUE), entry.unique) {
        out.extend_from_slice(format!("unique={device:x}g{inode:x};").as_bytes());
    }
    if facts.has(MODE) {
        out.extend_from_slice(b"UNIX.mode=0");
        for shift in [6, 3, 0] {
            out.push(b'0' + u8::try_from(entry.mode >> shift & 7).unwrap_or(0));
        }
        out.push(b';');
    }
    if facts.has(OWNER) {
        out.extend_from_slice(b"UNIX.owner=");
        push_number(out, u64::from(entry.owner));
        out.push(b';');
    }
    if facts.has(GROUP) {
        out.extend_from_slice(b"UNIX.group=");
        push_number(out, u64::from(entry.group));
        out.push(b';');
    }
    if entry.incomplete {
        out.extend_from_slice(b"X.incomplete=1;");
    }
    out.push(b' ');
    push_name(out, name);
}

/// The letters of RFC 3659 §7.5.5.
fn push_perm(out: &mut Vec<u8>, kind: EntryKind, allowed: Permissions) {
    let may = |permission| allowed.contains(permission);
    let letters: &[(u8, bool)] = match kind {
        EntryKind::Directory => &[
            (b'c', may(Permissions::WRITE)),
            (b'd', may(Permissions::RMDIR)),
            (b'e', true),
            (b'f', may(Permissions::RENAME)),
            (b'l', may(Permissions::LIST)),
            (b'm', may(Permissions::MKDIR)),
            (b'p', may(Permissions::DELETE)),
        ],
        EntryKind::File => &[
            (b'a', may(Permissions::APPEND)),
            (b'd', may(Permissions::DELETE)),
            (b'f', may(Permissions::RENAME)),
            (b'r', may(Permissions::READ)),
            (b'w', may(Permissions::OVERWRITE)),
        ],
        EntryKind::Symlink | EntryKind::Other => &[
            (b'd', may(Permissions::DELETE)),
            (b'f', may(Permissions::RENAME)),
        ],
    };
    out.extend(
        letters
            .iter()
            .filter(|(_, allowed)| *allowed)
            .map(|(letter, _)| *letter),
    );
}

/// Appends a name with its line ends and NUL as `?`: a name that is on the
/// disk already must not forge a line of a listing.
pub(crate) fn push_name(out: &mut Vec<u8>, name: &[u8]) {
    out.extend(name.iter().map(|byte| match byte {
        b'\r' | b'\n' | 0 => b'?',
        other => *other,
    }));
}

/// Appends decimal digits.
pub(crate) fn push_number(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0_u8; 20];
    let mut used = 0;
    for slot in digits.iter_mut().rev() {
        *slot = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
        used += 1;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(20 - used..).unwrap_or_default());
}

/// Reads a line of MLSD or MLST: `fact=value;fact=value; name`. A leading space
/// (MLST on the control connection) is passed over. The directory itself and
/// the one above it (`cdir`, `pdir`) come back with their kind, so that the
/// caller can leave them out; see [`RemoteEntry::is_listed_directory`].
pub fn parse_facts_line(line: &[u8]) -> Option<RemoteEntry> {
    let line = line.strip_prefix(b" ").unwrap_or(line);
    let space = line.iter().position(|byte| *byte == b' ')?;
    let (facts, name) = (line.get(..space)?, line.get(space + 1..)?);
    if name.is_empty() || (!facts.is_empty() && !facts.ends_with(b";")) {
        return None;
    }
    let mut entry = RemoteEntry::new(name.to_vec(), EntryKind::Other);
    for fact in facts
        .split(|byte| *byte == b';')
        .filter(|fact| !fact.is_empty())
    {
        let equals = fact.iter().position(|byte| *byte == b'=')?;
        let value = fact.get(equals + 1..)?;
        match fact.get(..equals)?.to_ascii_lowercase().as_slice() {
            b"type" => take_type(&mut entry, value),
            b"size" | b"sizd" => entry.size = text(value).and_then(|digits| digits.parse().ok()),
            b"modify" => {
                entry.modified = parse_time(value);
                entry.precision = Precision::Second;
            }
            b"unix.mode" => {
                entry.mode = text(value).and_then(|digits| u32::from_str_radix(digits, 8).ok());
            }
            b"unique" => entry.unique = Some(value.to_vec()),
            b"x.incomplete" => entry.incomplete = value == b"1",
            _ => {}
        }
    }
    Some(entry)
}

fn take_type(entry: &mut RemoteEntry, value: &[u8]) {
    let lower = value.to_ascii_lowercase();
    entry.kind = match lower.as_slice() {
        b"file" => EntryKind::File,
        b"dir" => EntryKind::Directory,
        b"cdir" | b"pdir" => {
            entry.is_listed_directory = true;
            EntryKind::Directory
        }
        // pure-ftpd writes "OS.unix=symlink", ProFTPD "OS.unix=slink:target".
        link if link.starts_with(b"os.unix=slink") || link.starts_with(b"os.unix=symlink") => {
            EntryKind::Symlink
        }
        _ => EntryKind::Other,
    };
}

fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::{Duration, SystemTime};

    fn entry(kind: EntryKind) -> Entry {
        Entry {
            name: b"cap60.pl198.tar.gz".to_vec(),
            kind,
            size: 1_024_990,
            modified: SystemTime::UNIX_EPOCH + Duration::from_secs(897_904_845),
            mode: 0o644,
            owner: 1000,
            group: 100,
            links: 1,
            unique: Some((0xfd, 0x2a)),
            incomplete: false,
        }
    }

    fn line(entry: &Entry, subject: FactSubject, facts: FactSet) -> String {
        let mut out = Vec::new();
        encode_facts(
            entry,
            subject,
            facts,
            Permissions::all(),
            &entry.name,
            &mut out,
        );
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn facts_are_written_in_the_form_of_the_standard() {
        let all = FactSet::parse(b"type;size;modify;perm;unique;unix.mode;unix.owner;unix.group;");
        assert_eq!(
            line(&entry(EntryKind::File), FactSubject::Entry, all),
            "type=file;size=1024990;modify=19980615100045;perm=adfrw;unique=fdg2a;UNIX.mode=0644;\
             UNIX.owner=1000;UNIX.group=100; cap60.pl198.tar.gz"
        );
        assert_eq!(
            line(
                &entry(EntryKind::Directory),
                FactSubject::Current,
                FactSet::parse(b"type;size;perm")
            ),
            "type=cdir;perm=cdeflmp; cap60.pl198.tar.gz"
        );
        assert_eq!(
            line(
                &entry(EntryKind::File),
                FactSubject::Entry,
                FactSet::parse(b"")
            ),
            " cap60.pl198.tar.gz"
        );
    }

    #[test]
    fn the_feature_line_marks_the_chosen_facts() {
        assert_eq!(
            FactSet::parse(b"Size;nonsense;UNIX.MODE;").feature(),
            "MLST type;size*;modify;perm;unique;UNIX.mode*;UNIX.owner;UNIX.group;"
        );
        assert_eq!(FactSet::parse(b"modify;type").names(), "type;modify;");
    }

    #[test]
    fn a_name_with_line_ends_cannot_forge_a_line() {
        let mut bad = entry(EntryKind::File);
        bad.name = b"a\r\ntype=dir; b\0".to_vec();
        assert_eq!(
            line(&bad, FactSubject::Entry, FactSet::parse(b"type")),
            "type=file; a??type=dir; b?"
        );
    }

    #[test]
    fn lines_of_other_servers_are_read() {
        let entry =
            parse_facts_line(b"Type=file;Size=17;Modify=19991014192630.5;Perm=r;  spaced name")
                .expect("an entry");
        assert_eq!(
            (entry.name.as_slice(), entry.kind, entry.size),
            (&b" spaced name"[..], EntryKind::File, Some(17))
        );
        let link = parse_facts_line(b" type=OS.unix=slink:/x;unique=1; l").expect("an entry");
        assert_eq!(link.kind, EntryKind::Symlink);
        let itself = parse_facts_line(b"type=cdir; /home").expect("an entry");
        assert!(itself.is_listed_directory);
        for bad in [&b""[..], b"type=file;", b"no facts", b"type=file name"] {
            assert_eq!(parse_facts_line(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn numbers_print_like_the_standard_library() {
        for value in [0, 7, 10, 1_024_990, u64::MAX] {
            let mut out = Vec::new();
            push_number(&mut out, value);
            assert_eq!(String::from_utf8(out).expect("digits"), value.to_string());
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(name in "[^\r\n\0]{1,40}", size in any::<u64>(), incomplete in any::<bool>()) {
            let mut original = entry(EntryKind::File);
            original.name = name.into_bytes();
            original.size = size;
            original.incomplete = incomplete;
            let mut out = Vec::new();
            encode_facts(&original, FactSubject::Entry, FactSet::default(), Permissions::all(), &original.name, &mut out);
            let read = parse_facts_line(&out).expect("an entry");
            prop_assert_eq!(read.name, original.name);
            prop_assert_eq!(read.size, Some(size));
            prop_assert_eq!(read.modified, Some(original.modified));
            prop_assert_eq!(read.mode, Some(0o644));
            prop_assert_eq!(read.incomplete, incomplete);
        }

        #[test]
        fn no_bytes_make_the_parser_panic(input in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse_facts_line(&input);
        }
    }
}
