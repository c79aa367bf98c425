//! `litplex key`: creates a key for a caller.

use std::io::{self, Write};

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Args;
use litplex::digest;

use crate::say::say;

/// The prefix by which people and secret scanners recognise a key.
const PREFIX: &str = "lpx_";

#[derive(Args)]
pub(crate) struct Key {
    /// Name of the caller: one word
    name: String,
}

/// Prints a new key on standard error and its line for the key file on standard output; the key
/// itself is not stored.
pub(crate) fn run(Key { name }: &Key) -> anyhow::Result<()> {
    if name.is_empty() || name.contains(char::is_whitespace) || name.starts_with('#') {
        bail!("the name must be one word, not {name:?}");
    }
    let mut random = [0; 32];
    getrandom::fill(&mut random)?;
    let key = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
    let hex: String = digest(&key).iter().map(|byte| format!("{byte:02x}")).collect();
    // The key must not go to standard output: `litplex key ann >> keys` would store it.
    writeln!(
        io::stderr(),
        "The key, which is for {name} and kept nowhere, and its line for `api_keys_file`:\n{key}"
    )
    .context("cannot show the key on standard error")?;
    say(&format!("{name} sha256:{hex}\n"))
}
