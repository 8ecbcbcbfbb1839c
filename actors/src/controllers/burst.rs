//! Creates go out in batches of 1, 2, 4, …, each when the one before has succeeded, so that a
//! quota or a broken template costs one refusal and not hundreds (upstream `slowStartBatch`).

use super::client::{Client, Subject};
use crate::ports::api::Request;
use std::collections::VecDeque;

/// Creates and deletes of one sync (upstream `BurstReplicas`, `MaxPodCreateDeletePerSync`).
pub const MOST: usize = 500;

#[derive(Clone, Debug)]
pub struct Burst {
    todo: VecDeque<Request>,
    batch: usize,
    out: usize,
}

impl Burst {
    /// Sends the first batch of these.
    pub fn start(
        requests: impl IntoIterator<Item = Request>,
        subject: &Subject,
        client: &mut Client,
    ) -> Self {
        let mut burst = Burst { todo: requests.into_iter().collect(), batch: 1, out: 0 };
        burst.send(subject, client);
        burst
    }

    /// A batch is under way.
    pub fn is_out(&self) -> bool {
        self.out > 0
    }

    /// One of its calls ended: the last one of a batch is followed by the next batch.
    pub fn answered(&mut self, subject: &Subject, client: &mut Client) {
        self.out = self.out.saturating_sub(1);
        if self.out == 0 {
            self.batch *= 2;
            self.send(subject, client);
        }
    }

    /// A call was refused: what was not sent stays unsent.
    pub fn refused(&mut self) {
        self.todo.clear();
    }

    fn send(&mut self, subject: &Subject, client: &mut Client) {
        let count = self.batch.min(self.todo.len());
        for request in self.todo.drain(..count) {
            client.ask(subject.clone(), request);
        }
        self.out = count;
    }
}
