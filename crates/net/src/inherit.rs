//! Sockets that the service manager bound and passed on (systemd socket
//! activation, sd_listen_fds(3)).
//!
//! The descriptors are taken out of the environment by the `sd-listen-fds`
//! crate, which checks that they are meant for this process (`LISTEN_PID`).
//! What they are is asked of the system and not believed.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::FdFlags;
use socket2::Socket;

use crate::{BoundEndpoint, EndpointOptions};

/// A socket that was passed to this process.
#[derive(Debug)]
pub struct Inherited {
    /// `FileDescriptorName=` of the socket unit; `unknown` where there is none.
    pub name: String,
    /// The socket, whose file, if it has one, belongs to the service manager and stays.
    pub endpoint: BoundEndpoint,
}

/// The sockets that were passed to this process, in their order; none if it was
/// not started by a service manager. Later calls find none: the first has taken them.
///
/// They are closed on exec from here on, and `options` hold for the
/// connections that come from them; what belongs to the listener itself, such
/// as the backlog, is the service manager's business.
///
/// # Errors
/// [`InheritError`]: the environment is malformed, or a descriptor is no socket
/// that a server can use. All of them are closed then.
pub fn inherited(options: EndpointOptions) -> Result<Vec<Inherited>, InheritError> {
    // Each descriptor has one owner, so they may be taken once only.
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(Vec::new());
    }
    let passed = sd_listen_fds::get().map_err(|_| InheritError::Environment)?;
    passed
        .into_iter()
        .enumerate()
        .map(|(index, (name, descriptor))| {
            let name = name
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| UNNAMED.to_owned());
            match adopt(descriptor.into_std(), options) {
                Ok(endpoint) => Ok(Inherited { name, endpoint }),
                Err(source) => Err(InheritError::NotUsable {
                    descriptor: FIRST + index,
                    name,
                    source,
                }),
            }
        })
        .collect()
}

fn adopt(descriptor: OwnedFd, options: EndpointOptions) -> io::Result<BoundEndpoint> {
    rustix::io::fcntl_setfd(&descriptor, FdFlags::CLOEXEC)?;
    BoundEndpoint::adopt(Socket::from(descriptor), options)
}

/// `SD_LISTEN_FDS_START`.
const FIRST: usize = 3;
/// As sd_listen_fds_with_names(3) calls one without a name.
const UNNAMED: &str = "unknown";

/// Why what was passed cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// `LISTEN_PID` or `LISTEN_FDS` is no number.
    #[error("LISTEN_PID and LISTEN_FDS, as the service manager sets them, must be numbers")]
    Environment,
    /// A descriptor is not a bound socket, or is a connection (`Accept=yes`).
    #[error(
        "descriptor {descriptor} ({name:?}) that the service manager passed cannot be served: {source}"
    )]
    NotUsable {
        /// Its number.
        descriptor: usize,
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}
