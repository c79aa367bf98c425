//! The life of a server: [`Bound`], then [`Serving`], then drained.

use std::future::Future;

use crate::bound::Bound;
use crate::log::Log;
use crate::signals::Signals;
use crate::{Error, ServerSpec};

/// Runs a server until a signal, then drains it; or until `until` resolves, and then stops at once.
///
/// # Errors
/// See [`Error`].
pub async fn serve(
    spec: ServerSpec,
    log: Log,
    until: impl Future<Output = ()>,
) -> Result<(), Error> {
    // Before all else: a signal during the start stops the server in the same way.
    let mut signals = Signals::new()?;
    let bound = Bound::new(spec).await?;
    let mut serving = bound.launch(log)?;
    let end = serving.until_end(until, &mut signals).await;
    serving.drain(&end, &mut signals).await;
    end.into_result()
}
