//! The names of the requests that a model's thread computes, for the lines that are logged meanwhile.

use std::cell::RefCell;

use litplex_core::Job;

thread_local! {
    /// The requests that the thread computes, without names of which nothing is known.
    static CURRENT: RefCell<Vec<Option<String>>> = const { RefCell::new(Vec::new()) };
}

/// The names of requests in computation. The thread computes none of them any more once this is dropped.
pub(crate) struct Named {
    are_set: bool,
}

impl Named {
    /// Notes that the thread computes these jobs. A name is made only for a request that has an id or is
    /// recorded.
    pub(crate) fn begin(jobs: &[Job]) -> Self {
        let are_set = jobs.iter().any(|job| job.request.id.is_some() || job.is_traced());
        if are_set {
            CURRENT.set(jobs.iter().map(name).collect());
        }
        Self { are_set }
    }

    /// Notes that the thread computes this job alone from here on.
    pub(crate) fn narrow(&self, job: &Job) {
        if self.are_set {
            CURRENT.set(vec![name(job)]);
        }
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        if self.are_set {
            CURRENT.take();
        }
    }
}

fn name(job: &Job) -> Option<String> {
    job.request.id.clone().or_else(|| Some(job.reply.trace()?.request_name()))
}

/// Returns the names of the requests that the Rust model of the current thread computes, with a space
/// between; `None` if it computes none that has a name.
pub fn current_requests() -> Option<String> {
    let names = CURRENT.with_borrow(|names| {
        names.iter().flatten().map(String::as_str).collect::<Vec<_>>().join(" ")
    });
    Some(names).filter(|names| !names.is_empty())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use litplex_core::{Request, SpanContext, Trace, reply};
    use tokio::time::Instant;

    use super::*;

    fn job(id: Option<&str>, number: Option<u64>) -> Job {
        let context = SpanContext { trace_id: 0, span_id: 1, is_sampled: false };
        let trace = number.map(|number| Arc::new(Trace::new(context, number)));
        let request = Request { id: id.map(str::to_owned), ..Request::json("1") };
        let (reply, _) = reply();
        let now = Instant::now();
        Job::new(request, now, now, reply.traced(trace, &Arc::default()))
    }

    #[tokio::test]
    async fn a_thread_names_the_requests_that_it_computes() {
        let jobs = [job(Some("mine"), Some(1)), job(None, None), job(None, Some(2))];
        assert_eq!(current_requests(), None);
        let named = Named::begin(&jobs);
        assert_eq!(current_requests().as_deref(), Some("mine r2"));
        named.narrow(&jobs[1]);
        assert_eq!(current_requests(), None);
        named.narrow(&jobs[2]);
        assert_eq!(current_requests().as_deref(), Some("r2"));
        drop(named);
        assert_eq!(current_requests(), None);
    }
}
