//! Whole sessions of the FTP server, over pipes and under a paused clock, with their files in memory.
//!
//! An input is a script of lines. A line is sent as it is; a `+` before it is taken off, and
//! the next line follows without waiting for replies. A line that starts with `!` is for the
//! client itself:
//!
//! ```text
//! !c   connect to the port of the last PASV or EPSV      !t3  let 64 seconds pass; t0 to t5
//! !w3  write 1000 bytes to it; w0 to w5                  !s   go on with the other session
//! !r   read what comes from it                           !g   shut the server down
//! !e   end it                                            !n   refuse the next connection of active mode
//! ```
//!
//! Two sessions of one account begin logged in, unless the script starts with `!-`.

mod account;
mod client;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::duplex;
use wharf_accounts::{LoginGuard, PlainLogin, ThrottleRules};
use wharf_model::{NetworkSet, Refusal, Usage, VirtualPath};
use wharf_net::{
    Connection, ConnectionLimits, ConnectionSlots, Drain, Endpoint, Peer, StreamService as _,
};
use wharf_server::door::{Door, DoorRules};
use wharf_server::ftp::{DataNetwork, FtpConfig, FtpService, PassivePorts, Timeouts};
use wharf_server::registry::Registry;
use wharf_vfs::storage::Storage as _;
use wharf_vfs::storage::memory::MemoryStorage;
use wharf_vfs::{Home, Ledger, NoJournal};

pub(crate) use account::QUOTA;
use account::{AUTHENTICATOR, OneHome, READ_ONLY};
use client::{Client, Pipes};

/// Longest script: what fits into the pipes without waiting.
const MAX_SCRIPT_BYTES: usize = 8 * 1024;

/// Bytes that a pipe holds before its writer waits.
const PIPE_BYTES: usize = 64 * 1024;

const TIMEOUTS: Timeouts = Timeouts {
    login: Duration::from_secs(30),
    idle: Duration::from_secs(600),
    data_connect: Duration::from_secs(20),
    stall: Duration::from_secs(60),
};

/// Longer than a transfer lasts that nobody serves.
const TRANSFER_PATIENCE: Duration = Duration::from_secs(100);

/// Whatever clients do: no panic; each command has one final reply, in a form
/// that the client's decoder reads; the ledger says what the storage holds, and
/// that is within the quota; a session ends with its stream, and leaves no task
/// behind.
pub(crate) fn session(script: &[u8]) {
    if script.len() > MAX_SCRIPT_BYTES {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(play(script));
}

async fn play(script: &[u8]) {
    let (script, log_in) = match script.strip_prefix(b"!-\n") {
        Some(script) => (script, false),
        None => (script, true),
    };
    let setting = Setting::new();
    let mut clients = [setting.connect(), setting.connect()];
    for client in &mut clients {
        client.listen().await;
        if log_in {
            for line in ["USER a\n", "PASS p\n", "TYPE I\n"] {
                client.send(line.as_bytes(), true).await;
            }
        }
    }
    for line in script.split_inclusive(|byte| *byte == b'\n') {
        let [current, other] = &mut clients;
        match line.trim_ascii_end() {
            b"!s" => std::mem::swap(current, other),
            b"!g" => setting.drain.begin(),
            [b'!', action @ ..] => current.act(action).await,
            _ => match line.strip_prefix(b"+") {
                Some(line) => current.send(line, false).await,
                None => current.send(line, true).await,
            },
        }
        setting.check(&mut clients).await;
    }
    setting.end(clients).await;
}

/// A server with one account.
struct Setting {
    door: Arc<Door>,
    storage: MemoryStorage,
    ledger: Arc<Ledger>,
    slots: ConnectionSlots,
    drain: Drain,
}

impl Setting {
    fn new() -> Self {
        let storage = MemoryStorage::new();
        let ledger = Ledger::new(Usage::ZERO, true, Box::new(NoJournal));
        let home = Home::new(Arc::new(storage.clone()), Arc::clone(&ledger));
        let rules = DoorRules {
            plain: PlainLogin::LoopbackOnly,
            sessions_per_account: 10,
        };
        let guard = LoginGuard::new(ThrottleRules {
            max_failures: 5,
            window: Duration::from_secs(600),
            ban: Duration::from_secs(900),
            longest_ban: Duration::from_secs(900),
            // A delay may outlast the time for the login, whose 421 is the only answer then.
            longest_delay: Duration::ZERO,
            exempt: NetworkSet::default(),
        });
        let homes = Arc::new(OneHome(home));
        Self {
            door: Arc::new(Door::new(
                AUTHENTICATOR.clone(),
                guard,
                homes,
                Registry::new(),
                rules,
            )),
            storage,
            ledger,
            slots: ConnectionSlots::new(ConnectionLimits {
                total: 2,
                per_address: 2,
                newcomers_per_network: 2,
            }),
            drain: Drain::new(),
        }
    }

    fn connect(&self) -> Client {
        let pipes = Arc::new(Pipes::default());
        let config = FtpConfig {
            greeting: "Ready.".to_owned(),
            passive_ports: PassivePorts(0..=0),
            masquerade: None,
            timeouts: TIMEOUTS,
            tls: None,
        };
        let network = Arc::clone(&pipes) as Arc<dyn DataNetwork>;
        let service = Arc::new(FtpService::over(network, config, Arc::clone(&self.door)));
        let (control, theirs) = duplex(PIPE_BYTES);
        let here = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        let peer = Peer::from(here(50_000));
        let connection = Connection {
            stream: theirs.into(),
            slot: self.slots.take(&peer).expect("two are free"),
            peer,
            local: Endpoint::Tcp(here(21)),
            proxy: None,
            drain: self.drain.clone(),
        };
        let session = tokio::spawn(async move {
            let end = service.serve(connection).await;
            end.expect("FTP tells its errors in replies");
        });
        Client::new(control, session, pipes)
    }

    /// What holds after every step.
    async fn check(&self, clients: &mut [Client; 2]) {
        for client in clients.iter_mut() {
            client.listen().await;
        }
        let held = self.storage.measure().await.expect("in memory");
        assert_eq!(self.ledger.usage(), held, "the ledger is wrong");
        if clients.iter().all(|client| !client.is_transferring) {
            let within = held.bytes <= QUOTA.bytes && held.files <= QUOTA.files;
            assert!(within, "{held:?} is over the quota");
        }
    }

    /// What holds at the end: everything is answered, then everything goes.
    async fn end(self, mut clients: [Client; 2]) {
        for client in &mut clients {
            client.data = None;
            client.wait_for_replies().await;
        }
        self.check(&mut clients).await;
        for client in clients {
            client.leave().await;
        }
        let report = self.drain.finish(TRANSFER_PATIENCE).await;
        assert_eq!(report.cut, 0, "a task was left behind");
        let held = self.storage.measure().await.expect("in memory");
        assert_eq!(self.ledger.usage(), held, "the ledger is wrong");
        let read_only = VirtualPath::parse(READ_ONLY).expect("a path");
        let there = self.storage.metadata(&read_only).await;
        assert!(
            matches!(there, Err(Refusal::NotFound)),
            "something was made in a directory in which nothing may be"
        );
    }
}
