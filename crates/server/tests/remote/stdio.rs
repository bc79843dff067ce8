//! OpenSSH's clients without a network: `sftp -D` and `scp -S` start this test program once
//! more, as a server on the socket that they give it as standard input.

use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tokio::io::AsyncReadExt as _;
use tokio_util::sync::CancellationToken;
use wharf_model::{PermissionRules, QuotaLimits, VirtualPath};
use wharf_server::exec::{Streams, run};
use wharf_server::sftp::serve;

use crate::room::{Room, sftp_options};

/// The home of the server, for its process.
const HOME: &str = "WHARF_TEST_HOME";
/// Its quota in bytes.
const QUOTA: &str = "WHARF_TEST_QUOTA";
/// What it is to run; nothing for SFTP.
const COMMAND: &str = "WHARF_TEST_COMMAND";
/// This program.
const SERVER: &str = "WHARF_TEST_SERVER";

/// What stands for ssh, or for the SFTP server.
pub(crate) fn stand_in() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/remote/stdio.sh")
}

/// A client of OpenSSH in `folder`, whose server has its home in `home`. Only what fits into the
/// quota can be written.
pub(crate) fn client(program: &str, folder: &Path, home: &Path, quota: Option<u64>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder);
    command.env(SERVER, std::env::current_exe().expect("a program"));
    command.env(HOME, home);
    if let Some(quota) = quota {
        command.env(QUOTA, quota.to_string());
    }
    command
}

/// What it said, for the message of a failed test.
pub(crate) fn said(output: &Output) -> String {
    let texts = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    format!("{}\n{}", texts[0], texts[1])
}

#[tokio::test]
#[ignore = "the server that the clients of other tests start"]
async fn serve_standard_input() {
    let Some(home) = std::env::var_os(HOME) else {
        return;
    };
    let quota = std::env::var(QUOTA)
        .ok()
        .map(|quota| quota.parse().expect("a number"));
    let limits = QuotaLimits {
        bytes: quota,
        files: None,
    };
    let vfs = Room::at(Path::new(&home), PermissionRules::default(), limits).await;
    let socket = std::io::stdin().as_fd().try_clone_to_owned().expect("open");
    let socket = UnixStream::from(socket);
    socket.set_nonblocking(true).expect("a socket");
    let socket = tokio::net::UnixStream::from_std(socket).expect("a socket");
    let command = std::env::var(COMMAND).unwrap_or_default();
    if command.is_empty() {
        let ended = serve(socket, vfs, sftp_options(CancellationToken::new())).await;
        ended.expect("ends with its client");
        return;
    }
    let (input, output) = tokio::io::split(socket);
    let (errors, mut errors_end) = tokio::io::duplex(64 * 1024);
    let streams = Streams::new(input, output, errors);
    let root = VirtualPath::root();
    let mut said = Vec::new();
    let (status, _) = tokio::join!(
        run(command.as_bytes(), &vfs, &root, streams),
        errors_end.read_to_end(&mut said),
    );
    std::io::stderr().write_all(&said).expect("written");
    std::process::exit(status.code().into());
}
