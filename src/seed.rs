//! Dice that fall otherwise at every start.

use std::fs::File;
use std::io::Read;
use std::time::SystemTime;

/// What dice are drawn from (uids are): another one at every call.
pub fn seed() -> u64 {
    let mut bytes = [0; 8];
    match File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)) {
        Ok(()) => u64::from_ne_bytes(bytes),
        // Without it, the time is another one as well.
        Err(_) => SystemTime::UNIX_EPOCH.elapsed().map_or(0, |t| t.as_nanos() as u64),
    }
}
