//! The dialects that clients of endpoints speak, by the ids that workers name.
//!
//! An endpoint without a dialect is plain: it takes any body, and its response goes out as the model
//! made it. That path is not behind the trait, because a boxed future would cost each request an
//! allocation.

use std::fmt::Debug;

use litplex_core::{BoxFuture, DialectId, ModelInfo, ServeError};
use serde_json::Value;

use crate::answer::HttpResponse;
use crate::openai;
use crate::predict::Exchange;

/// One way in which clients speak to an endpoint. What its paths, bodies and errors look like is
/// known to its implementation alone.
pub(crate) trait Dialect: Debug + Send + Sync {
    /// Returns the id that workers name.
    fn id(&self) -> &'static str;

    /// Returns the path at which its clients ask for an endpoint that was given none.
    fn path(&self) -> &'static str;

    /// Answers a request whose body was read. It is dropped at the deadline of its call.
    fn serve<'a>(&'a self, exchange: Exchange<'a>) -> BoxFuture<'a, HttpResponse>;

    /// Returns an error in the form of the dialect.
    fn error(&self, error: &ServeError) -> HttpResponse;

    /// Returns the JSON Schema of its requests.
    fn request_schema(&self) -> Value;

    /// Returns the description of its responses, as an `OpenAPI` response.
    fn describe_response(&self) -> Value;

    /// Returns the schema of the `error` that its errors have besides `detail`.
    fn error_schema(&self) -> Value;
}

/// All dialects.
static DIALECTS: [&dyn Dialect; 2] = [&openai::Chat, &openai::Embeddings];

/// Returns the dialect of this id, if this server has it.
pub(crate) fn find(id: &DialectId) -> Option<&'static dyn Dialect> {
    DIALECTS.iter().copied().find(|dialect| dialect.id() == id.as_str())
}

/// Returns the dialect of a model; `None` where it is plain.
pub(crate) fn for_model(info: &ModelInfo) -> Option<&'static dyn Dialect> {
    find(info.dialect.as_ref()?)
}

/// Returns the path at which clients of this dialect ask for an endpoint that was given none; `None`
/// where this server has no such dialect.
pub fn dialect_path(id: &DialectId) -> Option<&'static str> {
    find(id).map(Dialect::path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_dialect_is_found_by_its_id() {
        for dialect in DIALECTS {
            let id = DialectId::new(dialect.id());
            assert_eq!(dialect_path(&id), Some(dialect.path()), "{dialect:?}");
        }
        assert!(find(&DialectId::new("plain")).is_none());
    }
}
