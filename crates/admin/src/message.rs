use serde::{Deserialize, Serialize};

use crate::Status;

/// The longest line that a server reads.
pub(crate) const LONGEST_REQUEST: u64 = 64 << 10;

/// The longest line that a client reads.
pub(crate) const LONGEST_ANSWER: u64 = 16 << 20;

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// What is running?
    Ps {},
    /// Let that many workers of an endpoint run.
    Scale { endpoint: String, workers: usize },
}

/// What a server answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    Status(Status),
    Scaled(Scaled),
    Error(String),
}

/// An endpoint was told how many workers it shall have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scaled {
    /// Its path.
    pub endpoint: String,
    /// The workers that it was to have until now.
    pub before: usize,
    /// The workers that it is to have from now on.
    pub wanted: usize,
}

/// Returns a message as the line that carries it.
pub(crate) fn line(message: &impl Serialize) -> Vec<u8> {
    // What has text as its keys and no number that JSON lacks can be written.
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_written_as_documented() {
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
