//! Checks of the workers' environment: working directory, module paths, requirements.

use std::path::Path;

use serde_json::{Map, Value};

use crate::read::{boolean, path_problem, text, texts};

/// Returns the errors in an endpoint's environment; paths are relative to `directory`.
pub(crate) fn worker_env_problems(endpoint: &Map<String, Value>, directory: &Path) -> Vec<String> {
    let mut found = missing_directories(endpoint, directory);
    found.extend(missing_requirements(endpoint, directory));
    found.extend(two_views(endpoint));
    found
}

fn missing_directories(endpoint: &Map<String, Value>, directory: &Path) -> Vec<String> {
    let cwd = text(endpoint, "cwd").map(|cwd| ("cwd", cwd));
    let given = cwd.into_iter().chain(texts(endpoint, "pythonpath").map(|p| ("pythonpath", p)));
    let problem = |(name, given): (&str, &str)| {
        let path = directory.join(given);
        (!path.is_dir()).then(|| {
            let wrong = path_problem(&path, "a directory");
            format!("`{name}` names `{}`, which {wrong}", path.display())
        })
    };
    given.filter_map(problem).collect()
}

fn missing_requirements(endpoint: &Map<String, Value>, directory: &Path) -> Option<String> {
    let path = directory.join(text(endpoint, "requirements")?);
    (!path.is_file()).then(|| {
        let wrong = path_problem(&path, "a file");
        format!("`requirements` names `{}`, which {wrong}", path.display())
    })
}

fn two_views(endpoint: &Map<String, Value>) -> Option<String> {
    let sees = endpoint.get("env").and_then(|env| env.get("CUDA_VISIBLE_DEVICES"));
    (boolean(endpoint, "isolate_devices") == Some(true) && sees.is_some()).then(|| {
        "`isolate_devices` sets CUDA_VISIBLE_DEVICES, and `env` does too; leave out one of them"
            .into()
    })
}

#[cfg(test)]
mod tests {
    use crate::{Origin, parse_toml, resolve};

    #[test]
    fn directories_are_relative_to_the_file_and_must_be_there() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("models")).unwrap();
        std::fs::write(directory.path().join("file"), "").unwrap();
        let origin = Origin::File(directory.path().join("litplex.toml"));
        let resolve = |options| {
            let text = format!("[[endpoint]]\npath = \"/a\"\napi = \"a:A\"\n{options}");
            resolve(parse_toml(&text).unwrap(), &origin)
        };
        let program = resolve("cwd = \"models\"\npythonpath = [\".\", \"/\"]").unwrap();
        let endpoint = &program.endpoints[0];
        assert_eq!(endpoint.cwd.as_deref(), Some(&*directory.path().join("models")));
        assert_eq!(endpoint.pythonpath, [directory.path().join("."), "/".into()]);
        let error = resolve("cwd = \"file\"\npythonpath = [\"no\"]").unwrap_err();
        assert!(error.0[0].ends_with("/file`, which is not a directory"), "{error}");
        assert!(error.0[1].ends_with("/no`, which does not exist"), "{error}");
    }

    #[test]
    fn a_worker_sees_its_devices_in_one_way() {
        let text = "[[endpoint]]\npath = \"/a\"\napi = \"a:A\"\nisolate_devices = true\n\
                    env = { CUDA_VISIBLE_DEVICES = \"1\" }";
        let origin = Origin::File("litplex.toml".into());
        let error = resolve(parse_toml(text).unwrap(), &origin).unwrap_err().to_string();
        assert!(error.contains("`isolate_devices` sets CUDA_VISIBLE_DEVICES"), "{error}");
    }
}
