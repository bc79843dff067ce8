//! Signals by their names in SSH (RFC 4254 §6.10), and those that are not for a stage.

use std::io;

use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};

/// What a client may send, and what it is told.
const SIGNALS: [(&str, Signal); 13] = [
    ("ABRT", Signal::ABORT),
    ("ALRM", Signal::ALARM),
    ("FPE", Signal::FPE),
    ("HUP", Signal::HUP),
    ("ILL", Signal::ILL),
    ("INT", Signal::INT),
    ("KILL", Signal::KILL),
    ("PIPE", Signal::PIPE),
    ("QUIT", Signal::QUIT),
    ("SEGV", Signal::SEGV),
    ("TERM", Signal::TERM),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
];

/// The signal called `name`, without SIG.
pub(super) fn by_name(name: &str) -> Option<Signal> {
    let found = SIGNALS.iter().find(|(known, _)| *known == name);
    found.map(|(_, signal)| *signal)
}

/// What signal `number` is called; not all have a name in SSH.
pub(super) fn name_of(number: i32) -> Option<&'static str> {
    let found = SIGNALS.iter().find(|(_, signal)| signal.as_raw() == number);
    found.map(|(name, _)| *name)
}

/// What a process may have been started with as ignored, such as HUP by nohup(1).
const INHERITED: [Signal; 19] = [
    Signal::ALARM,
    Signal::CHILD,
    Signal::CONT,
    Signal::HUP,
    Signal::INT,
    Signal::IO,
    Signal::PIPE,
    Signal::PROF,
    Signal::QUIT,
    Signal::TERM,
    Signal::TSTP,
    Signal::TTIN,
    Signal::TTOU,
    Signal::USR1,
    Signal::USR2,
    Signal::VTALARM,
    Signal::WINCH,
    Signal::XCPU,
    Signal::XFSZ,
];

/// Handles all signals from here on by doing nothing: the server says when it is over, and not a
/// Ctrl-C for all in its terminal. A command has them as they are by default, since handlers
/// end where it begins (execve(2)), and ignoring them would not.
pub(super) fn hold() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let _within = runtime.enter();
    for number in INHERITED {
        // The handler stays, also without anybody who listens.
        let _ = signal(SignalKind::from_raw(number.as_raw()))?;
    }
    Ok(())
}
