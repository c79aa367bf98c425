//! Continuous batching: one thread computes all sequences, and each may join or leave between steps.
//!
//! A step computes a token of each sequence that generates, and fills the rest of its budget with
//! prompts, in the order in which they came. So a long prompt does not stop the others' streams.

use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread;

use litplex::Result;

use crate::llama::{Cache, Llama, Part};
use crate::sample::Sampler;

/// The most tokens of a step, unless more sequences generate.
const STEP: usize = 128;

/// A prompt, and how to continue it.
pub(crate) struct Wanted {
    /// The tokens of the prompt: at least one.
    pub(crate) prompt: Vec<u32>,
    /// At least one. Prompt and answer fit into the model's window.
    pub(crate) max_tokens: usize,
    pub(crate) sampler: Sampler,
}

/// A token as the model has chosen it, or the reason why there are no more.
pub(crate) type Generated = std::result::Result<u32, String>;

/// The thread of a model. It ends when this is dropped.
pub(crate) struct Engine {
    inbox: Sender<Sequence>,
    pub(crate) window: usize,
}

impl Engine {
    /// Starts the thread. A token that `is_end` is sent as the last one.
    pub(crate) fn start(
        model: Llama,
        is_end: impl Fn(u32) -> bool + Send + 'static,
    ) -> Result<Self> {
        let (inbox, arrivals) = channel();
        let window = model.window;
        let run = move || Batch { model, is_end, running: Vec::new() }.run(&arrivals);
        thread::Builder::new().name("engine".into()).spawn(run)?;
        Ok(Self { inbox, window })
    }

    /// Generates at most `max_tokens`. The tokens arrive as they are chosen; the thread has ended if there
    /// are fewer and no last one.
    pub(crate) fn generate(&self, wanted: Wanted) -> Receiver<Generated> {
        let (sender, tokens) = channel();
        let Wanted { prompt, max_tokens, sampler } = wanted;
        let sequence = Sequence { new: prompt, cache: None, sampler, left: max_tokens, sender };
        // If the thread has ended, the sender is dropped with the sequence.
        let _ = self.inbox.send(sequence);
        tokens
    }
}

struct Sequence {
    /// The tokens that the model has not seen yet: the rest of the prompt, or the last token.
    new: Vec<u32>,
    /// `None` until its first step.
    cache: Option<Cache>,
    sampler: Sampler,
    /// The tokens that it may still generate.
    left: usize,
    sender: Sender<Generated>,
}

struct Batch<E> {
    model: Llama,
    is_end: E,
    /// In the order of their arrival.
    running: Vec<Sequence>,
}

impl<E: Fn(u32) -> bool> Batch<E> {
    fn run(mut self, arrivals: &Receiver<Sequence>) {
        while self.take(arrivals) {
            if let Err(error) = self.step() {
                let message = format!("the model failed: {error}");
                for sequence in self.running.drain(..) {
                    let _ = sequence.sender.send(Err(message.clone()));
                }
            }
        }
    }

    /// Adds the sequences that have arrived, and waits for one if there is none. Returns whether there
    /// will be more.
    fn take(&mut self, arrivals: &Receiver<Sequence>) -> bool {
        if self.running.is_empty() {
            match arrivals.recv() {
                Ok(sequence) => self.running.push(sequence),
                Err(_) => return false,
            }
        }
        loop {
            match arrivals.try_recv() {
                Ok(sequence) => self.running.push(sequence),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return !self.running.is_empty(),
            }
        }
    }

    fn step(&mut self) -> candle_core::Result<()> {
        let counts = plan(&self.running.iter().map(|one| one.new.len()).collect::<Vec<_>>());
        let model = &self.model;
        let chosen = self.running.iter_mut().zip(&counts).filter(|(_, count)| **count > 0);
        let mut parts: Vec<_> = chosen
            .map(|(sequence, &count)| Part {
                tokens: &sequence.new[..count],
                cache: sequence.cache.get_or_insert_with(|| model.cache()),
            })
            .collect();
        let mut logits = model.forward(&mut parts)?.into_iter();
        let mut counts = counts.into_iter();
        let is_end = &self.is_end;
        self.running.retain_mut(|sequence| match counts.next() {
            Some(count) if count > 0 => sequence.advance(count, logits.next(), is_end),
            _ => true,
        });
        Ok(())
    }
}

/// Returns how many of its new tokens each sequence computes in a step.
fn plan(new: &[usize]) -> Vec<usize> {
    let generating = new.iter().filter(|count| **count == 1).count();
    let mut left = STEP.saturating_sub(generating);
    let count = |&new: &usize| {
        if new == 1 {
            return 1;
        }
        let count = new.min(left);
        left -= count;
        count
    };
    new.iter().map(count).collect()
}

impl Sequence {
    /// Takes note of a step that computed `count` of its tokens. Returns whether it goes on.
    fn advance(
        &mut self,
        count: usize,
        logits: Option<Vec<f32>>,
        is_end: impl Fn(u32) -> bool,
    ) -> bool {
        self.new.drain(..count);
        if !self.new.is_empty() {
            return true;
        }
        let token = self.sampler.sample(&logits.unwrap_or_default());
        self.new.push(token);
        self.left -= 1;
        // A receiver that was dropped ends the sequence.
        self.sender.send(Ok(token)).is_ok() && self.left > 0 && !is_end(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_has_all_that_generate_and_the_prompts_that_came_first() {
        assert_eq!(plan(&[1, 1]), [1, 1]);
        assert_eq!(plan(&[1000]), [STEP]);
        assert_eq!(plan(&[100, 1, 100, 7]), [100, 1, STEP - 101, 0]);
        assert_eq!(plan(&[1; 200]), [1; 200]);
        assert_eq!(plan(&[vec![1; 200], vec![5]].concat()), [vec![1; 200], vec![0]].concat());
    }
}
