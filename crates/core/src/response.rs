//! Responses of models, whole or as packed items of a stream; `http` frames them.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::Value;

/// A whole response, in the form in which the worker made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// The media type of the body.
    pub media_type: MediaType,
    /// Further headers, in their order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

impl Response {
    /// Returns a 200 with this JSON body.
    pub fn json(body: impl Into<Bytes>) -> Self {
        Self { status: 200, media_type: MediaType::Json, headers: Vec::new(), body: body.into() }
    }
}

/// The media type of a body; the most frequent one needs no allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediaType {
    /// `application/json`
    Json,
    /// Any other value of `Content-Type`; empty for none.
    Other(String),
    /// Values for a hook, as in [`Content::Packed`](crate::Content); HTTP cannot carry them.
    Packed(Arc<Value>),
}

/// The type of a stream's items, by which the edge frames them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ItemKind {
    /// Each item is a JSON value.
    Json,
    /// Each item is UTF-8 text, sent unchanged.
    Text,
    /// Each item is bytes, sent unchanged.
    Bytes,
}

/// Items of a stream, packed: each is a little-endian `u32` length and that many bytes.
///
/// They travel packed so that a fast generator costs one message per flush, not one per item;
/// the boundaries stay, because a server-sent event must be whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Items {
    kind: ItemKind,
    packed: Bytes,
}

const LENGTH_BYTES: usize = 4;

impl Items {
    /// Returns no items.
    pub fn empty() -> Self {
        Self { kind: ItemKind::Json, packed: Bytes::new() }
    }

    /// Takes items that were packed elsewhere. Returns `None` when a length runs past the end.
    pub fn from_packed(kind: ItemKind, packed: Bytes) -> Option<Self> {
        let mut rest: &[u8] = &packed;
        while let Some((_, tail)) = split_item(rest) {
            rest = tail;
        }
        rest.is_empty().then_some(Self { kind, packed })
    }

    /// Returns what the items are.
    pub fn kind(&self) -> ItemKind {
        self.kind
    }

    /// Returns the items as they are packed.
    pub fn packed(&self) -> &Bytes {
        &self.packed
    }

    /// Returns the number of bytes that the items take, packed.
    pub fn packed_len(&self) -> usize {
        self.packed.len()
    }

    /// Iterates over the items in their order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest: &[u8] = &self.packed;
        std::iter::from_fn(move || {
            let (item, tail) = split_item(rest)?;
            rest = tail;
            Some(item)
        })
    }
}

fn split_item(packed: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = packed.split_first_chunk::<LENGTH_BYTES>()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

/// Packs [`Items`].
#[derive(Debug)]
pub struct ItemsBuilder {
    kind: ItemKind,
    packed: BytesMut,
}

impl ItemsBuilder {
    /// Starts to pack JSON items.
    pub fn json() -> Self {
        Self { kind: ItemKind::Json, packed: BytesMut::new() }
    }

    /// Packs the item that `write` writes.
    ///
    /// # Errors
    /// The error of `write`; the item is then left out.
    pub fn push_with<E>(
        &mut self,
        write: impl FnOnce(&mut bytes::buf::Writer<&mut BytesMut>) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.packed.len();
        self.packed.put_u32_le(0);
        if let Err(error) = write(&mut (&mut self.packed).writer()) {
            self.packed.truncate(start);
            return Err(error);
        }
        let length = (self.packed.len() - start - LENGTH_BYTES) as u32;
        self.packed[start..start + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
        Ok(())
    }

    /// Returns the packed items.
    pub fn finish(self) -> Items {
        Items { kind: self.kind, packed: self.packed.freeze() }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn items_keep_their_boundaries() {
        let mut builder = ItemsBuilder::json();
        for item in ["1", "", "\"two\""] {
            builder.push_with(|out| out.write_all(item.as_bytes())).unwrap();
        }
        let items = builder.finish();
        let unpacked: Vec<_> = items.iter().collect();
        assert_eq!(unpacked, [b"1".as_slice(), b"", b"\"two\""]);
    }

    #[test]
    fn an_item_that_fails_leaves_no_trace() {
        let mut builder = ItemsBuilder::json();
        let failed = builder.push_with(|out| {
            out.write_all(b"half").unwrap();
            Err("no")
        });
        assert_eq!(failed, Err("no"));
        assert_eq!(builder.finish().iter().count(), 0);
    }

    #[test]
    fn packed_items_whose_length_runs_past_the_end_are_refused() {
        let cut = Bytes::from_static(b"\x05\0\0\0abc");
        assert_eq!(Items::from_packed(ItemKind::Text, cut), None);
        assert!(Items::from_packed(ItemKind::Text, Bytes::from_static(b"\x03\0\0\0abc")).is_some());
    }
}
