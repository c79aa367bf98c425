//! The life of a server: from a checked configuration, with the models and layers of a Rust
//! program, to its end.
//!
//! This is the composition root: it knows every other crate, and decides nothing about a request.
//! What a Rust user sees is the crate `litplex`.

mod access;
mod admin;
mod administered;
mod announce;
mod app_host;
mod bound;
mod call_types;
mod canary;
mod check;
mod comparison;
mod controls;
mod declared_calls;
mod describe;
mod descriptors;
mod development;
mod dialect_path;
mod edge;
mod elastic;
mod endpoints;
mod error;
mod events;
mod exposed;
mod generation;
mod generation_owner;
mod generations;
mod gpus;
mod handover;
mod history;
mod in_place;
mod inventory;
mod jwks;
mod key_error;
mod launch;
mod lifecycle;
mod load;
mod log;
mod log_filter;
mod log_history;
mod log_line;
mod log_object;
mod log_owner;
mod middleware;
mod notify;
mod observed_workers;
mod pipelines;
mod placement;
mod problem;
mod requests;
mod routes;
mod scrape;
mod secrets;
mod serving;
mod signals;
mod spec;
mod telemetry;
mod tls;
mod traces;
mod upgrade;
mod warmup;
mod watch;

pub use check::{check, load};
pub use describe::{describe, describe_json};
pub use development::wait_for_change;
pub use error::Error;
pub use handover::hold_pickles;
pub use lifecycle::serve;
pub use log::{Log, init as init_log};
pub use spec::{Development, ModelSource, RustModel, ServerSpec};
pub use upgrade::{Inherited, Predecessor, StartCommand};
