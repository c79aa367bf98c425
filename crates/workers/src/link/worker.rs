//! A running link: the queue's end of a worker, and the end that its launch holds.

use std::sync::Arc;
use std::time::Duration;

use litplex_core::{
    Attachment, Calls, Job, ModelInfo, Outcome, Pausing, Progress, Request, Unanswered, Worker,
    WorkerExit,
};
use litplex_metrics::StageTimes;
use litplex_wire::{Frame, Kind, LoadedFile};
use tokio::sync::mpsc::error::SendError;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::Span;

use super::calls::{CallsConnection, WorkerCalls, WorkerNames};
use super::code::{CodeHandle, CodeLink};
use super::connection::{CallSource, Command, Connection, DispatchMode};
use super::control::{Control, CostQuery, HeartbeatSettings};
use super::pulse::Pulse;
use super::{Connections, HealthGuard, SharedPatience, SlotMetrics, Transport};

/// The settings of a link.
pub(crate) struct LinkSettings {
    /// The span of the worker, for the log.
    pub(crate) span: Span,
    pub(crate) heartbeat: HeartbeatSettings,
    /// The time that the worker may compute.
    pub(crate) patience: SharedPatience,
    /// The further time after which the worker is reported as stuck; `None` for no limit.
    pub(crate) kill_after: Option<Duration>,
    pub(crate) metrics: SlotMetrics,
    pub(crate) stages: StageTimes,
    pub(crate) health: HealthGuard,
    pub(crate) names: WorkerNames,
    /// The calls of its hooks.
    pub(crate) calls: Arc<dyn Calls>,
    /// The means to interrupt the worker; `None` if it is on another machine.
    pub(crate) pausing: Option<Arc<dyn Pausing>>,
}

/// The launch's end of a running link.
pub(crate) struct Link {
    progress: Arc<dyn Progress>,
    to_worker: mpsc::UnboundedSender<Frame>,
    ended: mpsc::UnboundedReceiver<Option<WorkerExit>>,
    worker: Arc<WorkerCalls>,
    code: CodeHandle,
    /// The calls connection, or the wait for it; it ends with the link.
    _calls: JoinSet<()>,
}

impl Link {
    /// Starts the link of a worker that is ready, and completes its attachment to the queue. `dialled`
    /// receives the connections that the worker opens for calls: one after the other.
    pub(crate) fn start<S: Transport>(
        connections: Connections<S>,
        mut dialled: mpsc::Receiver<S>,
        (info, sources): (&ModelInfo, &[LoadedFile]),
        attachment: Attachment,
        settings: LinkSettings,
    ) -> Self {
        let mode = dispatch_mode(info, &settings);
        let LinkSettings {
            span, heartbeat, metrics, stages, health, names, calls, pausing, ..
        } = settings;
        let worker = Arc::new(WorkerCalls::attach(calls, names, info.places));
        // Bounded by the calls in flight.
        let (parents, queries) = mpsc::unbounded_channel();
        let has_called = !info.calls.is_empty();
        let callers = CallSource { worker: worker.clone(), queries, has_called };
        // Bounded by the worker's window: a ping for each that was answered, and per job at most
        // one cancellation, one cost query, and a credit for each part that its client took.
        let (to_worker, frames) = mpsc::unbounded_channel();
        // Bounded by admission: at most one query for each request that waits for its cost.
        let (cost_queries, queries) = mpsc::unbounded_channel();
        // Bounded by the worker's window, and one note for each caller that left.
        let (commands, inbox) = mpsc::unbounded_channel();
        let (code_link, code) = CodeLink::new(sources, commands.downgrade());
        // Bounded by its senders: each of the three connections sends one value, when it ends.
        let (report, ended) = mpsc::unbounded_channel();
        let (pulse, progress) = (Pulse::default(), attachment.progress());
        let control = Control::new(
            connections.control,
            (to_worker.clone(), frames),
            (queries, code_link),
            metrics,
            heartbeat,
            pulse.clone(),
            health,
        );
        let connection = Connection::new(
            span,
            connections.data,
            (inbox, callers),
            (pulse, to_worker.clone()),
            progress.clone(),
            mode,
            stages,
        );
        attachment.complete(Box::new(LinkWorker {
            commands,
            cost_queries,
            progress: progress.clone(),
            pausing,
        }));
        let retiring = worker.clone();
        let mut calls = JoinSet::new();
        let report_calls = report.clone();
        calls.spawn(async move {
            // Without such a connection the worker still serves; only a fault ends it.
            while let Some(stream) = dialled.recv().await {
                let connection = CallsConnection::new(stream, worker.clone(), parents.clone());
                if let Some(fault) = connection.run().await {
                    let _ = report_calls.send(Some(fault));
                }
            }
        });
        let report_control = report.clone();
        tokio::spawn(async move { report_control.send(control.run().await) });
        tokio::spawn(async move { report.send(connection.run().await) });
        Self { progress, to_worker, ended, worker: retiring, code, _calls: calls }
    }

    /// Returns the code of the worker's model.
    pub(crate) fn code(&self) -> CodeHandle {
        self.code.clone()
    }

    /// Resolves when one of the two connections ends, with the fault of the worker if it has one.
    pub(crate) async fn ended(&mut self) -> Option<WorkerExit> {
        self.ended.recv().await.flatten()
    }

    /// Tells the queue to give the worker no more jobs.
    pub(crate) fn retire(&self) {
        self.progress.retiring();
        self.worker.retiring();
    }

    /// Tells the worker to move its memory to swap and to connect again.
    pub(crate) fn send_hibernate(&self) {
        let _ = self.to_worker.send(Frame::bare(Kind::Hibernate, 0));
    }

    /// Tells the worker to exit.
    pub(crate) fn send_bye(&self) {
        let _ = self.to_worker.send(Frame::bare(Kind::Bye, 0));
    }
}

fn dispatch_mode(info: &ModelInfo, settings: &LinkSettings) -> DispatchMode {
    DispatchMode {
        batches: info.max_batch_size > 1,
        // Responses of single requests may be on their way while the next is computed.
        in_order: info.concurrency == 1 && (info.max_batch_size > 1 || info.stream),
        several: info.concurrency > 1,
        patience: settings.patience.clone(),
        kill_after: settings.kill_after,
    }
}

/// The queue's end of a link.
struct LinkWorker {
    commands: mpsc::UnboundedSender<Command>,
    cost_queries: mpsc::UnboundedSender<CostQuery>,
    progress: Arc<dyn Progress>,
    pausing: Option<Arc<dyn Pausing>>,
}

impl Worker for LinkWorker {
    fn pausing(&self) -> Option<Arc<dyn Pausing>> {
        self.pausing.clone()
    }

    fn dispatch(&mut self, jobs: Vec<Job>) {
        if let Err(SendError(Command::Jobs(jobs))) = self.commands.send(Command::Jobs(jobs)) {
            // The connection has just ended, and the scheduler will be told.
            self.progress.gone(jobs.into_iter().map(Unanswered::unstarted).collect());
        }
    }

    fn cancel_abandoned(&mut self) {
        let _ = self.commands.send(Command::CancelAbandoned);
    }

    fn cost(&mut self, request: Request, answer: oneshot::Sender<Outcome<f64>>) {
        let _ = self.cost_queries.send(CostQuery { request, answer });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use litplex_core::{Answer, Answers, Attach, Done, reply};
    use litplex_metrics::{Metrics, UserMetrics};
    use litplex_wire::{Flags, Header, Hello, PROTOCOL, Ready, Role, Setup};
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::Instant;

    use super::super::calls::tests::{MockCalls, names};
    use super::super::handshake::{Handshake, model_info, read_frame, write_frame};
    use super::*;
    use crate::UnhealthyCount;

    /// A queue that keeps the worker which was attached, and what it reported.
    #[derive(Clone, Default)]
    struct MockQueue(Arc<Mutex<QueueState>>);

    #[derive(Default)]
    struct QueueState {
        worker: Option<Box<dyn Worker>>,
        reports: Vec<&'static str>,
    }

    impl Attach for MockQueue {
        fn attach(&self, _: usize, _: ModelInfo) -> Attachment {
            let queue = self.clone();
            Attachment::new(Arc::new(self.clone()), move |worker| {
                queue.0.lock().unwrap().worker = Some(worker);
            })
        }
    }

    impl MockQueue {
        fn report(&self, report: &'static str) {
            self.0.lock().unwrap().reports.push(report);
        }

        fn reports(&self) -> Vec<&'static str> {
            self.0.lock().unwrap().reports.clone()
        }

        fn submit(&self, body: &'static str) -> Answers {
            let (reply, answers) = reply();
            let now = Instant::now();
            let deadline = now + Duration::from_secs(30);
            let job = Job::new(Request::json(body), now, deadline, reply);
            self.0.lock().unwrap().worker.as_mut().unwrap().dispatch(vec![job]);
            answers
        }
    }

    impl Progress for MockQueue {
        fn finished(&self, _: Done) {
            self.report("finished");
        }

        fn retiring(&self) {
            self.report("retiring");
        }

        fn gone(&self, _: Vec<Unanswered>) {
            self.report("gone");
        }
    }

    /// Connects as a worker does, over a stream that is no socket.
    async fn dial(role: Role, token: &str) -> (DuplexStream, DuplexStream) {
        let (ours, mut theirs) = duplex(4096);
        let hello = Hello {
            role,
            token: token.to_owned(),
            pid: 7,
            python: "3".into(),
            protocol: PROTOCOL,
            protocol_oldest: None,
        };
        write_frame(&mut theirs, &Frame::message(Kind::Hello, &hello)).await;
        (ours, theirs)
    }

    fn settings() -> LinkSettings {
        let answer = Duration::from_secs(30);
        LinkSettings {
            span: Span::none(),
            heartbeat: HeartbeatSettings { heartbeat: answer, is_strict: false, patience: answer },
            patience: SharedPatience::new(answer, answer),
            kill_after: None,
            metrics: SlotMetrics::new(UserMetrics::spawn().sink("/test"), 0),
            stages: Metrics::new().stages("/test"),
            health: UnhealthyCount::default().guard(),
            names: names("/test"),
            calls: Arc::new(MockCalls::default()),
            pausing: None,
        }
    }

    fn setup() -> Setup {
        Setup {
            device: "cpu".into(),
            max_batch_size: None,
            batch_timeout: None,
            stream: None,
            max_concurrency: None,
            retry_batch_singly: true,
            stream_credit: 1,
            metrics: true,
            calls: true,
            patches: false,
            imports: false,
            hibernates: false,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_runs_over_any_stream_from_the_handshake_to_the_end() {
        let mut handshake = Handshake::new("secret".into());
        let (stranger, mut refused) = dial(Role::Data, "guess").await;
        assert!(handshake.greet(stranger).await.unwrap().is_none());
        assert!(read_frame(&mut refused).await.is_none(), "it is disconnected");
        let (control, mut worker_control) = dial(Role::Control, "secret").await;
        assert!(handshake.greet(control).await.unwrap().is_none(), "one is missing");
        let (data, mut worker) = dial(Role::Data, "secret").await;
        let mut connections = handshake.greet(data).await.unwrap().unwrap();
        for stream in [&mut worker, &mut worker_control] {
            assert_eq!(read_frame(stream).await.unwrap().kind, Kind::Welcome);
        }

        let play_setup = async {
            assert_eq!(read_frame(&mut worker).await.unwrap().kind, Kind::Setup);
            let ready: Ready = serde_json::from_str(READY).unwrap();
            write_frame(&mut worker, &Frame::message(Kind::Ready, &ready)).await;
        };
        let setup = setup();
        let (ready, ()) = tokio::join!(connections.set_up(&setup), play_setup);
        let (queue, info) = (MockQueue::default(), model_info(&ready.unwrap()));
        let attachment = queue.attach(0, info.clone());
        let (_dial, dialled) = mpsc::channel(1);
        let mut link = Link::start(connections, dialled, (&info, &[]), attachment, settings());

        let mut answers = queue.submit("1");
        let request = read_frame(&mut worker).await.unwrap();
        let mut response = bytes::BytesMut::new();
        let header = Header {
            kind: Kind::Response,
            flags: Flags::NONE,
            status: 200,
            id: request.id,
            length: 1,
        };
        header.encode(&mut response);
        response.extend_from_slice(b"2");
        worker.write_all(&response).await.unwrap();
        let Ok(Answer::Whole(response)) = answers.recv().await else { panic!("no response") };
        assert_eq!(response.body, "2");

        link.retire();
        queue.0.lock().unwrap().worker = None;
        assert_eq!(link.ended().await, None, "the data connection ends without a fault");
        link.send_bye();
        while read_frame(&mut worker_control).await.unwrap().kind != Kind::Bye {}
        drop((worker, worker_control));
        assert_eq!(link.ended().await, None);
        assert_eq!(queue.reports(), ["finished", "retiring", "gone"]);
    }

    const READY: &str = r#"{"max_batch_size": 1, "batch_timeout": 0, "stream": false,
        "context": false, "concurrency": 1, "cost": false}"#;
}
