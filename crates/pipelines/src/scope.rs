//! The values that a step may select from, by name, and what was read from them.
//!
//! A selection is read once for each value: the items of a map, which may be thousands, select the same
//! field of the same long request.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use cel::Value as Cel;
use litplex_core::{Outcome, ServeError};

use crate::path::{Path, Segment};
use crate::selection::{cel_value, selection};
use crate::value::Value;

/// The values that a step may select from, by name: a linked list, so that parallel steps share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scope(Option<Arc<Link>>);

#[derive(Debug)]
struct Link {
    name: Arc<str>,
    value: Value,
    /// The selections from it that were read.
    selected: Mutex<Vec<(Vec<Segment>, Outcome<Value>)>>,
    /// The value for conditions, once one has read it.
    cel: OnceLock<Outcome<Cel>>,
    next: Scope,
}

impl Scope {
    /// Returns this scope with one more value; it hides one of the same name.
    pub(crate) fn with(&self, name: Arc<str>, value: Value) -> Self {
        let (selected, cel) = Default::default();
        Self(Some(Arc::new(Link { name, value, selected, cel, next: self.clone() })))
    }

    /// Returns the value of this name.
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.link(name).map(|link| &link.value)
    }

    /// Selects a value; one that is taken whole is not read, so that it may be bytes.
    ///
    /// # Errors
    /// There is no such part of the value.
    pub(crate) fn select(&self, path: &Path) -> Outcome<Value> {
        let link = self.link(&path.name).ok_or_else(|| {
            let detail = format!("`${}` has no value yet", path.name);
            ServeError { detail, ..ServeError::internal() }
        })?;
        if path.segments.is_empty() {
            return Ok(link.value.clone());
        }
        if let Some(known) = link.known(path) {
            return known;
        }
        let found = selection(&link.value, path);
        let mut selected = link.selected.lock().unwrap_or_else(PoisonError::into_inner);
        selected.push((path.segments.clone(), found.clone()));
        found
    }

    /// Returns the number of bytes that are read to select a value.
    pub(crate) fn unread_bytes(&self, path: &Path) -> usize {
        let Some(link) = self.link(&path.name) else { return 0 };
        match link.known(path) {
            Some(known) => known.map_or(0, |value| value.bytes()),
            None => link.value.bytes(),
        }
    }

    /// Returns the value of this name for conditions.
    pub(crate) fn cel(&self, name: &str) -> Option<Outcome<Cel>> {
        let link = self.link(name)?;
        Some(link.cel.get_or_init(|| cel_value(&link.value)).clone())
    }

    /// Returns the number of bytes that are read for conditions about the value of this name.
    pub(crate) fn unread_cel_bytes(&self, name: &str) -> usize {
        let unread = self.link(name).filter(|link| link.cel.get().is_none());
        unread.map_or(0, |link| link.value.bytes())
    }

    fn link(&self, name: &str) -> Option<&Link> {
        let mut link = self.0.as_ref()?;
        while *link.name != *name {
            link = link.next.0.as_ref()?;
        }
        Some(link)
    }
}

impl Link {
    /// Returns the selection of a path, if it was read.
    fn known(&self, path: &Path) -> Option<Outcome<Value>> {
        let selected = self.selected.lock().unwrap_or_else(PoisonError::into_inner);
        let known = selected.iter().find(|(segments, _)| *segments == path.segments);
        known.map(|(_, found)| found.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_value_of_a_name_counts() {
        let scope = Scope::default().with("a".into(), Value::json("1"));
        let inner = scope.with("b".into(), Value::json("2")).with("a".into(), Value::json("3"));
        assert_eq!(inner.get("a").unwrap().text().unwrap(), "3");
        assert_eq!(scope.get("a").unwrap().text().unwrap(), "1");
        assert!(scope.get("b").is_none());
    }

    #[test]
    fn a_selection_is_read_once() {
        let value = Value::json(r#"{"a": {"b": 1.0}, "c": 2}"#);
        let scope = Scope::default().with("x".into(), value.clone());
        let path = Path::parse("$x.a.b").unwrap();
        assert_eq!(scope.unread_bytes(&path), value.bytes());
        let first = scope.select(&path).unwrap();
        assert_eq!(scope.unread_bytes(&path), 3);
        let inner = scope.with("y".into(), Value::json("0"));
        let again = inner.select(&path).unwrap();
        assert_eq!(first.body[0].as_ptr(), again.body[0].as_ptr());
        assert_eq!(inner.select(&Path::parse("$x.c").unwrap()).unwrap().text().unwrap(), "2");
        assert!(inner.select(&Path::parse("$x.d").unwrap()).is_err());
        assert!(inner.select(&Path::parse("$x.d").unwrap()).is_err());
        assert_eq!(scope.unread_cel_bytes("x"), value.bytes());
        assert!(matches!(scope.cel("x"), Some(Ok(Cel::Map(_)))));
        assert_eq!(inner.unread_cel_bytes("x"), 0);
    }
}
