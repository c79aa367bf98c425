//! A log file that several writers share, and that log rotation may move away.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{OFlags, fcntl_setfl};

/// A file to which all clones add lines. Once the file was moved away, as `logrotate` does, the next
/// line creates another.
#[derive(Debug, Clone)]
pub struct LogFile {
    path: Arc<PathBuf>,
    file: Arc<Mutex<Lines<File>>>,
}

/// A file of lines of which one may be cut: a disk was full when half of it was written.
#[derive(Debug)]
struct Lines<W> {
    file: W,
    is_cut: bool,
}

impl<W: Write> Lines<W> {
    fn new(file: W) -> Self {
        Self { file, is_cut: false }
    }

    /// Writes lines, after the end of a line that was cut.
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.is_cut {
            self.file.write_all(b"\n")?;
            self.is_cut = false;
        }
        let mut rest = lines;
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.is_cut = rest[written - 1] != b'\n';
                    rest = &rest[written..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // A caller that writes part of a line writes the rest of it later.
        self.is_cut = false;
        Ok(())
    }
}

impl LogFile {
    /// Opens the file, or creates it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = Arc::new(Mutex::new(Lines::new(opened(path)?)));
        Ok(Self { path: Arc::new(path.to_owned()), file })
    }
}

impl Write for LogFile {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // If no other file can be created, lines go to the file that was moved.
        if was_moved(&file.file, &self.path)
            && let Ok(another) = opened(&self.path)
        {
            *file = Lines::new(another);
        }
        file.write(lines)?;
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn opened(path: &Path) -> io::Result<File> {
    // Without this the opening of a FIFO would wait for a process that reads it.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().create(true).append(true).custom_flags(flags).open(path);
    let file = file.map_err(|error| {
        if fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo()) {
            let why = format!("no process reads this FIFO; start its reader first ({error})");
            return io::Error::new(error.kind(), why);
        }
        error
    })?;
    fcntl_setfl(&file, OFlags::APPEND)?;
    Ok(file)
}

fn was_moved(file: &File, path: &Path) -> bool {
    let place = |found: fs::Metadata| (found.dev(), found.ino());
    file.metadata().ok().map(place) != fs::metadata(path).ok().map(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_moved_away_is_followed_by_another() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        let mut log = LogFile::open(&path).unwrap();
        log.write_all(b"one\n").unwrap();
        log.clone().write_all(b"two\n").unwrap();
        let moved = directory.path().join("a.log.1");
        fs::rename(&path, &moved).unwrap();
        log.write_all(b"three\n").unwrap();
        let read = |path| fs::read_to_string(path).unwrap();
        assert_eq!((read(moved), read(path)), ("one\ntwo\n".into(), "three\n".into()));
        assert!(LogFile::open(directory.path()).is_err());
    }

    /// A disk with room for so many bytes.
    struct Disk(Vec<u8>, usize);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let bytes = &bytes[..bytes.len().min(self.1 - self.0.len())];
            self.0.extend_from_slice(bytes);
            if bytes.is_empty() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(bytes.len()) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_a_full_disk_cut_does_not_spoil_the_next() {
        let mut lines = Lines::new(Disk(Vec::new(), 9));
        lines.write(b"first\n").unwrap();
        assert!(lines.write(b"second\n").is_err());
        assert!(lines.write(b"third\n").is_err());
        lines.file.1 = 99;
        lines.write(b"fourth\n").unwrap();
        lines.write(b"fifth\n").unwrap();
        assert_eq!(lines.file.0, b"first\nsec\nfourth\nfifth\n");
        lines.file.1 = lines.file.0.len();
        assert!(lines.write(b"sixth\n").is_err(), "nothing of it is written");
        lines.file.1 = 99;
        lines.write(b"seventh\n").unwrap();
        assert!(lines.file.0.ends_with(b"\nfifth\nseventh\n"));
    }

    #[test]
    fn a_fifo_is_written_to_where_a_process_reads_it_and_refused_elsewhere() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let refused = LogFile::open(&path).unwrap_err().to_string();
        assert!(refused.starts_with("no process reads this FIFO"), "{refused}");
        let reader = {
            let path = path.clone();
            std::thread::spawn(move || fs::read_to_string(path).unwrap())
        };
        let mut log = loop {
            if let Ok(log) = LogFile::open(&path) {
                break log;
            }
            std::thread::yield_now();
        };
        log.write_all(b"one\n").unwrap();
        drop(log);
        assert_eq!(reader.join().unwrap(), "one\n");
    }
}
