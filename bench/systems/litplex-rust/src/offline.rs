//! W6 without any server, as `common/offline_w6.py` measures it: texts a second by batch size.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::embed::Encoder;

const LENGTH: Duration = Duration::from_secs(4);

pub fn measure(model: &str, sentences: &str) -> Result<(), Box<dyn Error>> {
    let texts: Vec<String> = serde_json::from_slice(&fs::read(sentences)?)?;
    let mut by_length = texts.clone();
    by_length.sort_by_key(String::len);
    let encoder = Encoder::load(Path::new(model)).map_err(|error| error.to_string())?;
    encoder.encode(texts[..16].to_vec()).map_err(|error| error.to_string())?;
    for size in [1, 4, 8, 16] {
        let rate = rate(&encoder, &texts, size)?;
        println!("{}", json!({"batch": size, "texts_s": rate}));
    }
    let rate = rate(&encoder, &by_length, 16)?;
    println!("{}", json!({"batch": 16, "sorted_by_length": true, "texts_s": rate}));
    Ok(())
}

fn rate(encoder: &Encoder, texts: &[String], size: usize) -> Result<f64, Box<dyn Error>> {
    let (begun, mut count) = (Instant::now(), 0);
    for batch in texts.chunks(size).cycle() {
        encoder.encode(batch.to_vec()).map_err(|error| error.to_string())?;
        count += batch.len();
        if begun.elapsed() > LENGTH {
            break;
        }
    }
    Ok((count as f64 / begun.elapsed().as_secs_f64() * 10.0).round() / 10.0)
}
