//! Looking at running servers and changing them, through a socket of their own.
//!
//! A server keeps a [`RunDir`], a directory that only its user can enter, for as long as it lives.
//! There it listens on an [`AdminSocket`] and lets an [`Admin`] answer. [`running`] finds the
//! servers of this user, and a [`Client`] asks one of them.
//!
//! # The protocol
//!
//! A connection carries one request and one answer, each a line of JSON:
//!
//! ```text
//! {"ps":{}}                                      {"status":{"pid":4711,"url":…,"endpoints":[…]}}
//! {"scale":{"endpoint":"/embed","workers":4}}    {"scaled":{"endpoint":"/embed","before":1,"wanted":4}}
//! what is refused or unreadable                  {"error":"…"}
//! ```
//!
//! [`Status`] and [`Scaled`] are what the answers hold.

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
