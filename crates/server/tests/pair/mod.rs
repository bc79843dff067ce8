//! A service that speaks SSH, and the client's end of a connection to it, over memory.

#![allow(dead_code, reason = "each test binary uses its part of it")]

pub(crate) mod client;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;
use wharf_accounts::Account;
use wharf_net::{Connection, Endpoint, ServiceError, StreamService as _};
use wharf_server::process::{Invocation, Process, ProcessError, ProcessRunner};
use wharf_server::sftp::AttributePolicy;
use wharf_server::ssh::{HostKey, HostKeyKind, SshConfig, SshService, Timeouts};
use wharf_vfs::Home;

use crate::setting::Setting;

pub(crate) const TIMEOUTS: Timeouts = Timeouts {
    login: Duration::from_secs(30),
    idle: Duration::from_secs(600),
    stall: Duration::from_secs(60),
};

/// What one end may write before the other one reads.
const PIPE_BYTES: usize = 64 * 1024;

pub(crate) fn config() -> SshConfig {
    SshConfig {
        host_keys: vec![HostKey::generate(HostKeyKind::Ed25519).expect("made")],
        timeouts: TIMEOUTS,
        attributes: AttributePolicy::Refuse,
    }
}

pub(crate) fn service(setting: &Setting) -> SshService {
    let door = Arc::clone(&setting.door);
    SshService::new(&config(), door, Arc::new(NoProcesses))
}

pub(crate) fn unencrypted(setting: &Setting) -> SshService {
    let door = Arc::clone(&setting.door);
    SshService::insecure_for_tests(&config(), door, Arc::new(NoProcesses))
}

pub(crate) fn rekeying(setting: &Setting, bytes: usize, time: Duration) -> SshService {
    let door = Arc::clone(&setting.door);
    let limits = (bytes, time);
    SshService::rekeying_for_tests(&config(), door, Arc::new(NoProcesses), limits)
}

/// As where the operator allows none.
struct NoProcesses;

impl ProcessRunner for NoProcesses {
    fn start<'a>(
        &'a self,
        _account: &'a Account,
        _home: &'a Arc<Home>,
        _invocation: Invocation,
    ) -> BoxFuture<'a, Result<Process, ProcessError>> {
        Box::pin(async { Err(ProcessError::Off) })
    }
}

/// Serves one connection; the client's end, and the task.
pub(crate) fn connect(
    setting: &Setting,
    service: SshService,
) -> (DuplexStream, JoinHandle<Result<(), ServiceError>>) {
    let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
    let peer: SocketAddr = "127.0.0.1:50000".parse().expect("an address");
    let connection = Connection {
        stream: theirs.into(),
        peer: peer.into(),
        local: Endpoint::Tcp("127.0.0.1:22".parse().expect("an address")),
        proxy: None,
        drain: setting.drain.clone(),
        slot: setting.slots.take(&peer.into()).expect("free"),
    };
    let serving = tokio::spawn(Arc::new(service).serve(connection));
    (ours, serving)
}
