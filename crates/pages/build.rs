//! Extracts the files that the page at `/docs` needs from the release of Swagger UI, and compresses
//! them as they are sent.

use std::error::Error;
use std::fs::File;
use std::io::{Cursor, copy};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;
use zip::ZipArchive;

const WANTED: [&str; 3] = ["swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let out = std::env::var("OUT_DIR")?;
    let mut release = ZipArchive::new(Cursor::new(SWAGGER_UI_VENDORED))?;
    for index in 0..release.len() {
        let mut file = release.by_index(index)?;
        let path = file.enclosed_name().unwrap_or_default();
        // The files are in a directory that is named after the version.
        let Some(name) = WANTED.iter().find(|name| path.ends_with(Path::new("dist").join(name)))
        else {
            continue;
        };
        let packed = File::create(Path::new(&out).join(format!("{name}.gz")))?;
        let mut packed = GzEncoder::new(packed, Compression::best());
        copy(&mut file, &mut packed)?;
        packed.finish()?;
    }
    Ok(())
}
