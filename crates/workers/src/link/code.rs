//! Changes of the code of a worker's model, and the source files that it has loaded.
//!
//! The steps of a change and the answers to them are on the control connection, which is read while the
//! model computes. The step that stops the worker between requests is on the data connection, where it has
//! a place among them.

use std::fmt;

use litplex_core::{BoxFuture, LiveCode, PatchRefusal, PatchStep, Patched};
use litplex_wire::{
    Frame, FrameError, Kind, Patch, Patched as PatchedMessage, SourceText, Sources,
};
use slab::Slab;
use tokio::sync::{mpsc, oneshot, watch};

use super::connection::Command;
use super::from_meta;

type Answer = Result<Patched, PatchRefusal>;

/// A step for the worker.
pub(crate) struct PatchQuery {
    step: PatchStep,
    answer: oneshot::Sender<Answer>,
}

/// The code of a worker, as the server sees it.
#[derive(Clone)]
pub(crate) struct CodeHandle {
    /// Bounded by its callers: each waits for the answer to a step before the next.
    queries: mpsc::UnboundedSender<PatchQuery>,
    sources: watch::Receiver<Vec<String>>,
}

impl fmt::Debug for CodeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodeHandle").field("sources", &self.sources).finish_non_exhaustive()
    }
}

impl LiveCode for CodeHandle {
    fn sources(&self) -> Vec<String> {
        self.sources.borrow().clone()
    }

    fn patch(&self, step: PatchStep) -> BoxFuture<'static, Answer> {
        let (answer, answered) = oneshot::channel();
        let gone = || PatchRefusal::new("a worker has ended");
        let sent = self.queries.send(PatchQuery { step, answer });
        Box::pin(async move {
            sent.map_err(|_| gone())?;
            answered.await.unwrap_or_else(|_| Err(gone()))
        })
    }
}

/// The part of the control connection that is about the code.
pub(crate) struct CodeLink {
    queries: mpsc::UnboundedReceiver<PatchQuery>,
    /// The senders of the steps that wait for an answer.
    asked: Slab<oneshot::Sender<Answer>>,
    sources: watch::Sender<Vec<String>>,
    /// The data connection. Weak, because the end of its commands dismisses the worker.
    data: mpsc::WeakUnboundedSender<Command>,
}

impl CodeLink {
    /// Returns the link of a worker that has loaded these files, and the handle of it.
    pub(crate) fn new(
        sources: Vec<String>,
        data: mpsc::WeakUnboundedSender<Command>,
    ) -> (Self, CodeHandle) {
        let (queries, inbox) = mpsc::unbounded_channel();
        let (loaded, sources) = watch::channel(sources);
        let link = Self { queries: inbox, asked: Slab::new(), sources: loaded, data };
        (link, CodeHandle { queries, sources })
    }

    /// Resolves to the next step; never once there are no more handles.
    pub(crate) async fn next(&mut self) -> PatchQuery {
        match self.queries.recv().await {
            Some(query) => query,
            None => std::future::pending().await,
        }
    }

    /// Sends a step to the worker, on the connection where it belongs.
    pub(crate) fn send(&mut self, query: PatchQuery, control: &mpsc::UnboundedSender<Frame>) {
        let PatchQuery { step, answer } = query;
        let id = self.asked.insert(answer) as u64;
        let is_hold = matches!(step, PatchStep::Hold);
        let frame = Frame { id, ..Frame::message(Kind::Patch, &message(step)) };
        if !is_hold {
            let _ = control.send(frame);
        } else if let Some(data) = self.data.upgrade() {
            let _ = data.send(Command::Hold(frame));
        } else {
            self.asked.remove(id as usize);
        }
    }

    /// Takes the answer to a step.
    pub(crate) fn answered(&mut self, frame: &Frame) -> Result<(), FrameError> {
        let PatchedMessage { unchanged, reason, traceback } = from_meta(&frame.payload)?;
        let asked = self.asked.try_remove(frame.id as usize);
        let asked = asked.ok_or(FrameError::Unexpected(Kind::Patched))?;
        // The server may have given up.
        let _ = asked.send(match reason {
            Some(reason) => Err(PatchRefusal { reason, traceback }),
            None if unchanged => Ok(Patched::Unchanged),
            None => Ok(Patched::Done),
        });
        Ok(())
    }

    /// Takes the paths of further files that the worker has loaded.
    pub(crate) fn loaded(&self, frame: &Frame) -> Result<(), FrameError> {
        let Sources { sources } = from_meta(&frame.payload)?;
        self.sources.send_modify(|known| add(known, sources));
        Ok(())
    }
}

/// The most files of a worker that are kept.
const MOST_FILES: usize = 1000;

fn add(known: &mut Vec<String>, further: Vec<String>) {
    for path in further {
        if known.len() < MOST_FILES && !known.contains(&path) {
            known.push(path);
        }
    }
}

fn message(step: PatchStep) -> Patch {
    match step {
        PatchStep::Prepare(files) => {
            let text = |file: &litplex_core::SourceText| SourceText {
                path: file.path.clone(),
                text: file.text.clone(),
            };
            Patch::Prepare { files: files.iter().map(text).collect() }
        }
        PatchStep::Hold => Patch::Hold,
        PatchStep::Commit => Patch::Commit,
        PatchStep::Abort => Patch::Abort,
    }
}
