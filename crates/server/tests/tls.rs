//! Sessions with TLS: the control connection over memory, data connections over loopback.

mod setting;

use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use setting::{Client, Setting, TIMEOUTS, setting, setting_with};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};
use tokio_rustls::{TlsConnector, client::TlsStream};
use wharf_net::{BareEnd, TlsOptions, TlsServer};
use wharf_server::ftp::{CertificateAccounts, DataBinding, DataPrivacy, FtpTls, TlsStart};

const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

/// A client's side of TLS: its sessions are its own, and all its connections share them.
#[derive(Clone)]
struct Tls(Arc<ClientConfig>);

struct Encrypted {
    setting: Setting,
    certificate: CertificateDer<'static>,
}

fn served() -> (FtpTls, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
    let certificate = made.cert.der().clone();
    let server = TlsServer::new(TlsOptions {
        chain: vec![certificate.clone()],
        key: PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key"),
        protocols: vec![b"ftp".to_vec()],
        joining_protocols: vec![b"ftp".to_vec()],
        clients: None,
    })
    .expect("usable");
    let tls = FtpTls {
        server: Arc::new(server),
        start: TlsStart::Command,
        data: DataPrivacy::Required,
        plain_on_loopback: true,
        may_clear_control: false,
        binding: DataBinding::Prefer,
        upload_end: BareEnd::Tolerated,
        accounts: Arc::new(Nobody),
    };
    (tls, certificate)
}

#[derive(Debug)]
struct Nobody;

impl CertificateAccounts for Nobody {
    fn account_of(&self, _certificate: &[u8]) -> Option<String> {
        None
    }
}

/// A service with TLS, changed by `change`.
async fn encrypted(change: impl FnOnce(&mut FtpTls)) -> Encrypted {
    let (mut tls, certificate) = served();
    change(&mut tls);
    Encrypted {
        setting: setting_with(Some(tls)).await,
        certificate,
    }
}

impl Encrypted {
    fn tls(&self, version: &'static SupportedProtocolVersion, resumption: Resumption) -> Tls {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("acceptable");
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_protocol_versions(&[version])
                .expect("known")
                .with_root_certificates(roots)
                .with_no_client_auth();
        config.resumption = resumption;
        Tls(Arc::new(config))
    }

    fn reusing(&self) -> Tls {
        self.tls(&version::TLS13, Resumption::in_memory_sessions(16))
    }

    fn forgetful(&self) -> Tls {
        self.tls(&version::TLS13, Resumption::disabled())
    }

    /// A session that is logged in, with PROT P.
    async fn log_in(&self, tls: &Tls) -> Client {
        let mut client = self.setting.connect_from("127.0.0.1:50000");
        client.expect("220").await;
        client.send("AUTH TLS").await;
        client.expect("234").await;
        let mut client = tls.over(client).await.expect("a handshake");
        client.talk(&[("PBSZ 0", "200"), ("PROT P", "200")]).await;
        client.talk(LOGIN).await;
        client
    }
}

const LOGIN: &[(&str, &str)] = &[
    ("USER alice", "331"),
    ("PASS secret", "230"),
    ("TYPE I", "200"),
];

impl Tls {
    /// Makes the handshake on a control connection.
    async fn over(&self, client: Client) -> io::Result<Client> {
        let name = "localhost".try_into().expect("a name");
        let stream = TlsConnector::from(Arc::clone(&self.0))
            .connect(name, client.stream.into_inner())
            .await?;
        Ok(Client {
            stream: BufReader::new(Box::new(stream)),
        })
    }

    /// Makes the handshake on a data connection.
    async fn on(&self, data: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = "localhost".try_into().expect("a name");
        TlsConnector::from(Arc::clone(&self.0))
            .connect(name, data)
            .await
    }
}

impl Client {
    /// Sends each command and expects its code.
    async fn talk(&mut self, commands: &[(&str, &str)]) {
        for (command, code) in commands {
            self.send(command).await;
            self.expect(code).await;
        }
    }

    /// An upload over TLS; the code of its last reply.
    async fn upload(&mut self, tls: &Tls, name: &str, content: &[u8]) -> String {
        let data = self.data().await;
        self.send(&format!("STOR {name}")).await;
        self.expect("150").await;
        if let Ok(mut data) = tls.on(data).await {
            // A server that refuses closes the connection.
            let _ = data.write_all(content).await;
            let _ = data.shutdown().await;
            let _ = data.read_to_end(&mut Vec::new()).await;
        }
        self.code().await
    }

    async fn code(&mut self) -> String {
        self.line().await.chars().take(3).collect()
    }
}

#[tokio::test]
async fn a_stranger_logs_in_over_tls_and_not_without() {
    let encrypted = encrypted(|_| ()).await;
    let mut client = encrypted.setting.connect_from("192.0.2.7:50000");
    client.expect("220").await;
    client.send("USER alice").await;
    assert!(client.expect("530").await.contains("AUTH TLS"));
    client
        .talk(&[("PASS secret", "503"), ("AUTH TLS", "234")])
        .await;
    let mut client = encrypted.reusing().over(client).await.expect("a handshake");
    client.talk(LOGIN).await;
    client.talk(&[("PWD", "257"), ("QUIT", "221")]).await;
    assert_eq!(client.line().await, "");
}

#[tokio::test]
async fn what_was_sent_behind_auth_is_dropped() {
    let encrypted = encrypted(|_| ()).await;
    let mut client = encrypted.setting.connect_from("127.0.0.1:50000");
    client.expect("220").await;
    // The last one is half a line, which must not become the start of the next.
    client
        .stream
        .write_all(b"AUTH TLS\r\nUSER alice\r\nPASS secret\r\nNO")
        .await
        .expect("writes");
    client.expect("234").await;
    let mut client = encrypted.reusing().over(client).await.expect("a handshake");
    client.talk(&[("PWD", "530"), ("NOOP", "200")]).await;
}

#[tokio::test]
async fn auth_forgets_who_was_logged_in() {
    let encrypted = encrypted(|_| ()).await;
    let mut client = encrypted.setting.log_in().await;
    client.talk(&[("PWD", "257"), ("AUTH TLS", "234")]).await;
    let mut client = encrypted.reusing().over(client).await.expect("a handshake");
    client.talk(&[("PWD", "530")]).await;
    client.talk(LOGIN).await;
    client.talk(&[("PWD", "257")]).await;
}

#[tokio::test]
async fn the_order_is_auth_then_pbsz_then_prot() {
    let encrypted = encrypted(|_| ()).await;
    let mut client = encrypted.setting.connect_from("127.0.0.1:50000");
    client.expect("220").await;
    client
        .talk(&[
            ("PBSZ 0", "503"),
            ("PROT P", "503"),
            ("CCC", "533"),
            ("AUTH TLS-P", "504"),
            ("AUTH GSSAPI", "504"),
            ("AUTH TLS", "234"),
        ])
        .await;
    let mut client = encrypted.reusing().over(client).await.expect("a handshake");
    client
        .talk(&[
            ("PROT P", "503"),
            ("PBSZ 0", "200"),
            ("PROT S", "536"),
            ("PROT E", "536"),
            ("PROT X", "504"),
            ("PROT C", "534"),
            ("PROT P", "200"),
            ("CCC", "534"),
            ("AUTH TLS", "503"),
            ("REIN", "220"),
            ("PROT P", "503"),
        ])
        .await;
}

#[tokio::test]
async fn feat_shows_tls_where_there_is_tls() {
    let encrypted = encrypted(|_| ()).await;
    for (setting, shown) in [(setting().await, false), (encrypted.setting, true)] {
        let mut client = setting.connect_from("127.0.0.1:50000");
        client.expect("220").await;
        client.send("FEAT").await;
        let mut features = Vec::new();
        loop {
            let line = client.line().await;
            if line.starts_with("211 ") {
                break;
            }
            features.push(line.trim().to_owned());
        }
        for feature in ["AUTH TLS", "PBSZ", "PROT"] {
            assert_eq!(features.iter().any(|line| line == feature), shown);
        }
        assert!(!features.iter().any(|line| line == "CCC"));
        client
            .talk(&[("AUTH TLS", if shown { "234" } else { "502" })])
            .await;
    }
}

#[tokio::test]
async fn a_handshake_that_fails_or_never_comes_closes_the_connection() {
    let encrypted = encrypted(|_| ()).await;
    let mut client = encrypted.setting.connect_from("127.0.0.1:50000");
    client.expect("220").await;
    client.talk(&[("AUTH TLS", "234")]).await;
    client.send("USER alice").await;
    // There may be an alert, but no reply.
    let mut rest = Vec::new();
    client.stream.read_to_end(&mut rest).await.expect("reads");
    assert!(!rest.starts_with(b"331"), "{rest:?}");

    tokio::time::pause();
    let started = Instant::now();
    let mut client = encrypted.setting.connect_from("127.0.0.1:50000");
    client.expect("220").await;
    client.talk(&[("AUTH TLS", "234")]).await;
    assert_eq!(client.line().await, "");
    assert_eq!(started.elapsed().as_secs(), TIMEOUTS.login.as_secs());
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_handshake() {
    for start in [TlsStart::Command, TlsStart::Connection] {
        let Encrypted { setting, .. } = encrypted(|tls| tls.start = start).await;
        let mut client = setting.connect_from("127.0.0.1:50000");
        if start == TlsStart::Command {
            client.expect("220").await;
            client.send("AUTH TLS").await;
            client.expect("234").await;
        }
        tokio::time::pause();
        // The server waits for the first message.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let stopped = Instant::now();
        setting.drain.begin();
        assert_eq!(client.line().await, "");
        assert_eq!(stopped.elapsed(), Duration::ZERO);
        tokio::time::resume();
    }
}

#[tokio::test]
async fn a_stop_does_not_wait_for_the_end_of_tls_after_ccc() {
    let encrypted = encrypted(|tls| tls.may_clear_control = true).await;
    let mut client = encrypted
        .reusing()
        .cleared(&encrypted, EndOfTls::Unsaid)
        .await;
    tokio::time::pause();
    // The server waits for the client's part.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let stopped = Instant::now();
    encrypted.setting.drain.begin();
    assert_eq!(client.line().await, "");
    assert_eq!(stopped.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn a_request_of_http_is_not_answered() {
    let encrypted = encrypted(|_| ()).await;
    let mut client = encrypted.setting.connect_from("127.0.0.1:50000");
    client.expect("220").await;
    client
        .send("POST / HTTP/1.1\r\nHost: x\r\n\r\nUSER alice")
        .await;
    assert_eq!(client.line().await, "");
}

#[tokio::test]
async fn a_name_of_another_protocol_is_refused() {
    let encrypted = encrypted(|_| ()).await;
    for (name, served) in [("ftp", true), ("http/1.1", false)] {
        let mut client = encrypted.setting.connect_from("127.0.0.1:50000");
        client.expect("220").await;
        client.talk(&[("AUTH TLS", "234")]).await;
        let mut config = ClientConfig::clone(&encrypted.reusing().0);
        config.alpn_protocols = vec![name.as_bytes().to_vec()];
        let result = Tls(Arc::new(config)).over(client).await;
        assert_eq!(result.is_ok(), served, "{name}");
    }
}

#[tokio::test]
async fn a_data_connection_belongs_to_its_session_or_is_refused() {
    use DataBinding::{Off, Prefer, Required};
    for version in VERSIONS {
        for (binding, own, none, foreign) in [
            (Required, "226", "522", "522"),
            (Prefer, "226", "226", "522"),
            (Off, "226", "226", "226"),
        ] {
            let encrypted = encrypted(|tls| tls.binding = binding).await;
            let tls = encrypted.tls(version, Resumption::in_memory_sessions(16));
            let mut client = encrypted.log_in(&tls).await;
            // One ticket serves many data connections, or each serves one.
            for number in 0..3 {
                let code = client.upload(&tls, &format!("own{number}"), b"x").await;
                assert_eq!(code, own, "{version:?} {binding:?}");
            }
            let forgetful = encrypted.tls(version, Resumption::disabled());
            let code = client.upload(&forgetful, "none", b"x").await;
            assert_eq!(code, none, "{version:?} {binding:?}");
            let other = encrypted.tls(version, Resumption::in_memory_sessions(16));
            let _other = encrypted.log_in(&other).await;
            let code = client.upload(&other, "foreign", b"x").await;
            assert_eq!(code, foreign, "{version:?} {binding:?}");
            // The session goes on, and nothing is left of what was refused.
            client
                .talk(&[("SIZE none", if none == "226" { "213" } else { "550" })])
                .await;
        }
    }
}

#[tokio::test]
async fn downloads_and_listings_end_with_close_notify() {
    let encrypted = encrypted(|_| ()).await;
    let tls = encrypted.reusing();
    let mut client = encrypted.log_in(&tls).await;
    let content = vec![7; 3_000_000];
    assert_eq!(client.upload(&tls, "file", &content).await, "226");
    for (command, expected) in [("RETR file", Some(content)), ("MLSD", None)] {
        let data = client.data().await;
        client.send(command).await;
        client.expect("150").await;
        let mut data = tls.on(data).await.expect("a handshake");
        let mut received = Vec::new();
        // Without close_notify this is an error.
        data.read_to_end(&mut received).await.expect("a clean end");
        // The reply does not wait for the client's own end.
        client.expect("226").await;
        assert!(expected.is_none_or(|expected| expected == received));
    }
}

#[tokio::test]
async fn the_data_handshake_may_come_before_the_command() {
    let encrypted = encrypted(|_| ()).await;
    let tls = encrypted.reusing();
    let mut client = encrypted.log_in(&tls).await;
    let mut data = tls.on(client.data().await).await.expect("a handshake");
    data.write_all(b"early").await.expect("written");
    data.shutdown().await.expect("written");
    client.talk(&[("STOR file", "150")]).await;
    client.expect("226").await;
    client.talk(&[("SIZE file", "213 5")]).await;
}

#[tokio::test]
async fn an_upload_without_close_notify_is_whole_unless_that_is_strict() {
    for (end, code, size) in [
        (BareEnd::Tolerated, "226", "213 4"),
        (BareEnd::Refused, "426", "213 4"),
    ] {
        let encrypted = encrypted(|tls| tls.upload_end = end).await;
        let tls = encrypted.reusing();
        let mut client = encrypted.log_in(&tls).await;
        let data = client.data().await;
        client.talk(&[("STOR file", "150")]).await;
        let mut data = tls.on(data).await.expect("a handshake");
        data.write_all(b"half").await.expect("written");
        data.flush().await.expect("written");
        // TCP ends in order, TLS says nothing.
        data.get_mut().0.shutdown().await.expect("ends");
        client.expect(code).await;
        client.talk(&[("SIZE file", size)]).await;
        client.send("MLST file").await;
        client.expect("250").await;
        let incomplete = client.line().await.contains("X.incomplete=1");
        assert_eq!(incomplete, code == "426");
    }
}

#[tokio::test]
async fn an_upload_that_ends_within_a_record_is_cut() {
    let encrypted = encrypted(|tls| tls.upload_end = BareEnd::Tolerated).await;
    let tls = encrypted.reusing();
    let mut client = encrypted.log_in(&tls).await;
    for (lacking, code) in [(0, "226"), (1, "426")] {
        let data = client.data().await;
        client.talk(&[("STOR file", "150")]).await;
        let (mut data, mut session) = tls.on(data).await.expect("a handshake").into_inner();
        session.writer().write_all(b"whole").expect("taken");
        let mut record = Vec::new();
        session.write_tls(&mut record).expect("encrypted");
        let sent = &record[..record.len() - lacking];
        data.write_all(sent).await.expect("written");
        data.shutdown().await.expect("ends");
        client.expect(code).await;
    }
}

#[tokio::test]
async fn data_in_the_clear_is_refused_where_the_policy_says_so() {
    for (data, reply) in [
        (DataPrivacy::Required, "522"),
        (DataPrivacy::Optional, "150"),
        (DataPrivacy::Off, "150"),
    ] {
        let encrypted = encrypted(|tls| tls.data = data).await;
        let mut client = encrypted.setting.connect_from("127.0.0.1:50000");
        client.expect("220").await;
        client.talk(&[("AUTH TLS", "234")]).await;
        let mut client = encrypted.reusing().over(client).await.expect("a handshake");
        client.talk(LOGIN).await;
        let _data = client.data().await;
        client.talk(&[("MLSD", reply)]).await;
    }
    // From this machine a session without any TLS is what it always was.
    for (plain_on_loopback, reply) in [(true, "150"), (false, "522")] {
        let encrypted = encrypted(|tls| tls.plain_on_loopback = plain_on_loopback).await;
        let mut client = encrypted.setting.log_in().await;
        let _data = client.data().await;
        client.talk(&[("MLSD", reply)]).await;
    }
}

#[tokio::test]
async fn data_is_not_encrypted_where_that_is_off() {
    let encrypted = encrypted(|tls| tls.data = DataPrivacy::Off).await;
    let mut client = encrypted.setting.connect_from("127.0.0.1:50000");
    client.expect("220").await;
    client.talk(&[("AUTH TLS", "234")]).await;
    let mut client = encrypted.reusing().over(client).await.expect("a handshake");
    client.talk(LOGIN).await;
    client
        .talk(&[("PBSZ 0", "200"), ("PROT P", "534"), ("PROT C", "200")])
        .await;
}

#[tokio::test]
async fn a_port_opened_for_the_other_kind_of_connection_is_closed() {
    let encrypted = encrypted(|_| ()).await;
    let tls = encrypted.reusing();
    let mut client = encrypted.setting.connect_from("127.0.0.1:50000");
    client.expect("220").await;
    client.talk(&[("AUTH TLS", "234")]).await;
    let mut client = tls.over(client).await.expect("a handshake");
    client.talk(LOGIN).await;
    client.port().await;
    client
        .talk(&[("PBSZ 0", "200"), ("PROT P", "200"), ("MLSD", "425")])
        .await;
}

/// What a client does after the 200 to CCC.
#[derive(Clone, Copy, PartialEq)]
enum EndOfTls {
    /// It says its end, as RFC 4217 has it.
    Said,
    /// It goes on without, as curl does.
    Unsaid,
}

impl Tls {
    /// Logs in with PROT P, and takes TLS from the control connection.
    async fn cleared(&self, encrypted: &Encrypted, end: EndOfTls) -> Client {
        let mut client = encrypted.setting.connect_from("127.0.0.1:50000");
        client.expect("220").await;
        client.talk(&[("AUTH TLS", "234")]).await;
        let name = "localhost".try_into().expect("a name");
        let mut tls = TlsConnector::from(Arc::clone(&self.0))
            .connect(name, client.stream.into_inner())
            .await
            .expect("a handshake");
        for (command, code) in [("PBSZ 0", "200"), ("PROT P", "200")]
            .iter()
            .chain(LOGIN)
            .chain(&[("CCC", "200")])
        {
            let line = format!("{command}\r\n");
            tls.write_all(line.as_bytes()).await.expect("written");
            tls.flush().await.expect("written");
            let mut reply = [0; 256];
            let count = tls.read(&mut reply).await.expect("reads");
            let reply = reply.get(..count).unwrap_or_default();
            assert!(reply.starts_with(code.as_bytes()), "{command}");
        }
        if end == EndOfTls::Said {
            tls.get_mut().1.send_close_notify();
            tls.flush().await.expect("written");
        }
        // The server says its end in any case.
        assert_eq!(tls.read(&mut [0; 1]).await.expect("an end of TLS"), 0);
        let stream = tls.into_inner().0;
        Client {
            stream: BufReader::new(stream),
        }
    }
}

#[tokio::test]
async fn after_ccc_the_session_goes_on_in_the_clear_and_its_data_stay_encrypted() {
    let encrypted = encrypted(|tls| tls.may_clear_control = true).await;
    for version in VERSIONS {
        for end in [EndOfTls::Said, EndOfTls::Unsaid] {
            let tls = encrypted.tls(version, Resumption::in_memory_sessions(16));
            let mut client = tls.cleared(&encrypted, end).await;
            client.talk(&[("PWD", "257")]).await;
            assert_eq!(client.upload(&tls, "file", b"content").await, "226");
            let mut plain = client.data().await;
            client.talk(&[("RETR file", "150")]).await;
            plain.write_all(b"no handshake").await.expect("written");
            client.expect("425").await;
        }
    }
}

#[tokio::test]
async fn after_ccc_nobody_changes_what_protects_data_or_logs_in() {
    let encrypted = encrypted(|tls| tls.may_clear_control = true).await;
    let tls = encrypted.reusing();
    let mut client = tls.cleared(&encrypted, EndOfTls::Said).await;
    client
        .talk(&[
            ("AUTH TLS", "503"),
            ("PBSZ 0", "503"),
            ("PROT C", "503"),
            ("CCC", "533"),
            // As behind a connection that never was encrypted; this one is from this machine.
            ("REIN", "220"),
            ("AUTH TLS", "503"),
            ("PROT C", "503"),
        ])
        .await;
    client.talk(LOGIN).await;
    assert_eq!(client.upload(&tls, "file", b"content").await, "226");
}

#[tokio::test]
async fn ccc_is_for_who_is_logged_in_and_where_the_server_allows_it() {
    for (may_clear_control, before, after) in [(false, "534", "534"), (true, "530", "200")] {
        let encrypted = encrypted(|tls| tls.may_clear_control = may_clear_control).await;
        let mut client = encrypted.setting.connect_from("127.0.0.1:50000");
        client.expect("220").await;
        client.talk(&[("CCC", "533"), ("AUTH TLS", "234")]).await;
        let mut client = encrypted.reusing().over(client).await.expect("a handshake");
        client.talk(&[("CCC", before)]).await;
        client.talk(LOGIN).await;
        client.send("FEAT").await;
        let mut shown = false;
        loop {
            let line = client.line().await;
            shown |= line == " CCC\r\n";
            if line.starts_with("211 ") {
                break;
            }
        }
        assert_eq!(shown, may_clear_control);
        client.talk(&[("CCC", after)]).await;
    }
}

#[tokio::test]
async fn what_was_pipelined_behind_ccc_is_not_carried_out() {
    let encrypted = encrypted(|tls| tls.may_clear_control = true).await;
    let mut client = encrypted.log_in(&encrypted.reusing()).await;
    client.send("CCC\r\nMKD made\r\nNO").await;
    client.expect("200").await;
    // The client has not ended TLS, and what it sends is no end.
    client.send("MKD made").await;
    let mut said = Vec::new();
    // The connection ends, and TLS does not.
    assert!(client.stream.read_to_end(&mut said).await.is_err());
    assert!(said.is_empty());
    let mut other = encrypted.log_in(&encrypted.reusing()).await;
    other.talk(&[("MLST made", "550")]).await;
}

#[tokio::test]
async fn an_implicit_listener_starts_with_tls_and_protects_data() {
    let encrypted = encrypted(|tls| tls.start = TlsStart::Connection).await;
    let tls = encrypted.reusing();
    let client = encrypted.setting.connect_from("192.0.2.7:50000");
    let mut client = tls.over(client).await.expect("a handshake");
    client.expect("220").await;
    client.talk(&[("AUTH TLS", "503")]).await;
    client.talk(LOGIN).await;

    let client = encrypted.setting.connect_from("127.0.0.1:50000");
    let mut client = tls.over(client).await.expect("a handshake");
    client.expect("220").await;
    client.talk(LOGIN).await;
    assert_eq!(
        client.upload(&encrypted.forgetful(), "file", b"x").await,
        "226"
    );

    // Nothing is said to who does not speak TLS.
    let mut client = encrypted.setting.connect_from("127.0.0.1:50000");
    client.send("USER alice").await;
    let mut said = Vec::new();
    client.stream.read_to_end(&mut said).await.expect("reads");
    assert!(!said.starts_with(b"220"), "{said:?}");
}

#[tokio::test]
async fn a_data_handshake_that_never_comes_ends_the_transfer() {
    let encrypted = encrypted(|_| ()).await;
    let tls = encrypted.reusing();
    let mut client = encrypted.log_in(&tls).await;
    let _data = client.data().await;
    client.talk(&[("STOR file", "150")]).await;
    tokio::time::pause();
    let started = Instant::now();
    client.expect("425").await;
    assert!(started.elapsed() <= TIMEOUTS.data_connect + Duration::from_secs(1));
    client.talk(&[("SIZE file", "550")]).await;
}
