//! Serves a directory by SFTP over standard input and output, as the program of `sftp -D`:
//!
//! ```text
//! sftp -D 'target/debug/examples/sftp_stdio /some/directory [bytes of quota]'
//! ```

use std::error::Error;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use bytes::Bytes;
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use futures_util::future::BoxFuture;
use tokio::net::unix::pipe;
use tokio_util::sync::CancellationToken;
use wharf_model::{PermissionRules, QuotaLimits, Refusal, Usage};
use wharf_server::sftp::{AttributePolicy, SftpOptions, serve};
use wharf_vfs::storage::Storage as _;
use wharf_vfs::storage::local::{LocalOptions, LocalStorage};
use wharf_vfs::{Home, Ledger, UsageJournal, Vfs};

/// There is nobody to tell how much is used.
struct Forgetful;

impl UsageJournal for Forgetful {
    fn mark_dirty(&self) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async { Ok(()) })
    }

    fn save(&self, _usage: Usage) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async { Ok(()) })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().ok_or("say which directory to serve")?;
    let quota = arguments.next().map(|bytes| bytes.parse()).transpose()?;
    let root = Dir::open_ambient_dir(directory, ambient_authority())?;
    let storage = Arc::new(LocalStorage::new(root, LocalOptions::default()));
    let usage = storage.recover().await?;
    let home = Home::new(storage, Ledger::new(usage, true, Box::new(Forgetful)));
    let limits = QuotaLimits {
        bytes: quota,
        files: None,
    };
    let vfs = Vfs::new(home, PermissionRules::default(), limits);
    let options = SftpOptions {
        account: Bytes::from_static(b"alice"),
        attributes: AttributePolicy::Refuse,
        stop: CancellationToken::new(),
    };
    let input = std::io::stdin().as_fd().try_clone_to_owned()?;
    let output = std::io::stdout().as_fd().try_clone_to_owned()?;
    match socket(input.try_clone()?) {
        Ok(socket) => serve(socket, vfs, options).await?,
        Err(_) => {
            let input = pipe::Receiver::from_owned_fd(input)?;
            let output = pipe::Sender::from_owned_fd(output)?;
            serve(tokio::io::join(input, output), vfs, options).await?;
        }
    }
    Ok(())
}

/// The socket that `sftp` gives as both ends.
fn socket(descriptor: OwnedFd) -> std::io::Result<tokio::net::UnixStream> {
    let socket = UnixStream::from(descriptor);
    socket.peer_addr()?;
    socket.set_nonblocking(true)?;
    tokio::net::UnixStream::from_std(socket)
}
