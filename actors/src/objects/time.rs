//! Kubernetes' timestamps from the civil clock and back.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use k8s_openapi::jiff::Timestamp;
use kubesim_runtime::Wall;

fn timestamp(nanos: i128) -> Timestamp {
    Timestamp::from_nanosecond(nanos).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// `metav1.Time` has whole seconds.
pub fn time(wall: Wall) -> Time {
    Time(timestamp(i128::from(wall.unix_secs()) * 1_000_000_000))
}

pub fn micro_time(wall: Wall) -> MicroTime {
    MicroTime(timestamp(wall.unix_nanos().div_euclid(1_000) * 1_000))
}

pub fn wall(timestamp: Timestamp) -> Wall {
    Wall::from_unix_nanos(timestamp.as_nanosecond())
}
