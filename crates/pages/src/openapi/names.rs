//! Names of schemas, which are unique in a document, but chosen by each endpoint.

use serde_json::{Map, Value};

/// The place of named schemas in the document.
pub(super) const SCHEMAS: &str = "/components/schemas";

/// Adds schemas that `user` refers to. Where one has the name of another that is there already, all
/// of them get new names: those that are alike may refer to those that are not.
pub(super) fn add(schemas: &mut Map<String, Value>, used: Map<String, Value>, user: &mut Value) {
    let is_taken =
        |(name, schema): (&String, &Value)| schemas.get(name).is_some_and(|other| other != schema);
    if !used.iter().any(is_taken) {
        return schemas.extend(used);
    }
    let is_free =
        |number: &usize| used.keys().all(|name| !schemas.contains_key(&new(name, *number)));
    let number = (2..).find(is_free).expect("numbers do not end");
    let names: Vec<String> = used.keys().cloned().collect();
    refer(user, &names, number);
    for (name, mut schema) in used {
        refer(&mut schema, &names, number);
        schemas.insert(new(&name, number), schema);
    }
}

fn new(name: &str, number: usize) -> String {
    format!("{name}{number}")
}

/// Replaces references to these names by references to the new ones: in a `$ref`, or in the mapping
/// of a discriminator.
fn refer(value: &mut Value, names: &[String], number: usize) {
    match value {
        Value::String(text) => {
            let name = text.strip_prefix('#').and_then(|text| text.strip_prefix(SCHEMAS));
            let name = name.and_then(|name| name.strip_prefix('/'));
            if name.is_some_and(|name| names.iter().any(|known| known == name)) {
                *text = new(text, number);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| refer(item, names, number)),
        Value::Object(fields) => fields.values_mut().for_each(|field| refer(field, names, number)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn schemas_of_one_name_that_differ_are_told_apart() {
        let mut schemas = Map::new();
        let item = json!({"$ref": "#/components/schemas/Item"});
        let container = json!({"properties": {"of": {"$ref": "#/components/schemas/Part"}}});
        let with =
            |part| Map::from_iter([("Item".into(), container.clone()), ("Part".into(), part)]);
        let (text, number) = (with(json!({"type": "string"})), with(json!({"type": "number"})));
        let mut users = [item.clone(), item.clone(), item.clone()];
        for (used, user) in [text.clone(), text, number].into_iter().zip(&mut users) {
            add(&mut schemas, used, user);
        }
        assert_eq!(users, [item.clone(), item, json!({"$ref": "#/components/schemas/Item2"})]);
        let part = &schemas["Item2"]["properties"]["of"]["$ref"];
        assert_eq!(part, "#/components/schemas/Part2");
        assert_eq!(schemas["Part2"]["type"], "number");
        assert_eq!(schemas["Part"]["type"], "string");
    }
}
