//! The admin interface of a running server: a Unix socket, its protocol and its client.
//!
//! A running server has a [`RunDir`], a directory that only its user can enter. In it, the server
//! listens on an [`AdminSocket`], whose requests an [`Admin`] handles. [`running`] finds the servers of
//! this user; a [`Client`] sends requests to one of them.
//!
//! # The protocol
//!
//! A connection carries one request and one response, each a line of JSON:
//!
//! ```text
//! {"ps":{}}                                      {"status":{"pid":4711,"url":…,"endpoints":[…]}}
//! {"scale":{"endpoint":"/embed","workers":4}}    {"scaled":{"endpoint":"/embed","before":1,"wanted":4}}
//! a refused or invalid request                   {"error":"…"}
//! ```
//!
//! [`Status`] and [`Scaled`] are the contents of the responses.

mod client;
mod message;
mod run_dir;
mod socket;
mod status;

pub use client::{AskError, Client, running};
pub use message::Scaled;
pub use run_dir::{RunDir, RunDirError};
pub use socket::{Admin, AdminSocket};
pub use status::{EndpointStatus, Status, WorkerStatus};
