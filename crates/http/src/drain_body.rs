//! What is done with bodies that nobody read: a client that still sends must be able to read why.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue};
use http::{Response, Version};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout, timeout_at};

use crate::upload::{Read, Rest, Unread};

/// As much of a body is read before its request is answered, so that its connection can be used
/// again.
const READ_BYTES: usize = 64 * 1024;

/// How long that is waited for.
const READ_TIME: Duration = Duration::from_secs(1);

/// How long what a client goes on to send is read after its request is answered. Closing the
/// connection at once would take the answer away from it: what arrives at a closed socket is
/// answered with a reset, and most clients look for an answer only when they have sent everything.
const DISCARD_TIME: Duration = Duration::from_secs(30);

/// How long a client may send nothing of it meanwhile.
const SILENCE: Duration = Duration::from_secs(5);

/// Ends what is left of a request when it is answered. Where its connection cannot be used again,
/// the answer says so.
pub(crate) async fn drain_unread_body<B>(
    version: Version,
    rest: Rest,
    mut response: Response<B>,
) -> Response<B> {
    let is_read = match rest.take() {
        Read::Whole => true,
        Read::NotYet => false,
        Read::Part(mut unread) => {
            let is_read = Box::pin(read_a_little(&mut unread)).await;
            if !is_read {
                discard(unread);
            }
            is_read
        }
    };
    if !is_read && version <= Version::HTTP_11 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Reads the rest of a small body, and returns whether that was all.
async fn read_a_little(unread: &mut Unread) -> bool {
    let is_large = unread.body.size_hint().lower() > READ_BYTES as u64;
    !is_large
        && !unread.waits
        && timeout(READ_TIME, read(&mut unread.body, READ_BYTES)).await.unwrap_or(false)
}

/// Reads on, and throws away what comes.
pub(crate) fn discard(unread: Unread) {
    if unread.waits {
        return;
    }
    let mut body = unread.body;
    tokio::spawn(async move {
        let until = Instant::now() + DISCARD_TIME;
        let _ = timeout_at(until, async {
            while let Ok(Some(Ok(_))) = timeout(SILENCE, body.frame()).await {}
        })
        .await;
    });
}

/// Reads to the end of a body, and returns whether that came within so many bytes.
async fn read(body: &mut Incoming, most: usize) -> bool {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        bytes += frame.data_ref().map_or(0, Bytes::len);
        if bytes > most {
            return false;
        }
    }
    true
}
