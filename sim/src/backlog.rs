//! A queue that is filled and emptied within a step.

use kubesim_runtime::near;

/// First in, first out. When it has been emptied it begins anew at the same place, so a short
/// queue keeps to the same few cache lines; a ring would wander through all of its memory.
#[derive(Clone, Debug)]
pub struct Backlog<T> {
    items: Vec<Option<T>>,
    taken: usize,
}

impl<T> Default for Backlog<T> {
    fn default() -> Self {
        Backlog { items: Vec::new(), taken: 0 }
    }
}

impl<T> Backlog<T> {
    pub fn push(&mut self, item: T) {
        self.items.push(Some(item));
    }

    pub fn pop(&mut self) -> Option<T> {
        let next = self.items.get_mut(self.taken).and_then(Option::take);
        self.taken += 1;
        if next.is_none() {
            self.items.clear();
            self.taken = 0;
        }
        next
    }

    /// Asks for the memory of the first item, while the queue is empty.
    pub fn approach(&self) {
        near::slice(&self.items, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::Backlog;

    #[test]
    fn first_in_first_out_and_from_the_start_again() {
        let mut backlog = Backlog::default();
        for round in 0..3 {
            backlog.push((round, 1));
            backlog.push((round, 2));
            assert_eq!(backlog.pop(), Some((round, 1)));
            backlog.push((round, 3));
            assert_eq!((backlog.pop(), backlog.pop()), (Some((round, 2)), Some((round, 3))));
            assert_eq!((backlog.pop(), backlog.pop()), (None, None));
            assert_eq!((backlog.items.len(), backlog.taken), (0, 0));
        }
    }
}
