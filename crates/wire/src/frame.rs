//! Frames: their header, their flags, and the decoder that cuts them out of a stream of bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The length of a frame's header in bytes.
pub const HEADER_BYTES: usize = 16;

/// The longest payload that either side accepts, in bytes; checked before any allocation.
pub const MAX_PAYLOAD_BYTES: usize = 1 << 30;

/// The most memory that is reserved for bytes of a payload that have not arrived: a peer that
/// announces a long frame must send it before it costs memory.
const MAX_RESERVED_BYTES: usize = 4 << 20;

const META_LENGTH_BYTES: usize = 4;

/// The kind of a frame. In and out are from the server's point of view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// In: the first frame of a connection.
    Hello = 1,
    /// Out: the connection is accepted.
    Welcome = 2,
    /// Out: the connection is refused, with a reason, and closed.
    Refuse = 3,
    /// Out: load the model and set it up.
    Setup = 4,
    /// In: the model is ready.
    Ready = 5,
    /// In: the model could not be loaded or set up.
    Failed = 6,
    /// Out: one item of work.
    Request = 7,
    /// In: the whole response to one item.
    Response = 8,
    /// In: items of a streamed response.
    Chunk = 9,
    /// In: the end of a streamed response.
    End = 10,
    /// Out, on the control connection: no caller waits for this item any longer.
    Cancel = 11,
    /// Out, on the control connection: finish the dispatched items and exit.
    Bye = 12,
    /// Out, on the control connection: a liveness probe of the interpreter.
    Ping = 13,
    /// In, on the control connection: the response to a ping.
    Pong = 14,
    /// Out, on the control connection: a query for the cost of a request.
    CostQuery = 15,
    /// In, on the control connection: the cost of a request.
    Cost = 16,
    /// Out, on the control connection: further bytes that a stream may send.
    Credit = 17,
    /// In, on the control connection: the changes of the model's metrics since the last such frame.
    Metrics = 18,
    /// In, on the calls connection: a hook begins to wait for a call.
    Waiting = 19,
    /// In, on the control connection: further source files that the worker has loaded.
    Sources = 20,
    /// Out: a step of a change of the model's code. The step that stops the worker between requests comes
    /// on the data connection, all others on the control connection.
    Patch = 21,
    /// In, on the control connection: the answer to a step.
    Patched = 22,
    /// Out, on the control connection: finish the dispatched items, move the memory to swap and connect again.
    Hibernate = 23,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        use Kind::{
            Bye, Cancel, Chunk, Cost, CostQuery, Credit, End, Failed, Hello, Hibernate, Metrics,
            Patch, Patched, Ping, Pong, Ready, Refuse, Request, Response, Setup, Sources, Waiting,
            Welcome,
        };
        const KINDS: [Kind; 23] = [
            Hello, Welcome, Refuse, Setup, Ready, Failed, Request, Response, Chunk, End, Cancel,
            Bye, Ping, Pong, CostQuery, Cost, Credit, Metrics, Waiting, Sources, Patch, Patched,
            Hibernate,
        ];
        KINDS.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// The bits of a frame's flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(u8);

impl Flags {
    /// No flag is set.
    pub const NONE: Self = Self(0);
    /// The payload begins with a little-endian `u32` length and that much JSON.
    pub const META: Self = Self(1);
    /// The batch continues in the next frame.
    pub const MORE: Self = Self(2);
    /// The payload of a request begins with the request's id: a length byte, then the id.
    pub const REQUEST_ID: Self = Self(4);
    /// The caller of a request takes values: the response may be packed.
    pub const VALUES: Self = Self(8);
    const KNOWN: u8 = 15;

    /// Returns the union of both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns whether all bits of `other` are set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The fixed part of a frame: `u32 length, u8 kind, u8 flags, u16 status, u64 id`, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The kind of the frame.
    pub kind: Kind,
    /// The form of the payload.
    pub flags: Flags,
    /// The HTTP status of a response, the kind of a chunk's items, 0 otherwise.
    pub status: u16,
    /// The id of the item of work, 0 if there is none.
    pub id: u64,
    /// The length of the payload in bytes.
    pub length: u32,
}

impl Header {
    /// Appends the header's bytes.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u32_le(self.length);
        out.put_u8(self.kind as u8);
        out.put_u8(self.flags.0);
        out.put_u16_le(self.status);
        out.put_u64_le(self.id);
    }

    fn decode(mut bytes: &[u8]) -> Result<Self, FrameError> {
        let length = bytes.get_u32_le();
        let kind = bytes.get_u8();
        let flags = bytes.get_u8();
        let header = Self {
            kind: Kind::from_byte(kind).ok_or(FrameError::Kind(kind))?,
            flags: Flags(flags),
            status: bytes.get_u16_le(),
            id: bytes.get_u64_le(),
            length,
        };
        if length as usize > MAX_PAYLOAD_BYTES {
            return Err(FrameError::Length(length));
        }
        if flags & !Flags::KNOWN != 0 {
            return Err(FrameError::Flags(flags));
        }
        Ok(header)
    }
}

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The kind of the frame.
    pub kind: Kind,
    /// The form of the payload.
    pub flags: Flags,
    /// See [`Header::status`].
    pub status: u16,
    /// See [`Header::id`].
    pub id: u64,
    /// The payload.
    pub payload: Bytes,
}

impl Frame {
    /// Returns a frame that carries this message as JSON and belongs to no item of work.
    pub fn message(kind: Kind, message: &impl serde::Serialize) -> Self {
        let payload = serde_json::to_vec(message).expect("messages are plain data. This is a bug.");
        Self { kind, flags: Flags::NONE, status: 0, id: 0, payload: payload.into() }
    }

    /// Returns a frame without a payload for this item of work.
    pub fn bare(kind: Kind, id: u64) -> Self {
        Self { kind, flags: Flags::NONE, status: 0, id, payload: Bytes::new() }
    }

    /// Appends the frame's bytes.
    pub fn encode(&self, out: &mut BytesMut) {
        let length = self.payload.len() as u32;
        let Self { kind, flags, status, id, .. } = *self;
        Header { kind, flags, status, id, length }.encode(out);
        out.put_slice(&self.payload);
    }

    /// Splits the payload into the JSON in front, if there is any, and the body.
    ///
    /// # Errors
    /// [`FrameError::Meta`] when the JSON is longer than the payload, and [`FrameError::Flags`] when the
    /// frame has a request id, which only the server sends.
    pub fn into_meta_and_body(self) -> Result<(Option<Bytes>, Bytes), FrameError> {
        if self.flags.has(Flags::REQUEST_ID) {
            return Err(FrameError::Flags(self.flags.0));
        }
        let mut body = self.payload;
        if !self.flags.has(Flags::META) {
            return Ok((None, body));
        }
        if body.len() < META_LENGTH_BYTES {
            return Err(FrameError::Meta);
        }
        let length = body.get_u32_le() as usize;
        if body.len() < length {
            return Err(FrameError::Meta);
        }
        let meta = body.split_to(length);
        Ok((Some(meta), body))
    }
}

/// The reason why bytes are not a valid frame. The connection that carried them is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The kind is unknown.
    #[error("unknown frame kind {0}")]
    Kind(u8),
    /// A flag is unknown.
    #[error("unknown frame flags {0:#010b}")]
    Flags(u8),
    /// The payload is longer than [`MAX_PAYLOAD_BYTES`].
    #[error("a payload of {0} bytes is over the limit of {MAX_PAYLOAD_BYTES}")]
    Length(u32),
    /// The JSON in front is longer than the payload.
    #[error("the metadata runs past its frame")]
    Meta,
    /// A message is not the JSON that its kind requires.
    #[error("a message is not valid JSON of its kind")]
    Message,
    /// A frame arrived in a state that does not allow its kind.
    #[error("a frame of kind {0:?} has no place here")]
    Unexpected(Kind),
}

/// A decoder that cuts frames out of the buffer of a socket.
#[derive(Debug, Default)]
pub struct Decoder {
    header: Option<Header>,
}

impl Decoder {
    /// Returns the next whole frame without copying its payload, or `None` when more bytes are
    /// needed. In the latter case memory for the rest of the frame is reserved, up to a limit.
    ///
    /// # Errors
    /// The bytes are not a valid frame; the connection must be closed.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let header = match self.header.take() {
            Some(header) => header,
            None if buffer.len() < HEADER_BYTES => return Ok(None),
            None => Header::decode(&buffer.split_to(HEADER_BYTES))?,
        };
        let length = header.length as usize;
        if buffer.len() < length {
            let missing = length - buffer.len() + HEADER_BYTES;
            buffer.reserve(missing.min(MAX_RESERVED_BYTES));
            self.header = Some(header);
            return Ok(None);
        }
        let Header { kind, flags, status, id, .. } = header;
        let payload = buffer.split_to(length).freeze();
        Ok(Some(Frame { kind, flags, status, id, payload }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames() -> impl Strategy<Value = Vec<Frame>> {
        let frame = (1u8..=22, 0u8..=15, any::<u16>(), any::<u64>(), any::<Vec<u8>>()).prop_map(
            |(kind, flags, status, id, payload)| Frame {
                kind: Kind::from_byte(kind).unwrap(),
                flags: Flags(flags),
                status,
                id,
                payload: payload.into(),
            },
        );
        prop::collection::vec(frame, 0..8)
    }

    proptest! {
        #[test]
        fn encoded_frames_are_decoded_from_pieces_of_any_size(sent in frames(), cut in 1usize..40) {
            let mut wire = BytesMut::new();
            sent.iter().for_each(|frame| frame.encode(&mut wire));
            let (mut decoder, mut buffer, mut received) = (Decoder::default(), BytesMut::new(), vec![]);
            for piece in wire.chunks(cut) {
                buffer.put_slice(piece);
                while let Some(frame) = decoder.decode(&mut buffer).unwrap() {
                    received.push(frame);
                }
            }
            prop_assert_eq!(received, sent);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn the_decoder_never_panics(bytes in any::<Vec<u8>>()) {
            let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::from(bytes.as_slice()));
            while let Ok(Some(frame)) = decoder.decode(&mut buffer) {
                let _ = frame.into_meta_and_body();
            }
        }
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_any_allocation() {
        let mut buffer = BytesMut::new();
        let length = MAX_PAYLOAD_BYTES as u32 + 1;
        Header { kind: Kind::Response, flags: Flags::NONE, status: 200, id: 1, length }
            .encode(&mut buffer);
        assert_eq!(Decoder::default().decode(&mut buffer), Err(FrameError::Length(length)));
    }

    #[test]
    fn an_announced_length_reserves_little_memory() {
        let mut buffer = BytesMut::new();
        let length = MAX_PAYLOAD_BYTES as u32;
        Header { kind: Kind::Response, flags: Flags::NONE, status: 200, id: 1, length }
            .encode(&mut buffer);
        assert_eq!(Decoder::default().decode(&mut buffer), Ok(None));
        assert!(buffer.capacity() <= 2 * MAX_RESERVED_BYTES, "{}", buffer.capacity());
    }
}
