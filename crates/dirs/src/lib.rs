//! Directories that no other user can write to, for a server's sockets, and for files that it
//! creates once and executes, such as the Python package and virtual environments.

mod cache;
mod digest;
mod private;

pub use cache::{Cache, NoCache};
pub use digest::Digest;
pub use private::{DirError, check_private, make_private};

/// Returns the effective user id of this process.
pub fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}
