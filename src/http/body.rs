//! What a response carries: a text at hand, or rows that are pulled as the client reads.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use crate::dump::DumpRow;

/// Bytes gathered before they are handed to the connection.
const CHUNK: usize = 8 * 1024;

/// The body of a response.
pub(super) enum Content {
    /// A text, until it is sent.
    Text(Option<Bytes>),
    /// A JSON array, one row a line.
    Rows(Rows),
}

/// A JSON array under way.
pub(super) struct Rows {
    rows: Box<dyn Iterator<Item = DumpRow> + Send>,
    place: Place,
}

/// How far an array is written.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Place {
    Start,
    Middle,
    End,
}

// === impl Content ===

impl Content {
    pub(super) fn text(text: impl Into<Bytes>) -> Self {
        Self::Text(Some(text.into()))
    }

    pub(super) fn rows(rows: impl Iterator<Item = DumpRow> + Send + 'static) -> Self {
        Self::Rows(Rows { rows: Box::new(rows), place: Place::Start })
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let chunk = match &mut *self {
            Self::Text(text) => text.take(),
            Self::Rows(rows) => rows.chunk(),
        };
        Poll::Ready(chunk.map(|chunk| Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Text(text) => text.is_none(),
            Self::Rows(rows) => rows.place == Place::End,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Self::Rows(_) => SizeHint::default(),
        }
    }
}

// === impl Rows ===

impl Rows {
    /// The next part of the array, `None` after its end.
    fn chunk(&mut self) -> Option<Bytes> {
        let mut chunk = Vec::with_capacity(CHUNK + CHUNK / 4);
        while self.place != Place::End && chunk.len() < CHUNK {
            if let Some(row) = self.rows.next() {
                chunk.extend_from_slice(if self.place == Place::Start { b"[\n" } else { b",\n" });
                serde_json::to_writer(&mut chunk, &row).expect("a row is plain data, and a Vec takes every write");
                self.place = Place::Middle;
            } else {
                chunk.extend_from_slice(if self.place == Place::Start { b"[]\n" } else { b"\n]\n" });
                self.place = Place::End;
            }
        }
        (!chunk.is_empty()).then(|| chunk.into())
    }
}
