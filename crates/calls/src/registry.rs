//! The targets by their labels, and by the paths and names of their endpoints.

use std::collections::HashMap;
use std::sync::Arc;

use litplex_core::{FindError, Identity};
use tokio::sync::watch;

use crate::Target;

/// All targets, in the order of the configuration.
#[derive(Debug, Clone, Default)]
pub struct Targets {
    all: Vec<Arc<Target>>,
    by_label: HashMap<String, usize>,
}

impl FromIterator<Arc<Target>> for Targets {
    fn from_iter<T: IntoIterator<Item = Arc<Target>>>(targets: T) -> Self {
        let all = Vec::from_iter(targets);
        let labels = all.iter().map(|target| target.identity.label.clone());
        let by_label = labels.enumerate().map(|(index, label)| (label, index)).collect();
        Self { all, by_label }
    }
}

/// All targets, cheap to clone. They can be replaced while requests run: a call that has begun keeps
/// its target, and the next one finds the new target.
#[derive(Debug, Clone)]
pub struct Registry(watch::Sender<Targets>);

impl Registry {
    /// Returns a registry of these targets.
    pub fn new(targets: Targets) -> Self {
        Self(watch::Sender::new(targets))
    }

    /// Returns the target with this label, if there is one.
    pub fn get(&self, label: &str) -> Option<Arc<Target>> {
        let targets = self.0.borrow();
        targets.by_label.get(label).map(|&index| targets.all[index].clone())
    }

    /// Returns a reference to the target that has this label at any time.
    pub fn labelled(&self, label: impl Into<String>) -> TargetRef {
        TargetRef { registry: self.clone(), label: label.into() }
    }

    /// Returns the targets that may answer a call of a path, a name or an alias: one, or all that share the
    /// path; see [`Identity::find_all`].
    ///
    /// # Errors
    /// The reference means no endpoint, or a name of several.
    pub fn find_all(&self, reference: &str) -> Result<Vec<Arc<Target>>, FindError> {
        let targets = self.0.borrow();
        let identities = targets.all.iter().map(|target| &*target.identity);
        let found = Identity::find_all(identities, reference)?;
        Ok(found.into_iter().map(|index| targets.all[index].clone()).collect())
    }

    /// Replaces all targets at once.
    pub fn replace(&self, targets: Targets) {
        self.0.send_replace(targets);
    }

    /// Adds a target, or replaces the one with its label.
    pub fn add(&self, target: Arc<Target>) {
        self.0.send_modify(|targets| match targets.by_label.get(&target.identity.label) {
            Some(index) => targets.all[*index] = target,
            None => {
                targets.by_label.insert(target.identity.label.clone(), targets.all.len());
                targets.all.push(target);
            }
        });
    }

    /// Removes this target, unless another one has taken its place.
    pub fn remove(&self, target: &Arc<Target>) {
        self.0.send_modify(|targets| {
            let all = std::mem::take(&mut targets.all).into_iter();
            *targets = all.filter(|other| !Arc::ptr_eq(other, target)).collect();
        });
    }

    /// Replaces the target with the label of this one, if there is one.
    pub fn replace_one(&self, target: Arc<Target>) {
        self.0.send_modify(|targets| {
            if let Some(index) = targets.by_label.get(&target.identity.label) {
                targets.all[*index] = target;
            }
        });
    }
}

/// A reference to a target by its label; the target may be replaced.
#[derive(Debug, Clone)]
pub struct TargetRef {
    registry: Registry,
    label: String,
}

impl TargetRef {
    /// Returns the target, if there is one now.
    pub fn get(&self) -> Option<Arc<Target>> {
        self.registry.get(&self.label)
    }

    /// Returns the registry.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Returns the label.
    pub fn label(&self) -> &str {
        &self.label
    }
}
