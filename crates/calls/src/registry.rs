//! The targets by their names.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::Target;

/// Targets by the paths of their endpoints.
pub type Targets = HashMap<String, Arc<Target>>;

/// All targets, cheap to clone. They can be replaced while requests run: a call that has begun keeps
/// its target, and the next one finds the new target.
#[derive(Debug, Clone)]
pub struct Registry(watch::Sender<Targets>);

impl Registry {
    /// Returns a registry of these targets.
    pub fn new(targets: Targets) -> Self {
        Self(watch::Sender::new(targets))
    }

    /// Returns the target of this name, if there is one.
    pub fn get(&self, name: &str) -> Option<Arc<Target>> {
        self.0.borrow().get(name).cloned()
    }

    /// Returns a reference to the target that has this name at any time.
    pub fn named(&self, name: impl Into<String>) -> TargetRef {
        TargetRef { registry: self.clone(), name: name.into() }
    }

    /// Replaces all targets at once.
    pub fn replace(&self, targets: Targets) {
        self.0.send_replace(targets);
    }
}

/// A reference to a target by its name; the target may be replaced.
#[derive(Debug, Clone)]
pub struct TargetRef {
    registry: Registry,
    name: String,
}

impl TargetRef {
    /// Returns the target, if there is one now.
    pub fn get(&self) -> Option<Arc<Target>> {
        self.registry.get(&self.name)
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.name
    }
}
