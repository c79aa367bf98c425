//! Lines of the log as JSON objects, for programs.

use std::collections::BTreeMap;
use std::fmt::{self, Debug};

use litplex_workers::OUTPUT;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::events::timestamp;
use crate::log_owner::{Owner, model_requests};

/// The format of events as objects: `timestamp`, `level`, `message`, and the other fields.
pub(crate) struct Objects {
    /// Whether `request_id` has all names of the requests that a worker's line is about, also those that
    /// only this server knows.
    pub(crate) names_requests: bool,
}

impl<S, N> FormatEvent<S, N> for Objects
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut line: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut object = Object { names_requests: self.names_requests, ..Object::default() };
        object.put("timestamp", &timestamp());
        object.put("level", event.metadata().level().as_str());
        event.record(&mut object);
        let Owner { endpoint, worker } = Owner::for_event(event, context.event_scope());
        for (name, value) in [("endpoint", endpoint), ("worker", worker)] {
            value.iter().for_each(|value| object.put(name, value));
        }
        if let Some(names) = model_requests(event) {
            object.put("request_id", &names);
        }
        if event.metadata().target() == OUTPUT {
            object.take_over_fields();
        }
        writeln!(line, "{{{}}}", object.text)
    }
}

/// The members of an object, in the order in which they came.
#[derive(Default)]
struct Object {
    text: String,
    names: Vec<String>,
    /// The fields of a record that a worker printed.
    record_fields: Option<String>,
    names_requests: bool,
}

impl Object {
    fn put(&mut self, name: &str, value: &(impl Serialize + ?Sized)) {
        // The first value stays: a model cannot change the endpoint and the worker of a line.
        if self.names.iter().any(|known| known == name) {
            return;
        }
        let (Ok(key), Ok(value)) = (to_raw_value(name), to_raw_value(value)) else { return };
        let comma = if self.text.is_empty() { "" } else { "," };
        self.text += &format!("{comma}{key}:{value}");
        self.names.push(name.to_owned());
    }

    fn take_over_fields(&mut self) {
        let fields = self.record_fields.take();
        let fields: Option<BTreeMap<String, &RawValue>> =
            fields.as_deref().and_then(|fields| serde_json::from_str(fields).ok());
        for (name, value) in fields.into_iter().flatten() {
            self.put(&name, value);
        }
    }
}

impl Visit for Object {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "fields" => self.record_fields = Some(value.to_owned()),
            "named_requests" if self.names_requests => self.put("request_id", value),
            "named_requests" => {}
            name => self.put(name, value),
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field.name(), &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field.name(), &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field.name(), &value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field.name(), &value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field.name(), &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use litplex_workers::worker_span;
    use tracing_subscriber::fmt::MakeWriter;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::log_owner::Owners;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(line)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Lines {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    fn logged(log: impl Fn()) -> String {
        logged_by(Objects { names_requests: false }, log)
    }

    fn logged_by(objects: Objects, log: impl Fn()) -> String {
        let lines = Lines::default();
        let to = lines.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(to).event_format(objects).finish();
        let subscriber = subscriber.with(Owners);
        tracing::subscriber::with_default(subscriber, log);
        let line = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let (time, rest) = line.split_once("\",").unwrap();
        assert!(time.starts_with("{\"timestamp\":\"20") && time.ends_with('Z'), "{line}");
        rest.to_owned()
    }

    #[test]
    fn an_event_is_an_object_of_its_fields() {
        let line = logged(|| tracing::warn!(endpoint = "/a", n = 1, is = true, "two\n\"lines\""));
        let wanted =
            r#""level":"WARN","message":"two\n\"lines\"","endpoint":"/a","n":1,"is":true}"#;
        assert_eq!(line, format!("{wanted}\n"));
    }

    #[test]
    fn an_event_in_a_span_of_a_worker_has_its_fields() {
        let line = logged(|| {
            worker_span(Some("/a"), "/a#0").in_scope(|| tracing::warn!(n = 1, "slow"));
        });
        let wanted = r#""level":"WARN","message":"slow","n":1,"endpoint":"/a","worker":"/a#0"}"#;
        assert_eq!(line, format!("{wanted}\n"));
    }

    #[test]
    fn the_names_of_requests_are_for_operators_and_their_ids_for_all() {
        let log = || {
            tracing::info!(target: OUTPUT, named_requests = "r7 r8", request_id = "r7 +1", "m");
        };
        let wanted =
            |ids| format!("\"level\":\"INFO\",\"message\":\"m\",\"request_id\":\"{ids}\"}}\n");
        assert_eq!(logged(log), wanted("r7 +1"));
        assert_eq!(logged_by(Objects { names_requests: true }, log), wanted("r7 r8"));
    }

    #[test]
    fn a_record_of_a_worker_says_more_but_not_whose_it_is() {
        let fields = r#"{"endpoint":"/b","message":"no","size":1.50,"timestamp":1}"#;
        let line = logged(|| tracing::info!(target: OUTPUT, endpoint = "/a", fields, "m"));
        let wanted = r#""level":"INFO","message":"m","endpoint":"/a","size":1.50}"#;
        assert_eq!(line, format!("{wanted}\n"));
    }
}
