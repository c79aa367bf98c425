//! `litplex validate`: loads a model, calls it, lets it hibernate if it may, unloads it, and calls it again: is its
//! memory back, and is its answer the same?

use std::thread::sleep;
use std::time::Duration;

use anyhow::{anyhow, bail};
use clap::Args;
use litplex_admin::{Client, EndpointStatus, Tier, WorkerCount};
use litplex_core::size_in_words;
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use crate::call::{Example, ExampleClient, note};
use crate::say::{say, say_json};
use crate::servers::ServerArgs;
use crate::table::{columns, seconds};

/// The time between two looks at the state of the endpoint.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The part of a worker's memory that may be missing after its end: other workers change meanwhile.
const TOLERANCE: f64 = 0.05;

#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Validate {
    /// Path or name of the endpoint, such as /ocr
    endpoint: String,
    /// The JSON body of the request [default: the example that the model declares]
    input: Option<String>,
    /// Seconds that a load, an answer or an end may take
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    limit: u32,
    #[command(flatten)]
    server: ServerArgs,
}

const AFTER_HELP: &str = "\
Requests of others wait while the model is not in memory. Afterwards the number of workers is again as configured.

Examples:
  litplex validate /ocr                         with the example of its schema
  litplex validate /embed '{\"input\": \"text\"}'
  litplex validate /embed --json | jq .same_answer

Exit status: 0 its memory came back and its answers are the same, 1 they are not, or no server is running.";

/// The findings.
#[derive(Debug, Default, Serialize)]
struct Findings {
    endpoint: String,
    /// The seconds from nothing until a worker was ready.
    load: f64,
    /// The bytes of memory of the worker.
    memory: u64,
    /// The seconds of the first answer, and of the next one.
    first_answer: f64,
    warm_answer: f64,
    /// The findings about its hibernation, if the endpoint has it on.
    #[serde(skip_serializing_if = "Option::is_none")]
    hibernation: Option<HibernationFindings>,
    /// The seconds until the worker was gone and its memory back.
    unload: f64,
    /// The bytes that came back.
    memory_back: u64,
    /// The seconds of a request that loads the model.
    cold_answer: f64,
    /// Whether the three answers are equal.
    same_answer: bool,
    /// Whether the memory came back.
    is_memory_back: bool,
}

/// The findings about a worker that hibernated and was woken.
#[derive(Debug, Serialize)]
struct HibernationFindings {
    /// The seconds until its memory was in swap.
    hibernate: f64,
    /// The bytes that came back.
    memory_back: u64,
    /// The seconds of a request that woke it.
    woken_answer: f64,
    /// Whether its answer is the first one.
    same_answer: bool,
}

pub(crate) fn run(validate: &Validate) -> anyhow::Result<()> {
    let running = validate.server.running()?;
    let endpoint = running.client.endpoint(&validate.endpoint)?;
    if endpoint.kind != "python" {
        bail!(
            "`{}` is of kind {}: only workers of Python models can be unloaded",
            endpoint.label,
            endpoint.kind
        );
    }
    let trial = Trial {
        client: &running.client,
        url: &running.status.url,
        endpoint: &endpoint.label,
        path: &endpoint.path,
        limit: Duration::from_secs(validate.limit.into()),
    };
    // An interrupted command cannot restore it.
    note(&format!(
        "note: if this is interrupted, `litplex scale {} auto` ends the trial\n",
        endpoint.label
    ));
    let found = trial.run(validate.input.as_deref());
    // Also after an error: the endpoint is again as configured.
    let restored = running.client.scale(&endpoint.label, WorkerCount::Auto);
    let found = found?;
    restored?;
    if validate.server.json {
        say_json(&found)?;
    } else {
        say(&table(&found))?;
    }
    let is_same = found.same_answer && found.hibernation.as_ref().is_none_or(|it| it.same_answer);
    match (found.is_memory_back, is_same) {
        (true, true) => Ok(()),
        (false, _) => Err(anyhow!("the memory of the model did not come back")),
        (true, false) => Err(anyhow!(
            "the answers differ: the model has randomness or a state that its load does not restore"
        )),
    }
}

/// A run of an endpoint through its states.
struct Trial<'a> {
    client: &'a Client,
    url: &'a str,
    endpoint: &'a str,
    path: &'a str,
    limit: Duration,
}

impl Trial<'_> {
    fn run(&self, input: Option<&str>) -> anyhow::Result<Findings> {
        self.unload()?;
        let before = self.own()?;
        let load = self.timed(|| self.load())?;
        let client = ExampleClient::new(self.url, self.limit)?;
        let example = Example::of(&client, self.path, input)?;
        let (first, first_answer) = self.answer(&client, &example)?;
        let (second, warm_answer) = self.answer(&client, &example)?;
        let loaded = self.own()?;
        let hibernation = self.hibernation(&client, &example, loaded, &first)?;
        let unload = self.timed(|| self.unload())?;
        let after = self.own()?;
        let (third, cold_answer) = self.answer(&client, &example)?;
        let memory = loaded.saturating_sub(before);
        let memory_back = loaded.saturating_sub(after);
        Ok(Findings {
            endpoint: self.endpoint.to_owned(),
            load,
            memory,
            first_answer,
            warm_answer,
            hibernation,
            unload,
            memory_back,
            cold_answer,
            same_answer: first == second && second == third,
            is_memory_back: memory_back as f64 >= memory as f64 * (1.0 - TOLERANCE),
        })
    }

    fn answer(&self, client: &ExampleClient, example: &Example) -> anyhow::Result<(Value, f64)> {
        let begin = Instant::now();
        let answer = client.send(self.path, example)?;
        Ok((answer, begin.elapsed().as_secs_f64()))
    }

    fn timed(&self, act: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
        let begin = Instant::now();
        act()?;
        Ok(begin.elapsed().as_secs_f64())
    }

    fn load(&self) -> anyhow::Result<()> {
        self.client.scale(self.endpoint, WorkerCount::Number(1))?;
        self.wait("was not ready", |it| {
            it.workers.iter().any(|worker| worker.ready_for.is_some())
        })?;
        // Its memory is measured once it is ready.
        self.wait("was not measured", |it| it.residency.as_ref().is_some_and(|it| it.is_measured))
    }

    /// Lets the worker hibernate and wakes it by a request, and returns what was found; `None` if its
    /// endpoint has it off.
    fn hibernation(
        &self,
        client: &ExampleClient,
        example: &Example,
        loaded: u64,
        first: &Value,
    ) -> anyhow::Result<Option<HibernationFindings>> {
        let status = self.client.endpoint(self.endpoint)?;
        if !status.residency.is_some_and(|it| it.may_hibernate) {
            return Ok(None);
        }
        self.client.scale(self.endpoint, WorkerCount::Number(0))?;
        let begin = Instant::now();
        self.wait("did not end", |it| it.workers.is_empty())?;
        let hibernate = begin.elapsed().as_secs_f64();
        if self.client.endpoint(self.endpoint)?.tier != Some(Tier::Hibernated) {
            bail!(
                "the worker ended and did not hibernate; `litplex logs {}` says why",
                self.endpoint
            );
        }
        let memory_back = loaded.saturating_sub(self.own()?);
        let (answer, woken_answer) = self.answer(client, example)?;
        let same_answer = answer == *first;
        Ok(Some(HibernationFindings { hibernate, memory_back, woken_answer, same_answer }))
    }

    fn unload(&self) -> anyhow::Result<()> {
        self.client.scale(self.endpoint, WorkerCount::Cold)?;
        self.wait("did not end", |it| it.workers.is_empty())?;
        let begin = Instant::now();
        while self.own()? > 0 && begin.elapsed() < self.limit {
            sleep(LOOK_EVERY);
        }
        Ok(())
    }

    fn wait(&self, what: &str, is_done: impl Fn(&EndpointStatus) -> bool) -> anyhow::Result<()> {
        let begin = Instant::now();
        loop {
            let status = self.client.endpoint(self.endpoint)?;
            if is_done(&status) {
                return Ok(());
            }
            if begin.elapsed() > self.limit {
                let problem = status.problem.map(|it| format!(": {it}")).unwrap_or_default();
                bail!("the worker {what} within {} s{problem}", self.limit.as_secs());
            }
            sleep(LOOK_EVERY);
        }
    }

    /// Returns the bytes that the workers of the endpoint have.
    fn own(&self) -> anyhow::Result<u64> {
        let plan = self.client.memory()?;
        let own = plan.endpoints.iter().filter(|it| it.endpoint == self.endpoint);
        Ok(own.map(|it| it.held + it.held_gpu).sum())
    }
}

fn table(found: &Findings) -> String {
    let row = |step: &str, time: f64, memory: &str, result: &str| {
        [step.to_owned(), seconds(time), memory.to_owned(), result.to_owned()]
    };
    let taken = format!("+{}", size_in_words(found.memory));
    let back = format!("-{}", size_in_words(found.memory_back));
    let same = if found.same_answer { "the same answers" } else { "the answers differ" };
    let is_back =
        if found.is_memory_back { "its memory is back" } else { "its memory is not back" };
    let hibernation = found.hibernation.iter().flat_map(|it| {
        let back = format!("-{}", size_in_words(it.memory_back));
        [
            row("hibernate", it.hibernate, &back, ""),
            row(
                "request that wakes it",
                it.woken_answer,
                "",
                if it.same_answer { "the same answer" } else { "another answer" },
            ),
        ]
    });
    let mut rows = vec![
        ["STEP", "TIME", "MEMORY", "RESULT"].map(str::to_owned),
        row("load", found.load, &taken, ""),
        row("first answer", found.first_answer, "", ""),
        row("next answer", found.warm_answer, "", ""),
    ];
    rows.extend(hibernation);
    rows.push(row("unload", found.unload, &back, is_back));
    rows.push(row("request that loads it", found.cold_answer, "", same));
    format!("{}\n\n{}", found.endpoint, columns(&rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_says_what_was_found() {
        let found = Findings {
            endpoint: "/ocr".into(),
            load: 2.5,
            memory: 3_000_000_000,
            first_answer: 0.25,
            warm_answer: 0.1,
            hibernation: Some(HibernationFindings {
                hibernate: 1.5,
                memory_back: 2_900_000_000,
                woken_answer: 0.75,
                same_answer: true,
            }),
            unload: 0.05,
            memory_back: 3_000_000_000,
            cold_answer: 2.75,
            same_answer: false,
            is_memory_back: true,
        };
        let wanted = "\
/ocr

STEP                   TIME   MEMORY   RESULT
load                   2.5s   +3.0 GB
first answer           250ms
next answer            100ms
hibernate              1.5s   -2.9 GB
request that wakes it  750ms           the same answer
unload                 50ms   -3.0 GB  its memory is back
request that loads it  2.8s            the answers differ
";
        assert_eq!(table(&found), wanted);
    }
}
