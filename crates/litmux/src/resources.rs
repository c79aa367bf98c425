//! What a Python model's workers may use: more of the builder.

use crate::LitServer;

impl LitServer {
    /// CPU threads of each worker of a Python model. Default: the cores divided by all workers of
    /// all endpoints.
    pub fn threads(self, threads: usize) -> Self {
        self.set("threads", threads)
    }

    /// The cores that a Python model's workers run on. Default: all.
    pub fn cpu_affinity(self, cores: &[usize]) -> Self {
        self.set("cpu_affinity", cores)
    }
}
