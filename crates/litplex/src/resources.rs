//! What a Python model's workers may use: more of the builder.

use std::path::Path;

use crate::LitServer;

impl LitServer {
    /// CPU threads of each worker of a Python model. Default: the cores divided by all workers of
    /// all endpoints.
    pub fn threads(self, threads: usize) -> Self {
        self.set("threads", threads)
    }

    /// Bytes of resident memory of each worker of a Python model, together with what it started;
    /// one that uses more is killed and replaced. Default: no limit.
    pub fn memory_limit(self, bytes: u64) -> Self {
        self.set("memory_limit", bytes)
    }

    /// The share of its GPU's memory that each worker of a Python model may take, above 0 and at
    /// most 1; the shares on one GPU may add up to 1. Default: no limit.
    pub fn gpu_memory_fraction(self, fraction: f64) -> Self {
        self.set("gpu_memory_fraction", fraction)
    }

    /// Whether a Python model's worker sees no GPU but its own, which is then `cuda:0`. Default:
    /// false.
    pub fn isolate_devices(self, isolate: bool) -> Self {
        self.set("isolate_devices", isolate)
    }

    /// A file of requirements: a Python model's workers run in an environment that has them, made
    /// at the first start and kept in the user's cache. Default: the interpreter as it is.
    pub fn requirements(self, file: impl AsRef<Path>) -> Self {
        self.set("requirements", text(file))
    }

    /// The working directory of a Python model's workers. Default: the server's own.
    pub fn cwd(self, directory: impl AsRef<Path>) -> Self {
        self.set("cwd", text(directory))
    }

    /// Where a Python model's workers look for modules first. Default: nowhere besides.
    pub fn pythonpath<P: AsRef<Path>>(self, directories: impl IntoIterator<Item = P>) -> Self {
        self.set("pythonpath", directories.into_iter().map(text).collect::<Vec<_>>())
    }

    /// The cores that a Python model's workers run on. Default: all.
    pub fn cpu_affinity(self, cores: &[usize]) -> Self {
        self.set("cpu_affinity", cores)
    }
}

fn text(path: impl AsRef<Path>) -> String {
    path.as_ref().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use litplex_config::{Origin, resolve};
    use serde_json::{Map, Value};

    use super::*;

    #[test]
    fn every_method_sets_an_option_that_there_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("requirements.txt");
        std::fs::write(&file, "").expect("it is written");
        let server = LitServer::python("/a", "a:A")
            .threads(2)
            .cpu_affinity(&[0])
            .memory_limit(1 << 30)
            .gpu_memory_fraction(0.5)
            .isolate_devices(true)
            .requirements(&file)
            .cwd(directory.path())
            .pythonpath([directory.path()]);
        let endpoints = Value::Array(vec![Value::Object(server.options)]);
        let raw = Map::from_iter([("endpoint".to_owned(), endpoints)]);
        let program = resolve(raw, &Origin::Builder).expect("no mistakes");
        let endpoint = &program.endpoints[0];
        assert_eq!(endpoint.requirements.as_ref(), Some(&file));
        assert_eq!(endpoint.pythonpath, [directory.path()]);
        assert_eq!(endpoint.resources.gpu_memory_fraction, Some(0.5));
    }
}
