//! The nouns of litplex and the seams between its parts.
//!
//! Three traits are the seams, and implementations meet only here:
//!
//! - [`LitApi`] and [`LitStream`]: what the author of a Rust model implements;
//! - [`Worker`]: what the scheduler drives, one running copy of a model;
//! - [`Launch`]: what the supervisor drives, a way to start such a copy.
//!
//! The nouns travel between them: a [`Job`] carries its [`Request`], its deadline and its
//! [`Reply`], so nothing in litplex keeps a table of requests by id. This crate knows no socket,
//! process, HTTP or configuration.

mod api;
mod base64_fields;
mod budget;
mod call;
mod call_error;
mod code;
mod cost;
mod error;
mod identity;
mod job;
mod launch;
mod loopback;
mod mode;
mod priority;
mod proxy;
mod reply;
mod request;
mod response;
mod shadow;
mod size;
mod text;
mod trace;
mod worker;

pub use api::{Batch, Chunks, ClientLeft, Device, LitApi, LitStream};
pub use base64_fields::Base64Fields;
pub use budget::{MemoryBudget, Reservation};
pub use call::{
    Begun, CallEnd, CallId, Called, Calls, Hook, Hop, Invocation, ObserveCalls, ObservedCall,
    Origin, Parent, PartStream, Root, Waits, WorkerKey, draw,
};
pub use call_error::CallError;
pub use code::{LiveCode, LoadedFile, PatchRefusal, PatchStep, Patched, SourceText};
pub use cost::Cost;
pub use error::{BoxError, CallPath, ErrorCause, Outcome, Result, ServeError};
pub use identity::{FindError, Identity};
pub use job::{Job, trace_dispatch};
pub use launch::{
    BoxFuture, Cause, GpuMemory, Hibernated, Launch, LaunchError, Launched, Loading, Monitor,
    NoRoom, Pageable, Usage, WorkerExit,
};
pub use loopback::is_loopback;
pub use mode::Mode;
pub use priority::Priority;
pub use proxy::{EnvironmentProxy, proxy_for};
pub use reply::{
    Answer, Answers, Consumed, Part, Reply, SendError, StreamReceiver, StreamSender, reply,
};
pub use request::{Content, FormPart, Meta, Request};
pub use response::{ItemKind, Items, ItemsBuilder, MediaType, Response};
pub use shadow::{MOST_SHADOWS, ShadowRoom, Shadows};
pub use size::size_in_words;
pub use text::json_text;
pub use trace::{
    BatchTrace, Dispatch, JobTrace, Member, Place, SpanContext, Stages, Step, Trace,
    numbered_request,
};
pub use worker::{
    Attach, Attachment, DialectId, Done, ModelInfo, Pausing, Progress, Unanswered, Worker,
};
