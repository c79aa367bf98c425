//! The size of a request, from which the time of a batch is learned where requests have no cost.

use bytes::Bytes;
use litplex_core::{Content, FormPart, Request};

/// The bytes at the start of an image that have its width and height, if any do. A photo may have a preview
/// before them.
const HEAD: usize = 64 * 1024;

/// The most pixels of an image. A header can name any number, and no model computes more.
const MAX_PIXELS: usize = 1 << 28;

/// Returns the size of a request, at least 1: the number of pixels of images, as far as their headers show it,
/// and the number of bytes of all else.
pub(crate) fn size(request: &Request) -> f64 {
    let size = match &request.content {
        Content::Raw(media) if is_image(Some(media)) => {
            pixels(request, 0, HEAD).unwrap_or(request.body_len())
        }
        Content::Form(parts) => size_of_form(request, parts),
        Content::Json | Content::Raw(_) | Content::Packed(_) => request.body_len(),
    };
    size.max(1) as f64
}

fn size_of_form(request: &Request, parts: &[FormPart]) -> usize {
    let (mut start, mut size) = (0, 0);
    for part in parts {
        let is_image = is_image(part.content_type.as_ref());
        let pixels = is_image.then(|| pixels(request, start, part.length.min(HEAD))).flatten();
        size += pixels.unwrap_or(part.length);
        start += part.length;
    }
    size
}

fn is_image(media: Option<&String>) -> bool {
    media.is_some_and(|media| media.starts_with("image/"))
}

/// Returns the number of pixels of the image that starts at this place of the body, from this many bytes.
fn pixels(request: &Request, start: usize, length: usize) -> Option<usize> {
    let mut skip = start;
    let piece = request.body.iter().find(|piece| {
        let is_here = skip < piece.len();
        skip -= if is_here { 0 } else { piece.len() };
        is_here
    });
    let head = piece.map(|piece: &Bytes| &piece[skip..piece.len().min(skip + length)])?;
    let size = imagesize::blob_size(head).ok()?;
    Some(size.width.saturating_mul(size.height).min(MAX_PIXELS))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The header of a PNG of 300 x 200 pixels.
    const PNG: &[u8] =
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x01\x2c\x00\x00\x00\xc8\x08\x02\x00\x00\x00";

    fn request(content: Content, body: &[&'static [u8]]) -> Request {
        let body = body.iter().map(|piece| Bytes::from_static(piece)).collect();
        Request { content, body, ..Request::json("") }
    }

    fn part(content_type: Option<&str>, length: usize) -> FormPart {
        FormPart {
            name: "file".into(),
            filename: None,
            content_type: content_type.map(Into::into),
            length,
        }
    }

    #[test]
    fn an_image_counts_its_pixels_and_all_else_its_bytes() {
        let raw = |media: &str, body| size(&request(Content::Raw(media.into()), &[body]));
        assert_eq!(raw("image/png", PNG), 60_000.0);
        assert_eq!(raw("image/png", b"cut off"), 7.0);
        assert_eq!(raw("application/octet-stream", PNG), PNG.len() as f64);
        assert_eq!(size(&request(Content::Json, &[b"[1,", b"2]"])), 5.0);
        assert_eq!(size(&request(Content::Json, &[])), 1.0);
    }

    #[test]
    fn a_forged_header_has_a_limit_and_ends_with_its_part() {
        let mut forged = PNG.to_vec();
        forged[16..24].fill(0xff);
        let forged: &'static [u8] = Vec::leak(forged);
        let raw = request(Content::Raw("image/png".into()), &[forged]);
        assert_eq!(size(&raw), MAX_PIXELS as f64);
        let parts = vec![part(Some("image/png"), 8), part(None, PNG.len() - 8)];
        assert_eq!(size(&request(Content::Form(parts), &[PNG])), PNG.len() as f64);
    }

    #[test]
    fn the_parts_of_a_form_add_up() {
        let parts = vec![part(None, 4), part(Some("image/png"), PNG.len()), part(None, 2)];
        let request = request(Content::Form(parts), &[b"text", PNG, b"ok"]);
        assert_eq!(size(&request), 60_006.0);
    }
}
