//! Memory for the many small values that actors make and drop (docs/benches.md has what was
//! measured of it).

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` (mimalloc.h, `mi_option_e`): in milliseconds; -1 for no purging.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Memory that is free for the moment stays with the process, which is over soon and needs it again
/// at once: given back after 10 ms, as is the default, it costs a twentieth of the time of a large
/// simulation to be cleared and mapped again. To be called before there are other threads.
pub fn keep_memory() {
    #[expect(unsafe_code, reason = "the option has no safe name in the mimalloc crate")]
    // SAFETY: writes one number into mimalloc's table of options (options.c), which checks the
    // index; nobody reads it at the same time, as no other thread has been started.
    unsafe {
        libmimalloc_sys::mi_option_set(PURGE_DELAY, -1);
    }
}
