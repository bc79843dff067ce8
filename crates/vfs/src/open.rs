//! How many files and directories are open at one time: in one home, and in all of a server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use wharf_model::Refusal;

/// A bound on the descriptors that open files and directories hold, whatever protocol opened
/// them. One within another counts for both.
#[derive(Debug)]
pub struct OpenLimit {
    most: usize,
    open: AtomicUsize,
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
        Arc::new(Self {
            most,
            open: AtomicUsize::new(0),
            outer: None,
        })
    }

    /// At most `most` of those of `self`.
    pub fn part(self: &Arc<Self>, most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            open: AtomicUsize::new(0),
            outer: Some(Arc::clone(self)),
        })
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Room for `descriptors` more.
    ///
    /// # Errors
    /// [`Refusal::TooManyOpen`].
    pub(crate) fn take(self: &Arc<Self>, descriptors: usize) -> Result<OpenSlot, Refusal> {
        if !self.add(descriptors) {
            return Err(Refusal::TooManyOpen);
        }
        Ok(OpenSlot {
            limit: Arc::clone(self),
            descriptors,
        })
    }

    // The counts guard no other memory, so that no order is needed.
    fn add(&self, descriptors: usize) -> bool {
        let room = |open: usize| Some(open + descriptors).filter(|sum| *sum <= self.most);
        let added = self
            .open
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, room);
        if added.is_err() {
            return false;
        }
        let whole = self
            .outer
            .as_ref()
            .is_none_or(|outer| outer.add(descriptors));
        if !whole {
            self.open.fetch_sub(descriptors, Ordering::Relaxed);
        }
        whole
    }

    fn remove(&self, descriptors: usize) {
        self.open.fetch_sub(descriptors, Ordering::Relaxed);
        if let Some(outer) = &self.outer {
            outer.remove(descriptors);
        }
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

    #[test]
    fn a_home_stops_at_its_limit_and_all_homes_together_at_that_of_the_server() {
        let server = OpenLimit::new(5);
        let (first, second) = (server.part(3), server.part(3));
        let three = first.take(3).expect("room");
        assert!(matches!(first.take(1), Err(Refusal::TooManyOpen)));
        let two = second.take(2).expect("room");
        assert!(matches!(second.take(1), Err(Refusal::TooManyOpen)));
        assert_eq!((first.open(), second.open(), server.open()), (3, 2, 5));
        drop(three);
        let one = second.take(1).expect("room again");
        drop((one, two));
        assert_eq!((first.open(), second.open(), server.open()), (0, 0, 0));
    }
}
