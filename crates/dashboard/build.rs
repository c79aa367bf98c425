//! Compresses the files of the dashboard as they are sent, and writes the list of them.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use flate2::write::GzEncoder;
use flate2::{Compression, Crc};

/// The line of the page in whose place the names of all modules are, so that the browser loads them side by
/// side and not one after another.
const PRELOADS: &str = "<!-- modules -->\n";

/// The page, and its form for a listener that has other pages, too.
const PAGE: &str = "index.html";
const SHARED_PAGE: &str = "shared.html";

fn main() -> Result<(), Box<dyn Error>> {
    let web = Path::new(&std::env::var("CARGO_MANIFEST_DIR")?).join("web");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    println!("cargo::rerun-if-changed={}", web.display());
    let mut names = Vec::new();
    find(&web, &web, &mut names)?;
    names.sort();
    names.push(SHARED_PAGE.to_owned());
    let mut list = format!("static FILES: [File; {}] = [\n", names.len());
    for (index, name) in names.iter().enumerate() {
        let is_shared = name == SHARED_PAGE;
        let source = if is_shared { PAGE } else { name };
        let mut content = fs::read_to_string(web.join(source))?;
        if source == PAGE {
            content = content.replace(PRELOADS, &preloads(&names)?);
        }
        if is_shared {
            content = content.replacen("<html ", "<html data-shared ", 1);
        }
        let file = out.join(format!("{index}.gz"));
        let mut packed = GzEncoder::new(fs::File::create(&file)?, Compression::best());
        packed.write_all(content.as_bytes())?;
        packed.finish()?;
        let mut checksum = Crc::new();
        checksum.update(content.as_bytes());
        let (sum, length) = (checksum.sum(), content.len());
        writeln!(
            list,
            "File {{ name: {name:?}, tag: \"\\\"{sum:08x}-{length:x}\\\"\", \
             asset: Asset::new(include_bytes!({file:?})) }},"
        )?;
    }
    list.push_str("];");
    fs::write(out.join("files.rs"), list)?;
    Ok(())
}

/// Adds the names of all files below a directory.
fn find(root: &Path, directory: &Path, names: &mut Vec<String>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            find(root, &path, names)?;
        } else {
            let name = path.strip_prefix(root)?.to_str().ok_or("a name is not UTF-8")?;
            names.push(name.to_owned());
        }
    }
    Ok(())
}

fn preloads(names: &[String]) -> Result<String, std::fmt::Error> {
    let mut links = String::new();
    for name in names.iter().filter(|name| name.ends_with(".js")) {
        writeln!(links, "<link rel=\"modulepreload\" href=\"dashboard/{name}\">")?;
    }
    Ok(links)
}
