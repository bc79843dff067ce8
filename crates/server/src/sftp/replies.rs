//! Answers on their way out, and what bounds their memory.
//!
//! Each request takes a part of the session's budget, for what it brings and for what its answer
//! may hold, before it is carried out; the part is free again once the answer has been written.
//! So a client that does not read is not read from, and what it sends waits in its own
//! system.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::BytesMut;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use wharf_proto::sftp::{RequestId, Response, ServerPacket, StatusCode};

use super::refusal::{Problem, response_to};
use crate::activity::{Activity, Running};

/// Bytes of requests and answers that a session holds at one time.
const BUDGET_BYTES: usize = 8 * 1024 * 1024;

/// Bytes that are written together.
const OUT_BYTES: usize = 256 * 1024;

/// The way out; cheap to clone.
#[derive(Clone)]
pub(super) struct Replies {
    out: UnboundedSender<Outgoing>,
    budget: Arc<Semaphore>,
    activity: Activity,
    /// Requests that have no answer yet, but those that last.
    pub(super) all: Arc<Outstanding>,
    /// Those of them that change something.
    pub(super) changes: Arc<Outstanding>,
}

struct Outgoing {
    packet: ServerPacket,
    /// Held until the packet is written.
    share: Option<OwnedSemaphorePermit>,
}

/// A request that has come, and how much it holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    pub(super) id: RequestId,
    /// Of itself and of its answer.
    pub(super) bytes: usize,
}

/// A request that waits for its answer; it gets exactly one, whatever happens to it.
pub(super) struct Asked {
    id: RequestId,
    replies: Replies,
    share: Option<OwnedSemaphorePermit>,
    nature: Nature,
    answered: bool,
    /// However long it takes, its client is not idle. Whether the client takes the answer is
    /// another matter: one that does not may be given up.
    _running: Running,
}

/// What a request is to those that come behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nature {
    /// What changes names waits for it.
    Looks,
    /// Whatever goes by a name waits for it.
    Changes,
    /// Nothing waits for it.
    Lasts,
}

impl Replies {
    /// A way out, and its other end.
    pub(super) fn new(activity: Activity) -> (Self, Outbox) {
        let (out, queue) = unbounded_channel();
        let replies = Self {
            out,
            budget: Arc::new(Semaphore::new(BUDGET_BYTES)),
            activity,
            all: Arc::default(),
            changes: Arc::default(),
        };
        (replies, Outbox { queue })
    }

    /// Takes in a request, and waits until its part of the budget is free.
    pub(super) async fn ask(&self, ticket: Ticket, nature: Nature) -> Asked {
        let bytes = u32::try_from(ticket.bytes.min(BUDGET_BYTES)).unwrap_or(u32::MAX);
        let share = Arc::clone(&self.budget).acquire_many_owned(bytes).await;
        if nature != Nature::Lasts {
            self.all.add();
        }
        if nature == Nature::Changes {
            self.changes.add();
        }
        Asked {
            id: ticket.id,
            replies: self.clone(),
            share: share.ok(),
            nature,
            answered: false,
            _running: self.activity.start(true),
        }
    }

    /// Sends what answers no request.
    pub(super) fn send(&self, packet: ServerPacket) {
        // Without the other end the session is over.
        let _ = self.out.send(Outgoing {
            packet,
            share: None,
        });
    }
}

impl Asked {
    /// Answers.
    pub(super) fn answer(mut self, result: Result<Response, Problem>) {
        self.send(result.unwrap_or_else(|problem| {
            if let Problem::Refused(wharf_model::Refusal::Io(error)) = &problem {
                tracing::warn!(%error, "an SFTP request failed");
            }
            response_to(&problem)
        }));
    }

    /// Answers that it is done, or why not.
    pub(super) fn done(self, result: Result<(), Problem>) {
        self.answer(result.map(|()| Response::status(StatusCode::Ok, "Done.")));
    }

    /// It has got all that those behind it could take away; from here on nothing waits for it.
    pub(super) fn lasts(&mut self) {
        let nature = std::mem::replace(&mut self.nature, Nature::Lasts);
        if nature != Nature::Lasts {
            self.replies.all.remove();
        }
        if nature == Nature::Changes {
            self.replies.changes.remove();
        }
    }

    fn send(&mut self, response: Response) {
        self.answered = true;
        let _ = self.replies.out.send(Outgoing {
            packet: ServerPacket::Response(self.id, response),
            share: self.share.take(),
        });
        self.lasts();
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        // Its task went with the session, or panicked.
        if !self.answered {
            self.send(response_to(&Problem::Ending));
        }
    }
}

/// Counts requests without an answer.
#[derive(Default)]
pub(super) struct Outstanding {
    count: AtomicUsize,
    idle: Notify,
}

impl Outstanding {
    fn add(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
    }

    fn remove(&self) {
        if self.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.idle.notify_one();
        }
    }

    /// Waits until there are none. For one waiter, which is the one that adds.
    pub(super) async fn idle(&self) {
        while self.count.load(Ordering::SeqCst) > 0 {
            self.idle.notified().await;
        }
    }
}

/// The other end of the way out.
pub(super) struct Outbox {
    queue: UnboundedReceiver<Outgoing>,
}

impl Outbox {
    /// Writes answers until nobody can send any more.
    ///
    /// # Errors
    /// The stream's.
    pub(super) async fn write_to<W: AsyncWrite + Unpin>(mut self, mut stream: W) -> io::Result<()> {
        let mut out = BytesMut::with_capacity(OUT_BYTES);
        while let Some(first) = self.queue.recv().await {
            let mut shares = vec![first.share];
            first.packet.encode(&mut out);
            while out.len() < OUT_BYTES
                && let Ok(next) = self.queue.try_recv()
            {
                next.packet.encode(&mut out);
                shares.push(next.share);
            }
            stream.write_all(&out).await?;
            stream.flush().await?;
            out.clear();
        }
        stream.shutdown().await
    }
}
