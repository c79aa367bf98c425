//! Files of requirements in a normal form, which is the same for equal requirements: without comments
//! and empty lines, with one spelling of names, in one order.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Options that name another file of requirements.
const REQUIREMENTS: [&str; 2] = ["--requirement", "-r"];

/// Options that name a file of limits on versions.
const CONSTRAINTS: [&str; 2] = ["--constraint", "-c"];

/// A file of requirements that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", .file.display())]
pub(super) struct RequirementsError {
    file: PathBuf,
    source: io::Error,
}

/// The requirements in a file and in those that it includes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Requirements {
    /// Options of the installer, in their order.
    options: Vec<String>,
    packages: Vec<String>,
    constraints: Vec<String>,
    read: Vec<(PathBuf, Kind)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Requirements,
    Constraints,
}

impl Requirements {
    /// Reads a file and those that it includes.
    ///
    /// # Errors
    /// One of them cannot be read; the error names it.
    pub(super) fn read(file: &Path) -> Result<Self, RequirementsError> {
        let mut requirements = Self::default();
        requirements.add_file(file, Kind::Requirements)?;
        for list in [&mut requirements.packages, &mut requirements.constraints] {
            list.sort();
            list.dedup();
        }
        Ok(requirements)
    }

    /// Returns the normal form as a text.
    pub(super) fn text(&self) -> String {
        [&self.options, &self.packages, &self.constraints].map(|list| list.join("\n")).join("\n\n")
    }

    /// Returns whether some package is named by a path relative to the file.
    pub(super) fn names_a_path(&self) -> bool {
        self.options.iter().chain(&self.packages).any(|line| {
            let is_path = line.contains('/') && !line.contains("://");
            is_path || line == "." || line.starts_with("-e ") || line.starts_with("--editable ")
        })
    }

    fn add_file(&mut self, path: &Path, kind: Kind) -> Result<(), RequirementsError> {
        let entry = (path.to_owned(), kind);
        if self.read.contains(&entry) {
            return Ok(());
        }
        self.read.push(entry);
        let text = fs::read_to_string(path)
            .map_err(|source| RequirementsError { file: path.to_owned(), source })?;
        let directory = path.parent().unwrap_or(Path::new("/"));
        whole_lines(&text).iter().try_for_each(|line| self.add_line(line, directory, kind))
    }

    fn add_line(
        &mut self,
        line: &str,
        directory: &Path,
        kind: Kind,
    ) -> Result<(), RequirementsError> {
        if let Some(name) = included(line, &REQUIREMENTS) {
            return self.add_file(&directory.join(name), kind);
        }
        if let Some(name) = included(line, &CONSTRAINTS) {
            return self.add_file(&directory.join(name), Kind::Constraints);
        }
        let (list, line) = match (line.starts_with('-'), kind) {
            (true, _) => (&mut self.options, option(line)),
            (false, Kind::Requirements) => (&mut self.packages, package(line)),
            (false, Kind::Constraints) => (&mut self.constraints, package(line)),
        };
        list.push(line);
        Ok(())
    }
}

/// Returns the lines that are not empty, without comments, with continued lines joined.
fn whole_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut begun = String::new();
    for line in text.trim_start_matches('\u{feff}').lines() {
        if let Some(part) = line.strip_suffix('\\') {
            begun.push_str(part);
            continue;
        }
        begun.push_str(line);
        let line = without_comment(&std::mem::take(&mut begun)).trim().to_owned();
        lines.extend(Some(line).filter(|line| !line.is_empty()));
    }
    lines.extend(Some(without_comment(&begun).trim().to_owned()).filter(|line| !line.is_empty()));
    lines
}

/// A `#` begins a comment at the beginning of a line or after a space; URLs have others.
fn without_comment(line: &str) -> &str {
    let begins =
        |(at, _): &(usize, &str)| line[..*at].chars().next_back().is_none_or(char::is_whitespace);
    line.match_indices('#').find(begins).map_or(line, |(at, _)| &line[..at])
}

/// Returns the file that a line includes. Only the installer reads URLs.
fn included<'a>(line: &'a str, options: &[&str]) -> Option<&'a str> {
    let rest = options.iter().find_map(|option| line.strip_prefix(option))?;
    let name = rest.trim_start_matches(|c: char| c == '=' || c.is_whitespace()).trim_end();
    (!name.is_empty() && !name.contains("://")).then_some(name)
}

/// Returns an option with its value after one space.
fn option(line: &str) -> String {
    let line = match line.split_once(|c: char| c == '=' || c.is_whitespace()) {
        Some((name, value)) => format!("{name} {value}"),
        None => line.to_owned(),
    };
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns the requirement of a line: the name as indexes spell it, the rest without spaces outside of
/// quotes.
fn package(line: &str) -> String {
    if line.contains('/') && !line.contains("://") {
        // A path is not a name.
        return line.to_owned();
    }
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)));
    let (name, rest) = line.split_at(end.unwrap_or(line.len()));
    let mut normal = String::new();
    for part in name.to_ascii_lowercase().split(['-', '_', '.']).filter(|part| !part.is_empty()) {
        normal.extend(Some('-').filter(|_| !normal.is_empty()));
        normal.push_str(part);
    }
    if normal.is_empty() {
        return line.to_owned();
    }
    let mut quote = None;
    for c in rest.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c.is_whitespace() => continue,
            _ => {}
        }
        normal.push(c);
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requirements<const N: usize>(
        files: [(&str, &str); N],
    ) -> Result<Requirements, RequirementsError> {
        let directory = tempfile::tempdir().expect("a directory");
        for (name, text) in files {
            fs::write(directory.path().join(name), text).expect("it is written");
        }
        Requirements::read(&directory.path().join(files[0].0))
    }

    #[test]
    fn equal_requirements_have_one_text_however_they_are_written() {
        let text = |text: &str| requirements([("r.txt", text)]).expect("it is read").text();
        let one = text("numpy>=1.26\nPillow==10.0\ntorch; python_version < \"3.13\"\n");
        for other in [
            "# what the model needs\n\nPillow==10.0\nnumpy>=1.26 # fast\ntorch;python_version<\"3.13\"",
            "torch ; python_version < \"3.13\"\r\nPILLOW == 10.0\r\nnumpy >= 1.26\r\n",
            "\u{feff}pillow \\\n ==10.0\nnumpy>=1.26\nnumpy>=1.26\ntorch; python_version<\"3.13\"\n",
        ] {
            assert_eq!(text(other), one, "{other:?}");
        }
        assert_eq!(text("zope.interface\nA__b"), text("Zope-Interface\na-b"));
        for different in ["numpy>=1.27\n", "numpy\npillow\n", "--pre\nnumpy>=1.26\n"] {
            assert_ne!(text(different), text("numpy>=1.26\n"), "{different:?}");
        }
        assert_ne!(text("a; x == \"b c\""), text("a; x == \"bc\""));
        let first = text("--index-url=https://a/b\n--extra-index-url  https://c#d\n");
        assert_eq!(first, text("--index-url https://a/b\n--extra-index-url=https://c#d\n"));
        assert_ne!(first, text("--extra-index-url https://c#d\n--index-url https://a/b\n"));
    }

    #[test]
    fn included_files_count_as_what_they_ask_for() {
        let split = requirements([
            ("a.txt", "one\n-r b.txt\n--constraint=c.txt # known good\n-r https://host/d.txt\n"),
            ("b.txt", "two\n-ra.txt\n"),
            ("c.txt", "two<3\n"),
        ]);
        let whole = requirements([
            ("a.txt", "two\none\n-c c.txt\n-r https://host/d.txt"),
            ("c.txt", "Two < 3"),
        ]);
        assert_eq!(split.expect("all are there").text(), whole.expect("both are there").text());
        let error = requirements([("a.txt", "-c gone.txt")]).unwrap_err();
        assert!(error.to_string().contains("gone.txt"), "{error}");
    }

    #[test]
    fn what_is_named_by_its_place_is_known() {
        let names =
            |text: &str| requirements([("r.txt", text)]).expect("it is read").names_a_path();
        for text in ["./tiny.whl", ".", "-e .", "--find-links wheels/"] {
            assert!(names(text), "{text}");
        }
        for text in ["numpy", "a @ https://host/a.whl", "--index-url https://host/simple", "# a/b"]
        {
            assert!(!names(text), "{text}");
        }
    }
}
