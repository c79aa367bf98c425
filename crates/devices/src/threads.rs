//! CPU threads and cores of workers: pure functions.

use std::collections::BTreeMap;

/// The environment variables that give numerical libraries their number of threads.
const THREAD_VARIABLES: [&str; 5] = [
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
];

/// Returns the default number of CPU threads of each worker of an endpoint: an even share of the
/// cores, at least one.
///
/// `cores` is the number of cores that the server may use, `all_workers` the number of workers of
/// all endpoints. If the endpoint has cores of its own (`cpu_affinity`), its `own_workers` share
/// these.
pub fn fair_threads(
    cpu_affinity: Option<&[usize]>,
    own_workers: usize,
    cores: usize,
    all_workers: usize,
) -> usize {
    let share = match cpu_affinity {
        Some(own) => own.len() / own_workers.max(1),
        None => cores / all_workers.max(1),
    };
    share.max(1)
}

/// Returns the environment variables that make libraries start that many threads, except those
/// that `is_set` already.
pub fn thread_variables(threads: usize, is_set: impl Fn(&str) -> bool) -> BTreeMap<String, String> {
    let missing = THREAD_VARIABLES.into_iter().filter(|name| !is_set(name));
    missing.map(|name| (name.to_owned(), threads.to_string())).collect()
}

/// Returns an error if the endpoint wants cores that the server may not use.
pub fn affinity_problem(wanted: &[usize], available: &[usize]) -> Option<String> {
    let missing: Vec<_> =
        wanted.iter().filter(|core| !available.contains(core)).map(ToString::to_string).collect();
    let there: Vec<_> = available.iter().map(ToString::to_string).collect();
    let say = || {
        format!(
            "`cpu_affinity` names {} {}, and this server may use {}",
            if missing.len() == 1 { "core" } else { "cores" },
            missing.join(", "),
            there.join(", "),
        )
    };
    (!missing.is_empty()).then(say)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_shared_by_all_workers() {
        assert_eq!(fair_threads(None, 1, 8, 1), 8);
        assert_eq!(fair_threads(None, 1, 8, 3), 2);
        assert_eq!(fair_threads(None, 4, 2, 4), 1, "at least one");
        assert_eq!(fair_threads(None, 0, 4, 0), 4);
    }

    #[test]
    fn cores_of_its_own_are_shared_by_its_own_workers() {
        assert_eq!(fair_threads(Some(&[4, 5, 6, 7]), 2, 16, 12), 2);
        assert_eq!(fair_threads(Some(&[0]), 2, 16, 2), 1);
    }

    #[test]
    fn variables_that_are_set_stay() {
        let variables = thread_variables(3, |name| name == "OMP_NUM_THREADS");
        assert_eq!(variables.get("MKL_NUM_THREADS").unwrap(), "3");
        assert_eq!((variables.len(), variables.get("OMP_NUM_THREADS")), (4, None));
    }

    #[test]
    fn cores_that_are_not_there_are_named() {
        assert_eq!(affinity_problem(&[1, 0], &[0, 1]), None);
        assert_eq!(
            affinity_problem(&[0, 2, 9], &[0, 1]).unwrap(),
            "`cpu_affinity` names cores 2, 9, and this server may use 0, 1"
        );
    }
}
