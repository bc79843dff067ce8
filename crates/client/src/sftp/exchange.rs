//! Requests out, responses in, many at a time, nothing for ever.
//!
//! Invariant: a response is taken only for a request that waits for one, and
//! content only as far as it was asked for, so that what a server makes this
//! end remember is bounded by what was asked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::sleep;
use wharf_proto::sftp::{
    ClientPacket, FrameError, Request, RequestId, Response, ServerPacket, StatusCode, VERSION,
    take_packet,
};

use super::refusal::{refusal, unexpected};
use crate::error::{ClientError, Waiting};

/// What an end of the streams means: whoever opened them may know more than that they ended.
pub(crate) type Explain = Box<dyn Fn(ClientError) -> ClientError + Send + Sync>;

/// The two directions of a connection to an SFTP server.
pub(super) struct Exchange {
    input: Box<dyn AsyncRead + Send + Unpin>,
    output: Box<dyn AsyncWrite + Send + Unpin>,
    /// What has come and is no whole packet yet.
    buffer: BytesMut,
    /// Requests without a response, and how much content theirs may hold.
    waiting: BTreeMap<RequestId, usize>,
    /// Responses that nobody has asked after yet.
    arrived: BTreeMap<RequestId, Response>,
    /// Requests whose responses nobody will ask after.
    forgotten: BTreeSet<RequestId>,
    next: u32,
    /// Longest silence while something is due.
    stall: Duration,
    explain: Explain,
    /// The connection is of no more use.
    is_broken: bool,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange")
            .field("waiting", &self.waiting.len())
            .field("arrived", &self.arrived.len())
            .field("is_broken", &self.is_broken)
            .finish_non_exhaustive()
    }
}

impl Exchange {
    /// Agrees with the server on the version. Returns its extensions too: names and values.
    pub(super) async fn begin(
        input: impl AsyncRead + Send + Unpin + 'static,
        output: impl AsyncWrite + Send + Unpin + 'static,
        stall: Duration,
        explain: Explain,
    ) -> Result<(Self, Vec<(Bytes, Bytes)>), ClientError> {
        let mut exchange = Self {
            input: Box::new(input),
            output: Box::new(output),
            buffer: BytesMut::new(),
            waiting: BTreeMap::new(),
            arrived: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            next: 0,
            stall,
            explain,
            is_broken: false,
        };
        let mut packet = BytesMut::new();
        let init = ClientPacket::Init {
            version: VERSION,
            extensions: Vec::new(),
        };
        init.encode(&mut packet);
        exchange.write(&packet).await?;
        let packet = loop {
            match take_packet(&mut exchange.buffer) {
                Ok(Some(packet)) => break packet,
                Ok(None) => exchange.read_more().await?,
                Err(_) => return Err(ClientError::Protocol(NO_SFTP.to_owned())),
            }
        };
        match ServerPacket::decode(packet) {
            Ok(ServerPacket::Version {
                version: VERSION,
                extensions,
            }) => Ok((exchange, extensions)),
            Ok(ServerPacket::Version { version, .. }) => Err(ClientError::Protocol(format!(
                "it speaks version {version} of SFTP, and this client version {VERSION}"
            ))),
            _ => Err(ClientError::Protocol(NO_SFTP.to_owned())),
        }
    }

    /// Longest silence while something is due.
    pub(super) fn stall(&self) -> Duration {
        self.stall
    }

    /// Whether the connection can take a request.
    pub(super) fn is_usable(&self) -> bool {
        !self.is_broken
    }

    /// Sends a request and waits for its response.
    ///
    /// Dropping the future is safe: the response is read and thrown away later,
    /// unless the request was cut in the middle; then the connection is of no more use.
    pub(super) async fn call(&mut self, request: Request) -> Result<Response, ClientError> {
        let id = self.send(request).await?;
        self.receive(id, Waiting::Reply, self.stall).await
    }

    /// As [`Self::call`], for a request that is answered by a status alone.
    pub(super) async fn complete(&mut self, request: Request) -> Result<(), ClientError> {
        match self.call(request).await? {
            Response::Status {
                code: StatusCode::Ok,
                ..
            } => Ok(()),
            response => Err(self.refused(response)),
        }
    }

    /// Sends a request. While the server takes nothing, what it says is taken in:
    /// it may have to say something before it takes more.
    pub(super) async fn send(&mut self, request: Request) -> Result<RequestId, ClientError> {
        let content_bytes = match &request {
            Request::Read { length, .. } => usize::try_from(*length).unwrap_or(usize::MAX),
            _ => 0,
        };
        let id = self.free_id();
        let mut packet = BytesMut::new();
        ClientPacket::Request(id, request).encode(&mut packet);
        self.waiting.insert(id, content_bytes);
        self.write(&packet).await?;
        Ok(id)
    }

    /// The response to a request that was sent.
    pub(super) async fn receive(
        &mut self,
        id: RequestId,
        waiting: Waiting,
        deadline: Duration,
    ) -> Result<Response, ClientError> {
        loop {
            // What came with an earlier packet needs no waiting.
            self.take_packets()?;
            if let Some(response) = self.arrived.remove(&id) {
                return Ok(response);
            }
            self.read_within(waiting, deadline).await?;
        }
    }

    /// The response to a request, if it is there already.
    pub(super) fn arrived(&mut self, id: RequestId) -> Option<Response> {
        self.arrived.remove(&id)
    }

    /// Nobody will ask after the response to this request.
    pub(super) fn forget(&mut self, id: RequestId) {
        if self.arrived.remove(&id).is_none() && self.waiting.contains_key(&id) {
            self.forgotten.insert(id);
        }
    }

    /// What a response says that is none of the wished ones.
    pub(super) fn refused(&mut self, response: Response) -> ClientError {
        match response {
            Response::Status { code, message } => refusal(code, &message),
            other => self.broken(unexpected(&other)),
        }
    }

    /// Gives the connection up because of `error`.
    pub(super) fn broken(&mut self, error: ClientError) -> ClientError {
        self.is_broken = true;
        error
    }

    /// Ends the connection towards the server.
    pub(super) async fn close(mut self) {
        let _ = tokio::time::timeout(GOODBYE, self.output.shutdown()).await;
    }

    fn free_id(&mut self) -> RequestId {
        // After 2^32 requests numbers come again; one that is in use is passed over.
        loop {
            let id = RequestId(self.next);
            self.next = self.next.wrapping_add(1);
            if !self.waiting.contains_key(&id) && !self.arrived.contains_key(&id) {
                return id;
            }
        }
    }

    async fn write(&mut self, packet: &[u8]) -> Result<(), ClientError> {
        // Dropped in the middle of a packet, the connection stays broken.
        let was_broken = std::mem::replace(&mut self.is_broken, true);
        let mut rest = packet;
        while !rest.is_empty() {
            self.buffer.reserve(READ_BYTES);
            tokio::select! {
                biased;
                written = self.output.write(rest) => {
                    rest = rest.get(self.moved(written)?..).unwrap_or_default();
                }
                read = self.input.read_buf(&mut self.buffer) => {
                    self.moved(read)?;
                    self.take_packets()?;
                }
                () = sleep(self.stall) => return Err(silent(Waiting::Data, self.stall)),
            }
        }
        self.is_broken = was_broken;
        Ok(())
    }

    async fn read_more(&mut self) -> Result<(), ClientError> {
        self.read_within(Waiting::Reply, self.stall).await
    }

    async fn read_within(
        &mut self,
        waiting: Waiting,
        deadline: Duration,
    ) -> Result<(), ClientError> {
        self.buffer.reserve(READ_BYTES);
        let result = tokio::select! {
            biased;
            read = self.input.read_buf(&mut self.buffer) => self.moved(read),
            () = sleep(deadline) => Err(silent(waiting, deadline)),
        };
        result.map(drop).map_err(|error| self.broken(error))
    }

    /// How many bytes went through a stream, whose end is an error.
    fn moved(&self, result: std::io::Result<usize>) -> Result<usize, ClientError> {
        let error = match result {
            Ok(0) => ClientError::Closed(None),
            Ok(count) => return Ok(count),
            Err(error) => ended(error),
        };
        Err((self.explain)(error))
    }

    fn take_packets(&mut self) -> Result<(), ClientError> {
        loop {
            match take_packet(&mut self.buffer) {
                Ok(Some(packet)) => self.take_response(packet)?,
                Ok(None) => return Ok(()),
                Err(error) => return Err(self.broken(broken_frame(error))),
            }
        }
    }

    fn take_response(&mut self, packet: Bytes) -> Result<(), ClientError> {
        let (id, response) = match ServerPacket::decode(packet) {
            Ok(ServerPacket::Response(id, response)) => (id, response),
            Ok(ServerPacket::Version { .. }) => {
                return Err(self.broken(protocol("a second greeting came")));
            }
            Err(error) => return Err(self.broken(protocol(&error.to_string()))),
        };
        let Some(content_bytes) = self.waiting.remove(&id) else {
            return Err(self.broken(protocol("it answered a request that was not made")));
        };
        if self.forgotten.remove(&id) {
            return Ok(());
        }
        if let Response::Data(data) = &response
            && data.len() > content_bytes
        {
            return Err(self.broken(protocol("it sent more than it was asked for")));
        }
        self.arrived.insert(id, response);
        Ok(())
    }
}

/// A channel that is closed reports a broken pipe.
fn ended(error: std::io::Error) -> ClientError {
    match error.kind() {
        std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::UnexpectedEof => {
            ClientError::Closed(None)
        }
        _ => ClientError::Connection(error),
    }
}

fn silent(waiting: Waiting, after: Duration) -> ClientError {
    ClientError::Timeout { waiting, after }
}

fn broken_frame(error: FrameError) -> ClientError {
    protocol(&error.to_string())
}

fn protocol(what: &str) -> ClientError {
    ClientError::Protocol(what.to_owned())
}

const NO_SFTP: &str =
    "its first words are no SFTP; a start-up file of the account's shell may print something";

/// Room that is made before each read: several responses of a fast server at once.
const READ_BYTES: usize = 64 * 1024;

/// How long a server may take to hear that this was all.
const GOODBYE: Duration = Duration::from_secs(2);
