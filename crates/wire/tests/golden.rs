//! The golden frames, which the Python worker's tests read too: both sides agree on every byte.

#![allow(missing_docs, clippy::unwrap_used)]

use bytes::{BufMut, Bytes, BytesMut};
use litplex_wire::{
    Decoder, EndMeta, Failed, Flags, Frame, Hello, Kind, Metrics, PROTOCOL, PROTOCOL_OLDEST, Patch,
    Patched, Ready, Refuse, RequestMeta, ResponseMeta, Role, Setup, Sources, Welcome, negotiate,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

#[derive(Deserialize)]
struct Golden {
    name: String,
    kind: String,
    flags: Vec<String>,
    status: u16,
    id: u64,
    message: Option<Value>,
    request_id: Option<String>,
    meta: Option<Value>,
    body_hex: Option<String>,
    frame_hex: String,
}

fn golden() -> Vec<Golden> {
    serde_json::from_str(include_str!("../../../protocol/golden.json")).unwrap()
}

fn unhex(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// Returns the JSON of a value after a round trip through the Rust type.
fn round_trip<T: Serialize + DeserializeOwned>(value: &Value) -> Vec<u8> {
    serde_json::to_vec(&serde_json::from_value::<T>(value.clone()).unwrap()).unwrap()
}

fn message_bytes(golden: &Golden, message: &Value) -> Vec<u8> {
    match golden.kind.as_str() {
        "hello" => round_trip::<Hello>(message),
        "welcome" => round_trip::<Welcome>(message),
        "refuse" => round_trip::<Refuse>(message),
        "setup" => round_trip::<Setup>(message),
        "ready" => round_trip::<Ready>(message),
        "failed" => round_trip::<Failed>(message),
        "metrics" => round_trip::<Metrics>(message),
        "sources" => round_trip::<Sources>(message),
        "patch" => round_trip::<Patch>(message),
        "patched" => round_trip::<Patched>(message),
        kind => panic!("{kind} carries no message"),
    }
}

fn payload(golden: &Golden) -> Bytes {
    if let Some(message) = &golden.message {
        return message_bytes(golden, message).into();
    }
    let mut payload = BytesMut::new();
    if let Some(id) = &golden.request_id {
        payload.put_u8(id.len() as u8);
        payload.put_slice(id.as_bytes());
    }
    if let Some(meta) = &golden.meta {
        let meta = if golden.kind == "request" {
            round_trip::<RequestMeta>(meta)
        } else if golden.kind == "end" {
            round_trip::<EndMeta>(meta)
        } else {
            round_trip::<ResponseMeta>(meta)
        };
        payload.put_u32_le(meta.len() as u32);
        payload.put_slice(&meta);
    }
    payload.put_slice(&unhex(golden.body_hex.as_deref().unwrap_or_default()));
    payload.freeze()
}

fn frame(golden: &Golden) -> Frame {
    let flags = golden.flags.iter().fold(Flags::NONE, |flags, flag| {
        flags.with(match flag.as_str() {
            "meta" => Flags::META,
            "more" => Flags::MORE,
            "request_id" => Flags::REQUEST_ID,
            "values" => Flags::VALUES,
            other => panic!("unknown flag {other}"),
        })
    });
    let kind = match golden.kind.as_str() {
        "hello" => Kind::Hello,
        "welcome" => Kind::Welcome,
        "refuse" => Kind::Refuse,
        "setup" => Kind::Setup,
        "ready" => Kind::Ready,
        "failed" => Kind::Failed,
        "request" => Kind::Request,
        "response" => Kind::Response,
        "chunk" => Kind::Chunk,
        "end" => Kind::End,
        "cancel" => Kind::Cancel,
        "bye" => Kind::Bye,
        "hibernate" => Kind::Hibernate,
        "ping" => Kind::Ping,
        "pong" => Kind::Pong,
        "measure" => Kind::CostQuery,
        "cost" => Kind::Cost,
        "credit" => Kind::Credit,
        "metrics" => Kind::Metrics,
        "waiting" => Kind::Waiting,
        "sources" => Kind::Sources,
        "patch" => Kind::Patch,
        "patched" => Kind::Patched,
        other => panic!("unknown kind {other}"),
    };
    Frame { kind, flags, status: golden.status, id: golden.id, payload: payload(golden) }
}

#[test]
fn golden_frames_are_encoded_to_the_byte() {
    for golden in golden() {
        let mut bytes = BytesMut::new();
        frame(&golden).encode(&mut bytes);
        assert_eq!(bytes, unhex(&golden.frame_hex), "{}", golden.name);
    }
}

#[test]
fn golden_frames_are_decoded() {
    for golden in golden() {
        let mut bytes = BytesMut::from(unhex(&golden.frame_hex).as_slice());
        let read = Decoder::default().decode(&mut bytes).unwrap().unwrap();
        assert_eq!(read, frame(&golden), "{}", golden.name);
    }
}

/// The decoder asks for more bytes of any truncated frame, as the tests in Python assume.
#[test]
fn truncated_golden_frames_need_more_bytes() {
    for golden in golden() {
        let bytes = unhex(&golden.frame_hex);
        for cut in 0..bytes.len() {
            let mut buffer = BytesMut::from(&bytes[..cut]);
            assert_eq!(Decoder::default().decode(&mut buffer), Ok(None), "{}", golden.name);
        }
    }
}

fn hello(protocol: u32, protocol_oldest: Option<u32>) -> Hello {
    let (token, python) = (String::new(), String::new());
    Hello { protocol, protocol_oldest, token, role: Role::Data, pid: 1, python }
}

#[test]
fn the_newest_common_version_is_chosen() {
    let newer = PROTOCOL + 1;
    assert_eq!(negotiate(&hello(PROTOCOL, None)), Some(PROTOCOL));
    assert_eq!(negotiate(&hello(newer, Some(PROTOCOL))), Some(PROTOCOL));
    assert_eq!(negotiate(&hello(newer, None)), None);
    assert_eq!(negotiate(&hello(PROTOCOL_OLDEST - 1, None)), None);
    assert_eq!(negotiate(&hello(newer, Some(newer))), None);
}
