//! What one transfer should do, decided from facts alone.
//!
//! Pure: no clock, no file, no socket. Both directions use the same rules, with
//! the source and the target exchanged.

use std::time::{Duration, SystemTime};

/// What is known about one side's copy of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Length in bytes; `None` where the server does not tell.
    pub size: Option<u64>,
    /// Last modification; `None` where the server does not tell.
    pub modified: Option<SystemTime>,
    /// How far `modified` may be from the truth: a listing may say only the minute or the day.
    pub precision: Duration,
    /// The server says that the file is the begin of a cut upload.
    pub incomplete: bool,
}

/// What an earlier transfer left, or something that may be that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partial {
    /// Bytes that are there; `None` where the server does not tell.
    pub size: Option<u64>,
    /// Where they come from.
    pub origin: Origin,
}

/// What is known about where the bytes of a [`Partial`] come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// This very transfer wrote them in an attempt before, and the source is as it was.
    ThisTransfer,
    /// This very transfer wrote them, and the source has changed since.
    Outdated,
    /// An earlier transfer marked them with the time that its source had.
    Marked(SystemTime),
    /// An earlier transfer last wrote to them at this time, and was killed.
    Written(SystemTime),
    /// Nothing: a file that stands under the target's name may be anything.
    Unknown,
}

/// When a target that exists is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overwrite {
    /// Replace it where its size or time differs from the source's.
    #[default]
    IfDifferent,
    /// Replace it only where the source is newer.
    IfNewer,
    /// Replace it only where the size differs.
    IfSizeDiffers,
    /// Replace it only where the contents' digests differ; the caller compares them.
    IfDigestDiffers,
    /// Never replace it.
    Never,
    /// Transfer in any case.
    Always,
}

/// When the begin of a file that an earlier transfer left is continued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Resume {
    /// Never: start at the first byte.
    Never,
    /// Where a digest proves the begin or, where the server offers none, where
    /// a transfer of this source left it.
    #[default]
    WhenLikely,
    /// Also on the size alone, where the server offers no digest.
    BySize,
}

/// The two choices that a person makes about existing files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// About complete targets.
    pub overwrite: Overwrite,
    /// About partial ones.
    pub resume: Resume,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Leave the target as it is.
    Skip(SkipReason),
    /// Compare digests first: equal means skip, different or none means the action within.
    CompareDigests(Transfer),
    /// Transfer.
    Transfer(Transfer),
}

/// How to transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transfer {
    /// From the first byte.
    Whole,
    /// From `offset`, if the bytes before it are proven equal. Where the
    /// server cannot prove it: on the word of `otherwise`, or from the first
    /// byte if that is `None`.
    From {
        /// Length of the begin that the target side holds, in bytes; at least 1.
        offset: u64,
        /// Evidence that suffices without a digest.
        otherwise: Option<WeakEvidence>,
    },
}

/// Why nothing is transferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SkipReason {
    /// Size and time are the same.
    SameSizeAndTime,
    /// The size is the same, and one side has no time or nobody asked for it.
    SameSize,
    /// The digests are the same.
    SameDigest,
    /// The target is as new as the source or newer.
    TargetNotOlder,
    /// The target exists and must not be replaced.
    TargetExists,
}

/// What speaks for a begin being the source's, other than a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeakEvidence {
    /// This very transfer wrote it a moment ago, from the source as it stands.
    SameTransfer,
    /// Its time says that it was made from the source as it stands.
    SizeAndTime,
    /// Only that it is not longer than the source.
    Size,
}

/// Decides what a transfer of `source` does, where the final name holds
/// `target` and an earlier transfer left `partial` (which may stand under the
/// final name itself; then `target` is `None` if it is certainly a partial).
pub fn plan(
    source: Facts,
    target: Option<Facts>,
    partial: Option<Partial>,
    policy: Policy,
) -> Action {
    let transfer = plan_transfer(source, partial, policy.resume);
    let Some(target) = target else {
        return Action::Transfer(transfer);
    };
    if target.incomplete {
        return match policy.overwrite {
            Overwrite::Never => Action::Skip(SkipReason::TargetExists),
            _ => Action::Transfer(transfer),
        };
    }
    match policy.overwrite {
        Overwrite::Always => Action::Transfer(transfer),
        Overwrite::Never => Action::Skip(SkipReason::TargetExists),
        Overwrite::IfSizeDiffers if same_size(source, target) => Action::Skip(SkipReason::SameSize),
        Overwrite::IfSizeDiffers => Action::Transfer(transfer),
        Overwrite::IfDigestDiffers if sizes_differ(source, target) => Action::Transfer(transfer),
        Overwrite::IfDigestDiffers => Action::CompareDigests(transfer),
        Overwrite::IfNewer => match is_newer(source, target) {
            Some(true) => Action::Transfer(transfer),
            Some(false) => Action::Skip(SkipReason::TargetNotOlder),
            None if same_size(source, target) => Action::Skip(SkipReason::SameSize),
            None => Action::Transfer(transfer),
        },
        Overwrite::IfDifferent => match look_the_same(source, target) {
            Some(reason) => Action::Skip(reason),
            None => Action::Transfer(transfer),
        },
    }
}

fn plan_transfer(source: Facts, partial: Option<Partial>, resume: Resume) -> Transfer {
    let Some(partial) = partial else {
        return Transfer::Whole;
    };
    let (Some(offset), Some(source_size)) = (partial.size, source.size) else {
        return Transfer::Whole;
    };
    if resume == Resume::Never || offset == 0 || offset > source_size {
        return Transfer::Whole;
    }
    let otherwise = match partial.origin {
        Origin::ThisTransfer => Some(WeakEvidence::SameTransfer),
        // Two states of the source in one file would be neither.
        Origin::Outdated => None,
        Origin::Marked(time) if is_mark_of(source, time) => Some(WeakEvidence::SizeAndTime),
        Origin::Written(time) if is_surely_older(source, time) => Some(WeakEvidence::SizeAndTime),
        _ if resume == Resume::BySize => Some(WeakEvidence::Size),
        _ => None,
    };
    Transfer::From { offset, otherwise }
}

/// Whether a partial that is marked with `time` was made from the source as it
/// stands. A newer mark is no better than an older one: files are replaced by
/// older ones, too.
fn is_mark_of(source: Facts, time: SystemTime) -> bool {
    let is_close = |source_time| distance(source_time, time) < MARK_PRECISION;
    source.precision <= MARK_PRECISION && source.modified.is_some_and(is_close)
}

/// Whether the source was last changed before `time`.
fn is_surely_older(source: Facts, time: SystemTime) -> bool {
    source.modified.is_some_and(|source_time| {
        later(source_time, source.precision) <= later(time, MARK_PRECISION)
    })
}

fn look_the_same(source: Facts, target: Facts) -> Option<SkipReason> {
    if !same_size(source, target) {
        return None;
    }
    match (source.modified, target.modified) {
        (Some(source_time), Some(target_time)) => {
            let tolerance = source.precision.max(target.precision);
            (distance(source_time, target_time) < tolerance).then_some(SkipReason::SameSizeAndTime)
        }
        // Without a time nothing says that the content is the same.
        _ => None,
    }
}

fn same_size(source: Facts, target: Facts) -> bool {
    source.size.is_some() && source.size == target.size
}

fn sizes_differ(source: Facts, target: Facts) -> bool {
    matches!((source.size, target.size), (Some(one), Some(other)) if one != other)
}

fn is_newer(source: Facts, target: Facts) -> Option<bool> {
    let tolerance = source.precision.max(target.precision);
    let (source_time, target_time) = (source.modified?, target.modified?);
    Some(
        source_time
            .duration_since(target_time)
            .is_ok_and(|difference| difference >= tolerance),
    )
}

fn later(time: SystemTime, by: Duration) -> SystemTime {
    time.checked_add(by).unwrap_or(time)
}

fn distance(one: SystemTime, other: SystemTime) -> Duration {
    one.duration_since(other)
        .unwrap_or_else(|error| error.duration())
}

/// How exactly local files keep a time that FTP tells.
const MARK_PRECISION: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn left(size: u64, origin: Origin) -> Option<Partial> {
        Some(Partial {
            size: Some(size),
            origin,
        })
    }

    fn facts(size: u64, time: u64) -> Facts {
        Facts {
            size: Some(size),
            modified: Some(at(time)),
            precision: SECOND,
            incomplete: false,
        }
    }

    fn decide(source: Facts, target: Option<Facts>, overwrite: Overwrite) -> Action {
        let policy = Policy {
            overwrite,
            resume: Resume::WhenLikely,
        };
        plan(source, target, None, policy)
    }

    #[test]
    fn complete_targets_are_skipped_or_replaced_as_the_policy_says() {
        use Overwrite::{Always, IfDifferent, IfDigestDiffers, IfNewer, IfSizeDiffers, Never};
        let whole = Action::Transfer(Transfer::Whole);
        let skip = Action::Skip;
        for (policy, target, expected) in [
            (
                IfDifferent,
                facts(100, 50),
                skip(SkipReason::SameSizeAndTime),
            ),
            (IfDifferent, facts(100, 49), whole),
            (IfDifferent, facts(99, 50), whole),
            (IfNewer, facts(99, 50), skip(SkipReason::TargetNotOlder)),
            (IfNewer, facts(99, 60), skip(SkipReason::TargetNotOlder)),
            (IfNewer, facts(100, 49), whole),
            (IfSizeDiffers, facts(100, 1), skip(SkipReason::SameSize)),
            (IfSizeDiffers, facts(101, 50), whole),
            (IfDigestDiffers, facts(101, 50), whole),
            (
                IfDigestDiffers,
                facts(100, 1),
                Action::CompareDigests(Transfer::Whole),
            ),
            (Never, facts(1, 1), skip(SkipReason::TargetExists)),
            (Always, facts(100, 50), whole),
        ] {
            assert_eq!(
                decide(facts(100, 50), Some(target), policy),
                expected,
                "{policy:?} {target:?}"
            );
        }
        for policy in [
            IfDifferent,
            IfNewer,
            IfSizeDiffers,
            IfDigestDiffers,
            Never,
            Always,
        ] {
            assert_eq!(decide(facts(100, 50), None, policy), whole, "{policy:?}");
        }
    }

    #[test]
    fn times_are_compared_as_coarsely_as_they_are_known() {
        let listed = Facts {
            precision: Duration::from_secs(60),
            ..facts(100, 120)
        };
        let skip = Action::Skip(SkipReason::SameSizeAndTime);
        assert_eq!(
            decide(facts(100, 179), Some(listed), Overwrite::IfDifferent),
            skip
        );
        assert_eq!(
            decide(facts(100, 180), Some(listed), Overwrite::IfDifferent),
            Action::Transfer(Transfer::Whole)
        );
    }

    #[test]
    fn an_unknown_time_never_passes_for_the_same() {
        let untimed = Facts {
            modified: None,
            ..facts(100, 0)
        };
        let whole = Action::Transfer(Transfer::Whole);
        assert_eq!(
            decide(facts(100, 50), Some(untimed), Overwrite::IfDifferent),
            whole
        );
        assert_eq!(
            decide(facts(100, 50), Some(untimed), Overwrite::IfNewer),
            Action::Skip(SkipReason::SameSize)
        );
    }

    #[test]
    fn an_incomplete_target_is_continued_even_where_it_is_newer() {
        let cut = Facts {
            incomplete: true,
            ..facts(40, 60)
        };
        let policy = Policy {
            overwrite: Overwrite::IfNewer,
            resume: Resume::WhenLikely,
        };
        assert_eq!(
            plan(facts(100, 50), Some(cut), left(40, Origin::Unknown), policy),
            Action::Transfer(Transfer::From {
                offset: 40,
                otherwise: None
            })
        );
    }

    #[test]
    fn a_partial_is_resumed_where_it_was_made_of_this_source() {
        use Origin::{Marked, Outdated, ThisTransfer, Unknown, Written};
        use Resume::{BySize, Never, WhenLikely};
        let from = |offset, otherwise| Transfer::From { offset, otherwise };
        let timely = Some(WeakEvidence::SizeAndTime);
        let same = Some(WeakEvidence::SameTransfer);
        let size = Some(WeakEvidence::Size);
        for (resume, bytes, origin, expected) in [
            (WhenLikely, 40, Marked(at(50)), from(40, timely)),
            (WhenLikely, 100, Marked(at(50)), from(100, timely)),
            (WhenLikely, 40, Marked(at(49)), from(40, None)),
            (WhenLikely, 40, Marked(at(60)), from(40, None)),
            (WhenLikely, 40, Written(at(60)), from(40, timely)),
            (WhenLikely, 40, Written(at(50)), from(40, timely)),
            (WhenLikely, 40, Written(at(10)), from(40, None)),
            (WhenLikely, 40, ThisTransfer, from(40, same)),
            (WhenLikely, 40, Unknown, from(40, None)),
            (BySize, 40, Unknown, from(40, size)),
            (BySize, 40, Written(at(10)), from(40, size)),
            (BySize, 40, Outdated, from(40, None)),
            (WhenLikely, 101, Marked(at(50)), Transfer::Whole),
            (WhenLikely, 0, Marked(at(50)), Transfer::Whole),
            (Never, 40, ThisTransfer, Transfer::Whole),
        ] {
            let policy = Policy {
                overwrite: Overwrite::IfDifferent,
                resume,
            };
            assert_eq!(
                plan(facts(100, 50), None, left(bytes, origin), policy),
                Action::Transfer(expected),
                "{resume:?} {bytes} {origin:?}"
            );
        }
    }

    #[test]
    fn a_time_that_is_known_to_the_day_marks_nothing() {
        let listed = Facts {
            precision: Duration::from_secs(24 * 60 * 60),
            ..facts(100, 50)
        };
        for origin in [Origin::Marked(at(50)), Origin::Written(at(60))] {
            assert_eq!(
                plan(listed, None, left(40, origin), Policy::default()),
                Action::Transfer(Transfer::From {
                    offset: 40,
                    otherwise: None
                }),
                "{origin:?}"
            );
        }
    }

    #[test]
    fn a_source_of_unknown_length_is_never_resumed() {
        let unknown = Facts {
            size: None,
            ..facts(0, 50)
        };
        assert_eq!(
            plan(
                unknown,
                None,
                left(40, Origin::ThisTransfer),
                Policy::default()
            ),
            Action::Transfer(Transfer::Whole)
        );
    }
}
