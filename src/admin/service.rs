//! The server's end: answers requests.

use std::collections::HashSet;
use std::io;
use std::process;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
    BufWriter,
};
use tokio::time::{Instant, timeout};
use wharf_model::SessionId;
use wharf_net::{Connection, ConnectionSlots, Drain, Refused, ServiceError, Stream, StreamService};
use wharf_server::registry::{Direction, Registry, SessionView, Subject, TransferView};

use super::{Answer, ListenerStatus, MAX_REQUEST_BYTES, Request, Session, State, Status, Transfer};
use crate::cli::text::{json_name, rate, time_for_machines};
use crate::compose::Place;

/// Most administrators at once.
pub(crate) const MOST_ADMINISTRATORS: usize = 16;

/// How long somebody may take for a request, and for its answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a server tells of itself, and does when asked.
pub(crate) struct Administration {
    registry: Registry,
    slots: ConnectionSlots,
    listeners: Vec<ListenerStatus>,
    since: Instant,
    started: SystemTime,
    drain: Drain,
}

impl Administration {
    /// Of a server that accepts from now on. `drain` is that of its sessions.
    pub(crate) fn new(
        registry: Registry,
        slots: ConnectionSlots,
        places: &[Place],
        drain: Drain,
    ) -> Self {
        let listeners = places.iter().map(|place| ListenerStatus {
            protocol: place.protocol.to_owned(),
            address: place.address.to_string(),
        });
        Self {
            registry,
            slots,
            listeners: listeners.collect(),
            since: Instant::now(),
            started: SystemTime::now(),
            drain,
        }
    }

    /// Answers requests until the other end has no more.
    async fn answer_all(&self, stream: impl AsyncRead + AsyncWrite) -> io::Result<()> {
        let (reader, writer) = tokio::io::split(stream);
        let mut reader = BufReader::new(reader);
        let mut writer = BufWriter::new(writer);
        let mut line = Vec::new();
        loop {
            line.clear();
            let mut bounded = (&mut reader).take(MAX_REQUEST_BYTES);
            if timeout(PATIENCE, bounded.read_until(b'\n', &mut line)).await?? == 0 {
                return Ok(());
            }
            timeout(PATIENCE, self.answer(&line, &mut writer)).await??;
            if !line.ends_with(b"\n") {
                // Longer than any request, or the last one: what follows is no line.
                return Ok(());
            }
        }
    }

    async fn answer(&self, line: &[u8], out: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        match serde_json::from_slice(line) {
            Ok(Request::Status) => write(out, &Answer::Status(Box::new(self.status()))).await?,
            Ok(Request::Sessions) => {
                let sessions = self.registry.sessions();
                for view in &sessions {
                    write(out, &Answer::Session(Box::new(session(view)))).await?;
                }
                write(out, &Answer::End(sessions.len())).await?;
            }
            Ok(Request::Kick { session }) => write(out, &self.kick(session)).await?,
            Err(error) => write(out, &Answer::Error(format!("no such request: {error}"))).await?,
        }
        out.flush().await
    }

    fn kick(&self, session: u64) -> Answer {
        if self.registry.kick(SessionId(session)) {
            tracing::info!(id = session, "session kicked by the administrator");
            Answer::Kicked(session)
        } else {
            Answer::Absent(session)
        }
    }

    fn status(&self) -> Status {
        let sessions = self.registry.sessions();
        let accounts = sessions.iter().filter_map(|view| view.account.as_ref());
        let running = |direction| {
            let transfers = sessions.iter().flat_map(|view| &view.transfers);
            transfers
                .filter(|transfer| transfer.direction == direction)
                .count()
        };
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: process::id(),
            started: time_for_machines(self.started),
            uptime_seconds: self.since.elapsed().as_secs(),
            state: if self.drain.has_begun() {
                State::Draining
            } else {
                State::Serving
            },
            listeners: self.listeners.clone(),
            connections: self.slots.total(),
            connections_limit: self.slots.limits().total,
            logged_in: accounts.clone().count(),
            accounts: accounts.collect::<HashSet<_>>().len(),
            sessions_so_far: self.registry.sessions_so_far(),
            uploads: running(Direction::Upload),
            downloads: running(Direction::Download),
        }
    }
}

impl StreamService for Administration {
    async fn serve(self: Arc<Self>, connection: Connection) -> Result<(), ServiceError> {
        match self.answer_all(connection.stream).await {
            // The client has what it asked for.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => Ok(result?),
        }
    }

    /// Only their number is limited.
    async fn refuse(&self, mut stream: Stream, _reason: Refused) {
        let answer = Answer::Error(format!(
            "too many administrators ask this server: {MOST_ADMINISTRATORS} at once are answered; try again later"
        ));
        // Whoever is gone has no need to hear it.
        let _ = write(&mut stream, &answer).await;
        let _ = stream.shutdown().await;
    }
}

async fn write(out: &mut (impl AsyncWrite + Unpin), answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    out.write_all(&line).await
}

fn session(view: &SessionView) -> Session {
    Session {
        session: view.id.0,
        protocol: view.protocol.to_string(),
        encrypted: view.encrypted,
        account: view.account.as_ref().map(ToString::to_string),
        peer: view.peer.to_string(),
        connected_ms: milliseconds(view.connected),
        idle_ms: milliseconds(view.idle),
        transfers: view.transfers.iter().map(transfer).collect(),
    }
}

fn transfer(view: &TransferView) -> Transfer {
    let direction = match view.direction {
        Direction::Upload => "upload",
        Direction::Download => "download",
        Direction::Listing => "listing",
        Direction::Command => "command",
    };
    let (path, command) = match &view.subject {
        Subject::Path(path) => (Some(json_name(path.as_bytes())), None),
        Subject::Command(line) => (None, Some(line.clone())),
    };
    Transfer {
        transfer: view.id,
        direction: direction.to_owned(),
        path,
        command,
        bytes: view.bytes,
        bytes_total: view.total,
        running_ms: milliseconds(view.running),
        bytes_per_second: rate(view.bytes, view.running),
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
