//! How many files and directories are open at one time: in one home, and in all of a server.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wharf_model::Refusal;

/// A bound on the descriptors that open files and directories hold, whatever protocol opened
/// them.
///
/// One within another counts for both. It grows only as long as it then holds no more than the
/// other still has: so one alone gets half, two that grow side by side a third each, and one that
/// comes late half of what is left. Nothing is set aside for those who are not there. (This is the
/// dynamic threshold by which queues share the memory of a switch: Choudhury and Hahne, 1998.)
#[derive(Debug)]
pub struct OpenLimit {
    most: usize,
    // Locked from within outwards, and all of them until it is settled: what is left outside
    // must not be promised twice.
    open: Mutex<usize>,
    outer: Option<Arc<Self>>,
}

/// A part of an [`OpenLimit`]; free again when dropped.
#[derive(Debug)]
pub(crate) struct OpenSlot {
    limit: Arc<OpenLimit>,
    descriptors: usize,
}

impl OpenLimit {
    /// At most `most` descriptors.
    pub fn new(most: usize) -> Arc<Self> {
        Self::within(None, most)
    }

    /// At most `most` of those of `self`, and no more than it then has left.
    pub fn part(self: &Arc<Self>, most: usize) -> Arc<Self> {
        Self::within(Some(Arc::clone(self)), most)
    }

    fn within(outer: Option<Arc<Self>>, most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            open: Mutex::new(0),
            outer,
        })
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        *self.count()
    }

    /// Room for `descriptors` more.
    ///
    /// # Errors
    /// [`Refusal::TooManyOpen`].
    pub(crate) fn take(self: &Arc<Self>, descriptors: usize) -> Result<OpenSlot, Refusal> {
        if !self.add(descriptors, 0) {
            return Err(Refusal::TooManyOpen);
        }
        Ok(OpenSlot {
            limit: Arc::clone(self),
            descriptors,
        })
    }

    /// Whether there was room for `descriptors` more, with `left` still free behind them.
    fn add(&self, descriptors: usize, left: usize) -> bool {
        let mut open = self.count();
        let sum = *open + descriptors;
        let outside = |outer: &Arc<Self>| outer.add(descriptors, sum);
        let room = sum.saturating_add(left) <= self.most && self.outer.as_ref().is_none_or(outside);
        if room {
            *open = sum;
        }
        room
    }

    fn remove(&self, descriptors: usize) {
        let mut open = self.count();
        *open -= descriptors;
        if let Some(outer) = &self.outer {
            outer.remove(descriptors);
        }
    }

    fn count(&self) -> MutexGuard<'_, usize> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OpenSlot {
    fn drop(&mut self) {
        self.limit.remove(self.descriptors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes one after the other until there is no room.
    fn fill(limit: &Arc<OpenLimit>) -> Vec<OpenSlot> {
        std::iter::from_fn(|| limit.take(1).ok()).collect()
    }

    #[test]
    fn a_home_stops_at_its_own_limit() {
        let server = OpenLimit::new(100);
        let home = server.part(3);
        let three = home.take(3).expect("room");
        assert!(matches!(home.take(1), Err(Refusal::TooManyOpen)));
        assert_eq!((home.open(), server.open()), (3, 3));
        drop(three);
        let one = home.take(1).expect("room again");
        drop(one);
        assert_eq!((home.open(), server.open()), (0, 0));
    }

    #[test]
    fn a_greedy_home_gets_half_of_what_all_have() {
        let server = OpenLimit::new(12);
        let home = server.part(usize::MAX);
        assert_eq!(fill(&home).len(), 6);
        assert!(matches!(home.take(7), Err(Refusal::TooManyOpen)));
        assert_eq!((home.open(), server.open()), (0, 0));
    }

    #[test]
    fn two_greedy_homes_leave_room_for_a_third() {
        let server = OpenLimit::new(12);
        let [first, second, third] = [(); 3].map(|()| server.part(usize::MAX));
        let mut held = Vec::new();
        while let (Ok(one), Ok(other)) = (first.take(1), second.take(1)) {
            held.extend([one, other]);
        }
        assert_eq!((first.open(), second.open()), (4, 4));
        // Two are left then, and no home takes more than it leaves.
        let late = fill(&third);
        assert_eq!((late.len(), server.open()), (2, 10));
        drop(held);
        assert_eq!(fill(&third).len(), 4);
    }
}
