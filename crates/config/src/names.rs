//! The names of endpoints: their defaults, and the errors of names that several endpoints have.

use std::collections::BTreeMap;
use std::sync::Arc;

use litplex_core::Identity;
use serde_json::{Map, Value};

use crate::read::{text, texts};

/// The name of the class of a model, as the SDK and the builder of the Rust API give it.
pub(crate) const CLASS: &str = "class";

/// Returns whether a value is a name. A text that begins with a slash is a path.
pub(crate) fn is_name(value: &Value) -> bool {
    value.as_str().is_some_and(|name| {
        !name.is_empty() && !name.starts_with('/') && !name.contains(char::is_control)
    })
}

/// Returns the identities of endpoints, in their order.
pub(crate) fn identities(endpoints: &[Map<String, Value>]) -> Vec<Arc<Identity>> {
    endpoints.iter().map(|endpoint| Arc::new(identity(endpoint))).collect()
}

fn identity(endpoint: &Map<String, Value>) -> Identity {
    let path = text(endpoint, "path").unwrap_or_default().to_owned();
    Identity {
        label: path.clone(),
        name: text(endpoint, "name").unwrap_or_else(|| default_name(endpoint)).to_owned(),
        has_own_name: endpoint.contains_key("name"),
        aliases: texts(endpoint, "aliases").map(str::to_owned).collect(),
        path,
    }
}

/// Returns the name of the class of a model, or what `api` names in its module. Without either it is
/// the path.
fn default_name(endpoint: &Map<String, Value>) -> &str {
    let api = || Some(text(endpoint, "api")?.rsplit_once(':')?.1);
    let class = text(endpoint, CLASS).or_else(api).filter(|class| !class.is_empty());
    class.unwrap_or_else(|| text(endpoint, "path").unwrap_or_default().trim_start_matches('/'))
}

/// Returns an error for each name or alias that several endpoints have.
pub(crate) fn name_problems(endpoints: &[Map<String, Value>]) -> Vec<String> {
    let identities = identities(endpoints);
    let mut called = BTreeMap::<&str, Vec<&str>>::new();
    for identity in &identities {
        for name in identity.own_names() {
            called.entry(name).or_default().push(&identity.label);
        }
    }
    let shared = called.into_iter().filter(|(_, labels)| labels.len() > 1);
    shared.map(|(name, labels)| shared_name(name, &labels)).collect()
}

fn shared_name(name: &str, labels: &[&str]) -> String {
    let [first, second, ..] = labels else { return String::new() };
    if first == second {
        return format!("endpoint `{first}`: `{name}` is given twice in `name` and `aliases`");
    }
    format!(
        "endpoints `{first}` and `{second}` are both called `{name}`; give one of them another \
         `name`, or remove the alias"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{ConfigError, Origin, Program, resolve};

    fn resolved(endpoints: Value, origin: &Origin) -> Result<Program, ConfigError> {
        resolve(Map::from_iter([("endpoint".to_owned(), endpoints)]), origin)
    }

    #[test]
    fn a_name_follows_from_the_class_unless_it_is_chosen() {
        let name = |endpoint: Value, origin| {
            let program = resolved(json!([endpoint]), &origin).unwrap();
            let Identity { name, has_own_name, .. } = &*program.endpoints[0].identity;
            (name.clone(), *has_own_name)
        };
        let file = || Origin::File("litplex.toml".into());
        let api = json!({"path": "/a", "api": "package.models:OcrAPI"});
        assert_eq!(name(api, file()), ("OcrAPI".into(), false));
        let named = json!({"path": "/a", "api": "a:A", "name": "Qwen/Qwen3"});
        assert_eq!(name(named, file()), ("Qwen/Qwen3".into(), true));
        let instance = json!({"path": "/a", "source": {}, "class": "Echo"});
        assert_eq!(name(instance, Origin::Sdk), ("Echo".into(), false));
        assert_eq!(name(json!({"path": "/v1/a"}), Origin::Builder), ("v1/a".into(), false));
    }

    #[test]
    fn a_name_belongs_to_one_endpoint() {
        let errors = |endpoints| resolved(endpoints, &Origin::Sdk).map_err(|error| error.0);
        let clash = |name: &str| {
            vec![format!(
                "endpoints `/a` and `/b` are both called `{name}`; give one of them another \
                 `name`, or remove the alias"
            )]
        };
        let both = json!([{"path": "/a", "source": {}, "name": "ocr"},
            {"path": "/b", "source": {}, "name": "ocr"}]);
        assert_eq!(errors(both), Err(clash("ocr")));
        let alias = json!([{"path": "/a", "source": {}, "name": "ocr"},
            {"path": "/b", "source": {}, "aliases": ["text", "ocr"]}]);
        assert_eq!(errors(alias), Err(clash("ocr")));
        let twice = json!([{"path": "/a", "source": {}, "name": "ocr", "aliases": ["ocr"]}]);
        let says = "endpoint `/a`: `ocr` is given twice in `name` and `aliases`";
        assert_eq!(errors(twice), Err(vec![says.to_owned()]));
        // A class may have several endpoints.
        let class = json!([{"path": "/a", "source": {}, "class": "Echo"},
            {"path": "/b", "source": {}, "class": "Echo", "name": "b"}]);
        assert!(errors(class).is_ok());
    }
}
