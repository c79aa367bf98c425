//! The pages of a server: the `OpenAPI` document of its endpoints, and Swagger UI, which shows it.
//!
//! Pages are made of data: [`document`] takes a list of described endpoints, and [`page`] returns a
//! body and headers. Routes, guards and the compression of responses are left to `http`.

mod openapi;
mod swagger_ui;

pub use openapi::{DescribedEndpoint, DialectSchemas, EndpointSchema, document, event};
pub use swagger_ui::{Page, page, paths};
