//! The configuration of access: keys of callers and their rates. `access` applies it.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use litplex_access::{Digest, Rate};
use serde_json::{Map, Value};

use crate::read::{integer, text};

/// API keys by the names of their holders.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApiKeys {
    /// The keys in the configuration itself.
    pub named: BTreeMap<String, ApiKey>,
    /// A file with more keys, which may change while the server runs.
    pub file: Option<PathBuf>,
}

/// The source of a key. A configuration can be shown, so it never contains the key itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiKey {
    /// The environment variable that contains the key.
    Environment(String),
    /// The SHA-256 of the key.
    Sha256(Digest),
}

impl ApiKey {
    /// Reads `env:NAME` or `sha256:` and 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(name) = text.strip_prefix("env:") {
            return (!name.is_empty()).then(|| Self::Environment(name.to_owned()));
        }
        digest_of(text.strip_prefix("sha256:")?).map(Self::Sha256)
    }
}

fn digest_of(hex: &str) -> Option<Digest> {
    let mut digest = [0; 32];
    if hex.len() != 2 * digest.len() || !hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (index, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(digest)
}

impl ApiKeys {
    /// Reads the keys from an option such as `api_keys` and from the file that the option `api_keys_file`
    /// names; `None` without any.
    pub(crate) fn of(options: &Map<String, Value>, name: &str, directory: &Path) -> Option<Self> {
        let file = text(options, &format!("{name}_file")).map(|file| directory.join(file));
        let table = options.get(name).and_then(Value::as_object);
        if table.is_none() && file.is_none() {
            return None;
        }
        let entries = table.into_iter().flatten();
        let named = entries
            .filter_map(|(holder, key)| Some((holder.clone(), ApiKey::parse(key.as_str()?)?)))
            .collect();
        Some(Self { named, file })
    }

    /// Reads the text of a key file: lines of a holder and `sha256:…`. Empty lines and lines that
    /// begin with `#` are skipped. A holder may have several keys.
    ///
    /// # Errors
    /// A line has another form; the message has its number.
    pub fn parse_file(text: &str) -> Result<Vec<(String, Digest)>, String> {
        let lines = text.lines().map(str::trim).enumerate();
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        lines.map(|(index, line)| parse_line(line).ok_or_else(|| not_a_key(index + 1))).collect()
    }
}

fn parse_line(line: &str) -> Option<(String, Digest)> {
    let (holder, key) = line.split_once(char::is_whitespace)?;
    match ApiKey::parse(key.trim_start())? {
        ApiKey::Sha256(digest) => Some((holder.to_owned(), digest)),
        ApiKey::Environment(_) => None,
    }
}

fn not_a_key(number: usize) -> String {
    format!(
        "line {number} is invalid: expected a holder and `sha256:…`; `litplex key NAME` prints such \
         a line"
    )
}

/// Returns the rate limit of an endpoint's options.
pub(crate) fn rate_limit(options: &Map<String, Value>) -> Option<Rate> {
    let rate = Rate::parse(text(options, "rate_limit")?)?;
    let burst = integer(options, "rate_burst").and_then(|n| NonZeroU32::new(n as u32));
    Some(Rate { burst: burst.unwrap_or(rate.burst), ..rate })
}

/// Yields the errors in the combination of these options.
pub(crate) fn contradictions(options: &Map<String, Value>) -> impl Iterator<Item = String> {
    let lacks_rate = options.contains_key("rate_burst") && !options.contains_key("rate_limit");
    let text = "`rate_burst` needs `rate_limit`, such as \"10/s\"";
    lacks_rate.then(|| text.to_owned()).into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    #[test]
    fn a_key_is_named_or_hashed_and_never_there() {
        assert_eq!(ApiKey::parse("env:KEY"), Some(ApiKey::Environment("KEY".into())));
        let hashed = ApiKey::parse(&format!("sha256:{HEX}"));
        assert!(matches!(hashed, Some(ApiKey::Sha256(digest)) if digest[0] == 0x9f));
        for wrong in ["", "s3cret", "env:", "sha256:", "sha256:9f", &format!("sha256:{HEX}0")] {
            assert_eq!(ApiKey::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_file_has_a_key_on_each_line() {
        let text = format!("# ours\n\nann sha256:{HEX}\n  bob\tsha256:{HEX}\nann sha256:{HEX}\n");
        let holders = |text: &str| -> Result<Vec<_>, _> {
            Ok::<_, String>(
                ApiKeys::parse_file(text)?.into_iter().map(|(holder, _)| holder).collect(),
            )
        };
        assert_eq!(holders(&text).unwrap(), ["ann", "bob", "ann"]);
        for wrong in ["ann", "ann env:KEY", "ann s3cret"] {
            assert!(holders(&format!("\n{wrong}")).unwrap_err().starts_with("line 2 "), "{wrong}");
        }
    }
}
