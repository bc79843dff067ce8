//! FTPS with the clients that people use, and the certificates of a running
//! server. A program that is not installed is skipped, loudly; in CI it must be there.

#![expect(
    clippy::disallowed_methods,
    reason = "tests own the directories that they make"
)]

use std::path::PathBuf;
use std::process::{Command, Output};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SerialNumber,
};
use wharf_testkit::{Server, Wharf, has_program, noise};

struct Setting {
    wharf: Wharf,
    server: Server,
    scratch: PathBuf,
    content: Vec<u8>,
}

/// A server for explicit and implicit TLS under `configuration`, with the
/// accounts `alice` and `bob`, and a file `big` to work with.
fn setting(configuration: &str) -> Setting {
    let wharf = Wharf::new(env!("CARGO_BIN_EXE_wharf"));
    for name in ["alice", "bob"] {
        wharf.add_user(name, &[]);
    }
    let scratch = wharf.scratch();
    let content = noise(3_000_000, 7);
    std::fs::write(scratch.join("big"), &content).expect("written");
    let file = scratch.join("wharf.toml");
    std::fs::write(&file, configuration).expect("written");
    let file = file.to_str().expect("text");
    let server = wharf.serve(&["--ftps", "127.0.0.1:0", "--config", file]);
    Setting {
        wharf,
        server,
        scratch,
        content,
    }
}

impl Setting {
    fn start(&self, program: &str, arguments: &[&str]) -> Output {
        Command::new(program)
            .args(arguments)
            .current_dir(&self.scratch)
            .env("HOME", &self.scratch)
            .output()
            .expect("starts")
    }

    /// Runs a program in the scratch folder; it must succeed.
    fn run(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.start(program, arguments);
        let shown = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.status.success(), "{program} {arguments:?}: {shown}");
        shown
    }

    /// Runs a Python script behind [`PRELUDE`].
    fn python(&self, script: &str) -> String {
        let script = format!("{PRELUDE}\n{script}");
        let port = |address: std::net::SocketAddr| address.port().to_string();
        let (explicit, implicit) = (port(self.server.v4()), port(self.server.ftps()));
        let certificate = self.wharf.data().join("tls/certificate.pem");
        let certificate = certificate.to_str().expect("text");
        self.run(
            "python3",
            &["-c", &script, &explicit, &implicit, certificate],
        )
    }

    fn stored(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.wharf.home("alice").join(name)).expect("is there")
    }

    fn fetched(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.scratch.join(name)).expect("is there")
    }
}

/// A client of each kind; the server's certificate is verified.
const PRELUDE: &str = r#"
import ftplib, io, socket, ssl, sys
explicit, implicit, certificate = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
big = open("big", "rb").read()

def context(version=None):
    made = ssl.create_default_context(cafile=certificate)
    if version:
        made.minimum_version = made.maximum_version = version
    return made

class Reusing(ftplib.FTP_TLS):
    "Resumes the session of its control connection, or another that it is given."
    other = None
    def ntransfercmd(self, cmd, rest=None):
        conn, size = ftplib.FTP.ntransfercmd(self, cmd, rest)
        if self._prot_p:
            session = self.other or self.sock.session
            conn = self.context.wrap_socket(conn, server_hostname=self.host, session=session)
        return conn, size

def client(kind=ftplib.FTP_TLS, version=None, user="alice", within=None):
    ftp = kind(context=within or context(version), timeout=60)
    ftp.connect("localhost", explicit)
    ftp.login(user, "secret")
    ftp.prot_p()
    return ftp

def refused(work, *codes):
    try:
        work()
    except ftplib.Error as error:
        assert str(error)[:3] in codes, error
        return
    sys.exit("was not refused")

def round_trip(ftp):
    ftp.storbinary("STOR file", io.BytesIO(big))
    assert ftp.size("file") == len(big)
    got = io.BytesIO()
    ftp.retrbinary("RETR file", got.write)
    assert got.getvalue() == big
    assert "file" in ftp.nlst()
    assert "file" in [name for name, _ in ftp.mlsd()]

VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
"#;

#[test]
fn curl_transfers_with_both_versions_explicitly_and_implicitly() {
    if !has_program("curl") {
        return;
    }
    let setting = setting("");
    for version in [
        ["--tlsv1.2", "--tls-max", "1.2"],
        ["--tlsv1.3", "--tls-max", "1.3"],
    ] {
        for (scheme, address) in [
            ("ftp", setting.server.v4()),
            ("ftps", setting.server.ftps()),
        ] {
            let url = format!("{scheme}://alice:secret@{address}/");
            let common = [&["-sS", "--ssl-reqd", "-k"], &version[..]].concat();
            let run = |options: &[&str]| setting.run("curl", &[&common[..], options].concat());
            run(&["-T", "big", &url]);
            assert_eq!(setting.stored("big"), setting.content);
            run(&["-o", "copy", &format!("{url}big")]);
            assert_eq!(setting.fetched("copy"), setting.content);
            assert!(run(&[&url]).contains(" big"));
        }
    }
    // The made certificate is good for the name that it has.
    let certificate = setting.wharf.data().join("tls/certificate.pem");
    let certificate = certificate.to_str().expect("text");
    let url = format!(
        "ftps://alice:secret@localhost:{}/",
        setting.server.ftps().port()
    );
    setting.run("curl", &["-sS", "-4", "--cacert", certificate, &url]);
    // Clear data are refused where TLS is required.
    let url = format!("ftp://alice:secret@{}/", setting.server.v4());
    let clear = setting.start("curl", &["-sS", "--ftp-ssl-control", "-k", &url]);
    assert!(!clear.status.success());
}

#[test]
fn lftp_mirrors_over_tls() {
    if !has_program("lftp") {
        return;
    }
    let setting = setting("");
    let tree = setting.scratch.join("tree/a b");
    std::fs::create_dir_all(&tree).expect("made");
    for number in 0..20 {
        let content = noise(number * 997, 8);
        std::fs::write(tree.join(format!("file {number}")), content).expect("written");
    }
    for (number, priority) in ["NORMAL", "NORMAL:-VERS-TLS1.3"].iter().enumerate() {
        let script = format!(
            "set ftp:ssl-force yes; set ftp:ssl-protect-data yes; set ftp:ssl-protect-list yes; \
             set ssl:verify-certificate no; set ssl:priority {priority}; \
             set net:max-retries 2; set cmd:fail-exit yes; open -u alice,secret {}; \
             put big; get big -o got{number}; pget -n 4 big -o segments{number}; \
             mirror -R tree up{number}; mirror up{number} down{number}; rm big",
            setting.server.v4().to_string().replace(':', " -p ")
        );
        setting.run("lftp", &["-c", &script]);
        assert_eq!(setting.fetched(&format!("got{number}")), setting.content);
        assert_eq!(
            setting.fetched(&format!("segments{number}")),
            setting.content
        );
        for file in 0..20 {
            let name = format!("down{number}/a b/file {file}");
            assert_eq!(setting.fetched(&name), noise(file * 997, 8), "{name}");
        }
    }
}

#[test]
fn pythons_ftplib_transfers_whether_it_reuses_its_session_or_not() {
    if !has_program("python3") {
        return;
    }
    setting("").python(
        r#"
for version in VERSIONS:
    for kind in (ftplib.FTP_TLS, Reusing):
        ftp = client(kind, version)
        assert ftp.sock.version() == version.name.replace("_", ".", 1).replace("_", "."), ftp.sock.version()
        round_trip(ftp)
        ftp.set_pasv(False)
        round_trip(ftp)
        ftp.quit()
"#,
    );
}

#[test]
fn a_data_connection_must_resume_its_session_where_that_is_required() {
    if !has_program("python3") {
        return;
    }
    setting("[ftp]\ndata_binding = \"required\"\n").python(
        r#"
for version in VERSIONS:
    round_trip(client(Reusing, version))
    without = client(version=version)
    refused(lambda: without.storbinary("STOR x", io.BytesIO(b"x")), "522")
    assert without.sendcmd("NOOP")[:3] == "200"
"#,
    );
}

#[test]
fn another_sessions_ticket_is_refused_unless_binding_is_off() {
    if !has_program("python3") {
        return;
    }
    let script = r#"
for version in VERSIONS:
    shared = context(version)
    mine, other = client(Reusing, within=shared), client(Reusing, user="bob", within=shared)
    mine.voidcmd("NOOP"); other.voidcmd("NOOP")
    mine.other = other.sock.session
    store = lambda: mine.storbinary("STOR x", io.BytesIO(b"x"))
"#;
    setting("").python(&format!("{script}    refused(store, \"522\")\n"));
    let off = setting("[ftp]\ndata_binding = \"off\"\n");
    off.python(&format!("{script}    store()\n"));
}

#[test]
fn the_data_handshake_may_come_before_the_command_as_aioftp_makes_it() {
    if !has_program("python3") {
        return;
    }
    setting("").python(
        r#"
for version in VERSIONS:
    ftp = client(version=version)
    ftp.voidcmd("TYPE I")
    data = ftp.context.wrap_socket(socket.create_connection(ftp.makepasv()), server_hostname="localhost")
    assert ftp.sendcmd("STOR early")[:3] == "150"
    data.sendall(big)
    data.unwrap().close()
    assert ftp.voidresp()[:3] == "226"
    assert ftp.size("early") == len(big)
"#,
    );
}

#[test]
fn an_upload_without_close_notify_is_cut_where_that_is_strict() {
    if !has_program("python3") {
        return;
    }
    let script = r#"
for version in VERSIONS:
    ftp = client(version=version)
    ftp.voidcmd("TYPE I")
    data = ftp.transfercmd("STOR cut")
    data.sendall(b"half")
    data.close()
"#;
    setting("").python(&format!(
        "{script}    assert ftp.voidresp()[:3] == '226'\n    assert ftp.size('cut') == 4\n"
    ));
    let strict = setting("[tls]\nstrict_close = true\n");
    strict.python(&format!(
        "{script}    refused(ftp.voidresp, '426', '451')\n    assert ftp.size('cut') == 4\n    \
         assert 'X.incomplete=1' in ftp.sendcmd('MLST cut')\n    ftp.delete('cut')\n"
    ));
    strict.python("round_trip(client())");
}

#[test]
fn clear_data_and_other_protocols_are_refused() {
    if !has_program("python3") {
        return;
    }
    setting("").python(
        r#"
ftp = ftplib.FTP_TLS(context=context(), timeout=60)
ftp.connect("localhost", explicit)
refused(lambda: ftp.sendcmd("PROT P"), "503")
ftp.login("alice", "secret")
refused(ftp.nlst, "522")
refused(lambda: ftp.sendcmd("PROT P"), "503")
ftp.voidcmd("PBSZ 0")
refused(ftp.prot_c, "534")
ftp.prot_p()
ftp.nlst()
refused(lambda: ftp.sendcmd("CCC"), "534")
ftp.quit()

for names, served in ((["ftp"], True), (["http/1.1"], False), (["http/1.1", "ftp"], True)):
    chosen = context()
    chosen.set_alpn_protocols(names)
    try:
        with chosen.wrap_socket(socket.create_connection(("localhost", implicit)), server_hostname="localhost") as tls:
            assert served and tls.selected_alpn_protocol() == "ftp"
            assert tls.recv(3) == b"220"
    except ssl.SSLError as error:
        assert not served, error

# A browser that was led here gets nothing that it could take for an answer.
with socket.create_connection(("localhost", explicit)) as http:
    assert http.recv(100)[:3] == b"220"
    http.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\nUSER alice\r\n")
    try:
        assert http.recv(100) == b""
    except ConnectionResetError:
        pass

# What is pipelined behind AUTH is dropped or breaks the handshake, and is never carried out.
with socket.create_connection(("localhost", explicit)) as plain:
    plain.recv(100)
    plain.sendall(b"AUTH TLS\r\nUSER alice\r\nPASS secret\r\n")
    assert plain.recv(100)[:3] == b"234"
    try:
        with context().wrap_socket(plain, server_hostname="localhost") as tls:
            tls.sendall(b"PWD\r\n")
            assert tls.recv(100)[:3] == b"530"
    except (ssl.SSLError, ConnectionResetError):
        pass
"#,
    );
}

#[test]
fn an_account_may_need_tls_where_its_listener_does_not() {
    if !has_program("python3") {
        return;
    }
    let setting = setting("[tls]\npolicy = \"optional\"\n");
    setting.wharf.add_user("carol", &["--tls", "required"]);
    setting.python(
        r#"
# From this machine too, and with the same answer to right and wrong passwords.
answers = set()
for password in ("secret", "wrong"):
    plain = ftplib.FTP(timeout=60)
    plain.connect("localhost", explicit)
    plain.sendcmd("USER carol")
    try:
        plain.sendcmd("PASS " + password)
        sys.exit("was let in")
    except ftplib.error_perm as error:
        answers.add(str(error))
assert answers == {"530 Login incorrect; if the account needs TLS, send AUTH TLS first."}, answers
for user, refuses in (("alice", False), ("carol", True)):
    ftp = ftplib.FTP_TLS(context=context(), timeout=60)
    ftp.connect("localhost", explicit)
    ftp.login(user, "secret")
    if refuses:
        refused(ftp.nlst, "522")
        ftp.voidcmd("PBSZ 0")
        refused(ftp.prot_c, "534")
    else:
        ftp.nlst()
    ftp.prot_p()
    round_trip(ftp)
    if not refuses:
        ftp.prot_c()
        round_trip(ftp)
    ftp.quit()
"#,
    );
}

#[test]
fn an_account_may_do_without_tls_where_its_listener_does_not() {
    if !has_program("python3") {
        return;
    }
    let setting =
        setting("[tls]\nplain_on_loopback = false\n[login]\nmax_failures = 0\ndelay = \"0s\"\n");
    // Nobody is asked for a password in the clear.
    setting.python(
        r#"
plain = ftplib.FTP(timeout=60)
plain.connect("localhost", explicit)
for user in ("alice", "nobody"):
    refused(lambda: plain.sendcmd("USER " + user), "530")
"#,
    );
    setting
        .wharf
        .add_user("dave", &["--tls", "optional", "--data-tls", "inherit"]);
    setting.wharf.add_user("erin", &["--data-tls", "optional"]);
    setting.python(
        r#"
# Everybody is, and only who may gets in; the others read the same as nobody does.
answers = set()
for user, password in (("alice", "secret"), ("alice", "wrong"), ("nobody", "secret"), ("dave", "wrong")):
    plain = ftplib.FTP(timeout=60)
    plain.connect("localhost", explicit)
    assert plain.sendcmd("USER " + user)[:3] == "331"
    try:
        plain.sendcmd("PASS " + password)
        sys.exit("was let in")
    except ftplib.error_perm as error:
        answers.add(str(error))
assert len(answers) == 1, answers
plain = ftplib.FTP(timeout=60)
plain.connect("localhost", explicit)
plain.login("dave", "secret")
round_trip(plain)
# From the first byte on.
implicitly = socket.create_connection(("localhost", implicit))
with context().wrap_socket(implicitly, server_hostname="localhost") as tls:
    lines = tls.makefile("rb")
    for command, code in ((None, b"220"), (b"USER alice", b"331"), (b"PASS secret", b"230")):
        if command:
            tls.sendall(command + b"\r\n")
        assert lines.readline()[:3] == code
# Data apart from the login.
for user, code in (("alice", "534"), ("erin", None), ("dave", None)):
    ftp = client(user=user)
    if code:
        refused(ftp.prot_c, code)
    else:
        ftp.prot_c()
    round_trip(ftp)
"#,
    );
    for parts in [
        [
            r#""user":"dave""#,
            r#""protocol":"ftp""#,
            r#""tls":"none""#,
            r#""by":"password""#,
        ],
        [
            r#""user":"alice""#,
            r#""protocol":"ftps""#,
            r#""tls":"TLSv1_3 "#,
            r#""by":"password""#,
        ],
    ] {
        let parts = [&["logged in"], &parts[..]].concat();
        setting.server.await_log(&parts);
    }
}

#[test]
fn after_ccc_ftplib_lftp_and_curl_go_on_in_the_clear() {
    if !has_program("python3") {
        return;
    }
    let setting = setting("[tls]\nclear_command_channel = true\n");
    setting.wharf.add_user("carol", &["--tls", "required"]);
    setting.python(
        r#"
for version in VERSIONS:
    for kind in (ftplib.FTP_TLS, Reusing):
        ftp = client(kind, version)
        ftp.session = ftp.sock.session
        ftp.ccc()
        assert ftp.sock.fileno() >= 0 and not ftp.sock.version()
        if kind is Reusing:
            kind.other = ftp.session
        ftp.cwd("/")
        round_trip(ftp)
        refused(lambda: ftp.sendcmd("PROT C"), "503")
        Reusing.other = None
        ftp.quit()
refused(client(user="carol").ccc, "534")
"#,
    );
    let address = setting.server.v4();
    if has_program("curl") {
        let url = format!("ftp://alice:secret@{address}/");
        for mode in ["active", "passive"] {
            let options = [
                "-sS",
                "-v",
                "--ssl-reqd",
                "-k",
                "--ftp-ssl-ccc",
                "--ftp-ssl-ccc-mode",
                mode,
            ];
            let copy = format!("{mode}-copy");
            setting.run("curl", &[&options[..], &["-T", "big", &url]].concat());
            let fetch = ["-o", &copy, &format!("{url}big")];
            let told = setting.run("curl", &[&options[..], &fetch].concat());
            assert!(
                told.contains("< 200 The control connection goes on"),
                "{told}"
            );
            assert_eq!(setting.fetched(&copy), setting.content);
        }
    }
    if has_program("lftp") {
        let script = format!(
            "debug 5; set ftp:ssl-force yes; set ftp:ssl-protect-data yes; set ftp:ssl-use-ccc yes; \
             set ssl:verify-certificate no; set net:max-retries 2; set cmd:fail-exit yes; \
             open -u alice,secret {}; put big -o put; get put -o got; ls",
            address.to_string().replace(':', " -p ")
        );
        setting.run("lftp", &["-c", &script]);
        assert_eq!(setting.fetched("got"), setting.content);
    }
    setting
        .server
        .await_log(&["the control connection is encrypted no more"]);
}

/// An authority for clients, and what it has made.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
            .distinguished_name
            .push(DnType::CommonName, "Authority");
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("made"))
    }

    /// A client's certificate and key, in one PEM file.
    fn client(&self, name: &str, serial: u64) -> String {
        self.client_until(2098, name, serial)
    }

    fn expired_client(&self, name: &str, serial: u64) -> String {
        self.client_until(2021, name, serial)
    }

    fn client_until(&self, year: i32, name: &str, serial: u64) -> String {
        let mut params = CertificateParams::default();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 12, 31);
        params.serial_number = Some(SerialNumber::from(serial));
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("made");
        certificate.pem() + &key.serialize_pem()
    }

    fn revoke(&self, serial: u64) -> String {
        self.revoke_until(2099, serial)
    }

    /// A list that takes one certificate back, and is to be replaced at the begin of `year`.
    fn revoke_until(&self, year: i32, serial: u64) -> String {
        let now = rcgen::date_time_ymd(2025, 1, 1);
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: now,
            next_update: rcgen::date_time_ymd(year, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params
            .signed_by(&self.0)
            .expect("made")
            .pem()
            .expect("made")
    }
}

#[test]
fn a_clients_certificate_opens_its_account_until_it_is_revoked() {
    if !has_program("python3") {
        return;
    }
    let authority = Authority::new();
    let folder = tempfile::tempdir().expect("a directory");
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).expect("written");
        path.to_str().expect("text").to_owned()
    };
    let alice = file("alice.pem", &authority.client("alice", 1));
    let laptop = file("laptop.pem", &authority.client("laptop-7", 2));
    let revoked = file("revoked.pem", &authority.client("alice", 3));
    let stranger = file("stranger.pem", &Authority::new().client("alice", 4));
    let expired = file("expired.pem", &authority.expired_client("alice", 5));
    let configuration = format!(
        "[tls]\nclient_certificates = \"optional\"\nclient_ca = {:?}\nclient_crl = {:?}\n\
         [tls.client_accounts]\nlaptop-7 = \"bob\"\n",
        file("ca.pem", &authority.0.pem()),
        file("crl.pem", &authority.revoke(3)),
    );
    let setting = setting(&configuration);
    setting.python(&format!(
        r#"
def showing(file, version):
    within = context(version)
    if file:
        within.load_cert_chain(file)
    ftp = ftplib.FTP_TLS(context=within, timeout=60)
    ftp.connect("localhost", explicit)
    ftp.auth()
    return ftp

for version in VERSIONS:
    for file, user, code in (
        ({alice:?}, "alice", "232"),
        ({alice:?}, "bob", "331"),
        ({laptop:?}, "bob", "232"),
        ({laptop:?}, "laptop-7", "331"),
        (None, "alice", "331"),
    ):
        ftp = showing(file, version)
        assert ftp.sendcmd("USER " + user)[:3] == code, (file, user)
        if code == "232":
            ftp.prot_p()
            round_trip(ftp)
    for file in ({revoked:?}, {stranger:?}, {expired:?}):
        try:
            # With TLS 1.3 the client hears of it with the first reply.
            showing(file, version).sendcmd("NOOP")
            sys.exit("was not refused")
        except (OSError, EOFError):
            pass
"#
    ));
    for reason in ["Revoked", "BadSignature", "expired"] {
        setting.server.await_log(&["TLS handshake failed", reason]);
    }
}

#[test]
fn a_list_of_revoked_certificates_is_the_authoritys_own_and_an_old_one_is_warned_of() {
    let (authority, other) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().expect("a directory");
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).expect("written");
        path
    };
    let (ca, crl) = (
        file("ca.pem", &authority.0.pem()),
        file("crl.pem", &other.revoke(1)),
    );
    let wharf = Wharf::new(env!("CARGO_BIN_EXE_wharf"));
    let config = wharf.configure(&format!(
        "[tls]\nclient_certificates = \"optional\"\nclient_ca = {ca:?}\nclient_crl = {crl:?}\n"
    ));
    // The name is the same, the key is not.
    let (success, _, errors) =
        wharf.run(&["serve", "--ftp", "127.0.0.1:0", "--config", &config], "");
    assert!(!success);
    assert!(
        errors.contains("of CN=Authority in ")
            && errors.contains("signed by nobody in tls.client_ca"),
        "{errors}"
    );
    assert_eq!(errors.lines().count(), 1, "{errors}");
    file("crl.pem", &authority.revoke_until(2026, 1));
    wharf.serve(&["--config", &config]).await_log(&[
        "WARN",
        "out of date",
        "CN=Authority",
        "2026-01-01",
    ]);
    file("crl.pem", &authority.revoke(1));
    wharf
        .serve(&["--config", &config])
        .await_log(&["INFO", "list of revoked", "2099-01-01"]);
}

#[test]
fn a_certificate_that_is_revoked_while_the_server_runs_is_refused_after_sighup() {
    if !has_program("python3") {
        return;
    }
    let authority = Authority::new();
    let folder = tempfile::tempdir().expect("a directory");
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).expect("written");
        path.to_str().expect("text").to_owned()
    };
    let alice = file("alice.pem", &authority.client("alice", 1));
    let setting = setting(&format!(
        "[tls]\nclient_certificates = \"optional\"\nclient_ca = {:?}\nclient_crl = {:?}\n",
        file("ca.pem", &authority.0.pem()),
        file("crl.pem", &authority.revoke(3)),
    ));
    let showing = format!(
        r#"
within = context()
within.load_cert_chain({alice:?})
ftp = ftplib.FTP_TLS(context=within, timeout=60)
ftp.connect("localhost", explicit)
"#
    );
    setting.python(&format!(
        "{showing}ftp.auth()\nassert ftp.sendcmd('USER alice')[:3] == '232'"
    ));
    file("crl.pem", &authority.revoke(1));
    setting.server.signal("HUP");
    setting.server.await_log(&["configuration read again"]);
    setting.python(&format!(
        "{showing}try:\n    ftp.auth()\n    ftp.sendcmd('USER alice')\n    sys.exit('was not refused')\n\
         except (OSError, EOFError):\n    pass"
    ));
    setting
        .server
        .await_log(&["TLS handshake failed", "Revoked"]);
}

#[test]
fn certificates_are_read_again_on_sighup_and_bad_ones_leave_the_old() {
    if !has_program("python3") {
        return;
    }
    let made = || {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
        let certificate = params.self_signed(&key).expect("made");
        (certificate.pem(), key.serialize_pem())
    };
    let folder = tempfile::tempdir().expect("a directory");
    let (certificate, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
    let put = |(chain, secret): &(String, String)| {
        std::fs::write(&certificate, chain).expect("written");
        std::fs::write(&key, secret).expect("written");
    };
    let everyone = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), everyone).expect("ours");
    let (first, second) = (made(), made());
    put(&first);
    let setting = setting(&format!(
        "[tls]\ncertificate = {certificate:?}\nprivate_key = {key:?}\n"
    ));
    let shows = |expected: &str| {
        let output = setting.python("print(ssl.get_server_certificate(('localhost', implicit)))");
        let lines = |text: &str| text.split_whitespace().collect::<String>();
        lines(&output) == lines(expected)
    };
    assert!(shows(&first.0));
    // As files and folders are made, for everybody to read.
    setting
        .server
        .await_log(&["WARN", "can read the private key"]);
    // Half of a change, as a renewal writes it.
    put(&(second.0.clone(), "no key".to_owned()));
    setting.server.signal("HUP");
    put(&second);
    setting.server.signal("HUP");
    assert!((0..100).any(|_| shows(&second.0)));
}

/// A certificate that holds until the end of `year`, and its key.
fn made_until(year: i32) -> (String, String) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(year, 12, 31);
    let certificate = params.self_signed(&key).expect("made");
    (certificate.pem(), key.serialize_pem())
}

#[test]
fn what_tls_cannot_be_served_with_is_one_line_and_nothing_is_started() {
    let good = made_until(2098);
    let expired = made_until(2021);
    let other_key = made_until(2098).1;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("bound").to_string();
    let free = "127.0.0.1:0";
    for (certificate, key, address, expected) in [
        (None, Some(&good.1), free, "c.pem; check tls.certificate"),
        (Some(&good.0), None, free, "k.pem; check tls.private_key"),
        (Some(&good.1), Some(&good.1), free, "c.pem"),
        (Some(&good.0), Some(&good.0), free, "k.pem"),
        (Some(&good.0), Some(&other_key), free, "k.pem"),
        (Some(&expired.0), Some(&expired.1), free, "expired"),
        (Some(&good.0), Some(&good.1), &taken, "the port is in use"),
    ] {
        let wharf = Wharf::new(env!("CARGO_BIN_EXE_wharf"));
        let scratch = wharf.scratch();
        let file = |name: &str, content: Option<&String>| {
            let path = scratch.join(name);
            if let Some(content) = content {
                std::fs::write(&path, content).expect("written");
            }
            path
        };
        let (certificate, key) = (file("c.pem", certificate), file("k.pem", key));
        let configuration = wharf.configure(&format!(
            "[tls]\ncertificate = {certificate:?}\nprivate_key = {key:?}\n"
        ));
        let arguments = ["serve", "--ftp", address, "--config", &configuration];
        let (success, output, errors) = wharf.run(&arguments, "");
        assert!(!success, "{expected}");
        assert_eq!(output, "");
        assert_eq!(errors.lines().count(), 1, "{errors}");
        assert!(errors.starts_with("wharf: "), "{errors}");
        let said = errors.to_lowercase();
        assert!(said.contains(expected), "{expected}: {errors}");
        assert!(!wharf.data().exists());
    }
}

#[test]
fn settings_of_tls_that_go_together_are_set_together_or_the_exit_code_is_2() {
    for (settings, expected) in [
        (
            "certificate = \"c.pem\"",
            "tls.certificate is set and tls.private_key is not",
        ),
        (
            "private_key = \"k.pem\"",
            "tls.private_key is set and tls.certificate is not",
        ),
        (
            "client_certificates = \"required\"",
            "tls.client_certificates is set and tls.client_ca is not",
        ),
        (
            "client_ca = \"ca.pem\"",
            "tls.client_ca is set and tls.client_certificates is off",
        ),
        (
            "client_crl = \"crl.pem\"",
            "tls.client_crl is set and tls.client_certificates is off",
        ),
    ] {
        let wharf = Wharf::new(env!("CARGO_BIN_EXE_wharf"));
        let configuration = wharf.configure(&format!("[tls]\n{settings}\n"));
        let arguments = ["serve", "--ftp", "127.0.0.1:0", "--config", &configuration];
        let output = wharf.command(&arguments).output().expect("starts");
        assert_eq!(output.status.code(), Some(2));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains(expected), "{errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
        assert!(!wharf.data().exists());
    }
}

#[test]
fn a_certificate_passes_the_guard_as_a_password_does() {
    if !has_program("python3") {
        return;
    }
    let authority = Authority::new();
    let folder = tempfile::tempdir().expect("a directory");
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).expect("written");
        path.to_str().expect("text").to_owned()
    };
    let alice = file("alice.pem", &authority.client("alice", 1));
    let setting = setting(&format!(
        "[tls]\nclient_certificates = \"optional\"\nclient_ca = {:?}\n[login]\nmax_failures = 3\ndelay = \"0s\"\n",
        file("ca.pem", &authority.0.pem()),
    ));
    let user = |options: &[&str]| {
        let arguments = [&["user", "set", "alice"], options].concat();
        let (success, _, errors) = setting.wharf.run(&arguments, "");
        assert!(success, "{errors}");
    };
    let showing = |script: &str| {
        setting.python(&format!(
            r#"
within = context()
within.load_cert_chain({alice:?})
ftp = ftplib.FTP_TLS(context=within, timeout=60)
ftp.connect("localhost", explicit)
ftp.auth()
def says(command, code):
    try:
        reply = ftp.sendcmd(command)
    except ftplib.Error as error:
        reply = str(error)
    assert reply[:3] == code, (command, reply)
{script}"#
        ))
    };
    let not_now = "says('USER alice', '331')\nsays('PASS secret', '530')\n";
    user(&["--allow-from", "192.0.2.0/24"]);
    showing(not_now);
    user(&["--allow-from", "none", "--disabled"]);
    showing(not_now);
    user(&["--enabled"]);
    showing("says('USER alice', '232')\nftp.prot_p()\nround_trip(ftp)");
    // The success has forgiven what failed under this name, so that the ban takes three more.
    let wrong = "says('USER bob', '331')\nsays('PASS wrong', '530')\n";
    // Who was connected before the ban gets no further with the certificate either.
    showing(&format!(
        r#"
early = ftp
ftp = ftplib.FTP_TLS(context=context(), timeout=60)
ftp.connect("localhost", explicit)
ftp.auth()
{wrong}{wrong}{wrong}ftp = early
says('USER alice', '421')
"#
    ));
}

#[test]
fn each_kind_of_listener_has_networks_of_its_own() {
    if !has_program("python3") {
        return;
    }
    let setting = setting("[ftps]\ndeny = [\"127.0.0.0/8\"]\n");
    let closed = r#"
def closed(port):
    with socket.create_connection(("127.0.0.1", port)) as raw:
        try:
            context().wrap_socket(raw, server_hostname="localhost").close()
        except OSError:
            return True
    return False
"#;
    setting.python(&format!(
        "{closed}assert closed(implicit)\nround_trip(client())"
    ));
    std::fs::write(
        setting.scratch.join("wharf.toml"),
        "[ftp]\ndeny = [\"127.0.0.0/8\"]\n",
    )
    .expect("written");
    setting.server.signal("HUP");
    setting.server.await_log(&["configuration read again"]);
    setting.python(&format!(
        "{closed}assert not closed(implicit)\nrefused(client, '421')"
    ));
}

#[test]
fn curl_reads_over_tls_why_its_upload_was_refused() {
    if !has_program("curl") {
        return;
    }
    let setting = setting("");
    let (success, _, errors) = setting
        .wharf
        .run(&["user", "set", "alice", "--quota", "1MB"], "");
    assert!(success, "{errors}");
    let url = format!("ftp://localhost:{}/", setting.server.v4().port());
    let output = setting.start(
        "curl",
        &[
            "-sS",
            "-k",
            "--ssl-reqd",
            "-u",
            "alice:secret",
            "-T",
            "big",
            &url,
        ],
    );
    // CURLE_REMOTE_DISK_FULL: the 552 was read.
    assert_eq!(output.status.code(), Some(70), "{output:?}");
}
