//! A service with one account, and clients of it over memory.

#![allow(dead_code, reason = "each test binary uses its part of it")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use wharf_accounts::{
    Account, AccountStore, Authenticator, ExecPolicy, LoginGuard, NewAccount, NewPassword,
    PasswordPolicy, PasswordPool, PlainLogin, SqliteStore, ThrottleRules,
};
use wharf_model::{NetworkSet, Secret, Usage};
use wharf_net::{
    Connection, ConnectionLimits, ConnectionSlots, Drain, Endpoint, EndpointOptions, Listener,
    Server, StreamService as _,
};
use wharf_server::door::{Door, DoorRules, HomeOpener, HomeUnavailable};
use wharf_server::ftp::{DataNetwork, FtpConfig, FtpService, FtpTls, PassivePorts, Timeouts};
use wharf_server::registry::Registry;
use wharf_vfs::storage::Storage;
use wharf_vfs::storage::local::{LocalOptions, LocalStorage};
use wharf_vfs::storage::memory::MemoryStorage;
use wharf_vfs::{Home, Ledger, NoJournal};

pub(crate) const TIMEOUTS: Timeouts = Timeouts {
    login: Duration::from_secs(30),
    idle: Duration::from_secs(600),
    data_connect: Duration::from_secs(20),
    stall: Duration::from_secs(60),
};

/// Bytes that a control connection holds before its writer waits.
const PIPE_BYTES: usize = 64 * 1024;

/// A service with the account `alice`, whose password is `secret`.
pub(crate) struct Setting {
    pub(crate) door: Arc<Door>,
    pub(crate) service: Arc<FtpService>,
    pub(crate) slots: ConnectionSlots,
    /// Of the sessions over pipes.
    pub(crate) drain: Drain,
    directory: tempfile::TempDir,
}

impl Setting {
    /// A file of alice's without a block on the disk.
    pub(crate) fn make_sparse(&self, name: &str, bytes: u64) {
        let home = self.directory.path().join("home");
        let home = Dir::open_ambient_dir(home, ambient_authority()).expect("a directory");
        let file = home.create(name).expect("made");
        file.set_len(bytes).expect("set");
    }
}

struct OneHome(Arc<Home>);

impl HomeOpener for OneHome {
    fn open<'a>(
        &'a self,
        _account: &'a Account,
    ) -> BoxFuture<'a, Result<Arc<Home>, HomeUnavailable>> {
        let home = Arc::clone(&self.0);
        Box::pin(async { Ok(home) })
    }
}

/// Without TLS.
pub(crate) async fn setting() -> Setting {
    setting_with(None).await
}

pub(crate) async fn setting_with(tls: Option<FtpTls>) -> Setting {
    setting_on(PassivePorts(0..=0), tls).await
}

pub(crate) async fn setting_on(passive_ports: PassivePorts, tls: Option<FtpTls>) -> Setting {
    setting_of(ExecPolicy::Builtin, passive_ports, tls).await
}

/// What alice may run is this.
pub(crate) async fn setting_of(
    exec: ExecPolicy,
    passive_ports: PassivePorts,
    tls: Option<FtpTls>,
) -> Setting {
    let directory = tempfile::tempdir().expect("a directory");
    let root = Dir::open_ambient_dir(directory.path(), ambient_authority()).expect("a directory");
    root.create_dir("home").expect("made");
    let root = root.open_dir("home").expect("opens");
    let storage = Arc::new(LocalStorage::new(root, LocalOptions::default()));
    let config = config(passive_ports, tls);
    let service = |door| FtpService::new(config, door);
    furnished(directory, exec, storage, service).await
}

/// With files in memory, and with data connections over `network`.
pub(crate) async fn setting_in_memory(network: Arc<dyn DataNetwork>) -> Setting {
    let directory = tempfile::tempdir().expect("a directory");
    let storage = Arc::new(MemoryStorage::new());
    let config = config(PassivePorts(0..=0), None);
    let service = |door| FtpService::over(network, config, door);
    furnished(directory, ExecPolicy::Builtin, storage, service).await
}

/// With files in `storage`.
pub(crate) async fn setting_in(storage: Arc<dyn Storage>) -> Setting {
    let directory = tempfile::tempdir().expect("a directory");
    let config = config(PassivePorts(0..=0), None);
    let service = |door| FtpService::new(config, door);
    furnished(directory, ExecPolicy::Builtin, storage, service).await
}

fn config(passive_ports: PassivePorts, tls: Option<FtpTls>) -> FtpConfig {
    FtpConfig {
        greeting: "Ready.".to_owned(),
        passive_ports,
        masquerade: None,
        timeouts: TIMEOUTS,
        tls,
    }
}

async fn furnished(
    directory: tempfile::TempDir,
    exec: ExecPolicy,
    storage: Arc<dyn Storage>,
    service: impl FnOnce(Arc<Door>) -> FtpService,
) -> Setting {
    let store = SqliteStore::open(&directory.path().join("wharf.db"))
        .await
        .expect("opens");
    let pool = PasswordPool::new(PasswordPolicy::insecure_for_tests());
    let password = NewPassword::parse(Secret::new(b"secret".to_vec())).expect("acceptable");
    let hash = pool.hash(password).await.expect("hashes");
    let mut alice = NewAccount::new(
        "alice".parse().expect("a name"),
        "/nowhere".into(),
        SystemTime::UNIX_EPOCH,
    );
    alice.exec = exec;
    store.insert(alice, hash).await.expect("inserts");

    let home = Home::new(storage, Ledger::new(Usage::ZERO, true, Box::new(NoJournal)));

    let authenticator = Authenticator::new(Arc::new(store), pool).expect("random");
    let rules = DoorRules {
        plain: PlainLogin::LoopbackOnly,
        sessions_per_account: 10,
    };
    let guard = LoginGuard::new(ThrottleRules {
        max_failures: 5,
        window: Duration::from_secs(600),
        ban: Duration::from_secs(900),
        longest_ban: Duration::from_secs(900),
        longest_delay: Duration::from_secs(16),
        exempt: NetworkSet::default(),
    });
    let door = Arc::new(Door::new(
        authenticator,
        guard,
        Arc::new(OneHome(home)),
        Registry::new(),
        rules,
    ));
    let limits = ConnectionLimits {
        total: 1000,
        per_address: 1000,
        newcomers_per_network: 1000,
    };
    Setting {
        service: Arc::new(service(Arc::clone(&door))),
        door,
        slots: ConnectionSlots::new(limits),
        drain: Drain::new(),
        directory,
    }
}

/// A client's end of a session.
pub(crate) struct Client {
    pub(crate) stream: BufReader<Box<dyn Pipe>>,
}

/// What a client's end may be: a pipe, or TLS on it.
pub(crate) trait Pipe: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Pipe for T {}

impl Setting {
    /// Starts a session for a client at `peer`.
    pub(crate) fn connect_from(&self, peer: &str) -> Client {
        self.connect_over(peer, PIPE_BYTES)
    }

    /// The same, over a pipe that holds so many bytes.
    pub(crate) fn connect_over(&self, peer: &str, pipe_bytes: usize) -> Client {
        let (ours, theirs) = tokio::io::duplex(pipe_bytes);
        let peer: SocketAddr = peer.parse().expect("an address");
        let connection = Connection {
            stream: theirs.into(),
            peer: peer.into(),
            local: Endpoint::Tcp("127.0.0.1:21".parse().expect("an address")),
            proxy: None,
            drain: self.drain.clone(),
            slot: self.slots.take(&peer.into()).expect("free"),
        };
        tokio::spawn(Arc::clone(&self.service).serve(connection));
        Client {
            stream: BufReader::new(Box::new(ours)),
        }
    }

    /// Serves over TCP; the address.
    pub(crate) fn serve(&self) -> SocketAddr {
        let endpoint = "tcp:127.0.0.1:0".parse().expect("an endpoint");
        let listener = Listener::bind(endpoint, EndpointOptions::default()).expect("a port");
        let address = listener.local_address().expect("of TCP");
        let server = Server::new(Arc::clone(&self.service)).with_newcomers();
        tokio::spawn(server.serve(listener));
        address
    }

    pub(crate) async fn log_in(&self) -> Client {
        self.log_in_over(PIPE_BYTES).await
    }

    /// The same, over a pipe that holds so many bytes.
    pub(crate) async fn log_in_over(&self, pipe_bytes: usize) -> Client {
        let mut client = self.connect_over("127.0.0.1:50000", pipe_bytes);
        client.expect("220").await;
        for (command, code) in [
            ("USER alice", "331"),
            ("PASS secret", "230"),
            ("TYPE I", "200"),
        ] {
            client.send(command).await;
            client.expect(code).await;
        }
        client
    }
}

impl Client {
    pub(crate) async fn send(&mut self, command: &str) {
        let line = format!("{command}\r\n");
        self.stream
            .write_all(line.as_bytes())
            .await
            .expect("writes");
        // TLS gathers what is written.
        self.stream.flush().await.expect("writes");
    }

    pub(crate) async fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).await.expect("reads");
        line
    }

    pub(crate) async fn expect(&mut self, code: &str) -> String {
        let line = self.line().await;
        assert!(line.starts_with(code), "{line:?} instead of {code}");
        line
    }

    pub(crate) async fn port(&mut self) -> u16 {
        self.send("EPSV").await;
        let reply = self.expect("229").await;
        reply
            .split('|')
            .nth(3)
            .and_then(|port| port.parse().ok())
            .expect("a port")
    }

    pub(crate) async fn data(&mut self) -> TcpStream {
        let port = self.port().await;
        TcpStream::connect(("127.0.0.1", port))
            .await
            .expect("connects")
    }
}
