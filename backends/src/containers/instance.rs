//! Processes that are told from later ones with their number.

use std::fmt;
use std::fs;

/// A process by its number and its start, in clock ticks after boot; as text `1234-567890`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instance {
    pub id: u32,
    started: u64,
}

impl Instance {
    /// The calling one. The error says that /proc does not show it.
    pub fn own() -> Result<Instance, String> {
        Instance::of(std::process::id())
            .ok_or_else(|| "/proc does not show this process".to_owned())
    }

    /// The one that has this number now. One that is over and has not been waited for (state Z) is
    /// none any more, though /proc still shows it.
    pub fn of(id: u32) -> Option<Instance> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // Field 22 of proc_pid_stat(5). The second one is in parentheses and may hold anything.
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_whitespace();
        if matches!(fields.next()?, "Z" | "X") {
            return None;
        }
        let started = fields.nth(18)?.parse().ok()?;
        Some(Instance { id, started })
    }

    /// `None`: the text says no such thing.
    pub fn parse(text: &str) -> Option<Instance> {
        let (id, started) = text.split_once('-')?;
        Some(Instance { id: id.parse().ok()?, started: started.parse().ok()? })
    }

    pub fn lives(self) -> bool {
        Instance::of(self.id) == Some(self)
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.id, self.started)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::time::Duration;

    #[test]
    fn a_number_that_is_anothers_now_is_no_sign_of_life() {
        let own = Instance::own().expect("this process");
        assert_eq!(Instance::parse(&own.to_string()), Some(own));
        assert!(own.lives());
        let former = Instance { started: own.started + 1, ..own };
        assert!(!former.lives());
        assert!(!Instance { id: u32::MAX, ..own }.lives());
        let mut child = Command::new("true").spawn().expect("a process");
        let born = Instance::of(child.id());
        let over = || Instance::of(child.id()).is_none();
        while !over() {
            std::thread::sleep(Duration::from_millis(1));
        }
        // Nobody has waited for it, and its number is still its own.
        assert!(fs::exists(format!("/proc/{}", child.id())).expect("/proc"));
        assert!(born.is_none_or(|born| !born.lives()));
        child.wait().expect("it is over");
        for odd in ["", "1", "1-", "-1", "one-2", "somebody's"] {
            assert_eq!(Instance::parse(odd), None, "{odd}");
        }
    }
}
