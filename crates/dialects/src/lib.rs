//! The protocols between clients and endpoints: plain requests, the dialects of OpenAI's API, and the
//! Model Context Protocol. They take a request from its head to the beginning of its response; which
//! requests are admitted is left to `http`.

mod calls;
mod dialect;
mod endpoint;
pub mod mcp;
pub mod openai;
mod plain;
mod predict;
mod registry;

pub use calls::Dialects;
pub use dialect::{Dialect, Exchange};
pub use endpoint::{Endpoints, Route};
pub use mcp::ToolCache;
pub use predict::predict;
pub use registry::{dialect_path, for_model};
