//! The requests and responses of the admin protocol.

use serde::{Deserialize, Serialize};

use crate::Status;

/// The longest request in bytes that a server reads.
pub(crate) const MAX_REQUEST_BYTES: u64 = 64 << 10;

/// The longest response in bytes that a client reads.
pub(crate) const MAX_RESPONSE_BYTES: u64 = 16 << 20;

/// A request of a client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// A query for the server's status.
    Ps {},
    /// A change of an endpoint's number of workers.
    Scale { endpoint: String, workers: usize },
}

/// A response of a server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Response {
    Status(Status),
    Scaled(Scaled),
    Error(String),
}

/// The result of a change of an endpoint's number of workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scaled {
    /// The path of the endpoint.
    pub endpoint: String,
    /// The number of wanted workers before the change.
    pub before: usize,
    /// The number of wanted workers from now on.
    pub wanted: usize,
}

/// Returns a message as the line that carries it.
pub(crate) fn line(message: &impl Serialize) -> Vec<u8> {
    // Serialization cannot fail: all keys are strings, and all numbers are finite.
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_their_documented_form() {
        let scale = Request::Scale { endpoint: "/embed".into(), workers: 4 };
        let documented = [
            (Request::Ps {}, "{\"ps\":{}}\n"),
            (scale, "{\"scale\":{\"endpoint\":\"/embed\",\"workers\":4}}\n"),
        ];
        for (request, text) in documented {
            assert_eq!(line(&request), text.as_bytes());
            assert_eq!(serde_json::from_str::<Request>(text).unwrap(), request);
        }
    }
}
