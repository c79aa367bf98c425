//! A request that is sent again and again, for `litplex validate`.

use std::time::Duration;

use anyhow::anyhow;
use serde_json::Value;

use super::body::{Body, Input};
use super::client::{Client, ClientArgs};
use super::schema::Operation;
use super::show::{read, reason};
use super::{operation, request_body};
use crate::wrong::wrong;

/// The fields of OpenAI's responses that differ between equal answers.
const OWN_OF_RESPONSE: [&str; 2] = ["id", "created"];

/// A client that sends examples.
pub(crate) struct ExampleClient(Client);

impl ExampleClient {
    /// Returns a client of the server at this address, whose requests may take this long. The key of the caller
    /// is in the variable `LITPLEX_KEY`.
    ///
    /// # Errors
    /// The key is invalid.
    pub(crate) fn new(url: &str, limit: Duration) -> anyhow::Result<Self> {
        Ok(Self(Client::new(&ClientArgs::within(limit), url, true)?))
    }

    /// Sends the example, and returns the answer without what differs between equal ones.
    ///
    /// # Errors
    /// The server does not respond, or refuses the request.
    pub(crate) fn send(&self, path: &str, example: &Example) -> anyhow::Result<Value> {
        let body = example.body.clone();
        let (head, body) = self.0.send(&example.operation.method, path, body, false)?.into_parts();
        let bytes = read(&mut body.into_reader())?;
        if !head.status.is_success() {
            return Err(anyhow!("{}: {}", head.status, reason(&bytes)));
        }
        let text = || Value::from(String::from_utf8_lossy(&bytes));
        let mut answer = serde_json::from_slice(&bytes).unwrap_or_else(|_| text());
        if let Some(fields) = answer.as_object_mut().filter(|it| it.contains_key("object")) {
            OWN_OF_RESPONSE.iter().for_each(|name| _ = fields.remove(*name));
        }
        Ok(answer)
    }
}

/// A request to an endpoint.
pub(crate) struct Example {
    operation: Operation,
    body: Option<Body>,
}

impl Example {
    /// Returns a request with this input, or with the example that the schema of the endpoint has.
    ///
    /// # Errors
    /// There is no example, or the input does not fit.
    pub(crate) fn of(
        client: &ExampleClient,
        path: &str,
        input: Option<&str>,
    ) -> anyhow::Result<Self> {
        let operation = operation(&client.0, path)?;
        let text = match input {
            Some(input) => Some(input.to_owned()),
            None if operation.has_body() => Some(operation.example().map_or_else(
                || Err(wrong(format!("`{path}` declares no example: give the body of a request"))),
                |example| Ok(example.to_string()),
            )?),
            None => None,
        };
        let input =
            Input { text, files: Vec::new(), content_type: None, stream: false, model: None };
        let body = request_body(&operation, input, path)?;
        Ok(Self { operation, body })
    }
}
