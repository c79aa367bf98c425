//! Conditions of a switch, in CEL. Values are variables of the names of their steps.

use std::fmt;
use std::sync::Arc;

use cel::{Context, Env, Program, Value as Cel};
use litplex_core::Outcome;

use crate::scope::Scope;
use crate::value::refusal;

/// A condition.
pub(crate) struct Condition {
    /// The text of it.
    pub(crate) source: String,
    /// The functions and types of CEL.
    env: Arc<Env>,
    program: Program,
    /// The values that it reads.
    variables: Vec<String>,
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Condition").field(&self.source).finish()
    }
}

impl Condition {
    /// Reads a condition that may read values of these names.
    ///
    /// # Errors
    /// It is not CEL, reads another value, or calls a function that does not exist.
    pub(crate) fn read(source: &str, is_known: impl Fn(&str) -> bool) -> Result<Self, String> {
        let env = Arc::new(Env::stdlib());
        let program = env.compile(source).map_err(|errors| {
            let first = errors.to_string();
            let first = first.lines().next().unwrap_or_default().to_owned();
            format!("invalid condition `{source}`: {first}; write it in CEL")
        })?;
        if let Some(name) = unknown_function(&program) {
            let known = FUNCTIONS.join(", ");
            return Err(format!(
                "invalid condition `{source}`: there is no function `{name}`; there are {known}"
            ));
        }
        let bound = bound_names(&program);
        let variables: Vec<String> = {
            let references = program.references();
            let names = references.variables().into_iter();
            names.filter(|name| !bound.contains(name)).map(str::to_owned).collect()
        };
        let unknown = variables.iter().find(|name| !is_known(name) && !is_type(name));
        if let Some(name) = unknown {
            return Err(format!(
                "invalid condition `{source}`: no step before it has the name `{name}`"
            ));
        }
        Ok(Self { source: source.to_owned(), env, program, variables })
    }

    /// Returns its value if it reads no others.
    pub(crate) fn constant(&self) -> Option<bool> {
        if !self.variables.is_empty() {
            return None;
        }
        match self.program.execute(&Context::with_env(self.env.clone())) {
            Ok(Cel::Bool(holds)) => Some(holds),
            _ => None,
        }
    }

    /// Returns the names of the values that it reads.
    pub(crate) fn variables(&self) -> impl Iterator<Item = &str> {
        self.variables.iter().map(String::as_str)
    }

    /// Returns the number of bytes that are read to evaluate it.
    pub(crate) fn bytes(&self, scope: &Scope) -> usize {
        self.variables().map(|name| scope.unread_cel_bytes(name)).sum()
    }

    /// Returns whether it holds for these values.
    ///
    /// # Errors
    /// It cannot be evaluated, such as where a field is missing, or its value is not a boolean.
    pub(crate) fn holds(&self, scope: &Scope) -> Outcome<bool> {
        let mut context = Context::with_env(self.env.clone());
        let mut is_from_client = true;
        for name in &self.variables {
            let Some(value) = scope.get(name) else { continue };
            is_from_client &= value.is_from_client;
            if let Some(value) = scope.cel(name) {
                context.add_variable_from_value(name.clone(), value?);
            }
        }
        let wrong = |what: &str| {
            let detail = format!("the condition `{}` {what}", self.source);
            refusal(detail, is_from_client)
        };
        match self.program.execute(&context) {
            Ok(Cel::Bool(holds)) => Ok(holds),
            Ok(other) => Err(wrong(&format!("is a {}, not true or false", other.type_of()))),
            Err(error) => Err(wrong(&format!("cannot be evaluated: {}", reason(&error)))),
        }
    }
}

/// The functions of CEL, besides operators and macros.
const FUNCTIONS: [&str; 11] = [
    "bool",
    "bytes",
    "contains",
    "double",
    "endsWith",
    "int",
    "matches",
    "size",
    "startsWith",
    "string",
    "uint",
];

/// Returns a function that the program calls and CEL does not have.
fn unknown_function(program: &Program) -> Option<String> {
    let references = program.references();
    let called = references.functions().into_iter();
    // The names of operators, such as `_&&_`, are no identifiers.
    let mut functions = called.filter(|name| name.starts_with(|c: char| c.is_ascii_alphabetic()));
    let is_known = |name: &&str| FUNCTIONS.contains(name) || ["dyn", "type"].contains(name);
    functions.find(|name| !is_known(name)).map(str::to_owned)
}

/// Returns whether CEL knows the name itself.
fn is_type(name: &str) -> bool {
    ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"]
        .contains(&name)
}

/// Returns the names that macros such as `all` bind.
fn bound_names(program: &Program) -> Vec<&str> {
    let mut names = Vec::new();
    collect_bound(program.expression(), &mut names);
    names
}

fn collect_bound<'e>(expression: &'e cel::IdedExpr, names: &mut Vec<&'e str>) {
    use cel::common::ast::{EntryExpr, Expr};
    let entry = |entry: &'e EntryExpr, names: &mut Vec<&'e str>| match entry {
        EntryExpr::StructField(field) => collect_bound(&field.value, names),
        EntryExpr::MapEntry(entry) => {
            collect_bound(&entry.key, names);
            collect_bound(&entry.value, names);
        }
    };
    match &expression.expr {
        Expr::Call(call) => {
            call.target.iter().for_each(|target| collect_bound(target, names));
            call.args.iter().for_each(|argument| collect_bound(argument, names));
        }
        Expr::Comprehension(all) => {
            names.push(&all.iter_var);
            names.extend(all.iter_var2.as_deref());
            names.push(&all.accu_var);
            for part in
                [&all.iter_range, &all.accu_init, &all.loop_cond, &all.loop_step, &all.result]
            {
                collect_bound(part, names);
            }
        }
        Expr::List(list) => list.elements.iter().for_each(|item| collect_bound(item, names)),
        Expr::Map(map) => map.entries.iter().for_each(|item| entry(&item.expr, names)),
        Expr::Struct(record) => record.entries.iter().for_each(|item| entry(&item.expr, names)),
        Expr::Select(select) => collect_bound(&select.operand, names),
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {}
    }
}

/// Returns the reason why a condition cannot be evaluated. CEL knows the selection of a field as an
/// operator, whose name says nothing to authors of conditions.
fn reason(error: &cel::ExecutionError) -> String {
    let text = error.to_string();
    match text.split_once("'_._' applied to '(").and_then(|(_, types)| types.split_once(',')) {
        Some((kind, _)) => format!("it reads a field of a value of type {kind}"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value;

    fn scope() -> Scope {
        let text = r#"{"code": "de", "score": 1.0, "n": 3, "tags": ["a", "b"], "none": null}"#;
        Scope::default().with("lang".into(), Value::json(text))
    }

    fn read(source: &str) -> Result<Condition, String> {
        Condition::read(source, |name| name == "lang")
    }

    #[test]
    fn conditions_compare_fields_of_values() {
        for (source, expected) in [
            ("lang.code == 'de'", true),
            ("lang.code.startsWith('d') && lang.n > 2", true),
            ("lang.n > 2.5 && lang.n < 3.5", true),
            ("lang.score == 1", true),
            ("lang.none == null", true),
            ("lang.tags.exists(t, t == 'b')", true),
            ("lang.tags.all(t, t == 'b')", false),
            ("has(lang.code) && !has(lang.other)", true),
            ("size(lang.tags) == 2", true),
            ("lang.code.matches('^d.$')", true),
            ("'a' in lang.tags", true),
            ("type(lang.code) == string", true),
            ("int('3') == lang.n && double(lang.n) == 3.0 && uint(lang.n) == 3u", true),
            ("string(lang.n) == '3' && bool('true') && size(bytes('ab')) == 2", true),
            ("lang.code.endsWith('e') && lang.code.contains('d')", true),
        ] {
            assert_eq!(read(source).unwrap().holds(&scope()), Ok(expected), "{source}");
        }
    }

    #[test]
    fn a_condition_that_cannot_be_evaluated_is_an_error_that_names_it() {
        for source in ["lang.other == 1", "lang.code > 1", "lang.n", "lang.tags[7] == 'a'"] {
            let error = read(source).unwrap().holds(&scope()).unwrap_err();
            assert!(error.detail.contains(&format!("`{source}`")), "{error}");
            assert_eq!(error.status(), 500);
        }
    }

    #[test]
    fn errors_in_conditions_are_found_before_they_run() {
        assert!(read("lang.code = 'de'").unwrap_err().contains("invalid condition"));
        assert!(read("").unwrap_err().contains("invalid condition"));
        let unknown = read("lagn.code == 'de'").unwrap_err();
        assert!(unknown.ends_with("no step before it has the name `lagn`"), "{unknown}");
        let unknown = read("lang.code.startWith('d')").unwrap_err();
        assert!(unknown.contains("there is no function `startWith`; there are bool"), "{unknown}");
        assert_eq!(read("1 < 2").unwrap().constant(), Some(true));
        assert_eq!(read("true").unwrap().constant(), Some(true));
        assert_eq!(read("lang.n == 1").unwrap().constant(), None);
    }
}
