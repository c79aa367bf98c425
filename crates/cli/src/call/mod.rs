//! `litplex call`: calls an endpoint with a body that is made for its schema, and shows the response.

mod body;
mod client;
mod events;
mod example;
mod picture;
mod schema;
mod show;

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use litplex_core::size_in_words;
use serde::Deserialize;
use tokio::time::Instant;
use ureq::http::{HeaderMap, StatusCode};

use self::body::{Body, File, Input};
use self::client::{Client, ClientArgs};
pub(crate) use self::example::{Example, ExampleClient};
use self::schema::Operation;
use self::show::{Arriving, How, read, reason, show};
use crate::say::printable;
use crate::servers::only;
use crate::wrong::wrong;

#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Call {
    /// Path or name of the endpoint, such as /embed
    endpoint: String,
    /// JSON, or a text, which becomes the value, field or message that the endpoint takes
    #[arg(allow_negative_numbers = true)]
    input: Option<String>,
    /// A file to send, `-` for standard input; several for a form or a chat that takes them
    #[arg(short, long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Ask for a stream, and show its values as they come
    #[arg(long)]
    stream: bool,
    /// Write the body of the response to this file, unchanged
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The address of the server, with or without its scheme [default: the one that is running]
    #[arg(long, conflicts_with = "port")]
    url: Option<String>,
    /// The server of this user that listens on this port [default: the one that is running]
    #[arg(long)]
    port: Option<u16>,
    #[command(flatten)]
    client: ClientArgs,
    /// Show the response as it is
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Large arrays are shown as their shape and range, images as their size, and chats as their text; --json
shows the response as it is. The status, times and size go to standard error. Ctrl-C closes the
connection, which cancels the request.

Examples:
  litplex call /embed '{\"input\": \"some text\"}'
  litplex call /embed 'some text'                     the same
  litplex call /ocr -f page.png
  litplex call /ocr -f page.png '{\"lang\": \"de\"}'      a file beside other fields
  litplex call /v1/chat/completions 'hello' --stream
  cat notes.txt | litplex call summarize -f -
  litplex call /draw 'a cat' -o cat.png
  litplex call /embed 'some text' --url https://models.example.com

Exit status: 0 success, 1 the server does not respond or refuses the request, 2 the input does not fit.";

pub(crate) fn run(call: &Call) -> anyhow::Result<()> {
    let (client, endpoints) = server(call)?;
    let Target { path, model } = target(&call.endpoint, &client, endpoints)?;
    let operation = operation(&client, &path)?;
    let input = Input {
        text: call.input.clone(),
        files: call.files.iter().map(|path| file(path)).collect::<anyhow::Result<_>>()?,
        content_type: client.content_type.clone(),
        stream: call.stream,
        model,
    };
    if let Some(problem) = call.input.as_deref().and_then(broken_json) {
        note(&format!("note: the input is not JSON ({problem}), so it is taken as a text\n"));
    }
    let body = request_body(&operation, input, &path)?;
    exchange(call, &client, &operation, &path, body)
}

/// An endpoint of a server, as `/info` and the admin API describe it.
#[derive(Debug, Clone, Deserialize)]
struct Endpoint {
    path: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    aliases: Vec<String>,
}

/// Returns a client of the server, and its endpoints if they are known already.
fn server(call: &Call) -> anyhow::Result<(Client, Option<Vec<Endpoint>>)> {
    if let Some(url) = &call.url {
        let url = if url.contains("://") { url.clone() } else { format!("http://{url}") };
        return Ok((Client::new(&call.client, &url, false)?, None));
    }
    let status = only(call.port)?.status;
    let endpoints = status.endpoints.into_iter().map(|it| Endpoint {
        path: it.path,
        name: it.name,
        aliases: it.aliases,
    });
    Ok((Client::new(&call.client, &status.url, true)?, Some(endpoints.collect())))
}

/// The path of a request, and the model that its body must name.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    path: String,
    model: Option<String>,
}

fn target(endpoint: &str, client: &Client, known: Option<Vec<Endpoint>>) -> anyhow::Result<Target> {
    if endpoint.starts_with('/') {
        return Ok(Target { path: endpoint.to_owned(), model: None });
    }
    let known = match known {
        Some(known) => known,
        None => endpoints(client)?,
    };
    by_name(endpoint, &known)
}

/// Returns the endpoints of a server of which only the address is known.
fn endpoints(client: &Client) -> anyhow::Result<Vec<Endpoint>> {
    #[derive(Deserialize)]
    struct Info {
        endpoints: Vec<Endpoint>,
    }
    let info = client.describe("/info")?;
    let info = info.map_err(|status| {
        anyhow!(
            "the names of the endpoints are not known: {status} for /info; give the path instead"
        )
    })?;
    let info: Info = serde_json::from_value(info).context("the server has another /info")?;
    Ok(info.endpoints)
}

fn by_name(name: &str, known: &[Endpoint]) -> anyhow::Result<Target> {
    let is_meant = |it: &&Endpoint| it.name == name || it.aliases.iter().any(|alias| alias == name);
    let Some(endpoint) = known.iter().find(is_meant) else {
        let all = known.iter().map(|it| format!("\n  {} ({})", it.path, it.name));
        let all = all.collect::<String>();
        return Err(anyhow!("there is no endpoint `{name}`; the server has:{all}"));
    };
    let shares = known.iter().filter(|it| it.path == endpoint.path).count() > 1;
    Ok(Target { path: endpoint.path.clone(), model: shares.then(|| name.to_owned()) })
}

/// Returns the operation of an endpoint as the server describes it.
fn operation(client: &Client, path: &str) -> anyhow::Result<Operation> {
    let path = path.split('?').next().unwrap_or_default();
    match client.describe("/openapi.json")? {
        Ok(document) => Ok(Operation::find(document, path).unwrap_or_else(Operation::unknown)),
        Err(status) => {
            note(&format!(
                "note: the schema of `{path}` is not known ({status} for /openapi.json): \
                 JSON is sent as it is, and a text as a JSON string\n"
            ));
            Ok(Operation::unknown())
        }
    }
}

/// Returns the problem of a text that begins like JSON, and is none.
fn broken_json(text: &str) -> Option<String> {
    let begins = text.trim_start().starts_with(['{', '[', '"']);
    let parsed = serde_json::from_str::<serde_json::Value>(text);
    parsed.err().filter(|_| begins).map(|error| error.to_string())
}

fn file(path: &Path) -> anyhow::Result<File> {
    if path == Path::new("-") {
        let mut bytes = Vec::new();
        io::stdin().lock().read_to_end(&mut bytes).context("cannot read standard input")?;
        return Ok(File { name: "stdin".into(), bytes });
    }
    let bytes = fs::read(path)
        .map_err(|error| wrong(format!("cannot read {}: {error}", path.display())))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(File { name, bytes })
}

fn request_body(operation: &Operation, input: Input, path: &str) -> anyhow::Result<Option<Body>> {
    if !operation.has_body() {
        if input.text.is_some() || !input.files.is_empty() {
            return Err(wrong(format!("invalid input of `{path}`: expected none")));
        }
        return Ok(None);
    }
    let body = body::body(operation, input).map_err(|misfit| {
        wrong(format!(
            "invalid input of `{path}`: expected {}, got {}; give the whole value as JSON, or a file \
             with -f",
            operation.describe(),
            misfit.0
        ))
    });
    body.map(Some)
}

/// Sends the request, and shows the response and its times.
fn exchange(
    call: &Call,
    client: &Client,
    operation: &Operation,
    path: &str,
    body: Option<Body>,
) -> anyhow::Result<()> {
    let begin = Instant::now();
    let response = client.send(&operation.method, path, body, call.stream)?;
    let (head, body) = response.into_parts();
    let mut body = Arriving::new(body.into_reader());
    let content_type = head.headers.get("content-type").and_then(|it| it.to_str().ok());
    let how = How { json: call.json, output: call.output.as_deref() };
    let shown = if head.status.is_success() {
        show(content_type.unwrap_or_default(), &mut body, how)
    } else {
        refused(head.status, &mut body, how, operation)
    };
    let first = body.first.map(|first| first - begin);
    note(&summary(head.status, &head.headers, body.bytes, first, begin.elapsed()));
    shown
}

/// Returns the error of a response that refuses the request.
fn refused(
    status: StatusCode,
    body: &mut impl Read,
    how: How,
    operation: &Operation,
) -> anyhow::Result<()> {
    let bytes = read(body)?;
    if how.json {
        show("application/json", &mut &bytes[..], How { output: None, ..how })?;
    }
    let advice = match status.as_u16() {
        401 => "; give a key with --key or LITPLEX_KEY".to_owned(),
        422 => format!("; the endpoint takes {}", operation.describe()),
        _ => String::new(),
    };
    let reason = reason(&bytes);
    let colon = if reason.is_empty() { "" } else { ": " };
    Err(anyhow!("{status}{colon}{reason}{advice}"))
}

/// Returns the status, the times and the size of a response in a line.
fn summary(
    status: StatusCode,
    headers: &HeaderMap,
    bytes: u64,
    first: Option<Duration>,
    total: Duration,
) -> String {
    let first = first.map(|first| format!("first byte {}, ", milliseconds(first)));
    let mut said = format!(
        "{status}, {}; {}total {}",
        size_in_words(bytes),
        first.unwrap_or_default(),
        milliseconds(total)
    );
    for (name, words) in [("server-timing", "server"), ("x-request-id", "request")] {
        if let Some(value) = headers.get(name).and_then(|value| value.to_str().ok()) {
            said += &format!("; {words} {}", printable(value));
        }
    }
    said + "\n"
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// Prints on standard error, which may be closed.
pub(crate) fn note(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn endpoint(path: &str, name: &str) -> Endpoint {
        Endpoint { path: path.into(), name: name.into(), aliases: vec![format!("{name}-alias")] }
    }

    #[test]
    fn a_name_stands_for_a_path_and_where_it_is_shared_for_a_model() {
        let known = [endpoint("/a", "one"), endpoint("/v1", "two"), endpoint("/v1", "three")];
        let alone = by_name("one-alias", &known).unwrap();
        assert_eq!(alone, Target { path: "/a".into(), model: None });
        let shared = by_name("three", &known).unwrap();
        assert_eq!(shared, Target { path: "/v1".into(), model: Some("three".into()) });
        let unknown = by_name("four", &known).unwrap_err().to_string();
        assert!(
            unknown.contains("no endpoint `four`") && unknown.contains("/a (one)"),
            "{unknown}"
        );
    }

    #[test]
    fn a_text_that_begins_like_json_is_noted() {
        assert!(broken_json("{\"a\": 1").unwrap().contains("column 7"));
        assert_eq!(
            (broken_json("[1]"), broken_json("some text"), broken_json("-")),
            (None, None, None)
        );
    }

    #[test]
    fn the_summary_has_what_the_server_measured() {
        let mut headers = HeaderMap::new();
        headers.insert("server-timing", "total;dur=1.5".parse().unwrap());
        headers.insert("x-request-id", "7be7".parse().unwrap());
        let (first, total) = (Duration::from_millis(2), Duration::from_micros(3100));
        let said = summary(StatusCode::OK, &headers, 1500, Some(first), total);
        let wanted =
            "200 OK, 1.5 kB; first byte 2.0 ms, total 3.1 ms; server total;dur=1.5; request 7be7\n";
        assert_eq!(said, wanted);
        let none = summary(StatusCode::NO_CONTENT, &HeaderMap::new(), 0, None, total);
        assert_eq!(none, "204 No Content, 0 B; total 3.1 ms\n");
    }
}
