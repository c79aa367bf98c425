//! `litplex scale`: sets the number of an endpoint's workers, or gives it back to the load.

use clap::Args;
use litplex_admin::{Scaled, WorkerCount};

use crate::say::{say, say_json};
use crate::servers::ServerArgs;

#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Scale {
    /// Path or name of the endpoint, such as /embed
    endpoint: String,
    /// Workers that it is to have, over all devices; 0: none until a request comes; cold: as 0, and none hibernates;
    /// auto: as configured
    #[arg(value_parser = number_of_workers, allow_negative_numbers = true)]
    workers: WorkerCount,
    #[command(flatten)]
    server: ServerArgs,
}

fn number_of_workers(text: &str) -> Result<WorkerCount, &'static str> {
    let number = || text.parse().ok().filter(|number| *number <= 1024).map(WorkerCount::Number);
    WorkerCount::named(text)
        .or_else(number)
        .ok_or("expected a number from 0 to 1024, cold, or auto")
}

const AFTER_HELP: &str = "\
Examples:
  litplex scale /embed 4              four workers; requests go on being answered
  litplex scale /embed auto           as configured: the load changes it between min_workers and max_workers
  litplex scale /ocr 0                no workers until a request comes; `litplex drain` refuses requests
  litplex scale /ocr cold             as 0, and what hibernates ends, which frees swap
  litplex scale /ocr 1 --port 9000    of one server among several";

pub(crate) fn run(scale: &Scale) -> anyhow::Result<()> {
    let scaled = scale.server.client()?.scale(&scale.endpoint, scale.workers)?;
    if scale.server.json {
        return say_json(&scaled);
    }
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
    fn workers_are_a_number_within_bounds() {
        assert_eq!(number_of_workers("0"), Ok(WorkerCount::Number(0)));
        assert_eq!(number_of_workers("1024"), Ok(WorkerCount::Number(1024)));
        assert_eq!(number_of_workers("auto"), Ok(WorkerCount::Auto));
        assert_eq!(number_of_workers("cold"), Ok(WorkerCount::Cold));
        for wrong in ["1025", "-1", "99999", "two", "1.5", ""] {
            assert!(number_of_workers(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_changes_is_said() {
        let scaled = Scaled { endpoint: "/embed".into(), before: 4, wanted: 1 };
        let says = "/embed is to have 1 worker, and had 4; `litplex ps` shows them";
        assert_eq!(describe(&scaled), says);
    }
}
