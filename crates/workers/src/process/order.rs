//! The order that this program writes to the standard input of a process that it launches.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncWrite, AsyncWriteExt};

/// The bytes of a file that are held at a time.
const PIECE_BYTES: usize = 256 * 1024;

/// The order on a process's standard input, which no other process can read.
#[derive(Clone, Copy)]
pub(crate) struct Order<'a> {
    pub(crate) text: &'a [u8],
    /// A file that follows the text, which may be large.
    pub(crate) pickle: Option<&'a Path>,
}

impl Order<'_> {
    /// Sends the order. Its file is sent while the process starts.
    pub(super) async fn send(&self, mut stdin: impl AsyncWrite + Unpin + Send + 'static) {
        // The exit status shows that a process ended before it read its order.
        let _ = stdin.write_all(self.text).await;
        if let Some(pickle) = self.pickle {
            tokio::spawn(send_file(pickle.to_owned(), stdin));
        }
    }
}

/// Sends a file piece by piece. The exit status shows whether the process ended before all was sent.
async fn send_file(path: PathBuf, mut to: impl AsyncWrite + Unpin) {
    let Ok(file) = File::open(path).map(Arc::new) else { return };
    let mut at = 0;
    loop {
        let file = file.clone();
        let read = move || {
            let mut piece = vec![0; PIECE_BYTES];
            let count = file.read_at(&mut piece, at)?;
            piece.truncate(count);
            std::io::Result::Ok(piece)
        };
        match tokio::task::spawn_blocking(read).await {
            Ok(Ok(piece)) if !piece.is_empty() && to.write_all(&piece).await.is_ok() => {
                at += piece.len() as u64;
            }
            _ => return,
        }
    }
}
