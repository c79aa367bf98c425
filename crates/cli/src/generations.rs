//! `litplex generations`: the last generations of an endpoint.

use clap::Args;
use litplex_admin::{EndpointGenerations, GenerationStatus, Swap};

use crate::say::{say, say_json};
use crate::servers::ServerArgs;

#[derive(Args)]
pub(crate) struct Generations {
    /// Path or name of the endpoint, such as /embed
    endpoint: String,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) fn run(generations: &Generations) -> anyhow::Result<()> {
    let listed = generations.server.client()?.generations(&generations.endpoint)?;
    if generations.server.json {
        return say_json(&listed);
    }
    say(&text(&listed))
}

fn text(listed: &EndpointGenerations) -> String {
    let EndpointGenerations { endpoint, generations, earlier, next } = listed;
    let mut text = format!("{endpoint}\n");
    for GenerationStatus { generation, state, since, reason, answers, .. } in generations {
        let reason = reason.as_ref().map(|reason| format!("  {reason}")).unwrap_or_default();
        let answers = answers.map(|answers| format!("  {answers}")).unwrap_or_default();
        text += &format!("  {generation:<4} {:<9} since {since}{reason}{answers}\n", state.word());
    }
    if !earlier.is_empty() {
        let earlier: Vec<_> = earlier.iter().map(u64::to_string).collect();
        text += &format!("`litplex rollback` can return to: {}\n", earlier.join(", "));
    }
    let expected = next.seconds.map(|it| format!(", about {it:.0} s")).unwrap_or_default();
    let reason = next.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    text += &match next.swap {
        Swap::Overlap => format!("a reload starts workers beside these{expected}\n"),
        Swap::InPlace => format!("a reload stops these workers first{expected}{reason}\n"),
    };
    text
}

#[cfg(test)]
mod tests {
    use litplex_admin::{ComparedAnswers, GenerationState, NextSwap};

    use super::*;

    #[test]
    fn generations_are_listed_with_what_a_rollback_and_a_reload_would_do() {
        let status = |generation, state, reason: Option<&str>| GenerationStatus {
            generation,
            state,
            since: "T1".into(),
            share: None,
            reason: reason.map(str::to_owned),
            answers: None,
        };
        let shadow = GenerationStatus {
            answers: Some(ComparedAnswers { compared: 120, differed: 3 }),
            ..status(3, GenerationState::Shadow, Some("copies of 10 % of the requests"))
        };
        let listed = EndpointGenerations {
            endpoint: "/embed".into(),
            generations: vec![
                status(1, GenerationState::Live, None),
                status(2, GenerationState::Failed, Some("setup raised")),
                shadow,
            ],
            earlier: vec![],
            next: NextSwap {
                swap: Swap::InPlace,
                reason: Some("no room".into()),
                seconds: Some(12.3),
            },
        };
        assert_eq!(
            text(&listed),
            "/embed\n  1    live      since T1\n  2    failed    since T1  setup raised\n  \
             3    shadow    since T1  copies of 10 % of the requests  3 of 120 answers differ\n\
             a reload stops these workers first, about 12 s: no room\n"
        );
    }
}
