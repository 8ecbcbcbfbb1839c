//! Places in a queue, taken when a request is made and not when its future is first polled.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// What the requests of one driver use one after the other, in the order in which they were made.
pub struct Turns<T>(Arc<Mutex<T>>);

impl<T: 'static> Turns<T> {
    pub fn new(value: T) -> Self {
        Turns(Arc::new(Mutex::new(value)))
    }

    /// The caller's place is behind all who called before, whoever is polled first. One who gives
    /// up its place by dropping the future holds up nobody.
    pub fn take(&self) -> impl Future<Output = OwnedMutexGuard<T>> + 'static {
        // tokio's lock is fair: whoever was polled first is served first. A task that has used up
        // its budget would not be queued (tokio's cooperative scheduling), hence `unconstrained`.
        let lock = Arc::clone(&self.0).lock_owned();
        let mut lock = Box::pin(tokio::task::unconstrained(lock));
        let first = lock.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        async move {
            match first {
                Poll::Ready(held) => held,
                Poll::Pending => pin!(lock).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn places_are_taken_when_asked_for() {
        let turns = Turns::new(Vec::new());
        let (first, second, third) = (turns.take(), turns.take(), turns.take());
        drop(second);
        let write = |turn, what| async move {
            let mut held: OwnedMutexGuard<Vec<u32>> = turn;
            tokio::task::yield_now().await;
            held.push(what);
        };
        tokio::join!(async { write(third.await, 3).await }, async { write(first.await, 1).await },);
        assert_eq!(*turns.take().await, [1, 3]);
    }
}
