//! Frames of a worker: any cut gives the same frames, and decoded frames can be encoded.
#![no_main]

use std::fmt::Debug;

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use litplex_fuzz::{bounded, pieces};
use litplex_wire::{
    Decoder, Failed, Flags, Frame, FrameError, Hello, Kind, Ready, Refuse, RequestMeta,
    ResponseMeta, Setup, Welcome,
};
use serde::{Serialize, de::DeserializeOwned};

fuzz_target!(|data: &[u8]| bounded(data, frames));

fn frames(data: &[u8]) {
    let pieces = pieces(data);
    let (frames, end) = decode(&pieces);
    assert_eq!((&frames, end), (&decode(&[pieces.concat().into()]).0, end));
    let mut written = BytesMut::new();
    frames.iter().for_each(|frame| frame.encode(&mut written));
    assert_eq!(decode(&[written.freeze()]), (frames.clone(), Ok(())));
    frames.into_iter().for_each(read);
}

/// Returns the frames up to the end or to the first error.
fn decode(pieces: &[Bytes]) -> (Vec<Frame>, Result<(), FrameError>) {
    let (mut decoder, mut buffer, mut frames) = (Decoder::default(), BytesMut::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Err(error)),
            }
        }
    }
    (frames, Ok(()))
}

/// Reads what a frame carries as either side would.
fn read(frame: Frame) {
    let (kind, flags, payload) = (frame.kind, frame.flags, frame.payload.clone());
    match kind {
        Kind::Hello => message::<Hello>(&payload),
        Kind::Welcome => message::<Welcome>(&payload),
        Kind::Refuse => message::<Refuse>(&payload),
        Kind::Setup => message::<Setup>(&payload),
        Kind::Ready => message::<Ready>(&payload),
        Kind::Failed => message::<Failed>(&payload),
        _ => {}
    }
    match frame.into_meta_and_body() {
        Ok((Some(meta), body)) => {
            assert_eq!(meta.len() + body.len() + 4, payload.len());
            message::<RequestMeta>(&meta);
            message::<ResponseMeta>(&meta);
        }
        Ok((None, body)) => assert_eq!(body, payload),
        // Only the server says the id of a request.
        Err(FrameError::Flags(_)) => assert!(flags.has(Flags::REQUEST_ID)),
        Err(error) => assert_eq!(error, FrameError::Meta),
    }
}

fn message<T: Serialize + DeserializeOwned + Debug>(json: &[u8]) {
    if let Ok(message) = serde_json::from_slice::<T>(json) {
        let written = serde_json::to_vec(&message).unwrap();
        serde_json::from_slice::<T>(&written).expect("what was written can be read");
    }
}
