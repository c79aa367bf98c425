//! The bodies of requests and responses: reading, unpacking and framing them, and counting their memory.
//! This crate knows no route and no protocol of an endpoint.

pub mod body;
pub mod buffers;
pub mod decompress;
pub mod drain_body;
pub mod form;
pub mod headers;
pub mod path;
pub mod raw_json;
pub mod read_body;
pub mod request_name;
pub mod response;
pub mod stream;
pub mod upload;
