//! Marks in the output of a worker: they name the requests of the text after them.
//!
//! A mark is U+001E, the secret of the launch, ids with a space between, and U+001F. Clients do not
//! know the secret, so that no text of theirs is taken for a mark.

const BEGIN: u8 = 0x1e;
const END: u8 = 0x1f;

/// The longest list of ids in a mark, in bytes.
const IDS_BYTES: usize = 16 * 1024;

/// The marks of one launch.
#[derive(Debug, Clone)]
pub(crate) struct Marks(Vec<u8>);

/// A mark in a text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mark<'a> {
    pub(crate) before: &'a [u8],
    pub(crate) ids: &'a str,
    pub(crate) after: &'a [u8],
}

impl Marks {
    pub(crate) fn new(secret: &str) -> Self {
        Self([&[BEGIN], secret.as_bytes()].concat())
    }

    /// Returns the first mark.
    pub(crate) fn find<'a>(&self, text: &'a [u8]) -> Option<Mark<'a>> {
        let begins = text.iter().enumerate().filter(|(_, byte)| **byte == BEGIN);
        begins.into_iter().find_map(|(at, _)| {
            let (ids, after) = self.read(&text[at..])?;
            Some(Mark { before: &text[..at], ids, after })
        })
    }

    /// Returns the ids of the mark at the beginning of the text, and the rest.
    fn read<'a>(&self, text: &'a [u8]) -> Option<(&'a str, &'a [u8])> {
        let rest = text.strip_prefix(&self.0[..])?;
        let end = rest.iter().take(IDS_BYTES + 1).position(|byte| *byte == END)?;
        let ids = std::str::from_utf8(&rest[..end]).ok()?;
        (!ids.is_empty() && ids.bytes().all(is_sound)).then_some((ids, &rest[end + 1..]))
    }

    /// Returns the position of an unfinished mark at the end of the text.
    pub(crate) fn unfinished(&self, text: &[u8]) -> Option<usize> {
        let at = text.iter().rposition(|byte| *byte == BEGIN)?;
        let tail = &text[at..];
        let is_one = match tail.strip_prefix(&self.0[..]) {
            Some(ids) => ids.len() <= IDS_BYTES && ids.iter().all(|byte| is_sound(*byte)),
            None => self.0.starts_with(tail),
        };
        is_one.then_some(at)
    }
}

fn is_sound(byte: u8) -> bool {
    byte.is_ascii_graphic() || byte == b' '
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_and_what_only_looks_like_one_is_text() {
        let marks = Marks::new("s3");
        let found = marks.find(b"a\x1eb\x1es3one two\x1fc").unwrap();
        assert_eq!(found, Mark { before: b"a\x1eb", ids: "one two", after: b"c" });
        let long = format!("\x1es3{}\x1f", "x".repeat(IDS_BYTES + 1));
        for text in ["", "\x1es4one\x1f", "\x1es3\x1f", "\x1es3o\nne\x1f", "\x1es3one", &long] {
            assert_eq!(marks.find(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn a_mark_that_is_cut_is_known() {
        let marks = Marks::new("s3");
        for text in ["a\x1e", "a\x1es", "a\x1es3", "a\x1es3one tw"] {
            assert_eq!(marks.unfinished(text.as_bytes()), Some(1), "{text:?}");
        }
        for text in ["a", "a\x1ex", "a\x1es3one\x1f", "a\x1es3one\x1fb"] {
            assert_eq!(marks.unfinished(text.as_bytes()), None, "{text:?}");
        }
    }
}
