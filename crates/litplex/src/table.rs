//! Tables among the options: names with values.

use serde_json::{Map, Value};

/// Returns the entries as a table.
pub(crate) fn table<'a>(
    entries: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Map<String, Value> {
    entries.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
}
