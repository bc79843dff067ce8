//! Builds a server from a configuration, runs it, and ends it in order. The
//! only place that names concrete back ends.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::FlockOperation;
use tokio_util::task::AbortOnDropHandle;
use wharf_accounts::{
    AccountStore, Authenticator, LoginGuard, PasswordError, PasswordPolicy, PasswordPool,
    SqliteStore, StoreError,
};
use wharf_net::{
    AccessHook, AddressRules, BareEnd, BindError, BindProblem, BoundEndpoint, ConnectionLimits,
    ConnectionSlots, Drain, DrainReport, Endpoint, EndpointOptions, InheritError, Inherited,
    Listener, ProxyRules, StreamService, TlsServer, UnixName,
};
use wharf_process::{Places, Processes};
use wharf_server::door::{Door, DoorRules};
use wharf_server::ftp::{
    DataBinding, DataPrivacy, FtpConfig, FtpService, FtpTls, PassivePorts, Timeouts, TlsStart,
};
use wharf_server::registry::Registry;
use wharf_server::sftp::AttributePolicy;
use wharf_server::ssh::{self, SshConfig, SshService};
use wharf_vfs::storage::local::LocalOptions;

use crate::admin;
use crate::admin::service::{Administration, MOST_ADMINISTRATORS};
use crate::config::{self, Address, Config, HomeRoot, ListenerTls, Networks};
use crate::descriptors::Descriptors;
use crate::gate::{Gate, GateRules};
use crate::homes::{Homes, OpenLimits};
use crate::host_keys::{self, HostKeysError};
use crate::privileges::User;
use crate::sandbox::Reach;
use crate::tls::{AccountsByCertificate, Tls, TlsError};

/// The file in the data directory that holds the accounts.
const DATABASE: &str = "wharf.db";
/// What SQLite writes before it writes there.
const JOURNAL: &str = "wharf.db-wal";
/// The folder in the data directory that holds homes.
const HOMES: &str = "homes";
/// The file in the data directory that a running server holds locked.
const LOCK: &str = "lock";
/// The names of protocols: in the log, and as a service manager names the sockets that it passes on.
const FTP: &str = "ftp";
const FTPS: &str = "ftps";
const SSH: &str = "ssh";
/// The folder in the data directory that holds certificates made here.
pub(crate) const TLS: &str = "tls";
/// The folder in the data directory that holds host keys made here.
pub(crate) const HOST_KEYS: &str = "ssh";

/// A data directory, made if it was missing.
#[derive(Debug, Clone)]
pub(crate) struct DataDirectory(PathBuf);

impl DataDirectory {
    /// Makes the directory for its owner only, and finds its absolute path.
    #[expect(
        clippy::disallowed_methods,
        reason = "the data directory is the operator's, from the configuration"
    )]
    pub(crate) fn open(path: &Path) -> Result<Self, StartError> {
        let failed = |source| StartError::DataDirectory {
            path: path.to_path_buf(),
            source,
        };
        make_private_directory(path).map_err(failed)?;
        let absolute = std::fs::canonicalize(path).map_err(failed)?;
        make_private_directory(&absolute.join(HOMES)).map_err(failed)?;
        Ok(Self(absolute))
    }

    /// Makes the directory for a server that will run as `user`, if it is
    /// missing and its parent is there; one that exists must be theirs.
    #[expect(
        clippy::disallowed_methods,
        reason = "the data directory is the operator's, from the configuration"
    )]
    pub(crate) fn make_for(user: &User, path: &Path) -> Result<(), StartError> {
        use std::os::unix::fs::MetadataExt as _;
        user.make_directory(path)
            .map_err(|source| StartError::DataDirectory {
                path: path.to_path_buf(),
                source,
            })?;
        let ours = ["", DATABASE, HOMES, LOCK, TLS, HOST_KEYS].map(|name| path.join(name));
        let others = ours.into_iter().find(|part| {
            std::fs::symlink_metadata(part).is_ok_and(|metadata| !user.owns(metadata.uid()))
        });
        match others {
            None => Ok(()),
            Some(part) => Err(StartError::NotTheirs {
                part,
                user: user.name().to_owned(),
                data_dir: path.to_path_buf(),
            }),
        }
    }

    /// What tells whose data is or will be in the directory `path`, best first.
    pub(crate) fn tokens_of_ownership(path: &Path) -> [PathBuf; 2] {
        [path.join(DATABASE), path.to_path_buf()]
    }

    /// Where the homes of accounts are that have no other.
    pub(crate) fn homes(&self) -> PathBuf {
        self.0.join(HOMES)
    }

    /// Opens the accounts.
    pub(crate) async fn accounts(&self) -> Result<SqliteStore, StartError> {
        let path = self.0.join(DATABASE);
        // SQLite's own mode is 0644, and it gives its journals the mode of the database.
        make_private_file(&path).map_err(|source| StartError::DataDirectory {
            path: path.clone(),
            source,
        })?;
        Ok(SqliteStore::open(&path).await?)
    }

    /// Says in the log if the accounts were made for everybody to read, as by an earlier version.
    fn warn_if_open(&self) {
        for name in [DATABASE, JOURNAL] {
            let path = self.0.join(name);
            if is_open_to_all(&path) {
                let path = path.display();
                tracing::warn!(%path, "everybody on this machine can read the accounts and their password hashes; take that away: chmod o= FILE");
            }
        }
    }

    /// The socket for `wharf status` and `wharf sessions`, for the directory's
    /// owner and root alone; none if the directory's path is too long for one,
    /// and there is no /proc to shorten it.
    fn administration(&self) -> Result<Option<BoundEndpoint>, StartError> {
        let way = admin::Way::to(&self.0).map_err(|source| StartError::DataDirectory {
            path: self.0.clone(),
            source,
        })?;
        let endpoint = Endpoint::Unix(UnixName::Path(way.path().to_path_buf()));
        let options = EndpointOptions {
            mode: Some(0o600),
            ..EndpointOptions::default()
        };
        match BoundEndpoint::bind(endpoint, options) {
            Ok(bound) => Ok(Some(bound)),
            Err(error)
                if way.is_detour() && matches!(error.problem, BindProblem::NoSuchDirectory(_)) =>
            {
                tracing::warn!(%error, "wharf status and wharf sessions will not reach this server");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Holds the directory for one server, until the file is dropped.
    #[expect(
        clippy::disallowed_methods,
        reason = "the data directory is the operator's, from the configuration"
    )]
    fn lock(&self) -> Result<File, StartError> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let path = self.0.join(LOCK);
        let failed = |source| StartError::DataDirectory {
            path: path.clone(),
            source,
        };
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StartError::InUse(self.0.clone())),
            Err(error) => Err(failed(error.into())),
        }
    }
}

/// Makes a directory that only its owner may enter; one that exists stays as it is.
#[expect(
    clippy::disallowed_methods,
    reason = "paths of the operator, from the configuration"
)]
pub(crate) fn make_private_directory(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    if std::fs::metadata(path).is_ok_and(|metadata| metadata.is_dir()) {
        return Ok(());
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

/// Makes an empty file that only its owner may read; one that exists stays as
/// it is, and is not even opened: closing it would lose SQLite's locks on it.
#[expect(
    clippy::disallowed_methods,
    reason = "paths of the operator, from the configuration"
)]
fn make_private_file(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let made = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map(drop),
    }
}

/// Whether users beyond owner and group may read or write the file, as far as
/// the mode of its folder lets them get there.
#[expect(
    clippy::disallowed_methods,
    reason = "paths of the operator, from the configuration"
)]
pub(crate) fn is_open_to_all(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    let allows = |path: &Path, bits| {
        std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & bits != 0)
    };
    allows(path, 0o006) && path.parent().is_none_or(|folder| allows(folder, 0o001))
}

/// A server that accepts.
pub(crate) struct Server {
    drain: Drain,
    // Ends after the sessions: an administrator sees what is waited for.
    administered: Drain,
    places: Vec<Place>,
    homes: Arc<Homes>,
    ftp: Arc<FtpService>,
    ftps: Arc<FtpService>,
    ssh: Arc<SshService>,
    host_keys: Vec<ssh::HostKey>,
    // Made at start, or by the reload that first needs it; never held across an await.
    tls: Mutex<Option<Arc<Tls>>>,
    data: DataDirectory,
    slots: ConnectionSlots,
    authenticator: Authenticator,
    guard: LoginGuard,
    gates: Gates,
    guarding: AbortOnDropHandle<()>,
    registry: Registry,
    processes: Arc<Processes>,
    store: SqliteStore,
    _lock: File,
}

/// Where a server listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// What is spoken there.
    pub(crate) protocol: &'static str,
    /// With the real port.
    pub(crate) address: SocketAddr,
}

/// The ports of a server. Made first: they may need root, and a port in use is
/// the likeliest mistake.
pub(crate) struct Ports {
    ftp: Vec<BoundEndpoint>,
    ftps: Vec<BoundEndpoint>,
    ssh: Vec<BoundEndpoint>,
}

/// Sockets that the service manager has bound, by the name of their protocol.
#[derive(Default)]
struct Activated(BTreeMap<String, Vec<BoundEndpoint>>);

impl Activated {
    /// Those that were passed to this process.
    fn take() -> Result<Self, StartError> {
        let mut named: BTreeMap<String, Vec<BoundEndpoint>> = BTreeMap::new();
        for Inherited { name, endpoint } in wharf_net::inherited(EndpointOptions::default())? {
            if ![FTP, FTPS, SSH].contains(&name.as_str()) {
                return Err(StartError::UnknownSocket(name));
            }
            if !matches!(endpoint.endpoint(), Endpoint::Tcp(_)) {
                return Err(StartError::NotTcp(endpoint.endpoint().to_string()));
            }
            named.entry(name).or_default().push(endpoint);
        }
        Ok(Self(named))
    }

    /// Those of a protocol, or else what is configured, bound here.
    fn or_bind(
        &mut self,
        protocol: &str,
        configured: &[Address],
    ) -> Result<Vec<BoundEndpoint>, BindError> {
        self.0.remove(protocol).map_or_else(|| bind(configured), Ok)
    }
}

impl Ports {
    /// Takes what the service manager has bound, and binds the rest. Needs no runtime.
    pub(crate) fn bind(config: &Config) -> Result<Self, StartError> {
        let mut activated = Activated::take()?;
        Ok(Self {
            ftp: activated.or_bind(FTP, &config.ftp.listen)?,
            ftps: activated.or_bind(FTPS, &config.ftps.listen)?,
            ssh: activated.or_bind(SSH, &config.ssh.listen)?,
        })
    }
}

/// What a server stands on: its ports, its data, and what it may use of the machine.
pub(crate) struct Foundation {
    ports: Ports,
    data: DataDirectory,
    lock: File,
    administration: Option<BoundEndpoint>,
    passwords: PasswordPool,
    processes: Processes,
    descriptors: Descriptors,
}

impl Foundation {
    /// Opens the data directory for this process alone, and starts what runs commands, if
    /// that is to be. `file` is the configuration's. Needs no runtime.
    pub(crate) fn lay(
        config: &Config,
        file: Option<&Path>,
        ports: Ports,
    ) -> Result<Self, StartError> {
        // Before anything is made.
        if needs_tls(config) {
            Tls::check(&config.tls)?;
        }
        let data = DataDirectory::open(&config.data_dir)?;
        let lock = data.lock()?;
        let limits = config.processes.limits();
        let processes = if config.processes.enabled {
            let places = Places {
                data: data.0.clone(),
                secrets: secrets(config, file),
            };
            let launcher = wharf_process::launcher(Path::new("/proc/self/exe"));
            Processes::prepare(launcher, limits, places)
        } else {
            Processes::off(limits)
        };
        Ok(Self {
            ports,
            administration: data.administration()?,
            data,
            lock,
            passwords: PasswordPool::new(PasswordPolicy::recommended()),
            processes,
            descriptors: Descriptors::raise(),
        })
    }

    /// Where the data is.
    pub(crate) fn data_dir(&self) -> &Path {
        &self.data.0
    }
}

impl Server {
    /// Opens everything and starts to accept; with an error nothing is left running.
    pub(crate) async fn start(config: &Config) -> Result<Self, StartError> {
        let foundation = Foundation::lay(config, None, Ports::bind(config)?)?;
        Self::start_on(foundation, config).await
    }

    /// Starts to accept on what was opened before; with an error nothing is left running.
    pub(crate) async fn start_on(
        foundation: Foundation,
        config: &Config,
    ) -> Result<Self, StartError> {
        let Foundation {
            ports,
            data,
            lock,
            administration,
            passwords,
            processes,
            descriptors,
        } = foundation;
        descriptors.warn_if_few(config.limits.connections);
        let tls = if needs_tls(config) {
            Some(Tls::start(&config.tls, &data.0)?)
        } else {
            None
        };
        // Who serves no SSH needs no keys for it, of which one takes a while to make.
        let host_keys = if ports.ssh.is_empty() {
            Vec::new()
        } else {
            host_keys::open(&data.0.join(HOST_KEYS))?
        };
        let store = data.accounts().await?;
        let accounts: Arc<dyn AccountStore> = Arc::new(store.clone());
        let authenticator = Authenticator::new(Arc::clone(&accounts), passwords)?;
        let guard = LoginGuard::new(config.login.throttle());
        // Bans hold from the first connection on.
        guard.sync(&store).await?;
        let gates = Gates::new(&guard, config);
        let options = LocalOptions {
            durable: config.uploads.durable,
        };
        let open = OpenLimits {
            together: descriptors.for_homes(),
            per_home: config.limits.open_files_per_home,
        };
        let homes = Homes::new(accounts, options, open);
        let registry = Registry::new();
        let door = door(config, &authenticator, &guard, &homes, &registry);
        let server = tls.as_ref().map(|tls| tls.server());
        let service = |start| {
            let config = ftp_config(config, server.clone(), start);
            Arc::new(FtpService::new(config, Arc::clone(&door)))
        };
        let ftp = service(TlsStart::Command);
        let ftps = service(TlsStart::Connection);
        let ssh = ssh_config(config, host_keys.clone());
        let processes = Arc::new(processes);
        let runner = Arc::<Processes>::clone(&processes);
        let ssh = Arc::new(SshService::new(&ssh, Arc::clone(&door), runner));
        let administration = administration.map(BoundEndpoint::listener).transpose()?;
        let reception = Reception::open(ports, (&ftp, &ftps, &ssh), &gates, config)?;
        let administered = Drain::new();
        if let Some(listener) = administration {
            administered.track(reception.administer(listener, &registry, &administered));
        }
        let Reception {
            slots,
            drain,
            places,
        } = reception;
        if let Some(tls) = &tls {
            tokio::spawn(Arc::clone(tls).watch());
        }
        tokio::spawn(Arc::clone(&homes).keep_settled());
        tokio::spawn(Arc::clone(&homes).recover());
        data.warn_if_open();
        let guarding = tokio::spawn(guard.clone().keep_synced(Arc::new(store.clone())));
        Ok(Self {
            drain,
            administered,
            places,
            homes,
            ftp,
            ftps,
            ssh,
            host_keys,
            tls: Mutex::new(tls),
            data,
            slots,
            authenticator,
            guard,
            gates,
            guarding: AbortOnDropHandle::new(guarding),
            registry,
            processes,
            store,
            _lock: lock,
        })
    }

    /// Where it listens.
    pub(crate) fn places(&self) -> &[Place] {
        &self.places
    }

    /// Says in the log which homes lie outside of `reach`: their owners cannot log in.
    pub(crate) async fn warn_of_homes_outside(&self, reach: &Reach) -> Result<(), StartError> {
        let mut outside: BTreeMap<PathBuf, usize> = BTreeMap::new();
        for account in self.store.list().await? {
            if !reach.covers(&account.home) {
                let folder = HomeRoot::for_home(&account.home);
                *outside.entry(folder.to_path_buf()).or_default() += 1;
            }
        }
        for (folder, accounts) in outside {
            tracing::warn!(
                accounts,
                "homes are out of reach; add this to the configuration and start again: home_roots = [{folder:?}]"
            );
        }
        Ok(())
    }

    /// Uses what can be changed while running, for sessions that start from now on.
    pub(crate) fn reload(&self, config: &Config) {
        self.guard.set_rules(config.login.throttle());
        self.gates.reload(config);
        let door = door(
            config,
            &self.authenticator,
            &self.guard,
            &self.homes,
            &self.registry,
        );
        let server = self.reload_tls(config);
        let ftp = ftp_config(config, server.clone(), TlsStart::Command);
        let ftps = ftp_config(config, server, TlsStart::Connection);
        self.ftp.reload(ftp, Arc::clone(&door));
        self.ftps.reload(ftps, Arc::clone(&door));
        let ssh = ssh_config(config, self.host_keys.clone());
        self.ssh.reload(&ssh, door);
        self.slots.set_limits(connection_limits(config));
        self.processes.reload(config.processes.limits());
    }

    /// What runs the commands of accounts.
    pub(crate) fn processes(&self) -> &Processes {
        &self.processes
    }

    /// Reads the certificates again. What cannot be used leaves what was in use.
    fn reload_tls(&self, config: &Config) -> Option<Arc<TlsServer>> {
        let mut tls = self.tls.lock().unwrap_or_else(PoisonError::into_inner);
        let result = match &*tls {
            Some(tls) => tls.reload(&config.tls, &self.data.0),
            None if needs_tls(config) => Tls::start(&config.tls, &self.data.0).map(|started| {
                tokio::spawn(Arc::clone(&started).watch());
                *tls = Some(started);
            }),
            None => Ok(()),
        };
        if let Err(error) = result {
            let error = with_source(&error);
            tracing::error!(%error, "TLS stays as it was");
        }
        tls.as_ref().map(|tls| tls.server())
    }

    /// Stops accepting, waits for transfers, cuts what is left, and saves.
    pub(crate) async fn stop(self, config: &Config) -> DrainReport {
        let report = self.drain.finish(config.timeouts.drain.0).await;
        self.homes.settle().await;
        self.administered.finish(Duration::ZERO).await;
        drop(self.guarding);
        if let Err(error) = self.guard.sync(&self.store).await {
            tracing::error!(%error, "the last bans could not be saved");
        }
        self.store.close().await;
        report
    }

    /// Cuts everything at once, if [`Server::stop`] is waiting.
    pub(crate) fn drain(&self) -> Drain {
        self.drain.clone()
    }
}

/// Files of the operator that hold secrets, or lead to some.
fn secrets(config: &Config, file: Option<&Path>) -> Vec<PathBuf> {
    let key = Some(&config.tls.private_key).filter(|path| !path.is_empty());
    let key = key.map(Path::new);
    key.into_iter().chain(file).map(Path::to_path_buf).collect()
}

/// What all listeners count and end by, and where they are.
struct Reception {
    slots: ConnectionSlots,
    drain: Drain,
    places: Vec<Place>,
}

impl Reception {
    /// Starts to accept at every port.
    fn open(
        ports: Ports,
        (ftp, ftps, ssh): (&Arc<FtpService>, &Arc<FtpService>, &Arc<SshService>),
        gates: &Gates,
        config: &Config,
    ) -> Result<Self, StartError> {
        let [for_ftp, for_ftps, for_ssh] = [ports.ftp, ports.ftps, ports.ssh].map(listen);
        let (for_ftp, for_ftps, for_ssh) = (for_ftp?, for_ftps?, for_ssh?);
        let mut reception = Self {
            slots: ConnectionSlots::new(connection_limits(config)),
            drain: Drain::new(),
            places: Vec::new(),
        };
        reception.accept(FTP, for_ftp, ftp, &gates.ftp, &config.ftp.proxies);
        reception.accept(FTPS, for_ftps, ftps, &gates.ftps, &config.ftps.proxies);
        reception.accept(SSH, for_ssh, ssh, &gates.ssh, &config.ssh.proxies);
        Ok(reception)
    }

    /// Answers whoever asks how the server does, to the end of `drain`.
    fn administer(
        &self,
        listener: Listener,
        registry: &Registry,
        drain: &Drain,
    ) -> impl Future<Output = ()> + Send + use<> {
        let Self {
            slots,
            drain: served,
            places,
        } = self;
        let administration =
            Administration::new(registry.clone(), slots.clone(), places, served.clone());
        let everyone = ConnectionLimits::everyone(MOST_ADMINISTRATORS);
        wharf_net::Server::new(Arc::new(administration))
            .with_slots(ConnectionSlots::new(everyone))
            .with_drain(drain.clone())
            .serve(listener)
    }

    /// Starts to accept for `service`.
    fn accept<S: StreamService>(
        &mut self,
        protocol: &'static str,
        listeners: Vec<Listener>,
        service: &Arc<S>,
        gate: &Arc<Gate>,
        proxies: &Networks,
    ) {
        let mut server = wharf_net::Server::new(Arc::clone(service))
            .with_access(Arc::clone(gate) as Arc<dyn AccessHook>)
            .with_slots(self.slots.clone())
            .with_newcomers()
            .with_drain(self.drain.clone());
        if !proxies.0.networks().is_empty() {
            server = server.behind_proxies(ProxyRules::new(proxies.0.networks().to_vec()));
        }
        for listener in listeners {
            let Some(address) = listener.local_address() else {
                continue;
            };
            tracing::info!(protocol, %address, "listening");
            self.places.push(Place { protocol, address });
            self.drain.track(server.clone().serve(listener));
        }
    }
}

fn door(
    config: &Config,
    authenticator: &Authenticator,
    guard: &LoginGuard,
    homes: &Arc<Homes>,
    registry: &Registry,
) -> Arc<Door> {
    let rules = DoorRules {
        plain: config.plain_login(),
        sessions_per_account: config.limits.per_user,
    };
    let homes: Arc<Homes> = Arc::clone(homes);
    Arc::new(Door::new(
        authenticator.clone(),
        guard.clone(),
        homes,
        registry.clone(),
        rules,
    ))
}

fn bind(addresses: &[Address]) -> Result<Vec<BoundEndpoint>, BindError> {
    addresses
        .iter()
        .map(|address| BoundEndpoint::bind(Endpoint::Tcp(address.0), EndpointOptions::default()))
        .collect()
}

fn listen(bound: Vec<BoundEndpoint>) -> Result<Vec<Listener>, BindError> {
    bound.into_iter().map(BoundEndpoint::listener).collect()
}

fn needs_tls(config: &Config) -> bool {
    config.ftp_tls() != ListenerTls::Off || !config.ftps.listen.is_empty()
}

fn ftp_tls(config: &Config, server: Arc<TlsServer>, start: TlsStart) -> Option<FtpTls> {
    let data = match start {
        TlsStart::Command if config.ftp_tls() == ListenerTls::Off => return None,
        TlsStart::Command => config.ftp_data_tls(),
        TlsStart::Connection => config.ftps_data_tls(),
    };
    let accounts = AccountsByCertificate(config.tls.client_accounts.clone());
    Some(FtpTls {
        server,
        start,
        data: match data {
            ListenerTls::Required => DataPrivacy::Required,
            ListenerTls::Optional => DataPrivacy::Optional,
            ListenerTls::Off => DataPrivacy::Off,
        },
        plain_on_loopback: config.tls.plain_on_loopback,
        may_clear_control: config.tls.clear_command_channel,
        binding: match config.ftp.data_binding {
            config::DataBinding::Required => DataBinding::Required,
            config::DataBinding::Prefer => DataBinding::Prefer,
            config::DataBinding::Off => DataBinding::Off,
        },
        upload_end: if config.tls.strict_close {
            BareEnd::Refused
        } else {
            BareEnd::Tolerated
        },
        accounts: Arc::new(accounts),
    })
}

fn ftp_config(config: &Config, tls: Option<Arc<TlsServer>>, start: TlsStart) -> FtpConfig {
    FtpConfig {
        greeting: config.ftp.greeting.clone(),
        passive_ports: PassivePorts(config.ftp.passive_ports.0.clone()),
        masquerade: config.ftp.masquerade_address.0,
        timeouts: Timeouts {
            login: config.timeouts.login.0,
            idle: config.timeouts.idle.0,
            data_connect: config.timeouts.data_connect.0,
            stall: config.timeouts.stall.0,
        },
        tls: tls.and_then(|server| ftp_tls(config, server, start)),
    }
}

fn ssh_config(config: &Config, host_keys: Vec<ssh::HostKey>) -> SshConfig {
    SshConfig {
        host_keys,
        timeouts: ssh::Timeouts {
            login: config.timeouts.login.0,
            idle: config.timeouts.idle.0,
            stall: config.timeouts.stall.0,
        },
        attributes: match config.ssh.attributes {
            config::Attributes::Refuse => AttributePolicy::Refuse,
            config::Attributes::Ignore => AttributePolicy::Ignore,
        },
    }
}

fn connection_limits(config: &Config) -> ConnectionLimits {
    ConnectionLimits {
        total: config.limits.connections,
        per_address: config.limits.per_address,
        newcomers_per_network: config.limits.before_login_per_address,
    }
}

/// The access hooks, one for each kind of listener.
struct Gates {
    ftp: Arc<Gate>,
    ftps: Arc<Gate>,
    ssh: Arc<Gate>,
}

impl Gates {
    fn new(guard: &LoginGuard, config: &Config) -> Self {
        let gate = |rules| Arc::new(Gate::new(guard.clone(), rules));
        Self {
            ftp: gate(gate_rules(config, &config.ftp.allow, &config.ftp.deny)),
            ftps: gate(gate_rules(config, &config.ftps.allow, &config.ftps.deny)),
            ssh: gate(gate_rules(config, &config.ssh.allow, &config.ssh.deny)),
        }
    }

    fn reload(&self, config: &Config) {
        self.ftp
            .reload(gate_rules(config, &config.ftp.allow, &config.ftp.deny));
        self.ftps
            .reload(gate_rules(config, &config.ftps.allow, &config.ftps.deny));
        self.ssh
            .reload(gate_rules(config, &config.ssh.allow, &config.ssh.deny));
    }
}

fn gate_rules(config: &Config, allow: &Networks, deny: &Networks) -> GateRules {
    let rules = |allow: &Networks, deny: &Networks| AddressRules {
        allow: allow.0.networks().to_vec(),
        deny: deny.0.networks().to_vec(),
    };
    GateRules {
        server: rules(&config.access.allow, &config.access.deny),
        listener: rules(allow, deny),
    }
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("cannot use {}: {source}", path.display())]
    DataDirectory { path: PathBuf, source: io::Error },
    #[error(
        "{} does not belong to {user}; give it to them with: chown -R {user}: {}",
        part.display(), data_dir.display()
    )]
    NotTheirs {
        part: PathBuf,
        user: String,
        data_dir: PathBuf,
    },
    #[error("another wharf serve is using {}; stop it or choose another --data-dir", .0.display())]
    InUse(PathBuf),
    #[error("{}", with_source(.0))]
    Tls(#[from] TlsError),
    #[error("{}", with_source(.0))]
    HostKeys(#[from] HostKeysError),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Activation(#[from] InheritError),
    #[error(
        "the service manager passed a socket named {0:?}; say what is spoken on it: FileDescriptorName=ftp, ftps or ssh"
    )]
    UnknownSocket(String),
    #[error("the service manager passed {0}; only TCP sockets that listen can be served")]
    NotTcp(String),
    #[error("{}", with_source(.0))]
    Store(#[from] StoreError),
    #[error(transparent)]
    Random(#[from] PasswordError),
}

impl StartError {
    /// Whether the configuration contradicts itself, whatever the machine is like.
    pub(crate) fn is_in_the_configuration(&self) -> bool {
        match self {
            Self::Tls(error) => error.is_in_the_configuration(),
            _ => false,
        }
    }
}

/// An error and what is under it, on one line.
pub(crate) fn with_source(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(source) = below {
        text.push_str(": ");
        text.push_str(&source.to_string());
        below = source.source();
    }
    text
}
