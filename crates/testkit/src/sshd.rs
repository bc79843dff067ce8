//! OpenSSH's server, for tests of the client.
//!
//! It runs as from inetd, as the other servers do (see `peer.rs`), under the account that runs
//! the test: `sshd` lets nobody else in unless root starts it.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::peer::{Peer, own_name, skip};

/// OpenSSH's server with keys of its own, a folder for files, and whoever may log in.
pub struct Sshd {
    peer: Peer,
}

/// An agent that is killed when it is dropped.
pub struct Agent {
    process: Child,
    socket: PathBuf,
}

impl Sshd {
    /// The server with these lines of configuration before its own, if it is installed.
    pub fn start(more: &str) -> Option<Self> {
        let program = Path::new("/usr/sbin/sshd");
        if !program.is_file() {
            return skip("OpenSSH's sshd is not installed; .ci/run shows how to get it");
        }
        if own_name() == "root" {
            // Where sshd locks itself up before a login; packages make it when they start it.
            std::fs::create_dir_all("/run/sshd").expect("made");
        }
        let peer = Peer::sshd(|folder| {
            make_key(folder, "host", "ed25519", "");
            make_key(folder, "other_host", "ecdsa", "");
            for (name, kind, passphrase) in KEYS {
                make_key(folder, name, kind, passphrase);
            }
            let at = folder.display();
            let configuration = format!(
                "{more}\nHostKey {at}/host\nAuthorizedKeysFile {at}/authorized_keys\n\
                 StrictModes no\nUsePAM no\nPidFile none\nPasswordAuthentication no\n\
                 KbdInteractiveAuthentication no\nPermitRootLogin yes\n\
                 Subsystem sftp internal-sftp\nLogLevel ERROR\n"
            );
            std::fs::write(folder.join("sshd_config"), configuration).expect("written");
            let mut command = Command::new(program);
            command.arg("-i").arg("-f").arg(folder.join("sshd_config"));
            command
        });
        let sshd = Self { peer };
        sshd.authorize(&["key", "rsa", "locked"]);
        Some(sshd)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.peer.address()
    }

    /// The account that it lets in.
    pub fn user(&self) -> String {
        own_name()
    }

    /// A folder for the test's files. SFTP shows it under this very path.
    pub fn root(&self) -> PathBuf {
        self.peer.root()
    }

    /// `sftp://user@host:port/` and the absolute path of `name` in [`Self::root`].
    pub fn url(&self, name: &str) -> String {
        format!(
            "{}/{}/{name}",
            self.server_url(),
            self.root().to_str().expect("text")
        )
    }

    /// `sftp://user@host:port`.
    pub fn server_url(&self) -> String {
        format!("sftp://{}@{}", self.user(), self.address())
    }

    /// The private key of this name: `key` (Ed25519), `rsa`, `locked` (its passphrase is
    /// [`PASSPHRASE`]), `stranger` (which opens nothing).
    pub fn key(&self, name: &str) -> PathBuf {
        self.peer.folder().join(name)
    }

    /// Lets in whoever holds one of these keys, and nobody else.
    pub fn authorize(&self, names: &[&str]) {
        let lines: String = names.iter().map(|name| self.public_line(name)).collect();
        std::fs::write(self.key("authorized_keys"), lines).expect("written");
    }

    /// The server shows another host key from now on, of the same kind.
    pub fn change_host_key(&self) {
        let folder = self.peer.folder();
        for name in ["host", "host.pub"] {
            std::fs::remove_file(folder.join(name)).expect("removed");
        }
        make_key(folder, "host", "ed25519", "");
    }

    /// The line of a file of known hosts that names this server, `[127.0.0.1]:port ssh-ed25519 AAAA…`.
    pub fn known_hosts_line(&self) -> String {
        let address = self.address();
        format!(
            "[{}]:{} {}",
            address.ip(),
            address.port(),
            self.public_line("host")
        )
    }

    /// The line of a public key.
    pub fn public_line(&self, name: &str) -> String {
        let path = self.key(name).with_extension("pub");
        std::fs::read_to_string(path).expect("reads")
    }

    /// Kills the processes of all sessions there are, as a crash would.
    pub fn kill_sessions(&self) {
        self.peer.kill_sessions();
    }

    /// An agent that holds the key of this name.
    pub fn agent_with(&self, name: &str) -> Agent {
        let socket = self.peer.folder().join("agent");
        let mut process = Command::new("ssh-agent")
            .args(["-D", "-a"])
            .arg(&socket)
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        // It says where it listens once it does.
        let said = process.stdout.take().expect("piped");
        let mut line = String::new();
        BufReader::new(said).read_line(&mut line).expect("reads");
        assert!(line.contains("SSH_AUTH_SOCK"), "{line}");
        let agent = Agent { process, socket };
        let status = Command::new("ssh-add")
            .arg("-q")
            .arg(self.key(name))
            .env("SSH_AUTH_SOCK", &agent.socket)
            .status()
            .expect("runs");
        assert!(status.success(), "ssh-add failed");
        agent
    }
}

impl Agent {
    /// For `SSH_AUTH_SOCK`.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn make_key(folder: &Path, name: &str, kind: &str, passphrase: &str) {
    let status = Command::new("ssh-keygen")
        .args(["-q", "-t", kind, "-N", passphrase, "-C", name, "-f"])
        .arg(folder.join(name))
        .status()
        .expect("runs");
    assert!(status.success(), "ssh-keygen failed");
}

/// What unlocks the key `locked`.
pub const PASSPHRASE: &str = "open sesame";

const KEYS: [(&str, &str, &str); 4] = [
    ("key", "ed25519", ""),
    ("rsa", "rsa", ""),
    ("locked", "ed25519", PASSPHRASE),
    ("stranger", "ed25519", ""),
];
