//! The life of a server: [`Bound`], then [`Serving`], then drained.

use std::future::Future;
use std::pin::pin;

use crate::bound::Bound;
use crate::log::Log;
use crate::serving::End;
use crate::signals::Signals;
use crate::{Error, ServerSpec};

/// Runs a server until a signal, then drains it; or until `until` resolves, and then stops at once. After an
/// upgrade this process keeps the new server, until that ends.
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
    let mut until = pin!(until);
    match serving.until_end(until.as_mut(), &mut signals).await {
        End::Upgraded(successor) => serving.hand_over(successor, until, &mut signals).await,
        end => {
            serving.drain(&end, &mut signals).await;
            end.into_result()
        }
    }
}
