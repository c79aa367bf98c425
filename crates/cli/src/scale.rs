//! `litplex scale`.

use clap::Args;
use litplex_admin::Scaled;

use crate::say::say;
use crate::servers;

#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Scale {
    /// Path of the endpoint, such as /embed
    endpoint: String,
    /// Workers that it is to have, over all devices
    #[arg(value_parser = clap::value_parser!(u16).range(0..=1024))]
    workers: u16,
    /// The server that listens on this port [default: the one that is running]
    #[arg(long)]
    port: Option<u16>,
}

const AFTER_HELP: &str = "\
Examples:
  litplex scale /embed 4              four workers; requests go on being answered
  litplex scale /ocr 1 --port 9000    of one server among several";

pub(crate) fn run(scale: &Scale) -> anyhow::Result<()> {
    let server = servers::only(scale.port)?;
    let scaled = server.client.scale(&scale.endpoint, scale.workers.into())?;
    say(&format!("{}\n", describe(&scaled)))
}

fn describe(scaled: &Scaled) -> String {
    let Scaled { endpoint, before, wanted } = scaled;
    let workers = if *wanted == 1 { "worker" } else { "workers" };
    format!("{endpoint} is to have {wanted} {workers}, and had {before}; `litplex ps` shows them")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_is_said() {
        let scaled = Scaled { endpoint: "/embed".into(), before: 4, wanted: 1 };
        let says = "/embed is to have 1 worker, and had 4; `litplex ps` shows them";
        assert_eq!(describe(&scaled), says);
    }
}
