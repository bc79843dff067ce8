//! Starts supervisors for the server, from outside of its fence, and ends what a
//! supervisor that was killed has left behind.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use rustix::process::{Pid, WaitOptions};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::wire::{Channel, Ready, Received};
use super::{Errors, Stage, confine, tree, wire};

/// How soon it is looked again whether what was killed is gone.
const KILLED: Duration = Duration::from_millis(50);

/// Serves the server until it is gone, and leaves nothing behind.
pub(super) fn run() -> io::Result<()> {
    let server = super::parent_socket()?;
    let Some(folder) = wire::receive(&server, RecvFlags::empty())? else {
        return Ok(());
    };
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let ready = Ready {
        problem: problem(),
        namespaces: has_namespaces(&folder)?,
    };
    drop(folder);
    let ready = serde_json::to_vec(&ready)?;
    wire::send(&server, &ready, &[], SendFlags::empty())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut launcher = Launcher {
            ended: signal(SignalKind::child())?,
            supervisors: BTreeSet::new(),
        };
        launcher.serve(&Channel::new(server)?).await;
        Ok(())
    })
}

/// What stands against commands on this machine.
fn problem() -> Option<String> {
    if rustix::process::geteuid().is_root() {
        return Some(
            "the server runs as root, which no process could be confined as; name a user for it with --user".to_owned(),
        );
    }
    if let Err(error) = confine::check_landlock() {
        return Some(format!(
            "the kernel does not offer what it needs, Landlock 6 (Linux 6.12): {error}"
        ));
    }
    let known = tree::is_known();
    (!known).then(|| {
        "the kernel does not tell the children of a process (CONFIG_PROC_CHILDREN)".to_owned()
    })
}

/// Whether a process like this one can have namespaces of its own.
fn has_namespaces(folder: &Received) -> io::Result<bool> {
    let (ours, theirs) = wire::pair()?;
    let probe = Stage::Probe.start(theirs, Errors::Dropped)?;
    let descriptors: Vec<_> = folder
        .descriptors
        .iter()
        .map(rustix::fd::AsFd::as_fd)
        .collect();
    // It may have ended by then; its status says how.
    let _ = wire::send(&ours, &folder.bytes, &descriptors, SendFlags::empty());
    let status = rustix::process::waitpid(Some(probe), WaitOptions::empty())?;
    Ok(status.is_some_and(|(_, status)| status.exit_status() == Some(0)))
}

struct Launcher {
    ended: Signal,
    /// Those that live.
    supervisors: BTreeSet<i32>,
}

impl Launcher {
    async fn serve(&mut self, server: &Channel) {
        loop {
            tokio::select! {
                message = server.receive() => match message {
                    Ok(Some(message)) => self.start(message.descriptors),
                    Ok(None) | Err(_) => break,
                },
                _ = self.ended.recv() => { self.reap(); }
            }
        }
        // Each of them has lost the server too, and ends what it has started.
        while self.reap() {
            let _ = tokio::time::timeout(KILLED, self.ended.recv()).await;
        }
    }

    fn start(&mut self, descriptors: Vec<OwnedFd>) {
        for control in descriptors {
            match Stage::Supervise.start(control, Errors::Shown) {
                Ok(pid) => {
                    self.supervisors.insert(number(pid));
                }
                // The server sees that the other end is closed.
                Err(error) => eprintln!("wharf: a supervisor could not be started: {error}"),
            }
        }
    }

    /// Takes note of those that have ended, and ends what they have left. Whether there is
    /// anything yet.
    fn reap(&mut self) -> bool {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, _))) => {
                    self.supervisors.remove(&number(pid));
                }
                Ok(None) => break,
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
        let children = tree::children(rustix::process::getpid()).into_iter();
        let left: Vec<Pid> = children
            .filter(|child| !self.supervisors.contains(&number(*child)))
            .collect();
        tree::kill(&tree::with_descendants(left));
        true
    }
}

fn number(pid: Pid) -> i32 {
    pid.as_raw_nonzero().get()
}
