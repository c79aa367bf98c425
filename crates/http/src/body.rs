use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http_body_util::{BodyExt, LengthLimitError};
use litplex_core::{Content, FormPart, Outcome, ServeError};
use litplex_metrics::Shed;

use crate::app::Route;
use crate::around::Body;
use crate::buffers::{Buffer, Buffers};

/// More parts than this are an attack, or a mistake.
const MAX_PARTS: usize = 1000;

/// Reads a body for this route and tells what it is. The room that it takes is given back
/// when the buffer is dropped.
///
/// JSON and raw bodies stay as they came, piece by piece; forms are taken apart.
pub(crate) async fn read(
    headers: &HeaderMap,
    body: Body,
    route: &Route,
    buffers: &Buffers,
) -> Outcome<(Content, Vec<Bytes>, Buffer)> {
    let mut buffer = Buffer::default();
    let pieces = read_pieces(headers, body, route, buffers, &mut buffer).await?;
    let (content, pieces) = take_apart(headers, pieces).await?;
    Ok((content, pieces, buffer))
}

/// Tells from its headers what a whole body is, and takes forms apart.
pub(crate) async fn take_apart(
    headers: &HeaderMap,
    pieces: Vec<Bytes>,
) -> Outcome<(Content, Vec<Bytes>)> {
    let Some(content_type) = headers.get(CONTENT_TYPE) else { return Ok((Content::Json, pieces)) };
    let content_type = content_type.to_str().map_err(|_| bad("Content-Type is not text"))?;
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        // Many clients send JSON without saying so, or as text.
        "application/json" | "text/plain" | "" => Ok((Content::Json, pieces)),
        json if json.ends_with("+json") => Ok((Content::Json, pieces)),
        "multipart/form-data" => multipart(content_type, pieces).await,
        "application/x-www-form-urlencoded" => urlencoded(&pieces),
        _ => Ok((Content::Raw(content_type.to_owned()), pieces)),
    }
}

async fn read_pieces(
    headers: &HeaderMap,
    mut body: Body,
    route: &Route,
    buffers: &Buffers,
    buffer: &mut Buffer,
) -> Outcome<Vec<Bytes>> {
    let max_bytes = route.max_body_bytes;
    let count = |_: &ServeError| route.metrics.shed(Shed::Memory);
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    if let Some(announced) = announced.and_then(|length| length.parse().ok()) {
        if announced > max_bytes {
            return Err(too_large(max_bytes));
        }
        buffers.grow(buffer, announced).inspect_err(count)?;
    }
    let (mut pieces, mut length) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| unreadable(&*error))?;
        let Ok(data) = frame.into_data() else { continue };
        length += data.len();
        if length > max_bytes {
            return Err(too_large(max_bytes));
        }
        buffers.grow(buffer, length).inspect_err(count)?;
        pieces.push(data);
    }
    Ok(pieces)
}

async fn multipart(content_type: &str, pieces: Vec<Bytes>) -> Outcome<(Content, Vec<Bytes>)> {
    let wrong = |error: multer::Error| bad(format!("malformed form: {error}"));
    let boundary = multer::parse_boundary(content_type).map_err(wrong)?;
    let pieces = stream::iter(pieces.into_iter().map(Ok::<_, Infallible>));
    let mut form = multer::Multipart::new(pieces, boundary);
    let (mut parts, mut contents) = (Vec::new(), Vec::new());
    while let Some(field) = form.next_field().await.map_err(wrong)? {
        if parts.len() == MAX_PARTS {
            return Err(too_many_parts());
        }
        let name = field.name().unwrap_or_default().to_owned();
        let filename = field.file_name().map(str::to_owned);
        let content_type = field.content_type().map(ToString::to_string);
        let content = field.bytes().await.map_err(wrong)?;
        parts.push(FormPart { name, filename, content_type, length: content.len() });
        contents.push(content);
    }
    Ok((Content::Form(parts), contents))
}

fn urlencoded(pieces: &[Bytes]) -> Outcome<(Content, Vec<Bytes>)> {
    let body = pieces.concat();
    if body.trim_ascii_start().starts_with(b"{") || body.trim_ascii_start().starts_with(b"[") {
        // What `curl -d` sends unless it is told otherwise.
        let detail = "the body looks like JSON and Content-Type says that it is a form; \
                      send `Content-Type: application/json`";
        return Err(ServeError::new(415, detail));
    }
    let (mut parts, mut contents) = (Vec::new(), Vec::new());
    for (name, value) in form_urlencoded::parse(&body) {
        if parts.len() == MAX_PARTS {
            return Err(too_many_parts());
        }
        let content = Bytes::from(value.into_owned());
        let (filename, content_type, length) = (None, None, content.len());
        parts.push(FormPart { name: name.into_owned(), filename, content_type, length });
        contents.push(content);
    }
    Ok((Content::Form(parts), contents))
}

fn bad(detail: impl Into<String>) -> ServeError {
    ServeError::new(400, detail)
}

/// Says why a body could not be read to its end.
pub(crate) fn unreadable(error: &(dyn std::error::Error + Send + Sync + 'static)) -> ServeError {
    match error.downcast_ref::<LengthLimitError>() {
        // A layer of the program's own has a limit.
        Some(_) => ServeError::new(413, "the body is larger than it may be"),
        None => bad(format!("the body cannot be read: {error}")),
    }
}

fn too_many_parts() -> ServeError {
    bad(format!("the form has more than {MAX_PARTS} parts"))
}

fn too_large(max_bytes: usize) -> ServeError {
    ServeError::new(413, format!("the body is larger than {max_bytes} bytes"))
}
