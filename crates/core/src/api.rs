//! The traits that authors of Rust models implement, and the values that they use.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use serde::{Serialize, de::DeserializeOwned};

use crate::{ItemsBuilder, Outcome, Part, Result, StreamSender};

/// A model in Rust that responds to each request with one value.
///
/// An instance stays on the thread that loaded it: it need not be `Send`, it may block, and it is
/// called with one batch at a time.
pub trait LitApi: 'static {
    /// The JSON body of a request. A body that does not match is answered with 422 before `predict`.
    ///
    /// Numbers are read as `serde_json` reads them: an integer that its type cannot hold does not
    /// match, and neither does `-0`, a float, except in `i128`. `serde_json::Value` holds an integer
    /// outside of `i64` and `u64` as the nearest float; `i128`, `u128` and
    /// `Box<serde_json::value::RawValue>` keep it.
    type Input: DeserializeOwned + 'static;
    /// The JSON body of a response.
    type Output: Serialize + 'static;

    /// Computes a batch of 1 to `max_batch_size` items and returns one outcome per item, in
    /// their order.
    ///
    /// # Errors
    /// An `Err` for the whole batch answers every item with 500 (or with the status of a
    /// [`ServeError`](crate::ServeError)); an `Err` in an item's place answers that item alone.
    fn predict(&mut self, batch: Batch<Self::Input>) -> Result<Vec<Outcome<Self::Output>>>;
}

/// A model in Rust that responds to a request with a stream of values.
pub trait LitStream: 'static {
    /// The JSON body of a request, as in [`LitApi::Input`].
    type Input: DeserializeOwned + 'static;
    /// One chunk of the response, sent as one line of JSON or one server-sent event.
    type Output: Serialize + 'static;

    /// Computes the response to one request and sends it chunk by chunk.
    ///
    /// # Errors
    /// Before the first chunk an error becomes the status of the response; after it, an error at
    /// the end of the stream, which the client sees.
    fn predict(&mut self, input: Self::Input, chunks: &mut Chunks<Self::Output>) -> Result<()>;
}

/// The items of one call of [`LitApi::predict`]: never empty, at most `max_batch_size`.
#[derive(Debug, Clone)]
pub struct Batch<T>(Vec<T>);

impl<T> Batch<T> {
    /// Returns the items as a vector, in the order that the outcomes must have.
    pub fn into_vec(self) -> Vec<T> {
        self.0
    }
}

impl<T> From<Vec<T>> for Batch<T> {
    fn from(items: Vec<T>) -> Self {
        Self(items)
    }
}

impl<T> Deref for Batch<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> IntoIterator for Batch<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// The device of a model: `cpu`, `cuda:0`, `mps`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device(String);

impl Device {
    /// Returns the device of this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// Returns the name, for example `cuda:0`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The client left: stop computing. Returned by [`Chunks::send`]; pass it on with `?`.
#[derive(Debug, thiserror::Error)]
#[error("the client left")]
pub struct ClientLeft;

/// The sender of the chunks of one [`LitStream`] response.
pub struct Chunks<T> {
    sink: StreamSender,
    /// Called before each chunk is sent.
    before: Option<Box<dyn Fn() + Send + Sync>>,
    chunk: PhantomData<fn(T)>,
}

impl<T: Serialize> Chunks<T> {
    /// Returns a sender of chunks to `sink`.
    pub fn new(sink: StreamSender) -> Self {
        Self { sink, before: None, chunk: PhantomData }
    }

    /// Calls a function before each chunk is sent.
    #[must_use]
    pub fn before_each(self, before: impl Fn() + Send + Sync + 'static) -> Self {
        Self { before: Some(Box::new(before)), ..self }
    }

    /// Sends one chunk; waits while the client reads more slowly than the model writes.
    ///
    /// # Errors
    /// [`ClientLeft`] if the client has left, or the error of serialising the chunk.
    pub fn send(&mut self, chunk: T) -> Result<()> {
        let mut items = ItemsBuilder::json();
        items.push_with(|out| serde_json::to_writer(out, &chunk))?;
        self.before.iter().for_each(|before| before());
        self.sink.blocking_send(Part::Items(items.finish())).map_err(|_| ClientLeft.into())
    }

    /// Returns the sink, to end the stream or to report an error.
    pub fn into_sink(self) -> StreamSender {
        self.sink
    }
}

impl<T> fmt::Debug for Chunks<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunks").finish_non_exhaustive()
    }
}
