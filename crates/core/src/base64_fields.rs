//! The fields of JSON bodies that hold bytes as base64, as a model declares them.

use std::collections::BTreeMap;

/// The places of base64 texts in a JSON value. It is a tree: each level chooses by a key or an item.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Base64Fields {
    is_text: bool,
    keys: BTreeMap<String, Base64Fields>,
    each: Option<Box<Base64Fields>>,
}

impl Base64Fields {
    /// Returns the fields at these paths. A step of a path is a key of an object, or `None` for each item
    /// of a list and each value of an object.
    pub fn from_paths<'a>(paths: impl IntoIterator<Item = &'a Vec<Option<String>>>) -> Self {
        let mut fields = Self::default();
        for path in paths {
            let mut level = &mut fields;
            for step in path {
                level = match step {
                    Some(key) => level.keys.entry(key.clone()).or_default(),
                    None => level.each.get_or_insert_default(),
                };
            }
            level.is_text = true;
        }
        fields
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns whether the value itself is a base64 text.
    pub fn is_text(&self) -> bool {
        self.is_text
    }

    /// Returns the fields of the value at this key of an object.
    pub fn at_key(&self, key: &str) -> Option<&Self> {
        self.keys.get(key).or(self.each.as_deref())
    }

    /// Returns the fields of each item of a list.
    pub fn items(&self) -> Option<&Self> {
        self.each.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(dotted: &str) -> Vec<Option<String>> {
        dotted.split('.').map(|step| (step != "*").then(|| step.to_owned())).collect()
    }

    #[test]
    fn a_field_is_found_by_its_keys_and_items() {
        let fields = Base64Fields::from_paths(&[path("image"), path("pages.*.scan")]);
        assert!(fields.at_key("image").unwrap().is_text());
        let page = fields.at_key("pages").unwrap().items().unwrap();
        assert!(page.at_key("scan").unwrap().is_text() && !page.is_text());
        assert!(fields.at_key("scan").is_none() && fields.items().is_none());
    }

    #[test]
    fn a_path_without_steps_is_the_whole_value() {
        let fields = Base64Fields::from_paths(&[Vec::new()]);
        assert!(fields.is_text() && !fields.is_empty());
        assert!(Base64Fields::default().is_empty());
    }
}
