//! Brings memory nearer before it is needed.
//!
//! In a world of thousands of machines nearly everything a step touches was last touched seconds
//! ago and lies in main memory: the processor waits for it, line by line, longer than it computes.
//! An event loop knows what comes next, so it can ask for these lines in time. A hint changes no
//! value and no order.

use prefetch_index::prefetch_index;
use std::slice::from_ref;

/// Bytes of a cache line.
const LINE: usize = 64;

/// The cache line in which a value begins, and that of the byte after it if it is longer than a
/// line: of a value of a hundred bytes that is all.
#[inline]
pub fn value<T>(value: &T) {
    prefetch_index(from_ref(value), 0);
    if size_of::<T>() > LINE {
        prefetch_index(from_ref(value), 1);
    }
}

/// The first `lines` cache lines of a slice, or where as many of its values begin and end if these
/// are larger than a line. A slice that is empty may have room, and may be filled by then.
#[inline]
pub fn slice<T>(slice: &[T], lines: usize) {
    let step = (LINE / size_of::<T>().max(1)).max(1);
    for index in (0..=slice.len()).step_by(step).take(lines) {
        prefetch_index(slice, index);
    }
}
