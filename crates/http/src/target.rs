//! What a request was let in for. It is decided once, at the edge, and holds wherever the request
//! goes from there.

use std::fmt;
use std::str::FromStr;

/// What a request is for, which decides what it must bring to be let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// The endpoint with this index.
    Endpoint(usize),
    /// What everybody may ask for.
    Open,
    /// What says how the server does, where it does not go by way of the app host.
    Probe,
    /// The list of models, for who may call one of them or has what the rest asks for.
    Models,
    /// What else the server answers, and routes of the program's own.
    Rest,
}

impl Target {
    /// Returns whether a request that was let in for this may have an answer of `other`.
    pub(crate) fn covers(self, other: Self) -> bool {
        self == other
            || (self == Self::Rest && matches!(other, Self::Open | Self::Probe | Self::Models))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint(index) => write!(f, "endpoint-{index}"),
            Self::Open => f.write_str("open"),
            Self::Probe => f.write_str("probe"),
            Self::Models => f.write_str("models"),
            Self::Rest => f.write_str("rest"),
        }
    }
}

/// A text that is none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoTarget;

impl FromStr for Target {
    type Err = NoTarget;

    fn from_str(text: &str) -> Result<Self, NoTarget> {
        match text {
            "open" => Ok(Self::Open),
            "probe" => Ok(Self::Probe),
            "models" => Ok(Self::Models),
            "rest" => Ok(Self::Rest),
            _ => {
                let index = text.strip_prefix("endpoint-").and_then(|index| index.parse().ok());
                index.map(Self::Endpoint).ok_or(NoTarget)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let endpoints = [Target::Endpoint(0), Target::Endpoint(17)];
        let others = [Target::Open, Target::Probe, Target::Models, Target::Rest];
        for target in endpoints.into_iter().chain(others) {
            assert_eq!(target.to_string().parse(), Ok(target));
        }
        for wrong in ["", "endpoint", "endpoint-", "endpoint--1", "Rest", "/secret"] {
            assert_eq!(wrong.parse::<Target>(), Err(NoTarget), "{wrong}");
        }
    }

    #[test]
    fn an_admission_covers_nothing_that_asks_for_more() {
        use Target::{Endpoint, Models, Open, Probe, Rest};
        for (admitted, covered) in [
            (Endpoint(1), vec![Endpoint(1)]),
            (Open, vec![Open]),
            (Probe, vec![Probe]),
            (Models, vec![Models]),
            (Rest, vec![Rest, Open, Probe, Models]),
        ] {
            for asked in [Endpoint(1), Endpoint(2), Open, Probe, Models, Rest] {
                assert_eq!(admitted.covers(asked), covered.contains(&asked), "{admitted} {asked}");
            }
        }
    }
}
