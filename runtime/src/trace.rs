//! The last steps of an actor, kept in a small ring for the report of a failure.

use crate::Time;
use std::collections::VecDeque;

/// One step: what happened to the actor and what it asked for, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub time: Time,
    pub event: String,
    pub effects: Vec<String>,
}

/// The last `capacity` steps, oldest first.
#[derive(Clone, Debug)]
pub struct Ring {
    steps: VecDeque<Step>,
    capacity: usize,
}

impl Ring {
    pub fn new(capacity: usize) -> Self {
        Ring { steps: VecDeque::with_capacity(capacity), capacity }
    }

    pub fn push(&mut self, step: Step) {
        if self.capacity == 0 {
            return;
        }
        if self.steps.len() == self.capacity {
            self.steps.pop_front();
        }
        self.steps.push_back(step);
    }

    pub fn iter(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter()
    }
}
