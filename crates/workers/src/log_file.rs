//! A log file that several writers share, and that log rotation may move away.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{OFlags, fcntl_setfl};

/// A file that lines are added to, by all clones of this. Once it was moved away, as `logrotate`
/// does, the next lines begin another.
#[derive(Debug, Clone)]
pub struct LogFile {
    path: Arc<PathBuf>,
    file: Arc<Mutex<File>>,
}

impl LogFile {
    /// Opens it, or makes it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = Arc::new(Mutex::new(opened(path)?));
        Ok(Self { path: Arc::new(path.to_owned()), file })
    }
}

impl Write for LogFile {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // Where there can be no other, lines go on to where it is now.
        if was_moved(&file, &self.path)
            && let Ok(another) = opened(&self.path)
        {
            *file = another;
        }
        file.write_all(lines)?;
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn opened(path: &Path) -> io::Result<File> {
    // Else the opening of a FIFO would wait for a process that reads it.
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
