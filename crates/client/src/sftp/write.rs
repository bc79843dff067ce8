//! An upload: pieces go out while the server still writes the last ones.

use std::collections::VecDeque;

use bytes::Bytes;
use futures_util::FutureExt as _;
use wharf_proto::sftp::{Extension, Handle, Request, RequestId, Response, StatVfs, StatusCode};

use super::exchange::Exchange;
use super::{MOST_IN_FLIGHT_BYTES, StreamGuard};
use crate::error::{ClientError, Waiting};
use crate::remote::{Answer, RemoteWrite};

/// A file that is being written.
#[derive(Debug)]
pub(super) struct SftpWrite<'s> {
    exchange: &'s mut Exchange,
    guard: StreamGuard<'s>,
    handle: Handle,
    /// What the server has not said to be written, in the order of the file.
    sent: VecDeque<(RequestId, u64)>,
    in_flight_bytes: u64,
    offset: u64,
    piece_bytes: usize,
    /// Whether the server tells how much room there is.
    tells_space: bool,
}

impl<'s> SftpWrite<'s> {
    pub(super) fn new(
        exchange: &'s mut Exchange,
        guard: StreamGuard<'s>,
        handle: Handle,
        offset: u64,
        piece_bytes: usize,
        extensions: &[Extension],
    ) -> Self {
        Self {
            exchange,
            guard,
            handle,
            sent: VecDeque::new(),
            in_flight_bytes: 0,
            offset,
            piece_bytes,
            tells_space: extensions.contains(&Extension::FstatVfs),
        }
    }

    async fn write_all(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        for piece in bytes.chunks(self.piece_bytes) {
            let length = piece.len() as u64;
            while !self.sent.is_empty() && self.in_flight_bytes + length > MOST_IN_FLIGHT_BYTES {
                self.settle_oldest().await?;
            }
            let request = Request::Write {
                handle: self.handle.clone(),
                offset: self.offset,
                data: Bytes::copy_from_slice(piece),
            };
            let id = self.exchange.send(request).await?;
            self.sent.push_back((id, length));
            self.in_flight_bytes += length;
            self.offset += length;
            self.settle_arrived().await?;
        }
        Ok(())
    }

    /// Hears of what has been answered already, so that a refusal ends the upload soon.
    async fn settle_arrived(&mut self) -> Result<(), ClientError> {
        while let Some((id, length)) = self.sent.front().copied() {
            let Some(response) = self.exchange.arrived(id) else {
                break;
            };
            self.sent.pop_front();
            self.in_flight_bytes -= length;
            self.judge(response).await?;
        }
        Ok(())
    }

    async fn settle_oldest(&mut self) -> Result<(), ClientError> {
        let Some((id, length)) = self.sent.pop_front() else {
            return Ok(());
        };
        self.in_flight_bytes -= length;
        let stall = self.exchange.stall();
        let response = self.exchange.receive(id, Waiting::Data, stall).await?;
        self.judge(response).await
    }

    async fn judge(&mut self, response: Response) -> Result<(), ClientError> {
        let code = match &response {
            Response::Status { code, .. } => Some(*code),
            _ => None,
        };
        if code == Some(StatusCode::Ok) {
            return Ok(());
        }
        let error = self.exchange.refused(response);
        match error {
            // Only where the server's own words do not say why.
            ClientError::Refused(said)
                if code == Some(StatusCode::Failure) && self.has_no_room().await? =>
            {
                Err(ClientError::ServerDiskFull(said))
            }
            error => Err(error),
        }
    }

    /// Version 3 has no words for a full disk, so the disk is asked after.
    async fn has_no_room(&mut self) -> Result<bool, ClientError> {
        if !self.tells_space {
            return Ok(false);
        }
        let request = Request::FstatVfs {
            handle: self.handle.clone(),
        };
        let Response::Extended(reply) = self.exchange.call(request).await? else {
            return Ok(false);
        };
        Ok(StatVfs::decode(reply).is_ok_and(|space| space.blocks_available == 0))
    }

    /// Hears that everything is written and in place.
    async fn close(mut self) -> Result<(), ClientError> {
        while !self.sent.is_empty() {
            self.settle_oldest().await?;
        }
        let close = Request::Close {
            handle: self.handle.clone(),
        };
        let id = self.exchange.send(close).await?;
        // The server may have to write gigabytes out, or hash them.
        let deadline = self.exchange.stall().saturating_mul(5);
        let response = self
            .exchange
            .receive(id, Waiting::TransferEnd, deadline)
            .await?;
        self.judge(response).await?;
        self.guard.release();
        Ok(())
    }
}

impl RemoteWrite for SftpWrite<'_> {
    fn write<'a>(&'a mut self, bytes: &'a [u8]) -> Answer<'a, ()> {
        self.write_all(bytes).boxed()
    }

    fn finish<'a>(self: Box<Self>) -> Answer<'a, ()>
    where
        Self: 'a,
    {
        self.close().boxed()
    }
}
