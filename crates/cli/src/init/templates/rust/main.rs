//! Serves the model of this project until Ctrl-C or SIGTERM.

use std::env;

fn main() -> litplex::Result<()> {
    // The default is this machine only; HOST=0.0.0.0 lets other machines in.
    let host = env::var("HOST").unwrap_or_else(|_| "127.0.0.1".into());
    let port = env::var("PORT").unwrap_or_else(|_| "8000".into()).parse()?;
    words::server().host(&host).port(port).run()?;
    Ok(())
}
