//! Endpoints as tools of the Model Context Protocol
//! (<https://modelcontextprotocol.io/specification>), without sessions.

mod message;
mod schema;
mod tool;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue,
};
use http::request::Parts;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use litplex_calls::off_thread;
use litplex_core::{Content, MemoryBudget, Outcome, Reservation, ServeError, json_text};
use litplex_http_core::body::Body;
use litplex_http_core::response::{self, HttpResponse, ResponseBody};
use litplex_http_core::{decompress, read_body};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorData,
    Implementation, ListToolsResult, PaginatedRequestParams, ResourceContents, ServerCapabilities,
    ServerConfig,
};
use rmcp::service::RequestContext;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{RoleServer, ServerHandler};
use serde_json::Value;
use tokio::time::{Instant, timeout};

pub use self::tool::{Tool, ToolCache};

use self::message::{ENVELOPE_BYTES, Message, Refused};
use crate::endpoint::{Endpoints, Route};
use crate::predict::{
    Received, begin_call, compute, in_batch_class, shed_for_memory, slow_client, tell,
};

/// Responds to a request of this client to the tools of these endpoints.
pub async fn respond(
    endpoints: Arc<Endpoints>,
    memory: &Arc<MemoryBudget>,
    request: Request<Body>,
    client: Option<SocketAddr>,
) -> HttpResponse {
    let arrived = Instant::now();
    let (mut parts, body) = request.into_parts();
    let reservation = memory.reserve();
    let read = read(&endpoints, &parts.headers, body, &reservation);
    let body = match timeout(longest_timeout(&endpoints), read).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) => return refused(&error),
        Err(_) => return response::error(&slow_client()),
    };
    // The arguments and the rest of the message are copies.
    if let Err(error) = reservation.grow(body.len()) {
        return response::error(&error);
    }
    let parsed = off_thread(body.len(), move || Message::parse(&body)).await;
    let message = match parsed {
        Ok(message) => message,
        Err(refused) => return refused.response(),
    };
    let wants_events = wants_events(&parts.headers);
    parts.headers.insert(ACCEPT, ANY_ACCEPT);
    parts.headers.insert(CONTENT_TYPE, JSON);
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.remove(CONTENT_ENCODING);
    let Message { text, arguments, id } = message;
    parts.extensions.insert(CallFacts { client, arrived, arguments, reservation });
    let response = serve(endpoints, parts, text.into(), wants_events).await;
    if response.status() == StatusCode::UNSUPPORTED_MEDIA_TYPE {
        // It is JSON, of which rmcp reads more than was checked; this is its response to JSON that
        // it cannot read.
        return Refused::params("they cannot be read", id).response();
    }
    response
}

/// Returns the response to an invalid body; for an unsupported coding, with the supported ones.
fn refused(error: &ServeError) -> HttpResponse {
    let mut response = response::error(error);
    if response.status() == StatusCode::UNSUPPORTED_MEDIA_TYPE {
        let accepted = HeaderValue::from_static(decompress::ACCEPTED);
        response.headers_mut().insert(ACCEPT_ENCODING, accepted);
    }
    response
}

/// The facts about a request that rmcp does not pass on.
#[derive(Debug, Clone)]
struct CallFacts {
    client: Option<SocketAddr>,
    arrived: Instant,
    arguments: Option<Bytes>,
    reservation: Reservation,
}

/// The types that rmcp requires clients to accept; this server does not.
const ANY_ACCEPT: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Reads the text of a message, which may be as long as the longest body of a tool.
async fn read(
    endpoints: &Endpoints,
    headers: &HeaderMap,
    body: Body,
    reservation: &Reservation,
) -> Outcome<Bytes> {
    let most = tools(endpoints).map(|(route, _)| route.max_body_bytes).max().unwrap_or_default();
    let most = most.saturating_add(ENVELOPE_BYTES);
    let codings = decompress::codings(headers)?;
    let pieces = read_body::read_pieces(headers, body, most, reservation).await?;
    let pieces = decompress::decompress(pieces, codings, most, reservation).await?;
    let length = pieces.iter().map(Bytes::len).sum();
    if pieces.len() > 1 {
        reservation.grow(length)?;
    }
    off_thread(length, move || json_text(&pieces)).await.ok_or_else(ServeError::not_json_text)
}

/// Lets rmcp respond to a message.
async fn serve(
    endpoints: Arc<Endpoints>,
    parts: Parts,
    text: Bytes,
    wants_events: bool,
) -> HttpResponse {
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(!wants_events)
        .with_max_request_body_bytes(usize::MAX)
        // Access to the endpoints is access to the tools, under any name of this machine.
        .disable_allowed_hosts();
    let tools = move || Ok(Tools { endpoints: endpoints.clone() });
    StreamableHttpService::new(tools, Arc::new(NeverSessionManager::default()), config)
        .handle(Request::from_parts(parts, Full::new(text)))
        .await
        .map(|body| ResponseBody::boxed(body.map_err(|never| match never {})))
}

/// Returns whether a client accepts events alone. Without `Accept` it accepts any type.
fn wants_events(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let essence =
        |entry: &str| entry.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let types: Vec<_> = accepted.flat_map(|value| value.split(',')).map(essence).collect();
    types.iter().any(|media_type| media_type == "text/event-stream")
        && types.iter().all(|media_type| media_type.starts_with("text/"))
}

fn longest_timeout(endpoints: &Endpoints) -> Duration {
    tools(endpoints).map(|(route, _)| route.timeout()).max().unwrap_or_default()
}

fn tools(endpoints: &Endpoints) -> impl Iterator<Item = (&Route, Arc<Tool>)> {
    endpoints.iter().filter_map(|route| Some((route, route.tool()?)))
}

/// The tools of a server.
struct Tools {
    endpoints: Arc<Endpoints>,
}

impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        let litplex = Implementation::new("litplex", env!("CARGO_PKG_VERSION"));
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(litplex)
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let headers = context.extensions.get::<Parts>().map(|parts| &parts.headers);
        let may_call =
            |route: &Route| headers.is_some_and(|headers| route.guard.knows(headers).is_ok());
        let mut tools: Vec<_> = tools(&self.endpoints)
            .filter(|(route, _)| may_call(route))
            .map(|(route, tool)| {
                let name = tool.name(&route.identity);
                rmcp::model::Tool::new(
                    name,
                    tool.description.clone(),
                    Arc::new(tool.input_schema.clone()),
                )
            })
            .collect();
        tools.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(ListToolsResult::with_all_items(tools))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let mut tools = tools(&self.endpoints);
        let found = tools.find(|(route, tool)| tool.name(&route.identity) == request.name);
        let Some((route, tool)) = found else {
            let text = format!("there is no tool `{}`", request.name);
            return Err(ErrorData::invalid_params(text, None));
        };
        let parts = context.extensions.get::<Parts>();
        let found = parts.and_then(|parts| Some((parts, parts.extensions.get::<CallFacts>()?)));
        let Some((parts, facts)) = found else {
            return Err(ErrorData::internal_error("no HTTP request", None));
        };
        let mut parts = parts.clone();
        // It is about the response to the call; a stream in it is lines, not events.
        parts.headers.remove(ACCEPT);
        // Hooks see a request to their endpoint.
        if let Ok(uri) = route.identity.path.parse() {
            parts.uri = uri;
        }
        let arguments = facts.arguments.clone();
        let bytes = arguments.as_ref().map_or(0, Bytes::len);
        let read = {
            let tool = tool.clone();
            move || tool.body(arguments.as_ref())
        };
        let body = match off_thread(bytes, read).await {
            Ok(body) => body,
            Err(wrong) => return Ok(CallToolResult::error(vec![ContentBlock::text(wrong)]).into()),
        };
        Ok(call(route, &tool, &parts, facts, body).await.into())
    }
}

/// Sends a call through the endpoint, like any request to it.
async fn call(
    route: &Route,
    tool: &Tool,
    parts: &Parts,
    facts: &CallFacts,
    body: Bytes,
) -> CallToolResult {
    // Access to `/mcp` does not imply access to this endpoint: check it too.
    let admitted = route.guard.admit(&parts.headers, facts.client).map_err(|refused| refused.error);
    let computed = async {
        let admission = admitted?;
        if body.len() > route.max_body_bytes {
            return Err(read_body::too_large(route.max_body_bytes));
        }
        let mut call = begin_call(facts.arrived, route, parts)?;
        if admission.is_batch {
            call.origin = Some(in_batch_class(call.origin.as_ref()));
        }
        let reservation = facts.reservation.clone();
        reservation.grow(body.len()).inspect_err(|error| shed_for_memory(route, error))?;
        let received = Received { content: Content::Json, body: vec![body], reservation };
        let observed = call.admit(route.target.registry())?;
        let answered = compute(route, parts, call, received).await;
        tell(observed.as_deref(), &answered);
        answered
    };
    let computed = computed.await;
    let response = computed.unwrap_or_else(|error| route.error(&error));
    let is_error = !response.status().is_success();
    let media_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = media_type.unwrap_or_default().to_owned();
    let reservation = &facts.reservation;
    let (body, is_whole) = match collected(response.into_body(), reservation).await {
        Ok(collected) => collected,
        Err(error) => {
            shed_for_memory(route, &error);
            return CallToolResult::error(vec![ContentBlock::text(error.detail)]);
        }
    };
    let length = body.len();
    if is_error || !is_whole {
        let text = String::from_utf8_lossy(&body);
        let words = match is_whole {
            true => tool.words(&text),
            // The last part of the stream has the reason.
            false => format!("the stream broke off: {}", text.trim_end()),
        };
        return CallToolResult::error(vec![ContentBlock::text(words)]);
    }
    let (path, reservation) = (parts.uri.path().to_owned(), reservation.clone());
    let read = move || {
        let content = content(&media_type, &path, body);
        let structured = content.as_text().and_then(|text| structure_of(&text.text, &reservation));
        (content, structured)
    };
    let (content, structured) = off_thread(length, read).await;
    let mut result = CallToolResult::success(vec![content]);
    result.structured_content = structured;
    result
}

/// Reads a body as far as it goes; returns the data and whether it is whole.
///
/// # Errors
/// 503: the budget has no room for the data, which is held twice: as it arrived and as it is sent.
async fn collected(mut body: ResponseBody, reservation: &Reservation) -> Outcome<(Vec<u8>, bool)> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Ok((bytes, false)) };
        let data = frame.into_data().unwrap_or_default();
        reservation.grow(2 * data.len())?;
        bytes.extend(data);
    }
    Ok((bytes, true))
}

/// Returns a response in the form of the protocol: data that is not text stays bytes.
fn content(media_type: &str, path: &str, body: Vec<u8>) -> ContentBlock {
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    if media_type.starts_with("audio/") {
        return ContentBlock::audio(STANDARD.encode(body), media_type);
    }
    match String::from_utf8(body) {
        Ok(text) => ContentBlock::text(text),
        Err(body) => {
            let encoded = STANDARD.encode(body.as_bytes());
            match media_type.starts_with("image/") {
                true => ContentBlock::image(encoded, media_type),
                false => {
                    let blob = ResourceContents::blob(encoded, format!("litplex:{path}"));
                    ContentBlock::resource(blob.with_mime_type(media_type))
                }
            }
        }
    }
}

/// The memory of a parsed value, in bytes: its entry in an object, with a short name.
const VALUE_BYTES: usize = 100;

/// Returns the object in a text, unless it has a number that would change, or the budget has no room for
/// its values.
fn structure_of(text: &str, reservation: &Reservation) -> Option<Value> {
    let is_long = |digits: &[u8]| digits.len() > 18;
    if text.as_bytes().split(|byte| !byte.is_ascii_digit()).any(is_long) {
        return None;
    }
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let values = text.bytes().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count();
    reservation.grow(text.len() + values * VALUE_BYTES).ok()?;
    serde_json::from_str(text).ok().filter(Value::is_object)
}

#[cfg(test)]
mod tests {
    use litplex_core::MemoryBudget;

    use super::*;

    #[test]
    fn an_object_is_structured_where_there_is_room_for_its_values() {
        let text = format!("{{\"a\":[{}0]}}", "[],".repeat(1000));
        let enough = MemoryBudget::new(1 << 20);
        assert!(structure_of(&text, &enough.reserve()).is_some());
        let reserved = enough.reserve();
        structure_of(&text, &reserved);
        assert!(reserved.bytes() > 1000 * size_of::<Value>());
        assert!(structure_of(&text, &MemoryBudget::new(text.len()).reserve()).is_none());
        for other in ["[1]", "7", "a", r#"{"a":1234567890123456789}"#] {
            assert_eq!(structure_of(other, &enough.reserve()), None, "{other}");
        }
    }
}
