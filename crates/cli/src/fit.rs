//! `litplex fit`: shows which models fit into memory together, and which one leaves for which.

use clap::Args;
use litplex_admin::{MemoryPlan, MemoryStatus, NextLoad, PlannedMemory};
use litplex_core::size_in_words;

use crate::say::{say, say_json};
use crate::servers::ServerArgs;
use crate::table::{columns, seconds};

#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Fit {
    #[command(flatten)]
    server: ServerArgs,
}

const AFTER_HELP: &str = "\
NEEDS is what a worker is expected to need: as measured at earlier starts, as declared (`memory`), or assumed.
LOADS IN is the time that it is expected to take. A REQUEST NOW finds the model in memory, or loads it: beside the
others, or in the place of those that are named. How the server decides: docs/memory.md.

Exit status: 1 when no server is running, or a model never fits.";

pub(crate) fn run(fit: &Fit) -> anyhow::Result<()> {
    let plan = fit.server.client()?.memory()?;
    if fit.server.json {
        say_json(&plan)?;
    } else {
        say(&table(&plan))?;
    }
    let never = plan.endpoints.iter().find(|it| it.next == NextLoad::Never);
    match never {
        Some(PlannedMemory { endpoint, reason: Some(reason), .. }) => {
            Err(anyhow::anyhow!("`{endpoint}`: {reason}"))
        }
        _ => Ok(()),
    }
}

/// Describes the memory for people: the budget, what stays, and a row for each endpoint.
fn table(plan: &MemoryPlan) -> String {
    let MemoryPlan { memory: MemoryStatus { held, budget, gpus, .. }, endpoints } = plan;
    let of =
        |held: u64, budget: u64| format!("{} of {}", size_in_words(held), size_in_words(budget));
    let gpus =
        gpus.iter().map(|gpu| format!(", {} of GPU {}", of(gpu.held, gpu.budget), gpu.index));
    let all: u64 = endpoints.iter().map(|it| it.needs).sum();
    let staying: u64 = endpoints.iter().filter(|it| it.stays).map(|it| it.needs.max(it.held)).sum();
    let heads = ["ENDPOINT", "NEEDS", "", "LOADS IN", "HAS", "STAYS", "A REQUEST NOW"];
    let rows: Vec<_> =
        [heads.map(str::to_owned)].into_iter().chain(endpoints.iter().map(row)).collect();
    format!(
        "memory: {}{}; one worker of each needs {}, those that stay {}\n\n{}",
        of(*held, *budget),
        String::from_iter(gpus),
        size_in_words(all),
        size_in_words(staying),
        columns(&rows)
    )
}

fn row(planned: &PlannedMemory) -> [String; 7] {
    let with_gpu = |host: u64, gpu: u64| match gpu {
        0 => size_in_words(host),
        gpu => format!("{} + {} of GPU", size_in_words(host), size_in_words(gpu)),
    };
    let has = match planned.held + planned.held_gpu {
        0 => String::new(),
        _ => with_gpu(planned.held, planned.held_gpu),
    };
    [
        planned.endpoint.clone(),
        with_gpu(planned.needs, planned.needs_gpu),
        if planned.is_measured { "measured" } else { "declared or assumed" }.into(),
        if planned.is_measured { seconds(planned.load_seconds) } else { String::new() },
        has,
        if planned.stays { "yes" } else { "" }.into(),
        match planned.next {
            NextLoad::InMemory => "is in memory".into(),
            NextLoad::Fits => "loads beside the others".into(),
            NextLoad::Evicts => format!("loads in the place of {}", planned.evicts.join(", ")),
            NextLoad::Waits => "waits until others have loaded or finished".into(),
            NextLoad::Never => "never fits".into(),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(endpoint: &str, next: NextLoad) -> PlannedMemory {
        PlannedMemory {
            endpoint: endpoint.into(),
            needs: 3_000_000_000,
            needs_gpu: 0,
            is_measured: true,
            load_seconds: 2.5,
            held: 0,
            held_gpu: 0,
            stays: false,
            next,
            evicts: Vec::new(),
            reason: None,
        }
    }

    #[test]
    fn a_table_says_what_a_request_for_each_model_leads_to() {
        let here = PlannedMemory {
            held: 3_100_000_000,
            stays: true,
            ..planned("/embed", NextLoad::InMemory)
        };
        let other =
            PlannedMemory { evicts: vec!["/chat".into()], ..planned("/ocr", NextLoad::Evicts) };
        let memory = MemoryStatus {
            held: 8_000_000_000,
            templates: 0,
            budget: 12_000_000_000,
            gpus: Vec::new(),
        };
        let wanted = "\
memory: 8.0 GB of 12.0 GB; one worker of each needs 6.0 GB, those that stay 3.1 GB

ENDPOINT  NEEDS             LOADS IN  HAS     STAYS  A REQUEST NOW
/embed    3.0 GB  measured  2.5s      3.1 GB  yes    is in memory
/ocr      3.0 GB  measured  2.5s                     loads in the place of /chat
";
        assert_eq!(table(&MemoryPlan { memory, endpoints: vec![here, other] }), wanted);
    }
}
