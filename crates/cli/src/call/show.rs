//! The body of a response on standard output, as it comes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use serde_json::Value;
use tokio::time::Instant;

use super::events::{Event, Events, chat_text};
use super::picture::{self, picture};
use crate::say::{printable, say, written};

/// The longest line of a stream, in bytes.
const MAX_LINE_BYTES: u64 = 64 << 20;

/// The bytes of a body that arrived, and when the first did.
#[derive(Debug)]
pub(crate) struct Arriving<R> {
    body: R,
    pub(crate) bytes: u64,
    pub(crate) first: Option<Instant>,
}

impl<R> Arriving<R> {
    pub(crate) fn new(body: R) -> Self {
        Self { body, bytes: 0, first: None }
    }
}

impl<R: Read> Read for Arriving<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.body.read(buffer)?;
        if count > 0 {
            self.first.get_or_insert_with(Instant::now);
        }
        self.bytes += count as u64;
        Ok(count)
    }
}

/// The form in which a response is shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct How<'a> {
    /// Values are shown as they are.
    pub(crate) json: bool,
    pub(crate) output: Option<&'a Path>,
}

/// Shows the body of a successful response.
///
/// # Errors
/// The body breaks off, the stream has an error, or the output cannot be written.
pub(crate) fn show(content_type: &str, body: &mut impl Read, how: How) -> anyhow::Result<()> {
    if let Some(path) = how.output {
        let mut file =
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        return copy(body, &mut |bytes| {
            file.write_all(bytes).with_context(|| format!("cannot write {}", path.display()))
        });
    }
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    match essence {
        "text/event-stream" => events(body, how),
        "application/x-ndjson" | "application/jsonl" => lines(body, how),
        _ if essence.ends_with("json") => whole(body, how),
        _ if how.json => copy(body, &mut raw),
        _ if essence.starts_with("text/") => text(body),
        _ => {
            let bytes = read(body)?;
            let shown = if essence.is_empty() { "bytes" } else { essence };
            if bytes.is_empty() { Ok(()) } else { say_line(&picture::bytes(shown, &bytes)) }
        }
    }
}

/// Returns the whole body.
pub(crate) fn read(body: &mut impl Read) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    body.read_to_end(&mut bytes).map_err(broken)?;
    Ok(bytes)
}

fn broken(error: io::Error) -> anyhow::Error {
    anyhow::Error::from(error).context("the response broke off")
}

/// Passes on the pieces of a body as they come.
fn copy(
    body: &mut impl Read,
    write: &mut dyn FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match body.read(&mut buffer).map_err(broken)? {
            0 => return Ok(()),
            count => write(&buffer[..count])?,
        }
    }
}

/// Writes bytes to standard output.
fn raw(bytes: &[u8]) -> anyhow::Result<()> {
    let mut to = io::stdout().lock();
    written(to.write_all(bytes).and_then(|()| to.flush()))
}

fn say_line(text: &str) -> anyhow::Result<()> {
    say(&format!("{}\n", printable(text)))
}

/// Shows a JSON value.
fn whole(body: &mut impl Read, how: How) -> anyhow::Result<()> {
    let bytes = read(body)?;
    if how.json {
        raw(&bytes)?;
        return raw(b"\n");
    }
    match serde_json::from_slice::<Value>(&bytes) {
        Ok(value) => say_line(&chat_text(&value).unwrap_or_else(|| picture(&value))),
        Err(_) => say_line(&String::from_utf8_lossy(&bytes)),
    }
}

/// Shows a text as it comes; a character may arrive in two pieces.
fn text(body: &mut impl Read) -> anyhow::Result<()> {
    let mut rest = Vec::new();
    let mut ends_line = true;
    copy(body, &mut |bytes| {
        rest.extend(bytes);
        let complete = complete_characters(&rest);
        let text: Vec<u8> = rest.drain(..complete).collect();
        if !text.is_empty() {
            ends_line = text.ends_with(b"\n");
            say(&printable(&String::from_utf8_lossy(&text)))?;
        }
        Ok(())
    })?;
    if !rest.is_empty() || !ends_line {
        say_line(&String::from_utf8_lossy(&rest))?;
    }
    Ok(())
}

/// Returns the length of the bytes without a character that has begun at their end.
fn complete_characters(bytes: &[u8]) -> usize {
    match str::from_utf8(bytes) {
        Ok(text) => text.len(),
        // Bytes that are no text at all do not wait for others.
        Err(error) if error.error_len().is_some() => bytes.len(),
        Err(error) => error.valid_up_to(),
    }
}

/// Calls `each` with each line of a body, without its end.
fn each_line(
    body: &mut impl Read,
    each: &mut dyn FnMut(&str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut body = BufReader::new(body);
    let mut line = Vec::new();
    loop {
        line.clear();
        let count = (&mut body).take(MAX_LINE_BYTES).read_until(b'\n', &mut line);
        if count.map_err(broken)? == 0 {
            return Ok(());
        }
        if line.len() as u64 == MAX_LINE_BYTES {
            bail!("a line of the response has more than {MAX_LINE_BYTES} bytes");
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        each(text.strip_suffix('\r').unwrap_or(text))?;
    }
}

/// Shows the values of a stream, one in each line.
fn lines(body: &mut impl Read, how: How) -> anyhow::Result<()> {
    each_line(body, &mut |line| item(line, how))
}

/// Shows a value of a stream.
fn item(line: &str, how: How) -> anyhow::Result<()> {
    let value = serde_json::from_str::<Value>(line).ok();
    if let Some(error) = value.as_ref().and_then(stream_error) {
        if how.json {
            say_line(line)?;
        }
        return Err(error);
    }
    match value {
        Some(value) if !how.json => say_line(&picture(&value)),
        _ if how.json => say(&format!("{line}\n")),
        _ => say_line(line),
    }
}

/// Shows the events of a stream: the text of a chat, or their data.
fn events(body: &mut impl Read, how: How) -> anyhow::Result<()> {
    let mut events = Events::default();
    let mut has_text = false;
    let shown = each_line(body, &mut |line| match events.line(line) {
        Some(event) => show_event(&event, how, &mut has_text),
        None => Ok(()),
    });
    if has_text {
        say("\n")?;
    }
    shown
}

fn show_event(event: &Event, how: How, has_text: &mut bool) -> anyhow::Result<()> {
    let Event { kind, data } = event;
    let value = serde_json::from_str::<Value>(data).ok();
    let text = value.as_ref().filter(|_| !how.json).and_then(chat_text);
    if let Some(text) = text {
        *has_text |= !text.is_empty();
        return say(&printable(&text));
    }
    if kind == "error" && value.as_ref().and_then(stream_error).is_none() {
        bail!("the stream failed: {}", printable(data));
    }
    if data == "[DONE]" {
        return Ok(());
    }
    item(data, how)
}

/// Returns the error that a stream ends with: an object with the only field `error`.
fn stream_error(value: &Value) -> Option<anyhow::Error> {
    let error = value.as_object().filter(|fields| fields.len() == 1)?.get("error")?;
    let detail = ["detail", "message"].iter().find_map(|name| error.get(name)).unwrap_or(error);
    let detail = detail.as_str().map_or_else(|| detail.to_string(), ToOwned::to_owned);
    Some(anyhow!("the stream failed: {}", printable(&detail)))
}

/// Returns the reason in the body of a response that refuses a request.
pub(crate) fn reason(body: &[u8]) -> String {
    let value = serde_json::from_slice::<Value>(body).ok();
    let detail = value.as_ref().and_then(|value| {
        value
            .get("detail")
            .or_else(|| value.pointer("/error/message"))
            .or_else(|| value.get("error"))
    });
    let text = match detail {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(problems)) => problems.iter().map(problem).collect::<Vec<_>>().join("; "),
        Some(other) => other.to_string(),
        None => String::from_utf8_lossy(body).chars().take(500).collect(),
    };
    printable(text.trim())
}

/// Returns an error of validation with its place.
fn problem(problem: &Value) -> String {
    let Some(message) = problem.get("msg").and_then(Value::as_str) else {
        return problem.to_string();
    };
    let place = problem.get("loc").and_then(Value::as_array).map(|steps| {
        let step = |step: &Value| step.as_str().map_or_else(|| step.to_string(), ToOwned::to_owned);
        steps.iter().map(step).collect::<Vec<_>>().join(".")
    });
    place.map_or_else(|| message.to_owned(), |place| format!("{place}: {message}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    #[test]
    fn a_character_waits_for_its_end() {
        let text = "aü".as_bytes();
        assert_eq!(complete_characters(text), 3);
        assert_eq!(complete_characters(&text[..2]), 1);
        assert_eq!(complete_characters(b"a\xff"), 2);
    }

    #[test]
    fn the_reason_of_a_refusal_is_its_detail() {
        assert_eq!(reason(br#"{"detail": "full"}"#), "full");
        let errors = br#"{"detail": [{"loc": ["body", "a", 0], "msg": "Field required"}]}"#;
        assert_eq!(reason(errors), "body.a.0: Field required");
        assert_eq!(reason(br#"{"error": {"message": "no"}}"#), "no");
        assert_eq!(reason(b"<html>\x1b"), "<html>\\u{1b}");
    }

    #[test]
    fn a_stream_may_end_with_an_error() {
        let error = stream_error(&json!({"error": {"status": 500, "detail": "boom"}})).unwrap();
        assert_eq!(error.to_string(), "the stream failed: boom");
        assert!(stream_error(&json!({"error": "x", "value": 1})).is_none());
    }

    #[test]
    fn the_first_byte_is_timed_and_all_are_counted() {
        let mut body = Arriving::new(&b"four"[..]);
        assert!(body.first.is_none());
        assert_eq!(read(&mut body).unwrap(), b"four");
        assert!(body.bytes == 4 && body.first.is_some());
    }
}
