//! `litplex stack`: shows what a worker does.

use clap::Args;

use crate::say::{say, say_json};
use crate::servers::ServerArgs;

#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Stack {
    /// Path or name of the endpoint, and the number of the worker [default: #0]
    #[arg(value_name = "ENDPOINT[#WORKER]")]
    worker: String,
    #[command(flatten)]
    server: ServerArgs,
}

const AFTER_HELP: &str = "\
Shows the stacks of all threads of a Python worker, also while native code keeps its interpreter:
a model that is stuck, or slow, is seen in the act. The worker goes on.

Examples:
  litplex stack /ocr
  litplex stack '/ocr#2'";

pub(crate) fn run(stack: &Stack) -> anyhow::Result<()> {
    let (endpoint, slot) = split(&stack.worker);
    let text = stack.server.client()?.stack(endpoint, slot)?;
    if stack.server.json {
        return say_json(
            &serde_json::json!({"worker": format!("{endpoint}#{slot}"), "stack": text}),
        );
    }
    say(&text)
}

/// Returns the endpoint and the number of a worker.
fn split(worker: &str) -> (&str, usize) {
    let numbered = worker
        .rsplit_once('#')
        .and_then(|(endpoint, slot)| slot.parse().ok().map(|slot| (endpoint, slot)));
    numbered.unwrap_or((worker, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_named_as_in_the_log() {
        assert_eq!(split("/ocr#12"), ("/ocr", 12));
        assert_eq!(split("/ocr"), ("/ocr", 0));
        assert_eq!(split("/c#"), ("/c#", 0));
    }
}
