//! Endpoints as tools of the Model Context Protocol
//! (<https://modelcontextprotocol.io/specification>), without sessions.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::header::ACCEPT;
use http::request::Parts;
use http::{Request, Response};
use http_body_util::BodyExt;
use http_body_util::combinators::BoxBody;
use litplex_core::Content;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorData,
    Implementation, ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig,
    Tool,
};
use rmcp::service::RequestContext;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{RoleServer, ServerHandler};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::app::{App, Route};
use crate::around::Body;
use crate::handle::{Received, compute, refusal, times};
use crate::path;

const PATHS: [&str; 2] = ["/mcp", "/mcp/"];

/// Returns whether the tools are at this path, which was decoded.
pub(crate) fn is_at(path: &str) -> bool {
    PATHS.contains(&path)
}

/// Returns whether a request to this path, as it was sent, asks for the tools, and any endpoint is
/// one.
pub(crate) fn is_asked(app: &App, path: &str) -> bool {
    path::decode(path).is_some_and(|path| is_at(&path))
        && app.routes().any(|(_, route)| tool_of(route).is_some())
}

/// Answers a request to the tools.
pub(crate) async fn answer(
    app: Arc<App>,
    request: Request<Body>,
) -> Response<BoxBody<Bytes, Infallible>> {
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        // Whoever may call the endpoints may call the tools, under any name of this machine.
        .disable_allowed_hosts();
    let tools = move || Ok(Tools { app: app.clone() });
    StreamableHttpService::new(tools, Arc::new(NeverSessionManager::default()), config)
        .handle(request)
        .await
}

/// The tools of a server.
struct Tools {
    app: Arc<App>,
}

/// What a worker says of its tool.
#[derive(Deserialize)]
struct Offer {
    name: Option<String>,
    description: String,
    input_schema: Map<String, Value>,
    /// The argument that is the body; where there is none, all of them are.
    argument: Option<String>,
}

fn tool_of(route: &Route) -> Option<Offer> {
    let tool = route.endpoint.traits()?.tool.as_ref()?;
    serde_json::from_str(tool).ok()
}

impl Offer {
    fn name(&self, path: &str) -> String {
        let name = self.name.as_deref().unwrap_or(path.trim_start_matches('/'));
        name.replace('/', "_")
    }

    fn body(&self, mut arguments: Map<String, Value>) -> Value {
        match &self.argument {
            Some(name) => arguments.remove(name).unwrap_or_default(),
            None => arguments.into(),
        }
    }
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
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let mut tools: Vec<_> = self
            .app
            .routes()
            .filter_map(|(path, route)| Some((path, tool_of(route)?)))
            .map(|(path, offer)| {
                let name = offer.name(path);
                Tool::new(name, offer.description, Arc::new(offer.input_schema))
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
        let found = self.app.routes().find_map(|(path, route)| {
            let offer = tool_of(route).filter(|offer| offer.name(path) == request.name)?;
            Some((route, offer))
        });
        let Some((route, offer)) = found else {
            let text = format!("there is no tool `{}`", request.name);
            return Err(ErrorData::invalid_params(text, None));
        };
        let body = offer.body(request.arguments.unwrap_or_default()).to_string();
        let parts = context.extensions.get::<Parts>();
        let parts = parts.ok_or_else(|| ErrorData::internal_error("no HTTP request", None))?;
        Ok(call(&self.app, route, parts, body.into()).await.into())
    }
}

/// Passes a call through the endpoint, as any request to it.
async fn call(app: &App, route: &Route, parts: &Parts, body: Bytes) -> CallToolResult {
    let mut parts = parts.clone();
    // It is about the answer to the call; a stream in it is lines, not events.
    parts.headers.remove(ACCEPT);
    // Whoever may use tools may not yet use this one.
    let admitted = route.guard.admit(&parts.headers, None).map_err(|refused| refused.error);
    let computed = async {
        let _admission = admitted?;
        let times = times(route, &parts.headers)?;
        let reservation = app.budget.reserve();
        reservation.grow(body.len())?;
        let received = Received { content: Content::Json, body: vec![body], reservation };
        compute(route, &parts, times, received).await
    };
    let computed = computed.await;
    let response = computed.unwrap_or_else(|error| refusal(route, &error));
    let is_error = !response.status().is_success();
    let Ok(body) = response.into_body().collect().await else {
        return CallToolResult::error(vec![ContentBlock::text("the stream broke off")]);
    };
    let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    let structured = serde_json::from_str(&text).ok().filter(Value::is_object);
    let content = vec![ContentBlock::text(text)];
    if is_error {
        return CallToolResult::error(content);
    }
    let mut result = CallToolResult::success(content);
    result.structured_content = structured;
    result
}
