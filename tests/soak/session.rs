//! What one user does: a control connection, and steps on it that are honest or not.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpSocket;
use tokio::time::sleep;
use wharf_net::{BareEnd, Stream, TlsClient, TlsClientOptions};

use crate::random::Random;
use crate::{ACCOUNTS, big_bytes, name};

/// Where a user sits, and what they use.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) number: usize,
    address: Ipv4Addr,
    kind: Kind,
    explicit: SocketAddr,
    implicit: SocketAddr,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Explicit,
    Implicit,
}

impl Place {
    pub(crate) fn new(number: usize, explicit: SocketAddr, implicit: SocketAddr) -> Self {
        let host = u8::try_from(number % 50 + 1).expect("at most 50");
        Self {
            number,
            address: Ipv4Addr::new(127, 0, 1, host),
            kind: match number % 4 {
                0 | 2 => Kind::Plain,
                1 => Kind::Explicit,
                _ => Kind::Implicit,
            },
            explicit,
            implicit,
        }
    }

    fn account(&self) -> usize {
        self.number % ACCOUNTS
    }

    fn server(&self) -> SocketAddr {
        match self.kind {
            Kind::Implicit => self.implicit,
            Kind::Plain | Kind::Explicit => self.explicit,
        }
    }
}

/// What users do; see [`Session::step`]. What stands here twice is done twice as often.
pub(crate) const STEPS: [&str; 28] = [
    "list",
    "list",
    "upload",
    "upload",
    "download",
    "verbs",
    "verbs",
    "verbs",
    "replace a big one",
    "over quota",
    "abort a download",
    "abort an upload",
    "reset an upload",
    "reset a download",
    "reset a session",
    "half-close",
    "slow reader",
    "stalled reader",
    "slow writer",
    "silent upload",
    "no connection",
    "unused port",
    "long line",
    "garbage",
    "pipeline",
    "broken handshake",
    "silent stranger",
    "quit or wrong password",
];

/// Commands that follow each other, and leave the session as it was.
const VERBS: [&[&str]; 16] = [
    &["PWD", "NOOP", "FEAT"],
    &["MKD d1", "CWD d1", "CDUP", "CWD /", "RMD d1"],
    &["MKD d2", "RNFR d2", "RNTO d3", "RMD d3"],
    &["RNFR f1", "RNTO f2"],
    &["RNFR f3", "NOOP", "RNTO f4"],
    &["SIZE f3", "MDTM f4", "MLST f5"],
    &["STAT", "STAT d1"],
    &["HASH f6", "XCRC f7", "HASH big"],
    &["RANG 1 1000", "HASH big"],
    &["SITE QUOTA", "AVBL"],
    &["SITE COPY f7 f8"],
    &["DELE f9", "DELE f9"],
    &["DELE f10"],
    &["SITE PARTIAL f11"],
    &["REST 100", "REST 0"],
    &["MFMT 20200101000000 f12"],
];

/// A control connection that is logged in.
pub(crate) struct Session {
    place: Place,
    control: BufReader<Stream>,
    tls: Option<Arc<TlsClient>>,
}

impl Session {
    async fn connect(place: Place) -> io::Result<Self> {
        let mut stream = dial(place.address, place.server()).await?;
        let tls = (place.kind != Kind::Plain).then(tls_client);
        if let (Kind::Implicit, Some(tls)) = (place.kind, &tls) {
            stream = tls.connect(stream).await.map_err(io::Error::other)?;
        }
        let mut session = Self {
            place,
            control: BufReader::new(stream),
            tls,
        };
        session.expect(220).await?;
        if place.kind == Kind::Explicit {
            session.ask("AUTH TLS", 234).await?;
            let tls = tls_client();
            let stream = session.control.into_inner();
            let stream = tls.connect(stream).await.map_err(io::Error::other)?;
            session.control = BufReader::new(stream);
            session.tls = Some(tls);
        }
        Ok(session)
    }

    /// A connection from elsewhere that nothing was heard of; with implicit
    /// TLS, before the handshake.
    async fn stranger(mut place: Place, random: &mut Random) -> io::Result<Self> {
        place.address = strange_address(random);
        let stream = dial(place.address, place.server()).await?;
        let mut stranger = Self {
            place,
            control: BufReader::new(stream),
            tls: None,
        };
        if place.kind != Kind::Implicit {
            stranger.expect(220).await?;
        }
        Ok(stranger)
    }

    pub(crate) async fn log_in(place: Place) -> io::Result<Self> {
        let mut session = Self::connect(place).await?;
        let user = format!("USER {}", name(place.account()));
        session.ask(&user, 331).await?;
        session.ask("PASS secret", 230).await?;
        session.ask("TYPE I", 200).await?;
        if place.kind == Kind::Explicit {
            session.ask("PBSZ 0", 200).await?;
            session.ask("PROT P", 200).await?;
        }
        Ok(session)
    }

    /// One step; whether the session goes on.
    pub(crate) async fn step(&mut self, step: &str, random: &mut Random) -> io::Result<bool> {
        let file = format!("f{}", random.below(20));
        match step {
            "list" => {
                let verb = *random.pick(&["LIST", "NLST", "MLSD", "LIST d1"]);
                self.download(verb).await?;
            }
            "upload" => {
                let bytes = usize::try_from(random.below(65_536)).expect("few");
                self.upload(&format!("STOR {file}"), bytes).await?;
            }
            "download" => {
                let (bytes, code) = self.download("RETR big").await?;
                let whole = big_bytes(self.place.account());
                assert!(code != 226 || bytes == whole, "{bytes} bytes are not whole");
            }
            "verbs" => self.verbs(random).await?,
            "replace a big one" => {
                self.upload(&format!("STOR b{}", random.below(4)), 300_000)
                    .await?;
            }
            "over quota" => {
                // ALLO is believed, and refused before a byte is sent.
                self.tell("ALLO 2000000000").await?;
                self.upload("STOR much", 1_200_000).await?;
                self.tell("DELE much").await?;
            }
            "abort a download" => {
                let mut data = self.passive().await?;
                if self.tell("RETR big").await? == 150 {
                    data.read_exact(&mut [0; 1000]).await?;
                    self.control.get_mut().write_all(b"ABOR\r\n").await?;
                    drop(data);
                    self.reply().await?;
                    self.expect(226).await?;
                }
            }
            "abort an upload" => {
                let mut data = self.passive().await?;
                if self.tell(&format!("STOR {file}")).await? == 150 {
                    data.write_all(&[1; 1000]).await?;
                    self.tell("STAT").await?;
                    self.control
                        .get_mut()
                        .write_all(b"\xff\xf4\xff\xf2ABOR\r\n")
                        .await?;
                    self.reply().await?;
                    self.expect(226).await?;
                }
            }
            "reset an upload" => {
                let mut data = self.passive().await?;
                if self.tell(&format!("STOR {file}")).await? == 150 {
                    data.write_all(&[2; 5000]).await?;
                    data.set_reset_on_drop(true);
                    drop(data);
                    self.reply().await?;
                }
            }
            "reset a download" => {
                let mut data = self.passive().await?;
                if self.tell("RETR big").await? == 150 {
                    data.read_exact(&mut [0; 1000]).await?;
                    data.set_reset_on_drop(true);
                    drop(data);
                    self.reply().await?;
                }
            }
            "reset a session" => {
                let _data = self.passive().await?;
                self.tell(&format!("APPE {file}")).await?;
                self.control.get_ref().set_reset_on_drop(true);
                return Ok(false);
            }
            "half-close" => {
                self.control.get_mut().write_all(b"NOOP\r\nPWD").await?;
                self.control.get_mut().shutdown().await?;
                self.control.read_to_end(&mut Vec::new()).await?;
                return Ok(false);
            }
            "slow reader" => {
                let mut data = self.passive().await?;
                if self.tell("RETR big").await? == 150 {
                    for _ in 0..10 {
                        data.read_exact(&mut [0; 4096]).await?;
                        sleep(Duration::from_millis(300)).await;
                    }
                    drop(data);
                    self.reply().await?;
                }
            }
            "stalled reader" => {
                let data = self.passive().await?;
                if self.tell("RETR big").await? == 150 {
                    // What the sockets cannot hold stalls the server.
                    self.reply().await?;
                    drop(data);
                }
            }
            "slow writer" => {
                let mut data = self.passive().await?;
                if self.tell(&format!("STOR {file}")).await? == 150 {
                    for _ in 0..10 {
                        data.write_all(b"x").await?;
                        data.flush().await?;
                        sleep(Duration::from_millis(300)).await;
                    }
                    data.shutdown().await?;
                    drop(data);
                    self.reply().await?;
                }
            }
            "no connection" => {
                self.port().await?;
                if self.tell(&format!("STOR {file}")).await? == 150 {
                    self.expect(425).await?;
                }
            }
            "unused port" => {
                self.port().await?;
                self.ask("NOOP", 200).await?;
                return Ok(random.below(2) == 0);
            }
            "silent upload" => {
                let mut data = self.passive().await?;
                if self.tell(&format!("STOR {file}")).await? == 150 {
                    data.write_all(&[3; 100]).await?;
                    data.flush().await?;
                    self.reply().await?;
                }
            }
            "long line" => {
                let line = "x".repeat(100_000);
                self.ask(&line, 500).await?;
            }
            "garbage" => {
                // No verb, but whole lines, each with its reply.
                let line: Vec<u8> = (0..200).map(|_| random.garbage()).collect();
                let lines = [&line[..], b"\r\n"].concat().repeat(5);
                self.control.get_mut().write_all(&lines).await?;
                self.control.get_mut().flush().await?;
                for _ in 0..5 {
                    self.expect(500).await?;
                }
            }
            "pipeline" => {
                let lines = "NOOP\r\n".repeat(200);
                self.control.get_mut().write_all(lines.as_bytes()).await?;
                self.control.get_mut().flush().await?;
                for _ in 0..200 {
                    self.expect(200).await?;
                }
            }
            "broken handshake" => {
                let mut stranger = Self::stranger(self.place, random).await?;
                if self.place.kind == Kind::Explicit {
                    stranger.ask("AUTH TLS", 234).await?;
                }
                // A record of TLS that is longer than what follows.
                let begun = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
                stranger.control.get_mut().write_all(begun).await?;
                stranger.control.get_mut().flush().await?;
                stranger
                    .control
                    .get_ref()
                    .set_reset_on_drop(random.below(2) == 0);
            }
            "silent stranger" => {
                let mut stranger = Self::stranger(self.place, random).await?;
                stranger.control.read_to_end(&mut Vec::new()).await?;
            }
            // Each costs the server a hash: few users make such mistakes.
            "quit or wrong password" if self.place.number.is_multiple_of(20) => {
                let mut place = self.place;
                place.address = strange_address(random);
                let mut stranger = Self::connect(place).await?;
                let account = usize::try_from(random.below(20)).expect("few");
                stranger
                    .ask(&format!("USER {}", name(account)), 331)
                    .await?;
                stranger.ask("PASS wrong", 530).await?;
            }
            "quit or wrong password" => {
                self.ask("QUIT", 221).await?;
                return Ok(false);
            }
            unknown => unreachable!("no step is called {unknown}"),
        }
        Ok(true)
    }

    async fn verbs(&mut self, random: &mut Random) -> io::Result<()> {
        for _ in 0..3 {
            for line in *random.pick(&VERBS) {
                self.tell(line).await?;
            }
        }
        Ok(())
    }

    /// Bytes that came, and the final code.
    async fn download(&mut self, command: &str) -> io::Result<(usize, u16)> {
        let mut data = self.passive().await?;
        let first = self.tell(command).await?;
        if first != 150 {
            return Ok((0, first));
        }
        let mut content = Vec::new();
        let read = data.read_to_end(&mut content).await;
        let code = self.reply().await?;
        read?;
        Ok((content.len(), code))
    }

    async fn upload(&mut self, command: &str, bytes: usize) -> io::Result<u16> {
        let mut data = self.passive().await?;
        let first = self.tell(command).await?;
        if first != 150 {
            return Ok(first);
        }
        // A server that refuses midway closes the connection.
        let _ = data.write_all(&vec![b'u'; bytes]).await;
        let _ = data.shutdown().await;
        drop(data);
        self.reply().await
    }

    async fn port(&mut self) -> io::Result<u16> {
        self.send("EPSV").await?;
        let (code, text) = self.whole_reply().await?;
        let port = text.split('|').nth(3).and_then(|port| port.parse().ok());
        port.ok_or_else(|| io::Error::other(format!("EPSV was answered with {code}")))
    }

    async fn passive(&mut self) -> io::Result<Stream> {
        let port = self.port().await?;
        let address = SocketAddr::new(self.place.server().ip(), port);
        let stream = dial(self.place.address, address).await?;
        match &self.tls {
            None => Ok(stream),
            Some(tls) => tls.connect_joining(stream).await.map_err(io::Error::other),
        }
    }

    async fn send(&mut self, line: &str) -> io::Result<()> {
        let control = self.control.get_mut();
        control.write_all(format!("{line}\r\n").as_bytes()).await?;
        control.flush().await
    }

    async fn tell(&mut self, line: &str) -> io::Result<u16> {
        self.send(line).await?;
        self.reply().await
    }

    async fn ask(&mut self, line: &str, expected: u16) -> io::Result<()> {
        self.send(line).await?;
        self.expect(expected).await
    }

    async fn expect(&mut self, expected: u16) -> io::Result<()> {
        let code = self.reply().await?;
        if code == expected {
            return Ok(());
        }
        Err(io::Error::other(format!("{code} instead of {expected}")))
    }

    async fn reply(&mut self) -> io::Result<u16> {
        Ok(self.whole_reply().await?.0)
    }

    async fn whole_reply(&mut self) -> io::Result<(u16, String)> {
        loop {
            let mut line = String::new();
            if self.control.read_line(&mut line).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let code = line.get(..3).and_then(|digits| digits.parse().ok());
            if let (Some(code), Some(" ")) = (code, line.get(3..4)) {
                return Ok((code, line));
            }
        }
    }
}

/// One of so many that none is banned: ten failures in ten minutes are.
fn strange_address(random: &mut Random) -> Ipv4Addr {
    let host = u8::try_from(random.below(250) + 1).expect("at most 250");
    Ipv4Addr::new(127, 0, 9, host)
}

async fn dial(from: Ipv4Addr, to: SocketAddr) -> io::Result<Stream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(IpAddr::V4(from), 0))?;
    let stream = Stream::from(socket.connect(to).await?);
    stream.set_nodelay();
    Ok(stream)
}

fn tls_client() -> Arc<TlsClient> {
    let options = TlsClientOptions {
        roots: Vec::new(),
        pinned: Arc::new(|_| true),
        identity: None,
        protocols: Vec::new(),
        joining_end: BareEnd::Refused,
    };
    Arc::new(TlsClient::new("localhost", options).expect("a name"))
}
