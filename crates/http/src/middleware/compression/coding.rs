//! Content codings: negotiation, and encoders.

use std::io::Write;

use brotli::CompressorWriter;
use bytes::Bytes;
use flate2::write::GzEncoder;
use http::HeaderMap;
use http::header::ACCEPT_ENCODING;
use zstd::stream::write::Encoder as ZstdEncoder;

const BROTLI_QUALITY: u32 = 4;
const ZSTD_LEVEL: i32 = 1;

/// The window of a stream's encoder in bytes, as a power of two. Each open stream takes it.
const STREAM_WINDOW: u32 = 17;
const WHOLE_WINDOW: u32 = 20;

const BUFFER_BYTES: usize = 4096;

/// A content coding of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// `zstd` (RFC 8878).
    Zstd,
    /// `br` (RFC 7932).
    Brotli,
    /// `gzip` (RFC 1952).
    Gzip,
}

impl Coding {
    /// Returns the coding with this name in HTTP.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Zstd, Self::Brotli, Self::Gzip].into_iter().find(|coding| coding.name() == name)
    }

    /// Returns whether a client that sent these headers accepts it.
    pub(crate) fn is_accepted(self, headers: &HeaderMap) -> bool {
        choose(&[self], headers).is_some()
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }

    /// Returns the approximate memory of an encoder: its window and its tables.
    pub(super) fn bytes(self, is_stream: bool) -> usize {
        match (self, is_stream) {
            (Self::Gzip, _) => 384 << 10,
            (_, true) => 3 << 19,
            (_, false) => 4 << 20,
        }
    }

    /// Compresses a whole body.
    pub(super) fn compress(self, body: &[u8]) -> Bytes {
        let mut encoder = Encoder::new(self, Some(body.len()));
        encoder.write(body);
        encoder.finish()
    }
}

/// Returns the coding that the client prefers, and the first of several that it accepts equally.
pub(super) fn choose(offered: &[Coding], headers: &HeaderMap) -> Option<Coding> {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let weights: Vec<_> = values.flat_map(|value| value.split(',')).map(weighed).collect();
    let weight = |name: &str| {
        let is_named = |(given, _): &&(&str, f32)| given.eq_ignore_ascii_case(name);
        weights.iter().find(is_named).map(|(_, weight)| *weight)
    };
    let any = weight("*").unwrap_or(0.0);
    let (mut best, mut most) = (None, 0.0);
    for coding in offered {
        let weight = match coding {
            Coding::Gzip => weight("gzip").or_else(|| weight("x-gzip")),
            other => weight(other.name()),
        };
        let weight = weight.unwrap_or(any);
        if weight > most {
            (best, most) = (Some(*coding), weight);
        }
    }
    best.filter(|_| weight("identity").is_none_or(|plain| plain <= most))
}

/// Parses `br;q=0.5`.
fn weighed(coding: &str) -> (&str, f32) {
    let mut parts = coding.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
    (name, weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0)))
}

/// An encoder that compresses a body piece by piece.
pub(super) enum Encoder {
    Gzip(GzEncoder<Vec<u8>>),
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    Zstd(ZstdEncoder<'static, Vec<u8>>),
}

impl Encoder {
    /// Returns an encoder for a body of this many bytes, or for a stream.
    pub(super) fn new(coding: Coding, length: Option<usize>) -> Self {
        let out = Vec::with_capacity(length.unwrap_or_default() / 4);
        let window = if length.is_some() { WHOLE_WINDOW } else { STREAM_WINDOW };
        match coding {
            Coding::Gzip => Self::Gzip(GzEncoder::new(out, flate2::Compression::fast())),
            Coding::Brotli => Self::Brotli(Box::new(CompressorWriter::new(
                out,
                BUFFER_BYTES,
                BROTLI_QUALITY,
                window,
            ))),
            Coding::Zstd => Self::Zstd(zstd_encoder(out, length, window).expect(FAULT)),
        }
    }

    /// Compresses a piece, so that the client can decode all of it at once.
    pub(super) fn compress(&mut self, piece: &[u8]) -> Bytes {
        self.write(piece);
        self.flush()
    }

    fn write(&mut self, data: &[u8]) {
        let written = match self {
            Self::Gzip(encoder) => encoder.write_all(data),
            Self::Brotli(encoder) => encoder.write_all(data),
            Self::Zstd(encoder) => encoder.write_all(data),
        };
        written.expect(FAULT);
    }

    fn flush(&mut self) -> Bytes {
        let flushed = match self {
            Self::Gzip(encoder) => encoder.flush(),
            Self::Brotli(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        };
        flushed.expect(FAULT);
        let out = match self {
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Brotli(encoder) => encoder.get_mut(),
            Self::Zstd(encoder) => encoder.get_mut(),
        };
        std::mem::take(out).into()
    }

    pub(super) fn finish(self) -> Bytes {
        let finished = match self {
            Self::Gzip(encoder) => encoder.finish(),
            Self::Brotli(encoder) => Ok(encoder.into_inner()),
            Self::Zstd(encoder) => encoder.finish(),
        };
        finished.expect(FAULT).into()
    }
}

const FAULT: &str = "a Vec takes whatever is written. This is a bug.";

fn zstd_encoder(
    out: Vec<u8>,
    length: Option<usize>,
    window: u32,
) -> std::io::Result<ZstdEncoder<'static, Vec<u8>>> {
    let mut encoder = ZstdEncoder::new(out, ZSTD_LEVEL)?;
    encoder.window_log(window)?;
    // Its tables are then as small as possible.
    encoder.set_pledged_src_size(length.map(|length| length as u64))?;
    Ok(encoder)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use http::header::HeaderValue;

    use super::*;

    const ALL: [Coding; 3] = [Coding::Zstd, Coding::Brotli, Coding::Gzip];

    fn decompress(coding: Coding, compressed: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        // A flushed stream has no end; everything before it counts.
        let _ = match coding {
            Coding::Gzip => flate2::read::GzDecoder::new(compressed).read_to_end(&mut out),
            Coding::Brotli => brotli::Decompressor::new(compressed, 4096).read_to_end(&mut out),
            Coding::Zstd => zstd::stream::read::Decoder::new(compressed)
                .and_then(|mut d| d.read_to_end(&mut out)),
        };
        out
    }

    #[test]
    fn clients_say_what_they_like() {
        let cases = [
            ("gzip", Some(Coding::Gzip)),
            ("x-gzip", Some(Coding::Gzip)),
            ("gzip, deflate, br, zstd", Some(Coding::Zstd)),
            ("gzip, br", Some(Coding::Brotli)),
            ("GZIP;q=1.0, br; q=0.5", Some(Coding::Gzip)),
            ("*", Some(Coding::Zstd)),
            ("zstd;q=0, *;q=0.3", Some(Coding::Brotli)),
            ("identity;q=1, gzip;q=0.5", None),
            ("identity;q=0.5, gzip;q=0.5", Some(Coding::Gzip)),
            ("gzip;q=0", None),
            ("gzip;q=much", None),
            ("deflate", None),
            ("", None),
        ];
        for (accepted, wanted) in cases {
            let accepted = HeaderValue::from_static(accepted);
            let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, accepted.clone())]);
            assert_eq!(choose(&ALL, &headers), wanted, "{accepted:?}");
        }
        assert_eq!(choose(&ALL, &HeaderMap::new()), None);
        let zstd = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("zstd"))]);
        assert_eq!(choose(&[Coding::Gzip], &zstd), None);
    }

    #[test]
    fn a_compressed_body_is_smaller_and_decodes_to_the_same() {
        let body = b"a model's answer, ".repeat(1000);
        for coding in ALL {
            let compressed = coding.compress(&body);
            assert!(compressed.len() < body.len() / 10, "{coding:?}: {}", compressed.len());
            assert!(decompress(coding, &compressed) == body, "{coding:?}");
        }
    }

    #[test]
    fn each_flushed_piece_can_be_decoded() {
        for coding in ALL {
            let mut encoder = Encoder::new(coding, None);
            let (mut written, mut compressed) = (Vec::new(), Vec::new());
            for token in ["one", " two", " three"] {
                written.extend_from_slice(token.as_bytes());
                compressed.extend_from_slice(&encoder.compress(token.as_bytes()));
                assert_eq!(decompress(coding, &compressed), written, "{coding:?}");
            }
            compressed.extend_from_slice(&encoder.finish());
            assert_eq!(decompress(coding, &compressed), written, "{coding:?}");
        }
    }
}
