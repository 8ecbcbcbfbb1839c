//! What a process may do (capabilities(7)).

use std::fs;

/// What it takes to make networks, fill them with devices and rules, and ping in them, with each
/// one's number (include/uapi/linux/capability.h).
const NETWORKS: [(&str, u32); 3] =
    [("CAP_SYS_ADMIN", 21), ("CAP_NET_ADMIN", 12), ("CAP_NET_RAW", 13)];

/// What of it the calling thread lacks, in a list for people; `None`: nothing.
pub fn lacking() -> Option<String> {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    lacking_in(&status)
}

/// `status` is a thread's as /proc shows it (proc_pid_status(5)).
fn lacking_in(status: &str) -> Option<String> {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
    let effective = effective.unwrap_or_default();
    let lacking = NETWORKS.iter().filter(|(_, number)| effective >> number & 1 == 0);
    let names: Vec<&str> = lacking.map(|(name, _)| *name).collect();
    let (last, others) = names.split_last()?;
    Some(if others.is_empty() {
        (*last).to_owned()
    } else {
        format!("{} and {last}", others.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_looked_for() {
        let of = |effective: u64| lacking_in(&format!("Name:\tx\nCapEff:\t{effective:016x}\n"));
        assert_eq!(of(u64::MAX), None);
        assert_eq!(of(1 << 21 | 1 << 13).as_deref(), Some("CAP_NET_ADMIN"));
        assert_eq!(of(1 << 21 | 1 << 12).as_deref(), Some("CAP_NET_RAW"));
        let all = "CAP_SYS_ADMIN, CAP_NET_ADMIN and CAP_NET_RAW";
        assert_eq!(of(0).as_deref(), Some(all));
        assert_eq!(lacking_in("").as_deref(), Some(all));
    }
}
