//! SSH spoken byte by byte, to a server that encrypts nothing.

#![expect(clippy::indexing_slicing, reason = "a test may panic")]
#![allow(dead_code, reason = "each test binary uses its part of it")]

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

/// Packets by their content, to a server that encrypts nothing.
pub(crate) struct Raw(pub(crate) DuplexStream);

impl Raw {
    /// Past the exchange of keys and, if wanted, the login.
    pub(crate) async fn open(stream: DuplexStream, logged_in: bool) -> Self {
        let mut raw = Self(stream);
        raw.0.write_all(b"SSH-2.0-raw\r\n").await.expect("writes");
        let lists = [
            "none",
            "ssh-ed25519",
            "none",
            "none",
            "none",
            "none",
            "none",
            "none",
            "",
            "",
        ];
        let mut offer = vec![20];
        offer.extend([0; 16]);
        for list in lists {
            offer.extend(string(list.as_bytes()));
        }
        offer.extend([0; 5]);
        raw.send(&offer).await;
        raw.send(&[21]).await;
        raw.send(&[&[5][..], &string(b"ssh-userauth")].concat())
            .await;
        if logged_in {
            let words = [&b"alice"[..], b"ssh-connection", b"password"]
                .map(string)
                .concat();
            let request = [&[50][..], &words, &[0], &string(b"secret")].concat();
            raw.send(&request).await;
        }
        raw
    }

    pub(crate) async fn send(&mut self, payload: &[u8]) {
        let _ = self.0.write_all(&packet(payload)).await;
    }
}

/// RFC 4251 §5.
pub(crate) fn string(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("short");
    [&length.to_be_bytes()[..], bytes].concat()
}

/// RFC 4253 §6, without a MAC.
pub(crate) fn packet(payload: &[u8]) -> Vec<u8> {
    let padding = 8 - (payload.len() + 5) % 8;
    let padding = if padding < 4 { padding + 8 } else { padding };
    let length = u32::try_from(1 + payload.len() + padding).expect("short");
    let mut packet = length.to_be_bytes().to_vec();
    packet.push(u8::try_from(padding).expect("at most 11"));
    packet.extend_from_slice(payload);
    packet.resize(packet.len() + padding, 0);
    packet
}

/// A channel of a client that decides byte by byte what it sends and takes, over a
/// connection that encrypts nothing.
pub(crate) struct RawChannel {
    pub(crate) stream: WriteHalf<DuplexStream>,
    /// What the server sends, from its first channel on.
    pub(crate) packets: mpsc::UnboundedReceiver<Vec<u8>>,
    /// The server's number for it.
    pub(crate) id: [u8; 4],
    /// How much the server takes.
    pub(crate) window: usize,
    pub(crate) taken: Vec<u8>,
}

impl RawChannel {
    /// What it may be sent at first.
    const WINDOW_BYTES: u32 = 100_000;

    /// A channel on which nothing runs yet.
    pub(crate) async fn open(stream: DuplexStream) -> Self {
        let Raw(stream) = Raw::open(stream, true).await;
        let (reading, stream) = tokio::io::split(stream);
        let (sender, packets) = mpsc::unbounded_channel();
        tokio::spawn(read_packets(reading, sender));
        let mut channel = Self {
            stream,
            packets,
            id: [0; 4],
            window: 0,
            taken: Vec::new(),
        };
        let sizes = [Self::WINDOW_BYTES, 32 * 1024]
            .map(u32::to_be_bytes)
            .concat();
        channel
            .send(&[&[90][..], &string(b"session"), &[0; 4], &sizes].concat())
            .await;
        let confirmed = loop {
            let packet = channel.packets.recv().await.expect("goes on");
            if packet.first() == Some(&91) {
                break packet;
            }
        };
        channel.id.copy_from_slice(&confirmed[5..9]);
        channel.window = number(&confirmed[9..]);
        channel
    }

    /// One on which this command runs.
    pub(crate) async fn run(stream: DuplexStream, command: &str) -> Self {
        let mut channel = Self::open(stream).await;
        let exec = [&string(b"exec")[..], &[0], &string(command.as_bytes())];
        channel.send_of(98, &exec.concat()).await;
        channel
    }

    pub(crate) async fn send(&mut self, payload: &[u8]) {
        self.stream
            .write_all(&packet(payload))
            .await
            .expect("writes");
    }

    /// Sends a message of this kind about the channel.
    pub(crate) async fn send_of(&mut self, kind: u8, more: &[u8]) {
        self.send(&[&[kind][..], &self.id, more].concat()).await;
    }

    pub(crate) async fn send_data(&mut self, data: &[u8]) {
        self.send_of(94, &string(data)).await;
        self.window -= data.len();
    }

    /// Takes so much more.
    pub(crate) async fn widen(&mut self, bytes: u32) {
        self.send_of(93, &bytes.to_be_bytes()).await;
    }

    /// Sends as much of `content` as windows allow, until they stay closed or it is all; how
    /// much it was.
    pub(crate) async fn send_until_closed(&mut self, content: &[u8]) -> usize {
        let mut sent = 0;
        let mut questions = 0;
        while sent < content.len() && questions < 10 {
            if self.window == 0 {
                self.take_packet().await;
                continue;
            }
            let count = self.window.min(32 * 1024).min(content.len() - sent);
            questions = if count <= 2 { questions + 1 } else { 0 };
            self.send_data(&content[sent..sent + count]).await;
            sent += count;
        }
        sent
    }

    pub(crate) async fn take_packet(&mut self) {
        let packet = self.packets.recv().await.expect("goes on");
        match packet.first() {
            Some(93) => self.window += number(&packet[5..]),
            Some(94) => self.taken.extend_from_slice(&packet[9..]),
            _ => {}
        }
    }
}

async fn read_packets(
    mut stream: ReadHalf<DuplexStream>,
    packets: mpsc::UnboundedSender<Vec<u8>>,
) -> std::io::Result<()> {
    while stream.read_u8().await? != b'\n' {}
    loop {
        let length = usize::try_from(stream.read_u32().await?).expect("64 bits");
        let mut packet = vec![0; length];
        stream.read_exact(&mut packet).await?;
        let padding = usize::from(packet[0]);
        let packet = packet[1..length - padding].to_vec();
        // Whoever listens no more takes nothing more.
        if packets.send(packet).is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn number(bytes: &[u8]) -> usize {
    let bytes = bytes[..4].try_into().expect("four");
    usize::try_from(u32::from_be_bytes(bytes)).expect("64 bits")
}
