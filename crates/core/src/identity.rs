//! The identity of an endpoint: its path and its names, and how a reference finds it.

use std::fmt;

/// The path and the names of an endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// The text that stands for the endpoint in logs, metrics and messages: the path, or the name if
    /// other endpoints share the path. No other endpoint has it.
    pub label: String,
    /// The path.
    pub path: String,
    /// The name: the one that the program has chosen, or else that of its class.
    pub name: String,
    /// Whether no other endpoint has the name, because the program has chosen it or other endpoints
    /// share the path. Otherwise several endpoints may have the name of one class.
    pub has_unique_name: bool,
    /// Further names.
    pub aliases: Vec<String>,
    /// Whether it gets the requests at a shared path that name no model.
    pub is_default: bool,
}

impl Identity {
    /// Returns whether a text is the name of the endpoint or one of its aliases.
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.aliases.iter().any(|alias| alias == name)
    }

    /// Returns whether other endpoints have the same path.
    pub fn shares_path(&self) -> bool {
        self.label != self.path
    }

    /// Returns the names that no other endpoint has.
    pub fn unique_names(&self) -> impl Iterator<Item = &str> {
        let name = self.has_unique_name.then_some(&self.name);
        name.into_iter().chain(&self.aliases).map(String::as_str)
    }

    /// Returns the index of the endpoint that a reference means: a path, which begins with a slash, or
    /// a name or alias. A unique name comes before the name of a class. A shared path means the
    /// endpoint that is its default.
    ///
    /// # Errors
    /// The reference means no endpoint, or several.
    pub fn find<'a>(
        endpoints: impl IntoIterator<Item = &'a Self>,
        reference: &str,
    ) -> Result<usize, FindError> {
        let endpoints = Vec::from_iter(endpoints);
        let found = Self::meant(&endpoints, reference);
        match found[..] {
            [one] => return Ok(one),
            [] => return Err(Self::unknown(&endpoints, reference)),
            _ => {}
        }
        let default = found.iter().find(|&&it| endpoints[it].is_default);
        default.copied().ok_or_else(|| FindError::Several {
            reference: reference.to_owned(),
            labels: found.iter().map(|&index| endpoints[index].label.clone()).collect(),
        })
    }

    /// Returns the indices of the endpoints that may answer a call of this reference: one, or for a shared
    /// path all that share it, of which the request chooses one.
    ///
    /// # Errors
    /// As for [`find`](Self::find), except that a shared path needs no default.
    pub fn find_all<'a>(
        endpoints: impl IntoIterator<Item = &'a Self>,
        reference: &str,
    ) -> Result<Vec<usize>, FindError> {
        let endpoints = Vec::from_iter(endpoints);
        if !reference.starts_with('/') {
            return Self::find(endpoints, reference).map(|index| vec![index]);
        }
        match Self::meant(&endpoints, reference) {
            found if found.is_empty() => Err(Self::unknown(&endpoints, reference)),
            found => Ok(found),
        }
    }

    /// Returns the indices of all endpoints with this path, or else this name.
    fn meant(endpoints: &[&Self], reference: &str) -> Vec<usize> {
        let all = |is_meant: &dyn Fn(&Self) -> bool| -> Vec<usize> {
            (0..endpoints.len()).filter(|&index| is_meant(endpoints[index])).collect()
        };
        if reference.starts_with('/') {
            return all(&|it| it.path == reference);
        }
        let found = all(&|it| it.unique_names().any(|name| name == reference));
        if found.is_empty() { all(&|it| it.name == reference) } else { found }
    }

    fn unknown(endpoints: &[&Self], reference: &str) -> FindError {
        let known = endpoints.iter().map(|endpoint| endpoint.label.clone()).collect();
        FindError::Unknown { reference: reference.to_owned(), known }
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

    fn identity(path: &str, name: &str, has_unique_name: bool, aliases: &[&str]) -> Identity {
        let aliases = aliases.iter().map(ToString::to_string).collect();
        let (label, path) = (path.to_owned(), path.to_owned());
        Identity { label, path, name: name.to_owned(), has_unique_name, aliases, is_default: false }
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
    fn a_shared_path_means_its_default() {
        let mut endpoints = ["small", "large"].map(|name| Identity {
            label: name.to_owned(),
            ..identity("/v1/chat/completions", name, true, &[])
        });
        let path = "/v1/chat/completions";
        let error = Identity::find(&endpoints, path).unwrap_err().to_string();
        assert!(error.ends_with("several endpoints: `small`, `large`; write one of these instead"));
        assert_eq!(Identity::find(&endpoints, "large"), Ok(1));
        assert_eq!(Identity::find_all(&endpoints, path), Ok(vec![0, 1]));
        assert_eq!(Identity::find_all(&endpoints, "small"), Ok(vec![0]));
        assert_eq!(
            Identity::find_all(&endpoints, "/v1"),
            Identity::find(&endpoints, "/v1").map(|it| vec![it])
        );
        endpoints[1].is_default = true;
        assert_eq!(Identity::find(&endpoints, path), Ok(1));
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
