use litmux_core::{
    Batch, Chunks, ClientLeft, Content, Job, LitApi, LitStream, Outcome, Part, Reply, Request,
    Response, ServeError,
};
use serde::de::DeserializeOwned;

/// Takes an answer to whoever waits for it.
pub(crate) trait Deliver {
    fn deliver(&self, answers: Vec<(Reply, Outcome<Response>)>);
    fn finished(&self, jobs: usize);
}

/// A model as its thread drives it.
pub(crate) trait Model {
    /// Answers jobs: one batch where the endpoint batches, else that many single jobs.
    fn run(&mut self, jobs: Vec<Job>, to: &dyn Deliver);
}

/// Drives a [`LitApi`].
pub(crate) struct Batches<A> {
    pub(crate) api: A,
    pub(crate) max_batch_size: usize,
}

impl<A: LitApi> Model for Batches<A> {
    fn run(&mut self, jobs: Vec<Job>, to: &dyn Deliver) {
        if self.max_batch_size > 1 {
            return to.deliver(self.answer(jobs));
        }
        for job in jobs {
            to.deliver(self.answer(vec![job]));
        }
    }
}

impl<A: LitApi> Batches<A> {
    fn answer(&mut self, jobs: Vec<Job>) -> Vec<(Reply, Outcome<Response>)> {
        let mut answers = Vec::with_capacity(jobs.len());
        let (mut inputs, mut replies) = (Vec::new(), Vec::new());
        for job in jobs {
            match guarded(|| Ok(decode(&job.request)?)) {
                Ok(input) => {
                    inputs.push(input);
                    replies.push(job.reply);
                }
                Err(error) => answers.push((job.reply, Err(error))),
            }
        }
        if !inputs.is_empty() {
            let outcomes = self.predict(inputs);
            answers.extend(replies.into_iter().zip(outcomes));
        }
        answers
    }

    /// Returns exactly one encoded outcome per input.
    fn predict(&mut self, inputs: Vec<A::Input>) -> Vec<Outcome<Response>> {
        let expected = inputs.len();
        let failed = |error: ServeError| vec![Err(error); expected];
        match guarded(|| self.api.predict(Batch::from(inputs))) {
            Ok(outcomes) if outcomes.len() == expected => outcomes
                .into_iter()
                .map(|outcome| outcome.and_then(|output| guarded(|| Ok(encode(&output)?))))
                .collect(),
            Ok(outcomes) => {
                let got = outcomes.len();
                tracing::error!(expected, got, "predict returned the wrong number of outcomes");
                failed(ServeError::internal())
            }
            Err(error) => failed(error),
        }
    }
}

/// Drives a [`LitStream`].
pub(crate) struct Streams<S>(pub(crate) S);

impl<S: LitStream> Model for Streams<S> {
    fn run(&mut self, jobs: Vec<Job>, to: &dyn Deliver) {
        for job in jobs {
            self.answer(job);
            to.finished(1);
        }
    }
}

impl<S: LitStream> Streams<S> {
    fn answer(&mut self, job: Job) {
        let mut chunks = Chunks::new(job.reply.into_stream());
        let result = decode(&job.request).and_then(|input| {
            guarded(|| match self.0.predict(input, &mut chunks) {
                Err(error) if error.is::<ClientLeft>() => Ok(()),
                result => result,
            })
        });
        let end = result.map_or_else(Part::Failed, |()| Part::End);
        // A client that left needs no end.
        let _ = chunks.into_sink().blocking_send(end);
    }
}

fn decode<T: DeserializeOwned>(request: &Request) -> Outcome<T> {
    if request.content != Content::Json {
        let detail = "this endpoint takes JSON; send `Content-Type: application/json`";
        return Err(ServeError::new(415, detail));
    }
    let parsed = match request.body.as_slice() {
        [whole] => serde_json::from_slice(whole),
        pieces => serde_json::from_slice(&pieces.concat()),
    };
    parsed.map_err(|error| match error.classify() {
        serde_json::error::Category::Data => ServeError::new(422, error.to_string()),
        _ => ServeError::new(400, format!("malformed JSON body: {error}")),
    })
}

fn encode(output: &impl serde::Serialize) -> Outcome<Response> {
    serde_json::to_vec(output).map(Response::json).map_err(|error| {
        tracing::error!(%error, "an output cannot be written as JSON");
        ServeError::internal()
    })
}

/// Calls a hook. An error that is no [`ServeError`] and a panic are logged, and become a 500.
fn guarded<T>(hook: impl FnOnce() -> litmux_core::Result<T>) -> Outcome<T> {
    // A model that panicked half-way is used again, as a web framework would a handler; one that
    // cannot be must abort.
    let hook = std::panic::AssertUnwindSafe(hook);
    let error = match std::panic::catch_unwind(hook) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error,
        Err(_) => return Err(ServeError::internal()),
    };
    Err(match error.downcast::<ServeError>() {
        Ok(error) => *error,
        Err(error) => {
            tracing::error!(%error, "predict failed");
            ServeError::internal()
        }
    })
}
