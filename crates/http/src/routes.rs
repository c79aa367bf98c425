//! The route table: every path that the server itself responds at, with its methods, its access and
//! its handler. It is built once from the configuration. Dispatch, `405 Allow`, admission, the
//! choice of requests for the app host, and `litplex check` read it. `config` is below this crate and has
//! its own list of the paths that endpoints may not take; a test in `server` holds it to this table.
//!
//! The program's own routes are not in it: only the app host knows them.

use std::collections::HashMap;

use http::Method;
use litplex_access::Keys;
use litplex_core::Identity;
use litplex_dialects::openai::MODELS;
use serde_json::{Map, Value, json};

use crate::target::Target;

/// The paths of single models.
const EACH_MODEL: &str = "/v1/models/*";

/// The paths of the tools.
const TOOLS: [&str; 2] = ["/mcp", "/mcp/"];

/// The path of the `OpenAPI` document.
const OPENAPI: &str = "/openapi.json";

/// The paths of Swagger UI: the page under two names, and its files.
const SWAGGER_UI: [&str; 6] = [
    "/docs",
    "/redoc",
    "/docs/favicon-32x32.png",
    "/docs/start.js",
    "/docs/swagger-ui-bundle.js",
    "/docs/swagger-ui.css",
];

/// The path of the dashboard, and the paths of its files and of the API that it uses.
const DASHBOARD: [&str; 2] = ["/dashboard", "/dashboard/*"];

/// The settings of the built-in routes.
#[derive(Debug, Clone, Default)]
pub struct Builtin {
    /// The path that shows whether the server can serve.
    pub health: String,
    /// Whether it shows the reasons.
    pub status_reasons: bool,
    /// The body of `/`. `None`: a list of the routes.
    pub index: Option<String>,
    /// The path that shows to any client whether the server runs.
    pub livez: String,
    /// The path that shows to any client, without reasons, whether the server can serve.
    pub readyz: String,
    /// The path that describes the server.
    pub info: String,
    /// The object under `server` in the description, in place of the server's state. `None`: the
    /// description also has the version, the endpoints and the routes.
    pub info_server: Option<Map<String, Value>>,
    /// The path of the metrics for Prometheus, if they are served.
    pub metrics: Option<String>,
    /// The path that stops the server, if there is one.
    pub shutdown: Option<String>,
    /// The key of clients that stop the server. `None`: no client can.
    pub shutdown_key: Option<Keys>,
    /// The entry `model` of the description.
    pub model_metadata: Value,
    /// Whether the endpoints are described at `/openapi.json`, `/docs` and `/redoc`.
    pub openapi: bool,
    /// Whether operators have the dashboard, with the part of the admin API that it uses.
    pub dashboard: bool,
}

/// The callers of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Any client.
    Public,
    /// Clients that may call the endpoint with this index.
    Endpoint(usize),
    /// Clients that may call a model, or have a key or token of the server.
    Models,
    /// Clients with a key or token of the server.
    Server,
    /// Holders of the key that stops the server.
    Shutdown,
    /// Holders of a key of the admin API, which decides about their requests itself.
    Operators,
}

impl Access {
    /// Returns its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Endpoint(_) => "endpoint",
            Self::Models => "models",
            Self::Server => "server",
            Self::Shutdown => "shutdown",
            Self::Operators => "operators",
        }
    }
}

/// The condition on which a route exists. The kind of an endpoint is known once a worker is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Always.
    Always,
    /// Once the endpoint with this index is known to speak the OpenAI API.
    SpeaksOpenAi(usize),
    /// Once an endpoint is known to speak the OpenAI API.
    AnyOpenAi,
    /// Once an endpoint is known to be a tool.
    AnyTool,
}

impl Condition {
    /// Returns its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::SpeaksOpenAi(_) | Self::AnyOpenAi => "openai",
            Self::AnyTool => "tool",
        }
    }
}

/// The handler of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handler {
    /// The endpoint with this index.
    Endpoint(usize),
    /// The tools of the Model Context Protocol.
    Tools,
    /// The admin API.
    Operators,
    Builtin(Page),
}

/// A built-in page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Page {
    /// The response to browsers that send a preflight request to an endpoint of the OpenAI API.
    Preflight,
    Index,
    Health,
    Livez,
    Readyz,
    Info,
    Metrics,
    Shutdown,
    Models,
    OpenApi,
    SwaggerUi,
}

impl From<Page> for Handler {
    fn from(page: Page) -> Self {
        Self::Builtin(page)
    }
}

/// The result of dispatching a request by its path and method.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Dispatch {
    To(Handler),
    /// The path exists with other methods: these.
    NotAllowed(String),
    NotFound,
}

/// A route: a row of the table.
#[derive(Debug, Clone)]
pub struct RouteEntry {
    /// The methods, as in an `Allow` header.
    pub methods: &'static str,
    /// The path, decoded. A path that ends with `/*` matches everything below it.
    pub path: String,
    /// The callers that may use it.
    pub access: Access,
    /// The condition on which it exists.
    pub condition: Condition,
    /// The model that a request names to reach it, if several endpoints share its path.
    pub model: Option<String>,
    /// A description in a few words.
    pub description: &'static str,
    pub(crate) handler: Handler,
}

impl Dispatch {
    /// Chooses among the routes that exist at a path.
    pub(crate) fn among<'a>(
        entries: impl IntoIterator<Item = &'a RouteEntry>,
        method: &Method,
    ) -> Self {
        let mut methods = Vec::new();
        for entry in entries {
            if entry.allows(method) {
                return Self::To(entry.handler);
            }
            if !methods.contains(&entry.methods) {
                methods.push(entry.methods);
            }
        }
        if methods.is_empty() { Self::NotFound } else { Self::NotAllowed(methods.join(", ")) }
    }
}

impl RouteEntry {
    /// Returns the route as `/info` and `litplex check --json` show it.
    pub fn to_json(&self) -> Value {
        let mut row = json!({
            "methods": self.methods.split(", ").collect::<Vec<_>>(),
            "path": self.path,
            "access": self.access.as_str(),
            "description": self.description,
        });
        if let Some(model) = &self.model {
            row["model"] = json!(model);
        }
        row
    }

    /// Returns the route as the app host receives it. `condition` says when the route is there;
    /// `yields` says whether a route of the program at the same path comes first.
    pub fn for_app_host(&self) -> Value {
        json!({
            "methods": self.methods.split(", ").collect::<Vec<_>>(),
            "path": self.path,
            "access": self.access.as_str(),
            "condition": self.condition.as_str(),
            "yields": matches!(self.handler, Handler::Builtin(Page::Livez | Page::Readyz | Page::Metrics)),
        })
    }

    fn allows(&self, method: &Method) -> bool {
        // Most routes have one method, and every request is compared with one.
        self.methods == method.as_str()
            || self.methods.split(", ").any(|allowed| allowed == method.as_str())
    }
}

const READ: &str = "GET, HEAD";

/// The number of routes of an endpoint. The routes of all endpoints are the first ones of the
/// table.
const ENDPOINT_ROUTES: usize = 2;

/// All routes, in the order in which they are shown.
#[derive(Debug, Default)]
pub struct RouteTable {
    entries: Vec<RouteEntry>,
    by_path: HashMap<String, Vec<usize>>,
    /// The prefixes of paths that end with `/*`, and the indices of their routes.
    below: Vec<(String, usize)>,
}

impl RouteTable {
    /// Builds the table of endpoints, which are in the order of their indices, and of the built-in
    /// routes.
    pub fn new<'a>(endpoints: impl IntoIterator<Item = &'a Identity>, builtin: &Builtin) -> Self {
        let mut table = Self::default();
        for (index, identity) in endpoints.into_iter().enumerate() {
            table.add_endpoint(index, identity);
        }
        table.add_protocols();
        table.add_pages(builtin);
        table.add_probes(builtin);
        table
    }

    /// Returns all routes.
    pub fn entries(&self) -> &[RouteEntry] {
        &self.entries
    }

    /// Returns the routes at a decoded path: one for each set of methods.
    pub(crate) fn at<'a>(&'a self, path: &str) -> impl Iterator<Item = &'a RouteEntry> + use<'a> {
        let exact = self.by_path.get(path).map_or(&[][..], Vec::as_slice);
        let below =
            self.below.iter().find(|(start, _)| exact.is_empty() && path.starts_with(start));
        let below = below.map(|(_, index)| index);
        exact.iter().chain(below).map(|index| &self.entries[*index])
    }

    /// Returns the routes of the endpoint with this index.
    pub(crate) fn endpoint_routes(&self, index: usize) -> impl Iterator<Item = &RouteEntry> {
        self.entries[index * ENDPOINT_ROUTES..].iter().take(ENDPOINT_ROUTES)
    }

    /// Returns the target of requests to a path, if it is that of an endpoint or of several.
    pub(crate) fn endpoint(&self, path: &str) -> Option<Target> {
        let routes = self.by_path.get(path)?;
        let Handler::Endpoint(index) = self.entries[*routes.first()?].handler else { return None };
        let is_shared = routes.len() > ENDPOINT_ROUTES;
        Some(if is_shared { Target::SharedPath(index) } else { Target::Endpoint(index) })
    }

    fn add_endpoint(&mut self, index: usize, identity: &Identity) {
        let (access, path) = (Access::Endpoint(index), &identity.path);
        let model = identity.shares_path().then(|| identity.name.clone());
        self.add("POST", path, access, "an endpoint", Handler::Endpoint(index)).model =
            model.clone();
        let what = "answers a browser's preflight request";
        let preflight = self.add("OPTIONS", path, access, what, Page::Preflight);
        preflight.condition = Condition::SpeaksOpenAi(index);
        preflight.model = model;
    }

    fn add_protocols(&mut self) {
        for path in [MODELS, EACH_MODEL] {
            self.add(READ, path, Access::Models, "the models of the OpenAI API", Page::Models)
                .condition = Condition::AnyOpenAi;
        }
        for path in TOOLS {
            let what = "the tools of the Model Context Protocol";
            self.add("POST", path, Access::Server, what, Handler::Tools).condition =
                Condition::AnyTool;
        }
    }

    fn add_pages(&mut self, builtin: &Builtin) {
        let Builtin { health, info, metrics, openapi, dashboard, .. } = builtin;
        self.add(READ, "/", Access::Server, "the endpoints", Page::Index);
        self.add(READ, health, Access::Server, "whether the server can serve", Page::Health);
        self.add(READ, info, Access::Server, "the server's description", Page::Info);
        if let Some(path) = metrics {
            self.add(READ, path, Access::Server, "metrics for Prometheus", Page::Metrics);
        }
        if *openapi {
            let what = "the endpoints as OpenAPI";
            self.add(READ, OPENAPI, Access::Server, what, Page::OpenApi);
            for path in SWAGGER_UI {
                self.add(READ, path, Access::Server, "a page of OpenAPI", Page::SwaggerUi);
            }
        }
        if *dashboard {
            let [page, below] = DASHBOARD;
            self.add(READ, page, Access::Operators, "the dashboard", Handler::Operators);
            let (methods, what) = ("GET, HEAD, POST, PUT", "the dashboard and its API");
            self.add(methods, below, Access::Operators, what, Handler::Operators);
        }
    }

    fn add_probes(&mut self, builtin: &Builtin) {
        let Builtin { livez, readyz, shutdown, .. } = builtin;
        self.add(READ, livez, Access::Public, "whether the server runs", Page::Livez);
        self.add(READ, readyz, Access::Public, "whether the server is ready", Page::Readyz);
        if let Some(path) = shutdown {
            self.add("POST", path, Access::Shutdown, "stops the server", Page::Shutdown);
        }
    }

    /// Adds a route. If two built-in routes have the same path, the first one responds.
    fn add(
        &mut self,
        methods: &'static str,
        path: &str,
        access: Access,
        description: &'static str,
        handler: impl Into<Handler>,
    ) -> &mut RouteEntry {
        let handler = handler.into();
        let index = self.entries.len();
        match path.strip_suffix('*') {
            Some(start) => self.below.push((start.to_owned(), index)),
            None => self.by_path.entry(path.to_owned()).or_default().push(index),
        }
        let (path, condition) = (path.to_owned(), Condition::Always);
        let model = None;
        let entry = RouteEntry { methods, path, access, condition, model, description, handler };
        self.entries.push(entry);
        &mut self.entries[index]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn table() -> RouteTable {
        let builtin = Builtin {
            health: "/health".into(),
            livez: "/livez".into(),
            readyz: "/readyz".into(),
            info: "/info".into(),
            metrics: Some("/metrics".into()),
            shutdown: Some("/stop".into()),
            openapi: true,
            dashboard: true,
            ..Builtin::default()
        };
        RouteTable::new(&["/a", "/v1/chat/completions"].map(at), &builtin)
    }

    fn at(path: &str) -> Identity {
        Identity { label: path.into(), path: path.into(), ..Identity::default() }
    }

    fn handlers(path: &str) -> Vec<Handler> {
        table().at(path).map(|entry| entry.handler).collect()
    }

    #[test]
    fn a_path_has_the_routes_of_its_row() {
        assert_eq!(handlers("/a"), [Handler::Endpoint(0), Handler::Builtin(Page::Preflight)]);
        assert_eq!(handlers("/v1/models"), [Handler::Builtin(Page::Models)]);
        assert_eq!(
            handlers("/v1/models/a/b"),
            [Handler::Builtin(Page::Models)],
            "everything below"
        );
        assert_eq!(handlers("/mcp/"), [Handler::Tools]);
        for path in ["/dashboard", "/dashboard/", "/dashboard/v1/server"] {
            assert_eq!(handlers(path), [Handler::Operators], "{path}");
        }
        for path in ["/v1/model", "/v1/modelss", "/v1", "/a/b", "/docs/none", "/dashboards", ""] {
            assert_eq!(handlers(path), [], "{path}");
        }
    }

    #[test]
    fn a_method_that_a_path_lacks_is_told_those_that_it_has() {
        let table = table();
        let dispatch = |path, method| Dispatch::among(table.at(path), &method);
        assert_eq!(dispatch("/a", Method::POST), Dispatch::To(Handler::Endpoint(0)));
        assert_eq!(dispatch("/health", Method::HEAD), Dispatch::To(Page::Health.into()));
        assert_eq!(dispatch("/a", Method::GET), Dispatch::NotAllowed("POST, OPTIONS".into()));
        assert_eq!(dispatch("/info", Method::PUT), Dispatch::NotAllowed("GET, HEAD".into()));
        assert_eq!(dispatch("/none", Method::GET), Dispatch::NotFound);
        assert!(table.endpoint_routes(1).all(|entry| entry.path == "/v1/chat/completions"));
    }

    #[test]
    fn an_endpoint_is_found_by_its_path_alone() {
        let table = table();
        assert_eq!(table.endpoint("/v1/chat/completions"), Some(Target::Endpoint(1)));
        assert_eq!([table.endpoint("/"), table.endpoint("/b")], [None, None]);
    }

    #[test]
    fn a_shared_path_has_the_routes_of_each_endpoint_and_a_target_of_its_own() {
        let named = |name: &str| Identity { name: name.into(), label: name.into(), ..at("/chat") };
        let table =
            RouteTable::new(&[at("/a"), named("large"), named("small")], &Builtin::default());
        assert_eq!(table.endpoint("/chat"), Some(Target::SharedPath(1)));
        let models = table.at("/chat").filter_map(|entry| entry.model.as_deref());
        assert!(models.eq(["large", "large", "small", "small"]));
        assert_eq!(
            Dispatch::among(table.at("/chat"), &Method::GET),
            Dispatch::NotAllowed("POST, OPTIONS".into())
        );
    }

    #[test]
    fn every_page_of_swagger_ui_has_a_route() {
        assert_eq!(BTreeSet::from_iter(litplex_pages::paths()), BTreeSet::from(SWAGGER_UI));
    }

    #[test]
    fn only_probes_are_public() {
        let table = table();
        let public = table.entries().iter().filter(|entry| entry.access == Access::Public);
        assert!(public.map(|entry| &*entry.path).eq(["/livez", "/readyz"]));
    }
}
