//! Times as FTP writes them: `YYYYMMDDHHMMSS[.fraction]`, UTC (RFC 3659 §2.3).

use std::time::{Duration, SystemTime};

use time::{Date, Month, OffsetDateTime, Time};

/// Parses a time value. Only digits, 14 of them, then optionally a dot and a
/// fraction of any length (beyond nanoseconds it is cut). Second 60 counts as
/// the last second of its minute.
pub fn parse_time(text: &[u8]) -> Option<SystemTime> {
    let (whole, fraction) = match text.split_at_checked(14)? {
        (whole, []) => (whole, &[][..]),
        (whole, [b'.', fraction @ ..]) if !fraction.is_empty() => (whole, fraction),
        _ => return None,
    };
    let year = i32::try_from(number(whole.get(..4)?)?).ok()?;
    let part =
        |from: usize| -> Option<u8> { u8::try_from(number(whole.get(from..from + 2)?)?).ok() };
    let date = Date::from_calendar_date(year, Month::try_from(part(4)?).ok()?, part(6)?).ok()?;
    let second = part(12)?;
    let second = if second == 60 { 59 } else { second };
    let clock = Time::from_hms_nano(part(8)?, part(10)?, second, nanoseconds(fraction)?).ok()?;
    Some(OffsetDateTime::new_utc(date, clock).into())
}

/// Appends `time` to `out`, in whole seconds. Years beyond 0 to 9999, which
/// four digits cannot hold, are written as the epoch.
pub fn encode_time(time: SystemTime, out: &mut Vec<u8>) {
    let time = to_utc(time);
    let year = u32::try_from(time.year()).unwrap_or(1970);
    push_digits(out, year, 4);
    push_digits(out, u32::from(u8::from(time.month())), 2);
    push_digits(out, u32::from(time.day()), 2);
    push_digits(out, u32::from(time.hour()), 2);
    push_digits(out, u32::from(time.minute()), 2);
    push_digits(out, u32::from(time.second()), 2);
}

/// The calendar form of `time`; the epoch where the calendar ends.
pub(crate) fn to_utc(time: SystemTime) -> OffsetDateTime {
    const DAYS: u64 = 24 * 60 * 60;
    // 9999-12-31 and 0000-01-01, in days from the epoch.
    const LAST: Duration = Duration::from_secs(2_932_896 * DAYS);
    const FIRST: Duration = Duration::from_secs(719_528 * DAYS);
    let representable = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => after < LAST,
        Err(before) => before.duration() < FIRST,
    };
    if representable {
        time.into()
    } else {
        OffsetDateTime::UNIX_EPOCH
    }
}

/// Appends the last `width` decimal digits of `value`.
pub(crate) fn push_digits(out: &mut Vec<u8>, value: u32, width: u32) {
    for place in (0..width).rev() {
        let digit = value / 10_u32.pow(place) % 10;
        out.push(b'0' + u8::try_from(digit).unwrap_or(0));
    }
}

fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0_u32, |value, byte| {
        let digit = byte.is_ascii_digit().then(|| u32::from(byte - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

fn nanoseconds(fraction: &[u8]) -> Option<u32> {
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction
        .iter()
        .copied()
        .chain(std::iter::repeat(b'0'))
        .take(9);
    number(&digits.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(time: SystemTime) -> String {
        let mut out = Vec::new();
        encode_time(time, &mut out);
        String::from_utf8(out).expect("digits")
    }

    #[test]
    fn values_parse_as_utc() {
        let cases = [
            ("19700101000000", 0),
            // RFC 3659 §3.1 example date, by `date -u -d`.
            ("19980615100045", 897_904_845),
            ("20240229235959", 1_709_251_199),
            ("20161231235960", 1_483_228_799),
        ];
        for (text, seconds) in cases {
            let expected = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(parse_time(text.as_bytes()), Some(expected), "{text}");
        }
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(parse_time(b"19691231235959"), Some(before));
        let fraction = SystemTime::UNIX_EPOCH + Duration::from_millis(250);
        assert_eq!(parse_time(b"19700101000000.25"), Some(fraction));
        for bad in [
            "",
            "1998061510004",
            "19981315100045",
            "20230229000000",
            "19980615100045.",
            "199806151000450",
            "19980615240000",
            "+9980615100045",
        ] {
            assert_eq!(parse_time(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn values_encode_in_fourteen_digits_whatever_the_clock_says() {
        assert_eq!(
            encoded(SystemTime::UNIX_EPOCH + Duration::from_secs(897_904_845)),
            "19980615100045"
        );
        assert_eq!(
            encoded(SystemTime::UNIX_EPOCH - Duration::from_secs(1)),
            "19691231235959"
        );
        assert_eq!(
            encoded(SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 45)),
            "19700101000000"
        );
    }
}
