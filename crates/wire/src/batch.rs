//! What was read together is decided in order, and waited for once.

use tower::{Service, ServiceExt};
use verbatim_core::{Operation, Operations, Permit, Recorded, Refusal};

/// Asks for a permit for each operation, in order, then waits until all that were permitted are durable: they were appended
/// before the first wait, so that one takes the time of all. The answers are in the order of the operations.
///
/// # Cancel safety
/// Dropped, it drops the permits, which records that their operations were aborted.
pub async fn record(operations: &mut Operations, batch: Vec<Operation>) -> Vec<Result<Recorded, Refusal>> {
    let mut decided = Vec::with_capacity(batch.len());
    for operation in batch {
        decided.push(decide(operations, operation).await);
    }
    let mut recorded = Vec::with_capacity(decided.len());
    for decision in decided {
        recorded.push(match decision {
            Ok(permit) => permit.recorded().await,
            Err(refusal) => Err(refusal),
        });
    }
    recorded
}

/// Asks for a permit for one operation. It is recorded, or refused on record, but not waited for.
///
/// # Errors
/// It is refused.
pub async fn decide(operations: &mut Operations, operation: Operation) -> Result<Permit, Refusal> {
    operations.ready().await?.call(operation).await
}
