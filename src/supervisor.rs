//! Talks to the service manager that started the server: sd_notify(3), a
//! datagram to the socket that `NOTIFY_SOCKET` names. Without one, nothing is said.
//!
//! The connection is made before privileges and files are given up. What
//! cannot be sent is logged and changes nothing: a server is not stopped
//! because nobody watches it.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The manager, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Supervisor {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

/// What the manager has said in the environment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment {
    /// `NOTIFY_SOCKET`.
    pub(crate) socket: Option<OsString>,
    /// `WATCHDOG_USEC`.
    pub(crate) watchdog_us: Option<String>,
    /// `WATCHDOG_PID`.
    pub(crate) watchdog_pid: Option<String>,
}

impl Environment {
    /// That of this process.
    pub(crate) fn of_process() -> Self {
        Self {
            socket: std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()),
            watchdog_us: std::env::var("WATCHDOG_USEC").ok(),
            watchdog_pid: std::env::var("WATCHDOG_PID").ok(),
        }
    }

    /// How often the manager wants to hear that the server lives, sd_watchdog_enabled(3).
    fn watchdog(&self) -> Option<Duration> {
        let meant = match &self.watchdog_pid {
            Some(pid) => pid.parse() == Ok(process::id()),
            None => true,
        };
        let period: u64 = self.watchdog_us.as_ref()?.parse().ok()?;
        (meant && period > 0).then(|| Duration::from_micros(period))
    }
}

impl Supervisor {
    /// Connects to the manager that `environment` names.
    ///
    /// # Errors
    /// Its socket cannot be reached: the manager would wait for a word that never comes.
    pub(crate) fn connect(environment: &Environment) -> io::Result<Self> {
        let Some(name) = &environment.socket else {
            return Ok(Self::default());
        };
        let socket = UnixDatagram::unbound()?;
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(name)?,
        };
        socket.connect_addr(&address)?;
        // A manager that does not read must not hold up the server.
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: Some(socket),
            watchdog: environment.watchdog(),
        })
    }

    /// The server accepts.
    pub(crate) fn ready(&self, status: &str) {
        self.say(&format!("READY=1\nSTATUS={status}"));
    }

    /// The configuration is read again; [`Supervisor::ready`] follows.
    pub(crate) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        // systemd tells by the time which reload is meant.
        let microseconds = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
    }

    /// The server stops, and may take so long.
    pub(crate) fn stopping(&self, patience: Duration) {
        // A little more, for what is saved at the end.
        let microseconds = (patience + Duration::from_secs(10)).as_micros();
        self.say(&format!(
            "STOPPING=1\nSTATUS=waiting for transfers\nEXTEND_TIMEOUT_USEC={microseconds}"
        ));
    }

    /// The server lives.
    pub(crate) fn alive(&self) {
        self.say("WATCHDOG=1");
    }

    /// How often [`Supervisor::alive`] is to be said: twice as often as it is expected.
    pub(crate) fn heartbeat(&self) -> Option<Duration> {
        self.watchdog.map(|period| period / 2)
    }

    fn say(&self, message: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(message.as_bytes())
        {
            tracing::warn!(%error, "the service manager cannot be told");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(manager: &UnixDatagram) -> String {
        let mut message = [0; 512];
        let length = manager.recv(&mut message).expect("a message");
        String::from_utf8(message[..length].to_vec()).expect("text")
    }

    #[test]
    fn a_manager_hears_at_a_path_or_an_abstract_name() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notify");
        let by_path = UnixDatagram::bind(&path).expect("binds");
        let name = format!("wharf-test-{}", process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let abstract_one = UnixDatagram::bind_addr(&address).expect("binds");
        for (socket, manager) in [
            (path.into_os_string(), by_path),
            (format!("@{name}").into(), abstract_one),
        ] {
            let environment = Environment {
                socket: Some(socket),
                ..Environment::default()
            };
            let supervisor = Supervisor::connect(&environment).expect("connects");
            supervisor.ready("serving");
            assert_eq!(heard(&manager), "READY=1\nSTATUS=serving");
            supervisor.reloading();
            assert!(heard(&manager).starts_with("RELOADING=1\nMONOTONIC_USEC="));
            supervisor.stopping(Duration::from_secs(30));
            assert!(heard(&manager).ends_with("EXTEND_TIMEOUT_USEC=40000000"));
        }
    }

    #[test]
    fn without_a_manager_nothing_is_said_and_one_that_is_gone_is_an_error() {
        let none = Supervisor::connect(&Environment::default()).expect("nothing to reach");
        none.ready("serving");
        let gone = Environment {
            socket: Some("/nonexistent/notify".into()),
            ..Environment::default()
        };
        assert!(Supervisor::connect(&gone).is_err());
    }

    #[test]
    fn a_watchdog_is_meant_for_the_process_it_names() {
        let environment = |pid: Option<u32>| Environment {
            socket: None,
            watchdog_us: Some("30000000".to_owned()),
            watchdog_pid: pid.map(|pid| pid.to_string()),
        };
        let half_a_minute = Some(Duration::from_secs(30));
        assert_eq!(environment(None).watchdog(), half_a_minute);
        assert_eq!(environment(Some(process::id())).watchdog(), half_a_minute);
        assert_eq!(environment(Some(1)).watchdog(), None);
    }
}
