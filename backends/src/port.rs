//! What every driver is: requests of one port in, replies out.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

/// A future of the thread that made it.
pub type Local<T> = Pin<Box<dyn Future<Output = T> + 'static>>;

/// Carries out the requests of one port.
///
/// A driver acts where its thread is: it opens its sockets and starts its programs in the network
/// namespace of the thread that calls it, and hands nothing to a pool of other threads. So a real
/// node has one, and many nodes on one machine have a thread each.
pub trait Port: 'static {
    type Request;
    type Reply;

    /// Called in the order in which requests were made: what must keep that order is queued before
    /// this returns. The future is the rest. It answers as the request's
    /// [`Effect`](kubesim_runtime::Effect) says: once, or until [`Closed`] tells a stream to end.
    fn perform(&self, request: Self::Request, answer: Answer<Self::Reply>) -> Local<()>;
}

/// The way back to who asked.
pub struct Answer<R> {
    send: Rc<dyn Fn(R) -> Local<Result<(), Closed>>>,
}

impl<R: 'static> Answer<R> {
    pub fn new<F>(send: impl Fn(R) -> F + 'static) -> Self
    where
        F: Future<Output = Result<(), Closed>> + 'static,
    {
        Answer { send: Rc::new(move |reply| Box::pin(send(reply))) }
    }

    /// Waits while the asker is busy.
    pub async fn send(&self, reply: R) -> Result<(), Closed> {
        (self.send)(reply).await
    }
}

/// Nobody waits for the answer any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;
