//! Times as commands print and read them. All in UTC: the server's own time zone says
//! nothing to a client.

use std::time::{Duration, SystemTime};

use time::{Date, Month, OffsetDateTime, Time};

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Half of a year of 365.2425 days, as GNU `ls` counts it: beyond it, and for what is to
/// come, the year is shown instead of the time.
const HALF_A_YEAR: Duration = Duration::from_secs(31_556_952 / 2);

/// Seconds from the epoch, negative before it, and the nanoseconds beyond them.
pub(super) fn since_epoch(time: SystemTime) -> (i64, u32) {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => (
            i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            after.subsec_nanos(),
        ),
        Err(before) => {
            let before = before.duration();
            let seconds = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
            match before.subsec_nanos() {
                0 => (-seconds, 0),
                nanoseconds => (-seconds - 1, 1_000_000_000 - nanoseconds),
            }
        }
    }
}

/// `Oct 23 14:11`, or `Jun 15  1998` if that is far from `now`.
pub(super) fn short(time: SystemTime, now: SystemTime) -> String {
    let utc = calendar(time);
    let recent = now.duration_since(time).is_ok_and(|age| age < HALF_A_YEAR);
    let month = month_name(utc.month());
    if recent {
        format!(
            "{month} {:2} {:02}:{:02}",
            utc.day(),
            utc.hour(),
            utc.minute()
        )
    } else {
        format!("{month} {:2}  {:4}", utc.day(), utc.year())
    }
}

/// `2024-10-23 14:11`.
pub(super) fn long_iso(time: SystemTime) -> String {
    let utc = calendar(time);
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}",
        utc.year(),
        u8::from(utc.month()),
        utc.day(),
        utc.hour(),
        utc.minute()
    )
}

/// `2024-10-23 14:11:00.000000000 +0000`.
pub(super) fn full_iso(time: SystemTime) -> String {
    let utc = calendar(time);
    let (_, nanoseconds) = since_epoch(time);
    format!(
        "{}:{:02}.{nanoseconds:09} +0000",
        long_iso(time),
        utc.second()
    )
}

fn month_name(month: Month) -> &'static str {
    let at = usize::from(u8::from(month)) - 1;
    MONTHS.get(at).copied().unwrap_or("Jan")
}

/// The epoch where the calendar ends.
fn calendar(time: SystemTime) -> OffsetDateTime {
    let (seconds, _) = since_epoch(time);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// Reads `[[CC]YY]MMDDhhmm[.ss]` (POSIX `touch -t`).
pub(super) fn parse_stamp(text: &str, now: SystemTime) -> Option<SystemTime> {
    let (digits, second) = match text.split_once('.') {
        Some((digits, second)) if second.len() == 2 => (digits, number(second)?),
        Some(_) => return None,
        None => (text, 0),
    };
    let split = digits.len().checked_sub(8)?;
    let (year, rest) = digits.split_at_checked(split)?;
    let year = match year.len() {
        0 => calendar(now).year(),
        2 => {
            let year = i32::try_from(number(year)?).ok()?;
            if year < 69 { 2000 + year } else { 1900 + year }
        }
        4 => i32::try_from(number(year)?).ok()?,
        _ => return None,
    };
    let pair = |at: usize| number(rest.get(at..at + 2)?);
    moment(year, pair(0)?, pair(2)?, pair(4)?, pair(6)?, second, 0)
}

/// Reads what `date -d` and `touch -d` are given by programs: `@SECONDS`, `now`, and ISO 8601
/// with or without a time, a fraction and a zone. Without a zone it is UTC.
pub(super) fn parse_date(text: &str, now: SystemTime) -> Option<SystemTime> {
    let text = text.trim();
    if text == "now" {
        return Some(now);
    }
    if let Some(seconds) = text.strip_prefix('@') {
        return parse_seconds(seconds);
    }
    let (date, rest) = text.split_at_checked(10)?;
    let (year, month, day) = (date.get(..4)?, date.get(5..7)?, date.get(8..10)?);
    if date.get(4..5) != Some("-") || date.get(7..8) != Some("-") {
        return None;
    }
    let year = i32::try_from(number(year)?).ok()?;
    let (month, day) = (number(month)?, number(day)?);
    let rest = rest.trim_start_matches([' ', 'T', 't']);
    if rest.is_empty() {
        return moment(year, month, day, 0, 0, 0, 0);
    }
    let zone_at = rest
        .find(['Z', 'z', '+', '-', ' ', 'U'])
        .unwrap_or(rest.len());
    let (clock, zone) = rest.split_at_checked(zone_at)?;
    let (whole, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut parts = whole.split(':').map(number);
    let (hour, minute) = (parts.next()??, parts.next()??);
    let second = parts.next().unwrap_or(Some(0))?;
    if parts.next().is_some() {
        return None;
    }
    let local = moment(
        year,
        month,
        day,
        hour,
        minute,
        second,
        nanoseconds(fraction)?,
    )?;
    shift(local, parse_zone(zone.trim())?)
}

/// `SECONDS[.fraction]`, perhaps before the epoch.
fn parse_seconds(text: &str) -> Option<SystemTime> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() || !whole.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let distance = Duration::new(whole.parse().ok()?, nanoseconds(fraction)?);
    if negative {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    }
}

/// Seconds east of Greenwich.
fn parse_zone(text: &str) -> Option<i64> {
    let (sign, digits) = match text {
        "" | "Z" | "z" | "UTC" | "GMT" => return Some(0),
        _ => match text.split_at_checked(1)? {
            ("+", digits) => (1, digits),
            ("-", digits) => (-1, digits),
            _ => return None,
        },
    };
    let digits = digits.replace(':', "");
    let (hours, minutes) = match digits.len() {
        2 => (number(&digits)?, 0),
        4 => (number(digits.get(..2)?)?, number(digits.get(2..)?)?),
        _ => return None,
    };
    (hours <= 14 && minutes < 60).then(|| sign * i64::from(hours * 3600 + minutes * 60))
}

fn shift(time: SystemTime, east_seconds: i64) -> Option<SystemTime> {
    let distance = Duration::from_secs(east_seconds.unsigned_abs());
    if east_seconds < 0 {
        time.checked_add(distance)
    } else {
        time.checked_sub(distance)
    }
}

fn moment(
    year: i32,
    month: u32,
    day: u32,
    hour: u32,
    minute: u32,
    second: u32,
    nanosecond: u32,
) -> Option<SystemTime> {
    let small = |value: u32| u8::try_from(value).ok();
    let month = Month::try_from(small(month)?).ok()?;
    let date = Date::from_calendar_date(year, month, small(day)?).ok()?;
    // A leap second counts as the last second of its minute.
    let second = if second == 60 { 59 } else { second };
    let clock =
        Time::from_hms_nano(small(hour)?, small(minute)?, small(second)?, nanosecond).ok()?;
    Some(OffsetDateTime::new_utc(date, clock).into())
}

fn number(digits: &str) -> Option<u32> {
    (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| digits.parse().ok())?
}

/// A fraction of a second; what is beyond nanoseconds is cut.
fn nanoseconds(fraction: &str) -> Option<u32> {
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let padded: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    padded.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64, nanoseconds: u32) -> Option<(i64, u32)> {
        Some((seconds, nanoseconds))
    }

    /// 2024-11-02 12:00:00 UTC.
    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_730_548_800)
    }

    #[test]
    fn dates_are_read_as_by_gnu_touch() {
        // By `TZ=UTC date -d TEXT +%s`.
        for (text, expected) in [
            ("@0", at(0, 0)),
            ("@1234567890.25", at(1_234_567_890, 250_000_000)),
            ("@-1.5", at(-2, 500_000_000)),
            ("now", at(1_730_548_800, 0)),
            ("2024-02-29", at(1_709_164_800, 0)),
            ("2024-02-29 23:59", at(1_709_251_140, 0)),
            ("2024-02-29T23:59:59Z", at(1_709_251_199, 0)),
            (
                "2024-02-29 23:59:59.5 +0130",
                at(1_709_245_799, 500_000_000),
            ),
            ("2024-02-29 23:59:59 -05:00", at(1_709_269_199, 0)),
            ("2024-02-29 23:59:59 UTC", at(1_709_251_199, 0)),
            ("2023-02-29", None),
            ("2024-02-29 25:00", None),
            ("2024-02-29 1:2:3:4", None),
            ("yesterday", None),
            ("@", None),
            ("", None),
        ] {
            let parsed = parse_date(text, now()).map(since_epoch);
            assert_eq!(parsed, expected, "{text}");
        }
    }

    #[test]
    fn stamps_are_read_as_by_gnu_touch() {
        // By `TZ=UTC touch -t TEXT`, and `stat -c %Y`.
        for (text, expected) in [
            ("202402292359.59", at(1_709_251_199, 0)),
            ("7001010000", at(0, 0)),
            ("6812312359", at(3_124_223_940, 0)),
            ("02292359", at(1_709_251_140, 0)),
            ("202402292359.5", None),
            ("2024022923", None),
            ("x2292359", None),
            ("1234567", None),
        ] {
            let parsed = parse_stamp(text, now()).map(since_epoch);
            assert_eq!(parsed, expected, "{text}");
        }
    }

    #[test]
    fn times_are_shown_as_by_gnu_ls() {
        let october = SystemTime::UNIX_EPOCH + Duration::new(1_729_692_660, 7);
        assert_eq!(short(october, now()), "Oct 23 14:11");
        assert_eq!(short(october + HALF_A_YEAR * 2, now()), "Oct 23  2025");
        let june = SystemTime::UNIX_EPOCH + Duration::from_secs(897_904_845);
        assert_eq!(short(june, now()), "Jun 15  1998");
        assert_eq!(full_iso(october), "2024-10-23 14:11:00.000000007 +0000");
        let before = SystemTime::UNIX_EPOCH - Duration::from_millis(500);
        assert_eq!(full_iso(before), "1969-12-31 23:59:59.500000000 +0000");
    }
}
