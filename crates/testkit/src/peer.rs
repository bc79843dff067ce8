//! FTP servers of others, for tests of the client.
//!
//! They run as from inetd: the testkit listens on a free port and starts one
//! process a connection. So nothing has to be found out about when a server is
//! ready, and no port is lost to someone else between choosing and using it.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// A running server of others, with one account and a home of its own. Killed
/// when it is dropped.
pub struct Peer {
    folder: tempfile::TempDir,
    address: SocketAddr,
    user: &'static str,
    password: &'static str,
    sessions: Arc<Sessions>,
    acceptor: Option<JoinHandle<()>>,
}

/// The processes, one a connection.
#[derive(Default)]
struct Sessions {
    children: Mutex<Vec<Child>>,
    is_over: AtomicBool,
}

impl Peer {
    /// vsftpd with an anonymous account that may write, if it is there.
    pub fn vsftpd() -> Option<Self> {
        Self::vsftpd_prepared(|_| String::new(), |_, _| ())
    }

    /// The same, with TLS for everything, every data connection bound to its
    /// session, and both ends of a transfer marked by `close_notify`.
    pub fn vsftpd_tls() -> Option<Self> {
        Self::vsftpd_with_tls(|_, _| ())
    }

    /// The same, with no TLS beyond 1.2.
    pub fn vsftpd_tls_1_2() -> Option<Self> {
        Self::vsftpd_with_tls(|command, folder| {
            let file = folder.join("openssl.cnf");
            std::fs::write(&file, ONLY_TLS_1_2).expect("written");
            command.env("OPENSSL_CONF", file);
        })
    }

    fn vsftpd_with_tls(prepare: impl FnOnce(&mut Command, &Path)) -> Option<Self> {
        let options = |folder: &Path| {
            let certificate = make_certificate(folder);
            let certificate = certificate.display();
            format!(
                "ssl_enable=YES\nallow_anon_ssl=YES\nforce_anon_logins_ssl=YES\n\
                 force_anon_data_ssl=YES\nforce_local_logins_ssl=YES\nforce_local_data_ssl=YES\n\
                 require_ssl_reuse=YES\nstrict_ssl_read_eof=YES\nstrict_ssl_write_shutdown=YES\n\
                 ssl_ciphers=HIGH\nrsa_cert_file={certificate}\nrsa_private_key_file={certificate}\n"
            )
        };
        Self::vsftpd_prepared(options, prepare)
    }

    fn vsftpd_prepared(
        more: impl FnOnce(&Path) -> String,
        prepare: impl FnOnce(&mut Command, &Path),
    ) -> Option<Self> {
        let program = peer_program("vsftpd/usr/sbin/vsftpd")?;
        let folder = folder_with_home();
        let at = folder.path().display();
        let configuration = format!(
            "listen=NO\nbackground=NO\nrun_as_launching_user=YES\nseccomp_sandbox=NO\n\
             anonymous_enable=YES\nlocal_enable=NO\nno_anon_password=YES\n\
             ftp_username={user}\nanon_root={at}/home\nsecure_chroot_dir={at}/empty\n\
             write_enable=YES\nanon_upload_enable=YES\nanon_mkdir_write_enable=YES\n\
             anon_other_write_enable=YES\nanon_world_readable_only=NO\nanon_umask=022\n\
             allow_writeable_chroot=YES\nmdtm_write=YES\nconnect_from_port_20=NO\n\
             xferlog_enable=NO\n{more}",
            user = own_name(),
            more = more(folder.path()),
        );
        let file = folder.path().join("vsftpd.conf");
        std::fs::write(&file, configuration).expect("written");
        std::fs::create_dir(folder.path().join("empty")).expect("made");
        let mut command = Command::new(program);
        command.arg(file);
        prepare(&mut command, folder.path());
        Some(Self::start(command, folder, ("anonymous", "anonymous@")))
    }

    /// Pure-FTPd with a virtual account, if it is there. It must be started by root.
    pub fn pure_ftpd() -> Option<Self> {
        Self::pure_ftpd_with(|_| Vec::new())
    }

    /// The same, with TLS for control connections and data.
    pub fn pure_ftpd_tls() -> Option<Self> {
        Self::pure_ftpd_with(|folder| {
            let certificate = make_certificate(folder);
            let file = format!("--certfile={}", certificate.display());
            vec!["--tls=2".to_owned(), file]
        })
    }

    /// ProFTPD with a virtual account and TLS for everything, every data
    /// connection bound to its session, if it is there. It must be started by root.
    pub fn proftpd_tls() -> Option<Self> {
        Self::proftpd_with("TLSv1.2 TLSv1.3")
    }

    /// The same, with no TLS beyond 1.2.
    pub fn proftpd_tls_1_2() -> Option<Self> {
        Self::proftpd_with("TLSv1.2")
    }

    fn proftpd_with(versions: &str) -> Option<Self> {
        let program = peer_program("proftpd-core/usr/sbin/proftpd")?;
        let module = peer_program("proftpd-mod-crypto/usr/lib/proftpd/mod_tls.so")?;
        let folder = folder_with_home();
        if std::fs::metadata(folder.path()).expect("facts").uid() != 0 {
            return skip("ProFTPD serves virtual accounts only when root starts it");
        }
        let home = folder.path().join("home");
        std::os::unix::fs::chown(&home, Some(NOBODY), Some(NOBODY)).expect("given away");
        let passwords = folder.path().join("passwd");
        let account = format!(
            "alice:{SECRET}:65534:65534::{}:/bin/false\n",
            home.display()
        );
        std::fs::write(&passwords, account).expect("written");
        let secret = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&passwords, secret).expect("set");
        let certificate = make_certificate(folder.path());
        let configuration = format!(
            "ServerType inetd\nServerName test\nModulePath {modules}\nLoadModule mod_tls.c\n\
             User nobody\nGroup nogroup\nUseReverseDNS off\nUseIPv6 off\nWtmpLog off\n\
             TransferLog none\nSystemLog none\nScoreboardFile {at}/scoreboard\n\
             DelayEngine off\nAuthOrder mod_auth_file.c\nAuthUserFile {passwords}\n\
             RequireValidShell off\nDefaultRoot ~\nAllowOverwrite on\nAllowStoreRestart on\n\
             <IfModule mod_tls.c>\nTLSEngine on\nTLSRequired on\nTLSProtocol {versions}\n\
             TLSECCertificateFile {certificate}\nTLSECCertificateKeyFile {certificate}\n\
             TLSLog none\n</IfModule>\n",
            at = folder.path().display(),
            modules = module.parent().expect("a folder").display(),
            passwords = passwords.display(),
            certificate = certificate.display(),
        );
        let file = folder.path().join("proftpd.conf");
        std::fs::write(&file, configuration).expect("written");
        let mut command = Command::new(program);
        command.arg("-c").arg(file);
        Some(Self::start(command, folder, ("alice", "secret")))
    }

    fn pure_ftpd_with(more: impl FnOnce(&Path) -> Vec<String>) -> Option<Self> {
        let program = peer_program("pure-ftpd/usr/sbin/pure-ftpd")?;
        let maker = peer_program("pure-ftpd/usr/bin/pure-pw")?;
        let folder = folder_with_home();
        if std::fs::metadata(folder.path()).expect("facts").uid() != 0 {
            return skip("pure-ftpd serves virtual accounts only when root starts it");
        }
        let home = folder.path().join("home");
        std::os::unix::fs::chown(&home, Some(NOBODY), Some(NOBODY)).expect("given away");
        let (passwords, database) = (folder.path().join("passwd"), folder.path().join("pdb"));
        let account = format!(
            "alice:{SECRET}:65534:65534::{}/./::::::::::::\n",
            home.display()
        );
        std::fs::write(&passwords, account).expect("written");
        let mut command = Command::new(maker);
        command.arg("mkdb").arg(&database).arg("-f").arg(&passwords);
        assert!(
            command.status().expect("starts").success(),
            "pure-pw failed"
        );
        let mut command = Command::new(program);
        let login = format!("puredb:{}", database.display());
        command.args(["-l", &login, "-E", "-H", "-u", "1", "-D"]);
        command.args(more(folder.path()));
        Some(Self::start(command, folder, ("alice", "secret")))
    }

    /// OpenSSH's server, as `prepare` sets it up in its folder.
    pub(crate) fn sshd(prepare: impl FnOnce(&Path) -> Command) -> Self {
        let folder = folder_with_home();
        let command = prepare(folder.path());
        Self::start(command, folder, ("", ""))
    }

    fn start(
        command: Command,
        folder: tempfile::TempDir,
        (user, password): (&'static str, &'static str),
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let sessions = Arc::new(Sessions::default());
        let of_acceptor = Arc::clone(&sessions);
        let acceptor = std::thread::spawn(move || accept(&listener, command, &of_acceptor));
        Self {
            folder,
            address,
            user,
            password,
            sessions,
            acceptor: Some(acceptor),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Name of its account.
    pub fn user(&self) -> &str {
        self.user
    }

    /// Password of its account.
    pub fn password(&self) -> &str {
        self.password
    }

    /// `user:password@host:port`, as in a URL.
    pub fn url_authority(&self) -> String {
        let password = self.password.replace('@', "%40");
        format!("{}:{password}@{}", self.user, self.address)
    }

    /// The folder that a login leads to. Its path on the server need not be
    /// `/`: vsftpd does not enclose its sessions here.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// Where it keeps what is its own.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its certificate, which vouches for itself, and the key of it, where it speaks TLS.
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join(CERTIFICATE)
    }

    /// Kills the processes of all sessions there are, as a crash would.
    pub fn kill_sessions(&self) {
        for mut child in self.sessions.lock().drain(..) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.sessions.is_over.store(true, Ordering::SeqCst);
        // Wakes the acceptor.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        self.kill_sessions();
    }
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, Vec<Child>> {
        // A command that does not start is the failure, and not that of who ends the others.
        let children = self.children.lock();
        children.unwrap_or_else(PoisonError::into_inner)
    }
}

fn accept(listener: &TcpListener, mut command: Command, sessions: &Sessions) {
    while let Ok((socket, _)) = listener.accept() {
        if sessions.is_over.load(Ordering::SeqCst) {
            return;
        }
        let output = OwnedFd::from(socket.try_clone().expect("a descriptor"));
        command.stdin(OwnedFd::from(socket)).stdout(output);
        // Whoever kills the sessions while this one starts waits until it is among them.
        let mut children = sessions.lock();
        let child = command.stderr(Stdio::null()).spawn().expect("starts");
        // The command must not keep the connection open.
        command.stdin(Stdio::null()).stdout(Stdio::null());
        // Those that have ended are only waited for.
        children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        children.push(child);
    }
}

/// The path of a program of the unpacked packages. Where it is missing the test
/// is skipped, or fails if `WHARF_TEST_REQUIRE_PEERS` is set.
fn peer_program(path: &str) -> Option<PathBuf> {
    let packages =
        std::env::var_os("WHARF_TEST_PEERS").map_or_else(|| PathBuf::from(UNPACKED), PathBuf::from);
    let program = packages.join(path);
    if program.is_file() {
        return Some(program);
    }
    skip(&format!(
        "{} is not there; .ci/run shows how to get it, WHARF_TEST_PEERS where it is",
        program.display()
    ))
}

pub(crate) fn skip<T>(reason: &str) -> Option<T> {
    assert!(
        std::env::var_os("WHARF_TEST_REQUIRE_PEERS").is_none(),
        "{reason}"
    );
    eprintln!("SKIPPED: {reason}");
    None
}

fn folder_with_home() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary directory");
    make_enterable(folder.path());
    let home = folder.path().join("home");
    std::fs::create_dir(&home).expect("made");
    make_enterable(&home);
    folder
}

/// A server that runs as nobody must get through to the home.
fn make_enterable(folder: &Path) {
    let permissions = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder, permissions).expect("set");
}

/// A certificate for this machine, and its key, in one PEM file.
fn make_certificate(folder: &Path) -> PathBuf {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).expect("made");
    let file = folder.join(CERTIFICATE);
    let text = made.cert.pem() + &made.signing_key.serialize_pem();
    std::fs::write(&file, text).expect("written");
    // Servers take no key that others can read.
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("set");
    file
}

const CERTIFICATE: &str = "tls.pem";

pub(crate) fn own_name() -> String {
    let output = Command::new("id").arg("-un").output().expect("runs");
    String::from_utf8(output.stdout)
        .expect("text")
        .trim()
        .to_owned()
}

/// What OpenSSL reads beside the configuration of the program that uses it.
const ONLY_TLS_1_2: &str = "openssl_conf = all\n[all]\nssl_conf = ssl\n[ssl]\n\
                            system_default = system\n[system]\nMaxProtocol = TLSv1.2\n";

/// Where the packages are if the environment does not say it.
const UNPACKED: &str = "/opt/peers";

/// The user and group without rights of their own (`nobody`, `nogroup` of Debian).
const NOBODY: u32 = 65534;

/// `openssl passwd -1 -salt wharf secret`: what pure-pw makes itself takes
/// seconds to check.
const SECRET: &str = "$1$wharf$08gOTT7scVNKIWLzWvDoX0";
