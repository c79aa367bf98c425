//! The items of a map: their list, or their stream as they come.

use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt, TryStreamExt};
use litplex_core::{ItemsBuilder, Outcome, Part, PartStream};

use crate::error::{Done, PipelineError, StepError};
use crate::path::{NotFound, Path, excerpt, items};
use crate::scope::Scope;
use crate::template::separate;
use crate::value::refusal;

/// The items of a list, and whether the client sent them.
pub(crate) struct List {
    pub(crate) items: Vec<Bytes>,
    pub(crate) is_from_client: bool,
}

/// Returns the items of the list at a path.
pub(crate) fn items_at(over: &Path, scope: &Scope) -> Outcome<List> {
    let list = scope.select(over)?;
    let text = list.text()?;
    let is_from_client = list.is_from_client;
    match items(&text) {
        Ok(items) => Ok(List { items, is_from_client }),
        Err(NotFound::Missing(_)) => {
            let detail = format!("`{over}` is not a list, but {}", excerpt(&text));
            Err(refusal(detail, is_from_client))
        }
        Err(NotFound::Malformed(why)) => Err(list.malformed(&why)),
    }
}

/// Runs work on the items, this many of them at a time; the first error drops the others. Returns the
/// results in the order of the items.
pub(crate) async fn collect<W: Future<Output = Done<Bytes>>>(
    works: impl Iterator<Item = W>,
    in_flight: usize,
) -> Done<Vec<Bytes>> {
    let works = works
        .enumerate()
        .map(|(number, work)| async move { Ok::<_, StepError>((number, work.await?)) });
    let running = stream::iter(works).buffer_unordered(in_flight);
    let mut done: Vec<(usize, Bytes)> = running.try_collect().await?;
    done.sort_unstable_by_key(|(number, _)| *number);
    Ok(done.into_iter().map(|(_, text)| text).collect())
}

/// Returns a JSON list of these texts.
pub(crate) fn joined<'t>(items: impl ExactSizeIterator<Item = &'t [u8]>) -> Vec<u8> {
    let mut list = vec![b'['];
    for (number, item) in items.enumerate() {
        separate(number, &mut list);
        list.extend_from_slice(item);
    }
    list.push(b']');
    list
}

/// The most results in one part of a stream.
const MOST_IN_PART: usize = 64;

/// The results of a map as a stream. It has no more calls in flight, and no more results that wait, than
/// the map allows; the calls make progress while the stream is read.
pub(crate) struct MapStream {
    results: Pin<Box<dyn Stream<Item = Done<Bytes>> + Send>>,
    /// What follows the items that were returned last, if that is known.
    then: Option<Done<Part>>,
}

impl MapStream {
    /// Returns the results of these works, in their order.
    pub(crate) fn new<W: Future<Output = Done<Bytes>> + Send + 'static>(
        works: impl Iterator<Item = W> + Send + 'static,
        in_flight: usize,
    ) -> Self {
        let results = stream::iter(works).buffered(in_flight);
        Self { results: Box::pin(results), then: None }
    }

    /// Polls for the results that are there, or the error of the first that failed.
    pub(crate) fn poll_results(&mut self, cx: &mut Context<'_>) -> Poll<Done<Part>> {
        if let Some(then) = self.then.take() {
            return Poll::Ready(then);
        }
        let mut items = ItemsBuilder::json();
        for taken in 0..MOST_IN_PART {
            let then = match self.results.as_mut().poll_next(cx) {
                Poll::Ready(Some(Ok(text))) => {
                    push(&mut items, &text);
                    continue;
                }
                Poll::Ready(Some(Err(error))) => Err(error),
                Poll::Ready(None) => Ok(Part::End),
                Poll::Pending if taken == 0 => return Poll::Pending,
                Poll::Pending => break,
            };
            if taken == 0 {
                return Poll::Ready(then);
            }
            self.then = Some(then);
            break;
        }
        Poll::Ready(Ok(Part::Items(items.finish())))
    }
}

impl PartStream for MapStream {
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Part> {
        let results = self.poll_results(cx);
        results
            .map(|part| part.unwrap_or_else(|error| Part::Failed(PipelineError::from(error).error)))
    }
}

fn push(items: &mut ItemsBuilder, text: &Bytes) {
    items.push_with(|out| out.write_all(text)).expect("it is written to memory. This is a bug.");
}
