//! The text of an answer as it grows, up to the first text that stops it.

/// The text that is not sent yet: what may become a character, or one of the stops.
pub(crate) struct Text {
    stops: Vec<String>,
    held: Vec<u8>,
}

impl Text {
    /// Empty stops are left out.
    pub(crate) fn new(mut stops: Vec<String>) -> Self {
        stops.retain(|stop| !stop.is_empty());
        Self { stops, held: Vec::new() }
    }

    /// Adds the bytes of a token. Returns the text that is certain, and whether a stop was reached,
    /// which is no part of the text.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> (String, bool) {
        self.held.extend_from_slice(bytes);
        let stops = self.stops.iter().map(String::as_bytes);
        if let Some(at) = stops.clone().filter_map(|stop| find(&self.held, stop)).min() {
            self.held.truncate(at);
            return (self.rest(), true);
        }
        let begun = stops.map(|stop| begun(&self.held, stop)).max().unwrap_or(0);
        let ready = whole_characters(&self.held[..self.held.len() - begun]);
        let held = self.held.split_off(ready);
        (lossy(std::mem::replace(&mut self.held, held)), false)
    }

    /// Returns what is held at the end of the answer.
    pub(crate) fn rest(&mut self) -> String {
        lossy(std::mem::take(&mut self.held))
    }
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|part| part == wanted)
}

/// Returns how many bytes at the end of `text` may become the stop.
fn begun(text: &[u8], stop: &[u8]) -> usize {
    let longest = text.len().min(stop.len() - 1);
    (1..=longest).rev().find(|&count| text.ends_with(&stop[..count])).unwrap_or(0)
}

/// Returns the length of `text` without a character at its end that is not complete.
fn whole_characters(text: &[u8]) -> usize {
    match std::str::from_utf8(text) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => text.len(),
    }
}

fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the pieces up to the stop, and the rest if there was none.
    fn told(stops: &[&str], tokens: &[&[u8]]) -> (Vec<String>, Option<String>) {
        let mut text = Text::new(stops.iter().map(|stop| (*stop).to_owned()).collect());
        let mut pieces = Vec::new();
        for token in tokens {
            let (piece, is_stopped) = text.push(token);
            pieces.push(piece);
            if is_stopped {
                return (pieces, None);
            }
        }
        (pieces, Some(text.rest()))
    }

    #[test]
    fn a_character_of_several_tokens_is_sent_whole() {
        let (pieces, rest) = told(&[], &[b"a\xe2", b"\x82", b"\xac!"]);
        assert_eq!(pieces, ["a", "", "€!"]);
        assert_eq!(rest.as_deref(), Some(""));
        assert_eq!(told(&[], &[b"a\xff", b"b\xe2"]).0, ["a\u{fffd}", "b"]);
        assert_eq!(told(&[], &[b"\xe2"]).1.as_deref(), Some("\u{fffd}"));
    }

    #[test]
    fn a_stop_ends_the_text_wherever_tokens_end() {
        assert_eq!(
            told(&["END"], &[b"a E", b"N", b"D b"]),
            (vec!["a ".into(), "".into(), "".into()], None)
        );
        assert_eq!(told(&["b", "a"], &[b"cab"]), (vec!["c".into()], None));
        assert_eq!(told(&["", "x"], &[b"ab"]), (vec!["ab".into()], Some("".into())));
    }

    #[test]
    fn what_does_not_become_a_stop_is_sent() {
        let (pieces, rest) = told(&["ENDE", "\n\n"], &[b"a EN", b"Ds\n", b"b", b"\n"]);
        assert_eq!(pieces, ["a ", "ENDs", "\nb", ""]);
        assert_eq!(rest.as_deref(), Some("\n"));
    }
}
