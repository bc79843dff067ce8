//! How long to wait before a transfer is tried again.

use std::time::Duration;

/// The wait before retry number `retry` (from 1): 0.5 s, doubled each time, at
/// most 30 s, of which a random half is taken away so that many clients that
/// lost one server do not come back at once. `random` is uniform over `u32`.
pub(crate) fn backoff_delay(retry: u32, random: u32) -> Duration {
    let doublings = retry.saturating_sub(1).min(16);
    let longest = FIRST.saturating_mul(1 << doublings).min(LONGEST);
    let half = longest / 2;
    half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// A number uniform over `u32` from the system; the middle one should the
/// system have none to give, which only costs the spread.
pub(crate) fn random_u32() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX / 2)
}

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_a_limit_and_spread_over_their_upper_half() {
        for (retry, shortest_ms, longest_ms) in [
            (1, 250, 500),
            (2, 500, 1000),
            (6, 8000, 16_000),
            (7, 15_000, 30_000),
            (u32::MAX, 15_000, 30_000),
        ] {
            assert_eq!(backoff_delay(retry, 0).as_millis(), shortest_ms);
            assert_eq!(backoff_delay(retry, u32::MAX).as_millis(), longest_ms);
        }
    }
}
