//! The options table, and the way from raw to resolved configuration.
//!
//! Every option is defined once, in [`OPTIONS`]: the TOML key, the Python keyword, the check, its
//! message and the documentation come from there. [`parse_toml`] or [`parse_json`] read what
//! somebody wrote; [`resolve`] turns it into a [`Program`] or says everything that is wrong.

mod app_host;
mod cost;
mod devices;
mod endpoint;
mod options;
mod read;
mod resolve;
mod resources;
mod surroundings;
mod workers;

pub use app_host::AppHost;
pub use cost::Cost;
pub use devices::{Shares, count_gpus, isolate, overcommitted, place};
pub use endpoint::{Endpoint, Source};
pub use options::{Kind, OPTIONS, OptionDef, Scope, mistakes, table_json, table_markdown};
pub use resolve::{BuiltinRoutes, ConfigError, Origin, Program, parse_json, parse_toml, resolve};
pub use resources::{Resources, affinity_mistake, fair_threads, thread_variables};
pub use workers::Workers;
