//! All dialects, found by the ids that workers send.

use litplex_core::{DialectId, ModelInfo};

use crate::dialect::Dialect;
use crate::openai;

/// All dialects.
static DIALECTS: [&dyn Dialect; 2] = [&openai::Chat, &openai::Embeddings];

/// Returns the dialect of this id, if the server has it.
pub(crate) fn find(id: &DialectId) -> Option<&'static dyn Dialect> {
    DIALECTS.iter().copied().find(|dialect| dialect.id() == id.as_str())
}

/// Returns the dialect of a model; `None` where it is plain.
pub fn for_model(info: &ModelInfo) -> Option<&'static dyn Dialect> {
    find(info.dialect.as_ref()?)
}

/// Returns the path of an endpoint of this dialect that was configured without a path; `None` if the
/// server has no such dialect.
pub fn dialect_path(id: &DialectId) -> Option<&'static str> {
    find(id).map(Dialect::path)
}

/// Returns the dialect whose clients find an endpoint at this path, whatever is before it.
pub(crate) fn for_path(path: &str) -> Option<&'static dyn Dialect> {
    let ends = |dialect: &&dyn Dialect| path.ends_with(dialect.path().trim_start_matches("/v1"));
    DIALECTS.iter().copied().find(ends)
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
