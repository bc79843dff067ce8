//! Which part of a file in the making is really there.
//!
//! Whoever resumes a cut upload goes on at its end. So what is kept of one that was written
//! out of order ends where the first hole begins.

use std::collections::BTreeMap;

/// Most pieces behind a hole that are remembered; more of them count as not written.
/// Clients have some 64 writes under way.
const MAX_ISLANDS: usize = 1024;

/// What is there from the start on without a hole.
#[derive(Debug)]
pub(super) struct Solid {
    end: u64,
    /// Starts and ends of what was written behind a hole. Invariant: apart from each other and
    /// from `end`, in order.
    islands: BTreeMap<u64, u64>,
    touched: bool,
}

impl Solid {
    /// Everything before `end` is there.
    pub(super) fn new(end: u64) -> Self {
        Self {
            end,
            islands: BTreeMap::new(),
            touched: false,
        }
    }

    /// Where the first hole begins.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Whether anything has changed, or may have.
    pub(super) fn touched(&self) -> bool {
        self.touched
    }

    /// Something is about to change.
    pub(super) fn touch(&mut self) {
        self.touched = true;
    }

    /// The bytes from `start` up to `end` were written.
    pub(super) fn wrote(&mut self, start: u64, end: u64) {
        if start <= self.end {
            self.end = self.end.max(end);
            self.take_in();
        } else if start < end {
            self.add(start, end);
        }
    }

    /// The file ends at `length`.
    pub(super) fn shortened(&mut self, length: u64) {
        self.end = self.end.min(length);
        self.islands.split_off(&length);
        if let Some(mut last) = self.islands.last_entry() {
            let end = last.get_mut();
            *end = (*end).min(length);
        }
    }

    fn add(&mut self, mut start: u64, mut end: u64) {
        while let Some((&first, &last)) = self.islands.range(..=end).next_back() {
            if last < start {
                break;
            }
            self.islands.remove(&first);
            (start, end) = (start.min(first), end.max(last));
        }
        self.islands.insert(start, end);
        if self.islands.len() > MAX_ISLANDS {
            self.islands.pop_last();
        }
    }

    fn take_in(&mut self) {
        while let Some(first) = self.islands.first_entry() {
            if *first.key() > self.end {
                break;
            }
            self.end = self.end.max(first.remove());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pieces_in_any_order_close_the_hole() {
        let mut solid = Solid::new(0);
        for (start, end, expected) in [
            (20, 30, 0),
            (0, 5, 5),
            (10, 20, 5),
            (5, 10, 30),
            (40, 50, 30),
            (30, 41, 50),
        ] {
            solid.wrote(start, end);
            assert_eq!(solid.end(), expected, "after {start}..{end}");
        }
    }

    #[test]
    fn islands_beyond_the_bound_count_as_holes() {
        let mut solid = Solid::new(0);
        // Each one is a byte, with a hole of a byte before it.
        for at in 1..=2000_u64 {
            solid.wrote(2 * at, 2 * at + 1);
        }
        assert_eq!(solid.islands.len(), 1024);
        for at in 0..=2000_u64 {
            solid.wrote(2 * at + 1, 2 * at + 2);
            solid.wrote(0, 1);
        }
        assert!(solid.end() >= 2048, "{}", solid.end());
    }

    proptest! {
        /// Against a plain list of which bytes are there.
        #[test]
        fn the_first_hole_is_where_the_first_missing_byte_is(
            start in 0_u64..10,
            steps in proptest::collection::vec((any::<bool>(), 0_u64..60, 0_u64..20), 0..40),
        ) {
            let mut solid = Solid::new(start);
            let mut there: Vec<bool> = (0..100).map(|at| at < start).collect();
            for (writes, at, length) in steps {
                if writes {
                    solid.wrote(at, at + length);
                    (at..at + length).for_each(|at| there[usize::try_from(at).expect("small")] = true);
                } else {
                    solid.shortened(at);
                    (at..100).for_each(|at| there[usize::try_from(at).expect("small")] = false);
                }
                let hole = there.iter().position(|there| !there).expect("the end");
                prop_assert_eq!(solid.end(), u64::try_from(hole).expect("small"));
            }
        }
    }
}
