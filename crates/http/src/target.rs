//! The target of a request: the reason for its admission. It is decided once, at the gate, and
//! holds wherever the request goes from there.

use std::fmt;
use std::str::FromStr;

/// The target of a request, which decides the key or token that it must carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// The endpoint with this index.
    Endpoint(usize),
    /// A path that several endpoints share, the first of which has this index. The model that the body
    /// names decides the endpoint.
    SharedPath(usize),
    /// A public route.
    Open,
    /// A route about the state of the server, if it bypasses the app host.
    Probe,
    /// The dashboard and its API. The admin API admits their requests.
    Operators,
    /// The list of models, for callers of a model and callers with a key or token of the server.
    Models,
    /// Every other built-in route, and the program's own routes.
    Rest,
}

impl Target {
    /// Returns whether a request that was admitted to this target may reach `other`.
    pub(crate) fn covers(self, other: Self) -> bool {
        self == other
            || (self == Self::Rest && matches!(other, Self::Open | Self::Probe | Self::Models))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint(index) => write!(f, "endpoint-{index}"),
            Self::SharedPath(index) => write!(f, "shared-{index}"),
            Self::Open => f.write_str("open"),
            Self::Probe => f.write_str("probe"),
            Self::Operators => f.write_str("operators"),
            Self::Models => f.write_str("models"),
            Self::Rest => f.write_str("rest"),
        }
    }
}

/// The text names no target.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoTarget;

impl FromStr for Target {
    type Err = NoTarget;

    fn from_str(text: &str) -> Result<Self, NoTarget> {
        match text {
            "open" => Ok(Self::Open),
            "probe" => Ok(Self::Probe),
            "operators" => Ok(Self::Operators),
            "models" => Ok(Self::Models),
            "rest" => Ok(Self::Rest),
            _ => {
                let index = |kind| text.strip_prefix(kind)?.parse().ok();
                let endpoint = index("endpoint-").map(Self::Endpoint);
                let target = endpoint.or_else(|| index("shared-").map(Self::SharedPath));
                // A target has one spelling: `endpoint-+1` and `endpoint-01` are none.
                target.filter(|it| it.to_string() == text).ok_or(NoTarget)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_read_as_it_is_written() {
        let endpoints = [Target::Endpoint(0), Target::Endpoint(17), Target::SharedPath(3)];
        let others = [Target::Open, Target::Probe, Target::Operators, Target::Models, Target::Rest];
        for target in endpoints.into_iter().chain(others) {
            assert_eq!(target.to_string().parse(), Ok(target));
        }
        for wrong in [
            "",
            "endpoint",
            "endpoint-",
            "endpoint--1",
            "endpoint-+1",
            "endpoint-01",
            "shared-+1",
            "endpoint-99999999999999999999",
            "Rest",
            "/secret",
        ] {
            assert_eq!(wrong.parse::<Target>(), Err(NoTarget), "{wrong}");
        }
    }

    #[test]
    fn an_admission_covers_nothing_that_asks_for_more() {
        use Target::{Endpoint, Models, Open, Operators, Probe, Rest, SharedPath};
        for (admitted, covered) in [
            (Endpoint(1), vec![Endpoint(1)]),
            (SharedPath(1), vec![SharedPath(1)]),
            (Open, vec![Open]),
            (Probe, vec![Probe]),
            (Operators, vec![Operators]),
            (Models, vec![Models]),
            (Rest, vec![Rest, Open, Probe, Models]),
        ] {
            for asked in [
                Endpoint(1),
                Endpoint(2),
                SharedPath(1),
                SharedPath(2),
                Open,
                Probe,
                Operators,
                Models,
                Rest,
            ] {
                assert_eq!(admitted.covers(asked), covered.contains(&asked), "{admitted} {asked}");
            }
        }
    }
}
