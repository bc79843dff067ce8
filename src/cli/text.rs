//! Sizes, rates, times and names as a person reads them.

use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use wharf_client::RemoteEntry;
use wharf_model::{ByteSize, EntryKind, escape_for_display};

/// `64.0 MiB`.
pub(super) fn size(bytes: u64) -> String {
    ByteSize(bytes).to_string()
}

/// `64.0 MiB in 0.41 s (156.1 MiB/s)`.
pub(super) fn moved(bytes: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    format!(
        "{} in {seconds:.2} s ({}/s)",
        size(bytes),
        size(rate(bytes, elapsed))
    )
}

/// Bytes a second.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a rate that a person reads needs no exact bytes"
)]
pub(crate) fn rate(bytes: u64, elapsed: Duration) -> u64 {
    (bytes as f64 / elapsed.as_secs_f64().max(1e-6)) as u64
}

/// `7 s`, `12:05`, `3:00:00`.
pub(super) fn seconds(seconds: u64) -> String {
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest} s"),
        (0, _) => format!("{minutes}:{rest:02}"),
        _ => format!("{hours}:{minutes:02}:{rest:02}"),
    }
}

/// `1 upload`, `2 uploads`.
pub(super) fn count(number: impl TryInto<u64>, thing: &str) -> String {
    match number.try_into().unwrap_or(u64::MAX) {
        1 => format!("1 {thing}"),
        number => format!("{number} {thing}s"),
    }
}

/// A name for a program: as it is where it is text, else as it is shown.
pub(crate) fn json_name(name: &[u8]) -> String {
    std::str::from_utf8(name).map_or_else(|_| escape_for_display(name), str::to_owned)
}

/// `2026-11-21 08:50:00`, in UTC.
pub(super) fn time(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

/// `2026-11-21T08:50:00Z` (RFC 3339).
pub(crate) fn time_for_machines(time: SystemTime) -> String {
    self::time(time).replace(' ', "T") + "Z"
}

/// One letter for what an entry is, as `ls -l` writes it.
pub(super) fn kind_letter(kind: EntryKind) -> char {
    match kind {
        EntryKind::File => '-',
        EntryKind::Directory => 'd',
        EntryKind::Symlink => 'l',
        EntryKind::Other => '?',
    }
}

/// One word for what an entry is.
pub(super) fn kind_name(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::File => "file",
        EntryKind::Directory => "directory",
        EntryKind::Symlink => "symlink",
        EntryKind::Other => "other",
    }
}

/// An entry's name, safe to show; a directory's ends in a slash.
pub(super) fn shown_name(name: &[u8], kind: EntryKind) -> String {
    let slash = if kind == EntryKind::Directory {
        "/"
    } else {
        ""
    };
    escape_for_display(name) + slash
}

/// One line of a long listing: kind, mode, size, time, name.
pub(super) fn long_line(entry: &RemoteEntry, shown: &str, exact: bool) -> String {
    let bytes = match entry.size {
        Some(_) if entry.kind == EntryKind::Directory => "-".to_owned(),
        Some(bytes) if exact => bytes.to_string(),
        Some(bytes) => size(bytes),
        None => "-".to_owned(),
    };
    let when = entry.modified.map_or_else(|| "-".to_owned(), time);
    let mark = if entry.incomplete {
        "  (incomplete)"
    } else {
        ""
    };
    format!(
        "{}{}  {bytes:>12}  {when:>19}  {shown}{mark}",
        kind_letter(entry.kind),
        mode(entry.mode)
    )
}

/// `rwxr-xr-x`, or nine question marks where the server does not tell.
fn mode(mode: Option<u32>) -> String {
    let Some(mode) = mode else {
        return "?????????".to_owned();
    };
    "rwxrwxrwx"
        .chars()
        .zip((0..9).rev())
        .map(|(letter, bit)| if mode >> bit & 1 == 1 { letter } else { '-' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_show_what_is_known_and_nothing_that_moves_the_cursor() {
        let mut entry = RemoteEntry::new(b"a\x1b[2Jb".to_vec(), EntryKind::File);
        entry.size = Some(1536);
        entry.mode = Some(0o640);
        entry.modified = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(86_400));
        let shown = shown_name(&entry.name, entry.kind);
        assert_eq!(
            long_line(&entry, &shown, false),
            "-rw-r-----       1.5 KiB  1970-01-02 00:00:00  a\\x1b[2Jb"
        );
        let unknown = RemoteEntry::new(b"d".to_vec(), EntryKind::Directory);
        assert_eq!(
            long_line(&unknown, &shown_name(b"d", unknown.kind), true),
            "d?????????             -                    -  d/"
        );
    }

    #[test]
    fn times_are_utc() {
        let moment = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert_eq!(time(moment), "2023-11-14 22:13:20");
        assert_eq!(time_for_machines(moment), "2023-11-14T22:13:20Z");
    }
}
