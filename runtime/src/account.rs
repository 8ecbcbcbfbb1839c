//! What an actor says of itself when a person asks: nothing that it does depends on it.

use crate::Wall;

/// A line each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// What it knows of the world.
    pub sees: Vec<String>,
    /// What is not yet as it should be; nothing, if all is.
    pub wants: Vec<String>,
}

/// A remark, and when it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    pub at: Wall,
    pub text: String,
}

/// An actor as its host sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    pub name: &'static str,
    /// Counted from 1: all before it failed.
    pub life: u32,
    /// Of its whole host.
    pub steps: u64,
    pub last_step: Wall,
    /// How many answers and streams it is owed.
    pub awaits: usize,
    /// `None` while it waits to be started again.
    pub account: Option<Account>,
    /// The newest remarks, in order: what it did, and why.
    pub did: Vec<Remark>,
}
