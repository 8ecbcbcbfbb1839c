//! By which signals somebody ends a run: ^C, SIGTERM, and SIGHUP when the terminal goes.

use std::fs;

/// Whether SIGHUP is one of them. Under nohup(1) it is ignored, and is to be: a program that blocks
/// it or handles it would hear it all the same (sig_ignored, kernel/signal.c).
pub fn hears_hangups() -> bool {
    const SIGHUP: u32 = 1;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    !ignores(&status, SIGHUP)
}

/// By a process's status (`SigIgn` of proc_pid_status(5)): a bit for each signal, the first one's
/// lowest.
fn ignores(status: &str, signal: u32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::ignores;

    #[test]
    fn a_signal_is_a_bit() {
        let status = "SigBlk:\tffffffffffffffff\nSigIgn:\t0000000000001001\nSigCgt:\t0\n";
        let ignored = (1..=64).filter(|signal| ignores(status, *signal));
        assert_eq!(ignored.collect::<Vec<_>>(), [1, 13]);
        assert!(!ignores("", 1));
    }
}
