//! CPU threads and cores of workers: pure functions.

use std::collections::BTreeMap;
use std::fmt;

/// The environment variables that give libraries their number of threads, and whether the threads of
/// the library can wait asleep. The others spin while they wait for each other.
const THREAD_VARIABLES: [(&str, bool); 9] = [
    ("OMP_NUM_THREADS", true),
    ("MKL_NUM_THREADS", true),
    ("OPENBLAS_NUM_THREADS", false),
    ("VECLIB_MAXIMUM_THREADS", false),
    ("NUMEXPR_NUM_THREADS", true),
    ("OPENCV_FOR_THREADS_NUM", true),
    ("POLARS_MAX_THREADS", true),
    ("RAYON_NUM_THREADS", true),
    ("TF_NUM_INTRAOP_THREADS", true),
];

/// The environment variables that make the threads of OpenMP wait asleep: for every runtime, and for
/// those of Intel and LLVM, which wait for 200 ms otherwise.
const WAIT_VARIABLES: [(&str, &str); 2] = [("OMP_WAIT_POLICY", "PASSIVE"), ("KMP_BLOCKTIME", "0")];

/// The CPU threads of each worker of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threads {
    /// The number of threads, as models and most libraries are told it.
    pub number: usize,
    /// The number of threads of libraries whose threads spin while they wait.
    pub spinning: usize,
}

impl Threads {
    /// Returns a number of threads that the worker has for itself.
    pub fn own(number: usize) -> Self {
        Self { number, spinning: number }
    }

    /// Returns whether the worker shares the cores of its threads with other workers. Its threads
    /// then wait asleep.
    pub fn is_shared(self) -> bool {
        self.spinning < self.number
    }
}

impl fmt::Display for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, spinning } = self;
        if self.is_shared() {
            write!(f, "{number}, on cores that workers share ({spinning} in OpenBLAS)")
        } else {
            number.fmt(f)
        }
    }
}

/// Returns the default number of CPU threads of each worker of an endpoint: as many as there are cores,
/// so that one worker can use the machine while the others are idle. Where the threads of a library
/// spin, an even share of the cores, at least one: under load they would take the cores from each other.
///
/// `cores` is the number of cores that the server may use, `all_workers` the number of workers of
/// all endpoints. If the endpoint has cores of its own (`cpu_affinity`), its `own_workers` share
/// these. If `is_set` for a variable that numbers threads, the share is that of every library: an
/// author who numbers the threads of one library has a plan that more threads of others would break.
pub fn default_threads(
    cpu_affinity: Option<&[usize]>,
    own_workers: usize,
    cores: usize,
    all_workers: usize,
    is_set: impl Fn(&str) -> bool,
) -> Threads {
    let (cores, workers) = match cpu_affinity {
        Some(own) => (own.len(), own_workers),
        None => (cores, all_workers),
    };
    let share = (cores / workers.max(1)).max(1);
    let has_plan = THREAD_VARIABLES.iter().any(|(name, _)| is_set(name));
    Threads { number: if has_plan { share } else { cores.max(1) }, spinning: share }
}

/// Returns the environment variables that make libraries start that many threads, and wait as it suits
/// them, except those that `is_set` already.
pub fn thread_variables(
    threads: Threads,
    is_set: impl Fn(&str) -> bool,
) -> BTreeMap<String, String> {
    let Threads { number, spinning } = threads;
    let numbers = THREAD_VARIABLES
        .map(|(name, sleeps)| (name, if sleeps { number } else { spinning }.to_string()));
    let waits = WAIT_VARIABLES.map(|(name, value)| (name, value.to_owned()));
    let variables = numbers.into_iter().chain(waits.into_iter().filter(|_| threads.is_shared()));
    let missing = variables.filter(|(name, _)| !is_set(name));
    missing.map(|(name, value)| (name.to_owned(), value)).collect()
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

    fn threads(number: usize, spinning: usize) -> Threads {
        Threads { number, spinning }
    }

    #[test]
    fn every_worker_has_all_cores_and_threads_that_spin_have_a_share() {
        let default = |cores, workers| default_threads(None, 1, cores, workers, |_| false);
        assert_eq!(default(8, 1), threads(8, 8));
        assert_eq!(default(8, 3), threads(8, 2));
        assert_eq!(default(2, 5), threads(2, 1), "at least one");
        assert_eq!(default(1, 5), threads(1, 1));
        assert_eq!(default(4, 0), threads(4, 4));
    }

    #[test]
    fn cores_of_its_own_are_shared_by_its_own_workers() {
        let default = |own: &[usize]| default_threads(Some(own), 2, 16, 12, |_| false);
        assert_eq!(default(&[4, 5, 6, 7]), threads(4, 2));
        assert_eq!(default(&[0]), threads(1, 1));
    }

    #[test]
    fn an_author_who_numbers_threads_gets_the_share() {
        let numbers = |name: &str| name == "OPENBLAS_NUM_THREADS";
        assert_eq!(default_threads(None, 1, 8, 4, numbers), threads(2, 2));
        assert_eq!(default_threads(None, 1, 8, 4, |name| name == "PATH"), threads(8, 2));
    }

    #[test]
    fn variables_that_are_set_stay() {
        let variables = thread_variables(Threads::own(3), |name| name == "OMP_NUM_THREADS");
        assert_eq!(variables.get("MKL_NUM_THREADS").unwrap(), "3");
        assert_eq!(variables.get("OMP_NUM_THREADS"), None);
        let variables = thread_variables(threads(4, 1), |name| name == "KMP_BLOCKTIME");
        assert_eq!(variables.get("OMP_WAIT_POLICY").unwrap(), "PASSIVE");
        assert_eq!(variables.get("KMP_BLOCKTIME"), None);
    }

    #[test]
    fn threads_wait_asleep_where_workers_share_cores() {
        let shared = thread_variables(threads(4, 1), |_| false);
        let told = |name: &str| shared.get(name).map(String::as_str);
        assert_eq!((told("OMP_NUM_THREADS"), told("OPENBLAS_NUM_THREADS")), (Some("4"), Some("1")));
        assert_eq!((told("OMP_WAIT_POLICY"), told("KMP_BLOCKTIME")), (Some("PASSIVE"), Some("0")));
        let own = thread_variables(Threads::own(4), |_| false);
        assert_eq!(
            (own.get("OPENBLAS_NUM_THREADS").unwrap(), own.get("OMP_WAIT_POLICY")),
            (&"4".to_owned(), None)
        );
    }

    #[test]
    fn threads_say_whether_their_cores_are_shared() {
        assert_eq!(Threads::own(2).to_string(), "2");
        let text = "2, on cores that workers share (1 in OpenBLAS)";
        assert_eq!(threads(2, 1).to_string(), text);
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
