//! `wharf serve`.

use std::num::NonZeroUsize;
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use wharf_net::{DrainReport, Peer};

use crate::cli::CliError;
use crate::cli::settings::Place;
use crate::compose::{DataDirectory, Foundation, Ports, Server};
use crate::config::{Address, Config, ListenerTls, LogFormat, OwnTls, PortRange};
use crate::logging;
use crate::privileges::{self, Standing, User};
use crate::sandbox::{self, Fence, Reach};
use crate::supervisor::{Environment, Supervisor};

/// Options of `wharf serve`.
#[derive(clap::Args)]
#[command(after_help = "\
Signals:
  TERM, INT  finish transfers, at most timeouts.drain, then stop; a second one
             stops at once
  HUP        read the configuration again: limits, timeouts, greeting, passive
             ports, masquerade address, TLS policy, certificates, access and
             login rules

As root, give it a user of its own: wharf serve --user wharf --ftp 0.0.0.0:21

Under systemd (dist/wharf.service) it tells when it is ready, and serves sockets that are passed on under the names \
ftp, ftps and ssh. See a running server with: wharf status, wharf sessions

Where the kernel has Landlock, the server reaches its data, home_roots, configuration and certificates only; see \
sandbox in the configuration.

Example:
  wharf user add alice
  wharf serve --ftp 0.0.0.0:2121 --ftps 0.0.0.0:2990 --ssh 0.0.0.0:2222")]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,
    /// Serve FTP here; may be given more than once [default: 0.0.0.0:2121]
    #[arg(
        long,
        env = "WHARF_FTP",
        value_name = "ADDR:PORT",
        value_delimiter = ','
    )]
    ftp: Vec<Address>,
    /// Serve implicit FTPS here
    #[arg(
        long,
        env = "WHARF_FTPS",
        value_name = "ADDR:PORT",
        value_delimiter = ','
    )]
    ftps: Vec<Address>,
    /// Serve SSH here: SFTP, scp and remote commands
    #[arg(
        long,
        env = "WHARF_SSH",
        value_name = "ADDR:PORT",
        value_delimiter = ','
    )]
    ssh: Vec<Address>,
    /// Ports for passive data connections [default: 30000-30999]
    #[arg(long, env = "WHARF_PASSIVE_PORTS", value_name = "LO-HI")]
    passive_ports: Option<PortRange>,
    /// Whether logins and their data need TLS [default: required, except logins from this machine]
    #[arg(long, env = "WHARF_TLS", value_name = "POLICY")]
    tls: Option<ListenerTls>,
    /// The user to become once the ports are open [default: stay who it is]
    #[arg(long, env = "WHARF_USER", value_name = "NAME")]
    user: Option<String>,
    /// How log lines are written [default: text]
    #[arg(long, env = "WHARF_LOG_FORMAT", value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

impl Args {
    fn config(&self) -> Result<Config, CliError> {
        let mut config = self.place.load()?;
        let listeners = [
            (&self.ftp, &mut config.ftp.listen),
            (&self.ftps, &mut config.ftps.listen),
            (&self.ssh, &mut config.ssh.listen),
        ];
        for (said, listen) in listeners {
            if !said.is_empty() {
                listen.clone_from(said);
            }
        }
        if let Some(ports) = &self.passive_ports {
            config.ftp.passive_ports = ports.clone();
        }
        if let Some(policy) = self.tls {
            config.tls.policy = policy;
            config.ftp.tls = OwnTls::Inherit;
        }
        if let Some(user) = &self.user {
            config.user.clone_from(user);
        }
        if let Some(format) = self.log_format {
            config.log.format = format;
        }
        match config.contradiction() {
            None => Ok(config),
            Some(what) => Err(CliError::Usage(format!(
                "the configuration contradicts itself: {what}"
            ))),
        }
    }
}

pub(crate) fn run(args: Args) -> Result<(), CliError> {
    let config = args.config()?;
    logging::start(&config.log);
    let user = match &*config.user {
        "" => None,
        name => Some(User::find(name)?),
    };
    // Out of reach once files are given up.
    let supervisor = Supervisor::connect(&Environment::of_process()).map_err(|error| {
        CliError::Failed(format!(
            "the service manager (NOTIFY_SOCKET) cannot be reached: {error}"
        ))
    })?;
    let ports = Ports::bind(&config)?;
    if let Some(user) = &user {
        DataDirectory::make_for(user, &config.data_dir)?;
    }
    let standing = privileges::give_up(user)?;
    let foundation = Foundation::lay(&config, args.place.file(), ports)?;
    // Read from files that are out of reach afterwards.
    let cores = available_parallelism().map_or(1, NonZeroUsize::get);
    let reach = Reach::of(&config, args.place.file(), foundation.data_dir());
    let fence = sandbox::enforce(config.sandbox, reach)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores)
        .enable_all()
        .build()
        .map_err(|error| CliError::failed(&error))?;
    let result = runtime.block_on(serve(
        &args,
        config,
        foundation,
        (standing, fence),
        &supervisor,
    ));
    // A digest of a huge file may still run on a thread; nobody waits for it any more.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn serve(
    args: &Args,
    mut config: Config,
    foundation: Foundation,
    (standing, fence): (Standing, Fence),
    supervisor: &Supervisor,
) -> Result<(), CliError> {
    let listen = |kind| signal(kind).map_err(|error| CliError::failed(&error));
    let mut signals = Signals {
        terminate: listen(SignalKind::terminate())?,
        interrupt: listen(SignalKind::interrupt())?,
        hangup: listen(SignalKind::hangup())?,
    };
    let server = Server::start_on(foundation, &config).await?;
    standing.log();
    fence.log();
    server.processes().log();
    if let Some(reach) = fence.reach() {
        server.warn_of_homes_outside(reach).await?;
    }
    if let Err(error) = args.config() {
        tracing::warn!(%error, "the configuration cannot be read again; a hangup will change nothing");
    }
    supervisor.ready(&where_it_serves(&server));
    while let Wish::Reload = alive_until(supervisor, signals.next()).await {
        supervisor.reloading();
        match args.config() {
            Ok(fresh) => {
                if fixed(&fresh) != fixed(&config) {
                    tracing::warn!(
                        "data_dir, home_roots, user, sandbox, listen, proxies, processes.enabled and limits.open_files_per_home hold from the next start on"
                    );
                }
                server.reload(&fresh);
                config = fresh;
                tracing::info!("configuration read again; it holds for new sessions");
            }
            Err(error) => tracing::error!(%error, "the configuration stays as it was"),
        }
        supervisor.ready(&where_it_serves(&server));
    }
    supervisor.stopping(config.timeouts.drain.0);
    tracing::info!(patience = ?config.timeouts.drain.0, "stopping; transfers may finish");
    let drain = server.drain();
    let stopping = server.stop(&config);
    tokio::pin!(stopping);
    let report = loop {
        tokio::select! {
            report = alive_until(supervisor, &mut stopping) => break report,
            wish = signals.next() => if matches!(wish, Wish::Stop) {
                tracing::warn!("stopping at once");
                drain.cut();
            },
        }
    };
    log_end(&report);
    Ok(())
}

fn log_end(report: &DrainReport) {
    /// More are only counted.
    const MOST_NAMED: usize = 20;
    if !report.peers.is_empty() {
        let named: Vec<String> = report
            .peers
            .iter()
            .take(MOST_NAMED)
            .map(Peer::to_string)
            .collect();
        let others = report.peers.len() - named.len();
        tracing::warn!(peers = named.join(" "), others, "sessions cut");
    }
    tracing::info!(sessions = report.waiting, cut = report.cut, "stopped");
}

/// For a person who asks the service manager.
fn where_it_serves(server: &Server) -> String {
    let places = server.places().iter();
    let texts: Vec<String> = places
        .map(|place| format!("{} on {}", place.protocol, place.address))
        .collect();
    format!("serving {}", texts.join(", "))
}

/// Tells the service manager that the runtime lives, as often as it wants to
/// hear it, until `what` is done.
async fn alive_until<T>(supervisor: &Supervisor, what: impl Future<Output = T>) -> T {
    tokio::pin!(what);
    let Some(period) = supervisor.heartbeat() else {
        return what.await;
    };
    let mut beat = tokio::time::interval(period);
    loop {
        tokio::select! {
            done = &mut what => return done,
            _ = beat.tick() => supervisor.alive(),
        }
    }
}

/// What does not change while the server runs.
fn fixed(config: &Config) -> impl PartialEq {
    let listeners = [&config.ftp.listen, &config.ftps.listen, &config.ssh.listen];
    let listen = listeners.map(Clone::clone);
    let behind = [
        &config.ftp.proxies,
        &config.ftps.proxies,
        &config.ssh.proxies,
    ];
    let proxies = behind.map(Clone::clone);
    let folders = (config.data_dir.clone(), config.home_roots.clone());
    (
        listen,
        proxies,
        folders,
        config.user.clone(),
        config.sandbox,
        config.processes.enabled,
        config.limits.open_files_per_home,
    )
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

enum Wish {
    Stop,
    Reload,
}

impl Signals {
    async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.terminate.recv() => Wish::Stop,
            _ = self.interrupt.recv() => Wish::Stop,
            _ = self.hangup.recv() => Wish::Reload,
        }
    }
}
