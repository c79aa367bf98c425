//! Compressed bodies of requests (`Content-Encoding`).

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use litplex_calls::turn;
use litplex_core::{Outcome, Reservation, ServeError};
use tokio::task::spawn_blocking;

use crate::buffers::Pieces;

/// The value of `Accept-Encoding` in the refusal of another coding.
pub const ACCEPTED: &str = "gzip, deflate, br, zstd";

/// The largest number of codings of a body. More are an attack or an error.
const MAX_CODINGS: usize = 3;

/// The number of bytes that are decompressed at once.
const STEP_BYTES: usize = 64 * 1024;

/// The largest window of Zstandard that a content coding may have (RFC 9659), as a power of two.
const ZSTD_WINDOW: u32 = 23;

/// The compression of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// `gzip` (RFC 1952).
    Gzip,
    /// `deflate` (RFC 1950 or 1951).
    Deflate,
    /// `br` (RFC 7932).
    Brotli,
    /// `zstd` (RFC 8878).
    Zstd,
}

impl Coding {
    /// Returns the largest memory that decompression takes.
    fn bytes(self) -> usize {
        match self {
            Self::Gzip | Self::Deflate => 64 * 1024,
            Self::Brotli => 17 << 20,
            Self::Zstd => (1 << ZSTD_WINDOW) + (1 << 20),
        }
    }

    fn reader<'a>(self, compressed: Source<'a>) -> io::Result<Source<'a>> {
        Ok(match self {
            Self::Gzip => buffered(MultiGzDecoder::new(compressed)),
            Self::Deflate => inflate(compressed)?,
            Self::Brotli => buffered(brotli::Decompressor::new(compressed, 4096)),
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(compressed)?;
                decoder.window_log_max(ZSTD_WINDOW)?;
                buffered(decoder)
            }
        })
    }
}

type Source<'a> = Box<dyn io::BufRead + Send + 'a>;

fn buffered<'a>(reader: impl Read + Send + 'a) -> Source<'a> {
    Box::new(io::BufReader::new(reader))
}

/// Returns a reader of `deflate`: zlib's format (RFC 9110, 8.4.1.2), or the raw format, which some
/// clients send.
fn inflate(mut compressed: Source<'_>) -> io::Result<Source<'_>> {
    let begins = compressed.fill_buf()?.first().copied().unwrap_or_default();
    // The method of compression, of which there is one, and the size of its window.
    let is_zlib = begins & 0x0f == 8 && begins >> 4 <= 7;
    Ok(if is_zlib {
        buffered(ZlibDecoder::new(compressed))
    } else {
        buffered(DeflateDecoder::new(compressed))
    })
}

/// Returns the codings of a body, the outermost last.
///
/// # Errors
/// 415: the body has another coding.
pub fn codings(headers: &HeaderMap) -> Outcome<Vec<Coding>> {
    let mut codings = Vec::new();
    for value in headers.get_all(CONTENT_ENCODING) {
        let named = value.to_str().map_err(|_| unsupported("it is not text"))?;
        for name in named.split(',').map(str::trim) {
            codings.push(match name.to_ascii_lowercase().as_str() {
                "" | "identity" => continue,
                "gzip" | "x-gzip" => Coding::Gzip,
                "deflate" => Coding::Deflate,
                "br" => Coding::Brotli,
                "zstd" => Coding::Zstd,
                other => return Err(unsupported(&format!("`{other}` is not supported"))),
            });
        }
    }
    if codings.len() > MAX_CODINGS {
        return Err(unsupported(&format!("it names more than {MAX_CODINGS} codings")));
    }
    Ok(codings)
}

fn unsupported(why: &str) -> ServeError {
    let detail = format!("invalid Content-Encoding: {why}; send one of {ACCEPTED}, or none");
    ServeError::unsupported_type(detail)
}

/// Decompresses a body of at most so many bytes off the HTTP threads. The memory that it takes is
/// reserved when it is written.
pub async fn decompress(
    pieces: Vec<Bytes>,
    codings: Vec<Coding>,
    max_bytes: usize,
    reservation: &Reservation,
) -> Outcome<Vec<Bytes>> {
    if codings.is_empty() || pieces.is_empty() {
        return Ok(pieces);
    }
    let own = reservation.clone();
    let turn = turn().await;
    let decompressed = spawn_blocking(move || {
        let decompressed = decompress_now(pieces, &codings, max_bytes, &own);
        drop(turn);
        decompressed
    });
    let decompressed = decompressed.await;
    decompressed.unwrap_or_else(|_| Err(ServeError::internal()))
}

fn decompress_now(
    pieces: Vec<Bytes>,
    codings: &[Coding],
    max_bytes: usize,
    reservation: &Reservation,
) -> Outcome<Vec<Bytes>> {
    let compressed = pieces.iter().map(Bytes::len).sum::<usize>();
    let tools = STEP_BYTES + codings.iter().map(|coding| coding.bytes()).sum::<usize>();
    reservation.grow(tools)?;
    let mut reader: Source<'_> = Box::new(Compressed(pieces.into()));
    for coding in codings.iter().rev() {
        reader = coding.reader(reader).map_err(|error| malformed(&error))?;
    }
    let (mut step, mut decompressed) = (vec![0; STEP_BYTES], Pieces::new(reservation.clone()));
    loop {
        let read = reader.read(&mut step).map_err(|error| malformed(&error))?;
        if read == 0 {
            break;
        }
        if decompressed.length() + read > max_bytes {
            let detail = format!("the body is larger than {max_bytes} bytes when it is unpacked");
            return Err(ServeError::too_large(detail));
        }
        decompressed.copy(&step[..read])?;
    }
    drop(reader);
    reservation.shrink(tools + compressed);
    Ok(decompressed.finish())
}

fn malformed(error: &io::Error) -> ServeError {
    ServeError::malformed(format!("the body is not what its Content-Encoding says: {error}"))
}

/// Pieces that are dropped when they are read.
struct Compressed(std::collections::VecDeque<Bytes>);

impl Read for Compressed {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = io::BufRead::fill_buf(self)?.read(out)?;
        io::BufRead::consume(self, read);
        Ok(read)
    }
}

impl io::BufRead for Compressed {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.0.front().is_some_and(Bytes::is_empty) {
            self.0.pop_front();
        }
        Ok(self.0.front().map(|piece| &piece[..]).unwrap_or_default())
    }

    fn consume(&mut self, read: usize) {
        if let Some(piece) = self.0.front_mut() {
            piece.advance(read);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use http::HeaderValue;
    use litplex_core::MemoryBudget;

    use super::*;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn brotli(data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        brotli::CompressorWriter::new(&mut out, 4096, 3, 22).write_all(data).unwrap();
        out
    }

    fn zlib(data: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn raw(data: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(data: &[u8]) -> Vec<u8> {
        zstd::bulk::compress(data, 1).unwrap()
    }

    fn named(names: &[&'static str]) -> Outcome<Vec<Coding>> {
        let mut headers = HeaderMap::new();
        for name in names {
            headers.append(CONTENT_ENCODING, HeaderValue::from_static(name));
        }
        codings(&headers)
    }

    async fn decompressed(compressed: &[u8], names: &[&'static str]) -> Outcome<Vec<u8>> {
        let pieces = compressed.chunks(11).map(Bytes::copy_from_slice).collect();
        let decompressed = decompress(pieces, named(names)?, 1000, &Reservation::default()).await?;
        Ok(decompressed.concat())
    }

    #[tokio::test]
    async fn each_coding_is_unpacked_and_several_are() {
        let data: Vec<u8> = (0..=255).cycle().take(1000).collect();
        for (compressed, names) in [
            (gzip(&data), &["gzip"][..]),
            (gzip(&data), &["X-Gzip"]),
            ([gzip(&data[..10]), gzip(&data[10..])].concat(), &["gzip"]),
            (zlib(&data), &["deflate"]),
            (raw(&data), &["deflate"]),
            (brotli(&data), &["br"]),
            (zstd(&data), &["zstd"]),
            (gzip(&brotli(&data)), &["br, gzip"]),
            (zstd(&gzip(&data)), &["gzip", "identity, zstd"]),
            (data.clone(), &["identity"]),
        ] {
            assert_eq!(decompressed(&compressed, names).await.unwrap(), data, "{names:?}");
        }
        assert!(decompressed(b"", &["gzip"]).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_body_that_cannot_be_unpacked_is_an_error_of_the_client() {
        let status = |result: Outcome<Vec<u8>>| result.unwrap_err().status();
        for name in ["gzip", "deflate", "br", "zstd"] {
            assert_eq!(
                status(decompressed(b"\x28nothing of the kind", &[name]).await),
                400,
                "{name}"
            );
        }
        let mut cut = gzip(&[7; 900]);
        cut.truncate(cut.len() - 9);
        assert_eq!(status(decompressed(&cut, &["gzip"]).await), 400);
        assert_eq!(status(decompressed(&gzip(&[0; 1001]), &["gzip"]).await), 413);
        assert_eq!(named(&["compress"]).unwrap_err().status(), 415);
        assert_eq!(named(&["gzip, gzip", "br, br"]).unwrap_err().status(), 415);
    }

    #[test]
    fn a_bomb_costs_no_more_than_its_budget() {
        let budget = MemoryBudget::new(1 << 20);
        let reservation = budget.reserve();
        let bomb = vec![gzip(&vec![0; 4 << 20]).into()];
        let error = decompress_now(bomb, &[Coding::Gzip], 64 << 20, &reservation).unwrap_err();
        assert_eq!(error.status(), 503);
        drop(reservation);
        assert_eq!(budget.taken(), 0);
    }
}
