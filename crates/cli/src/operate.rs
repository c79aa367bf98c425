//! `litplex pause`, `drain` and `resume`: change what an endpoint does with requests.

use clap::Args;
use litplex_admin::Mode;

use crate::say::{say, say_json};
use crate::servers::ServerArgs;

#[derive(Args)]
pub(crate) struct Operate {
    /// Path or name of the endpoint, such as /embed
    endpoint: String,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) fn run(mode: Mode, operate: &Operate) -> anyhow::Result<()> {
    let Operate { endpoint, server } = operate;
    let changed = server.client()?.set_mode(endpoint, mode)?;
    if server.json {
        return say_json(&changed);
    }
    say(&format!("{}\n", describe(&changed.endpoint, changed.mode)))
}

fn describe(endpoint: &str, mode: Mode) -> String {
    match mode {
        Mode::Serving => format!("{endpoint} serves"),
        Mode::Paused => format!(
            "{endpoint} is paused: requests wait in its queue, within their time; \
             `litplex resume {endpoint}` lets it serve again"
        ),
        Mode::Draining => format!(
            "{endpoint} is drained: new requests get 503, those in progress are answered; \
             `litplex resume {endpoint}` lets it serve again"
        ),
    }
}
