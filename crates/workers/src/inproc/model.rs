//! A Rust model as its thread drives it: batches and streams. The thread itself is in `launch.rs`.

use litplex_core::{
    Batch, CallError, Chunks, ClientLeft, Content, Done, Job, LitApi, LitStream, Outcome, Part,
    Reply, Request, Response, ServeError, Stages, json_text,
};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::calls::{Calling, Computing};
use super::names::Named;

/// The receiver of answers and reports.
pub(crate) trait Deliver {
    fn deliver(&self, answers: Vec<(Reply, Outcome<Response>)>);
    fn finished(&self, done: Done);
}

/// A model as its thread drives it.
pub(crate) trait Model {
    /// Answers jobs: one batch if the endpoint batches, otherwise single jobs.
    /// `calling` is present if it calls other endpoints.
    fn run(&mut self, jobs: Vec<Job>, calling: Option<&Calling>, to: &dyn Deliver);
}

/// The model of a [`LitApi`].
pub(crate) struct Batches<A> {
    pub(crate) api: A,
    pub(crate) max_batch_size: usize,
    pub(crate) retry_batch_singly: bool,
}

impl<A: LitApi> Model for Batches<A> {
    fn run(&mut self, jobs: Vec<Job>, calling: Option<&Calling>, to: &dyn Deliver) {
        if self.max_batch_size > 1 {
            return to.deliver(self.answer_with_calls(jobs, calling));
        }
        for job in jobs {
            to.deliver(self.answer_with_calls(vec![job], calling));
        }
    }
}

impl<A: LitApi> Batches<A> {
    fn answer_with_calls(
        &mut self,
        jobs: Vec<Job>,
        calling: Option<&Calling>,
    ) -> Vec<(Reply, Outcome<Response>)> {
        // Its end comes before the callers have the responses.
        let _computing = calling.map(|calling| calling.begin(&jobs));
        self.answer(jobs)
    }

    fn answer(&mut self, jobs: Vec<Job>) -> Vec<(Reply, Outcome<Response>)> {
        let mut answers = Vec::with_capacity(jobs.len());
        let (mut inputs, mut decoded) = (Vec::new(), Vec::new());
        let now = Instant::now();
        for job in jobs {
            if job.is_void(now) {
                answers.push((job.reply, Err(ServeError::deadline())));
                continue;
            }
            match guarded(|| Ok(decode(&job.request)?)) {
                Ok(input) => {
                    inputs.push(input);
                    decoded.push(job);
                }
                Err(error) => answers.push((job.reply, Err(error))),
            }
        }
        if !inputs.is_empty() {
            let begin = Instant::now();
            let named = Named::begin(&decoded);
            let outcomes = self.outcomes(inputs, &decoded, &named);
            drop(named);
            let predict = Some(begin.elapsed());
            let traces = decoded.iter_mut().filter_map(Job::trace);
            traces.for_each(|trace| trace.took(Stages { predict, ..Stages::default() }));
            answers.extend(decoded.into_iter().map(|job| job.reply).zip(outcomes));
        }
        answers
    }

    /// Returns exactly one encoded outcome per input.
    fn outcomes(
        &mut self,
        inputs: Vec<A::Input>,
        jobs: &[Job],
        named: &Named,
    ) -> Vec<Outcome<Response>> {
        match self.predict(inputs) {
            Ok(outcomes) => outcomes,
            Err(_) if jobs.len() > 1 && self.retry_batch_singly => {
                let count = jobs.len();
                tracing::warn!("a batch of {count} failed; its items are tried one by one");
                let alone = jobs.iter().inspect(|job| named.narrow(job));
                alone.map(|job| self.outcome_alone(job)).collect()
            }
            Err(error) => vec![Err(error); jobs.len()],
        }
    }

    /// Computes a job alone. The batch has consumed its input, so that it is decoded again.
    fn outcome_alone(&mut self, job: &Job) -> Outcome<Response> {
        let input = guarded(|| Ok(decode(&job.request)?))?;
        self.predict(vec![input])?.pop().unwrap_or_else(|| Err(ServeError::internal()))
    }

    fn predict(&mut self, inputs: Vec<A::Input>) -> Outcome<Vec<Outcome<Response>>> {
        let expected = inputs.len();
        let outcomes = guarded(|| self.api.predict(Batch::from(inputs)))?;
        if outcomes.len() != expected {
            let got = outcomes.len();
            tracing::error!("predict returned {got} outcomes for {expected} inputs");
            return Err(ServeError::internal());
        }
        let encoded = |outcome: Outcome<A::Output>| {
            outcome.and_then(|output| guarded(|| Ok(encode(&output)?)))
        };
        Ok(outcomes.into_iter().map(encoded).collect())
    }
}

/// The model of a [`LitStream`].
pub(crate) struct Streams<S>(pub(crate) S);

impl<S: LitStream> Model for Streams<S> {
    fn run(&mut self, jobs: Vec<Job>, calling: Option<&Calling>, to: &dyn Deliver) {
        for job in jobs {
            let computing = calling.map(|calling| calling.begin(std::slice::from_ref(&job)));
            let cut_short = usize::from(!self.answer(job, computing.as_ref()));
            to.finished(Done { jobs: 1, cut_short });
        }
    }
}

impl<S: LitStream> Streams<S> {
    /// Answers a job, and returns whether its client stayed to the end.
    fn answer(&mut self, job: Job, computing: Option<&Computing<'_>>) -> bool {
        if job.is_void(Instant::now()) {
            job.reply.send(Err(ServeError::deadline()));
            return false;
        }
        let _named = Named::begin(std::slice::from_ref(&job));
        let mut chunks = Chunks::new(job.reply.into_stream());
        if let Some(computing) = computing {
            chunks = chunks.before_each(computing.part_reporter());
        }
        let result = decode(&job.request).and_then(|input| {
            guarded(|| match self.0.predict(input, &mut chunks) {
                Err(error) if error.is::<ClientLeft>() => Ok(()),
                result => result,
            })
        });
        let end = result.map_or_else(Part::Failed, |()| Part::End);
        chunks.into_sink().blocking_send(end).is_ok()
    }
}

fn decode<T: DeserializeOwned>(request: &Request) -> Outcome<T> {
    if request.content != Content::Json {
        let detail = "this endpoint takes JSON; send `Content-Type: application/json`";
        return Err(ServeError::unsupported_type(detail));
    }
    let text = json_text(&request.body).ok_or_else(ServeError::not_json_text)?;
    serde_json::from_slice(&text).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => ServeError::invalid_input(error.to_string()),
        _ => ServeError::malformed(format!("malformed JSON body: {error}")),
    })
}

fn encode(output: &impl serde::Serialize) -> Outcome<Response> {
    serde_json::to_vec(output).map(Response::json).map_err(|error| {
        tracing::error!("an output cannot be written as JSON: {error}");
        ServeError::internal()
    })
}

/// Calls a hook. A panic, or an error that is neither a [`ServeError`] nor a [`CallError`], becomes a 500; both
/// are logged.
fn guarded<T>(hook: impl FnOnce() -> litplex_core::Result<T>) -> Outcome<T> {
    // A model is used again after a panic, as web frameworks use handlers; a model that cannot be
    // must abort the process.
    let hook = std::panic::AssertUnwindSafe(hook);
    let error = match std::panic::catch_unwind(hook) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error,
        Err(_) => return Err(ServeError::internal()),
    };
    let error = match error.downcast::<ServeError>() {
        Ok(error) => return Err(*error),
        Err(error) => error,
    };
    if error.downcast_ref::<CallError>().is_none_or(|error| !error.keeps_status()) {
        tracing::error!("predict failed: {error}");
    }
    Err(error.downcast::<CallError>().map_or_else(|_| ServeError::internal(), |it| (*it).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded<T: DeserializeOwned>(body: &'static str) -> Result<T, u16> {
        decode(&Request::json(body)).map_err(|error| error.status())
    }

    #[test]
    fn integers_are_exact_or_refused() {
        assert_eq!(decoded("18446744073709551615"), Ok(u64::MAX));
        assert_eq!(decoded::<u64>("18446744073709551616"), Err(422));
        assert_eq!(decoded("18446744073709551616"), Ok(1_i128 << 64));
        assert_eq!(decoded::<i64>("-0"), Err(422));
        assert_eq!(decoded("-0"), Ok(0_i128));
        assert_eq!(decoded("-0"), Ok(-0.0_f64));
        assert_eq!(decoded::<f64>("1e400"), Err(400));
        let raw: Box<serde_json::value::RawValue> = decoded("18446744073709551616").unwrap();
        assert_eq!(raw.get(), "18446744073709551616");
    }
}
