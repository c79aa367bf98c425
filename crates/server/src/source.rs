//! The source of a configuration, from which a reload reads it again.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use litplex_config::{
    AppHost, ConfigError, Origin, Program, Source, TlsFiles, parse_json, parse_toml, resolve,
};
use litplex_core::LoadedFile;
use litplex_workers::{PythonProgram, reported_sources};
use serde_json::{Map, Value};

use crate::handover::hold_pickles;
use crate::seen_files::hexadecimal;

/// The bytes of two pickles that are compared at a time.
const PIECE_BYTES: usize = 64 * 1024;

/// The fields of a model's source that say where the program stands, not which model it is.
const PLACE: [&str; 5] = ["argv", "path", "cwd", "server", "api"];

/// The source of a configuration, and what the command line says beside it.
#[derive(Debug, Clone)]
pub struct ConfigSource {
    /// The place of the configuration.
    pub place: ConfigPlace,
    /// The options of the command line.
    pub overrides: Overrides,
    /// The files from which it was read: those that the program had loaded up to the call that serves.
    files: BTreeSet<LoadedFile>,
}

/// A configuration that was read again.
pub(crate) struct Read {
    pub(crate) program: Program,
    /// The files from which it was read.
    pub(crate) files: BTreeSet<LoadedFile>,
}

/// The place of a configuration.
#[derive(Debug, Clone)]
pub enum ConfigPlace {
    /// A TOML file.
    File(PathBuf),
    /// A program in Python.
    Python(PythonProgram),
    /// None that can be read again, for this reason.
    Nowhere(&'static str),
}

/// The options of the command line, which come before those of a configuration.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// The address to listen on.
    pub host: Option<String>,
    /// The port to listen on.
    pub port: Option<u16>,
    /// The TLS configuration.
    pub tls: Option<TlsFiles>,
}

impl Overrides {
    /// Sets the options in a configuration.
    pub fn apply(&self, config: &mut Program) {
        let Self { host, port, tls } = self;
        config.host = host.clone().unwrap_or_else(|| config.host.clone());
        config.port = port.unwrap_or(config.port);
        config.tls = tls.clone().or_else(|| config.tls.take());
    }
}

impl Default for ConfigSource {
    fn default() -> Self {
        let reason = "the endpoints are a part of this program; restart the program";
        Self {
            place: ConfigPlace::Nowhere(reason),
            overrides: Overrides::default(),
            files: BTreeSet::new(),
        }
    }
}

impl ConfigSource {
    /// Returns the source of a configuration file with this text.
    pub fn file(path: &Path, text: &str) -> Self {
        let files = BTreeSet::from([loaded(path, text)]);
        Self { place: ConfigPlace::File(path.to_owned()), files, ..Self::default() }
    }

    /// Takes the source out of a program that the Python SDK wrote.
    pub fn take(program: &mut Map<String, Value>) -> Self {
        let described = program.remove("program").unwrap_or_default();
        let files = reported_sources(described["sources"].clone());
        let text = |name: &str| described[name].as_str().map(str::to_owned);
        let Some((interpreter, file)) = text("python").zip(text("file")) else {
            let reason = "this program cannot run again: it has started its server with \
                          `ls.start`, or it is in no file; restart it";
            return Self { place: ConfigPlace::Nowhere(reason), ..Self::default() };
        };
        let texts = |value: Option<&Value>| -> Vec<String> {
            let list = value.and_then(Value::as_array).into_iter().flatten();
            list.filter_map(|text| text.as_str().map(str::to_owned)).collect()
        };
        let program = PythonProgram {
            interpreter: interpreter.into(),
            flags: texts(program.get("python_flags")),
            module: text("module"),
            file: file.into(),
            args: texts(described.get("argv")).into_iter().skip(1).collect(),
            cwd: text("cwd").map(PathBuf::from),
        };
        Self { place: ConfigPlace::Python(program), files, ..Self::default() }
    }

    /// Returns the files from which the configuration was read at the start.
    pub(crate) fn files(&self) -> BTreeSet<LoadedFile> {
        self.files.clone()
    }

    /// Returns whether the configuration can be read again.
    pub(crate) fn is_readable(&self) -> bool {
        !matches!(self.place, ConfigPlace::Nowhere(_))
    }

    /// Reads the configuration again; a program in Python has `limit` to come to the call that serves. The
    /// models of `running` are kept where they are the same.
    ///
    /// # Errors
    /// All errors, as at the start of a server.
    pub(crate) async fn read(
        &self,
        running: &Program,
        limit: Duration,
    ) -> Result<Read, ConfigError> {
        let (mut program, files) = match &self.place {
            ConfigPlace::Nowhere(reason) => return Err(ConfigError(vec![(*reason).to_owned()])),
            ConfigPlace::File(path) => read_file(path)?,
            ConfigPlace::Python(program) => {
                let wrong = |reason| ConfigError(vec![reason]);
                let description = program.describe(limit).await.map_err(wrong)?;
                let mut raw = parse_json(&description.text)?;
                let described = raw.remove("program").unwrap_or_default();
                // Before the process that holds the files of the models ends.
                hold_pickles(&mut raw)?;
                let files = reported_sources(described["sources"].clone());
                (resolve(raw, &Origin::Sdk)?, files)
            }
        };
        self.overrides.apply(&mut program);
        keep_equal_models(running, &mut program);
        keep_equal_app_host(running, &mut program);
        Ok(Read { program, files })
    }
}

fn read_file(path: &Path) -> Result<(Program, BTreeSet<LoadedFile>), ConfigError> {
    let cannot = |error| ConfigError(vec![format!("cannot read {}: {error}", path.display())]);
    let text = fs::read_to_string(path).map_err(cannot)?;
    Ok((read_toml(&text, path)?, BTreeSet::from([loaded(path, &text)])))
}

/// Returns a configuration file as it was read.
fn loaded(path: &Path, text: &str) -> LoadedFile {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let (path, digest) = (path.display().to_string(), hexadecimal(text.as_bytes()));
    LoadedFile { path, digest }
}

/// Keeps the endpoints of a running program, except for those with these labels.
pub(crate) fn keep_others(running: &Program, program: &mut Program, labels: &BTreeSet<String>) {
    let read = std::mem::replace(&mut program.endpoints, running.endpoints.clone());
    for endpoint in program.endpoints.iter_mut().filter(|it| labels.contains(it.label())) {
        if let Some(read) = read.iter().find(|it| it.label() == endpoint.label()) {
            *endpoint = read.clone();
        }
    }
}

/// Reads the text of a configuration file; names in it are relative to the directory of `path`.
///
/// # Errors
/// All errors at once, those of the syntax with the file.
pub fn read_toml(text: &str, path: &Path) -> Result<Program, ConfigError> {
    let raw = parse_toml(text).map_err(|ConfigError(mistakes)| {
        let in_file = |mistake| format!("{}: {mistake}", path.display());
        ConfigError(mistakes.into_iter().map(in_file).collect())
    })?;
    resolve(raw, &Origin::File(path.to_owned()))
}

/// Keeps the sources of models that a program describes as before. The order of the endpoints may differ, and
/// a pickle is another file with the same content.
fn keep_equal_models(running: &Program, program: &mut Program) {
    for endpoint in &mut program.endpoints {
        let before = running.endpoints.iter().find(|it| it.label() == endpoint.label());
        if let Some(Source::Python(before)) = before.map(|endpoint| &endpoint.source)
            && let Source::Python(source) = &mut endpoint.source
            && is_same_model(before, source)
        {
            *source = before.clone();
        }
    }
}

/// Keeps an app host that a program describes as before.
fn keep_equal_app_host(running: &Program, program: &mut Program) {
    if let Some(AppHost::Process { load: before, .. }) = &running.app_host
        && let Some(AppHost::Process { load, .. }) = &mut program.app_host
        && without_place(before) == without_place(load)
    {
        *load = before.clone();
    }
}

fn is_same_model(one: &Value, other: &Value) -> bool {
    let is_pickle = |source: &Value| source["kind"] == "pickle";
    if !is_pickle(one) || !is_pickle(other) {
        return without_place(one) == without_place(other);
    }
    let same = |name: &str| without_place(&one[name]) == without_place(&other[name]);
    let file = |source: &Value| source["file"].as_str().map(PathBuf::from);
    let files = file(one).zip(file(other));
    same("guarded")
        && same("script")
        && files.is_some_and(|(one, other)| have_same_content(&one, &other).unwrap_or(false))
}

fn without_place(source: &Value) -> Value {
    match source {
        Value::Object(fields) => {
            let fields = fields.clone().into_iter();
            fields.filter(|(name, _)| !PLACE.contains(&name.as_str())).collect()
        }
        other => other.clone(),
    }
}

fn have_same_content(one: &Path, other: &Path) -> std::io::Result<bool> {
    let (one, other) = (fs::File::open(one)?, fs::File::open(other)?);
    let length = one.metadata()?.len();
    if length != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut a, mut b) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
    let mut at = 0;
    while at < length {
        let size = PIECE_BYTES.min(usize::try_from(length - at).unwrap_or(PIECE_BYTES));
        one.read_exact_at(&mut a[..size], at)?;
        other.read_exact_at(&mut b[..size], at)?;
        if a[..size] != b[..size] {
            return Ok(false);
        }
        at += size as u64;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_program_in_a_file_can_run_again() {
        let described = json!({
            "program": {"python": "/bin/python", "file": "/srv/server.py", "module": null,
                        "cwd": "/srv", "argv": ["server.py", "--fast"], "path": [],
                        "sources": [{"path": "/srv/server.py", "digest": "1"}]},
            "python_flags": ["-O"],
        });
        let mut program = described.as_object().cloned().unwrap();
        let source = ConfigSource::take(&mut program);
        assert_eq!(source.files().first().map(|file| &*file.path), Some("/srv/server.py"));
        let ConfigPlace::Python(read) = source.place else { panic!() };
        assert_eq!((&*read.args, &*read.flags), (&["--fast".into()][..], &["-O".into()][..]));
        assert!(!program.contains_key("program"), "no option of the server");
        for without in [json!({}), json!({"program": {"python": "/bin/python", "file": null}})] {
            let mut program = without.as_object().cloned().unwrap();
            let place = ConfigSource::take(&mut program).place;
            assert!(matches!(place, ConfigPlace::Nowhere(_)));
        }
    }

    #[test]
    fn a_model_is_the_same_at_another_place_of_its_program() {
        let directory = tempfile::tempdir().unwrap();
        let pickle = |name: &str, content: &str, server: usize, guarded: bool| {
            let file = directory.path().join(name);
            fs::write(&file, content).unwrap();
            let script =
                json!({"file": "s.py", "argv": [name], "server": server, "endpoint": "/a"});
            json!({"kind": "pickle", "file": file, "guarded": guarded, "script": script})
        };
        let model = pickle("one", "model", 0, false);
        assert!(is_same_model(&model, &pickle("two", "model", 1, false)));
        assert!(!is_same_model(&model, &pickle("two", "other", 0, false)));
        assert!(!is_same_model(&model, &pickle("two", "model", 0, true)));
        let script = |server: usize, endpoint: &str| json!({"kind": "script", "file": "s.py", "server": server, "endpoint": endpoint});
        assert!(is_same_model(&script(0, "/a"), &script(2, "/a")));
        assert!(!is_same_model(&script(0, "/a"), &script(0, "/b")));
    }

    #[test]
    fn only_the_named_endpoints_are_taken_over() {
        let endpoint = |path: &str, options: &str| {
            format!("[[endpoint]]\npath = \"{path}\"\napi = \"a:A\"\n{options}\n")
        };
        let program = |endpoints: &[String]| {
            read_toml(&endpoints.concat(), Path::new("/srv/litplex.toml")).unwrap()
        };
        let running = program(&[endpoint("/a", ""), endpoint("/b", ""), endpoint("/c", "")]);
        let wider = |path| endpoint(path, "max_queue = 3");
        let mut read = program(&[wider("/b"), wider("/a"), wider("/new")]);
        keep_others(&running, &mut read, &BTreeSet::from(["/a".to_owned(), "/c".to_owned()]));
        let shown: Vec<_> = read.endpoints.iter().map(|it| (it.label(), it.max_queue)).collect();
        assert_eq!(shown, [("/a", Some(3)), ("/b", None), ("/c", None)]);
    }

    #[test]
    fn the_command_line_comes_before_the_file() {
        let text = "port = 1\nhost = \"::1\"\n[[endpoint]]\npath = \"/a\"\napi = \"a:A\"";
        let mut program = read_toml(text, Path::new("litplex.toml")).unwrap();
        let overrides = Overrides { port: Some(2), ..Overrides::default() };
        overrides.apply(&mut program);
        assert_eq!((&*program.host, program.port), ("::1", 2));
    }
}
