//! How what serves is told to end, and asked again if it takes its time.

use crate::service;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::spawn_local;

/// Hears of it.
pub struct Ending(UnboundedReceiver<()>);

/// Tells it.
#[derive(Clone)]
pub struct End(UnboundedSender<()>);

impl Ending {
    /// By whoever has the other one.
    pub fn new() -> (End, Ending) {
        let (send, receive) = unbounded_channel();
        (End(send), Ending(receive))
    }

    /// By SIGTERM or SIGINT, heard from now on.
    pub fn by_signals() -> Result<Ending, String> {
        let hear = |kind| signal(kind).map_err(|error| format!("hearing of signals: {error}"));
        let (mut terminate, mut interrupt) =
            (hear(SignalKind::terminate())?, hear(SignalKind::interrupt())?);
        let (end, ending) = Ending::new();
        spawn_local(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                service::stopping();
                end.now();
            }
        });
        Ok(ending)
    }

    /// Until it is told once more. Nobody being left to tell it is the same.
    pub async fn told(&mut self) {
        self.0.recv().await;
    }
}

impl End {
    pub fn now(&self) {
        // Who does not hear it has ended.
        let _ = self.0.send(());
    }
}
