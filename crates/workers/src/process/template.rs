//! A template: a process that has imported modules, and from which workers are forked.
//!
//! A task owns the process, starts it again when it is gone, and asks it for one worker after the other.
//! What this program and the process say to each other is left to `template_process.rs`.

use std::collections::BTreeMap;
use std::fmt;
use std::future::pending;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};
use tracing::Instrument;

use super::adopted::Adopted;
use super::output::{Label, OutputSpec};
use super::pipes::StandardStreams;
use super::template_process::{End, Refusal, TemplateProcess, TemplateSpec};
use crate::span::worker_span;

/// The label of a template's lines.
const LABEL: &str = "template";

/// The time that a fork may take; then the template is given up.
const FORK_TIME: Duration = Duration::from_secs(10);

/// The time after which a template that was lost is started again, at first and at most. It doubles with
/// each loss.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// The stage of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// This process imports its modules, or ends.
    Starting(Option<u32>),
    /// This process forks workers.
    Ready(Option<u32>),
    /// There is no process, at least for now.
    Down,
}

/// A request for a worker.
struct ForkRequest {
    /// The variables that differ from those of the template.
    env: BTreeMap<String, String>,
    /// The worker's ends of its standard streams.
    streams: [OwnedFd; 3],
    forked: oneshot::Sender<Result<Adopted, String>>,
}

/// A template. Its process ends when this is dropped.
pub(super) struct Template {
    requests: mpsc::Sender<ForkRequest>,
    stage: watch::Receiver<Stage>,
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Template").field("stage", &*self.stage.borrow()).finish_non_exhaustive()
    }
}

impl Template {
    /// Starts a template, whose output is handled as that of the workers.
    pub(super) fn start(spec: TemplateSpec, output: &OutputSpec) -> Self {
        let (requests, asked) = mpsc::channel(1);
        let (stage, seen) = watch::channel(Stage::Starting(None));
        let label = Label::for_process(LABEL, output);
        let keeper = Keeper { spec, label, asked, stage, refused: None };
        tokio::spawn(keeper.keep().instrument(worker_span(None, LABEL)));
        Self { requests, stage: seen }
    }

    /// Returns whether workers can be forked, now.
    pub(super) fn is_ready(&self) -> bool {
        matches!(*self.stage.borrow(), Stage::Ready(_))
    }

    /// Returns whether its process imports modules, ends, or is about to start.
    pub(super) fn is_starting(&self) -> bool {
        matches!(*self.stage.borrow(), Stage::Starting(_))
    }

    /// Returns its process, if it has one.
    pub(super) fn process(&self) -> Option<u32> {
        match *self.stage.borrow() {
            Stage::Starting(process) | Stage::Ready(process) => process,
            Stage::Down => None,
        }
    }

    /// Resolves when the template has imported its modules, or cannot.
    pub(super) async fn started(&self) {
        let _ = self.stage.clone().wait_for(|stage| !matches!(stage, Stage::Starting(_))).await;
    }

    /// Forks a worker, which waits for its order.
    ///
    /// # Errors
    /// The reason why it must be started instead; the template has logged it.
    pub(super) async fn fork(
        &self,
        env: BTreeMap<String, String>,
    ) -> Result<(Adopted, StandardStreams), String> {
        let (ours, streams) = StandardStreams::new().map_err(|error| error.to_string())?;
        let (forked, answer) = oneshot::channel();
        let gone = "the template is gone";
        self.requests.send(ForkRequest { env, streams, forked }).await.map_err(|_| gone)?;
        Ok((answer.await.map_err(|_| gone)??, ours))
    }
}

/// The task of a template.
struct Keeper {
    spec: TemplateSpec,
    label: Label,
    asked: mpsc::Receiver<ForkRequest>,
    stage: watch::Sender<Stage>,
    /// The reason that was logged last, why no worker is forked.
    refused: Option<String>,
}

impl Keeper {
    async fn keep(mut self) {
        let mut losses = 0;
        loop {
            let end = match TemplateProcess::start(&self.spec, &self.label).await {
                Ok(mut running) => {
                    self.stage.send_replace(Stage::Starting(running.id()));
                    let end = self.follow(&mut running).await;
                    // No launch asks for a worker while it ends.
                    self.stage.send_replace(Stage::Starting(running.id()));
                    running.end().await;
                    end
                }
                Err(reason) => End::Lost(reason),
            };
            let pause = match end {
                End::Unneeded => return,
                End::Stale => Duration::ZERO,
                End::Unfit(module) => {
                    self.spec.modules.retain(|each| each.name != module);
                    Duration::ZERO
                }
                End::Empty => Duration::MAX,
                End::Lost(reason) => {
                    losses += 1;
                    let pause = pause(losses);
                    tracing::warn!(
                        "gone: {reason}; workers are started without it, and it is started again in {pause:?}"
                    );
                    pause
                }
            };
            let is_left = !self.spec.modules.is_empty();
            if !self.refuse_for(if is_left { pause } else { Duration::MAX }).await {
                return;
            }
        }
    }

    /// Refuses all requests for this time. Returns whether the template is still needed.
    async fn refuse_for(&mut self, pause: Duration) -> bool {
        if pause.is_zero() {
            return true;
        }
        self.stage.send_replace(Stage::Down);
        let over = async {
            match pause {
                Duration::MAX => pending().await,
                pause => sleep(pause).await,
            }
        };
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => break,
                asked = self.asked.recv() => match asked {
                    Some(request) => _ = request.forked.send(Err("there is no template".into())),
                    None => return false,
                }
            }
        }
        self.stage.send_replace(Stage::Starting(None));
        true
    }

    /// Follows a process from its imports to its end.
    async fn follow(&mut self, running: &mut TemplateProcess) -> End {
        tokio::select! {
            imported = running.imported() => if let Err(end) = imported {
                return end;
            },
            // Launches that wait for the template hold it.
            () = self.stage.closed() => return End::Unneeded,
        }
        self.stage.send_replace(Stage::Ready(running.id()));
        loop {
            let request = tokio::select! {
                request = self.asked.recv() => request,
                end = running.lost() => return end,
            };
            let Some(ForkRequest { env, streams, forked }) = request else {
                return End::Unneeded;
            };
            let answer = timeout(FORK_TIME, running.fork(&env, &streams)).await;
            drop(streams);
            let answer = answer.unwrap_or_else(|_| Err(Refusal::End(End::Lost("it hangs".into()))));
            match answer {
                // A launch that was given up drops, and so kills, the worker.
                Ok(child) => _ = forked.send(Ok(child)),
                Err(Refusal::Now(reason)) => {
                    if self.refused.as_ref() != Some(&reason) {
                        tracing::warn!("workers are started, not forked: {reason}");
                    }
                    self.refused = Some(reason.clone());
                    let _ = forked.send(Err(reason));
                }
                Err(Refusal::End(end)) => {
                    let _ = forked.send(Err("the template ends".into()));
                    return end;
                }
            }
        }
    }
}

/// Returns the time after which a template that was lost so often is started again.
fn pause(losses: u32) -> Duration {
    PAUSE.saturating_mul(1 << (losses - 1).min(16)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_five_minutes() {
        let seconds = |losses| pause(losses).as_secs();
        assert_eq!([1, 2, 3, 9, 10, 100].map(seconds), [1, 2, 4, 256, 300, 300]);
    }
}
