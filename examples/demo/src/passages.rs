//! Passages of pages: the lines of a page as passages, and the passages that are nearest to a question.

use litplex::{Batch, LitApi, Outcome, ServeError};
use serde::{Deserialize, Serialize};

/// The most rows of a passage.
const MAX_ROWS: usize = 6;
/// The most passages of the index.
const MAX_PASSAGES: usize = 10_000;

/// A line of text as the OCR finds it.
#[derive(Deserialize)]
pub(crate) struct Line {
    text: String,
    /// The corners, clockwise from the top left.
    #[serde(rename = "box")]
    corners: [[f32; 2]; 4],
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) struct Passage {
    pub(crate) text: String,
    page: String,
    /// Left, top, right and bottom in the picture of the page.
    #[serde(rename = "box")]
    bounds: [f32; 4],
}

/// The endpoint that cuts a page into passages.
pub(crate) struct Chunker;

#[derive(Deserialize)]
pub(crate) struct Page {
    page: String,
    lines: Vec<Line>,
}

#[derive(Serialize)]
pub(crate) struct Chunks {
    passages: Vec<Passage>,
}

impl LitApi for Chunker {
    type Input = Page;
    type Output = Chunks;

    fn predict(&mut self, pages: Batch<Page>) -> litplex::Result<Vec<Outcome<Chunks>>> {
        let chunks = |page: Page| Ok(Chunks { passages: passages(&page.page, page.lines) });
        Ok(pages.into_iter().map(chunks).collect())
    }
}

/// The endpoint that keeps passages with their vectors, in memory.
#[derive(Default)]
pub(crate) struct Index {
    entries: Vec<(Passage, Vec<f32>)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum IndexRequest {
    /// Replaces the passages of the pages that these are from.
    Add { passages: Vec<Passage>, vectors: Vec<Vector> },
    /// Finds the passages that are nearest to a vector.
    Near { embedding: Vec<f32>, count: usize },
}

/// A response of `/embed`.
#[derive(Deserialize)]
pub(crate) struct Vector {
    embedding: Vec<f32>,
}

#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum IndexResponse {
    Added { added: usize, passages: usize },
    Near { passages: Vec<Scored> },
}

#[derive(Serialize)]
pub(crate) struct Scored {
    /// The cosine of the angle between the passage and the question.
    score: f32,
    #[serde(flatten)]
    passage: Passage,
}

impl LitApi for Index {
    type Input = IndexRequest;
    type Output = IndexResponse;

    fn predict(
        &mut self,
        requests: Batch<IndexRequest>,
    ) -> litplex::Result<Vec<Outcome<IndexResponse>>> {
        let answer = |request| match request {
            IndexRequest::Add { passages, vectors } => self.add(passages, vectors),
            IndexRequest::Near { embedding, count } => {
                Ok(IndexResponse::Near { passages: self.near(&embedding, count) })
            }
        };
        Ok(requests.into_iter().map(answer).collect())
    }
}

impl Index {
    fn add(&mut self, passages: Vec<Passage>, vectors: Vec<Vector>) -> Outcome<IndexResponse> {
        let added = passages.len();
        if vectors.len() != added {
            let message =
                format!("{added} passages have {} vectors; send one for each", vectors.len());
            return Err(ServeError::new(422, message));
        }
        let is_other = |known: &Passage| passages.iter().all(|new| new.page != known.page);
        let others = self.entries.iter().filter(|(known, _)| is_other(known)).count();
        if others + added > MAX_PASSAGES {
            let message = format!("the index is full: it keeps at most {MAX_PASSAGES} passages");
            return Err(ServeError::new(422, message));
        }
        self.entries.retain(|(known, _)| is_other(known));
        let vectors = vectors.into_iter().map(|vector| vector.embedding);
        self.entries.extend(passages.into_iter().zip(vectors));
        Ok(IndexResponse::Added { added, passages: self.entries.len() })
    }

    /// Returns the nearest passages, the nearest first. Vectors have the length 1.
    fn near(&self, wanted: &[f32], count: usize) -> Vec<Scored> {
        let dot = |vector: &[f32]| wanted.iter().zip(vector).map(|(a, b)| a * b).sum();
        let scored = self.entries.iter().map(|(passage, vector)| (dot(vector), passage));
        let mut scored: Vec<(f32, _)> = scored.collect();
        scored.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        let nearest = scored.into_iter().take(count);
        nearest.map(|(score, passage)| Scored { score, passage: passage.clone() }).collect()
    }
}

/// Cuts a page into passages: rows that follow each other closely.
fn passages(page: &str, lines: Vec<Line>) -> Vec<Passage> {
    let rows = rows(lines);
    let begins = |above: &Row, row: &Row| row.top - above.bottom > row.height();
    let together = rows.chunk_by(|above, row| !begins(above, row));
    together.flat_map(|rows| rows.chunks(MAX_ROWS)).map(|rows| passage(page, rows)).collect()
}

fn passage(page: &str, rows: &[Row]) -> Passage {
    let lines = || rows.iter().flat_map(|row| &row.lines);
    let texts = rows
        .iter()
        .map(|row| row.lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>().join(" "));
    Passage {
        text: texts.collect::<Vec<_>>().join("\n"),
        page: page.to_owned(),
        bounds: [
            lines().map(|line| line.least(0)).fold(f32::MAX, f32::min),
            lines().map(|line| line.least(1)).fold(f32::MAX, f32::min),
            lines().map(|line| line.most(0)).fold(f32::MIN, f32::max),
            lines().map(|line| line.most(1)).fold(f32::MIN, f32::max),
        ],
    }
}

/// The lines beside each other, from the left. Its place is measured along the slope of the page.
struct Row {
    lines: Vec<Line>,
    top: f32,
    bottom: f32,
}

impl Row {
    fn height(&self) -> f32 {
        self.bottom - self.top
    }
}

/// Returns the rows of a page from top to bottom, also of a page that was photographed at an angle.
fn rows(mut lines: Vec<Line>) -> Vec<Row> {
    let slope = slope(&lines);
    let edges = |line: &Line| {
        let level = |[x, y]: [f32; 2]| y - slope * x;
        let [top_left, _, _, bottom_left] = line.corners;
        (level(top_left), level(bottom_left))
    };
    lines.sort_by(|a, b| edges(a).0.total_cmp(&edges(b).0));
    let mut rows: Vec<Row> = Vec::new();
    for line in lines {
        let (top, bottom) = edges(&line);
        match rows.last_mut() {
            Some(row) if (top + bottom) / 2.0 < row.bottom => row.lines.push(line),
            _ => rows.push(Row { lines: vec![line], top, bottom }),
        }
    }
    for row in &mut rows {
        row.lines.sort_by(|a, b| a.least(0).total_cmp(&b.least(0)));
    }
    rows
}

/// Returns how far the lines fall to the right: that of the widest, which shows it best.
fn slope(lines: &[Line]) -> f32 {
    let width = |line: &&Line| line.corners[1][0] - line.corners[0][0];
    let widest = lines.iter().max_by(|a, b| width(a).total_cmp(&width(b)));
    widest.map_or(0.0, |line| {
        let [[left, top], [right, slanted], ..] = line.corners;
        (slanted - top) / (right - left).max(1.0)
    })
}

impl Line {
    fn least(&self, axis: usize) -> f32 {
        self.corners.iter().map(|corner| corner[axis]).fold(f32::MAX, f32::min)
    }

    fn most(&self, axis: usize) -> f32 {
        self.corners.iter().map(|corner| corner[axis]).fold(f32::MIN, f32::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line of this height and width on a page that falls to the right.
    fn line(text: &str, x: f32, y: f32, slope: f32) -> Line {
        let at = |dx: f32, dy: f32| [x + dx, y + dy + slope * (x + dx)];
        let corners = [at(0., 0.), at(200., 0.), at(200., 20.), at(0., 20.)];
        Line { text: text.into(), corners }
    }

    fn texts(slope: f32) -> Vec<String> {
        let line = |text, x, y| line(text, x, y, slope);
        let lines = vec![
            line("840.00", 600., 112.),
            line("Oak desk", 10., 110.),
            line("Lamp", 10., 135.),
            line("156.00", 600., 134.),
            line("TOTAL", 10., 220.),
            line("INVOICE", 10., 10.),
            line("996.00", 600., 221.),
        ];
        passages("page", lines).into_iter().map(|passage| passage.text).collect()
    }

    #[test]
    fn rows_that_are_close_are_a_passage() {
        let expected = ["INVOICE", "Oak desk 840.00\nLamp 156.00", "TOTAL 996.00"];
        assert_eq!(texts(0.0), expected);
        assert_eq!(texts(0.08), expected, "tilted, by more than the distance of two rows");
        assert!(passages("empty", Vec::new()).is_empty());
    }

    #[test]
    fn a_passage_has_its_place_and_an_end() {
        let rows: Vec<_> =
            (0..8_u8).map(|row| line("row", 10., f32::from(row) * 25., 0.)).collect();
        let found = passages("p.png", rows);
        assert_eq!(found[0].bounds, [10., 0., 210., 145.]);
        assert_eq!(found[1].bounds, [10., 150., 210., 195.]);
        assert_eq!((found.len(), found[0].page.as_str()), (2, "p.png"));
    }

    fn add(index: &mut Index, page: &str, vectors: &[[f32; 2]]) -> Outcome<IndexResponse> {
        let passage = |text: String| Passage { text, page: page.into(), bounds: [0.; 4] };
        let passages =
            (0..vectors.len()).map(|number| passage(format!("{page} {number}"))).collect();
        let vector = |vector: &[f32; 2]| Vector { embedding: vector.to_vec() };
        index.add(passages, vectors.iter().map(vector).collect())
    }

    fn near(index: &Index, vector: [f32; 2]) -> Vec<String> {
        index.near(&vector, 2).into_iter().map(|scored| scored.passage.text).collect()
    }

    #[test]
    fn the_nearest_passages_come_first() {
        let mut index = Index::default();
        add(&mut index, "a", &[[1., 0.], [0., 1.]]).expect("it fits");
        add(&mut index, "b", &[[0.8, 0.6]]).expect("it fits");
        assert_eq!(near(&index, [1., 0.]), ["a 0", "b 0"]);
        assert_eq!(near(&index, [0., 1.]), ["a 1", "b 0"]);
    }

    #[test]
    fn a_page_that_comes_again_replaces_its_passages() {
        let mut index = Index::default();
        add(&mut index, "a", &[[1., 0.], [0., 1.]]).expect("it fits");
        add(&mut index, "a", &[[0., 1.]]).expect("it fits");
        assert_eq!(near(&index, [1., 0.]), ["a 0"]);
    }

    #[test]
    fn the_index_refuses_what_does_not_fit() {
        let mut index = Index::default();
        let passage = Passage { text: "a".into(), page: "a".into(), bounds: [0.; 4] };
        assert_eq!(
            index.add(vec![passage], Vec::new()).err().map(|error| error.status()),
            Some(422)
        );
        let many = vec![[1., 0.]; MAX_PASSAGES];
        add(&mut index, "many", &many).expect("it fits");
        assert_eq!(
            add(&mut index, "one", &[[1., 0.]]).err().map(|error| error.status()),
            Some(422)
        );
        assert_eq!(index.entries.len(), MAX_PASSAGES);
    }
}
