//! The filter of the log, which operators can change while the server runs.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::registry::LookupSpan;

/// The level by default.
pub(crate) const DEFAULT: &str = "info";

/// The library of MCP logs a line for every request, and for every error of a client, which is in its response
/// anyway. Its level is set by its name alone.
const QUIET: &str = "rmcp=off";

/// The filter of all events for which no endpoint has a rule. Cheap to clone; all clones change together.
#[derive(Clone)]
pub(crate) struct LogFilter(Arc<RwLock<EnvFilter>>);

impl fmt::Debug for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogFilter").field(&self.text()).finish()
    }
}

impl From<&str> for LogFilter {
    fn from(text: &str) -> Self {
        Self(Arc::new(RwLock::new(quiet(text).into())))
    }
}

/// Adds the level of a library to a filter that does not name it.
fn quiet(text: &str) -> String {
    if text.contains("rmcp") { text.to_owned() } else { format!("{text},{QUIET}") }
}

impl LogFilter {
    /// Returns the filter in `LITPLEX_LOG`, or the default one.
    pub(crate) fn from_env() -> Self {
        let given = std::env::var("LITPLEX_LOG").unwrap_or_default();
        let filter = EnvFilter::try_new(quiet(&given)).ok().filter(|_| !given.is_empty());
        Self(Arc::new(RwLock::new(filter.unwrap_or_else(|| quiet(DEFAULT).into()))))
    }

    /// Returns the filter in its syntax, without what every filter has.
    pub(crate) fn text(&self) -> String {
        let text = self.with(ToString::to_string);
        Vec::from_iter(text.split(',').filter(|part| *part != QUIET)).join(",")
    }

    /// Replaces the filter.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the text.
    pub(crate) fn set(&self, text: &str) -> Result<(), String> {
        let filter = parse(text)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = filter;
        // Each place in the code that logs has asked once whether it may.
        tracing::callsite::rebuild_interest_cache();
        Ok(())
    }

    pub(crate) fn lets_in<S>(&self, metadata: &Metadata<'_>, context: &Context<'_, S>) -> bool
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        self.with(|filter| Filter::enabled(filter, metadata, context))
    }

    pub(crate) fn interest<S>(&self, metadata: &'static Metadata<'static>) -> Interest
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        self.with(|filter| Filter::<S>::callsite_enabled(filter, metadata))
    }

    fn with<T>(&self, read: impl FnOnce(&EnvFilter) -> T) -> T {
        read(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Parses a filter. A lone word that is no level would name a module, and so be a mistyped level.
fn parse(text: &str) -> Result<EnvFilter, String> {
    let is_word = |part: &&str| !part.contains(['=', '[', ':']);
    let mut words = text.split(',').map(str::trim).filter(is_word);
    if let Some(word) = words.find(|word| word.parse::<LevelFilter>().is_err() || word.is_empty()) {
        return Err(format!(
            "invalid level `{word}`: expected off, error, warn, info, debug or trace, or such levels of \
             modules: `info,litplex_workers=debug`"
        ));
    }
    EnvFilter::try_new(quiet(text)).map_err(|error| format!("invalid level `{text}`: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_replaced_by_a_valid_one_only() {
        let filter = LogFilter::from(DEFAULT);
        let clone = filter.clone();
        for text in ["debg", "", "info,", "litplex=loud", "info debug"] {
            let error = filter.set(text).unwrap_err();
            assert!(error.starts_with("invalid level `"), "{text}: {error}");
        }
        assert_eq!(clone.text(), "info");
        filter.set("warn,litplex_server=debug").unwrap();
        assert_eq!(clone.text(), "litplex_server=debug,warn");
    }
}
