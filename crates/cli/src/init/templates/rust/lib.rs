//! The model of this project: it counts words. Replace it with yours.
//!
//! ```text
//! cargo run                             serve until Ctrl-C
//! litplex call /words 'a fine day'      call it, in another terminal
//! cargo test                            test the model and its server
//! ```

use litplex::{Batch, Device, Endpoint, LitApi, Outcome, RunServers, ServeError, run_servers};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The body of a request. A body of another form gets the status 422.
#[derive(Deserialize)]
pub struct Text {
    pub text: String,
}

/// The body of a response.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Words {
    pub words: usize,
}

/// The model. It lives on a thread of its own, so that it need not be `Send`.
pub struct Counter;

impl Counter {
    /// Loads the model, once in each worker. An error ends the server, and names the endpoint.
    pub fn load(_device: &Device) -> litplex::Result<Self> {
        Ok(Self)
    }
}

impl LitApi for Counter {
    type Input = Text;
    type Output = Words;

    /// Returns a result for each text of a batch; a batch has texts of several requests. An error of one
    /// is the response to that request alone.
    fn predict(&mut self, batch: Batch<Text>) -> litplex::Result<Vec<Outcome<Words>>> {
        let count = |input: Text| match input.text.split_whitespace().count() {
            0 => Err(ServeError::new(422, "`text` is empty; send at least one word")),
            words => Ok(Words { words }),
        };
        Ok(batch.into_iter().map(count).collect())
    }
}

/// Returns the server, with its options. A `litplex.toml` cannot name models in Rust: the options of this
/// program are methods of its endpoints and of the server (`cargo doc --open -p litplex`).
pub fn server() -> RunServers {
    let words = Endpoint::new("/words", |device| Counter::load(&device))
        .example(json!({"text": "a fine day"}), json!({"words": 3})) // for /docs and `litplex call`
        .max_batch_size(8); // up to 8 requests are computed at once
    // .workers_per_device(2)                   // threads with the model, on each device
    // .timeout(Duration::from_secs(10))        // the longest time of a request
    run_servers([words])
    // .api_keys_file("keys")                   // callers need a key; `litplex key NAME` makes one
    // .request_id(true)                        // each response has an id
    // .server_timing(true)                     // each response has its duration
}
