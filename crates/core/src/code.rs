//! The source files of a model's program, and changes of its code in a running worker.

use std::fmt;
use std::sync::Arc;

use crate::BoxFuture;

/// The code of a running worker's model.
pub trait LiveCode: fmt::Debug + Send + Sync {
    /// Returns the source files that the worker has loaded: those of the program itself, not of its
    /// language or of installed packages.
    fn sources(&self) -> Vec<LoadedFile>;
    /// Takes a step of a change of the code.
    ///
    /// # Errors
    /// The change cannot be made in the running worker.
    fn patch(&self, step: PatchStep) -> BoxFuture<'static, Result<Patched, PatchRefusal>>;
}

/// A source file as it was loaded.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LoadedFile {
    /// The path, as the worker reported it.
    pub path: String,
    /// The SHA-256 of the text that was loaded, in lower-case hexadecimal; empty if it is not known.
    pub digest: String,
}

/// A step of a change of the code of a model. Between `Prepare` and the end, requests run as before; from
/// `Hold` to the end the worker computes none.
#[derive(Debug, Clone)]
pub enum PatchStep {
    /// Check whether these texts can take the place of the loaded files.
    Prepare(Arc<[SourceText]>),
    /// Finish the requests that were dispatched before, and begin no other.
    Hold,
    /// Make the change, and go on.
    Commit,
    /// Go on without the change.
    Abort,
}

/// The text of a source file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceText {
    /// The path, as the worker reported it.
    pub path: String,
    /// The text.
    pub text: String,
}

/// The result of a step of a change of the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patched {
    /// The step is taken.
    Done,
    /// The worker has loaded just these texts; there is nothing to change.
    Unchanged,
}

/// The reason why the code of a running worker cannot be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatchRefusal {
    /// The reason, in a line.
    pub reason: String,
    /// The traceback, if a file cannot be loaded at all.
    pub traceback: Option<String>,
}

impl PatchRefusal {
    /// Returns a refusal that loading the program anew can avoid.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), traceback: None }
    }
}
