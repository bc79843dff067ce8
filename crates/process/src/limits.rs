//! What a command may use.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, setrlimit};
use serde::{Deserialize, Serialize};

/// What a command may use. Those of time and memory hold for the command with all that it has
/// started, as it is looked at from time to time; and at once for each of its processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Commands of one account at once; a further one is refused.
    pub commands: u32,
    /// From its start on.
    pub wall_clock: Duration,
    /// Of all its processors together.
    pub processor_time: Duration,
    /// In memory; of one process also what it has asked for.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub processes: u64,
    /// Of each process.
    pub open_files: u64,
    /// How often, at most, its home is counted while it runs; the quota holds no better.
    pub count_interval: Duration,
    /// Of each file.
    pub file_bytes: Option<u64>,
}

impl Limits {
    /// Limits this process and all that it will start. `others` processes of the same user
    /// count too, where the kernel cannot tell them apart.
    pub(super) fn apply(&self, others: u64) -> rustix::io::Result<()> {
        let seconds = self.processor_time.as_secs().max(1);
        let limits = [
            (Resource::Cpu, Some(seconds)),
            (Resource::As, Some(self.memory_bytes)),
            (Resource::Nproc, Some(others.saturating_add(self.processes))),
            (Resource::Nofile, Some(self.open_files)),
            (Resource::Fsize, self.file_bytes),
            (Resource::Core, Some(0)),
            // What the kernel keeps outside of the memory of a process.
            (Resource::Memlock, Some(0)),
            (Resource::Msgqueue, Some(0)),
            (Resource::Sigpending, Some(1024)),
            (Resource::Rtprio, Some(0)),
        ];
        for (resource, limit) in limits {
            let Some(limit) = limit else { continue };
            // The operator's own may be lower.
            let most = rustix::process::getrlimit(resource).maximum;
            let limit = Some(most.map_or(limit, |most| most.min(limit)));
            let both = Rlimit {
                current: limit,
                maximum: limit,
            };
            setrlimit(resource, both)?;
        }
        Ok(())
    }
}
