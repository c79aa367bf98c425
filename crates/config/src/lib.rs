//! The options table, and the way from raw to resolved configuration.
//!
//! Every option is defined once, in [`OPTIONS`]: the TOML key, the Python keyword, the check, its
//! message and the documentation come from there. [`parse_toml`] and [`parse_json`] read a raw
//! configuration; [`resolve`] turns it into a [`Program`] or returns all of its errors. The crate
//! starts nothing and opens no file of keys or certificates: `server` and `access` do.

mod access;
mod admin;
mod app_host;
mod diff;
mod endpoint;
mod jwt;
mod keywords;
mod names;
mod options;
mod pipeline;
mod presentation;
mod read;
mod residency;
mod resolve;
mod resources;
mod tls;
mod worker_env;
mod workers;

pub use access::{ApiKey, ApiKeys};
pub use admin::{AdminAccess, AdminAddress};
pub use app_host::AppHost;
pub use diff::{Change, ChangedFiles, Diff, EndpointDiff, OptionChange, RestartOption};
pub use endpoint::{Endpoint, Source, Swap};
pub use jwt::{Jwks, Jwt};
pub use keywords::keywords_python;
pub use litplex_access::{Digest, Rate};
pub use litplex_core::Cost;
pub use litplex_tls::{Pem, TlsFiles};
pub use names::can_be_shared;
pub use options::{Kind, OPTIONS, OptionDef, Scope, problems, table_json, table_markdown};
pub use presentation::Presentation;
pub use residency::{KeepAlive, Residency};
pub use resolve::{
    BuiltinRoutes, ConfigError, DeviceConcurrency, Origin, Program, parse_json, parse_toml, resolve,
};
pub use resources::Resources;
pub use workers::Workers;
