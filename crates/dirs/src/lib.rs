//! Directories that no other user can write to: where a server keeps its sockets, and the files that
//! it makes once and runs, such as the Python package and virtual environments.

mod cache;
mod private;

pub use cache::{Cache, NoCache};
pub use private::{DirError, check_private, make_private};

/// Returns the id of the user that this process acts as.
pub fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}
