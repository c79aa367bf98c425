//! Warm-up: requests to a new generation before it is live, so that no client waits for what a model does once.

use std::future::poll_fn;
use std::sync::Arc;

use litplex_calls::{Call, DialectCalls, Output, Target, TimeBudget};
use litplex_core::{Called, DialectId, Meta, ModelInfo, Outcome, Part, PartStream, Request};
use litplex_http::Dialects;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::controls::EndpointControls;
use crate::telemetry::Telemetry;

/// The most warm-up requests at the same time.
const AT_ONCE: usize = 512;

/// The error of an endpoint that asks for a warm-up and has no example of a request.
const NO_EXAMPLE: &str = "`warmup` needs an example of a request; declare one, such as the attribute \
                          `request_example` of a `LitAPI`";

/// Sends `rounds` requests to each worker of a generation whose workers are ready; with batching, so many full
/// batches. `None`: one, if there is an example of a request. The requests go through its queue and are in no
/// metrics of clients.
///
/// # Errors
/// The reason why the model did not answer one of them.
pub(crate) async fn warm_up(
    controls: &EndpointControls,
    target: Target,
    rounds: Option<usize>,
    budget: TimeBudget,
) -> Result<(), String> {
    // Counters of its own: the requests are no client's.
    let target = Arc::new(Target { metrics: Telemetry::new().metrics.edge(None), ..target });
    let (Some(info), true) = (target.model_info(), rounds != Some(0)) else { return Ok(()) };
    let body = match (example(controls, info), rounds) {
        (Some(example), _) => example.to_string(),
        (None, None) => return Ok(()),
        (None, Some(_)) => return Err(NO_EXAMPLE.into()),
    };
    let workers = controls.view.wanted().max(1);
    let most = target.max_queue().unwrap_or(AT_ONCE).clamp(1, AT_ONCE);
    let at_once = workers.saturating_mul(info.max_batch_size).min(most);
    for _ in 0..rounds.unwrap_or(1) {
        let mut requests = JoinSet::new();
        for _ in 0..at_once {
            requests.spawn(answer(target.clone(), body.clone(), budget));
        }
        while let Some(answered) = requests.join_next().await {
            let answered = answered.unwrap_or_else(|error| Err(error.to_string()));
            answered.map_err(|reason| format!("a warm-up request failed: {reason}"))?;
        }
    }
    Ok(())
}

/// Returns the example of the program, else that of the model, else one that its dialect has.
fn example(controls: &EndpointControls, info: &ModelInfo) -> Option<Value> {
    let known = controls.spec.schema.over(&info.schema);
    let declared = known.get("request_example").filter(|example| !example.is_null());
    let name = &controls.identity.name;
    declared.cloned().or_else(|| match info.dialect.as_ref().map(DialectId::as_str) {
        Some("openai_chat") => {
            Some(json!({"model": name, "messages": [{"role": "user", "content": "Hello"}]}))
        }
        Some("openai_embeddings") => Some(json!({"model": name, "input": "Hello"})),
        _ => None,
    })
}

/// Sends one request and reads its response to the end.
async fn answer(target: Arc<Target>, body: String, budget: TimeBudget) -> Result<(), String> {
    let Some(info) = target.model_info() else { return Ok(()) };
    let mut request = Request::json(body);
    request.meta = info.context.then(|| Arc::new(meta(&target.identity.path)));
    let call = Call {
        target: target.clone(),
        budget,
        trace: None,
        origin: None,
        takes_items: false,
        is_split: false,
    };
    let answered = budget.bound(async {
        if info.dialect.is_some() {
            return Dialects.call(call, request, Some(false)).await;
        }
        Ok(match call.run(request).await? {
            Output::Whole(response) => Called::Whole(response),
            Output::Stream(first, rest) => Called::Stream(first, Box::new(rest)),
        })
    });
    let read = async {
        match answered.await? {
            Called::Whole(response) => Ok(response.status),
            Called::Stream(_, rest) => read(rest).await.map(|()| 200),
        }
    };
    match read.await {
        Ok(status @ 500..) => Err(format!("it was answered with status {status}")),
        Err(error) if error.status() >= 500 => Err(error.detail),
        // The model has looked at it: examples in documents are not always valid.
        Ok(_) | Err(_) => Ok(()),
    }
}

async fn read(mut rest: Box<dyn PartStream>) -> Outcome<()> {
    loop {
        match poll_fn(|cx| rest.poll_part(cx)).await {
            Part::Items(_) => {}
            Part::End => return Ok(()),
            Part::Failed(error) => return Err(error),
        }
    }
}

fn meta(path: &str) -> Meta {
    Meta {
        method: "POST".into(),
        path: path.into(),
        query: String::new(),
        headers: vec![("content-type".into(), "application/json".into())],
    }
}
