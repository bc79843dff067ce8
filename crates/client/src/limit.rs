//! A bandwidth limit shared by all transfers of one command.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

/// A token bucket: on average at most so many bytes a second, with bursts of
/// a quarter of a second.
#[derive(Debug)]
pub struct RateLimit {
    bytes_per_second: u64,
    /// When the bytes that were granted so far will have been paid for. A lock
    /// because parallel transfers share the limit; never held across an await.
    paid_until: Mutex<Option<Instant>>,
}

impl RateLimit {
    /// A limit of `bytes_per_second`; zero counts as one.
    pub fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second: bytes_per_second.max(1),
            paid_until: Mutex::new(None),
        }
    }

    /// The most bytes that should be moved at one time, so that a slow limit
    /// makes a slow stream and not one that stands and jumps.
    pub fn largest_piece(&self) -> usize {
        usize::try_from(self.bytes_per_second / 8)
            .unwrap_or(usize::MAX)
            .max(512)
    }

    /// Waits until `bytes` more may have been moved. Dropping the future keeps
    /// the bytes booked.
    pub async fn take(&self, bytes: usize) {
        let wait_until = self.book(bytes, Instant::now());
        tokio::time::sleep_until(wait_until).await;
    }

    /// Books `bytes` and returns when they may have been moved.
    fn book(&self, bytes: usize, now: Instant) -> Instant {
        #[expect(clippy::cast_precision_loss, reason = "a rate needs no exact bytes")]
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let mut paid_until = self
            .paid_until
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let start = paid_until.map_or(now, |paid| paid.max(now));
        let end = start + cost;
        *paid_until = Some(end);
        end.checked_sub(BURST).map_or(now, |ready| ready.max(now))
    }
}

const BURST: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ten_seconds_of_bytes_take_ten_seconds_less_the_burst() {
        let limit = RateLimit::new(1000);
        let start = Instant::now();
        for _ in 0..100 {
            limit.take(100).await;
        }
        let elapsed = start.elapsed().as_millis();
        assert!((9740..=9760).contains(&elapsed), "{elapsed} ms");
    }

    #[tokio::test(start_paused = true)]
    async fn two_transfers_share_one_limit() {
        let limit = RateLimit::new(1000);
        let start = Instant::now();
        let half = async {
            for _ in 0..50 {
                limit.take(100).await;
            }
        };
        let other_half = async {
            for _ in 0..50 {
                limit.take(100).await;
            }
        };
        tokio::join!(half, other_half);
        let elapsed = start.elapsed().as_millis();
        assert!((9740..=9760).contains(&elapsed), "{elapsed} ms");
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_time_is_not_saved_up() {
        let limit = RateLimit::new(1000);
        limit.take(1).await;
        tokio::time::advance(Duration::from_secs(60)).await;
        let start = Instant::now();
        limit.take(1250).await;
        assert_eq!(start.elapsed().as_millis(), 1000);
    }
}
