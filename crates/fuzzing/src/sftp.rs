//! SFTP: the packets of both ends, and whole sessions with their files in memory.

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wharf_proto::sftp::{
    CheckedFile, ClientPacket, Handle, Limits, MAX_READ_BYTES, Request, RequestId, Response,
    ServerPacket, StatVfs, UserGroupNames, take_packet,
};
use wharf_server::activity::Activity;
use wharf_server::registry::Transfers;
use wharf_server::sftp::{AttributePolicy, SessionError, SftpOptions, serve};

use crate::home::{self, MemoryHome};
use crate::split_first;

/// Longest script.
const MAX_SCRIPT_BYTES: usize = 8 * 1024;

/// Bytes that a pipe holds before its writer waits.
const PIPE_BYTES: usize = 4 * 1024;

/// Stands in a script where the handle with the number behind it belongs: as long as one.
const HANDLE_MARK: &[u8; 7] = b"handle_";

/// What was decoded is the same when it is written and decoded again, packets are the same in every
/// chunking, and no answer of an extension panics. The first byte is the size of a chunk.
pub(crate) fn packets(input: &[u8]) {
    let (chunk_bytes, input) = split_first(input);
    let packet = Bytes::copy_from_slice(input);
    if let Ok(decoded) = ClientPacket::decode(packet.clone()) {
        let mut out = BytesMut::new();
        decoded.encode(&mut out);
        let written = take_packet(&mut out).expect("a packet").expect("whole");
        assert_eq!(ClientPacket::decode(written), Ok(decoded));
    }
    if let Ok(decoded) = ServerPacket::decode(packet.clone()) {
        let mut out = BytesMut::new();
        decoded.encode(&mut out);
        let written = take_packet(&mut out).expect("a packet").expect("whole");
        assert_eq!(ServerPacket::decode(written), Ok(decoded));
    }
    let _ = StatVfs::decode(packet.clone());
    let _ = Limits::decode(packet.clone());
    let _ = CheckedFile::decode(packet.clone());
    let _ = UserGroupNames::decode(packet);
    assert_eq!(cut(input, input.len()), cut(input, chunk_bytes));
}

fn cut(input: &[u8], chunk_bytes: usize) -> (Vec<Bytes>, bool) {
    let (mut buffer, mut packets) = (BytesMut::new(), Vec::new());
    for chunk in input.chunks(chunk_bytes.max(1)) {
        buffer.extend_from_slice(chunk);
        loop {
            match take_packet(&mut buffer) {
                Ok(Some(packet)) => packets.push(packet),
                Ok(None) => break,
                Err(_) => return (packets, true),
            }
        }
    }
    (packets, false)
}

/// Whatever a client sends: no panic; each request has one answer, in a form that the
/// client's decoder reads; a session ends with its stream; the ledger says what the storage
/// holds, and that is within the quota.
///
/// A script is a stream of packets. Those with an odd id go to a second session of the same
/// account. `handle_0` stands for the first handle of a session, up to `handle_9`; a session
/// waits for its answers where something is opened, and else sends on.
pub(crate) fn session(script: &[u8]) {
    if script.len() > MAX_SCRIPT_BYTES {
        return;
    }
    home::run(play(script));
}

async fn play(script: &[u8]) {
    let home = MemoryHome::new();
    let mut first = Client::connect(&home).await;
    let mut second = Client::connect(&home).await;
    let mut rest = BytesMut::from(script);
    while let Ok(Some(packet)) = take_packet(&mut rest) {
        let is_odd = packet.get(4).is_some_and(|last| last % 2 == 1);
        let client = if is_odd { &mut second } else { &mut first };
        client.send(&packet).await;
    }
    second.end(&[]).await;
    first.end(&rest).await;
    home.check().await;
}

struct Client {
    writer: Option<WriteHalf<tokio::io::DuplexStream>>,
    answers: UnboundedReceiver<(RequestId, Response)>,
    reading: JoinHandle<()>,
    session: JoinHandle<Result<(), SessionError>>,
    handles: Vec<Handle>,
    sent: Vec<RequestId>,
    answered: Vec<RequestId>,
}

impl Client {
    async fn connect(home: &MemoryHome) -> Self {
        let (stream, server) = duplex(PIPE_BYTES);
        let options = SftpOptions {
            account: Bytes::from_static(b"alice"),
            attributes: AttributePolicy::Refuse,
            activity: Activity::default(),
            transfers: Transfers::unseen(),
            stop: CancellationToken::new(),
        };
        let session = tokio::spawn(serve(server, home.vfs.clone(), options));
        let (mut reader, mut writer) = split(stream);
        writer
            .write_all(b"\0\0\0\x05\x01\0\0\0\x03")
            .await
            .expect("taken");
        let mut buffer = BytesMut::new();
        let first = next(&mut reader, &mut buffer).await;
        assert!(matches!(
            first,
            Some(ServerPacket::Version { version: 3, .. })
        ));
        let (found, answers) = unbounded_channel();
        let reading = tokio::spawn(async move {
            while let Some(packet) = next(&mut reader, &mut buffer).await {
                let ServerPacket::Response(id, response) = packet else {
                    panic!("a second version");
                };
                found.send((id, response)).expect("the client is there");
            }
        });
        Self {
            writer: Some(writer),
            answers,
            reading,
            session,
            handles: Vec::new(),
            sent: Vec::new(),
            answered: Vec::new(),
        }
    }

    async fn send(&mut self, packet: &[u8]) {
        let packet = self.with_handles(packet);
        let length = u32::try_from(packet.len()).expect("short");
        let Some(writer) = &mut self.writer else {
            return;
        };
        let whole = [&length.to_be_bytes()[..], &packet].concat();
        if writer.write_all(&whole).await.is_err() {
            // The session has ended.
            self.writer = None;
            return;
        }
        match ClientPacket::decode(Bytes::from(packet)) {
            Ok(ClientPacket::Init { .. }) => self.writer = None,
            Ok(ClientPacket::Request(id, request)) => {
                self.sent.push(id);
                if matches!(
                    request,
                    Request::Open { .. } | Request::OpenDirectory { .. }
                ) {
                    self.wait().await;
                }
            }
            Err(undecodable) => match undecodable.id {
                Some(id) => self.sent.push(id),
                None => self.writer = None,
            },
        }
    }

    fn with_handles(&self, packet: &[u8]) -> Vec<u8> {
        let mut packet = packet.to_vec();
        let mut at = 0;
        while let Some(window) = packet.get_mut(at..at + HANDLE_MARK.len() + 1) {
            if let Some([digit]) = window.strip_prefix(HANDLE_MARK)
                && let Some(handle) = self.handles.get(usize::from(digit.wrapping_sub(b'0')))
                && handle.0.len() == window.len()
            {
                window.copy_from_slice(&handle.0);
            }
            at += 1;
        }
        packet
    }

    /// Waits until everything is answered.
    async fn wait(&mut self) {
        while self.answered.len() < self.sent.len() {
            let (id, response) = self.answers.recv().await.expect("each request is answered");
            self.take(id, response);
        }
    }

    fn take(&mut self, id: RequestId, response: Response) {
        match response {
            Response::Handle(handle) => self.handles.push(handle),
            Response::Data(data) => assert!(data.len() <= MAX_READ_BYTES),
            _ => {}
        }
        self.answered.push(id);
    }

    /// Sends what is no packet any more, and ends the stream.
    async fn end(mut self, rest: &[u8]) {
        let only_packets = self.writer.is_some() && rest.is_empty();
        if let Some(mut writer) = self.writer.take() {
            // The session may end at the first byte of it.
            let _ = writer.write_all(rest).await;
            let _ = writer.shutdown().await;
        }
        let ended = (&mut self.session).await.expect("no panic");
        (&mut self.reading).await.expect("no panic");
        while let Ok((id, response)) = self.answers.try_recv() {
            self.take(id, response);
        }
        let distinct = |ids: &[RequestId]| ids.iter().copied().collect::<BTreeSet<_>>();
        assert!(distinct(&self.answered).is_subset(&distinct(&self.sent)));
        assert!(self.answered.len() <= self.sent.len(), "an answer too many");
        if only_packets {
            ended.expect("an end between packets is one");
            self.answered.sort_unstable();
            self.sent.sort_unstable();
            assert_eq!(self.answered, self.sent, "each request has one answer");
        }
    }
}

/// The next packet; `None` at the end.
async fn next(
    reader: &mut ReadHalf<tokio::io::DuplexStream>,
    buffer: &mut BytesMut,
) -> Option<ServerPacket> {
    loop {
        if let Some(packet) = take_packet(buffer).expect("the server sends packets") {
            return Some(ServerPacket::decode(packet).expect("that the client reads"));
        }
        if reader.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}
