//! The identity of an endpoint: its path and its names, and how a reference finds it.

use std::fmt;

/// The path and the names of an endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// The text that stands for the endpoint in logs, metrics and messages: no other endpoint has it.
    pub label: String,
    /// The path.
    pub path: String,
    /// The name: the one that the program has chosen, or else that of its class.
    pub name: String,
    /// Whether the program has chosen the name. Several endpoints may have the name of one class.
    pub has_own_name: bool,
    /// Further names.
    pub aliases: Vec<String>,
}

impl Identity {
    /// Returns whether a text is the name of the endpoint or one of its aliases.
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.aliases.iter().any(|alias| alias == name)
    }

    /// Returns the names that the program has chosen: no other endpoint has them.
    pub fn own_names(&self) -> impl Iterator<Item = &str> {
        let name = self.has_own_name.then_some(&self.name);
        name.into_iter().chain(&self.aliases).map(String::as_str)
    }

    /// Returns the index of the endpoint that a reference means: a path, which begins with a slash, or
    /// a name or alias. A name that a program has chosen comes before the name of a class.
    ///
    /// # Errors
    /// The reference means no endpoint, or several.
    pub fn find<'a>(
        endpoints: impl IntoIterator<Item = &'a Self>,
        reference: &str,
    ) -> Result<usize, FindError> {
        let endpoints = Vec::from_iter(endpoints);
        let all = |is_meant: &dyn Fn(&Self) -> bool| -> Vec<usize> {
            (0..endpoints.len()).filter(|&index| is_meant(endpoints[index])).collect()
        };
        let mut found = all(&|it| match reference.starts_with('/') {
            true => it.path == reference,
            false => it.own_names().any(|name| name == reference),
        });
        if found.is_empty() {
            found = all(&|it| it.name == reference);
        }
        let labels = |indices: &[usize]| -> Vec<String> {
            indices.iter().map(|&index| endpoints[index].label.clone()).collect()
        };
        let reference = reference.to_owned();
        match *found {
            [one] => Ok(one),
            [] => Err(FindError::Unknown { reference, known: labels(&all(&|_| true)) }),
            _ => Err(FindError::Several { reference, labels: labels(&found) }),
        }
    }
}

/// The reason why a reference means no single endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FindError {
    /// No endpoint has this path or name.
    Unknown {
        /// The reference.
        reference: String,
        /// The labels of all endpoints.
        known: Vec<String>,
    },
    /// Several endpoints have this path, or a class of this name.
    Several {
        /// The reference.
        reference: String,
        /// The labels of these endpoints.
        labels: Vec<String>,
    },
}

impl fmt::Display for FindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |labels: &[String]| {
            labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ")
        };
        match self {
            Self::Unknown { reference, known } => {
                write!(f, "there is no endpoint `{reference}`; there are {}", list(known))
            }
            Self::Several { reference, labels } => write!(
                f,
                "`{reference}` means several endpoints: {}; write one of these instead",
                list(labels)
            ),
        }
    }
}

impl std::error::Error for FindError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(path: &str, name: &str, has_own_name: bool, aliases: &[&str]) -> Identity {
        let aliases = aliases.iter().map(ToString::to_string).collect();
        let (label, path) = (path.to_owned(), path.to_owned());
        Identity { label, path, name: name.to_owned(), has_own_name, aliases }
    }

    fn endpoints() -> [Identity; 5] {
        [
            identity("/ocr", "OcrAPI", false, &[]),
            identity("/a", "Echo", false, &["first"]),
            identity("/b", "Echo", false, &[]),
            identity("/c", "Qwen/Qwen3", true, &["qwen"]),
            identity("/d", "OcrAPI", true, &[]),
        ]
    }

    #[test]
    fn an_endpoint_is_found_by_its_path_and_by_each_of_its_names() {
        let endpoints = endpoints();
        let find = |reference| Identity::find(&endpoints, reference);
        for (reference, index) in [
            ("/ocr", 0),
            ("first", 1),
            ("/b", 2),
            ("Qwen/Qwen3", 3),
            ("qwen", 3),
            // The chosen name comes before the name of a class.
            ("OcrAPI", 4),
        ] {
            assert_eq!(find(reference), Ok(index), "{reference}");
        }
    }

    #[test]
    fn an_error_names_the_endpoints_there_are() {
        let endpoints = endpoints();
        let error = |reference| Identity::find(&endpoints, reference).unwrap_err().to_string();
        let several = "`Echo` means several endpoints: `/a`, `/b`; write one of these instead";
        assert_eq!(error("Echo"), several);
        for unknown in ["/none", "none", "ocr", ""] {
            let says = format!(
                "there is no endpoint `{unknown}`; there are `/ocr`, `/a`, `/b`, `/c`, `/d`"
            );
            assert_eq!(error(unknown), says);
        }
    }
}
