//! The names of endpoints: their defaults, and the errors of names that several endpoints have.

use std::collections::BTreeMap;
use std::sync::Arc;

use litplex_core::Identity;
use serde_json::{Map, Value};

use crate::read::{boolean, text, texts};

/// The name of the class of a model, as the SDK and the builder of the Rust API give it.
pub(crate) const CLASS: &str = "class";

/// The endings of the paths that several endpoints may share: those of protocols whose requests name a
/// model. A test in `server` compares them with the protocols.
pub(crate) const SHARED_PATH_ENDINGS: [&str; 2] = ["/chat/completions", "/embeddings"];

/// Returns whether several endpoints may have a path.
pub fn can_be_shared(path: &str) -> bool {
    SHARED_PATH_ENDINGS.iter().any(|ending| path.ends_with(ending))
}

/// Returns whether a value is a name. A text that begins with a slash is a path.
pub(crate) fn is_name(value: &Value) -> bool {
    value.as_str().is_some_and(|name| {
        !name.is_empty() && !name.starts_with('/') && !name.contains(char::is_control)
    })
}

/// Returns the identities of endpoints, in their order.
pub(crate) fn identities(endpoints: &[Map<String, Value>]) -> Vec<Arc<Identity>> {
    let mut count = BTreeMap::<Option<&str>, usize>::new();
    for endpoint in endpoints {
        *count.entry(text(endpoint, "path")).or_default() += 1;
    }
    let shares_path = |endpoint| {
        let path = text(endpoint, "path");
        path.is_some_and(can_be_shared) && count.get(&path).is_some_and(|times| *times > 1)
    };
    endpoints.iter().map(|endpoint| Arc::new(identity(endpoint, shares_path(endpoint)))).collect()
}

fn identity(endpoint: &Map<String, Value>, shares_path: bool) -> Identity {
    let path = text(endpoint, "path").unwrap_or_default().to_owned();
    let name = text(endpoint, "name").unwrap_or_else(|| default_name(endpoint)).to_owned();
    Identity {
        label: if shares_path { name.clone() } else { path.clone() },
        has_unique_name: shares_path || endpoint.contains_key("name"),
        aliases: texts(endpoint, "aliases").map(str::to_owned).collect(),
        is_default: boolean(endpoint, "default_model").unwrap_or(false),
        path,
        name,
    }
}

/// Returns the name of the class of a model, or what `api` names in its module. Without either it is
/// the path.
fn default_name(endpoint: &Map<String, Value>) -> &str {
    let api = || Some(text(endpoint, "api")?.rsplit_once(':')?.1);
    let class = text(endpoint, CLASS).or_else(api).filter(|class| !class.is_empty());
    class.unwrap_or_else(|| text(endpoint, "path").unwrap_or_default().trim_start_matches('/'))
}

/// Returns an error for each name or alias that several endpoints have, and for each path with several
/// defaults.
pub(crate) fn name_problems(endpoints: &[Map<String, Value>]) -> Vec<String> {
    let identities = identities(endpoints);
    let mut called = BTreeMap::<&str, Vec<&Arc<Identity>>>::new();
    let mut defaults = BTreeMap::<&str, Vec<&str>>::new();
    for identity in &identities {
        for name in identity.unique_names() {
            called.entry(name).or_default().push(identity);
        }
        if identity.is_default {
            defaults.entry(&identity.path).or_default().push(&identity.label);
        }
    }
    let names = called.into_iter().filter_map(|(name, all)| shared_name(name, &all));
    let defaults =
        defaults.into_iter().filter_map(|(path, labels)| several_defaults(path, &labels));
    names.chain(defaults).collect()
}

fn shared_name(name: &str, identities: &[&Arc<Identity>]) -> Option<String> {
    let [first, second, ..] = identities else { return None };
    Some(if Arc::ptr_eq(first, second) {
        format!("endpoint `{}`: `{name}` is given twice in `name` and `aliases`", first.label)
    } else if first.path == second.path {
        format!(
            "two endpoints at `{}` are called `{name}`; give each its own `name`, or remove the alias",
            first.path
        )
    } else {
        format!(
            "endpoints `{}` and `{}` are both called `{name}`; give one of them another `name`, or \
             remove the alias",
            first.path, second.path
        )
    })
}

fn several_defaults(path: &str, labels: &[&str]) -> Option<String> {
    let [first, second, ..] = labels else { return None };
    Some(format!(
        "endpoints `{first}` and `{second}` at `{path}` both have `default_model`; set it for one of \
         them"
    ))
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
            let Identity { name, has_unique_name, .. } = &*program.endpoints[0].identity;
            (name.clone(), *has_unique_name)
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

    #[test]
    fn endpoints_that_share_a_path_are_known_by_their_names() {
        let resolve = |endpoints| resolved(endpoints, &Origin::Sdk);
        let chat = |more: Value| {
            let mut endpoint =
                json!({"path": "/v1/chat/completions", "source": {}, "class": "Chat"});
            let more = more.as_object().cloned().unwrap();
            endpoint.as_object_mut().unwrap().extend(more);
            endpoint
        };
        let named = chat(json!({"name": "small", "default_model": true}));
        let program =
            resolve(json!([named, chat(json!({})), {"path": "/a", "source": {}}])).unwrap();
        assert!(program.endpoints.iter().map(crate::Endpoint::label).eq(["small", "Chat", "/a"]));
        let [small, other, alone] = &program.endpoints[..] else { panic!("expected three") };
        assert!(small.identity.is_default && small.identity.shares_path());
        assert!(other.identity.has_unique_name && !alone.identity.shares_path());
        for (endpoints, says) in [
            (
                json!([chat(json!({})), chat(json!({}))]),
                "two endpoints at `/v1/chat/completions` are called `Chat`; give each its own",
            ),
            (
                json!([named, chat(json!({"default_model": true}))]),
                "endpoints `small` and `Chat` at `/v1/chat/completions` both have `default_model`",
            ),
            (
                json!([named, chat(json!({})), {"path": "/a", "source": {}, "name": "Chat"}]),
                "endpoints `/v1/chat/completions` and `/a` are both called `Chat`",
            ),
            (
                json!([{"path": "/a", "source": {}}, {"path": "/a", "source": {}}]),
                "endpoint `/a`: 2 endpoints have this path; give each its own (endpoints can share",
            ),
        ] {
            let error = resolve(endpoints).unwrap_err();
            assert!(error.0.len() == 1 && error.0[0].starts_with(says), "{error}");
        }
    }
}
