//! Changes of the code of a worker's model, and the source files that it has loaded.
//!
//! The steps of a change and the answers to them are on the control connection, which is read while the
//! model computes. The step that stops the worker between requests is on the data connection, where it has
//! a place among them.

use std::collections::BTreeMap;
use std::fmt;

use litplex_core::{BoxFuture, LiveCode, LoadedFile, PatchRefusal, PatchStep, Patched};
use litplex_wire::{
    Frame, FrameError, Kind, LoadedFile as SourceFile, Patch, Patched as PatchedMessage,
    SourceText, Sources,
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
    sources: watch::Receiver<Digests>,
}

/// The digests of the loaded files, by their paths.
type Digests = BTreeMap<String, String>;

/// Returns a file that a process says to have loaded.
pub(crate) fn loaded_file(SourceFile { path, digest }: SourceFile) -> LoadedFile {
    LoadedFile { path, digest }
}

impl fmt::Debug for CodeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodeHandle").field("sources", &self.sources).finish_non_exhaustive()
    }
}

impl LiveCode for CodeHandle {
    fn sources(&self) -> Vec<LoadedFile> {
        let digests = self.sources.borrow();
        let files = digests.iter();
        files
            .map(|(path, digest)| LoadedFile { path: path.clone(), digest: digest.clone() })
            .collect()
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
    sources: watch::Sender<Digests>,
    /// The data connection. Weak, because the end of its commands dismisses the worker.
    data: mpsc::WeakUnboundedSender<Command>,
}

impl CodeLink {
    /// Returns the link of a worker that has loaded these files, and the handle of it.
    pub(crate) fn new(
        sources: &[SourceFile],
        data: mpsc::WeakUnboundedSender<Command>,
    ) -> (Self, CodeHandle) {
        let (queries, inbox) = mpsc::unbounded_channel();
        let mut digests = Digests::new();
        add(&mut digests, sources);
        let (loaded, sources) = watch::channel(digests);
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

    /// Takes the further files that the worker has loaded, and those whose loaded text changed.
    pub(crate) fn loaded(&self, frame: &Frame) -> Result<(), FrameError> {
        let Sources { sources } = from_meta(&frame.payload)?;
        self.sources.send_modify(|known| add(known, &sources));
        Ok(())
    }
}

/// The most files of a worker that are kept.
const MOST_FILES: usize = 1000;

fn add(known: &mut Digests, further: &[SourceFile]) {
    for SourceFile { path, digest } in further {
        if known.len() < MOST_FILES || known.contains_key(path) {
            known.insert(path.clone(), digest.clone());
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
