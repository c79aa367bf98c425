//! CPU threads and cores of workers: pure functions.

use std::collections::BTreeMap;
use std::fmt;

/// The environment variables that give libraries their number of threads, and whether the threads of
/// the library sleep while they wait. The others spin, or wake each other so often that sleep costs
/// more than the further threads bring (`bench/threads`).
const THREAD_VARIABLES: [(&str, bool); 9] = [
    ("OMP_NUM_THREADS", false),
    ("MKL_NUM_THREADS", false),
    ("OPENBLAS_NUM_THREADS", false),
    ("VECLIB_MAXIMUM_THREADS", false),
    ("NUMEXPR_NUM_THREADS", false),
    ("OPENCV_FOR_THREADS_NUM", true),
    ("POLARS_MAX_THREADS", true),
    ("RAYON_NUM_THREADS", true),
    ("TF_NUM_INTRAOP_THREADS", true),
];

/// The CPU threads of each worker of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threads {
    /// The number of threads, as models and most libraries are told it.
    pub number: usize,
    /// The number of threads of libraries whose threads sleep while they wait.
    pub asleep: usize,
}

impl Threads {
    /// Returns a number of threads for all libraries.
    pub fn chosen(number: usize) -> Self {
        Self { number, asleep: number }
    }

    /// Returns whether the worker shares cores with other workers by default.
    pub fn is_shared(self) -> bool {
        self.number < self.asleep
    }
}

impl fmt::Display for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, asleep } = self;
        if self.is_shared() {
            write!(f, "{number}, a share of {asleep} cores")
        } else {
            number.fmt(f)
        }
    }
}

/// Returns the default number of CPU threads of each worker of an endpoint: an even share of the
/// cores, at least one. Threads that sleep while they wait may be as many as there are cores.
///
/// `cores` is the number of cores that the server may use, `all_workers` the number of workers of
/// all endpoints. If the endpoint has cores of its own (`cpu_affinity`), its `own_workers` share
/// these.
pub fn default_threads(
    cpu_affinity: Option<&[usize]>,
    own_workers: usize,
    cores: usize,
    all_workers: usize,
) -> Threads {
    let (cores, workers) = match cpu_affinity {
        Some(own) => (own.len(), own_workers),
        None => (cores, all_workers),
    };
    let share = (cores / workers.max(1)).max(1);
    Threads { number: share, asleep: cores.max(1) }
}

/// Returns the environment variables that make libraries start that many threads, except those
/// that `is_set` already.
pub fn thread_variables(
    threads: Threads,
    is_set: impl Fn(&str) -> bool,
) -> BTreeMap<String, String> {
    let missing = THREAD_VARIABLES.into_iter().filter(|(name, _)| !is_set(name));
    let number = |sleeps| if sleeps { threads.asleep } else { threads.number };
    missing.map(|(name, sleeps)| (name.to_owned(), number(sleeps).to_string())).collect()
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

    fn threads(number: usize, asleep: usize) -> Threads {
        Threads { number, asleep }
    }

    #[test]
    fn cores_are_shared_by_all_workers() {
        assert_eq!(default_threads(None, 1, 8, 1), threads(8, 8));
        assert_eq!(default_threads(None, 1, 8, 3), threads(2, 8));
        assert_eq!(default_threads(None, 4, 2, 4), threads(1, 2), "at least one");
        assert_eq!(default_threads(None, 0, 4, 0), threads(4, 4));
    }

    #[test]
    fn cores_of_its_own_are_shared_by_its_own_workers() {
        assert_eq!(default_threads(Some(&[4, 5, 6, 7]), 2, 16, 12), threads(2, 4));
        assert_eq!(default_threads(Some(&[0]), 2, 16, 2), threads(1, 1));
    }

    #[test]
    fn variables_that_are_set_stay() {
        let variables = thread_variables(Threads::chosen(3), |name| name == "OMP_NUM_THREADS");
        assert_eq!(variables.get("MKL_NUM_THREADS").unwrap(), "3");
        assert_eq!(variables.get("OMP_NUM_THREADS"), None);
    }

    #[test]
    fn threads_that_sleep_are_as_many_as_there_are_cores() {
        let variables = thread_variables(threads(1, 4), |_| false);
        assert_eq!(variables.get("OMP_NUM_THREADS").unwrap(), "1");
        assert_eq!(variables.get("RAYON_NUM_THREADS").unwrap(), "4");
    }

    #[test]
    fn threads_say_whether_their_cores_are_shared() {
        assert_eq!(Threads::chosen(2).to_string(), "2");
        assert_eq!(threads(1, 2).to_string(), "1, a share of 2 cores");
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
