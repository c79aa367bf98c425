use std::fmt;

/// What a request costs in a batch, beside others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cost {
    /// The length of a field of the JSON body, each name reaching into the object before it.
    Length(Vec<String>),
    /// The words of a field of the JSON body.
    Words(Vec<String>),
    /// The number in a field of the JSON body.
    Value(Vec<String>),
    /// The size of the body.
    Bytes,
}

impl Cost {
    /// Reads `FIELD:length`, `FIELD:words`, `FIELD:value` or `body:bytes`.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "body:bytes" {
            return Some(Self::Bytes);
        }
        let (field, measure) = text.rsplit_once(':')?;
        let names: Vec<_> = field.split('.').map(str::to_owned).collect();
        if names.iter().any(String::is_empty) {
            return None;
        }
        match measure {
            "length" => Some(Self::Length(names)),
            "words" => Some(Self::Words(names)),
            "value" => Some(Self::Value(names)),
            _ => None,
        }
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(names) => write!(f, "{}:length", names.join(".")),
            Self::Words(names) => write!(f, "{}:words", names.join(".")),
            Self::Value(names) => write!(f, "{}:value", names.join(".")),
            Self::Bytes => f.write_str("body:bytes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_is_read_as_it_is_written() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let costs = [
            ("text:length", Cost::Length(names(&["text"]))),
            ("input.text:words", Cost::Words(names(&["input", "text"]))),
            ("body:value", Cost::Value(names(&["body"]))),
            ("body:bytes", Cost::Bytes),
        ];
        for (text, cost) in costs {
            assert_eq!(Cost::parse(text).as_ref(), Some(&cost));
            assert_eq!(cost.to_string(), text);
        }
    }

    #[test]
    fn what_measures_nothing_is_no_cost() {
        for text in ["", "text", "text:", ":length", "a..b:length", "text:bytes", "text:Length"] {
            assert_eq!(Cost::parse(text), None, "{text:?}");
        }
    }
}
