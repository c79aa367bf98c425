//! The unread rest of request bodies: a client that still sends must be able to read why it was
//! refused.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue};
use http::{Response, Version};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout, timeout_at};

use crate::upload::{ReadProgress, Unread, UnreadRest};

/// The number of bytes of a body that are read before the response, so that the connection can be
/// used again.
const READ_BYTES: usize = 64 * 1024;

/// The longest time for that.
const READ_TIME: Duration = Duration::from_secs(1);

/// The longest time in which the rest of a body is read after the response. If the connection were
/// closed at once, the client would lose the response: a closed socket answers data with a reset,
/// and most clients read the response only when they have sent everything.
const DISCARD_TIME: Duration = Duration::from_secs(30);

/// The longest silence of the client meanwhile.
const SILENCE: Duration = Duration::from_secs(5);

/// Reads the unread rest of a request's body when its response is ready. If the connection cannot
/// be used again, the response says so.
pub async fn drain_unread_body<B>(
    version: Version,
    rest: UnreadRest,
    mut response: Response<B>,
) -> Response<B> {
    let is_read = match rest.take() {
        ReadProgress::Whole => true,
        ReadProgress::NotYet => false,
        ReadProgress::Part(mut unread) => {
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

/// Reads the rest of a small body, and returns whether it ended.
async fn read_a_little(unread: &mut Unread) -> bool {
    let is_large = unread.body.size_hint().lower() > READ_BYTES as u64;
    !is_large
        && !unread.waits
        && timeout(READ_TIME, read(&mut unread.body, READ_BYTES)).await.unwrap_or(false)
}

/// Reads on, and discards the data.
pub fn discard(unread: Unread) {
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

/// Reads to the end of a body, and returns whether it ended within so many bytes.
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
