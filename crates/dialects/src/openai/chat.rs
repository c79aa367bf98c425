//! Chat completions: a job for each choice, and the completion as a whole.

use std::future::poll_fn;

use futures_util::future::try_join_all;
use http::StatusCode;
use litplex_calls::{ItemStream, Output};
use litplex_core::{Items, Outcome, Part, Request};
use litplex_http_core::raw_json::Object;
use litplex_http_core::response::{self, HttpResponse};
use litplex_http_core::stream::Chunks;
use serde::Serialize;
use serde_json::value::RawValue;

use super::chat_request::ChatRequest;
use super::chat_stream::ChatStream;
use super::error::Refused;
use super::ids::{now, unique_id};
use super::message::{Message, not_a_message};
use super::text::{read, text_of};
use super::usage::Usage;
use crate::dialect::Exchange;

/// Responds to a chat request: each choice is a job of its own.
pub(super) async fn respond(exchange: Exchange<'_>) -> Result<HttpResponse, Refused> {
    let body = text_of(&exchange).await?;
    let wanted = read(body.clone(), ChatRequest::parse).await?;
    let request = Request { body: vec![body], ..exchange.request.clone() };
    let cost = exchange.call.cost(&request).await?;
    let request = exchange.call.decoded(request).await?;
    let callers = (0..wanted.choices).map(|_| exchange.call.submit(request.clone(), cost).output());
    let begun = try_join_all(callers).await?;
    let choices = begun.into_iter().map(|output| match output {
        Output::Stream(first, rest) => Ok((first, rest)),
        Output::Whole(response) if response.status >= 400 => Err(Refused::given(response).0),
        Output::Whole(_) => {
            Err(not_a_message("an answer that is not a stream", &exchange.name).into())
        }
    });
    let choices = choices.collect::<Result<Vec<_>, Refused>>()?;
    let head = Head::new(&wanted);
    let (held, name) = (&exchange.request.reservation, &exchange.name);
    if exchange.stream.unwrap_or(wanted.stream) {
        let (first, chunks) = ChatStream::begin(head, wanted.include_usage, choices, held, name)?;
        return Ok(response::stream(
            first,
            Chunks::Dialect(Box::new(chunks)),
            "text/event-stream",
            exchange.ping_interval,
        ));
    }
    let collected = choices
        .into_iter()
        .map(|(first, rest)| collect(first, rest, Message::new(held.another(), name.clone())));
    let collected = try_join_all(collected).await?;
    Ok(response::json(StatusCode::OK, &Completion::of(&head, &collected)))
}

/// The fields that all parts of a response share.
#[derive(Debug)]
pub(super) struct Head {
    id: String,
    created: u64,
    model: String,
    pub(super) max_tokens: Option<u64>,
}

/// The fields at the start of each part.
#[derive(Serialize)]
pub(super) struct HeadOf<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
}

impl Head {
    fn new(wanted: &ChatRequest) -> Self {
        Self {
            id: unique_id("chatcmpl"),
            created: now(),
            model: wanted.model.clone(),
            max_tokens: wanted.max_tokens,
        }
    }

    pub(super) fn of(&self, object: &'static str) -> HeadOf<'_> {
        HeadOf { id: &self.id, object, created: self.created, model: &self.model }
    }
}

#[derive(Serialize)]
struct Completion<'a> {
    #[serde(flatten)]
    head: HeadOf<'a>,
    choices: Vec<Choice>,
    usage: Usage,
}

#[derive(Serialize)]
struct Choice {
    index: usize,
    message: Object,
    logprobs: Option<Object>,
    finish_reason: Box<RawValue>,
}

impl<'a> Completion<'a> {
    fn of(head: &'a Head, messages: &[Message]) -> Self {
        let mut usage = Usage::default();
        messages.iter().filter_map(|message| message.usage).for_each(|used| usage.add(used));
        let choices = messages.iter().enumerate().map(|(index, message)| Choice {
            index,
            message: message.whole(),
            logprobs: message.logprobs(),
            finish_reason: message.finish_reason(head.max_tokens),
        });
        Self { head: head.of("chat.completion"), choices: choices.collect(), usage }
    }
}

/// Collects the items of a choice until it ends.
async fn collect(first: Items, mut rest: ItemStream, mut message: Message) -> Outcome<Message> {
    let mut items = first;
    loop {
        for item in items.iter() {
            message.take(item)?;
        }
        items = match poll_fn(|cx| rest.poll(cx)).await {
            Part::Items(items) => items,
            Part::End => {
                message.end();
                return Ok(message);
            }
            Part::Failed(error) => return Err(error),
        };
    }
}
