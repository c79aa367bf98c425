//! Typed reads of raw options; checks and messages are in `options`.

use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::{Map, Value};

/// Returns why a path that an option names cannot be used; `kind` is what is expected there.
pub(crate) fn path_problem(path: &Path, kind: &str) -> String {
    match fs::metadata(path) {
        Ok(_) => format!("is not {kind}"),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            "is in a directory that this user may not enter".into()
        }
        Err(_) => "does not exist".into(),
    }
}

pub(crate) fn text<'a>(options: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    options.get(name).and_then(Value::as_str)
}

pub(crate) fn texts<'a>(
    options: &'a Map<String, Value>,
    name: &str,
) -> impl Iterator<Item = &'a str> {
    options.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

pub(crate) fn integer(options: &Map<String, Value>, name: &str) -> Option<usize> {
    options.get(name).and_then(Value::as_u64).map(|number| number as usize)
}

pub(crate) fn integers(options: &Map<String, Value>, name: &str) -> Option<Vec<usize>> {
    let list = options.get(name)?.as_array()?;
    Some(list.iter().filter_map(Value::as_u64).map(|number| number as usize).collect())
}

pub(crate) fn number(options: &Map<String, Value>, name: &str) -> Option<f64> {
    options.get(name).and_then(Value::as_f64)
}

/// Reads a number of bytes, or a text with a unit: `kB` is 1000 of them and `KiB` 1024, in capitals
/// or not.
pub(crate) fn bytes(value: &Value) -> Option<u64> {
    let count = match value {
        Value::String(text) => {
            let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let (number, unit) = text.split_at(digits);
            number.parse::<f64>().ok()? * unit_bytes(&unit.trim_start().to_ascii_lowercase())?
        }
        number => return number.as_u64().filter(|count| *count > 0),
    };
    Some(count as u64).filter(|count| *count > 0)
}

fn unit_bytes(unit: &str) -> Option<f64> {
    let (prefix, base) = match unit.strip_suffix("ib") {
        Some(prefix) => (prefix, 1024.0_f64),
        None => (unit.strip_suffix('b')?, 1000.0),
    };
    let power = ["", "k", "m", "g", "t"].iter().position(|known| *known == prefix)?;
    (base < 1024.0 || power > 0).then(|| base.powi(power as i32))
}

/// Reads an address, which is a network of one, or a network such as `10.0.0.0/8`.
pub(crate) fn network(text: &str) -> Option<IpNet> {
    text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok()
}

pub(crate) fn boolean(options: &Map<String, Value>, name: &str) -> Option<bool> {
    options.get(name).and_then(Value::as_bool)
}

pub(crate) fn seconds(options: &Map<String, Value>, name: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(number(options, name)?).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_out_of_reach_is_not_called_missing() {
        let directory = tempfile::tempdir().unwrap();
        let closed = directory.path().join("closed");
        fs::create_dir(&closed).unwrap();
        assert_eq!(path_problem(&closed, "a file"), "is not a file");
        assert_eq!(path_problem(&closed.join("a"), "a file"), "does not exist");
        fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o000)).unwrap();
        let wrong = path_problem(&closed.join("a"), "a file");
        // The superuser may enter any directory.
        if fs::read_dir(&closed).is_err() {
            assert_eq!(wrong, "is in a directory that this user may not enter");
        }
        fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
    }

    #[test]
    fn bytes_may_have_a_unit() {
        for (given, read) in [
            (json!(2048), 2048),
            (json!("2GB"), 2_000_000_000),
            (json!("1.5 gb"), 1_500_000_000),
            (json!("512MiB"), 512 << 20),
            (json!("3kB"), 3000),
            (json!("7B"), 7),
        ] {
            assert_eq!(bytes(&given), Some(read), "{given}");
        }
    }
}
