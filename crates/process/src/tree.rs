//! Who descends from whom, as the kernel tells it in /proc.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal};

/// What processes use together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Use {
    /// Processes and threads.
    pub(super) tasks: u64,
    /// In memory right now.
    pub(super) resident_bytes: u64,
    /// Spent so far, also by those of their children that are gone.
    pub(super) processor_time: Duration,
}

/// Whether the kernel tells the children of a process (CONFIG_PROC_CHILDREN).
pub(super) fn is_known() -> bool {
    read("/proc/thread-self/children").is_some()
}

/// All processes below this one.
pub(super) fn descendants() -> Vec<Pid> {
    with_descendants(children(rustix::process::getpid()))
}

/// `processes`, and all below them.
pub(super) fn with_descendants(processes: Vec<Pid>) -> Vec<Pid> {
    let mut found = processes;
    let mut seen: BTreeSet<i32> = found.iter().map(|pid| pid.as_raw_nonzero().get()).collect();
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        next += 1;
        // A number may be given again while we look.
        let new = children(parent).into_iter();
        found.extend(new.filter(|pid| seen.insert(pid.as_raw_nonzero().get())));
    }
    found
}

/// The children of `parent`; none, if it is gone.
pub(super) fn children(parent: Pid) -> Vec<Pid> {
    let mut found = Vec::new();
    for task in tasks(parent) {
        let text = read(task.join("children")).unwrap_or_default();
        let numbers = text.split_whitespace().filter_map(|word| word.parse().ok());
        found.extend(numbers.filter_map(Pid::from_raw));
    }
    found
}

/// What `processes` use, and what children of ours have used that are gone.
pub(super) fn usage(processes: &[Pid]) -> Use {
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    let mut total = Use {
        processor_time: stat("self").map_or(Duration::ZERO, |stat| stat.of_children),
        ..Use::default()
    };
    for process in processes {
        let name = process.as_raw_nonzero().to_string();
        let Some(stat) = stat(&name) else { continue };
        total.tasks += stat.threads;
        total.resident_bytes += stat.resident_pages * page;
        total.processor_time += stat.own + stat.of_children;
    }
    total
}

/// How many processes and threads there are of the user that this one runs as.
#[expect(clippy::disallowed_methods, reason = "the kernel's list of processes")]
pub(super) fn tasks_of_user() -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let me = rustix::process::getuid().as_raw();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let ours = entries.filter(|entry| {
        let named = entry.file_name();
        let is_process = named
            .to_str()
            .is_some_and(|name| name.parse::<i32>().is_ok());
        is_process && entry.metadata().is_ok_and(|metadata| metadata.uid() == me)
    });
    ours.filter_map(|entry| stat(entry.file_name().to_str()?))
        .map(|stat| stat.threads)
        .sum()
}

/// Sends `signal` to all of `processes`.
pub(super) fn signal(processes: &[Pid], signal: Signal) {
    for process in processes {
        // It may be gone.
        let _ = rustix::process::kill_process(*process, signal);
    }
}

/// Kills all of `processes`, and keeps those that are not dead yet from starting others.
pub(super) fn kill(processes: &[Pid]) {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    for process in processes {
        let _ = rustix::process::prlimit(Some(*process), Resource::Nproc, none);
    }
    signal(processes, Signal::KILL);
}

/// What `/proc/PID/stat` says (proc_pid_stat(5)).
struct Stat {
    own: Duration,
    of_children: Duration,
    threads: u64,
    resident_pages: u64,
}

fn stat(process: &str) -> Option<Stat> {
    parse_stat(&read(Path::new("/proc").join(process).join("stat"))?)
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The name may have anything in it, brackets too; the third field stands behind it.
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    let time = |ticks: u64| Duration::from_millis(ticks.saturating_mul(1000) / per_second);
    Some(Stat {
        own: time(field(14)? + field(15)?),
        of_children: time(field(16)? + field(17)?),
        threads: field(20)?,
        resident_pages: field(24)?,
    })
}

#[expect(clippy::disallowed_methods, reason = "the kernel's list of threads")]
fn tasks(process: Pid) -> Vec<PathBuf> {
    let folder = format!("/proc/{}/task", process.as_raw_nonzero());
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

#[expect(clippy::disallowed_methods, reason = "the kernel's own files")]
fn read(path: impl AsRef<Path>) -> Option<String> {
    // The name of a process need not be text.
    let bytes = std::fs::read(path).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_blanks_does_not_shift_the_fields() {
        let mut fields: Vec<String> = (3..=52).map(|number| number.to_string()).collect();
        fields[0] = "S".to_owned();
        let text = format!("17 (a) b (c)) {}", fields.join(" "));
        let stat = parse_stat(&text).expect("has all");
        assert_eq!((stat.threads, stat.resident_pages), (20, 24));
        let ticks = u128::from(rustix::param::clock_ticks_per_second());
        assert_eq!(stat.own.as_millis(), (14 + 15) * 1000 / ticks);
        assert_eq!(stat.of_children.as_millis(), (16 + 17) * 1000 / ticks);
        assert!(parse_stat("17 (a) S 1").is_none());
    }

    #[test]
    fn a_child_is_found_and_counted_until_it_is_gone() {
        let (read, write) = std::io::pipe().expect("a pipe");
        let mut child = std::process::Command::new("cat")
            .stdin(read)
            .spawn()
            .expect("starts");
        let pid = super::super::pid_of(&child);
        assert!(is_known());
        assert!(descendants().contains(&pid));
        assert_eq!(usage(&[pid]).tasks, 1);
        assert!(tasks_of_user() >= 2);
        drop(write);
        child.wait().expect("ends");
        assert!(!descendants().contains(&pid));
    }
}
