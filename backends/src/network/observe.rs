//! The stream of states.

use super::node::Node;
use super::sysctl::BridgeNf;
use crate::port::Answer;
use crate::readable::Readable;
use kubesim_actors::ports::network::{Reply, State};
use std::cell::RefCell;
use std::future::pending;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// How often is looked at what has no news, and at everything after a failure.
const LOOK: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(1);

/// Until nobody listens. A state that is out of date before the asker took it is never sent:
/// bursts become one.
pub async fn run(node: Rc<RefCell<Node>>, answer: Answer<Reply>) {
    let news = Readable::new(node.borrow().news()).ok();
    let bridge_nf = BridgeNf::watch();
    let written = bridge_nf.as_ref().and_then(|watch| Readable::new(watch).ok());
    let mut told: Option<Arc<State>> = None;
    loop {
        let found = node.borrow_mut().state();
        let pause = match found {
            Ok(state) if told.as_ref() != Some(&state) => {
                if answer.send(Reply::State(Arc::clone(&state))).await.is_err() {
                    return;
                }
                told = Some(state);
                continue;
            }
            Ok(_) => LOOK,
            Err(_) => RETRY,
        };
        let stirred = Rc::clone(&node.borrow().stirred);
        tokio::select! {
            () = wait(news.as_ref()) => {}
            () = wait(written.as_ref()) => bridge_nf.iter().for_each(BridgeNf::drain),
            () = stirred.notified() => {}
            () = sleep(pause) => {}
        }
    }
}

/// Never, if it could not be had.
async fn wait(on: Option<&Readable>) {
    match on {
        Some(readable) if readable.wait().await.is_ok() => {}
        _ => pending().await,
    }
}
