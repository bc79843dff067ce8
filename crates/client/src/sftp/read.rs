//! A download: requests for the next pieces are under way while the last ones arrive.

use std::collections::VecDeque;

use bytes::{Buf as _, Bytes};
use futures_util::FutureExt as _;
use wharf_proto::sftp::{Handle, Request, RequestId, Response, StatusCode};

use super::exchange::Exchange;
use super::{FIRST_IN_FLIGHT_BYTES, MOST_IN_FLIGHT_BYTES, StreamGuard};
use crate::error::{ClientError, Waiting};
use crate::remote::{Answer, RemoteRead};

/// A file that is being read. Content is handed out in its order, whatever the
/// order of the responses.
#[derive(Debug)]
pub(super) struct SftpRead<'s> {
    exchange: &'s mut Exchange,
    guard: StreamGuard<'s>,
    handle: Handle,
    /// What was asked for and not handed out, in the order of the file.
    asked: VecDeque<Piece>,
    /// Asks for the size, until it is answered.
    asking_size: Option<RequestId>,
    /// The size when the file was opened, if it has one: those of /proc say 0.
    size: Option<u64>,
    /// The first byte that was not asked for.
    next_offset: u64,
    /// The first byte that was not handed out.
    position: u64,
    piece_bytes: u32,
    /// As much as may be under way. Grows with each answer, so that a small file costs little.
    window_bytes: u64,
    /// Content that the caller had no room for.
    left: Bytes,
    is_over: bool,
}

#[derive(Debug, Clone, Copy)]
struct Piece {
    id: RequestId,
    offset: u64,
    length: u32,
}

impl<'s> SftpRead<'s> {
    /// Reads what `handle` was opened for from `offset` on.
    pub(super) async fn start(
        exchange: &'s mut Exchange,
        guard: StreamGuard<'s>,
        handle: Handle,
        offset: u64,
        piece_bytes: u32,
    ) -> Result<Self, ClientError> {
        let fstat = Request::Fstat {
            handle: handle.clone(),
        };
        let asking_size = Some(exchange.send(fstat).await?);
        let mut read = Self {
            exchange,
            guard,
            handle,
            asked: VecDeque::new(),
            asking_size,
            size: None,
            next_offset: offset,
            position: offset,
            piece_bytes,
            window_bytes: FIRST_IN_FLIGHT_BYTES,
            left: Bytes::new(),
            is_over: false,
        };
        read.ask_ahead().await?;
        Ok(read)
    }

    async fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, ClientError> {
        while self.left.is_empty() && !self.is_over {
            self.ask_ahead().await?;
            self.take_next().await?;
        }
        let count = self.left.len().min(buffer.len());
        if let Some(room) = buffer.get_mut(..count) {
            self.left.copy_to_slice(room);
        }
        Ok(count)
    }

    /// Asks for pieces as far as the window and the file go.
    async fn ask_ahead(&mut self) -> Result<(), ClientError> {
        self.take_size()?;
        while self.may_ask() {
            let piece = self.ask(self.next_offset, self.piece_bytes).await?;
            self.next_offset = self.next_offset.saturating_add(u64::from(piece.length));
            self.asked.push_back(piece);
        }
        Ok(())
    }

    fn may_ask(&self) -> bool {
        let under_way = self.next_offset.saturating_sub(self.position);
        let within = self.size.is_none_or(|size| self.next_offset < size);
        // One at least: an end has to be heard.
        self.asked.is_empty() || (under_way < self.window_bytes && within)
    }

    async fn ask(&mut self, offset: u64, length: u32) -> Result<Piece, ClientError> {
        let request = Request::Read {
            handle: self.handle.clone(),
            offset,
            length,
        };
        let id = self.exchange.send(request).await?;
        Ok(Piece { id, offset, length })
    }

    fn take_size(&mut self) -> Result<(), ClientError> {
        let Some(id) = self.asking_size else {
            return Ok(());
        };
        if let Some(response) = self.exchange.arrived(id) {
            self.asking_size = None;
            // Without one the end is found by reading.
            if let Response::Attributes(attributes) = response {
                self.size = attributes.size.filter(|size| *size > 0);
            }
        }
        Ok(())
    }

    /// Takes the piece that comes next in the file.
    async fn take_next(&mut self) -> Result<(), ClientError> {
        let Some(piece) = self.asked.pop_front() else {
            return Ok(());
        };
        let stall = self.exchange.stall();
        let response = self
            .exchange
            .receive(piece.id, Waiting::Data, stall)
            .await?;
        match response {
            Response::Data(data) if data.is_empty() => Err(self.exchange.broken(
                ClientError::Protocol("it sent a piece of no content".to_owned()),
            )),
            Response::Data(data) => self.take_data(piece, data).await,
            Response::Status {
                code: StatusCode::Eof,
                ..
            } => {
                self.end();
                Ok(())
            }
            response => Err(self.exchange.refused(response)),
        }
    }

    async fn take_data(&mut self, piece: Piece, data: Bytes) -> Result<(), ClientError> {
        self.take_size()?;
        let count = u32::try_from(data.len()).unwrap_or(piece.length);
        self.position = piece.offset.saturating_add(u64::from(count));
        self.left = data;
        let grown = self.window_bytes.saturating_add(u64::from(count));
        self.window_bytes = grown.min(MOST_IN_FLIGHT_BYTES);
        let missing = piece.length.saturating_sub(count);
        if self.size == Some(self.position) {
            self.end();
        } else if missing > 0 {
            // A short piece is the end or a server that gives less at a time: only asking tells.
            let rest = self.ask(self.position, missing).await?;
            self.asked.push_front(rest);
        }
        Ok(())
    }

    fn end(&mut self) {
        self.is_over = true;
        for piece in self.asked.drain(..) {
            self.exchange.forget(piece.id);
        }
    }

    /// Gives the handle back. What is still under way is thrown away as it comes.
    async fn close(mut self) -> Result<(), ClientError> {
        self.end();
        if let Some(id) = self.asking_size.take() {
            self.exchange.forget(id);
        }
        let close = Request::Close {
            handle: self.handle.clone(),
        };
        let id = self.exchange.send(close).await?;
        // What it says changes nothing about what was read.
        self.exchange.forget(id);
        self.guard.release();
        Ok(())
    }
}

impl RemoteRead for SftpRead<'_> {
    fn read<'a>(&'a mut self, buffer: &'a mut [u8]) -> Answer<'a, usize> {
        self.read_some(buffer).boxed()
    }

    fn finish<'a>(self: Box<Self>) -> Answer<'a, ()>
    where
        Self: 'a,
    {
        self.close().boxed()
    }
}
