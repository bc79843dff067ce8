//! The clients of OpenSSH, with a folder of their own for keys and known hosts.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::has_program;

/// Keys, known hosts and the answer to questions for passwords.
pub struct OpenSsh {
    folder: tempfile::TempDir,
}

/// How a client proves who it is.
#[derive(Debug, Clone, Copy)]
pub enum Proof<'a> {
    /// With the password `secret`.
    Password,
    /// The same, asked for by the server.
    Interactive,
    /// With a password that is wrong, so many times.
    WrongPassword(u32),
    /// With a private key.
    Key(&'a Path),
}

impl OpenSsh {
    /// Clients that have never met a server, if they are installed.
    pub fn new() -> Option<Self> {
        let installed = ["ssh", "sftp", "scp", "ssh-keygen"].map(has_program);
        if installed.contains(&false) {
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary directory");
        for (name, answer) in [("ask", "secret"), ("ask-wrong", "wrong")] {
            let path = folder.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\necho {answer}\n")).expect("written");
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
            std::fs::set_permissions(&path, mode).expect("set");
        }
        Some(Self { folder })
    }

    /// A place beside its keys.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes a key of a kind that `ssh-keygen -t` knows; its private half, and the line of its public half.
    pub fn make_key(&self, kind: &str, name: &str) -> (PathBuf, String) {
        let path = self.file(name);
        let status = Command::new("ssh-keygen")
            .args(["-q", "-N", "", "-C", name, "-t", kind, "-f"])
            .arg(&path)
            .status()
            .expect("runs");
        assert!(status.success());
        let line = std::fs::read_to_string(path.with_extension("pub")).expect("reads");
        (path, line.trim().to_owned())
    }

    /// `ssh`, `sftp` or `scp` with everything but the target; servers that are met for the first time are trusted.
    pub fn client(&self, program: &str, server: SocketAddr, proof: Proof<'_>) -> Command {
        let mut command = Command::new(program);
        let port = if program == "ssh" { "-p" } else { "-P" };
        command.args(["-F", "none", port, &server.port().to_string()]);
        let mut option = |text: &str| {
            command.args(["-o", text]);
        };
        option("StrictHostKeyChecking=accept-new");
        option(&format!(
            "UserKnownHostsFile={}",
            self.file("known_hosts").display()
        ));
        option("GlobalKnownHostsFile=none");
        // One name for all servers of a test, whatever their port.
        option("HostKeyAlias=wharf");
        option("IdentityAgent=none");
        option("IdentitiesOnly=yes");
        option("ConnectTimeout=30");
        let prompts = match proof {
            Proof::WrongPassword(times) => times,
            Proof::Password | Proof::Interactive | Proof::Key(_) => 1,
        };
        option(&format!("NumberOfPasswordPrompts={prompts}"));
        option(&match proof {
            Proof::Password | Proof::WrongPassword(_) => {
                "PreferredAuthentications=password".to_owned()
            }
            Proof::Interactive => "PreferredAuthentications=keyboard-interactive".to_owned(),
            Proof::Key(_) => "PreferredAuthentications=publickey".to_owned(),
        });
        if let Proof::Key(path) = proof {
            command.arg("-i").arg(path);
        }
        let ask = match proof {
            Proof::WrongPassword(_) => "ask-wrong",
            Proof::Password | Proof::Interactive | Proof::Key(_) => "ask",
        };
        command.env("SSH_ASKPASS", self.file(ask));
        command.env("SSH_ASKPASS_REQUIRE", "force");
        command
    }

    /// `ssh` to `user`; what to run comes behind it.
    pub fn ssh(&self, server: SocketAddr, user: &str, proof: Proof<'_>) -> Command {
        let mut command = self.client("ssh", server, proof);
        command.arg("-l").arg(user).arg(server.ip().to_string());
        command
    }
}
