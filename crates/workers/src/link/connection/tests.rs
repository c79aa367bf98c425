//! Tests of the connection, with an in-memory stream whose other end is the test.

use std::sync::Mutex;

use bytes::Bytes;
use litplex_core::{Answer, Answers, CallId, Origin, Outcome, Parent, Request, reply};
use litplex_wire::{Flags, Header};
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use tokio::time::timeout;

use super::super::calls::tests::{MockCalls, names};
use super::super::handshake::read_frame;
use super::super::in_flight::STREAM_CREDIT;
use super::*;

#[derive(Default)]
struct Seen {
    done: Mutex<Done>,
    abandoned: Mutex<usize>,
    unanswered: Mutex<Vec<Unanswered>>,
}

impl Progress for Seen {
    fn finished(&self, done: Done) {
        let mut all = self.done.lock().unwrap();
        all.jobs += done.jobs;
        all.cut_short += done.cut_short;
    }
    fn abandoned(&self, jobs: usize) {
        *self.abandoned.lock().unwrap() += jobs;
    }
    fn retiring(&self) {}
    fn gone(&self, unanswered: Vec<Unanswered>) {
        *self.unanswered.lock().unwrap() = unanswered;
    }
}

impl Seen {
    /// For each job that came back, whether the worker may have begun it.
    fn started(&self) -> Vec<bool> {
        self.unanswered.lock().unwrap().iter().map(|unanswered| unanswered.started).collect()
    }
}

/// A connection whose worker is the test.
struct Fixture {
    worker: DuplexStream,
    commands: mpsc::UnboundedSender<Command>,
    control: mpsc::UnboundedReceiver<Frame>,
    progress: Arc<Seen>,
    pulse: Pulse,
    patience: SharedPatience,
    parents: mpsc::UnboundedSender<ParentQuery>,
    calls: Arc<MockCalls>,
    ended: tokio::task::JoinHandle<Option<WorkerExit>>,
}

fn fixture(batches: bool) -> Fixture {
    let (ours, worker) = duplex(64 * 1024);
    let (commands, inbox) = mpsc::unbounded_channel();
    let (to_worker, control) = mpsc::unbounded_channel();
    let progress = Arc::new(Seen::default());
    let kill_after = Some(Duration::from_secs(10));
    let half_a_minute = Duration::from_secs(30);
    let patience = SharedPatience::new(half_a_minute, half_a_minute);
    let mode = DispatchMode {
        batches,
        in_order: batches,
        several: false,
        patience: patience.clone(),
        kill_after,
    };
    let stages = litplex_metrics::Metrics::new().stages("/test");
    let pulse = Pulse::default();
    let (ends, seen) = ((pulse.clone(), to_worker), progress.clone());
    let calls = Arc::new(MockCalls::default());
    let known = WorkerCalls::attach(calls.clone(), names("/test"), 1);
    let (parents, queries) = mpsc::unbounded_channel();
    let callers = CallSource { worker: Arc::new(known), queries, has_called: false };
    let connection =
        Connection::new(Span::none(), ours, (inbox, callers), ends, seen, mode, stages);
    let ended = tokio::spawn(connection.run());
    Fixture { worker, commands, control, progress, pulse, patience, parents, calls, ended }
}

impl Fixture {
    fn dispatch<const N: usize>(&self, bodies: [Bytes; N]) -> [Answers; N] {
        self.dispatch_for(Duration::from_secs(30), bodies)
    }

    fn dispatch_for<const N: usize>(&self, budget: Duration, bodies: [Bytes; N]) -> [Answers; N] {
        let (mut jobs, mut waiting) = (Vec::new(), Vec::new());
        for body in bodies {
            let (reply, answers) = reply();
            let arrived = Instant::now();
            let deadline = arrived + budget;
            jobs.push(Job::new(Request::json(body), arrived, deadline, reply));
            waiting.push(answers);
        }
        self.commands.send(Command::Jobs(jobs)).unwrap();
        waiting.try_into().unwrap()
    }

    async fn say(&mut self, kind: Kind, id: u64, status: u16, payload: &[u8]) {
        self.worker.write_all(&said(kind, id, status, payload)).await.unwrap();
    }
}

fn said(kind: Kind, id: u64, status: u16, payload: &[u8]) -> BytesMut {
    let length = payload.len() as u32;
    let mut bytes = BytesMut::new();
    Header { kind, flags: Flags::NONE, status, id, length }.encode(&mut bytes);
    bytes.extend_from_slice(payload);
    bytes
}

async fn whole(mut answers: Answers) -> Outcome<Bytes> {
    match answers.recv().await? {
        Answer::Whole(response) => Ok(response.body),
        Answer::Stream(..) => panic!("not a stream"),
    }
}

const BODY: Bytes = Bytes::from_static(b"1");
const ITEM: &[u8] = b"\x01\0\0\0x";

#[tokio::test]
async fn answers_find_their_callers_in_any_order() {
    let mut fixture = fixture(false);
    let [first, second] = fixture.dispatch([BODY, Bytes::from_static(b"2")]);
    // One read may bring both: the second frame is read by hand.
    let mut decoder = Decoder::default();
    let (mut buffer, mut frames) = (BytesMut::new(), Vec::new());
    while frames.len() < 2 {
        fixture.worker.read_buf(&mut buffer).await.unwrap();
        while let Some(frame) = decoder.decode(&mut buffer).unwrap() {
            frames.push(frame);
        }
    }
    fixture.say(Kind::Response, frames[1].id, 200, b"b").await;
    fixture.say(Kind::Response, frames[0].id, 200, b"a").await;
    assert_eq!(
        (whole(first).await.unwrap(), whole(second).await.unwrap()),
        ("a".into(), "b".into())
    );
    assert_eq!(fixture.progress.done.lock().unwrap().jobs, 2);
}

#[tokio::test(start_paused = true)]
async fn a_response_is_read_after_a_write_that_fails() {
    let mut fixture = fixture(false);
    let [first] = fixture.dispatch([BODY]);
    let frame = read_frame(&mut fixture.worker).await.unwrap();
    // More than the stream holds, so that a part of it waits when the worker ends.
    let [second] = fixture.dispatch([Bytes::from(vec![b' '; 256 * 1024])]);
    tokio::task::yield_now().await;
    fixture.say(Kind::Response, frame.id, 200, b"a").await;
    drop(fixture.worker);
    let answered = timeout(Duration::from_secs(1), whole(first)).await;
    assert_eq!(answered.expect("the response is lost").unwrap(), "a");
    assert!(fixture.ended.await.unwrap().is_none());
    assert_eq!(fixture.progress.unanswered.lock().unwrap().len(), 1);
    drop(second);
}

#[tokio::test]
async fn an_answer_without_a_job_is_dropped() {
    let mut fixture = fixture(false);
    let [answers] = fixture.dispatch([BODY]);
    let frame = read_frame(&mut fixture.worker).await.unwrap();
    let other_generation = frame.id + (1 << 32);
    fixture.say(Kind::Response, other_generation, 200, b"stale").await;
    fixture.say(Kind::Response, frame.id + 1, 200, b"unknown").await;
    fixture.say(Kind::Response, frame.id, 200, b"right").await;
    assert_eq!(whole(answers).await.unwrap(), "right");
}

#[tokio::test]
async fn a_worker_that_hangs_up_gives_back_what_it_had() {
    let mut fixture = fixture(true);
    let _first = fixture.dispatch([BODY, BODY]);
    let _second = fixture.dispatch([BODY]);
    read_frame(&mut fixture.worker).await.unwrap();
    drop(fixture.worker);
    assert_eq!(fixture.ended.await.unwrap(), None, "its process says why");
    assert_eq!(fixture.progress.started(), [true, true, false], "the second batch is untouched");
}

#[tokio::test]
async fn a_worker_that_is_let_go_answers_what_it_has() {
    let mut fixture = fixture(false);
    let [answers] = fixture.dispatch([BODY]);
    let frame = read_frame(&mut fixture.worker).await.unwrap();
    drop(fixture.commands);
    fixture.worker.write_all(&said(Kind::Response, frame.id, 200, b"last")).await.unwrap();
    assert_eq!(whole(answers).await.unwrap(), "last");
    assert_eq!(fixture.ended.await.unwrap(), None);
    assert!(fixture.progress.started().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_computes_long_past_the_deadline_is_stuck() {
    let mut fixture = fixture(false);
    let [answers] = fixture.dispatch([BODY]);
    read_frame(&mut fixture.worker).await.unwrap();
    drop(answers);
    let start = Instant::now();
    assert!(fixture.ended.await.unwrap().unwrap().reason.contains("past the time"));
    assert_eq!(start.elapsed().as_secs(), 40, "30 s of its budget and 10 s of grace");
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_job_can_change_while_it_is_computed() {
    let mut fixture = fixture(false);
    let [answers] = fixture.dispatch([BODY]);
    read_frame(&mut fixture.worker).await.unwrap();
    drop(answers);
    let start = Instant::now();
    let longer = Duration::from_secs(90);
    fixture.patience.set(longer, longer);
    assert!(fixture.ended.await.unwrap().unwrap().reason.contains("`timeout` is 90 s"));
    assert_eq!(start.elapsed().as_secs(), 100, "90 s of its budget and 10 s of grace");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_no_time_costs_the_worker_nothing() {
    let mut fixture = fixture(true);
    let [hurried, _patient] = fixture.dispatch_for(Duration::from_millis(1), [BODY, BODY]);
    let frame = read_frame(&mut fixture.worker).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(hurried);
    fixture.commands.send(Command::CancelAbandoned).unwrap();
    tokio::time::sleep(Duration::from_secs(38)).await;
    assert!(!fixture.ended.is_finished());
    fixture.say(Kind::Response, frame.id, 499, b"").await;
    fixture.say(Kind::Response, frame.id + (1 << 32) + 1, 200, b"late").await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!fixture.ended.is_finished(), "it has nothing to do");
    assert_eq!(*fixture.progress.done.lock().unwrap(), Done { jobs: 2, cut_short: 1 });
    assert_eq!(*fixture.progress.abandoned.lock().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_waited_in_the_worker_has_its_own_time() {
    let mut fixture = fixture(false);
    let _answers = fixture.dispatch([BODY, BODY]);
    let start = Instant::now();
    let frame = read_frame(&mut fixture.worker).await.unwrap();
    tokio::time::sleep(Duration::from_secs(25)).await;
    fixture.say(Kind::Response, frame.id, 200, b"1").await;
    assert!(fixture.ended.await.unwrap().is_some());
    assert_eq!(start.elapsed().as_secs(), 65, "25 s of the first, and 40 s of its own");
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_client_left_has_the_time_of_a_part() {
    let mut fixture = fixture(false);
    let [mut answers] = fixture.dispatch([BODY]);
    let frame = read_frame(&mut fixture.worker).await.unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    fixture.say(Kind::Chunk, frame.id, 1, ITEM).await;
    let start = Instant::now();
    drop(answers.recv().await);
    fixture.commands.send(Command::CancelAbandoned).unwrap();
    assert!(fixture.ended.await.unwrap().is_some());
    assert_eq!(start.elapsed().as_secs(), 40);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_waits_for_its_client_is_not_stuck() {
    let mut fixture = fixture(false);
    let [mut answers] = fixture.dispatch([BODY]);
    let frame = read_frame(&mut fixture.worker).await.unwrap();
    let item = [&(STREAM_CREDIT as u32).to_le_bytes()[..], &vec![7; STREAM_CREDIT]].concat();
    fixture.say(Kind::Chunk, frame.id, 2, &item).await;
    let Ok(Answer::Stream(_, mut rest)) = answers.recv().await else { panic!("not a stream") };
    // The first item is taken with the answer.
    fixture.say(Kind::Chunk, frame.id, 2, &item).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(!fixture.ended.is_finished());
    std::future::poll_fn(|cx| rest.poll_part(cx)).await;
    let start = Instant::now();
    assert!(fixture.ended.await.unwrap().is_some(), "it had credit and sent nothing");
    assert!((35..=75).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_silent_interpreter_that_overruns_hangs() {
    let mut fixture = fixture(false);
    let [_answers] = fixture.dispatch([BODY]);
    read_frame(&mut fixture.worker).await.unwrap();
    fixture.pulse.set_unanswered(9);
    let fault = fixture.ended.await.unwrap().unwrap();
    assert_eq!(fault.cause, Cause::Hang);
    assert!(fault.reason.contains("30 s (`timeout`) and 10 s (`kill_after`)"), "{fault}");
}

#[tokio::test(start_paused = true)]
async fn a_job_without_a_client_is_ended_early_while_the_server_stops() {
    let mut fixture = fixture(false);
    let [given_up] = fixture.dispatch([BODY]);
    read_frame(&mut fixture.worker).await.unwrap();
    drop(given_up);
    let start = Instant::now();
    drop(fixture.commands);
    let fault = fixture.ended.await.unwrap().unwrap();
    assert!(fault.reason.contains("which no client waits for (`kill_after` is 10 s)"), "{fault}");
    assert_eq!(start.elapsed().as_secs(), 10);
}

#[tokio::test]
async fn a_worker_that_breaks_the_protocol_is_dropped_with_a_reason() {
    let mut fixture = fixture(false);
    let [answers] = fixture.dispatch([BODY]);
    let frame = read_frame(&mut fixture.worker).await.unwrap();
    fixture.say(Kind::Hello, frame.id, 0, b"").await;
    drop(answers);
    assert!(fixture.ended.await.unwrap().unwrap().reason.contains("Hello has no place here"));
}

#[tokio::test]
async fn a_large_body_goes_out_in_pieces_while_answers_come_in() {
    let mut fixture = fixture(false);
    let large = Bytes::from(vec![7; 3_000_000]);
    let [answers] = fixture.dispatch([large.clone()]);
    let frame = read_frame(&mut fixture.worker).await.unwrap();
    let id = frame.id;
    assert_eq!(frame.into_meta_and_body().unwrap().1, large);
    fixture.say(Kind::Response, id, 200, &large).await;
    assert_eq!(whole(answers).await.unwrap(), large);
}

#[tokio::test(start_paused = true)]
async fn a_fast_worker_is_asked_for_the_stages_of_few() {
    let mut fixture = fixture(false);
    let mut asked = Vec::new();
    for wait in [0, 1, 8, 2, 20] {
        tokio::time::sleep(Duration::from_millis(wait)).await;
        let [answers] = fixture.dispatch([BODY]);
        let frame = read_frame(&mut fixture.worker).await.unwrap();
        asked.push(frame.flags.has(Flags::META));
        drop(answers);
    }
    assert_eq!(asked, [true, false, false, true, true]);
}

#[tokio::test]
async fn a_caller_that_leaves_cancels_its_job_once() {
    let mut fixture = fixture(false);
    let [answers, stays] = fixture.dispatch([BODY, BODY]);
    let frame = read_frame(&mut fixture.worker).await.unwrap();
    drop(answers);
    for _ in 0..2 {
        fixture.commands.send(Command::CancelAbandoned).unwrap();
    }
    let cancel = fixture.control.recv().await.unwrap();
    assert_eq!((cancel.kind, cancel.id), (Kind::Cancel, frame.id));
    fixture.say(Kind::Response, frame.id, 499, b"").await;
    fixture.say(Kind::Response, frame.id + (1 << 32) + 1, 200, b"b").await;
    assert_eq!(whole(stays).await.unwrap(), "b");
    assert!(fixture.control.try_recv().is_err());
}

#[tokio::test]
async fn a_client_that_leaves_its_stream_cancels_it_once() {
    let mut fixture = fixture(false);
    let [mut answers] = fixture.dispatch([BODY]);
    let frame = read_frame(&mut fixture.worker).await.unwrap();
    fixture.say(Kind::Chunk, frame.id, 1, ITEM).await;
    drop(answers.recv().await);
    fixture.say(Kind::Chunk, frame.id, 1, ITEM).await;
    fixture.say(Kind::Chunk, frame.id, 1, ITEM).await;
    let cancel = fixture.control.recv().await.unwrap();
    assert_eq!((cancel.kind, cancel.id), (Kind::Cancel, frame.id));
    fixture.say(Kind::End, frame.id, 0, b"").await;
    let [next] = fixture.dispatch([BODY]);
    let frame = read_frame(&mut fixture.worker).await.unwrap();
    fixture.say(Kind::Response, frame.id, 200, b"next").await;
    assert_eq!(whole(next).await.unwrap(), "next");
    assert!(fixture.control.try_recv().is_err());
}

#[tokio::test]
async fn a_slow_reader_holds_back_its_own_stream_only() {
    let mut fixture = fixture(false);
    let [mut slow, quick] = fixture.dispatch([BODY, BODY]);
    let frame = read_frame(&mut fixture.worker).await.unwrap();
    let half = [&(STREAM_CREDIT as u32 / 2).to_le_bytes()[..], &vec![7; STREAM_CREDIT / 2]];
    let half = half.concat();
    fixture.say(Kind::Chunk, frame.id, 2, ITEM).await;
    fixture.say(Kind::Chunk, frame.id, 2, &half).await;
    fixture.say(Kind::Chunk, frame.id, 2, &half).await;
    fixture.say(Kind::Response, frame.id + (1 << 32) + 1, 200, b"quick").await;
    assert_eq!(whole(quick).await.unwrap(), "quick");
    let Ok(Answer::Stream(_, mut rest)) = slow.recv().await else { panic!("not a stream") };
    std::future::poll_fn(|cx| rest.poll_part(cx)).await;
    let credit = fixture.control.recv().await.unwrap();
    assert_eq!((credit.kind, credit.id), (Kind::Credit, frame.id));
    let more = u32::from_le_bytes(credit.payload[..].try_into().unwrap()) as usize;
    assert_eq!(more, ITEM.len() + half.len(), "what its client has taken");
}

#[tokio::test]
async fn a_stream_that_ignores_its_credit_breaks_the_protocol() {
    let mut fixture = fixture(false);
    let [_answers] = fixture.dispatch([BODY]);
    let frame = read_frame(&mut fixture.worker).await.unwrap();
    let item = [&(STREAM_CREDIT as u32).to_le_bytes()[..], &vec![7; STREAM_CREDIT]].concat();
    fixture.say(Kind::Chunk, frame.id, 2, ITEM).await;
    fixture.say(Kind::Chunk, frame.id, 2, &item).await;
    fixture.say(Kind::Chunk, frame.id, 2, ITEM).await;
    assert!(fixture.ended.await.unwrap().unwrap().reason.contains("given credit for"));
}

impl Fixture {
    async fn parent(&self, items: &[u64]) -> Outcome<Parent> {
        let (answer, parent) = tokio::sync::oneshot::channel();
        let _ = self.parents.send(ParentQuery { items: items.to_vec(), answer });
        parent.await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn calls_inherit_from_the_jobs_that_they_are_made_for() {
    let mut fixture = fixture(true);
    let begun = Instant::now();
    let ((first_reply, answers), (reply, _others)) = (reply(), reply());
    let origin = Origin { call: Some(CallId(9)), ..Origin::default().child("/a#0".into()) };
    let (short, long) = (begun + Duration::from_secs(1), begun + Duration::from_secs(5));
    let request = Request { id: Some("r1".into()), ..Request::json("1") };
    let first = Job::new(request, begun, short, first_reply);
    let second =
        Job { origin: Some(Arc::new(origin)), ..Job::new(Request::json("2"), begun, long, reply) };
    fixture.commands.send(Command::Jobs(vec![first, second])).unwrap();
    let [first, second] = read_requests(&mut fixture.worker).await;
    let mut parent = fixture.parent(&[first, second]).await.unwrap();
    let path: Vec<_> = parent.origin.path().iter().map(ToString::to_string).collect();
    assert_eq!((path, parent.origin.depth), (vec!["/a#0".into(), "/test#0".into()], 2));
    assert_eq!((parent.deadline, parent.id.as_deref()), (long, Some("r1")));
    let calls = fixture.calls.clone();
    let noted = || calls.noted.lock().unwrap().clone();
    assert!(noted().contains(&format!("held 9 {second}")), "{:?}", noted());

    // A batch is computed for the caller that is left.
    drop(answers);
    fixture.commands.send(Command::CancelAbandoned).unwrap();
    assert_eq!(fixture.parent(&[first]).await.unwrap_err().status(), 499);
    assert!(timeout(Duration::from_secs(1), parent.ended()).await.is_err());
    fixture.say(Kind::Response, second, 200, b"1").await;
    fixture.say(Kind::Response, first, 200, b"1").await;
    parent.ended().await;
    assert_eq!(noted().last().unwrap(), "ended 9");
    assert_eq!(fixture.parent(&[first, second]).await.unwrap_err().status(), 409);
}

/// Reads two requests, and returns their ids.
async fn read_requests(worker: &mut DuplexStream) -> [u64; 2] {
    let (mut decoder, mut buffer, mut ids) = (Decoder::default(), BytesMut::new(), Vec::new());
    while ids.len() < 2 {
        worker.read_buf(&mut buffer).await.unwrap();
        while let Some(frame) = decoder.decode(&mut buffer).unwrap() {
            ids.push(frame.id);
        }
    }
    ids.try_into().unwrap()
}
