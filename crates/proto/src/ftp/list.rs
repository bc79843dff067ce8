//! LIST lines: written in the form of `ls -l`, read in the forms that servers write.

use std::time::{Duration, SystemTime};

use time::{Date, Month, OffsetDateTime, Time};
use wharf_model::{Entry, EntryKind};

use crate::ftp::facts::{push_name, push_number};
use crate::time::{push_digits, to_utc};

/// An entry as a server describes it; what the server did not say is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteEntry {
    /// One name, as sent. Foreign: it may hold anything but a line end.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Bytes of content.
    pub size: Option<u64>,
    /// Last modification, taken as UTC.
    pub modified: Option<SystemTime>,
    /// How exact `modified` is.
    pub precision: Precision,
    /// Permission bits.
    pub mode: Option<u32>,
    /// Identity on the server.
    pub unique: Option<Vec<u8>>,
    /// A cut upload that can be resumed.
    pub incomplete: bool,
    /// The listed directory itself or the one above it, not an entry of it.
    pub is_listed_directory: bool,
}

/// How exact a time of a listing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// To the second.
    Second,
    /// To the minute.
    Minute,
    /// To the day.
    Day,
}

impl RemoteEntry {
    /// An entry of which only the name and the kind are known.
    pub fn new(name: Vec<u8>, kind: EntryKind) -> Self {
        Self {
            name,
            kind,
            size: None,
            modified: None,
            precision: Precision::Day,
            mode: None,
            unique: None,
            incomplete: false,
            is_listed_directory: false,
        }
    }
}

const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

/// Half a year: beyond it `ls` shows the year instead of the time (POSIX `ls`, "-l").
const HALF_A_YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60 / 2);

/// Appends `entry` as one line of `ls -l` without its line end; no link target,
/// exactly one space before the name.
pub fn encode_list_line(entry: &Entry, now: SystemTime, out: &mut Vec<u8>) {
    out.push(match entry.kind {
        EntryKind::File => b'-',
        EntryKind::Directory => b'd',
        EntryKind::Symlink => b'l',
        EntryKind::Other => b'?',
    });
    push_mode(out, entry.mode);
    out.push(b' ');
    push_padded(out, entry.links, 3);
    out.push(b' ');
    push_padded(out, u64::from(entry.owner), 8);
    out.push(b' ');
    push_padded(out, u64::from(entry.group), 8);
    out.push(b' ');
    push_padded(out, entry.size, 12);
    out.push(b' ');
    push_when(out, entry.modified, now);
    out.push(b' ');
    push_name(out, &entry.name);
}

fn push_mode(out: &mut Vec<u8>, mode: u32) {
    for shift in [6, 3, 0] {
        let bits = mode >> shift;
        out.push(if bits & 4 == 0 { b'-' } else { b'r' });
        out.push(if bits & 2 == 0 { b'-' } else { b'w' });
        out.push(if bits & 1 == 0 { b'-' } else { b'x' });
    }
}

fn push_padded(out: &mut Vec<u8>, value: u64, width: usize) {
    let start = out.len();
    push_number(out, value);
    let missing = width.saturating_sub(out.len() - start);
    out.extend(std::iter::repeat_n(b' ', missing));
    if let Some(field) = out.get_mut(start..) {
        field.rotate_right(missing);
    }
}

fn push_when(out: &mut Vec<u8>, modified: SystemTime, now: SystemTime) {
    let when = to_utc(modified);
    let month = usize::from(u8::from(when.month()) - 1);
    out.extend_from_slice(*MONTHS.get(month).unwrap_or(&b"Jan"));
    out.push(b' ');
    push_padded(out, u64::from(when.day()), 2);
    out.push(b' ');
    let recent = now
        .duration_since(modified)
        .is_ok_and(|age| age < HALF_A_YEAR);
    if recent {
        push_digits(out, u32::from(when.hour()), 2);
        out.push(b':');
        push_digits(out, u32::from(when.minute()), 2);
    } else {
        out.push(b' ');
        push_digits(out, u32::try_from(when.year()).unwrap_or(1970), 4);
    }
}

/// Reads one line of a LIST reply in the Unix or the DOS style. `None` for what
/// is no entry: `total 8`, an empty line, something else.
pub fn parse_list_line(line: &[u8], now: SystemTime) -> Option<RemoteEntry> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match line.first()? {
        b'0'..=b'9' => parse_dos(line),
        _ => parse_unix(line, now),
    }
}

/// `10-23-24  02:11PM       <DIR>          name`, with a year of two or four digits.
fn parse_dos(line: &[u8]) -> Option<RemoteEntry> {
    let mut fields = Fields::new(line);
    let date = fields.next()?;
    let clock = fields.next()?;
    let size = fields.next()?;
    let name = fields.rest_after_padding();
    if name.is_empty() {
        return None;
    }
    let mut entry = if size.eq_ignore_ascii_case(b"<DIR>") {
        RemoteEntry::new(name.to_vec(), EntryKind::Directory)
    } else if size.eq_ignore_ascii_case(b"<SYMLINKD>") || size.eq_ignore_ascii_case(b"<JUNCTION>") {
        RemoteEntry::new(name.to_vec(), EntryKind::Symlink)
    } else {
        let mut file = RemoteEntry::new(name.to_vec(), EntryKind::File);
        file.size = Some(number(size)?);
        file
    };
    let (month, day, year) = dos_date(date)?;
    entry.modified = moment(year, month, day, dos_clock(clock)?);
    entry.precision = Precision::Minute;
    Some(entry)
}

fn dos_date(text: &[u8]) -> Option<(u8, u8, i32)> {
    let parts: Vec<&[u8]> = text.split(|byte| matches!(byte, b'-' | b'/')).collect();
    let [month, day, year] = parts.as_slice() else {
        return None;
    };
    let digits = year.len();
    let year = i32::try_from(number(year)?).ok()?;
    let year = match digits {
        2 if year < 70 => 2000 + year,
        2 => 1900 + year,
        4 => year,
        _ => return None,
    };
    Some((small(month)?, small(day)?, year))
}

fn dos_clock(text: &[u8]) -> Option<(u8, u8)> {
    let (time, afternoon) = match text.len() {
        7 => match text.get(5..)?.to_ascii_uppercase().as_slice() {
            b"AM" => (text.get(..5)?, Some(false)),
            b"PM" => (text.get(..5)?, Some(true)),
            _ => return None,
        },
        _ => (text, None),
    };
    let (hour, minute) = clock(time)?;
    Some(match afternoon {
        None => (hour, minute),
        Some(afternoon) => (hour % 12 + if afternoon { 12 } else { 0 }, minute),
    })
}

/// `-rw-r--r--   1 owner    group        1024 Oct 23 14:11 name`; the group may
/// be missing, the day may come before the month.
fn parse_unix(line: &[u8], now: SystemTime) -> Option<RemoteEntry> {
    let mut fields = Fields::new(line);
    let mode = fields.next()?;
    if mode.len() < 10 {
        return None;
    }
    let kind = match mode.first()? {
        b'-' => EntryKind::File,
        b'd' => EntryKind::Directory,
        b'l' => EntryKind::Symlink,
        b'b' | b'c' | b'p' | b's' | b'D' | b'?' => EntryKind::Other,
        _ => return None,
    };
    // The size is the field before the date; what stands before it varies.
    let mut before: Vec<&[u8]> = Vec::with_capacity(5);
    let (modified, precision) = loop {
        if !before.is_empty()
            && let Some((date, rest)) = unix_date(fields, &before)
        {
            fields = rest;
            break unix_time(date, now)?;
        }
        before.push(fields.next()?);
        if before.len() > 6 {
            return None;
        }
    };
    let name = fields.rest();
    let mut entry = RemoteEntry::new(name.to_vec(), kind);
    entry.mode = mode_bits(mode);
    if kind == EntryKind::File {
        entry.size = before.last().and_then(|digits| number(digits));
    }
    if kind == EntryKind::Symlink {
        let arrow = name.windows(4).position(|window| window == b" -> ");
        entry.name.truncate(arrow.unwrap_or(name.len()));
    }
    entry.modified = modified;
    entry.precision = precision;
    entry.is_listed_directory = matches!(entry.name.as_slice(), b"." | b"..");
    (!entry.name.is_empty()).then_some(entry)
}

/// A date of `ls -l`: its last part is the time of day in the last twelve months.
struct UnixDate<'a> {
    month: u8,
    day: u8,
    year_or_time: &'a [u8],
}

/// The date at the begin of `fields`, and the fields after it. `Nov 21 08:50` or
/// `21 Nov 08:50`, each with a year for the time.
///
/// A size or a numeric group before `Nov` may look like a day, and an owner may
/// be called `jan`; all three parts together leave no doubt: a day never has
/// four digits or a colon, a year or time always has.
fn unix_date<'a>(fields: Fields<'a>, before: &[&[u8]]) -> Option<(UnixDate<'a>, Fields<'a>)> {
    let mut rest = fields;
    let (first, second, year_or_time) = (rest.next()?, rest.next()?, rest.next()?);
    if clock(year_or_time).is_none() && year(year_or_time).is_none() {
        return None;
    }
    let (month, day) = match (month_number(first), month_number(second)) {
        (Some(month), _) => (month, day_of_month(second)?),
        // Links, owner and a size come before a date whose day is first.
        (None, Some(month)) if before.len() >= 3 => {
            number(before.last()?)?;
            (month, day_of_month(first)?)
        }
        _ => return None,
    };
    let date = UnixDate {
        month,
        day,
        year_or_time,
    };
    Some((date, rest))
}

fn unix_time(date: UnixDate<'_>, now: SystemTime) -> Option<(Option<SystemTime>, Precision)> {
    let UnixDate { month, day, .. } = date;
    if let Some(time) = clock(date.year_or_time) {
        let year = to_utc(now).year();
        let this_year = moment(year, month, day, time);
        // A day ahead of us is a server in another time zone, more is last year.
        let tomorrow = now + Duration::from_secs(24 * 60 * 60);
        let modified = match this_year {
            Some(modified) if modified <= tomorrow => Some(modified),
            _ => moment(year - 1, month, day, time),
        };
        return Some((modified, Precision::Minute));
    }
    let year = year(date.year_or_time)?;
    Some((moment(year, month, day, (0, 0)), Precision::Day))
}

fn year(digits: &[u8]) -> Option<i32> {
    i32::try_from(number(digits)?)
        .ok()
        .filter(|_| digits.len() == 4)
}

fn day_of_month(digits: &[u8]) -> Option<u8> {
    small(digits).filter(|day| (1..=31).contains(day))
}

fn moment(year: i32, month: u8, day: u8, (hour, minute): (u8, u8)) -> Option<SystemTime> {
    let date = Date::from_calendar_date(year, Month::try_from(month).ok()?, day).ok()?;
    let time = Time::from_hms(hour, minute, 0).ok()?;
    Some(OffsetDateTime::new_utc(date, time).into())
}

fn month_number(field: &[u8]) -> Option<u8> {
    let index = MONTHS
        .iter()
        .position(|month| month.eq_ignore_ascii_case(field))?;
    u8::try_from(index + 1).ok()
}

fn mode_bits(text: &[u8]) -> Option<u32> {
    let bits = text.get(1..10)?;
    Some(bits.iter().fold(0, |mode, letter| {
        mode << 1 | u32::from(!matches!(letter, b'-' | b'S' | b'T'))
    }))
}

fn clock(text: &[u8]) -> Option<(u8, u8)> {
    let colon = text.iter().position(|byte| *byte == b':')?;
    Some((small(text.get(..colon)?)?, small(text.get(colon + 1..)?)?))
}

fn small(digits: &[u8]) -> Option<u8> {
    u8::try_from(number(digits)?).ok()
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Fields with runs of spaces between them; the rest of the line stays whole.
#[derive(Clone, Copy)]
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn new(line: &'a [u8]) -> Self {
        Self { rest: line }
    }

    fn next(&mut self) -> Option<&'a [u8]> {
        let (field, rest) = Self::split(self.rest)?;
        self.rest = rest;
        Some(field)
    }

    fn split(text: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        let start = text.iter().position(|byte| *byte != b' ')?;
        let text = text.get(start..)?;
        let end = text
            .iter()
            .position(|byte| *byte == b' ')
            .unwrap_or(text.len());
        text.split_at_checked(end)
    }

    /// All behind the one space after the last field: a name may start with spaces.
    fn rest(&self) -> &'a [u8] {
        self.rest.strip_prefix(b" ").unwrap_or(self.rest)
    }

    /// All behind the padding after the last field, for styles that align names.
    fn rest_after_padding(&self) -> &'a [u8] {
        let start = self.rest.iter().position(|byte| *byte != b' ');
        start
            .and_then(|start| self.rest.get(start..))
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 2024-11-02 12:00:00 UTC, by `date -u -d @1730548800`.
    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_730_548_800)
    }

    fn at(seconds: u64) -> Option<SystemTime> {
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    }

    fn entry(name: &[u8], modified_seconds: u64) -> Entry {
        Entry {
            name: name.to_vec(),
            kind: EntryKind::File,
            size: 1024,
            modified: SystemTime::UNIX_EPOCH + Duration::from_secs(modified_seconds),
            mode: 0o644,
            owner: 1000,
            group: 100,
            links: 1,
            unique: None,
            incomplete: false,
        }
    }

    fn line(entry: &Entry) -> String {
        let mut out = Vec::new();
        encode_list_line(entry, now(), &mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn lines_look_like_ls() {
        assert_eq!(
            line(&entry(b" a", 1_729_692_660)),
            "-rw-r--r--   1     1000      100         1024 Oct 23 14:11  a"
        );
        assert_eq!(
            line(&entry(b"old\r\nname", 897_904_845)),
            "-rw-r--r--   1     1000      100         1024 Jun 15  1998 old??name"
        );
        let future = line(&entry(b"f", 1_893_456_000));
        assert!(future.ends_with("Jan  1  2030 f"), "{future}");
    }

    type Case = (
        &'static str,
        &'static [u8],
        EntryKind,
        Option<u64>,
        Option<SystemTime>,
    );

    #[test]
    fn lines_of_many_servers_are_read() {
        let october = at(1_729_692_660);
        let cases: [Case; 9] = [
            (
                "-rw-r--r--    1 0        0            1024 Oct 23 14:11 vsftpd file",
                b"vsftpd file",
                EntryKind::File,
                Some(1024),
                october,
            ),
            (
                "drwxr-xr-x   2 1000       ftp              4096 Oct 23 14:11 pure",
                b"pure",
                EntryKind::Directory,
                None,
                october,
            ),
            (
                "-rw-r--r--   1 user 1024 Oct 23 14:11 no group",
                b"no group",
                EntryKind::File,
                Some(1024),
                october,
            ),
            (
                "-rw-rw-r--+  1 a b 1024 23 Oct 14:11 day first",
                b"day first",
                EntryKind::File,
                Some(1024),
                october,
            ),
            (
                "lrwxrwxrwx   1 a b 4 Oct 23 14:11 link -> target",
                b"link",
                EntryKind::Symlink,
                None,
                october,
            ),
            (
                "-rw-r--r--   1 a b 5 Jun 15  1998  two spaces ",
                b" two spaces ",
                EntryKind::File,
                Some(5),
                at(897_868_800),
            ),
            (
                "10-23-24  02:11PM       <DIR>          My Folder",
                b"My Folder",
                EntryKind::Directory,
                None,
                october,
            ),
            (
                "10-23-2024  02:11PM                 1024 a.txt",
                b"a.txt",
                EntryKind::File,
                Some(1024),
                october,
            ),
            (
                "-rw-r--r--   1 a b 7 Dec 24 18:00 last year",
                b"last year",
                EntryKind::File,
                Some(7),
                at(1_703_440_800),
            ),
        ];
        for (text, name, kind, size, modified) in cases {
            let read = parse_list_line(text.as_bytes(), now()).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(read.name, name, "{text}");
            assert_eq!(
                (read.kind, read.size, read.modified),
                (kind, size, modified),
                "{text}"
            );
        }
        for junk in ["total 8", "", "hello world", "drwx", "10-23-24"] {
            assert_eq!(parse_list_line(junk.as_bytes(), now()), None, "{junk}");
        }
        assert_eq!(
            parse_list_line(b"-rwxr-x--- 1 a b 5 Jun 15 1998 x", now())
                .and_then(|entry| entry.mode),
            Some(0o750)
        );
    }

    #[test]
    fn numeric_owners_groups_and_sizes_are_not_taken_for_days() {
        use EntryKind::{Directory, File, Other, Symlink};
        let november = at(1_730_451_000);
        for (text, name, kind, size, modified) in [
            // vsftpd without text_userdb_names.
            (
                "drwxr-xr-x    2 1000     1000         4096 Nov 01 08:50 dir",
                "dir",
                Directory,
                None,
                november,
            ),
            (
                "drwxr-xr-x 2 1000 1000 4096 Nov 01 08:50 dir",
                "dir",
                Directory,
                None,
                november,
            ),
            (
                "-rw-r--r--    1 0        0              12 Nov 01 08:50 12 Nov 01 08:50",
                "12 Nov 01 08:50",
                File,
                Some(12),
                november,
            ),
            (
                "-rw-------    1 100      101             1 Nov 01 08:50 2024 report",
                "2024 report",
                File,
                Some(1),
                november,
            ),
            (
                "-rw-r--r--    1 0        12              0 Jun 15  1998 empty",
                "empty",
                File,
                Some(0),
                at(897_868_800),
            ),
            // Pure-FTPd.
            (
                "-rw-r--r--    1 1000       1000             21 Nov  1 08:50 21 Nov 2024",
                "21 Nov 2024",
                File,
                Some(21),
                november,
            ),
            (
                "drwxr-xr-x    3 12         31             4096 Nov  1 08:50 .",
                ".",
                Directory,
                None,
                november,
            ),
            (
                "lrwxrwxrwx    1 12         31                4 Nov  1 08:50 ln -> 4 Nov",
                "ln",
                Symlink,
                None,
                november,
            ),
            // ProFTPD.
            (
                "-rw-r--r--   1 1000     1000           31 Jun 15  1998 1998",
                "1998",
                File,
                Some(31),
                at(897_868_800),
            ),
            (
                "-rw-r--r--   1 jan      may            31 Nov  1 08:50 may 1 2024",
                "may 1 2024",
                File,
                Some(31),
                november,
            ),
            // GNU ls, with a device and with the day first.
            (
                "crw-rw-rw- 1 0 0 1, 3 Nov  1 08:50 null",
                "null",
                Other,
                None,
                november,
            ),
            (
                "-rw-r--r-- 1 1000 1000 12 1 Nov 08:50 12 Nov",
                "12 Nov",
                File,
                Some(12),
                november,
            ),
            (
                "-rw-r--r-- 1 1000 1000 4096 15 Jun 1998 old",
                "old",
                File,
                Some(4096),
                at(897_868_800),
            ),
        ] {
            let read = parse_list_line(text.as_bytes(), now()).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(String::from_utf8_lossy(&read.name), name, "{text}");
            assert_eq!(
                (read.kind, read.size, read.modified),
                (kind, size, modified),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(name in "[^\r\n\0]{1,40}", size in any::<u64>(), age in 0u64..1_000_000_000) {
            let mut original = entry(name.as_bytes(), 1_730_548_800 - age);
            original.size = size;
            prop_assume!(!matches!(name.as_str(), "." | ".."));
            let read = parse_list_line(line(&original).as_bytes(), now()).expect("an entry");
            prop_assert_eq!(read.name, original.name);
            prop_assert_eq!(read.size, Some(size));
        }

        #[test]
        fn no_bytes_make_the_parser_panic(
            input in proptest::collection::vec(prop_oneof![Just(b' '), Just(b'1'), any::<u8>()], 0..100),
        ) {
            let _ = parse_list_line(&input, now());
        }

        #[test]
        fn no_near_line_makes_the_parser_panic(text in "[-dl][rwx-]{9} [0-9a-z ]{0,30}(Oct|oct)? ?[0-9:]{0,8} .{0,10}") {
            let _ = parse_list_line(text.as_bytes(), now());
        }
    }
}
