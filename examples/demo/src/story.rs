//! A stream that needs no weights: a short story about what the caller names, word by word.

use std::thread;
use std::time::Duration;

use litplex::{Chunks, LitStream};
use serde::{Deserialize, Serialize};

const PAUSE: Duration = Duration::from_millis(40);

const STORIES: [&str; 3] = [
    "Every evening {} waited by the harbour. The boats came home, one light after another, and \
     nobody asked why. Then one night a small boat stopped and someone called across the water: \
     there you are, we kept you a seat.",
    "The clockmaker owned a clock that showed only the past. One morning {} walked into the shop, \
     wound it the wrong way round, and laughed. From then on it ran five minutes ahead, and the \
     whole street was early for everything.",
    "High in the mountains stood a library without a roof. When it rained, {} carried the books \
     to the cellar, and when the sun came out, carried them up again. After a hundred summers \
     the books knew the way by themselves.",
];

pub(crate) struct Story;

#[derive(Deserialize)]
pub(crate) struct StoryRequest {
    about: String,
}

#[derive(Serialize)]
pub(crate) struct Word {
    word: String,
    number: usize,
    of: usize,
}

impl LitStream for Story {
    type Input = StoryRequest;
    type Output = Word;

    fn predict(&mut self, input: StoryRequest, chunks: &mut Chunks<Word>) -> litplex::Result<()> {
        let text = tell(&input.about);
        let words: Vec<_> = text.split_whitespace().collect();
        for (index, word) in words.iter().enumerate() {
            chunks.send(Word { word: (*word).to_owned(), number: index + 1, of: words.len() })?;
            thread::sleep(PAUSE);
        }
        Ok(())
    }
}

fn tell(about: &str) -> String {
    let letters: usize = about.bytes().map(usize::from).sum();
    STORIES[letters % STORIES.len()].replace("{}", about)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_is_in_the_story_and_chooses_it() {
        let opening = |about| tell(about).chars().take(5).collect::<String>();
        assert!(tell("a red fox").contains(" a red fox "));
        assert_ne!(opening("a"), opening("b"));
        assert_eq!(opening("a"), opening("a"));
    }
}
