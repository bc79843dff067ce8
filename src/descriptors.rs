//! How many descriptors the process may have, and who gets which part of them.

use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use wharf_vfs::OpenLimit;

/// Descriptors of a connection that moves something: commands and data.
const PER_CONNECTION: usize = 2;

/// Where the system sets no limit.
const PLENTY: usize = 1 << 20;

/// The descriptors of the process: half of them for what is open in homes, the rest for
/// connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Descriptors {
    most: usize,
}

impl Descriptors {
    /// As many as the system allows: what is usual is a tenth of that or less, for the sake of
    /// programs that use select(2).
    pub(crate) fn raise() -> Self {
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "the limit of descriptors stays at {:?}", limit.current);
        }
        let most = getrlimit(Resource::Nofile).current;
        Self {
            most: most.map_or(PLENTY, |most| usize::try_from(most).unwrap_or(PLENTY)),
        }
    }

    /// The bound of all homes together, which share it.
    pub(crate) fn for_homes(self) -> Arc<OpenLimit> {
        OpenLimit::new(self.most / 2)
    }

    /// Says in the log that so many connections can run out of descriptors.
    pub(crate) fn warn_if_few(self, connections: usize) {
        if let Some(needed) = self.wanting(connections) {
            tracing::warn!(
                allowed = self.most,
                needed,
                "limits.connections = {connections} can take more descriptors than the system allows this process; raise its hard limit (LimitNOFILE= of the service, ulimit -Hn) or lower limits.connections"
            );
        }
    }

    /// How many there have to be for so many connections, if that is more.
    fn wanting(self, connections: usize) -> Option<usize> {
        let needed = connections.saturating_mul(2 * PER_CONNECTION);
        (needed > self.most).then_some(needed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_want_four_descriptors_each_and_are_told_when_there_are_fewer() {
        let few = Descriptors { most: 40_000 };
        assert_eq!(few.wanting(10_000), None);
        assert_eq!(few.wanting(10_001), Some(40_004));
    }

    #[test]
    fn the_limit_is_raised_as_far_as_the_system_allows() {
        let raised = Descriptors::raise();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        assert_eq!(limit.maximum.unwrap_or(PLENTY as u64), raised.most as u64);
    }
}
