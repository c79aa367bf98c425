//! `litplex import`: prints the pipeline of another server's description as TOML.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Number, Value, json};
use yaml_rust2::{Yaml, YamlLoader};

use crate::say::say;
use crate::wrong::wrong;

#[derive(Args)]
#[command(after_help = IMPORT_HELP)]
pub(crate) struct Import {
    /// A YAML file with inference graphs
    #[arg(value_name = "GRAPH.YAML")]
    file: PathBuf,
}

const IMPORT_HELP: &str = "\
Each InferenceGraph of KServe becomes an `[[endpoint]]` with a `pipeline`. Each service of the graph is called at
`/NAME`: add an endpoint with that path. What differs from KServe is a comment; what a pipeline cannot do
is an error, with its place.

Example:
  litplex import graph.yaml >> litplex.toml";

pub(crate) fn run(import: &Import) -> anyhow::Result<()> {
    let file = import.file.display();
    let text = fs::read_to_string(&import.file)
        .map_err(|error| wrong(format!("cannot read {file}: {error}")))?;
    say(&toml_of(&text).map_err(|errors| wrong_all(&file.to_string(), errors))?)
}

fn wrong_all(file: &str, errors: Vec<String>) -> anyhow::Error {
    let errors = errors.into_iter().map(|error| format!("{file}: {error}"));
    litplex::ConfigError(errors.collect()).into()
}

/// Returns the TOML of all graphs in a YAML text.
fn toml_of(yaml: &str) -> Result<String, Vec<String>> {
    let documents = YamlLoader::load_from_str(yaml)
        .map_err(|error| vec![format!("it is not YAML: {error}")])?;
    let documents = documents.iter().filter(|it| !matches!(it, Yaml::BadValue | Yaml::Null));
    let documents: Vec<Value> =
        documents.map(json).collect::<Result<_, _>>().map_err(|error| vec![error])?;
    let is_graph = |document: &Value| document["kind"] == "InferenceGraph";
    let has_graph = documents.iter().any(is_graph);
    let (mut toml, mut errors) = (String::new(), Vec::new());
    for document in &documents {
        if has_graph && !is_graph(document) {
            let kind = document["kind"].as_str().unwrap_or("none");
            let name = document["metadata"]["name"].as_str().unwrap_or_default();
            toml.push_str(&format!("# left out: `{name}`, a document of kind `{kind}`\n"));
            continue;
        }
        match litplex::import(document) {
            Ok(imported) => {
                toml.push_str(
                    &imported.notes.iter().map(|note| format!("# {note}\n")).collect::<String>(),
                );
                let program = json!({"endpoint": [imported.endpoint]});
                let table = toml::to_string_pretty(&program);
                toml.push_str(&table.map_err(|error| vec![error.to_string()])?);
            }
            Err(found) => errors.extend(found),
        }
    }
    if toml.is_empty() && errors.is_empty() {
        errors.push("it has no document".into());
    }
    if errors.is_empty() { Ok(toml) } else { Err(errors) }
}

/// Returns a YAML value as JSON.
fn json(yaml: &Yaml) -> Result<Value, String> {
    Ok(match yaml {
        Yaml::String(text) => text.as_str().into(),
        Yaml::Integer(number) => (*number).into(),
        Yaml::Real(text) => {
            let number = text.parse().ok().and_then(Number::from_f64);
            Value::Number(number.ok_or_else(|| format!("`{text}` is not a finite number"))?)
        }
        Yaml::Boolean(boolean) => (*boolean).into(),
        Yaml::Array(items) => items.iter().map(json).collect::<Result<_, _>>()?,
        Yaml::Hash(fields) => {
            let mut object = Map::new();
            for (key, value) in fields {
                let key = key.as_str().ok_or_else(|| format!("the key {key:?} is not a text"))?;
                object.insert(key.to_owned(), json(value)?);
            }
            object.into()
        }
        Yaml::Null | Yaml::BadValue | Yaml::Alias(_) => Value::Null,
    })
}

#[cfg(test)]
mod tests {
    use litplex::Program;

    use super::*;

    const GRAPH: &str = r#"
apiVersion: serving.kserve.io/v1alpha1
kind: InferenceGraph
metadata:
  name: pets
spec:
  nodes:
    root:
      routerType: Sequence
      steps:
        - serviceName: cat-or-dog
          name: animal
        - nodeName: breed
          data: $response
    breed:
      routerType: Switch
      steps:
        - serviceName: cat-breed
          condition: "[@this].#(animal==\"cat\")"
        - serviceName: dog-breed
          condition: "[@this].#(animal==\"dog\")"
"#;

    #[test]
    fn a_graph_becomes_toml_that_is_served() {
        let toml = toml_of(GRAPH).unwrap();
        assert!(toml.contains("# the service `cat-breed` is called at `/cat-breed`"), "{toml}");
        assert!(toml.contains("[[endpoint.pipeline]]\ncall = \"/cat-or-dog\""), "{toml}");
        let services = ["/cat-or-dog", "/cat-breed", "/dog-breed"];
        let services =
            services.map(|path| format!("[[endpoint]]\npath = \"{path}\"\napi = \"a:A\"\n"));
        let file = std::path::Path::new("litplex.toml");
        assert!(
            Program::from_toml(&format!("{}{toml}", services.concat()), file).is_ok(),
            "{toml}"
        );
        let alone = Program::from_toml(&toml, file).unwrap_err().to_string();
        assert!(alone.contains("pipeline of /pets: steps[0]: unknown endpoint"), "{alone}");
    }

    #[test]
    fn what_is_no_graph_is_refused() {
        for (yaml, expected) in [
            ("a: [", "it is not YAML"),
            ("", "it has no document"),
            ("kind: Pod", "got kind `Pod`"),
            ("kind: InferenceGraph\nspec: {nodes: {}}", "there is no node `root`"),
        ] {
            let errors = toml_of(yaml).unwrap_err();
            assert!(errors[0].contains(expected), "{errors:?}");
        }
        let model = "kind: InferenceService\nmetadata: {name: cats}\n";
        let mixed = toml_of(&format!("{model}---\n{GRAPH}")).unwrap();
        assert!(mixed.starts_with("# left out: `cats`, a document of kind `InferenceService`\n# "));
        let two = format!("{GRAPH}---\n{}", GRAPH.replace("pets", "animals"));
        assert_eq!(toml_of(&two).unwrap().matches("[[endpoint]]").count(), 2);
    }
}
