use anyhow::bail;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Args;
use litplex::digest;

/// By what people and scanners of secrets know such a key.
const PREFIX: &str = "lmx_";

#[derive(Args)]
pub(crate) struct Key {
    /// Who will hold it: a word
    name: String,
}

/// Prints a new key, which is kept nowhere, and what a server must know of it.
pub(crate) fn run(Key { name }: &Key) -> anyhow::Result<()> {
    if name.is_empty() || name.contains(char::is_whitespace) || name.starts_with('#') {
        bail!("the name must be one word, not {name:?}");
    }
    let mut random = [0; 32];
    getrandom::fill(&mut random)?;
    let key = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
    let hex: String = digest(&key).iter().map(|byte| format!("{byte:02x}")).collect();
    println!("{key}\n{name} sha256:{hex}");
    eprintln!("The first line is for {name} and is not kept; the second is for `api_keys_file`.");
    Ok(())
}
